// RoIAlign as programs for a block of threads: what the CUDA kernels run, written so that a host
// compiler can run it too, one thread after the other. A Block offers
//   index, size          which block this is and its number of threads
//   shared()             the block's scratch memory
//   each(f)              f(thread) in every thread, then a barrier
//   PerThread<S>         a value of each thread that lives from one each() to the next
//   add(to, pack)        atomic addition of a pack of neighbouring values
//   check(condition)     device-side assertion
#pragma once

#include "roi_align.h"

namespace seg_plugins {
namespace roi_align {

// Neighbouring channels in one thread's registers; kLanes * sizeof(T) is one 16-byte access, or 1.
template <class A, int L>
struct ArrayPack {
  static constexpr int kLanes = L;
  A value[L];

  SEG_INLINE void clear() {
    SEG_UNROLL
    for (int i = 0; i < L; ++i) value[i] = A(0);
  }

  template <class T>
  SEG_INLINE void add(A weight, const T* from) {
    struct alignas(sizeof(T) * L) Raw {
      T lane[L];
    };
    const Raw raw = *reinterpret_cast<const Raw*>(from);
    SEG_UNROLL
    for (int i = 0; i < L; ++i) value[i] += weight * A(raw.lane[i]);
  }

  template <class T>
  SEG_INLINE void store(T* to) const {
    struct alignas(sizeof(T) * L) Raw {
      T lane[L];
    } raw;
    SEG_UNROLL
    for (int i = 0; i < L; ++i) raw.lane[i] = T(value[i]);
    *reinterpret_cast<Raw*>(to) = raw;
  }
};

template <class A>
struct BlockSettings {
  int height, width, sampling_ratio, levels;
  bool aligned, channels_last;
  LevelRule rule;
  A scales[kMaxLevels];
  int heights[kMaxLevels], widths[kMaxLevels];
  int batch, channels, rois;
  int table_capacity;  // of tap_capacity() for the largest axis of all levels
};

// Null where the block programs' 32-bit counts hold the problem, else what they cannot hold. Within
// these limits
//   item < bins * channels, then + block.size         <= kMaxCount + 1024
//   bucket < levels * batch, tile and block indices   <= kMaxCount
//   pack of a slab: channels + packs of a tile        <= kMaxCount + 256
//   entries of four tables: 4 * (tap_capacity() + 1), and what an axis of a tile has: below
// and each of them fits an int. A product that these do not bound is computed in 64 bits.
inline const char* beyond_counts(int64_t rois, int64_t batch, int64_t channels, int64_t height,
                                 int64_t width, int64_t levels) {
  if (height > kMaxAxis || width > kMaxAxis) return "bins along an axis";
  if (rois > kMaxCount) return "regions";
  if (batch > kMaxCount / levels) return "maps";
  if (channels > kMaxCount / (height * width)) return "values of one region";
  return nullptr;
}
static_assert(4 * (3 * kMaxAxis + 1) <= INT32_MAX, "entries of BlockTables");

// Where the values of one RoI or one map lie: (.., C) with the channels last, or (C, ..).
struct Strides {
  int64_t row, col, channel;
  SEG_INLINE Strides(bool channels_last, int64_t rows, int64_t cols, int64_t channels)
      : row(channels_last ? cols * channels : cols),
        col(channels_last ? channels : 1),
        channel(channels_last ? 1 : rows * cols) {}
};

template <class A>
struct BlockPlan {
  int level, image;
  Axis<A> y, x;
};

template <class A>
SEG_HD inline bool in_batch(const A* box, const BlockSettings<A>& s) {
  return box[0] > A(-1) && box[0] < A(s.batch);
}

template <class A>
SEG_HD inline BlockPlan<A> plan_roi(const A* box, const BlockSettings<A>& s) {
  BlockPlan<A> plan;
  plan.level =
      choose_level(std::log2(relative_size(box[1], box[2], box[3], box[4], s.rule)), s.rule);
  const int level = plan.level < 0 ? 0 : plan.level;
  plan.image = in_batch(box, s) ? int(box[0]) : 0;
  plan.y = make_axis(box[2], box[4], s.scales[level], s.aligned, s.sampling_ratio, s.height,
                     s.heights[level]);
  plan.x = make_axis(box[1], box[3], s.scales[level], s.aligned, s.sampling_ratio, s.width,
                     s.widths[level]);
  if (plan.level < 0 || !in_batch(box, s) || plan.y.samples <= 0 || plan.x.samples <= 0) {
    plan.y.samples = plan.x.samples = 0;
  }
  return plan;
}

// --------------------------------------------------------------------------- tables in scratch

// Both axes of one RoI; the lists are bins, and after transposing pixels from first_* on.
template <class A>
struct BlockTables {
  TapTable<A> bins[2];    // rows, columns
  TapTable<A> pixels[2];  // transposed
  int* first;             // [2]: the first pixel of each axis
  int* count;             // [2]: how many pixels the axis covers

