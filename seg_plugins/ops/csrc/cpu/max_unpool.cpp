// Max pooling that keeps one byte per window (the place of the maximum inside it) and the
// unpooling that reads it back. Python's side, with shapes and rules:
// seg_plugins/ops/max_unpool.py.

#include <algorithm>
#include <cstdint>
#include <tuple>

#include "tensor.h"

namespace {

using namespace seg_plugins;

// Windows of one (H, W) plane: window (i, j) begins at (i * stride, j * stride) and is cut at the
// border. Code c means row c / kernel and column c % kernel of the window.
struct Windows {
  int64_t height, width, rows, columns, kernel, stride;

  // Calls visit(k, pixel) for each window of the plane, k its number in reading order.
  template <typename Visit>
  void for_each(const uint8_t* codes, const Visit& visit) const {
    const int64_t area = kernel * kernel;
    int64_t offsets[256];
    for (int64_t code = 0; code < area; ++code)
      offsets[code] = code / kernel * width + code % kernel;
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = i * stride * width;
      // Windows that lie inside as a whole need no look at where in them the code points.
      const bool inner = i * stride + kernel <= height;
      const int64_t whole =
          inner && width >= kernel ? std::min((width - kernel) / stride + 1, columns) : 0;
      int64_t k = i * columns;
      uint8_t largest = 0;
      for (int64_t j = 0; j < whole; ++j) largest = std::max(largest, codes[k + j]);
      SEG_CHECK_INDEX(largest < area, "code ", int{largest}, " is outside windows of ", kernel,
                      " x ", kernel);
      for (int64_t j = 0; j < whole; ++j, ++k) visit(k, row + j * stride + offsets[codes[k]]);
      for (int64_t j = whole; j < columns; ++j, ++k) {
        const int64_t y = i * stride + codes[k] / kernel, x = j * stride + codes[k] % kernel;
        SEG_CHECK_INDEX(y < height && x < width, "code ", int{codes[k]}, " of window (", i, ", ", j,
                        ") points outside the output of ", height, " x ", width);
        visit(k, y * width + x);
      }
    }
  }
};

int64_t count_windows(int64_t size, int64_t kernel, int64_t stride) {
  const int64_t windows = (std::max<int64_t>(size - kernel, 0) + stride - 1) / stride + 1;
  return (windows - 1) * stride >= size ? windows - 1 : windows;  // each begins inside
}

void check_window(int64_t kernel, int64_t stride) {
  SEG_CHECK_VALUE(kernel >= 1 && kernel <= 16 && stride >= 1,
                  "kernel must be in 1..16 (a code has one byte) and stride >= 1, not ", kernel,
                  " and ", stride);
}

void check_pooled(const Tensor& x, const Tensor& codes, int64_t kernel, int64_t stride) {
  check_window(kernel, stride);
  SEG_CHECK_VALUE(x.dim() == 4 && codes.scalar_type() == kByte && x.sizes().equals(codes.sizes()),
                  "x (N, C, h, w) and uint8 codes must have one shape, not ", x.sizes(), " and ",
                  codes.scalar_type(), " ", codes.sizes());
}

// The first of equal maxima stays and NaN wins, as in torch's max_pool2d.
template <typename T>
inline void take_larger(T value, uint8_t place, T& best, uint8_t& code) {
  const bool larger = value > best || value != value;
  best = larger ? value : best;
  code = larger ? place : code;
}

// 2x2 windows side by side, the common case, without branches; returns how many of the row it did.
template <typename T>
int64_t pool_row_2x2(const T* upper, const T* lower, int64_t width, T* out, uint8_t* codes) {
  const int64_t whole = width / 2;
  for (int64_t j = 0; j < whole; ++j) {
    T best = upper[2 * j];
    uint8_t code = 0;
    take_larger(upper[2 * j + 1], 1, best, code);
    take_larger(lower[2 * j], 2, best, code);
    take_larger(lower[2 * j + 1], 3, best, code);
    out[j] = best;
    codes[j] = code;
  }
  return whole;
}

template <typename T>
void pool_plane(const T* in, T* out, uint8_t* codes, const Windows& w) {
  for (int64_t i = 0; i < w.rows; ++i) {
    const int64_t y0 = i * w.stride, y1 = std::min(y0 + w.kernel, w.height);
    int64_t done = 0;
    if (w.kernel == 2 && w.stride == 2 && y1 - y0 == 2) {
      const T* upper = in + y0 * w.width;
      done =
          pool_row_2x2(upper, upper + w.width, w.width, out + i * w.columns, codes + i * w.columns);
    }
    for (int64_t j = done; j < w.columns; ++j) {
      const int64_t x0 = j * w.stride, x1 = std::min(x0 + w.kernel, w.width);
      T best = in[y0 * w.width + x0];
      uint8_t code = 0;
      for (int64_t y = y0; y < y1; ++y) {
        for (int64_t x = x0; x < x1; ++x) {
          const auto place = static_cast<uint8_t>((y - y0) * w.kernel + (x - x0));
          take_larger(in[y * w.width + x], place, best, code);
        }
      }
      out[i * w.columns + j] = best;
      codes[i * w.columns + j] = code;
    }
  }
}

