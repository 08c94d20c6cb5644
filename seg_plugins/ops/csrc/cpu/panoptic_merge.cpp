// Instances and stuff painted into one map of segments: each instance is read once to see what is
// left of it, and once more where it is kept.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <tuple>
#include <vector>

#include "run_length.h"
#include "tensor.h"

namespace seg_plugins {
namespace {

using Merged = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Fewer pixels than this are handled faster than a second thread comes.
constexpr int64_t kGrain = int64_t{1} << 18;

struct Counts {
  int64_t area = 0, claimed = 0;
};

// Detectron2's rule, in its arithmetic; but what would get no pixel is no segment.
bool keep(const Counts& counts, double threshold) {
  return counts.area > counts.claimed &&
         !(static_cast<double>(counts.claimed) / static_cast<double>(counts.area) > threshold);
}

// Ones among n bytes of a mask, and those of them that are claimed; all bytes are 0 or 1.
Counts count(const uint8_t* mask, const uint8_t* claimed, int64_t n) {
  constexpr int64_t kWords = 255;  // the bytes of a sum of so many words do not overflow
  Counts counts;
  const auto sum_of_bytes = [](uint64_t word) {
    const uint64_t pairs = (word & 0x00ff00ff00ff00ffULL) + ((word >> 8) & 0x00ff00ff00ff00ffULL);
    return static_cast<int64_t>((pairs * 0x0001000100010001ULL) >> 48);
  };
  int64_t i = 0;
  while (i + 8 <= n) {
    const int64_t words = std::min(kWords, (n - i) / 8);
    uint64_t area = 0, taken = 0;
    for (int64_t w = 0; w < words; ++w, i += 8) {
      uint64_t inside, before;
      std::memcpy(&inside, mask + i, 8);
      std::memcpy(&before, claimed + i, 8);
      area += inside;
      taken += inside & before;
    }
    counts.area += sum_of_bytes(area);
    counts.claimed += sum_of_bytes(taken);
  }
  for (; i < n; ++i) {
    counts.area += mask[i];
    counts.claimed += mask[i] & claimed[i];
  }
  return counts;
}

// Gives the free ones of a mask an id.
void paint(const uint8_t* mask, int64_t n, int32_t id, uint8_t* claimed, int32_t* ids) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t inside, before;
    std::memcpy(&inside, mask + i, 8);
    if (inside == 0) continue;
    std::memcpy(&before, claimed + i, 8);
    for (int64_t j = i; j < i + 8; ++j) ids[j] = mask[j] & ~claimed[j] ? id : ids[j];
    before |= inside;
    std::memcpy(claimed + i, &before, 8);
  }
  for (; i < n; ++i) {
    if (mask[i] & ~claimed[i]) ids[i] = id;
    claimed[i] |= mask[i];
  }
}

void check_arguments(int64_t count, int64_t height, int64_t width, const Tensor& order,
                     const Tensor& labels, const Tensor& is_stuff) {
  SEG_CHECK_VALUE(order.dim() == 1 && order.scalar_type() == kLong,
                  "merge: order must be (M,) int64, got ", order.sizes());
  SEG_CHECK_VALUE(labels.dim() == 2 && labels.scalar_type() == kLong && labels.size(0) == height &&
                      labels.size(1) == width,
                  "merge: labels must be int64 of the masks' size, got ", labels.sizes(),
                  " for masks of ", height, "x", width);
  SEG_CHECK_VALUE(is_stuff.dim() == 1 && is_stuff.scalar_type() == kBool,
                  "merge: is_stuff must be (K,) bool, got ", is_stuff.sizes());
  const int64_t* index = order.const_data_ptr<int64_t>();
  for (int64_t i = 0, n = order.size(0); i < n; ++i)
    SEG_CHECK_VALUE(index[i] >= 0 && index[i] < count, "merge: index ", index[i], " in order, but ",
                    count, " masks");
}

