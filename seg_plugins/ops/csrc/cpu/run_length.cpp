// COCO run-length masks: from label maps and bitmasks, their areas and how well outlines overlap.

#include "run_length.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "mask_bits.h"

namespace {

using namespace seg_plugins;

// Calls function(i, text, length) for the strings.
template <typename Function>
void for_each_string(const Tensor& offsets, const Tensor& bytes, const Function& function) {
  SEG_CHECK_VALUE(offsets.scalar_type() == kLong && offsets.dim() == 1 && offsets.size(0) >= 1 &&
                      bytes.scalar_type() == kByte,
                  "offsets must be int64 of shape (N + 1,), bytes uint8");
  const Tensor dense_offsets = dense(offsets), dense_bytes = dense(bytes);
  const int64_t* offset = dense_offsets.const_data_ptr<int64_t>();
  const uint8_t* text = dense_bytes.const_data_ptr<uint8_t>();
  const int64_t count = offsets.size(0) - 1, size = bytes.numel();
  for (int64_t i = 0; i < count; ++i) {
    SEG_CHECK_VALUE(offset[i] >= 0 && offset[i] <= offset[i + 1] && offset[i + 1] <= size,
                    "offsets must ascend within bytes");
    function(i, text + offset[i], offset[i + 1] - offset[i]);
  }
}

std::vector<Runs> unpack(const Tensor& offsets, const Tensor& bytes, int64_t pixels) {
  std::vector<Runs> masks(std::max<int64_t>(offsets.numel(), 1) - 1);
  for_each_string(offsets, bytes, [&](int64_t i, const uint8_t* text, int64_t length) {
    masks[i] = read_runs(text, length, pixels, i);
  });
  return masks;
}

// One pass over the map, one writer per label.
template <typename T>
std::tuple<Tensor, Tensor, Tensor> encode_labels_as(const Tensor& labels) {
  const int64_t height = labels.size(0), width = labels.size(1);
  constexpr int64_t kLabels = int64_t{1} << (8 * sizeof(T));
  std::vector<RunWriter> writers(kLabels);
  std::vector<bool> seen(kLabels, false);
  T current{};
  int64_t start = 0;
  const auto close = [&](int64_t end) {
    if (end > start) {
      seen[current] = true;
      writers[current].add(start, end);
    }
    start = end;
  };
  for_each_column(labels.const_data_ptr<T>(), width, 0, width, 0, height,
                  [&](int64_t x, const T* column) {
                    for (int64_t y = 0; y < height;) {
                      if (column[y] != current) {
                        close(x * height + y);
                        current = column[y];
                      }
                      y = run_end(column, y, height);
                    }
                  });
  close(height * width);
  std::vector<const RunWriter*> used;
  std::vector<int64_t> values;
  for (int64_t label = 0; label < kLabels; ++label) {
    if (!seen[label]) continue;
    writers[label].finish(height * width);
    used.push_back(&writers[label]);
    values.push_back(label);
  }
  Tensor value_tensor = empty({static_cast<int64_t>(values.size())}, kLong);
  std::copy(values.begin(), values.end(), value_tensor.mutable_data_ptr<int64_t>());
  auto [offsets, bytes] = pack(used);
  return {value_tensor, offsets, bytes};
}

std::tuple<Tensor, Tensor, Tensor> encode_label_map(const Tensor& labels_in) {
  SEG_CHECK_VALUE(labels_in.dim() == 2, "labels must have shape (H, W), not ", labels_in.sizes());
  const Tensor labels = dense(labels_in);
  if (labels.scalar_type() == kByte) return encode_labels_as<uint8_t>(labels);
  SEG_CHECK_VALUE(labels.scalar_type() == kUInt16, "labels must be uint8 or uint16, not ",
                  labels.scalar_type());
  return encode_labels_as<uint16_t>(labels);
}

// Smallest box around the set bytes: rows [top, bottom), columns [left, right).
struct Extent {
  int64_t top = 0, bottom = 0, left = 0, right = 0;
};

Extent extent_of(const uint8_t* mask, int64_t height, int64_t width) {
  Extent box{height, 0, width, 0};
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* row = mask + y * width;
    const int64_t first = row[0] ? 0 : run_end(row, 0, width);
    if (first >= width) continue;
    int64_t last = width;
    while (last > first && !row[last - 1]) --last;
    box.top = std::min(box.top, y);
    box.bottom = y + 1;
    box.left = std::min(box.left, first);
    box.right = std::max(box.right, last);
  }
  if (box.bottom == 0) return {};
  return box;
}