std::tuple<Tensor, Tensor> max_pool_codes(const Tensor& input, int64_t kernel, int64_t stride) {
  check_window(kernel, stride);
  SEG_CHECK_VALUE(input.dim() == 4 && input.size(2) > 0 && input.size(3) > 0,
                  "input must have shape (N, C, H, W) with H, W > 0, not ", input.sizes());
  const Tensor x = dense(input);
  const Windows w{x.size(2),
                  x.size(3),
                  count_windows(x.size(2), kernel, stride),
                  count_windows(x.size(3), kernel, stride),
                  kernel,
                  stride};
  Tensor out = empty({x.size(0), x.size(1), w.rows, w.columns}, x.scalar_type());
  Tensor codes = empty(out.sizes(), kByte);
  const int64_t planes = x.size(0) * x.size(1);
  visit_floating(x.scalar_type(), "max_pool_codes", [&](auto zero) {
    using scalar_t = decltype(zero);
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    uint8_t* code = codes.mutable_data_ptr<uint8_t>();
    parallel_for(0, planes, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p)
        pool_plane(from + p * w.height * w.width, to + p * w.rows * w.columns,
                   code + p * w.rows * w.columns, w);
    });
  });
  return {out, codes};
}

// Writes each pooled value to its pixel; `add` sums where windows overlap (the gradient of
// pooling), otherwise the last window in reading order wins (torch's max_unpool2d on the CPU).
Tensor max_unpool_codes(const Tensor& pooled, const Tensor& codes_in, int64_t kernel,
                        int64_t stride, const std::vector<int64_t>& output_size, bool add) {
  check_pooled(pooled, codes_in, kernel, stride);
  SEG_CHECK_VALUE(output_size.size() == 2, "output_size must be (H, W)");
  const Tensor x = dense(pooled), codes = dense(codes_in);
  const Windows w{output_size[0], output_size[1], x.size(2), x.size(3), kernel, stride};
  Tensor out = zeros({x.size(0), x.size(1), w.height, w.width}, x.scalar_type());
  const int64_t planes = x.size(0) * x.size(1);
  visit_floating(x.scalar_type(), "max_unpool", [&](auto zero) {
    using scalar_t = decltype(zero);
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    const uint8_t* code = codes.const_data_ptr<uint8_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    parallel_for(0, planes, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        scalar_t* plane = to + p * w.height * w.width;
        const int64_t first = p * w.rows * w.columns;
        const scalar_t* values = from + first;
        if (add) {
          w.for_each(code + first, [&](int64_t k, int64_t pixel) { plane[pixel] += values[k]; });
        } else {
          w.for_each(code + first, [&](int64_t k, int64_t pixel) { plane[pixel] = values[k]; });
        }
      }
    });
  });
  return out;
}

// Reads a full-size tensor at the remembered pixels: the gradient of unpooling.
Tensor gather_codes(const Tensor& full, const Tensor& codes_in, int64_t kernel, int64_t stride) {
  check_window(kernel, stride);
  SEG_CHECK_VALUE(full.dim() == 4 && codes_in.dim() == 4 && codes_in.scalar_type() == kByte &&
                      full.size(0) == codes_in.size(0) && full.size(1) == codes_in.size(1),
                  "full (N, C, H, W) and uint8 codes (N, C, h, w) do not belong together: ",
                  full.sizes(), " and ", codes_in.scalar_type(), " ", codes_in.sizes());
  const Tensor x = dense(full), codes = dense(codes_in);
  const Windows w{x.size(2), x.size(3), codes.size(2), codes.size(3), kernel, stride};
  Tensor out = empty(codes.sizes(), x.scalar_type());
  const int64_t planes = x.size(0) * x.size(1);
  visit_floating(x.scalar_type(), "gather_codes", [&](auto zero) {
    using scalar_t = decltype(zero);
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    const uint8_t* code = codes.const_data_ptr<uint8_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    parallel_for(0, planes, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const scalar_t* plane = from + p * w.height * w.width;
        const int64_t first = p * w.rows * w.columns;
        scalar_t* values = to + first;
        w.for_each(code + first, [&](int64_t k, int64_t pixel) { values[k] = plane[pixel]; });
      }
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def("max_pool_codes(Tensor input, int kernel, int stride) -> (Tensor, Tensor)");
  m.def(
      "max_unpool_codes(Tensor x, Tensor codes, int kernel, int stride, int[] output_size, "
      "bool add) -> Tensor");
  m.def("gather_codes(Tensor full, Tensor codes, int kernel, int stride) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("max_pool_codes", TORCH_BOX(&max_pool_codes));
  m.impl("max_unpool_codes", TORCH_BOX(&max_unpool_codes));
  m.impl("gather_codes", TORCH_BOX(&gather_codes));
}
