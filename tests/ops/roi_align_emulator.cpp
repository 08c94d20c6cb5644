// Runs the CUDA form of RoIAlign on the host, thread after thread: every block program of
// csrc/roi_align_block.h behind a C function for ctypes. Compiled by test_roi_align_emulated.py.
#include <algorithm>
#include <vector>

#include "roi_align_block.h"

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

template <class A, int L>
struct Emulator {
  using Pack = ArrayPack<A, L>;
  BlockSettings<A> s;
  int threads;

  int64_t shared_bytes() const {
    return BlockTables<A>::bytes(s.table_capacity, true) + tile_bytes<A>(s.height, s.width);
  }

  bool pool(A* const* maps, const A* boxes, A* output, int* winners) const {
    Maps<const A> levels;
    for (int i = 0; i < s.levels; ++i) levels.level[i] = maps[i];
    bool failed = false;
    for (int roi = 0; roi < s.rois; ++roi) {
      HostBlock block(roi, threads, shared_bytes());
      if (winners) {
        pool_maximum_block(block, s, levels, boxes, output, winners);
      } else {
        pool_block<Pack>(block, s, levels, boxes, output);
      }
      failed |= block.failed;
    }
    return !failed;
  }

  void backward(const A* grad, const int* winners, const A* boxes, bool fixed_order,
                A* const* maps) const {
    Maps<A> levels;
    for (int i = 0; i < s.levels; ++i) levels.level[i] = maps[i];
    if (!fixed_order) {
      for (int roi = 0; roi < s.rois; ++roi) {
        HostBlock block(roi, threads, shared_bytes());
        if (winners) {
          scatter_maximum_block(block, s, grad, winners, boxes, levels);
        } else {
          scatter_block<Pack>(block, s, grad, boxes, levels);
        }
      }
      return;
    }
    std::vector<int> of(s.rois), start(s.levels * s.batch + 1), order(s.rois);
    const Buckets buckets{of.data(), start.data(), order.data()};
    HostBlock sorter(0, threads, 0);
    bucket_block(sorter, s, boxes, buckets);
    if (winners) {
      const int owners = s.levels * s.batch * s.channels;
      for (int i = 0; i < (owners + threads - 1) / threads; ++i) {
        HostBlock block(i, threads, 0);
        gather_maximum_block(block, s, grad, winners, boxes, buckets, levels);
      }
      return;
    }
    int64_t tiles = 0;
    for (int i = 0; i < s.levels; ++i) tiles += tiles_of_level(s, i, s.channels / L);
    for (int64_t i = 0; i < tiles; ++i) {
      HostBlock block(int(i), kTileThreads, shared_bytes());
      gather_block<Pack>(block, s, grad, boxes, buckets, levels);
    }
  }
};

template <class A>
BlockSettings<A> make_settings(const int* ints, const double* doubles) {
  BlockSettings<A> s{};
  s.height = ints[0];
  s.width = ints[1];
  s.sampling_ratio = ints[2];
  s.levels = ints[3];
  s.aligned = ints[4];
  s.channels_last = ints[5];
  s.batch = ints[6];
  s.channels = ints[7];
  s.rois = ints[8];
  s.rule = {float(doubles[0]), float(ints[9]), ints[10], ints[10] + s.levels - 1};
  for (int i = 0; i < s.levels; ++i) {
    s.heights[i] = ints[12 + 2 * i];
    s.widths[i] = ints[13 + 2 * i];
    s.scales[i] = A(doubles[1 + i]);
    s.table_capacity = std::max({s.table_capacity, tap_capacity(s.heights[i], s.height),
                                 tap_capacity(s.widths[i], s.width)});
  }
  return s;
}

}  // namespace

#define SEG_EXPORT(NAME, A, L)                                                                 \
  extern "C" bool NAME##_forward(const int* ints, const double* doubles, A* const* maps,       \
                                 const A* boxes, A* output, int* winners) {                    \
    return Emulator<A, L>{make_settings<A>(ints, doubles), ints[11]}.pool(maps, boxes, output, \
                                                                          winners);            \
  }                                                                                            \
  extern "C" void NAME##_backward(const int* ints, const double* doubles, const A* grad,       \
                                  const int* winners, const A* boxes, bool fixed_order,        \
                                  A* const* maps) {                                            \
    Emulator<A, L>{make_settings<A>(ints, doubles), ints[11]}.backward(grad, winners, boxes,   \
                                                                       fixed_order, maps);     \
  }

SEG_EXPORT(float4, float, 4)
SEG_EXPORT(float1, float, 1)
SEG_EXPORT(double2, double, 2)
SEG_EXPORT(double1, double, 1)
