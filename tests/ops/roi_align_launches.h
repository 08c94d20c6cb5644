// The launches of csrc/cuda/roi_align_kernel.cu on a device that the host plays: which program runs
// in how many blocks, of how many threads, with how much shared memory. A Device offers
//   launch(blocks, threads, shared bytes, program)   program(block) in every block
#pragma once

#include <algorithm>
#include <vector>

#include "roi_align_block.h"

namespace seg_plugins {
namespace roi_align {

// T: of the features; A: of sums, boxes and scales; L: channels of a pack.
template <class Device, class T, class A, int L>
struct Launches {
  using Pack = ArrayPack<A, L>;
  BlockSettings<A> s;
  int threads;  // of a block; the tiles of the fixed order always take kTileThreads
  Device& device;

  void pool(const Maps<const T>& maps, const A* boxes, T* output, int* winners) const {
    if (winners) {
      device.launch(s.rois, threads, 0, [&](auto& block) {
        pool_maximum_block(block, s, maps, boxes, output, winners);
      });
    } else {
      const int64_t bytes = BlockTables<A>::bytes(s.table_capacity, false);
      device.launch(s.rois, threads, bytes,
                    [&](auto& block) { pool_block<Pack>(block, s, maps, boxes, output); });
    }
  }

  // The mean in a fixed order writes every pixel of `written`; everything else adds to `sums`.
  void backward(const T* grad, const int* winners, const A* boxes, bool fixed_order,
                const Maps<A>& sums, const Maps<T>& written) const {
    if (fixed_order) return backward_in_order(grad, winners, boxes, sums, written);
    if (winners) {
      device.launch(s.rois, threads, 0, [&](auto& block) {
        scatter_maximum_block(block, s, grad, winners, boxes, sums);
      });
    } else {
      const int64_t bytes = BlockTables<A>::bytes(s.table_capacity, true);
      device.launch(s.rois, threads, bytes,
                    [&](auto& block) { scatter_block<Pack>(block, s, grad, boxes, sums); });
    }
  }

 private:
  void backward_in_order(const T* grad, const int* winners, const A* boxes, const Maps<A>& sums,
                         const Maps<T>& written) const {
    std::vector<int> of(s.rois), start(s.levels * s.batch + 1), order(s.rois);
    const Buckets buckets{of.data(), start.data(), order.data()};
    device.launch(1, threads, 0, [&](auto& block) { bucket_block(block, s, boxes, buckets); });
    if (winners) {
      const int64_t owners = int64_t(s.levels) * s.batch * s.channels;
      device.launch((owners + threads - 1) / threads, threads, 0, [&](auto& block) {
        gather_maximum_block(block, s, grad, winners, boxes, buckets, sums);
      });
      return;
    }
    int64_t tiles = 0;
    for (int i = 0; i < s.levels; ++i) tiles += tiles_of_level(s, i, s.channels / L);
    device.launch(tiles, kTileThreads, tile_bytes<A>(s.height, s.width), [&](auto& block) {
      gather_block<Pack>(block, s, grad, boxes, buckets, written);
    });
  }
};

// ints: bins (h, w), sampling ratio, levels, aligned, channels last, batch, channels, RoIs,
// canonical level, lowest level, then (h, w) of each map. doubles: canonical size, then each map's
// scale.
template <class A>
BlockSettings<A> read_settings(const int* ints, const double* doubles) {
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
    s.heights[i] = ints[11 + 2 * i];
    s.widths[i] = ints[12 + 2 * i];
    s.scales[i] = A(doubles[1 + i]);
    s.table_capacity = std::max({s.table_capacity, tap_capacity(s.heights[i], s.height),
                                 tap_capacity(s.widths[i], s.width)});
  }
  return s;
}

template <class T>
Maps<T> read_maps(T* const* maps, int levels) {
  Maps<T> to{};
  for (int i = 0; i < levels; ++i) to.level[i] = maps[i];
  return to;
}

}  // namespace roi_align
}  // namespace seg_plugins
