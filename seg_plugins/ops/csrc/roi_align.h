// RoIAlign of one region of interest: the arithmetic that the CPU and the CUDA kernels share.
//
// Bilinear sampling is separable: the mean over a bin's sampling points is
//     sum_y sum_x wy(y) wx(x) f(y, x),
// where wy gathers all the points' weights that fall on row y, and wx those on column x. So each
// axis of a RoI becomes a short list of *taps* (pixel, weight) per bin, merged over the sampling
// points, and a bin reads each of its pixels once instead of four times per point. The gradient of
// a pixel is the same sum over the transposed lists: over the bins that read it. Forward and
// backward are therefore one function, weighted_sum().
//
// Coordinates follow torchvision's kernels operation by operation, so that fp32 results agree:
// a sample further than one pixel outside the map is zero, one nearer is clamped onto the map.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define SEG_HD __host__ __device__
#define SEG_INLINE __host__ __device__ __forceinline__
#define SEG_UNROLL _Pragma("unroll")
#elif defined(_MSC_VER)
#define SEG_HD
#define SEG_INLINE __forceinline
#define SEG_UNROLL
#else
#define SEG_HD
#define SEG_INLINE inline __attribute__((always_inline))
#define SEG_UNROLL _Pragma("GCC unroll 16")
#endif

namespace seg_plugins {
namespace roi_align {

constexpr int kMaxLevels = 8;

// A bin with more sampling points than this along an axis is larger than any feature map; the mean
// over it is taken as zero, which keeps absurd boxes from taking absurd time. The points of a bin,
// numbered from 0, then stay below the 32 bits of kNoPoint.
constexpr int kMaxSamples = (1 << 16) - 1;

// The number of a winning point where no point on the map wins.
constexpr int kNoPoint = -1;
static_assert(uint64_t(kMaxSamples) * kMaxSamples - 1 < uint32_t(kNoPoint),
              "the last point of a bin has a number of its own in 32 bits");

// The largest axis of a map or of an output, and the most of anything else that is counted in 32
// bits: RoIs, channels, maps. An int holds every sum of two of them and every product with one of
// the constants here; offsets of values are 64 bits wide.
constexpr int64_t kMaxAxis = int64_t{1} << 26;
constexpr int64_t kMaxCount = INT32_MAX - 2048;  // a thread's next item: one block further
// A position on the map is compared with its size as a float, which is exact up to here or off by a
// few pixels at most (sample_at() looks again at the int).
static_assert(int64_t(float(kMaxAxis)) == kMaxAxis);

// ------------------------------------------------------------------------------- pyramid level

// Equation (1) of the FPN paper (Lin et al., 2017) with Detectron2's guard against empty boxes.
struct LevelRule {
  float canonical_size;   // a box of this size, in input pixels, ...
  float canonical_level;  // ... belongs to this level
  int min_level, max_level;
};

// A box's size in canonical sizes, whose log2 is its level above the canonical one. It multiplies
// by the reciprocal because PyTorch divides CUDA tensors by a number that way, which decides on
// boxes at a level's very edge; the CPU kernel has PyTorch compute the same for that reason.
template <class A>
SEG_HD inline A relative_size(A x0, A y0, A x1, A y1, const LevelRule& rule) {
  return std::sqrt((x1 - x0) * (y1 - y0)) * (A(1) / A(rule.canonical_size)) + A(1e-8);
}

// The offset of a RoI's level from min_level, given log2 of its relative size; -1 for a box whose
// area is negative or not a number: no level takes it and its output is zero, as in Detectron2.
template <class A>
SEG_HD inline int choose_level(A log2_size, const LevelRule& rule) {
  if (rule.min_level == rule.max_level) return 0;
  const A level = std::floor(A(rule.canonical_level) + log2_size);
  if (level != level) return -1;
  if (level <= A(rule.min_level)) return 0;
  if (level >= A(rule.max_level)) return rule.max_level - rule.min_level;
  return int(level) - rule.min_level;
}

// ------------------------------------------------------------------------------- sampling grid

// One axis of one RoI on its feature map, in pixels of the map.
template <class A>
struct Axis {
  A start;      // of the first bin
  A bin;        // extent of a bin; negative for a reversed box
  int samples;  // per bin; zero makes the whole RoI zero
  int bins;
  int size;  // of the map
};

template <class A>
SEG_HD inline Axis<A> make_axis(A low, A high, A scale, bool aligned, int sampling_ratio, int bins,
                                int size) {
  const A offset = aligned ? A(0.5) : A(0);
  const A start = low * scale - offset;
  const A end = high * scale - offset;
  A extent = end - start;
  if (!aligned && extent < A(1)) extent = A(1);
  Axis<A> axis{start, extent / A(bins), sampling_ratio, bins, size};
  if (sampling_ratio <= 0) {
    const A samples = std::ceil(extent / A(bins));
    axis.samples = samples > A(0) && samples <= A(kMaxSamples) ? int(samples) : 0;
  }
  // Infinite or not a number: every sample is off the map.
  if (!(std::fabs(start) <= A(3e38) && std::fabs(extent) <= A(3e38))) axis.samples = 0;
  if (size <= 0) axis.samples = 0;
  return axis;
}

// A sampling point on one axis: two neighbouring pixels and their weights.
template <class A>
struct Sample {
  int low, high;
  A low_weight, high_weight;
  bool inside;
};

template <class A>
SEG_HD inline Sample<A> sample_at(const Axis<A>& axis, int bin, int i) {
  A at = axis.start + A(bin) * axis.bin + (A(i) + A(0.5)) * axis.bin / A(axis.samples);
  if (!(at >= A(-1) && at <= A(axis.size))) return {0, 0, A(0), A(0), false};
  if (at <= A(0)) at = A(0);
  const int low = int(at);
  if (low >= axis.size - 1) return {axis.size - 1, axis.size - 1, A(1), A(0), true};
  const A fraction = at - A(low);
  return {low, low + 1, A(1) - fraction, fraction, true};
}

// The sampling points [first, last) of a bin outside which all are off the map; a few more may be.
// It bounds the work for a box that is much larger than the map.
template <class A>
SEG_HD inline void samples_near_map(const Axis<A>& axis, int bin, int* first, int* last) {
  *first = 0;
  *last = axis.samples;
  if (axis.samples <= 8) return;
  const A step = axis.bin / A(axis.samples);
  if (step == A(0)) return;  // a box without extent: all points are one
  const A start = axis.start + A(bin) * axis.bin;
  const A to_low = (A(-1) - start) / step, to_high = (A(axis.size) - start) / step;
  const A near_end = (step > A(0) ? to_low : to_high) - A(4);
  const A far_end = (step > A(0) ? to_high : to_low) + A(4);
  if (near_end > A(0)) *first = near_end < A(axis.samples) ? int(near_end) : axis.samples;
  if (far_end < A(axis.samples)) *last = far_end > A(*first) ? int(far_end) : *first;
}

// ------------------------------------------------------------------------------------------ taps

// A list of (position, weight).
template <class A>
struct Taps {
  const int* index;
  const A* weight;
  int count;
};

// All lists of one axis: list i is [start[i], start[i + 1]) of index and weight.
template <class A>
struct TapTable {
  int* start;
  int* index;
  A* weight;
  int lists;

