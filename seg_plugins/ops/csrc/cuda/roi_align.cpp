// The operator seg_plugins::roi_align on CUDA: a library of its own, which needs PyTorch's for
// CUDA. Its schema is in cpu/roi_align.cpp.
#include "roi_align_checked.h"

namespace seg_plugins {
namespace roi_align {

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&forward<&forward_cuda>));
  m.impl("roi_align_backward", TORCH_BOX(&backward<&backward_cuda>));
}

}  // namespace roi_align
}  // namespace seg_plugins
