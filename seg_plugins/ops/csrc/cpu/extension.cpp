// What the extension tells about itself. The operators register themselves when it is loaded, each
// in its own file, through STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m).
#include <atomic>
#include <string>

#include "cpu/roi_align_simd.h"
#include "tensor.h"

namespace seg_plugins {
namespace {

// Of the processor it runs on.
std::string instruction_set() { return roi_align::instruction_set(); }

// How many threads really took part in a parallel loop of one item per thread.
int64_t count_threads() {
  const int64_t threads = torch::stable::get_num_threads();
  std::atomic<int64_t> chunks{0};
  parallel_for(0, threads, 1, [&](int64_t, int64_t) { ++chunks; });
  return chunks;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def("instruction_set() -> str");
  m.def("count_threads() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&instruction_set));
  m.impl("count_threads", TORCH_BOX(&count_threads));
}

}  // namespace seg_plugins
