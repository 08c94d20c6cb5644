// One RoI pooled by the kernels of every instruction set that this processor has, beside the plain
// sum in double precision. Prints: instruction set, type, channels, largest relative error, whether
// streamed stores give the same bits.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu/roi_align_simd.h"

using namespace seg_plugins::roi_align;

template <class T>
std::unique_ptr<T[], decltype(&std::free)> aligned(size_t count) {
  return {static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64)), &std::free};
}

template <class T, template <class> class K>
void compare(const char* set, const char* type) {
  using A = seg_plugins::SumType<T>;
  constexpr int kHeight = 9, kWidth = 11, kRows = 3, kCols = 4;
  // The bins' pixels and weights: two rows skipped, one shared, a bin of a single pixel.
  std::vector<int> row_start{0, 2, 4, 5}, row_index{0, 1, 1, 4, 8};
  std::vector<int> col_start{0, 2, 4, 5, 6}, col_index{0, 2, 3, 5, 9, 10};
  std::vector<A> row_weight{A(0.25), A(0.75), A(0.5), A(0.5), A(1)};
  std::vector<A> col_weight{A(1), A(0.125), A(0.875), A(1), A(0.5), A(0.5)};
  for (const int channels : {19, 64, 96, 256, 320}) {
    const auto map = aligned<T>(kHeight * kWidth * channels);
    for (int i = 0; i < kHeight * kWidth * channels; ++i) {
      map[i] = T(float(i * 7919L % 1000) / 37.f - 11.f);
    }
    const size_t count = kRows * kCols * channels;
    const auto stored = aligned<T>(count), streamed = aligned<T>(count);
    PoolJob<T> job{};
    job.rows = {row_start.data(), row_index.data(), row_weight.data(), kRows};
    job.cols = {col_start.data(), col_index.data(), col_weight.data(), kCols};
    job.channels = channels;
    job.width = kWidth;
    job.map = map.get();
    job.prefetch = true;
    job.output = stored.get();
    K<T>::pool(job);
    bool same = true;
    if (channels * sizeof(T) % 64 == 0) {
      job.stream = true;
      job.output = streamed.get();
      K<T>::pool(job);
      seg_plugins::stream_fence();
      same = !std::memcmp(stored.get(), streamed.get(), count * sizeof(T));
    }
    double error = 0;
    for (int row = 0; row < kRows; ++row) {
      for (int col = 0; col < kCols; ++col) {
        for (int c = 0; c < channels; ++c) {
          double sum = 0, size = 0;
          for (int i = row_start[row]; i < row_start[row + 1]; ++i) {
            for (int j = col_start[col]; j < col_start[col + 1]; ++j) {
              const int pixel = row_index[i] * kWidth + col_index[j];
              const double part = double(row_weight[i]) * double(col_weight[j]) *
                                  double(map[int64_t(pixel) * channels + c]);
              sum += part;
              size += std::fabs(part);
            }
          }
          const double found = double(stored[(row * kCols + col) * channels + c]);
          error = std::fmax(error, std::fabs(found - sum) / (size + 1e-30));
        }
      }
    }
    std::printf("%s %s %d %g %d\n", set, type, channels, error, int(same));
  }
}

template <template <class> class K>
void compare_types(const char* set) {
  compare<double, K>(set, "double");
  compare<float, K>(set, "float");
  compare<seg_plugins::BFloat16, K>(set, "bfloat16");
  compare<seg_plugins::Half, K>(set, "half");
}

int main() {
  compare_types<BaseKernels>("baseline");
#ifdef SEG_X86_DISPATCH
  if (instruction_set()[0] == 'a') compare_types<Avx2Kernels>("avx2");
  if (instruction_set()[3] == '5') compare_types<Avx512Kernels>("avx512");
#endif
}
