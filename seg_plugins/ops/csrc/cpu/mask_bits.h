// Masks as bits, column after column: 64 pixels of erosion and overlap at a time.

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "run_length.h"
#include "simd.h"

namespace seg_plugins {

#if SEG_HAS_AVX2_TARGET
// Every processor with AVX2 counts the bits of a word in one instruction.
SEG_TARGET_AVX2 inline int64_t count_shared_avx2(const uint64_t* a, const uint64_t* b, int64_t n) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::popcount(a[i] & b[i]);
  return sum;
}
#endif

// Bits set in both of two rows of n words.
inline int64_t count_shared(const uint64_t* a, const uint64_t* b, int64_t n) {
#if SEG_HAS_AVX2_TARGET
  if (has_avx2()) return count_shared_avx2(a, b, n);
#endif
  int64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::popcount(a[i] & b[i]);
  return sum;
}

// The columns from the mask's first to its last; each starts at a word of its own.
class MaskBits {
 public:
  MaskBits() = default;

  // `runs` of a mask whose columns are `height` high, not empty. Of what is set in a column,
  // `shrink` pixels are left out at each end of every piece.
  MaskBits(const Runs& runs, int64_t height, int64_t shrink = 0)
      : left_(runs.front().first / height),
        columns_((runs.back().second - 1) / height + 1 - left_),
        words_((height + 63) / 64),
        bits_(columns_ * words_, 0) {
    for (const auto& [start, end] : runs) {
      int64_t column = start / height, top = start % height;
      for (int64_t rest = end - start; rest > 0; ++column, top = 0) {
        const int64_t rows = std::min(rest, height - top);
        if (rows > 2 * shrink)
          set(bits_.data() + (column - left_) * words_, top + shrink, top + rows - shrink);
        rest -= rows;
      }
    }
  }

  int64_t area() const { return count_shared(bits_.data(), bits_.data(), bits_.size()); }

  int64_t shared_with(const MaskBits& other) const {
    const int64_t left = std::max(left_, other.left_),
                  right = std::min(left_ + columns_, other.left_ + other.columns_);
    if (left >= right) return 0;
    return count_shared(bits_.data() + (left - left_) * words_,
                        other.bits_.data() + (left - other.left_) * words_,
                        (right - left) * words_);
  }

  // The mask without its erosion by a square of side 2 * radius + 1; outside the image is
  // background. `inner` holds the same mask eroded along its columns, and is used up.
  MaskBits band(MaskBits inner, int64_t radius) const {
    MaskBits found = *this;
    const int64_t side = 2 * radius + 1;
    if (columns_ < side) return found;
    // From each column on, what is set in `reach` columns.
    uint64_t* const eroded = inner.bits_.data();
    int64_t reach = 1;
    for (; 2 * reach <= side; reach *= 2) {
      const int64_t last = (columns_ - 2 * reach + 1) * words_, step = reach * words_;
      for (int64_t i = 0; i < last; ++i) eroded[i] &= eroded[i + step];
    }
    // Two such stretches, which may overlap, make up the square's side.
    const int64_t second = (side - reach) * words_, count = (columns_ - side + 1) * words_;
    uint64_t* const out = found.bits_.data() + radius * words_;
    for (int64_t i = 0; i < count; ++i) out[i] &= ~(eroded[i] & eroded[i + second]);
    return found;
  }

 private:
  // Rows [top, bottom) of a column, at least one.
  static void set(uint64_t* column, int64_t top, int64_t bottom) {
    const int64_t first = top / 64, last = (bottom - 1) / 64;
    const uint64_t head = ~uint64_t{0} << (top % 64),
                   tail = ~uint64_t{0} >> (63 - (bottom - 1) % 64);
    if (first == last) {
      column[first] |= head & tail;
      return;
    }
    column[first] |= head;
    for (int64_t i = first + 1; i < last; ++i) column[i] = ~uint64_t{0};
    column[last] |= tail;
  }

  int64_t left_ = 0, columns_ = 0, words_ = 0;
  std::vector<uint64_t> bits_;
};

}  // namespace seg_plugins