// Foreground runs of the columns of `image` (rows [top, bottom) of a mask that is `height` high).
template <typename Function>
void for_each_run(const uint8_t* image, int64_t width, int64_t height, const Extent& box,
                  const Function& function) {
  int64_t start = -1;  // of the open run, -1 when there is none
  int64_t next = 0;    // first position not looked at yet: rows between columns are background
  for_each_column(image, width, box.left, box.right, box.top, box.bottom,
                  [&](int64_t x, const uint8_t* column) {
                    const int64_t base = x * height + box.top, rows = box.bottom - box.top;
                    if (start >= 0 && base != next) {
                      function(start, next);
                      start = -1;
                    }
                    for (int64_t y = 0; y < rows;) {
                      const bool set = column[y] != 0;
                      int64_t end = y;
                      while (end < rows && (column[end] != 0) == set)
                        end = run_end(column, end, rows);
                      if (set && start < 0) start = base + y;
                      if (!set && start >= 0) {
                        function(start, base + y);
                        start = -1;
                      }
                      y = end;
                    }
                    next = base + rows;
                  });
  if (start >= 0) function(start, next);
}

RunWriter encode_mask(const uint8_t* mask, int64_t height, int64_t width) {
  RunWriter writer;
  if (height * width > 0)
    for_each_run(mask, width, height, extent_of(mask, height, width),
                 [&](int64_t start, int64_t end) { writer.add(start, end); });
  writer.finish(height * width);
  return writer;
}

std::tuple<Tensor, Tensor> encode_masks(const Tensor& masks_in) {
  SEG_CHECK_VALUE(
      masks_in.dim() == 3 && (masks_in.scalar_type() == kByte || masks_in.scalar_type() == kBool),
      "masks must be bool or uint8 of shape (N, H, W), not ", masks_in.scalar_type(), " of shape ",
      masks_in.sizes());
  const Tensor masks = dense(masks_in);
  const int64_t count = masks.size(0), height = masks.size(1), width = masks.size(2);
  const uint8_t* data = static_cast<const uint8_t*>(masks.const_data_ptr());
  std::vector<RunWriter> writers(count);
  parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      writers[i] = encode_mask(data + i * height * width, height, width);
  });
  return pack(writers);
}

// (N,) int64 pixels of each mask.
Tensor mask_areas(const Tensor& offsets, const Tensor& bytes, int64_t height, int64_t width) {
  Tensor areas = zeros({std::max<int64_t>(offsets.numel(), 1) - 1}, kLong);
  int64_t* out = areas.mutable_data_ptr<int64_t>();
  for_each_string(offsets, bytes, [&](int64_t i, const uint8_t* text, int64_t length) {
    int64_t area = 0;
    seg_plugins::visit_runs(text, length, height * width, i,
                            [&](int64_t start, int64_t end) { area += end - start; });
    out[i] = area;
  });
  return areas;
}

// A mask and the band inside its outline.
struct Outlined {
  MaskBits whole, band;
  int64_t area = 0, band_area = 0;

  Outlined() = default;
  Outlined(const Runs& runs, int64_t height, int64_t radius) {
    if (runs.empty()) return;
    whole = MaskBits(runs, height);
    band = whole.band(MaskBits(runs, height, radius), radius);
    area = whole.area();
    band_area = band.area();
  }
};

