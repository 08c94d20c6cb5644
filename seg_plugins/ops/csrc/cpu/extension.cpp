// The extension's module entry and what it tells about itself. The operators register themselves,
// each in its own file, through TORCH_LIBRARY_FRAGMENT(seg_plugins, m).
#include <ATen/Parallel.h>
#include <Python.h>
#include <torch/library.h>

#include <atomic>
#include <string>

#include "cpu/roi_align_simd.h"

namespace seg_plugins {
namespace {

std::string build_info() {
  std::string info;
#ifdef _OPENMP
  info += "openmp=" + std::to_string(_OPENMP);
#else
  info += "openmp=none";
#endif
#ifdef SEG_PLUGINS_WITH_CUDA
  info += " cuda=yes";
#else
  info += " cuda=none";
#endif
  return info + " simd=" + roi_align::instruction_set();
}

// How many threads really took part in a parallel loop of one item per thread: at::parallel_for
// compiles to a serial loop, without a word, where the compiler has no OpenMP.
int64_t count_threads() {
  const int64_t threads = at::get_num_threads();
  std::atomic<int64_t> chunks{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) { ++chunks; });
  return chunks;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def("build_info() -> str", &build_info);
  m.def("count_threads() -> int", &count_threads);
}

}  // namespace seg_plugins

extern "C" PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr};
  return PyModule_Create(&definition);
}
