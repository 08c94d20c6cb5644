// Joint counts of two segmentations of one image, and of many masks with one segmentation.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <tuple>
#include <vector>

#include "tensor.h"

namespace {

using namespace seg_plugins;

// Pixels per step; most blocks of a segmentation lie within one segment.
constexpr int64_t kBlock = 32;

// Whether a block repeats its first pixel of `kPixel` values.
template <int kPixel, typename T>
bool repeats(const T* block) {
  T differs = 0;
  for (int64_t j = kPixel; j < kBlock * kPixel; ++j) differs |= block[j] ^ block[j - kPixel];
  return differs == 0;
}

// A (H, W) map of integers, or (H, W, 3) bytes that hold R + 256 G + 65536 B as COCO panoptic PNGs.
struct ColourIds {
  const uint8_t* data;
  int32_t operator()(int64_t i) const {
    const uint8_t* pixel = data + 3 * i;
    return pixel[0] | (pixel[1] << 8) | (pixel[2] << 16);
  }
  bool uniform(int64_t i) const { return repeats<3>(data + 3 * i); }
};

template <typename T>
struct PlainIds {
  const T* data;
  T operator()(int64_t i) const { return data[i]; }
  bool uniform(int64_t i) const { return repeats<1>(data + i); }
};

int64_t map_size(const Tensor& ids, const char* what) {
  SEG_CHECK_VALUE(
      ids.dim() == 2 || (ids.dim() == 3 && ids.size(2) == 3 && ids.scalar_type() == kByte), what,
      " must have shape (H, W), or (H, W, 3) of bytes, not ", ids.sizes());
  return ids.size(0) * ids.size(1);
}

template <typename Function>
void visit_ids(const Tensor& ids, const char* what, const Function& function) {
  if (ids.dim() == 3) return function(ColourIds{ids.const_data_ptr<uint8_t>()});
  switch (ids.scalar_type()) {
    case kByte:
      return function(PlainIds<uint8_t>{ids.const_data_ptr<uint8_t>()});
    case kUInt16:
      return function(PlainIds<uint16_t>{ids.const_data_ptr<uint16_t>()});
    case kInt:
      return function(PlainIds<int32_t>{ids.const_data_ptr<int32_t>()});
    case kLong:
      return function(PlainIds<int64_t>{ids.const_data_ptr<int64_t>()});
    default:
      SEG_CHECK_VALUE(false, what, " must be uint8, uint16, int32 or int64, not ",
                      ids.scalar_type());
  }
}

// Fewer pixels than this are counted faster than a second thread comes.
constexpr int64_t kSerialPixels = int64_t{1} << 21;
// Pairs take longer.
constexpr int64_t kParallelPixels = int64_t{1} << 19;

struct Cell {
  int64_t first = 0, second = 0, count = 0;

  bool operator<(const Cell& other) const {
    return first != other.first ? first < other.first : second < other.second;
  }
};

// Counts by pair of ids: open addressing in one array, which a few thousand pairs keep in cache.
class PairTable {
 public:
  void add(int64_t first, int64_t second, int64_t count) {
    if (2 * used_ >= cells_.size()) grow();
    Cell& cell = find(first, second);
    if (cell.count == 0) {
      ++used_;
      cell.first = first;
      cell.second = second;
    }
    cell.count += count;
  }

  template <typename Function>
  void for_each(const Function& function) const {
    for (const Cell& cell : cells_)
      if (cell.count != 0) function(cell);
  }

 private:
  Cell& find(int64_t first, int64_t second) {
    const uint64_t mixed = (static_cast<uint64_t>(first) * 0x9E3779B97F4A7C15ULL) ^
                           (static_cast<uint64_t>(second) * 0xC2B2AE3D27D4EB4FULL);
    const size_t mask = cells_.size() - 1;
    size_t at = (mixed ^ (mixed >> 32)) & mask;
    while (cells_[at].count != 0 && (cells_[at].first != first || cells_[at].second != second))
      at = (at + 1) & mask;
    return cells_[at];
  }