  // An axis' table by selection: a pointer at a computed place would keep all four in memory
  // instead of registers.
  SEG_INLINE TapTable<A> bins_of(int axis) const { return axis == 0 ? bins[0] : bins[1]; }
  SEG_INLINE TapTable<A> pixels_of(int axis) const { return axis == 0 ? pixels[0] : pixels[1]; }

  SEG_HD static int64_t bytes(int capacity, bool transposed) {
    const int64_t entries = int64_t(capacity) * (sizeof(A) + 2 * sizeof(int)) + 2 * sizeof(A);
    return 4 * sizeof(A) + 2 * (transposed ? 2 : 1) * entries;
  }

  SEG_HD BlockTables(char* memory, int capacity, bool transposed, int height, int width) {
    // Weights first: they are the widest.
    A* weight = reinterpret_cast<A*>(memory);
    const int tables = transposed ? 4 : 2;
    int* index = reinterpret_cast<int*>(weight + tables * capacity);
    int* start = index + tables * capacity;
    for (int i = 0; i < tables; ++i) {
      TapTable<A>& table = i < 2 ? bins[i] : pixels[i - 2];
      table = {start + i * (capacity + 1), index + i * capacity, weight + i * capacity,
               i == 0   ? height
               : i == 1 ? width
                        : 0};
    }
    first = start + tables * (capacity + 1);
    count = first + 2;
  }
};

template <class A>
SEG_HD inline void sum_starts(int* start, int lists) {
  start[0] = 0;
  for (int i = 0; i < lists; ++i) start[i + 1] += start[i];
}

template <class Block, class A>
SEG_HD void build_bins(Block& block, const BlockPlan<A>& plan, BlockTables<A>& tables) {
  const int height = plan.y.bins, lists = plan.y.bins + plan.x.bins;
  block.each([&](int thread) {
    for (int i = thread; i < lists; i += block.size) {
      const bool is_row = i < height;
      const int bin = is_row ? i : i - height;
      const Axis<A> axis = is_row ? plan.y : plan.x;
      tables.bins_of(is_row ? 0 : 1).start[bin + 1] = bin_taps<A>(axis, bin, nullptr, nullptr);
    }
  });
  block.each([&](int thread) {
    if (thread >= 2) return;
    const TapTable<A> table = tables.bins_of(thread);
    sum_starts<A>(table.start, table.lists);
  });
  block.each([&](int thread) {
    for (int i = thread; i < lists; i += block.size) {
      const bool is_row = i < height;
      const int bin = is_row ? i : i - height;
      const TapTable<A> table = tables.bins_of(is_row ? 0 : 1);
      const Axis<A> axis = is_row ? plan.y : plan.x;
      bin_taps(axis, bin, table.index + table.start[bin], table.weight + table.start[bin]);
    }
  });
}

template <class Block, class A>
SEG_HD void build_pixels(Block& block, BlockTables<A>& tables) {
  block.each([&](int thread) {
    if (thread >= 2) return;
    const TapTable<A> bins = tables.bins_of(thread);
    int low = 0, high = -1;
    for (int i = 0; i < bins.lists; ++i) {
      if (bins.start[i] == bins.start[i + 1]) continue;
      const int first = bins.index[bins.start[i]], last = bins.index[bins.start[i + 1] - 1];
      if (high < 0 || first < low) low = first;
      if (last > high) high = last;
    }
    tables.first[thread] = low;
    tables.count[thread] = high < 0 ? 0 : high - low + 1;
  });
  for (int axis = 0; axis < 2; ++axis) tables.pixels[axis].lists = tables.count[axis];
  const int rows = tables.count[0], lists = rows + tables.count[1];
  block.each([&](int thread) {
    for (int i = thread; i < lists; i += block.size) {
      const int axis = i < rows ? 0 : 1, pixel = i < rows ? i : i - rows;
      tables.pixels_of(axis).start[pixel + 1] =
          pixel_taps<A>(tables.bins_of(axis), tables.first[axis] + pixel, nullptr, nullptr);
    }
  });
  block.each([&](int thread) {
    if (thread >= 2) return;
    const TapTable<A> table = tables.pixels_of(thread);
    sum_starts<A>(table.start, table.lists);
  });
  block.each([&](int thread) {
    for (int i = thread; i < lists; i += block.size) {
      const int axis = i < rows ? 0 : 1, pixel = i < rows ? i : i - rows;
      const TapTable<A> table = tables.pixels_of(axis);
      pixel_taps(tables.bins_of(axis), tables.first[axis] + pixel, table.index + table.start[pixel],
                 table.weight + table.start[pixel]);
    }
  });
}

// ------------------------------------------------------------------------------------- forward

template <class T>
struct Maps {
  T* level[kMaxLevels];
};

// One block pools one RoI. Channels last: neighbouring threads take neighbouring packs of
// channels of one bin; otherwise neighbouring bins of one channel.
template <class Pack, class Block, class T, class A>
SEG_HD void pool_block(Block& block, const BlockSettings<A>& s, const Maps<const T>& maps,
                       const A* boxes, T* output) {
  const int roi = block.index;
  const A* box = boxes + 5 * int64_t(roi);
  block.check(in_batch(box, s));
  const BlockPlan<A> plan = plan_roi(box, s);
  BlockTables<A> tables(block.shared(), s.table_capacity, false, s.height, s.width);
  build_bins(block, plan, tables);

  const int bins = s.height * s.width, packs = s.channels / Pack::kLanes;
  const int level = plan.level < 0 ? 0 : plan.level;
  const int64_t height = s.heights[level], width = s.widths[level];
  const Strides from(s.channels_last, height, width, s.channels);
  const Strides to(s.channels_last, s.height, s.width, s.channels);
  // Without samples the tables are empty; the map is not looked at.
  const int image = plan.y.samples ? plan.image : 0;
  const T* map = maps.level[level] + image * height * width * s.channels;
  T* out = output + int64_t(roi) * bins * s.channels;
  block.each([&](int thread) {
    for (int item = thread; item < bins * packs; item += block.size) {
      const int bin = s.channels_last ? item / packs : item % bins;
      const int c = (s.channels_last ? item % packs : item / bins) * Pack::kLanes;
      const int row = bin / s.width, col = bin % s.width;
      Pack sum[1];
      sum[0].clear();
      weighted_sum(sum, map + c * from.channel, tables.bins[0].list(row), from.row,
                   tables.bins[1].list(col), from.col);
      sum[0].store(out + row * to.row + col * to.col + c * to.channel);
    }
  });
}

// The same for the maximum; winners gets the number of each winning point.
template <class Block, class T, class A>
SEG_HD void pool_maximum_block(Block& block, const BlockSettings<A>& s, const Maps<const T>& maps,
                               const A* boxes, T* output, int* winners) {
  const int roi = block.index;
  const A* box = boxes + 5 * int64_t(roi);
  block.check(in_batch(box, s));
  const BlockPlan<A> plan = plan_roi(box, s);
  const int bins = s.height * s.width;
  const int level = plan.level < 0 ? 0 : plan.level;
  const int64_t height = s.heights[level], width = s.widths[level];
  const Strides from(s.channels_last, height, width, s.channels);
  const Strides to(s.channels_last, s.height, s.width, s.channels);
  const int image = plan.y.samples ? plan.image : 0;
  const T* map = maps.level[level] + image * height * width * s.channels;
  block.each([&](int thread) {
    for (int item = thread; item < bins * s.channels; item += block.size) {
      const int bin = s.channels_last ? item / s.channels : item % bins;
      const int c = s.channels_last ? item % s.channels : item / bins;
      const int row = bin / s.width, col = bin % s.width;
      const int64_t at =
          int64_t(roi) * bins * s.channels + row * to.row + col * to.col + c * to.channel;
      A best;
      bin_maximum(map + c * from.channel, plan.y, plan.x, row, col, from.row, from.col, 1,
                  from.channel, &best, winners + at);
      output[at] = T(best);
    }
  });
}

// ------------------------------------------------------------------- backward, in any order

// One block adds one RoI's share to the gradient maps: each pixel's sum over its bins once, by one
// vector atomic per pack. Sums are in A, whatever the features' dtype.
template <class Pack, class Block, class T, class A>
SEG_HD void scatter_block(Block& block, const BlockSettings<A>& s, const T* grad, const A* boxes,
                          const Maps<A>& results) {
  const int roi = block.index;
  const BlockPlan<A> plan = plan_roi(boxes + 5 * int64_t(roi), s);
  if (plan.y.samples == 0) return;
  BlockTables<A> tables(block.shared(), s.table_capacity, true, s.height, s.width);
  build_bins(block, plan, tables);
  build_pixels(block, tables);

  const int64_t height = s.heights[plan.level], width = s.widths[plan.level];
  const Strides from(s.channels_last, s.height, s.width, s.channels);
  const Strides to(s.channels_last, height, width, s.channels);
  const int packs = s.channels / Pack::kLanes;
  const int rows = tables.count[0], cols = tables.count[1];
  const int64_t pixels = int64_t(rows) * cols;
  const T* values = grad + int64_t(roi) * s.height * s.width * s.channels;
  A* map = results.level[plan.level] + plan.image * height * width * s.channels;
  block.each([&](int thread) {
    for (int64_t item = thread; item < pixels * packs; item += block.size) {
      const int pixel = int(s.channels_last ? item / packs : item % pixels);
      const int c = int(s.channels_last ? item % packs : item / pixels) * Pack::kLanes;
      const int row = pixel / cols, col = pixel % cols;
      const Taps<A> bin_rows = tables.pixels[0].list(row), bin_cols = tables.pixels[1].list(col);
      if (bin_rows.count == 0 || bin_cols.count == 0) continue;
      Pack sum[1];
      sum[0].clear();
      weighted_sum(sum, values + c * from.channel, bin_rows, from.row, bin_cols, from.col);
      block.add(map + (tables.first[0] + row) * to.row + (tables.first[1] + col) * to.col +
                    c * to.channel,
                sum[0]);
    }
  });
}

// The shares of a winning point's four pixels: add(offset in the map, value).
template <class A, class Add>
SEG_INLINE void spread_point(const Point<A>& point, const Strides& to, A grad, const Add& add) {
  for (int corner = 0; corner < 4; ++corner) {
    const bool low_y = corner < 2, low_x = corner % 2 == 0;
    const A weight = (low_y ? point.y.low_weight : point.y.high_weight) *
                     (low_x ? point.x.low_weight : point.x.high_weight);
    if (weight == A(0)) continue;
    add((low_y ? point.y.low : point.y.high) * to.row +
            (low_x ? point.x.low : point.x.high) * to.col,
        weight * grad);
  }
}

template <class Block, class T, class A>
SEG_HD void scatter_maximum_block(Block& block, const BlockSettings<A>& s, const T* grad,
                                  const int* winners, const A* boxes, const Maps<A>& results) {
  const int roi = block.index;
  const BlockPlan<A> plan = plan_roi(boxes + 5 * int64_t(roi), s);
  if (plan.y.samples == 0) return;
  const int64_t height = s.heights[plan.level], width = s.widths[plan.level];
  const Strides from(s.channels_last, s.height, s.width, s.channels);
  const Strides to(s.channels_last, height, width, s.channels);
  const int bins = s.height * s.width;
  A* map = results.level[plan.level] + plan.image * height * width * s.channels;
  block.each([&](int thread) {
    for (int item = thread; item < bins * s.channels; item += block.size) {
      const int64_t at = int64_t(roi) * bins * s.channels + item;
      if (winners[at] == kNoPoint) continue;
      const int bin = s.channels_last ? item / s.channels : item % bins;
      const int c = s.channels_last ? item % s.channels : item / bins;
      const Point<A> point = point_at(plan.y, plan.x, bin / s.width, bin % s.width, winners[at]);
      spread_point(point, to, A(grad[at]), [&](int64_t offset, A value) {
        block.add(map + c * to.channel + offset, ArrayPack<A, 1>{{value}});
      });
    }
  });
}

// ------------------------------------------------------------------ backward, in a fixed order

// RoIs by bucket: bucket level * batch + image holds order[start[bucket]] up to the next start,
// ascending. RoIs without samples are in none.
struct Buckets {
  int* of;     // [rois]: scratch
  int* start;  // [levels * batch + 1]
  int* order;  // [rois]
};

// One block sorts all RoIs.
template <class Block, class A>
SEG_HD void bucket_block(Block& block, const BlockSettings<A>& s, const A* boxes,
                         const Buckets& buckets) {
  const int count = s.levels * s.batch;
  block.each([&](int thread) {
    for (int roi = thread; roi < s.rois; roi += block.size) {
      const BlockPlan<A> plan = plan_roi(boxes + 5 * int64_t(roi), s);
      buckets.of[roi] = plan.y.samples ? plan.level * s.batch + plan.image : -1;
    }
  });
  block.each([&](int thread) {
    for (int b = thread; b < count; b += block.size) {
      int members = 0;
      for (int roi = 0; roi < s.rois; ++roi) members += buckets.of[roi] == b;
      buckets.start[b + 1] = members;
    }
  });
  block.each([&](int thread) {
    if (thread == 0) sum_starts<A>(buckets.start, count);
  });
  block.each([&](int thread) {
    for (int b = thread; b < count; b += block.size) {
      int slot = buckets.start[b];
      for (int roi = 0; roi < s.rois; ++roi) {
        if (buckets.of[roi] == b) buckets.order[slot++] = roi;
      }
    }
  });
}

constexpr int kTileRows = 4, kTileCols = 8, kTilePixels = kTileRows * kTileCols;
constexpr int kTileThreads = 256;

// How a tile's threads share it: each takes one of `packs` packs of channels and, with the other
// `groups` - 1 threads of that pack, its part of the pixels. 256 channels, an FPN's, at a time; so
// a wider pack comes with fewer pixels, and a thread's sums are 32 registers at most.
struct TileShape {
  int packs, groups;
  SEG_INLINE constexpr explicit TileShape(int lanes)
      : packs(lanes <= 4 ? 64 : 256 / lanes), groups(kTileThreads / packs) {}
  SEG_INLINE constexpr int slabs(int channel_packs) const {
    return (channel_packs + packs - 1) / packs;
  }
};

static_assert(2 * kMaxAxis * (kTileRows + kTileCols) <= INT32_MAX, "cells of a tile's axes");

struct Tile {
  int level, image, row, col, pack;  // the first of each
};

// Tiles are numbered level by level, image by image, then by rows and columns of tiles, then by
// slabs of packs of channels.
template <class A>
SEG_HD inline int64_t tiles_of_level(const BlockSettings<A>& s, int level, int packs) {
  const int64_t rows = (s.heights[level] + kTileRows - 1) / kTileRows;
  const int64_t cols = (s.widths[level] + kTileCols - 1) / kTileCols;
  return packs ? rows * cols * s.batch * TileShape(s.channels / packs).slabs(packs) : 0;
}

template <class A>
SEG_HD inline Tile find_tile(const BlockSettings<A>& s, int64_t number, int packs) {
  int level = 0;
  while (number >= tiles_of_level(s, level, packs)) {
    number -= tiles_of_level(s, level, packs);
    ++level;
  }
  const TileShape shape(s.channels / packs);
  const int slabs = shape.slabs(packs);
  const int rows = (s.heights[level] + kTileRows - 1) / kTileRows;
  const int cols = (s.widths[level] + kTileCols - 1) / kTileCols;
  const int slab = int(number % slabs);
  number /= slabs;
  const int col = int(number % cols), row = int(number / cols % rows);
  return {level, int(number / cols / rows), row * kTileRows, col * kTileCols, slab * shape.packs};
}

template <class A>
SEG_HD inline bool may_touch(const Axis<A>& axis, int first, int count) {
  const A start = axis.start, end = axis.start + A(axis.bins) * axis.bin;
  const A low = start < end ? start : end, high = start < end ? end : start;
  return low - A(2) <= A(first + count) && high + A(2) >= A(first);
}

// The dense weights of one axis of a RoI for the tile's pixels, [pixel][bin], and their lists.
template <class A>
struct TileAxis {
  A* dense;
  int* index;
  A* weight;
  int* count;
};

template <class A>
SEG_HD inline int64_t tile_bytes(int height, int width) {
  const int64_t cells = kTileRows * int64_t(height) + kTileCols * int64_t(width);
  return cells * (2 * sizeof(A) + sizeof(int)) +
         (kTileRows + kTileCols + kTileThreads) * sizeof(int);
}

// One block owns a tile of one gradient map: it goes through the RoIs that touch the tile, in
// ascending order, keeps the sums in registers and writes each pixel once. No atomics; the same
// bits in every run.
template <class Pack, class Block, class T, class A>
SEG_HD void gather_block(Block& block, const BlockSettings<A>& s, const T* grad, const A* boxes,
                         const Buckets& buckets, const Maps<T>& results) {
  constexpr TileShape kShape(Pack::kLanes);
  constexpr int kOwn = kTilePixels / kShape.groups;
  struct Sums {
    Pack pixel[kOwn][1];
  };
  const int packs = s.channels / Pack::kLanes;
  const Tile tile = find_tile(s, block.index, packs);
  const int cells[2] = {kTileRows * s.height, kTileCols * s.width};
  A* values = reinterpret_cast<A*>(block.shared());
  int* words = reinterpret_cast<int*>(values + 2 * (cells[0] + cells[1]));
  TileAxis<A> axes[2] = {{values, words, values + cells[0], words + cells[0] + cells[1]},
                         {values + 2 * cells[0], words + cells[0], values + 2 * cells[0] + cells[1],
                          words + cells[0] + cells[1] + kTileRows}};
  int* touches = words + cells[0] + cells[1] + kTileRows + kTileCols;
  const int height = s.heights[tile.level], width = s.widths[tile.level];
  const Strides from(s.channels_last, s.height, s.width, s.channels);
  const Strides to(s.channels_last, height, width, s.channels);

  typename Block::template PerThread<Sums> sums(block);
  block.each([&](int thread) {
    for (int i = 0; i < kOwn; ++i) sums[thread].pixel[i][0].clear();
  });
  const int bucket = tile.level * s.batch + tile.image;
  for (int chunk = buckets.start[bucket]; chunk < buckets.start[bucket + 1]; chunk += block.size) {
    const int left = buckets.start[bucket + 1] - chunk;
    const int members = left < block.size ? left : block.size;
    block.each([&](int thread) {
      if (thread >= members) return;
      const BlockPlan<A> plan = plan_roi(boxes + 5 * int64_t(buckets.order[chunk + thread]), s);
      touches[thread] =
          may_touch(plan.y, tile.row, kTileRows) && may_touch(plan.x, tile.col, kTileCols);
    });
    for (int member = 0; member < members; ++member) {
      if (!touches[member]) continue;
      const int roi = buckets.order[chunk + member];
      const BlockPlan<A> plan = plan_roi(boxes + 5 * int64_t(roi), s);
      block.each([&](int thread) {
        // One thread per bin of either axis: it alone writes the bin's column.
        for (int i = thread; i < s.height + s.width; i += block.size) {
          const bool is_row = i < s.height;
          const Axis<A> axis = is_row ? plan.y : plan.x;
          const int bin = is_row ? i : i - s.height, lists = is_row ? s.height : s.width;
          const int origin = is_row ? tile.row : tile.col;
          const int count = is_row ? kTileRows : kTileCols;
          A* dense = is_row ? axes[0].dense : axes[1].dense;
          for (int p = 0; p < count; ++p) dense[p * lists + bin] = A(0);
          int first, last;
          samples_near_map(axis, bin, &first, &last);
          const A share = A(1) / A(axis.samples);
          for (int k = first; k < last; ++k) {
            const Sample<A> sample = sample_at(axis, bin, k);
            if (!sample.inside) continue;
            const int low = sample.low - origin, high = sample.high - origin;
            if (low >= 0 && low < count) dense[low * lists + bin] += sample.low_weight * share;
            if (high >= 0 && high < count) dense[high * lists + bin] += sample.high_weight * share;
          }
        }
      });
      block.each([&](int thread) {
        for (int i = thread; i < kTileRows + kTileCols; i += block.size) {
          const int axis = i < kTileRows ? 0 : 1, pixel = axis ? i - kTileRows : i;
          const int lists = axis ? s.width : s.height;
          const TileAxis<A> of = axis == 0 ? axes[0] : axes[1];
          int n = 0;
          for (int bin = 0; bin < lists; ++bin) {
            const A w = of.dense[pixel * lists + bin];
            if (w == A(0)) continue;
            of.index[pixel * lists + n] = bin;
            of.weight[pixel * lists + n] = w;
            ++n;
          }
          of.count[pixel] = n;
        }
      });
      block.each([&](int thread) {
        const int pack = tile.pack + thread % kShape.packs;
        if (pack >= packs) return;
        const T* from_roi = grad + int64_t(roi) * s.height * s.width * s.channels +
                            pack * Pack::kLanes * from.channel;
        SEG_UNROLL
        for (int i = 0; i < kOwn; ++i) {
          const int pixel = thread / kShape.packs + i * kShape.groups;
          const int row = pixel / kTileCols, col = pixel % kTileCols;
          weighted_sum(sums[thread].pixel[i], from_roi,
                       Taps<A>{axes[0].index + row * s.height, axes[0].weight + row * s.height,
                               axes[0].count[row]},
                       from.row,
                       Taps<A>{axes[1].index + col * s.width, axes[1].weight + col * s.width,
                               axes[1].count[col]},
                       from.col);
        }
      });
    }
    // The next chunk's flags must not overtake a thread that still reads these.
    block.each([](int) {});
  }
  T* map = results.level[tile.level] + int64_t(tile.image) * height * width * s.channels;
  block.each([&](int thread) {
    const int pack = tile.pack + thread % kShape.packs;
    if (pack >= packs) return;
    SEG_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int pixel = thread / kShape.packs + i * kShape.groups;
      const int row = tile.row + pixel / kTileCols, col = tile.col + pixel % kTileCols;
      if (row >= height || col >= width) continue;
      sums[thread].pixel[i][0].store(map + row * to.row + col * to.col +
                                     pack * Pack::kLanes * to.channel);
    }
  });
}

// The maximum in a fixed order: each thread owns one channel of one map and goes through the map's
// RoIs one by one.
template <class Block, class T, class A>
SEG_HD void gather_maximum_block(Block& block, const BlockSettings<A>& s, const T* grad,
                                 const int* winners, const A* boxes, const Buckets& buckets,
                                 const Maps<A>& results) {
  const int bins = s.height * s.width;
  const Strides from(s.channels_last, s.height, s.width, s.channels);
  block.each([&](int thread) {
    const int64_t owner = int64_t(block.index) * block.size + thread;
    if (owner >= int64_t(s.levels) * s.batch * s.channels) return;
    const int bucket = int(owner / s.channels), c = int(owner % s.channels);
    const int level = bucket / s.batch, image = bucket % s.batch;
    const int64_t height = s.heights[level], width = s.widths[level];
    const Strides to(s.channels_last, height, width, s.channels);
    A* map = results.level[level] + image * height * width * s.channels + c * to.channel;
    for (int k = buckets.start[bucket]; k < buckets.start[bucket + 1]; ++k) {
      const int roi = buckets.order[k];
      const BlockPlan<A> plan = plan_roi(boxes + 5 * int64_t(roi), s);
      for (int bin = 0; bin < bins; ++bin) {
        const int row = bin / s.width, col = bin % s.width;
        const int64_t at =
            int64_t(roi) * bins * s.channels + row * from.row + col * from.col + c * from.channel;
        if (winners[at] == kNoPoint) continue;
        spread_point(point_at(plan.y, plan.x, row, col, winners[at]), to, A(grad[at]),
                     [&](int64_t offset, A value) { map[offset] += value; });
      }
    }
  });
}

}  // namespace roi_align
}  // namespace seg_plugins
