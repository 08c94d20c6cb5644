// COCO's run-length masks: runs of a mask read column by column, background first, as a string of
// six-bit characters in which each count from the fourth on is stored as its difference to the one
// two before.

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "tensor.h"

namespace seg_plugins {

// Writes the string of one mask from its foreground runs, handed over in ascending order.
class RunWriter {
 public:
  // Foreground on [start, end).
  void add(int64_t start, int64_t end) {
    append(start - last_);
    append(end - start);
    last_ = end;
  }

  // The background after the last run; to be called once.
  void finish(int64_t total) {
    if (last_ < total || written_ == 0) append(total - last_);
  }

  const std::vector<uint8_t>& text() const { return text_; }

 private:
  void append(int64_t count) {
    int64_t value = written_ > 2 ? count - two_before_ : count;
    bool more = true;
    while (more) {
      const int64_t low = value & 0x1f;
      value >>= 5;
      more = (low & 0x10) ? value != -1 : value != 0;
      text_.push_back(static_cast<uint8_t>((more ? low | 0x20 : low) + 48));
    }
    two_before_ = one_before_;
    one_before_ = count;
    ++written_;
  }

  std::vector<uint8_t> text_;
  int64_t last_ = 0, written_ = 0, one_before_ = 0, two_before_ = 0;
};

// Concatenated strings as (offsets (N + 1) int64, bytes uint8).
inline std::tuple<Tensor, Tensor> pack(const std::vector<const RunWriter*>& writers) {
  Tensor offsets = empty({static_cast<int64_t>(writers.size()) + 1}, kLong);
  int64_t* offset = offsets.mutable_data_ptr<int64_t>();
  offset[0] = 0;
  for (size_t i = 0; i < writers.size(); ++i)
    offset[i + 1] = offset[i] + static_cast<int64_t>(writers[i]->text().size());
  Tensor bytes = empty({offset[writers.size()]}, kByte);
  uint8_t* out = bytes.mutable_data_ptr<uint8_t>();
  for (size_t i = 0; i < writers.size(); ++i)
    std::copy(writers[i]->text().begin(), writers[i]->text().end(), out + offset[i]);
  return {offsets, bytes};
}

inline std::tuple<Tensor, Tensor> pack(const std::vector<RunWriter>& writers) {
  std::vector<const RunWriter*> pointers;
  for (const RunWriter& writer : writers) pointers.push_back(&writer);
  return pack(pointers);
}

using Runs = std::vector<std::pair<int64_t, int64_t>>;

// Calls function(start, end) for the foreground runs of one string, empty ones included;
// `index` names the string in errors.
template <typename Function>
void visit_runs(const uint8_t* text, int64_t length, int64_t pixels, int64_t index,
                const Function& function) {
  int64_t at = 0, position = 0, written = 0, one_before = 0, two_before = 0;
  const auto next_piece = [&](int shift) {
    SEG_CHECK_VALUE(at < length && shift < 60, "run-length mask ", index,
                    " ends inside a count or holds one that is too long");
    const int64_t piece = static_cast<int64_t>(text[at++]) - 48;
    SEG_CHECK_VALUE(piece >= 0 && piece < 64, "run-length mask ", index,
                    " holds a character outside the code");
    return piece;
  };
  // The last five bits of a count are signed.
  const auto last_bits = [](int64_t piece) { return (piece ^ 0x10) - 0x10; };
  while (at < length) {
    int64_t piece = next_piece(0);
    int64_t value = last_bits(piece);  // most counts are one character long
    if (piece & 0x20) {
      value = piece & 0x1f;
      for (int shift = 5; piece & 0x20; shift += 5) {
        piece = next_piece(shift);
        value += (piece & 0x20 ? piece & 0x1f : last_bits(piece)) * (int64_t{1} << shift);
      }
    }
    if (written > 2) value += two_before;
    SEG_CHECK_VALUE(value >= 0 && value <= pixels - position, "run-length mask ", index,
                    " does not fit an image of ", pixels, " pixels");
    if (written % 2 == 1) function(position, position + value);
    position += value;
    two_before = one_before;
    one_before = value;
    ++written;
  }
  SEG_CHECK_VALUE(position == pixels, "run-length mask ", index, " covers ", position, " of ",
                  pixels, " pixels: it belongs to an image of another size");
}

// Foreground runs [start, end) of one string; `index` names it in errors.
inline Runs read_runs(const uint8_t* text, int64_t length, int64_t pixels, int64_t index) {
  Runs runs;
  visit_runs(text, length, pixels, index, [&](int64_t start, int64_t end) {
    if (start == end) return;
    // A background run of length 0 between two foreground runs joins them.
    if (!runs.empty() && runs.back().second == start)
      runs.back().second = end;
    else
      runs.emplace_back(start, end);
  });
  return runs;
}

// First position from `at` on whose value differs from column[at].
template <typename T>
int64_t run_end(const T* column, int64_t at, int64_t size) {
  const T value = column[at++];
  if constexpr (sizeof(T) == 1 && std::endian::native == std::endian::little) {
    const uint64_t pattern = 0x0101010101010101ULL * static_cast<uint8_t>(value);
    for (; at + 8 <= size; at += 8) {
      uint64_t word;
      std::memcpy(&word, column + at, sizeof(word));
      word ^= pattern;
      if (word != 0) return at + std::countr_zero(word) / 8;
    }
  }
  while (at < size && column[at] == value) ++at;
  return at;
}

// Calls function(x, column) for columns x in [left, right), each holding rows [top, bottom).
template <typename T, typename Function>
void for_each_column(const T* image, int64_t width, int64_t left, int64_t right, int64_t top,
                     int64_t bottom, const Function& function) {
  constexpr int64_t kColumns = 64;
  const int64_t rows = bottom - top;
  // An odd number of cache lines a column: columns then do not share the cache's sets.
  const int64_t stride = ((rows * sizeof(T) / 64 + 1) | 1) * 64 / sizeof(T);
  std::vector<T> turned(kColumns * stride);
  for (int64_t x = left; x < right; x += kColumns) {
    const int64_t columns = std::min(kColumns, right - x);
    for (int64_t y = 0; y < rows; ++y) {
      const T* row = image + (top + y) * width + x;
      for (int64_t c = 0; c < columns; ++c) turned[c * stride + y] = row[c];
    }
    for (int64_t c = 0; c < columns; ++c) function(x + c, turned.data() + c * stride);
  }
}

}  // namespace seg_plugins
