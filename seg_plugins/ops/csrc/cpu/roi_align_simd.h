// The inner loops of RoIAlign on the CPU, compiled for SSE/NEON, AVX2 and AVX-512 in one binary;
// the running processor chooses.
//
// Tap tables and sampling points are never computed in here: these functions may fuse a
// multiplication and an addition, which would move a coordinate by a rounding error and fp32
// results away from torchvision's.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/vector_pack.h"
#include "roi_align.h"

#if defined(__GNUC__)
#define SEG_PREFETCH(address) __builtin_prefetch(address, 0, 2)  // into the second level
#else
#define SEG_PREFETCH(address) static_cast<void>(address)
#endif

namespace seg_plugins {
namespace roi_align {

// One RoI forward.
template <class T>
struct PoolJob {
  using A = SumType<T>;
  TapTable<A> rows, cols;  // a list per bin
  int64_t channels, width, plane;
  const T* map;   // of the image: (H, W, C), or (C, H, W) for pool_planes
  T* output;      // (h, w, C), or (C, h, w)
  bool prefetch;  // the pixels of the next row of bins, for maps that are not in a cache yet
  bool stream;    // past the caches; every pixel of the output begins at a multiple of 64 bytes
  int first_row, last_row, first_col, last_col;  // what the taps read, for pool_planes
};

// One RoI's share in one row of the gradient map.
template <class T>
struct SpreadJob {
  using A = SumType<T>;
  const T* grad;     // (h, w, C)
  A* row;            // (W, C)
  Taps<A> bin_rows;  // the bin rows that read this row of pixels
  TapTable<A> cols;  // a list of bin columns per pixel from first_col on
  int64_t channels, bin_columns;
  int first_col, last_col;
};

// Calls step(pack count, first channel) over all channels, in large blocks while they last, then in
// a quarter of that, down to single packs and single channels.
template <class Pack, int N, class Step>
SEG_INLINE void for_channel_blocks(int64_t channels, const Step& step, int64_t c = 0) {
  for (; c + N * Pack::kLanes <= channels; c += N * Pack::kLanes) {
    step.template run<Pack, N>(c);
  }
  if constexpr (N > 1) {
    for_channel_blocks<Pack, (N + 3) / 4>(channels, step, c);
  } else if constexpr (Pack::kLanes > 1) {
    for_channel_blocks<VectorPack<typename Step::Accumulator, 1>, 1>(channels, step, c);
  }
}

template <class T>
struct PoolStep {
  using Accumulator = SumType<T>;
  const PoolJob<T>& job;

  template <class Pack, int N>
  SEG_INLINE void run(int64_t c) const {
    const int64_t channels = job.channels;
    T* out = job.output + c;
    for (int row = 0; row < job.rows.lists; ++row) {
      for (int col = 0; col < job.cols.lists; ++col, out += channels) {
        if (job.prefetch && row + 1 < job.rows.lists) {
          prefetch_new<N * Pack::kLanes * sizeof(T)>(job.map + c, row + 1, col);
        }
        Pack sum[N];
        SEG_UNROLL
        for (int n = 0; n < N; ++n) sum[n].clear();
        weighted_sum(sum, job.map + c, job.rows.list(row), job.width * channels, job.cols.list(col),
                     channels);
        SEG_UNROLL
        for (int n = 0; n < N; ++n) {
          if (job.stream) {
            sum[n].stream(out + n * Pack::kLanes);
          } else {
            sum[n].store(out + n * Pack::kLanes);
          }
        }
      }
    }
  }

  // Fetches what a bin reads and neither the bin above it nor the one to its left does.
  template <size_t kBytes>
  SEG_INLINE void prefetch_new(const T* map, int row, int col) const {
    const auto rows = job.rows.list(row), cols = job.cols.list(col);
    const int row_seen = last_pixel(job.rows, row - 1), col_seen = last_pixel(job.cols, col - 1);
    for (int i = 0; i < rows.count; ++i) {
      if (rows.index[i] <= row_seen) continue;
      for (int j = 0; j < cols.count; ++j) {
        if (cols.index[j] <= col_seen) continue;
        const int64_t pixel = int64_t(rows.index[i]) * job.width + cols.index[j];
        const char* line = reinterpret_cast<const char*>(map + pixel * job.channels);
        for (size_t byte = 0; byte < kBytes; byte += 64) SEG_PREFETCH(line + byte);
      }
    }
  }

  SEG_INLINE static int last_pixel(const TapTable<Accumulator>& table, int list) {
    if (list < 0 || table.start[list] == table.start[list + 1]) return -1;
    return table.index[table.start[list + 1] - 1];
  }
};

template <class T>
struct SpreadStep {
  using Accumulator = SumType<T>;
  const SpreadJob<T>& job;

