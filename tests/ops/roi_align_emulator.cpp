// Runs the CUDA form of RoIAlign on the host, thread after thread: every block program of
// csrc/roi_align_block.h behind a C function for ctypes. Compiled by test_roi_align_emulated.py.
#include "roi_align_launches.h"

namespace {

using namespace seg_plugins::roi_align;

struct HostBlock {
  int index, size;
  std::vector<char> memory;
  bool failed = false;

  HostBlock(int index, int size, int64_t bytes) : index(index), size(size), memory(bytes, 0x7f) {}

  char* shared() { return memory.data(); }

  template <class F>
  void each(const F& f) {
    for (int thread = 0; thread < size; ++thread) f(thread);
  }

  template <class S>
  struct PerThread {
    std::vector<S> states;
    explicit PerThread(const HostBlock& block) : states(block.size) {}
    S& operator[](int thread) { return states[thread]; }
  };

  template <class A, int L>
  static void add(A* to, const ArrayPack<A, L>& pack) {
    for (int i = 0; i < L; ++i) to[i] += pack.value[i];
  }

  void check(bool condition) { failed |= !condition; }
};

struct HostDevice {
  bool failed = false;

  template <class Program>
  void launch(int64_t blocks, int threads, int64_t bytes, const Program& program) {
    for (int64_t i = 0; i < blocks; ++i) {
      HostBlock block(int(i), threads, bytes);
      program(block);
      failed |= block.failed;
    }
  }
};

constexpr int kThreads = 32;

}  // namespace

#define SEG_EXPORT(NAME, A, L)                                                                     \
  extern "C" bool NAME##_forward(const int* ints, const double* doubles, A* const* maps,           \
                                 const A* boxes, A* output, int* winners) {                        \
    HostDevice device;                                                                             \
    const auto s = read_settings<A>(ints, doubles);                                                \
    Launches<HostDevice, A, A, L>{s, kThreads, device}.pool(read_maps<const A>(maps, s.levels),    \
                                                            boxes, output, winners);               \
    return !device.failed;                                                                         \
  }                                                                                                \
  extern "C" void NAME##_backward(const int* ints, const double* doubles, const A* grad,           \
                                  const int* winners, const A* boxes, bool fixed_order,            \
                                  A* const* maps) {                                                \
    HostDevice device;                                                                             \
    const auto s = read_settings<A>(ints, doubles);                                                \
    const auto results = read_maps<A>(maps, s.levels);                                             \
    Launches<HostDevice, A, A, L>{s, kThreads, device}.backward(grad, winners, boxes, fixed_order, \
                                                                results, results);                 \
  }

SEG_EXPORT(float4, float, 4)
SEG_EXPORT(float1, float, 1)
SEG_EXPORT(double2, double, 2)
SEG_EXPORT(double1, double, 1)

extern "C" const char* counts_beyond(int64_t rois, int64_t batch, int64_t channels, int64_t height,
                                     int64_t width, int64_t levels) {
  return beyond_counts(rois, batch, channels, height, width, levels);
}