// The smaller of the overlaps of masks and of their bands; 0 without a shared pixel.
double overlap_of(const Outlined& dt, const Outlined& gt, bool crowd) {
  const auto over_union = [&](int64_t shared, int64_t dt_area, int64_t gt_area) {
    const int64_t joint = crowd ? dt_area : dt_area + gt_area - shared;
    return static_cast<double>(shared) / static_cast<double>(joint);
  };
  const int64_t shared = dt.whole.shared_with(gt.whole);
  if (shared == 0) return 0;
  const int64_t shared_band = dt.band.shared_with(gt.band);
  return std::min(over_union(shared, dt.area, gt.area),
                  over_union(shared_band, dt.band_area, gt.band_area));
}

// Overlaps of masks of one group each (other pairs are 0): (D, G) float64, and areas (D,). With a
// crowd the union is the detection alone.
std::tuple<Tensor, Tensor> boundary_iou(const Tensor& dt_offsets, const Tensor& dt_bytes,
                                        const Tensor& gt_offsets, const Tensor& gt_bytes,
                                        const Tensor& dt_groups_in, const Tensor& gt_groups_in,
                                        const Tensor& crowd_in, int64_t height, int64_t width,
                                        int64_t radius) {
  SEG_CHECK_VALUE(radius >= 1, "radius must be at least 1, not ", radius);
  const std::vector<Runs> dts = unpack(dt_offsets, dt_bytes, height * width);
  const std::vector<Runs> gts = unpack(gt_offsets, gt_bytes, height * width);
  const int64_t num_dt = dts.size(), num_gt = gts.size();
  SEG_CHECK_VALUE(dt_groups_in.numel() == num_dt && gt_groups_in.numel() == num_gt &&
                      crowd_in.numel() == num_gt && crowd_in.scalar_type() == kBool &&
                      dt_groups_in.scalar_type() == kLong && gt_groups_in.scalar_type() == kLong,
                  "one int64 group per mask and one bool per ground truth");
  const Tensor dt_groups = dense(dt_groups_in), gt_groups = dense(gt_groups_in),
               crowd = dense(crowd_in);
  const int64_t* dt_group = dt_groups.const_data_ptr<int64_t>();
  const int64_t* gt_group = gt_groups.const_data_ptr<int64_t>();
  const bool* is_crowd = crowd.const_data_ptr<bool>();
  Tensor overlaps = zeros({num_dt, num_gt}, kDouble);
  Tensor areas = empty({num_dt}, kLong);
  double* out = overlaps.mutable_data_ptr<double>();
  int64_t* area = areas.mutable_data_ptr<int64_t>();
  std::vector<Outlined> truths(num_gt);
  for (int64_t g = 0; g < num_gt; ++g)
    if (std::find(dt_group, dt_group + num_dt, gt_group[g]) != dt_group + num_dt)
      truths[g] = Outlined(gts[g], height, radius);
  parallel_for(0, num_dt, 8, [&](int64_t first, int64_t last) {
    for (int64_t d = first; d < last; ++d) {
      area[d] = 0;
      for (const auto& [start, end] : dts[d]) area[d] += end - start;
      if (std::find(gt_group, gt_group + num_gt, dt_group[d]) == gt_group + num_gt) continue;
      const Outlined found(dts[d], height, radius);
      for (int64_t g = 0; g < num_gt; ++g)
        if (dt_group[d] == gt_group[g])
          out[d * num_gt + g] = overlap_of(found, truths[g], is_crowd[g]);
    }
  });
  return {overlaps, areas};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def("encode_label_map(Tensor labels) -> (Tensor, Tensor, Tensor)");
  m.def("encode_masks(Tensor masks) -> (Tensor, Tensor)");
  m.def("mask_areas(Tensor offsets, Tensor bytes, int height, int width) -> Tensor");
  m.def(
      "boundary_iou(Tensor dt_offsets, Tensor dt_bytes, Tensor gt_offsets, Tensor gt_bytes, Tensor "
      "dt_groups, Tensor gt_groups, Tensor crowd, int height, int width, int radius) -> (Tensor, "
      "Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("encode_label_map", TORCH_BOX(&encode_label_map));
  m.impl("encode_masks", TORCH_BOX(&encode_masks));
  m.impl("mask_areas", TORCH_BOX(&mask_areas));
  m.impl("boundary_iou", TORCH_BOX(&boundary_iou));
}
