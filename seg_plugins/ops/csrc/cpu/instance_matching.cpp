// COCO's greedy matching of detections to ground truth, for all thresholds and area ranges.

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "tensor.h"

namespace {

using namespace seg_plugins;

// matched and ignored (A, T, D) bool. Detections and ground truth are sorted by group, detections
// by falling score within; gt_ignored (A, G) marks what an area range does not ask for.
std::tuple<Tensor, Tensor> match_instances(const Tensor& iou_in, const Tensor& dt_groups_in,
                                           const Tensor& gt_groups_in, const Tensor& crowd_in,
                                           const Tensor& gt_ignored_in,
                                           const Tensor& thresholds_in) {
  const Tensor iou = dense(iou_in), dt_groups = dense(dt_groups_in),
               gt_groups = dense(gt_groups_in), crowd = dense(crowd_in),
               gt_ignored = dense(gt_ignored_in), thresholds = dense(thresholds_in);
  const int64_t num_dt = dt_groups.numel(), num_gt = gt_groups.numel();
  SEG_CHECK_VALUE(iou.dim() == 2 && iou.size(0) == num_dt && iou.size(1) == num_gt &&
                      iou.scalar_type() == kDouble && thresholds.scalar_type() == kDouble,
                  "iou must be float64 of shape (D, G), thresholds float64");
  SEG_CHECK_VALUE(dt_groups.scalar_type() == kLong && gt_groups.scalar_type() == kLong &&
                      crowd.scalar_type() == kBool && crowd.numel() == num_gt &&
                      gt_ignored.scalar_type() == kBool && gt_ignored.dim() == 2 &&
                      gt_ignored.size(1) == num_gt,
                  "groups must be int64, crowd (G,) and gt_ignored (A, G) bool");
  const double* overlap = iou.const_data_ptr<double>();
  const double* threshold = thresholds.const_data_ptr<double>();
  const int64_t* dt_group = dt_groups.const_data_ptr<int64_t>();
  const int64_t* gt_group = gt_groups.const_data_ptr<int64_t>();
  const bool *is_crowd = crowd.const_data_ptr<bool>(),
             *ignored_in = gt_ignored.const_data_ptr<bool>();
  SEG_CHECK_VALUE(
      std::is_sorted(dt_group, dt_group + num_dt) && std::is_sorted(gt_group, gt_group + num_gt),
      "detections and ground truth must be sorted by group");
  const int64_t areas = gt_ignored.size(0), steps = thresholds.numel();
  Tensor matched = zeros({areas, steps, num_dt}, kBool);
  Tensor ignored = zeros({areas, steps, num_dt}, kBool);
  bool* matched_out = matched.mutable_data_ptr<bool>();
  bool* ignored_out = ignored.mutable_data_ptr<bool>();
  std::vector<int64_t> order;
  std::vector<uint8_t> taken(num_gt);

  for (int64_t dt_begin = 0; dt_begin < num_dt;) {
    const int64_t group = dt_group[dt_begin];
    const int64_t dt_end = std::upper_bound(dt_group, dt_group + num_dt, group) - dt_group;
    const auto [low, high] = std::equal_range(gt_group, gt_group + num_gt, group);
    for (int64_t area = 0; area < areas && low != high; ++area) {
      const bool* skip = ignored_in + area * num_gt;
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

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def(
      "match_instances(Tensor iou, Tensor dt_groups, Tensor gt_groups, Tensor crowd, Tensor "
      "gt_ignored, Tensor thresholds) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("match_instances", TORCH_BOX(&match_instances));
}
