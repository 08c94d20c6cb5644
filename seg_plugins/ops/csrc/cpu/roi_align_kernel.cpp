// RoIAlign on the CPU: parallel over RoIs forward and over rows of the gradient maps backward, so
// that no two threads write one value and every result is the same for any number of threads.

#include <algorithm>
#include <array>
#include <atomic>
#include <numeric>

#include "cpu/large_pages.h"
#include "cpu/roi_align_simd.h"
#include "roi_align_op.h"

namespace seg_plugins {
namespace roi_align {
namespace {

// Calls work(begin, end) for chunks of [0, count) from all threads, whoever is free next.
template <class Work>
void parallel_dynamic(int64_t count, int64_t chunk, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t threads =
      std::min<int64_t>(torch::stable::get_num_threads(), (count + chunk - 1) / chunk);
  parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t begin; (begin = next.fetch_add(chunk)) < count;) {
      work(begin, std::min(begin + chunk, count));
    }
  });
}

// Where one RoI lies.
template <class A>
struct Plan {
  int64_t roi;
  int64_t image;
  int level;  // -1: no level takes it
  Axis<A> y, x;
};

template <class A>
Plan<A> make_plan(const A* box, A log2_size, int64_t roi, const Settings& s) {
  Plan<A> plan{};
  plan.roi = roi;
  const A image = box[0];
  SEG_CHECK_INDEX(image > A(-1) && image < A(s.batch), "roi_align: boxes[", roi, "] is of image ",
                  image, ", but the batch has ", s.batch, " images");
  plan.image = static_cast<int64_t>(image);
  plan.level = choose_level(log2_size, s.rule);
  const int level = std::max(plan.level, 0);
  const A scale = static_cast<A>(s.scales[level]);
  plan.y =
      make_axis(box[2], box[4], scale, s.aligned, s.sampling_ratio, s.height, s.heights[level]);
  plan.x = make_axis(box[1], box[3], scale, s.aligned, s.sampling_ratio, s.width, s.widths[level]);
  if (plan.level < 0 || plan.y.samples <= 0 || plan.x.samples <= 0) {
    plan.y.samples = plan.x.samples = 0;
  }
  return plan;
}

void call_in_place(const char* name, const Tensor& tensor) {
  StableIValue stack[1] = {torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack, TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // the same tensor again, to be let go
}

// The plans of all RoIs, neighbours on one map beside each other: they share cached pixels.
template <class A>
std::vector<Plan<A>> make_plans(const Tensor& boxes, const Settings& settings) {
  const Tensor rows = dense(to_type(boxes, kSumType<A>));
  const A* box = rows.const_data_ptr<A>();
  const int64_t count = rows.size(0);
  // relative_size() in PyTorch's own functions, whose square root and logarithm are not always the
  // nearest number: a last bit that differs from Detectron2's could change a box's level.
  const Tensor sizes = empty({count}, kSumType<A>);
  A* size = sizes.mutable_data_ptr<A>();
  for (int64_t i = 0; i < count; ++i) {
    const A* b = box + 5 * i;
    size[i] = (b[3] - b[1]) * (b[4] - b[2]);
  }
  call_in_place("aten::sqrt_", sizes);
  for (int64_t i = 0; i < count; ++i) size[i] = size[i] / A(settings.rule.canonical_size) + A(1e-8);
  call_in_place("aten::log2_", sizes);
  const A* log2_size = size;
  std::vector<Plan<A>> plans;
  plans.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    plans.push_back(make_plan(box + 5 * i, log2_size[i], i, settings));
  }
  std::stable_sort(plans.begin(), plans.end(), [](const Plan<A>& a, const Plan<A>& b) {
    if (a.level != b.level) return a.level < b.level;
    if (a.image != b.image) return a.image < b.image;
    // Unordered starts belong to RoIs without samples.
    return (a.y.samples ? a.y.start : A(0)) < (b.y.samples ? b.y.start : A(0));
  });
  return plans;
}