// Labels of free pixels become segments where they are stuff of enough area.
Merged fill_stuff(const Tensor& ids, const Tensor& kept, int64_t segments, const Tensor& labels,
                  const Tensor& is_stuff, double area_threshold) {
  const int64_t pixels = labels.numel(), size = is_stuff.size(0);
  const int64_t* label = labels.const_data_ptr<int64_t>();
  int32_t* id = ids.mutable_data_ptr<int32_t>();
  std::vector<int64_t> left(size, 0);  // pixels left over, by label
  std::atomic<int64_t> invalid{-1};
  std::mutex mutex;
  parallel_for(0, pixels, kGrain, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> cells(size, 0);
    for (int64_t i = begin; i < end; ++i) {
      if (label[i] < 0 || label[i] >= size) {
        invalid = i;
        return;
      }
      cells[label[i]] += id[i] == 0;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (int64_t k = 0; k < size; ++k) left[k] += cells[k];
  });
  SEG_CHECK_VALUE(invalid < 0, "merge: label ", label[std::max<int64_t>(invalid, 0)],
                  " is outside the ", size, " classes");
  Tensor kept_stuff = zeros({size}, kBool), areas = empty({size}, kLong);
  bool* chosen = kept_stuff.mutable_data_ptr<bool>();
  int64_t* area = areas.mutable_data_ptr<int64_t>();
  std::vector<int32_t> number(size, 0);
  const bool* stuff = is_stuff.const_data_ptr<bool>();
  for (int64_t k = 0; k < size; ++k) {
    area[k] = left[k];
    chosen[k] = stuff[k] && left[k] > 0 && static_cast<double>(left[k]) >= area_threshold;
    if (chosen[k]) number[k] = static_cast<int32_t>(++segments);
  }
  parallel_for(0, pixels, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) id[i] = id[i] == 0 ? number[label[i]] : id[i];
  });
  return {ids, kept, kept_stuff, areas};
}

Merged merge_masks(const Tensor& masks_in, const Tensor& order_in, const Tensor& labels_in,
                   const Tensor& is_stuff_in, double overlap_threshold, double area_threshold) {
  SEG_CHECK_VALUE(masks_in.dim() == 3 && masks_in.scalar_type() == kBool,
                  "merge_masks: masks must be (N, H, W) bool, got ", masks_in.sizes(), " ",
                  masks_in.scalar_type());
  const Tensor masks = dense(masks_in), order = dense(order_in);
  const Tensor labels = dense(labels_in), is_stuff = dense(is_stuff_in);
  check_arguments(masks.size(0), masks.size(1), masks.size(2), order, labels, is_stuff);
  const int64_t pixels = labels.numel();
  const Tensor ids = zeros(labels.sizes(), kInt);
  const int64_t places = order.size(0);
  const Tensor kept = zeros({places}, kBool);
  const int64_t* index = order.const_data_ptr<int64_t>();
  // A bool is one byte, 0 or 1.
  const uint8_t* all = reinterpret_cast<const uint8_t*>(masks.const_data_ptr<bool>());
  bool* is_kept = kept.mutable_data_ptr<bool>();
  int32_t* id = ids.mutable_data_ptr<int32_t>();
  std::vector<uint8_t> claimed(pixels, 0);
  int64_t segments = 0;
  for (int64_t place = 0; place < places; ++place) {
    const uint8_t* mask = all + index[place] * pixels;
    std::atomic<int64_t> area{0}, taken{0};
    parallel_for(0, pixels, kGrain, [&](int64_t begin, int64_t end) {
      const Counts part = count(mask + begin, claimed.data() + begin, end - begin);
      area += part.area;
      taken += part.claimed;
    });
    if (!keep({area, taken}, overlap_threshold)) continue;
    is_kept[place] = true;
    const int32_t number = static_cast<int32_t>(++segments);
    parallel_for(0, pixels, kGrain, [&](int64_t begin, int64_t end) {
      paint(mask + begin, end - begin, number, claimed.data() + begin, id + begin);
    });
  }
  return fill_stuff(ids, kept, segments, labels, is_stuff, area_threshold);
}

