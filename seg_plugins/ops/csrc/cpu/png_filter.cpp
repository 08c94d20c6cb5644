// The second half of PNG decoding: rows from their differences (PNG specification, section 9).
// Label images are mostly zero differences; those go by blocks instead of by bytes.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

// Bytes per step; a multiple of every pixel size.
constexpr int64_t kBlock = 24;

bool equal_blocks(const uint8_t* a, const uint8_t* b) { return std::memcmp(a, b, kBlock) == 0; }

bool is_zero(const uint8_t* block) {
  uint64_t words[kBlock / 8];
  std::memcpy(words, block, sizeof(words));
  return (words[0] | words[1] | words[2]) == 0;
}

uint8_t paeth(int left, int up, int corner) {
  const int to_left = std::abs(up - corner), to_up = std::abs(left - corner),
            to_corner = std::abs(left + up - 2 * corner);
  if (to_left <= to_up && to_left <= to_corner) return static_cast<uint8_t>(left);
  return static_cast<uint8_t>(to_up <= to_corner ? up : corner);
}

// One row: `row` from the differences `in`; `above` is the row before, zero before the first.
template <int kPixel>
void undo_filter(int filter, const uint8_t* in, const uint8_t* above, uint8_t* row, int64_t n) {
  const auto left = [&](int64_t i) -> int { return i < kPixel ? 0 : row[i - kPixel]; };
  const auto corner = [&](int64_t i) -> int { return i < kPixel ? 0 : above[i - kPixel]; };
  const auto repeat_left = [&](int64_t i) {
    for (int64_t j = 0; j < kBlock; ++j) row[i + j] = row[i + j - kPixel];
  };
  switch (filter) {
    case 0:
      std::copy_n(in, n, row);
      return;
    case 1:
      for (int64_t i = 0; i < n;) {
        if (i >= kPixel && i + kBlock <= n && is_zero(in + i)) {
          repeat_left(i);
          i += kBlock;
          continue;
        }
        for (const int64_t end = std::min(n, i + kPixel); i < end; ++i)
          row[i] = static_cast<uint8_t>(in[i] + left(i));
      }
      return;
    case 2:
      for (int64_t i = 0; i < n; ++i) row[i] = static_cast<uint8_t>(in[i] + above[i]);
      return;
    case 3:
      for (int64_t i = 0; i < n; ++i)
        row[i] = static_cast<uint8_t>(in[i] + (left(i) + above[i]) / 2);
      return;
    default:
      for (int64_t i = 0; i < n;) {
        if (i >= kPixel && i + kBlock <= n && is_zero(in + i)) {
          // Left equals corner: the predictor is what lies above, and stays so.
          if (std::memcmp(row + i - kPixel, above + i - kPixel, kPixel) == 0) {
            std::memcpy(row + i, above + i, kBlock);
            i += kBlock;
            continue;
          }
          // Above equals corner all along: the predictor is what lies left.
          if (equal_blocks(above + i, above + i - kPixel)) {
            repeat_left(i);
            i += kBlock;
            continue;
          }
        }
        for (const int64_t end = std::min(n, i + kPixel); i < end; ++i)
          row[i] = static_cast<uint8_t>(in[i] + paeth(left(i), above[i], corner(i)));
      }
  }
}

// Pixels (H, row bytes) from H rows of one filter byte and the row's differences.
at::Tensor png_unfilter(const at::Tensor& filtered, int64_t height, int64_t row_bytes,
                        int64_t pixel_bytes) {
  TORCH_CHECK_VALUE(filtered.dim() == 1 && filtered.scalar_type() == at::kByte &&
                        filtered.is_contiguous() && filtered.device().is_cpu(),
                    "filtered must be contiguous bytes on the CPU");
  TORCH_CHECK_VALUE(height >= 0 && row_bytes >= 0 && filtered.numel() == height * (row_bytes + 1),
                    "filtered has ", filtered.numel(), " bytes, not ", height, " rows of 1 + ",
                    row_bytes);
  TORCH_CHECK_VALUE(pixel_bytes >= 1 && pixel_bytes <= 3, "pixels of 1 to 3 bytes, not ",
                    pixel_bytes);
  const auto undo = pixel_bytes == 1   ? undo_filter<1>
                    : pixel_bytes == 2 ? undo_filter<2>
                                       : undo_filter<3>;
  at::Tensor pixels = at::empty({height, row_bytes}, at::kByte);
  const uint8_t* in = filtered.const_data_ptr<uint8_t>();
  uint8_t* out = pixels.mutable_data_ptr<uint8_t>();
  const std::vector<uint8_t> nothing(row_bytes, 0);
  const uint8_t* above = nothing.data();
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* line = in + y * (row_bytes + 1);
    TORCH_CHECK_VALUE(line[0] <= 4, "row ", y, " has the unknown filter ", int{line[0]});
    undo(line[0], line + 1, above, out + y * row_bytes, row_bytes);
    above = out + y * row_bytes;
  }
  return pixels;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def("png_unfilter(Tensor filtered, int height, int row_bytes, int pixel_bytes) -> Tensor");
}

TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) { m.impl("png_unfilter", &png_unfilter); }