// Memory for the tap tables of one axis.
template <class A>
struct TableStorage {
  std::vector<int> start, index;
  std::vector<A> weight;

  TapTable<A> table(int lists, int64_t capacity) {
    if (static_cast<int64_t>(start.size()) < lists + 1) start.resize(lists + 1);
    if (static_cast<int64_t>(index.size()) < capacity) {
      index.resize(capacity);
      weight.resize(capacity);
    }
    return {start.data(), index.data(), weight.data(), lists};
  }

  // What was filled in last, to read.
  TapTable<A> view() const {
    return {const_cast<int*>(start.data()), const_cast<int*>(index.data()),
            const_cast<A*>(weight.data()), static_cast<int>(start.size()) - 1};
  }
};

template <class A>
TapTable<A> bin_table(const Axis<A>& axis, TableStorage<A>* storage) {
  TapTable<A> table = storage->table(axis.bins, tap_capacity(axis.size, axis.bins));
  int end = table.start[0] = 0;
  for (int bin = 0; bin < axis.bins; ++bin) {
    if (axis.samples) end += bin_taps(axis, bin, table.index + end, table.weight + end);
    table.start[bin + 1] = end;
  }
  return table;
}

// The half-open range of pixels that a table reads.
template <class A>
std::pair<int, int> pixel_range(const TapTable<A>& table) {
  const int count = table.start[table.lists];
  if (count == 0) return {0, 0};
  const auto ends = std::minmax_element(table.index, table.index + count);
  return {*ends.first, *ends.second + 1};
}

// ---------------------------------------------------------------------------------- forward

// A result that the caches cannot keep is written past them: nothing is read before it is
// overwritten, and the feature maps stay.
constexpr int64_t kStreamedBytes = int64_t{8} << 20;

template <class T>
void pool_mean(const std::vector<const T*>& maps, const std::vector<Plan<SumType<T>>>& plans,
               const Settings& s, bool channels_last, T* output) {
  using A = SumType<T>;
  const auto& kernels = Kernels<T>::best();
  const int64_t out_size = s.channels * s.height * s.width;
  const bool stream = int64_t(plans.size()) * out_size * int64_t(sizeof(T)) >= kStreamedBytes &&
                      reinterpret_cast<uintptr_t>(output) % 64 == 0 &&
                      s.channels * sizeof(T) % 64 == 0;
  parallel_dynamic(plans.size(), 4, [&](int64_t begin, int64_t end) {
    static thread_local TableStorage<A> row_storage, col_storage;
    static thread_local std::vector<A> patch, pooled;
    for (int64_t i = begin; i < end; ++i) {
      const Plan<A>& plan = plans[i];
      T* out = output + plan.roi * out_size;
      if (plan.y.samples == 0) {
        std::fill(out, out + out_size, T(0));
        continue;
      }
      const int64_t height = plan.y.size, width = plan.x.size;
      const T* map = maps[plan.level] + plan.image * s.channels * height * width;
      PoolJob<T> job;
      job.rows = bin_table(plan.y, &row_storage);
      job.cols = bin_table(plan.x, &col_storage);
      job.channels = s.channels;
      job.map = map;
      job.output = out;
      job.prefetch = true;
      job.stream = stream;
      job.width = width;
      job.plane = height * width;
      if (channels_last) {
        kernels.pool(job);
      } else {
        std::tie(job.first_row, job.last_row) = pixel_range(job.rows);
        std::tie(job.first_col, job.last_col) = pixel_range(job.cols);
        kernels.pool_planes(job, patch, pooled);
      }
    }
    if (stream) stream_fence();
  });
}