  template <class Pack, int N>
  SEG_INLINE void run(int64_t c) const {
    const int64_t channels = job.channels;
    for (int x = job.first_col; x < job.last_col; ++x) {
      const auto bins = job.cols.list(x - job.first_col);
      if (bins.count == 0) continue;
      Accumulator* pixel = job.row + x * channels + c;
      Pack sum[N];
      SEG_UNROLL
      for (int n = 0; n < N; ++n) sum[n].load(pixel + n * Pack::kLanes);
      weighted_sum(sum, job.grad + c, job.bin_rows, job.bin_columns * channels, bins, channels);
      SEG_UNROLL
      for (int n = 0; n < N; ++n) sum[n].store(pixel + n * Pack::kLanes);
    }
  }
};

template <class Pack, int N, class T>
SEG_INLINE void pool(const PoolJob<T>& job) {
  for_channel_blocks<Pack, N>(job.channels, PoolStep<T>{job});
}

template <class Pack, int N, class T>
SEG_INLINE void spread(const SpreadJob<T>& job) {
  for_channel_blocks<Pack, N>(job.channels, SpreadStep<T>{job});
}

// The same for planes of channels: the pixels that the RoI touches are brought into a patch with
// the channels last, a few channels at a time.
template <class Pack, int N, class T>
SEG_INLINE void pool_planes(const PoolJob<T>& job, std::vector<SumType<T>>& patch,
                            std::vector<SumType<T>>& pooled) {
  using A = SumType<T>;
  constexpr int kChannels = 32;
  const int rows = job.last_row - job.first_row, cols = job.last_col - job.first_col;
  const int64_t bins = int64_t(job.rows.lists) * job.cols.lists;
  patch.resize(int64_t(rows) * cols * kChannels);
  pooled.resize(bins * kChannels);
  for (int64_t c = 0; c < job.channels; c += kChannels) {
    const int n = static_cast<int>(std::min<int64_t>(kChannels, job.channels - c));
    const T* from = job.map + c * job.plane + job.first_row * job.width + job.first_col;
    for (int y = 0; y < rows; ++y) {
      for (int x = 0; x < cols; ++x) {
        A* to = patch.data() + (int64_t(y) * cols + x) * n;
        const T* pixel = from + y * job.width + x;
        for (int k = 0; k < n; ++k) to[k] = A(pixel[k * job.plane]);
      }
    }
    PoolJob<A> inner;
    inner.rows = job.rows;
    inner.cols = job.cols;
    inner.channels = n;
    inner.width = cols;
    inner.map = patch.data() - (int64_t(job.first_row) * cols + job.first_col) * n;
    inner.output = pooled.data();
    inner.prefetch = inner.stream = false;
    for_channel_blocks<Pack, kChannels / Pack::kLanes>(n, PoolStep<A>{inner});
    T* out = job.output + c * bins;
    for (int k = 0; k < n; ++k) {
      for (int64_t bin = 0; bin < bins; ++bin) out[k * bins + bin] = T(pooled[bin * n + k]);
    }
  }
}

// A finished row of the gradient map, (W, C), into a map of another dtype or layout.
template <class T, class A>
SEG_INLINE void write_row(const A* row, int64_t width, int64_t channels, T* to, int64_t col_stride,
                          int64_t channel_stride) {
  if (channel_stride == 1) {
    for (int64_t i = 0; i < width * channels; ++i) to[i] = T(row[i]);
    return;
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t x = 0; x < width; ++x) {
      to[c * channel_stride + x * col_stride] = T(row[x * channels + c]);
    }
  }
}

#if defined(__GNUC__) && defined(__x86_64__)
#define SEG_X86_DISPATCH 1
#define SEG_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define SEG_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#endif
#define SEG_TARGET_BASE

// The functions of one instruction set, with registers of BYTES and N of them in a block.
#define SEG_DEFINE_KERNELS(NAME, TARGET, BYTES, N)                                                \
  template <class T>                                                                              \
  struct NAME {                                                                                   \
    using A = SumType<T>;                                                                         \
    using Pack = VectorPack<A, (BYTES) / sizeof(A)>;                                              \
    TARGET static void pool(const PoolJob<T>& job) { roi_align::pool<Pack, N>(job); }             \
    TARGET static void pool_planes(const PoolJob<T>& job, std::vector<A>& a, std::vector<A>& b) { \
      roi_align::pool_planes<Pack, N>(job, a, b);                                                 \
    }                                                                                             \
    TARGET static void spread(const SpreadJob<T>& job) { roi_align::spread<Pack, N>(job); }       \
    TARGET static void write_row(const A* row, int64_t width, int64_t channels, T* to,            \
                                 int64_t col_stride, int64_t channel_stride) {                    \
      roi_align::write_row(row, width, channels, to, col_stride, channel_stride);                 \
    }                                                                                             \
  };

SEG_DEFINE_KERNELS(BaseKernels, SEG_TARGET_BASE, 16, 8)
#ifdef SEG_X86_DISPATCH
SEG_DEFINE_KERNELS(Avx2Kernels, SEG_TARGET_AVX2, 32, 8)
SEG_DEFINE_KERNELS(Avx512Kernels, SEG_TARGET_AVX512, 64, 16)
#endif
#undef SEG_DEFINE_KERNELS

inline const char* instruction_set() {
#ifdef SEG_X86_DISPATCH
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return "avx512";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
#endif
  return "baseline";
}

template <class T>
struct Kernels {
  using A = SumType<T>;
  void (*pool)(const PoolJob<T>&);
  void (*pool_planes)(const PoolJob<T>&, std::vector<A>&, std::vector<A>&);
  void (*spread)(const SpreadJob<T>&);
  void (*write_row)(const A*, int64_t, int64_t, T*, int64_t, int64_t);
  void (*maximum)(const T*, const Axis<A>&, const Axis<A>&, int, int, int64_t, int64_t, int,
                  int64_t, A*, int*);

  template <template <class> class K>
  static Kernels of() {
    return {&K<T>::pool, &K<T>::pool_planes, &K<T>::spread, &K<T>::write_row, &bin_maximum<T, A>};
  }

  static const Kernels& best() {
#ifdef SEG_X86_DISPATCH
    static const Kernels kernels = instruction_set()[3] == '5'   ? of<Avx512Kernels>()
                                   : instruction_set()[3] == '2' ? of<Avx2Kernels>()
                                                                 : of<BaseKernels>();
#else
    static const Kernels kernels = of<BaseKernels>();
#endif
    return kernels;
  }
};

}  // namespace roi_align
}  // namespace seg_plugins
