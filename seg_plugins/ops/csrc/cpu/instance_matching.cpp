// COCO's greedy matching of detections to ground truth, for all thresholds and area ranges.

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

namespace {

// matched and ignored (A, T, D) bool. Detections and ground truth are sorted by group, detections
// by falling score within; gt_ignored (A, G) marks what an area range does not ask for.
std::tuple<at::Tensor, at::Tensor> match_instances(
    const at::Tensor& iou_in, const at::Tensor& dt_groups_in, const at::Tensor& gt_groups_in,
    const at::Tensor& crowd_in, const at::Tensor& gt_ignored_in, const at::Tensor& thresholds_in) {
  const at::Tensor iou = iou_in.contiguous(), dt_groups = dt_groups_in.contiguous(),
                   gt_groups = gt_groups_in.contiguous(), crowd = crowd_in.contiguous(),
                   gt_ignored = gt_ignored_in.contiguous(), thresholds = thresholds_in.contiguous();
  const int64_t num_dt = dt_groups.numel(), num_gt = gt_groups.numel();
  TORCH_CHECK_VALUE(iou.dim() == 2 && iou.size(0) == num_dt && iou.size(1) == num_gt &&
                        iou.scalar_type() == at::kDouble && thresholds.scalar_type() == at::kDouble,
                    "iou must be float64 of shape (D, G), thresholds float64");
  TORCH_CHECK_VALUE(dt_groups.scalar_type() == at::kLong && gt_groups.scalar_type() == at::kLong &&
                        crowd.scalar_type() == at::kBool && crowd.numel() == num_gt &&
                        gt_ignored.scalar_type() == at::kBool && gt_ignored.dim() == 2 &&
                        gt_ignored.size(1) == num_gt,
                    "groups must be int64, crowd (G,) and gt_ignored (A, G) bool");
  const double* overlap = iou.const_data_ptr<double>();
  const double* threshold = thresholds.const_data_ptr<double>();
  const int64_t* dt_group = dt_groups.const_data_ptr<int64_t>();
  const int64_t* gt_group = gt_groups.const_data_ptr<int64_t>();
  const bool* is_crowd = crowd.const_data_ptr<bool>();
  TORCH_CHECK_VALUE(
      std::is_sorted(dt_group, dt_group + num_dt) && std::is_sorted(gt_group, gt_group + num_gt),
      "detections and ground truth must be sorted by group");
  const int64_t areas = gt_ignored.size(0), steps = thresholds.numel();
  at::Tensor matched = at::zeros({areas, steps, num_dt}, at::kBool);
  at::Tensor ignored = at::zeros({areas, steps, num_dt}, at::kBool);
  bool* matched_out = matched.mutable_data_ptr<bool>();
  bool* ignored_out = ignored.mutable_data_ptr<bool>();
  std::vector<int64_t> order;
  std::vector<uint8_t> taken(num_gt);

  for (int64_t dt_begin = 0; dt_begin < num_dt;) {
    const int64_t group = dt_group[dt_begin];
    const int64_t dt_end = std::upper_bound(dt_group, dt_group + num_dt, group) - dt_group;
    const auto [low, high] = std::equal_range(gt_group, gt_group + num_gt, group);
    for (int64_t area = 0; area < areas && low != high; ++area) {
      const bool* skip = gt_ignored.const_data_ptr<bool>() + area * num_gt;
      // Truth that counts comes first, so that a detection prefers it to ignored truth.
      order.clear();
      for (int64_t g = low - gt_group; g < high - gt_group; ++g) order.push_back(g);
      std::stable_partition(order.begin(), order.end(), [&](int64_t g) { return !skip[g]; });
      for (int64_t step = 0; step < steps; ++step) {
        for (const int64_t g : order) taken[g] = 0;
        for (int64_t d = dt_begin; d < dt_end; ++d) {
          double best = std::min(threshold[step], 1 - 1e-10);
          int64_t match = -1;
          for (const int64_t g : order) {
            if (taken[g] && !is_crowd[g]) continue;
            if (match >= 0 && !skip[match] && skip[g]) break;
            if (overlap[d * num_gt + g] < best) continue;
            best = overlap[d * num_gt + g];
            match = g;
          }
          if (match < 0) continue;
          taken[match] = 1;
          const int64_t at = (area * steps + step) * num_dt + d;
          matched_out[at] = true;
          ignored_out[at] = skip[match];
        }
      }
    }
    dt_begin = dt_end;
  }
  return {matched, ignored};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def(
      "match_instances(Tensor iou, Tensor dt_groups, Tensor gt_groups, Tensor crowd, Tensor "
      "gt_ignored, Tensor thresholds) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) { m.impl("match_instances", &match_instances); }