template <class T>
void pool_maximum(const std::vector<const T*>& maps, const std::vector<Plan<SumType<T>>>& plans,
                  const Settings& s, bool channels_last, T* output, int* winners) {
  using A = SumType<T>;
  const auto& kernels = Kernels<T>::best();
  const int64_t channels = s.channels, bins = int64_t(s.height) * s.width;
  parallel_dynamic(plans.size(), 4, [&](int64_t begin, int64_t end) {
    std::vector<A> best(channels);
    std::vector<int> number(channels);
    for (int64_t i = begin; i < end; ++i) {
      const Plan<A>& plan = plans[i];
      const int64_t height = plan.y.size, width = plan.x.size;
      const T* map = maps[std::max(plan.level, 0)] + plan.image * channels * height * width;
      for (int64_t bin = 0; bin < bins; ++bin) {
        const int row = bin / s.width, col = bin % s.width;
        kernels.maximum(map, plan.y, plan.x, row, col, channels_last ? width * channels : width,
                        channels_last ? channels : 1, channels, channels_last ? 1 : height * width,
                        best.data(), number.data());
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t at =
              plan.roi * channels * bins + (channels_last ? bin * channels + c : c * bins + bin);
          output[at] = T(best[c]);
          winners[at] = number[c];
        }
      }
    }
  });
}

// --------------------------------------------------------------------------------- backward

// The transposed tables of every RoI: for each pixel of its range, the bins that read it.
template <class A>
struct PixelTables {
  struct Roi {
    int first_row, last_row, first_col, last_col;
    TableStorage<A> rows, cols;
  };
  std::vector<Roi> rois;

  static std::pair<int, int> transpose(const Axis<A>& axis, TableStorage<A>* bins,
                                       TableStorage<A>* pixels) {
    const TapTable<A> from = bin_table(axis, bins);
    const auto range = pixel_range(from);
    const int count = from.start[from.lists], lists = range.second - range.first;
    TapTable<A> to = pixels->table(lists, count);
    std::fill(to.start, to.start + lists + 1, 0);
    for (int k = 0; k < count; ++k) ++to.start[from.index[k] - range.first + 1];
    std::partial_sum(to.start, to.start + lists + 1, to.start);
    for (int bin = 0; bin < from.lists; ++bin) {
      for (int k = from.start[bin]; k < from.start[bin + 1]; ++k) {
        const int slot = to.start[from.index[k] - range.first]++;
        to.index[slot] = bin;
        to.weight[slot] = from.weight[k];
      }
    }
    // Each start has become its list's end: the next list's start.
    for (int i = lists; i > 0; --i) to.start[i] = to.start[i - 1];
    to.start[0] = 0;
    return range;
  }

  explicit PixelTables(const std::vector<Plan<A>>& plans) : rois(plans.size()) {
    parallel_dynamic(plans.size(), 16, [&](int64_t begin, int64_t end) {
      TableStorage<A> bins;
      for (int64_t i = begin; i < end; ++i) {
        Roi& roi = rois[i];
        std::tie(roi.first_row, roi.last_row) = transpose(plans[i].y, &bins, &roi.rows);
        std::tie(roi.first_col, roi.last_col) = transpose(plans[i].x, &bins, &roi.cols);
      }
    });
  }
};

// A band of rows of one image's gradient map: one thread's work at a time.
struct Band {
  int level;
  int64_t image;
  int first_row, last_row;
};

std::vector<Band> make_bands(const Settings& s, int64_t bytes_per_value) {
  constexpr int64_t kBytes = 1 << 21;
  std::vector<Band> bands;
  for (int level = 0; level < s.levels; ++level) {
    const int64_t row_bytes = std::max<int64_t>(s.widths[level] * s.channels * bytes_per_value, 1);
    const int rows = static_cast<int>(std::clamp<int64_t>(kBytes / row_bytes, 1, 64));
    for (int64_t image = 0; image < s.batch; ++image) {
      for (int row = 0; row < s.heights[level]; row += rows) {
        bands.push_back({level, image, row, std::min(row + rows, s.heights[level])});
      }
    }
  }
  return bands;
}