  void grow() {
    std::vector<Cell> old(2 * cells_.size());
    old.swap(cells_);
    for (const Cell& cell : old)
      if (cell.count != 0) find(cell.first, cell.second) = cell;
  }

  std::vector<Cell> cells_{256};
  size_t used_ = 0;
};

// Segments are wide: looks up once per run of the same pair.
template <typename A, typename B>
void count_pairs(const A& a, const B& b, int64_t begin, int64_t end, PairTable& table) {
  int64_t run_a = 0, run_b = 0, run = 0;
  const auto extend = [&](int64_t id_a, int64_t id_b, int64_t pixels) {
    if (id_a != run_a || id_b != run_b) {
      if (run != 0) table.add(run_a, run_b, run);
      run_a = id_a, run_b = id_b, run = 0;
    }
    run += pixels;
  };
  for (int64_t i = begin; i < end;) {
    const int64_t stop = std::min(end, i + kBlock);
    if (stop - i == kBlock && a.uniform(i) && b.uniform(i)) {
      extend(a(i), b(i), kBlock);
      i = stop;
    }
    for (; i < stop; ++i) extend(a(i), b(i), 1);
  }
  if (run != 0) table.add(run_a, run_b, run);
}

// Instance ids, true labels and predicted labels in one sweep. Regions of predictions are small,
// but there are few enough ids to count every pixel in a row of cells per id; all pixels of an id
// have one true label (those that do not are looked up singly). Four copies in turn: see
// PairHistogram in confusion.cpp.
void count_triples(const uint16_t* ids, const uint8_t* truths, const uint8_t* labels, int64_t begin,
                   int64_t end, PairTable& table) {
  constexpr int64_t kCopies = 4, kLabels = 256, kRow = kCopies * kLabels;
  constexpr size_t kMostIds = 2048;  // an image has fewer; this bounds the memory for noise
  struct Row {
    int32_t cells = -1;  // where the id's cells begin
    int32_t truth = -1;
  };
  std::vector<Row> row_of_id(65536);
  std::vector<uint16_t> present;
  std::vector<uint32_t> cells;
  const auto flush = [&] {
    for (const uint16_t id : present) {
      const Row row = row_of_id[id];
      for (int64_t label = 0; label < kLabels; ++label) {
        int64_t count = 0;
        for (int64_t copy = 0; copy < kCopies; ++copy)
          count += cells[row.cells + copy * kLabels + label];
        if (count != 0) table.add(id, row.truth << 8 | label, count);
      }
      row_of_id[id] = Row{};
    }
    present.clear();
    cells.clear();
  };
  const auto add_one = [&](int64_t i) {
    Row& row = row_of_id[ids[i]];
    if (row.truth < 0) {
      if (present.size() > kMostIds) flush();
      row = {static_cast<int32_t>(cells.size()), truths[i]};
      present.push_back(ids[i]);
      cells.resize(cells.size() + kRow, 0);
    }
    if (row.truth == truths[i])
      ++cells[row.cells + labels[i]];
    else
      table.add(ids[i], truths[i] << 8 | labels[i], 1);
  };
  int64_t i = begin;
  for (; i + kCopies <= end; i += kCopies) {
    Row rows[kCopies];
    int32_t other = 0;
    for (int64_t j = 0; j < kCopies; ++j) {
      rows[j] = row_of_id[ids[i + j]];
      other |= rows[j].truth ^ truths[i + j];
    }
    if (other != 0) {
      for (int64_t j = 0; j < kCopies; ++j) add_one(i + j);
      continue;
    }
    uint32_t* const cell = cells.data();
    for (int64_t j = 0; j < kCopies; ++j) ++cell[rows[j].cells + j * kLabels + labels[i + j]];
  }
  for (; i < end; ++i) add_one(i);
  flush();
}

std::vector<Cell> in_order(const PairTable& table) {
  std::vector<Cell> sorted;
  table.for_each([&](const Cell& cell) { sorted.push_back(cell); });
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

// pairs (M, 2) int64 in ascending order and their pixel counts (M,).
std::tuple<Tensor, Tensor> pair_counts(const Tensor& first_in, const Tensor& second_in) {
  map_size(first_in, "first");
  map_size(second_in, "second");
  SEG_CHECK_VALUE(first_in.size(0) == second_in.size(0) && first_in.size(1) == second_in.size(1),
                  "the two maps differ in size: ", first_in.sizes(), " and ", second_in.sizes());
  const Tensor first = dense(first_in), second = dense(second_in);
  PairTable total;
  std::mutex mutex;
  visit_ids(first, "first", [&](auto a) {
    visit_ids(second, "second", [&](auto b) {
      parallel_for(
          0, first.size(0) * first.size(1), kParallelPixels, [&](int64_t begin, int64_t end) {
            PairTable own;
            count_pairs(a, b, begin, end, own);
            const std::lock_guard<std::mutex> lock(mutex);
            own.for_each([&](const Cell& cell) { total.add(cell.first, cell.second, cell.count); });
          });
    });
  });
  const std::vector<Cell> sorted = in_order(total);
  const int64_t n = sorted.size();
  Tensor pairs = empty({n, 2}, kLong), totals = empty({n}, kLong);
  int64_t* pair_out = pairs.mutable_data_ptr<int64_t>();
  int64_t* total_out = totals.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    pair_out[2 * i] = sorted[i].first;
    pair_out[2 * i + 1] = sorted[i].second;
    total_out[i] = sorted[i].count;
  }
  return {pairs, totals};
}

// triples (M, 3) int64 in ascending order and their pixel counts (M,).
std::tuple<Tensor, Tensor> triple_counts(const Tensor& ids_in, const Tensor& truths_in,
                                         const Tensor& labels_in) {
  SEG_CHECK_VALUE(ids_in.scalar_type() == kUInt16 && truths_in.scalar_type() == kByte &&
                      labels_in.scalar_type() == kByte,
                  "ids must be uint16, truths and labels uint8");
  SEG_CHECK_VALUE(
      ids_in.sizes().equals(truths_in.sizes()) && ids_in.sizes().equals(labels_in.sizes()),
      "the three maps differ in size: ", ids_in.sizes(), ", ", truths_in.sizes(), " and ",
      labels_in.sizes());
  const Tensor ids = dense(ids_in), truths = dense(truths_in), labels = dense(labels_in);
  PairTable total;
  std::mutex mutex;
  parallel_for(0, ids.numel(), kParallelPixels, [&](int64_t begin, int64_t end) {
    PairTable own;
    count_triples(ids.const_data_ptr<uint16_t>(), truths.const_data_ptr<uint8_t>(),
                  labels.const_data_ptr<uint8_t>(), begin, end, own);
    const std::lock_guard<std::mutex> lock(mutex);
    own.for_each([&](const Cell& cell) { total.add(cell.first, cell.second, cell.count); });
  });
  const std::vector<Cell> sorted = in_order(total);
  const int64_t n = sorted.size();
  Tensor triples = empty({n, 3}, kLong), totals = empty({n}, kLong);
  int64_t* out = triples.mutable_data_ptr<int64_t>();
  int64_t* total_out = totals.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    out[3 * i] = sorted[i].first;
    out[3 * i + 1] = sorted[i].second >> 8;
    out[3 * i + 2] = sorted[i].second & 255;
    total_out[i] = sorted[i].count;
  }
  return {triples, totals};
}

