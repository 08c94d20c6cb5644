// The operator seg_plugins::roi_align: its schema, and what it is on the CPU. What it is to
// autograd, autocast and torch.compile is in ops/roi_align_registration.py.
#include "roi_align_checked.h"

namespace seg_plugins {
namespace roi_align {

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def(
      "roi_align(Tensor[] features, Tensor boxes, SymInt[2] output_size, float[] spatial_scales, "
      "int sampling_ratio, bool aligned, bool maximum, float canonical_box_size, "
      "int canonical_level, int min_level) -> (Tensor output, Tensor winners)");
  m.def(
      "roi_align_backward(Tensor grad, Tensor winners, Tensor boxes, SymInt batch_size, "
      "SymInt[] heights, SymInt[] widths, bool channels_last, float[] spatial_scales, "
      "int sampling_ratio, bool aligned, bool maximum, float canonical_box_size, "
      "int canonical_level, int min_level, bool deterministic=False) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&forward<&forward_cpu>));
  m.impl("roi_align_backward", TORCH_BOX(&backward<&backward_cpu>));
}

}  // namespace roi_align
}  // namespace seg_plugins