// grad is channels last. Rows of a map in its own dtype and layout are summed in place; others in
// a row of fp32 (fp64) with the channels last, which then is written out.
template <class T>
void spread_mean(const Tensor& grad, const std::vector<Plan<SumType<T>>>& plans, const Settings& s,
                 bool channels_last, const std::vector<T*>& results) {
  using A = SumType<T>;
  const auto& kernels = Kernels<T>::best();
  const PixelTables<A> tables(plans);
  const auto bands = make_bands(s, sizeof(T));
  const T* grad_data = grad.const_data_ptr<T>();
  const int64_t channels = s.channels;
  const bool in_place = channels_last && std::is_same_v<T, A>;
  parallel_dynamic(bands.size(), 1, [&](int64_t begin, int64_t end) {
    std::vector<A> scratch;
    for (int64_t b = begin; b < end; ++b) {
      const Band& band = bands[b];
      const int64_t width = s.widths[band.level], height = s.heights[band.level];
      T* image = results[band.level] + band.image * channels * height * width;
      if (!in_place) scratch.resize(width * channels);
      std::vector<int64_t> active;
      for (size_t i = 0; i < plans.size(); ++i) {
        const auto& roi = tables.rois[i];
        if (plans[i].level == band.level && plans[i].image == band.image &&
            roi.first_row < band.last_row && roi.last_row > band.first_row) {
          active.push_back(i);
        }
      }
      for (int y = band.first_row; y < band.last_row; ++y) {
        A* row = in_place ? reinterpret_cast<A*>(image + y * width * channels) : scratch.data();
        std::fill(row, row + width * channels, A(0));
        for (const int64_t i : active) {
          const auto& roi = tables.rois[i];
          if (y < roi.first_row || y >= roi.last_row) continue;
          SpreadJob<T> job;
          job.grad = grad_data + plans[i].roi * channels * s.height * s.width;
          job.row = row;
          job.channels = channels;
          job.bin_columns = s.width;
          job.first_col = roi.first_col;
          job.last_col = roi.last_col;
          const auto rows = roi.rows.view(), cols = roi.cols.view();
          job.bin_rows = rows.list(y - roi.first_row);
          job.cols = cols;
          kernels.spread(job);
        }
        if (!in_place) {
          kernels.write_row(row, width, channels,
                            image + (channels_last ? y * width * channels : y * width),
                            channels_last ? channels : 1, channels_last ? 1 : height * width);
        }
      }
    }
  });
}

template <class T>
void spread_maximum(const Tensor& grad, const Tensor& winners,
                    const std::vector<Plan<SumType<T>>>& plans, const Settings& s,
                    bool channels_last, const std::vector<T*>& results) {
  using A = SumType<T>;
  const auto& kernels = Kernels<T>::best();
  const auto bands = make_bands(s, sizeof(T));
  const T* grad_data = grad.const_data_ptr<T>();
  const int* winner_data = winners.const_data_ptr<int>();
  const int64_t channels = s.channels, bins = int64_t(s.height) * s.width;
  parallel_dynamic(bands.size(), 1, [&](int64_t begin, int64_t end) {
    std::vector<A> scratch;
    for (int64_t b = begin; b < end; ++b) {
      const Band& band = bands[b];
      const int64_t width = s.widths[band.level], height = s.heights[band.level];
      T* image = results[band.level] + band.image * channels * height * width;
      scratch.assign((band.last_row - band.first_row) * width * channels, A(0));
      for (const Plan<A>& plan : plans) {
        if (plan.level != band.level || plan.image != band.image || !plan.y.samples) continue;
        // All of the RoI's rows, and one more on both sides, against the band's.
        const A ends[2] = {plan.y.start, plan.y.start + A(s.height) * plan.y.bin};
        if (std::min(ends[0], ends[1]) - A(2) > A(band.last_row)) continue;
        if (std::max(ends[0], ends[1]) + A(2) < A(band.first_row)) continue;
        for (int64_t bin = 0; bin < bins; ++bin) {
          const int64_t from = (plan.roi * bins + bin) * channels;
          for (int64_t c = 0; c < channels; ++c) {
            if (winner_data[from + c] == kNoPoint) continue;
            const Point<A> point =
                point_at(plan.y, plan.x, bin / s.width, bin % s.width, winner_data[from + c]);
            const A g = A(grad_data[from + c]);
            const auto add = [&](int y, int x, A weight) {
              if (y < band.first_row || y >= band.last_row || weight == A(0)) return;
              scratch[((y - band.first_row) * width + x) * channels + c] += weight * g;
            };
            add(point.y.low, point.x.low, point.y.low_weight * point.x.low_weight);
            add(point.y.low, point.x.high, point.y.low_weight * point.x.high_weight);
            add(point.y.high, point.x.low, point.y.high_weight * point.x.low_weight);
            add(point.y.high, point.x.high, point.y.high_weight * point.x.high_weight);
          }
        }
      }
      for (int y = band.first_row; y < band.last_row; ++y) {
        kernels.write_row(scratch.data() + (y - band.first_row) * width * channels, width, channels,
                          image + (channels_last ? y * width * channels : y * width),
                          channels_last ? channels : 1, channels_last ? 1 : height * width);
      }
    }
  });
}