constexpr int64_t kIds = 65536;

// ids (L,) ascending, areas (L,), overlaps (N, L): pixels of each mask in each segment.
std::tuple<Tensor, Tensor, Tensor> mask_overlaps(const Tensor& masks_in, const Tensor& ids_in) {
  SEG_CHECK_VALUE(
      masks_in.dim() == 3 && (masks_in.scalar_type() == kByte || masks_in.scalar_type() == kBool),
      "masks must be bool or uint8 of shape (N, H, W), not ", masks_in.scalar_type(), " of shape ",
      masks_in.sizes());
  SEG_CHECK_VALUE(ids_in.dim() == 2 && masks_in.sizes().slice(1).equals(ids_in.sizes()), "masks ",
                  masks_in.sizes(), " and segments ", ids_in.sizes(), " differ in size");
  const Tensor masks = dense(masks_in), ids = dense(ids_in);
  const int64_t count = masks.size(0), pixels = ids.numel();

  // Renumber the ids 0 .. L - 1, so that a row of counters is short.
  std::vector<int64_t> area_of_id(kIds, 0);
  std::vector<uint16_t> segment(pixels);
  visit_ids(ids, "segments", [&](auto id) {
    for (int64_t i = 0; i < pixels;) {
      const int64_t value = id(i), start = i++;
      SEG_CHECK_VALUE(value >= 0 && value < kIds, "segment id ", value, " is outside 0..65535");
      while (i < pixels && id(i) == value) ++i;
      area_of_id[value] += i - start;
    }
  });
  std::vector<uint16_t> compact(kIds, 0);
  std::vector<int64_t> present;
  for (int64_t value = 0; value < kIds; ++value) {
    if (area_of_id[value] == 0) continue;
    compact[value] = static_cast<uint16_t>(present.size());
    present.push_back(value);
  }
  // Blocks that lie within one segment are counted without looking at each pixel's.
  const int64_t blocks = pixels / kBlock;
  std::vector<uint8_t> uniform(blocks);
  visit_ids(ids, "segments", [&](auto id) {
    parallel_for(0, pixels, kSerialPixels, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) segment[i] = compact[id(i)];
    });
  });
  parallel_for(0, blocks, kSerialPixels / kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      uniform[block] = repeats<1>(segment.data() + block * kBlock);
    }
  });

  const int64_t n = present.size();
  Tensor values = empty({n}, kLong), areas = empty({n}, kLong);
  Tensor overlaps = zeros({count, n}, kLong);
  int64_t *value_out = values.mutable_data_ptr<int64_t>(),
          *area_out = areas.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    value_out[i] = present[i];
    area_out[i] = area_of_id[present[i]];
  }
  const uint8_t* data = static_cast<const uint8_t*>(masks.const_data_ptr());
  int64_t* out = overlaps.mutable_data_ptr<int64_t>();
  parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const uint8_t* mask = data + k * pixels;
      int64_t* row = out + k * n;
      for (int64_t block = 0; block < blocks; ++block) {
        const uint8_t* own = mask + block * kBlock;
        uint64_t words[kBlock / 8];
        std::memcpy(words, own, sizeof(words));
        // Most of a mask is empty.
        if ((words[0] | words[1] | words[2] | words[3]) == 0) continue;
        const uint16_t* where = segment.data() + block * kBlock;
        if (uniform[block]) {
          uint8_t set = 0;
          for (int64_t j = 0; j < kBlock; ++j) set += own[j] != 0;
          row[where[0]] += set;
        } else {
          for (int64_t j = 0; j < kBlock; ++j) row[where[j]] += own[j] != 0;
        }
      }
      for (int64_t i = blocks * kBlock; i < pixels; ++i) row[segment[i]] += mask[i] != 0;
    }
  });
  return {values, areas, overlaps};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def("pair_counts(Tensor first, Tensor second) -> (Tensor, Tensor)");
  m.def("triple_counts(Tensor ids, Tensor truths, Tensor labels) -> (Tensor, Tensor)");
  m.def("mask_overlaps(Tensor masks, Tensor segments) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("pair_counts", TORCH_BOX(&pair_counts));
  m.impl("triple_counts", TORCH_BOX(&triple_counts));
  m.impl("mask_overlaps", TORCH_BOX(&mask_overlaps));
}