  SEG_INLINE Taps<A> list(int i) const {
    return {index + start[i], weight + start[i], start[i + 1] - start[i]};
  }
};

// The taps of an axis fit here, whatever the box: the bins' samples do not overlap, so that two
// bins share at most two pixels.
SEG_HD inline int tap_capacity(int size, int bins) { return size + 2 * bins; }
static_assert(3 * kMaxAxis <= INT32_MAX, "tap_capacity() fits an int");

// The pixels that one bin reads, ascending, each once; weights sum to 1 if all samples are inside.
// Writes at most the bin's share of tap_capacity(); counts only where index is null.
template <class A>
SEG_HD inline int bin_taps(const Axis<A>& axis, int bin, int* index, A* weight) {
  int first, last, count = 0, newest = -1, second = -1;
  samples_near_map(axis, bin, &first, &last);
  const A share = A(1) / A(axis.samples > 0 ? axis.samples : 1);
  for (int k = first; k < last; ++k) {
    const int i = axis.bin < A(0) ? first + last - 1 - k : k;
    const Sample<A> sample = sample_at(axis, bin, i);
    if (!sample.inside) continue;
    for (int side = 0; side < 2; ++side) {
      const A w = side == 0 ? sample.low_weight : sample.high_weight;
      const int pixel = side == 0 ? sample.low : sample.high;
      if (w == A(0)) continue;
      if (pixel != newest && pixel != second) {
        second = newest;
        newest = pixel;
        if (index) {
          index[count] = pixel;
          weight[count] = A(0);
        }
        ++count;
      }
      if (index) weight[count - (pixel == newest ? 1 : 2)] += w * share;
    }
  }
  return count;
}

// The bins that read one pixel: list `pixel` of the transposed table.
template <class A>
SEG_HD inline int pixel_taps(const TapTable<A>& bins, int pixel, int* index, A* weight) {
  int count = 0;
  for (int bin = 0; bin < bins.lists; ++bin) {
    for (int k = bins.start[bin]; k < bins.start[bin + 1]; ++k) {
      if (bins.index[k] != pixel) continue;
      if (index) {
        index[count] = bin;
        weight[count] = bins.weight[k];
      }
      ++count;
    }
  }
  return count;
}

// ------------------------------------------------------------------------- forward and backward

// sum += rows x cols weighted values at `base`, for N packs of neighbouring channels. Forward:
// base is the feature map and the taps are a bin's pixels; backward: base is the RoI's output
// gradient and the taps are a pixel's bins.
template <class Pack, int N, class T, class A>
SEG_INLINE void weighted_sum(Pack (&sum)[N], const T* base, const Taps<A>& rows, int64_t row_stride,
                             const Taps<A>& cols, int64_t col_stride) {
  for (int i = 0; i < rows.count; ++i) {
    const T* row = base + rows.index[i] * row_stride;
    for (int j = 0; j < cols.count; ++j) {
      const T* value = row + cols.index[j] * col_stride;
      const A w = rows.weight[i] * cols.weight[j];
      SEG_UNROLL
      for (int n = 0; n < N; ++n) sum[n].add(w, value + n * Pack::kLanes);
    }
  }
}

// One sampling point by its number within the bin, as kept for the gradient of the maximum. The
// number is the int of the same 32 bits as an unsigned: a bin of kMaxSamples squared needs them
// all.
template <class A>
struct Point {
  Sample<A> y, x;
};

template <class A>
SEG_HD inline int point_number(const Axis<A>& x, int i, int j) {
  return static_cast<int>(uint32_t(i) * uint32_t(x.samples) + uint32_t(j));
}

template <class A>
SEG_HD inline Point<A> point_at(const Axis<A>& y, const Axis<A>& x, int row, int col, int number) {
  const uint32_t point = static_cast<uint32_t>(number), line = static_cast<uint32_t>(x.samples);
  return {sample_at(y, row, int(point / line)), sample_at(x, col, int(point % line))};
}

// The largest of a bin's sampling points for `channels` neighbouring channels, and its number;
// kNoPoint where that is a point off the map, whose value is zero, or where there is no point. Zero
// wins ties against points on the map, the first point those among them, a NaN wins over
// everything.
template <class T, class A>
SEG_INLINE void bin_maximum(const T* base, const Axis<A>& y, const Axis<A>& x, int row, int col,
                            int64_t row_stride, int64_t col_stride, int channels,
                            int64_t channel_stride, A* best, int* number) {
  const bool any = y.samples > 0 && x.samples > 0;
  int y_first = 0, y_last = 0, x_first = 0, x_last = 0;
  if (any) {
    samples_near_map(y, row, &y_first, &y_last);
    samples_near_map(x, col, &x_first, &x_last);
  }
  bool any_off = y_last - y_first != y.samples || x_last - x_first != x.samples;
  for (int i = y_first; i < y_last && !any_off; ++i) any_off = !sample_at(y, row, i).inside;
  for (int j = x_first; j < x_last && !any_off; ++j) any_off = !sample_at(x, col, j).inside;
  for (int c = 0; c < channels; ++c) {
    best[c] = any && !any_off ? -A(INFINITY) : A(0);
    number[c] = kNoPoint;
  }
  for (int i = y_first; i < y_last; ++i) {
    const Sample<A> sy = sample_at(y, row, i);
    for (int j = x_first; j < x_last; ++j) {
      const Sample<A> sx = sample_at(x, col, j);
      if (!sy.inside || !sx.inside) continue;
      const T* top = base + sy.low * row_stride;
      const T* bottom = base + sy.high * row_stride;
      const int point = point_number(x, i, j);
      for (int c = 0; c < channels; ++c) {
        const int64_t left = sx.low * col_stride + c * channel_stride;
        const int64_t right = sx.high * col_stride + c * channel_stride;
        const A value =
            sy.low_weight * (sx.low_weight * A(top[left]) + sx.high_weight * A(top[right])) +
            sy.high_weight * (sx.low_weight * A(bottom[left]) + sx.high_weight * A(bottom[right]));
        const bool wins = best[c] == best[c] && (value > best[c] || value != value);
        best[c] = wins ? value : best[c];
        number[c] = wins ? point : number[c];
      }
    }
  }
}

}  // namespace roi_align
}  // namespace seg_plugins