// Run lengths go down the columns: so does the map, until it is turned at the end.
Merged merge_run_lengths(const Tensor& offsets_in, const Tensor& data_in, const Tensor& order_in,
                         const Tensor& labels_in, const Tensor& is_stuff_in,
                         double overlap_threshold, double area_threshold) {
  SEG_CHECK_VALUE(offsets_in.dim() == 1 && offsets_in.scalar_type() == kLong &&
                      data_in.dim() == 1 && data_in.scalar_type() == kByte,
                  "merge_run_lengths: offsets must be (N + 1,) int64 and data (L,) uint8");
  const Tensor offsets = dense(offsets_in), data = dense(data_in);
  const Tensor order = dense(order_in), labels = dense(labels_in);
  const Tensor is_stuff = dense(is_stuff_in);
  const int64_t height = labels.size(0), width = labels.size(1), pixels = height * width;
  check_arguments(offsets.size(0) - 1, height, width, order, labels, is_stuff);
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  std::vector<int32_t> turned(pixels, 0);
  const int64_t places = order.size(0), bytes = data.numel();
  const int64_t* order_data = order.const_data_ptr<int64_t>();
  const uint8_t* text = data.const_data_ptr<uint8_t>();
  const Tensor kept = zeros({places}, kBool);
  bool* is_kept = kept.mutable_data_ptr<bool>();
  int64_t segments = 0;
  for (int64_t place = 0; place < places; ++place) {
    const int64_t index = order_data[place];
    SEG_CHECK_VALUE(
        offset[index] >= 0 && offset[index] <= offset[index + 1] && offset[index + 1] <= bytes,
        "merge_run_lengths: the offsets of mask ", index, " lie outside the data");
    const Runs runs =
        read_runs(text + offset[index], offset[index + 1] - offset[index], pixels, index);
    Counts counts;
    for (const auto& [begin, end] : runs) {
      counts.area += end - begin;
      int64_t taken = 0;
      for (int64_t i = begin; i < end; ++i) taken += turned[i] != 0;
      counts.claimed += taken;
    }
    if (!keep(counts, overlap_threshold)) continue;
    is_kept[place] = true;
    const int32_t number = static_cast<int32_t>(++segments);
    for (const auto& [begin, end] : runs)
      for (int64_t i = begin; i < end; ++i) turned[i] = turned[i] == 0 ? number : turned[i];
  }
  const Tensor ids = empty({height, width}, kInt);
  int32_t* id = ids.mutable_data_ptr<int32_t>();
  // Squares, so that neither side leaves the cache between two of its lines.
  constexpr int64_t kSide = 64;
  const int64_t bands = (height + kSide - 1) / kSide;
  parallel_for(0, bands, std::max<int64_t>(kGrain / (kSide * std::max<int64_t>(width, 1)), 1),
               [&](int64_t first, int64_t last) {
                 const int64_t bottom = std::min(last * kSide, height);
                 for (int64_t left = 0; left < width; left += kSide) {
                   const int64_t right = std::min(left + kSide, width);
                   for (int64_t top = first * kSide; top < bottom; top += kSide)
                     for (int64_t y = top; y < std::min(top + kSide, bottom); ++y)
                       for (int64_t x = left; x < right; ++x)
                         id[y * width + x] = turned[x * height + y];
                 }
               });
  return fill_stuff(ids, kept, segments, labels, is_stuff, area_threshold);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def(
      "merge_masks(Tensor masks, Tensor order, Tensor labels, Tensor is_stuff, "
      "float overlap_threshold, float area_threshold) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "merge_run_lengths(Tensor offsets, Tensor data, Tensor order, Tensor labels, "
      "Tensor is_stuff, float overlap_threshold, float area_threshold) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("merge_masks", TORCH_BOX(&merge_masks));
  m.impl("merge_run_lengths", TORCH_BOX(&merge_run_lengths));
}

}  // namespace seg_plugins