template <class T>
std::vector<const T*> read_from(const std::vector<Tensor>& maps) {
  std::vector<const T*> pointers;
  for (const Tensor& map : maps) pointers.push_back(map.const_data_ptr<T>());
  return pointers;
}

template <class T>
std::vector<T*> write_to(const std::vector<Tensor>& maps) {
  std::vector<T*> pointers;
  for (const Tensor& map : maps) pointers.push_back(map.mutable_data_ptr<T>());
  return pointers;
}

}  // namespace

Pooled forward_cpu(const std::vector<Tensor>& features, const Tensor& boxes, bool channels_last,
                   const Settings& s) {
  const std::array<int64_t, 4> shape = {boxes.size(0), s.channels, s.height, s.width};
  const ScalarType type = features[0].scalar_type();
  const Tensor output = empty(shape, type, nullptr, channels_last);
  prefer_large_pages(output);
  const Tensor winners = s.maximum ? empty(shape, kInt, nullptr, channels_last) : empty({0}, kInt);
  visit_floating(type, "roi_align", [&](auto zero) {
    using T = decltype(zero);
    const auto plans = make_plans<SumType<T>>(boxes, s);
    if (s.channels == 0) return;
    const auto maps = read_from<T>(features);
    T* out = output.mutable_data_ptr<T>();
    if (s.maximum) {
      pool_maximum<T>(maps, plans, s, channels_last, out, winners.mutable_data_ptr<int>());
    } else {
      pool_mean<T>(maps, plans, s, channels_last, out);
    }
  });
  return {output, winners};
}

std::vector<Tensor> backward_cpu(const Tensor& grad_in, const Tensor& winners, const Tensor& boxes,
                                 bool channels_last, const Settings& s) {
  const ScalarType type = grad_in.scalar_type();
  std::vector<Tensor> results;
  for (int level = 0; level < s.levels; ++level) {
    results.push_back(empty({s.batch, s.channels, s.heights[level], s.widths[level]}, type, nullptr,
                            channels_last));
    prefer_large_pages(results.back());
  }
  const Tensor grad = dense(grad_in, /*channels_last=*/true);
  visit_floating(type, "roi_align_backward", [&](auto zero) {
    using T = decltype(zero);
    const auto plans = make_plans<SumType<T>>(boxes, s);
    if (s.maximum) {
      spread_maximum<T>(grad, dense(winners, /*channels_last=*/true), plans, s, channels_last,
                        write_to<T>(results));
    } else {
      spread_mean<T>(grad, plans, s, channels_last, write_to<T>(results));
    }
  });
  return results;
}

}  // namespace roi_align
}  // namespace seg_plugins
