// Joint counts of two segmentations of one image, and of many masks with one segmentation.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <unordered_map>
#include <vector>

namespace {

// A (H, W) map of integers, or (H, W, 3) bytes that hold R + 256 G + 65536 B as COCO panoptic PNGs.
struct ColourIds {
  const uint8_t* data;
  int64_t operator()(int64_t i) const {
    const uint8_t* pixel = data + 3 * i;
    return pixel[0] | (pixel[1] << 8) | (pixel[2] << 16);
  }
};

template <typename T>
struct PlainIds {
  const T* data;
  int64_t operator()(int64_t i) const { return static_cast<int64_t>(data[i]); }
};

int64_t map_size(const at::Tensor& ids, const char* what) {
  TORCH_CHECK_VALUE(
      ids.dim() == 2 || (ids.dim() == 3 && ids.size(2) == 3 && ids.scalar_type() == at::kByte),
      what, " must have shape (H, W), or (H, W, 3) of bytes, not ", ids.sizes());
  return ids.size(0) * ids.size(1);
}

template <typename Function>
void visit_ids(const at::Tensor& ids, const char* what, const Function& function) {
  if (ids.dim() == 3) return function(ColourIds{ids.const_data_ptr<uint8_t>()});
  switch (ids.scalar_type()) {
    case at::kByte:
      return function(PlainIds<uint8_t>{ids.const_data_ptr<uint8_t>()});
    case at::kUInt16:
      return function(PlainIds<uint16_t>{ids.const_data_ptr<uint16_t>()});
    case at::kInt:
      return function(PlainIds<int32_t>{ids.const_data_ptr<int32_t>()});
    case at::kLong:
      return function(PlainIds<int64_t>{ids.const_data_ptr<int64_t>()});
    default:
      TORCH_CHECK_VALUE(false, what, " must be uint8, uint16, int32 or int64, not ",
                        ids.scalar_type());
  }
}

struct Pair {
  int64_t first, second;
  bool operator==(const Pair&) const = default;
  auto operator<=>(const Pair&) const = default;
};

struct PairHash {
  size_t operator()(const Pair& pair) const {
    return static_cast<size_t>(pair.first) * 0x9E3779B97F4A7C15ULL ^
           (static_cast<size_t>(pair.second) * 0xC2B2AE3D27D4EB4FULL >> 17);
  }
};

// pairs (M, 2) int64 in ascending order and their pixel counts (M,).
std::tuple<at::Tensor, at::Tensor> pair_counts(const at::Tensor& first_in,
                                               const at::Tensor& second_in) {
  const int64_t pixels = map_size(first_in, "first");
  TORCH_CHECK_VALUE(
      map_size(second_in, "second") == pixels && first_in.size(0) == second_in.size(0),
      "the two maps differ in size: ", first_in.sizes(), " and ", second_in.sizes());
  const at::Tensor first = first_in.contiguous(), second = second_in.contiguous();
  std::unordered_map<Pair, int64_t, PairHash> counts;
  visit_ids(first, "first", [&](auto a) {
    visit_ids(second, "second", [&](auto b) {
      // Segments are wide: count runs of the same pair and look up once per run.
      for (int64_t i = 0; i < pixels;) {
        const Pair pair{a(i), b(i)};
        const int64_t start = i++;
        while (i < pixels && a(i) == pair.first && b(i) == pair.second) ++i;
        counts[pair] += i - start;
      }
    });
  });
  std::vector<std::pair<Pair, int64_t>> sorted(counts.begin(), counts.end());
  std::sort(sorted.begin(), sorted.end());
  const int64_t n = sorted.size();
  at::Tensor pairs = at::empty({n, 2}, at::kLong), totals = at::empty({n}, at::kLong);
  int64_t* pair_out = pairs.mutable_data_ptr<int64_t>();
  int64_t* total_out = totals.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    pair_out[2 * i] = sorted[i].first.first;
    pair_out[2 * i + 1] = sorted[i].first.second;
    total_out[i] = sorted[i].second;
  }
  return {pairs, totals};
}

constexpr int64_t kIds = 65536;

// ids (L,) ascending, areas (L,), overlaps (N, L): pixels of each mask in each segment.
std::tuple<at::Tensor, at::Tensor, at::Tensor> mask_overlaps(const at::Tensor& masks_in,
                                                             const at::Tensor& ids_in) {
  TORCH_CHECK_VALUE(masks_in.dim() == 3 && (masks_in.scalar_type() == at::kByte ||
                                            masks_in.scalar_type() == at::kBool),
                    "masks must be bool or uint8 of shape (N, H, W), not ", masks_in.scalar_type(),
                    " of shape ", masks_in.sizes());
  TORCH_CHECK_VALUE(ids_in.dim() == 2 && masks_in.sizes().slice(1) == ids_in.sizes(), "masks ",
                    masks_in.sizes(), " and segments ", ids_in.sizes(), " differ in size");
  const at::Tensor masks = masks_in.contiguous(), ids = ids_in.contiguous();
  const int64_t count = masks.size(0), pixels = ids.numel();

  // Renumber the ids 0 .. L - 1, so that a row of counters is short.
  std::vector<int64_t> area_of_id(kIds, 0);
  std::vector<uint16_t> segment(pixels);
  visit_ids(ids, "segments", [&](auto id) {
    for (int64_t i = 0; i < pixels;) {
      const int64_t value = id(i), start = i++;
      TORCH_CHECK_VALUE(value >= 0 && value < kIds, "segment id ", value, " is outside 0..65535");
      while (i < pixels && id(i) == value) ++i;
      area_of_id[value] += i - start;
      std::fill(segment.begin() + start, segment.begin() + i, static_cast<uint16_t>(value));
    }
  });
  std::vector<uint16_t> compact(kIds, 0);
  std::vector<int64_t> present;
  for (int64_t value = 0; value < kIds; ++value) {
    if (area_of_id[value] == 0) continue;
    compact[value] = static_cast<uint16_t>(present.size());
    present.push_back(value);
  }
  for (uint16_t& value : segment) value = compact[value];

  const int64_t n = present.size();
  at::Tensor values = at::empty({n}, at::kLong), areas = at::empty({n}, at::kLong);
  at::Tensor overlaps = at::zeros({count, n}, at::kLong);
  for (int64_t i = 0; i < n; ++i) {
    values.mutable_data_ptr<int64_t>()[i] = present[i];
    areas.mutable_data_ptr<int64_t>()[i] = area_of_id[present[i]];
  }
  const uint8_t* data = static_cast<const uint8_t*>(masks.const_data_ptr());
  int64_t* out = overlaps.mutable_data_ptr<int64_t>();
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const uint8_t* mask = data + k * pixels;
      int64_t* row = out + k * n;
      int64_t i = 0;
      // Most of a mask is empty: step over 32 bytes at a time.
      for (; i + 32 <= pixels; i += 32) {
        uint64_t words[4];
        std::memcpy(words, mask + i, sizeof(words));
        if ((words[0] | words[1] | words[2] | words[3]) == 0) continue;
        for (int64_t j = i; j < i + 32; ++j) row[segment[j]] += mask[j] != 0;
      }
      for (; i < pixels; ++i) row[segment[i]] += mask[i] != 0;
    }
  });
  return {values, areas, overlaps};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def("pair_counts(Tensor first, Tensor second) -> (Tensor, Tensor)");
  m.def("mask_overlaps(Tensor masks, Tensor segments) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("pair_counts", &pair_counts);
  m.impl("mask_overlaps", &mask_overlaps);
}
