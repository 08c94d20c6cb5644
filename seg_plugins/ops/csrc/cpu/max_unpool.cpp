// Max pooling that keeps one byte per window (the place of the maximum inside it) and the
// unpooling that reads it back. Python's side, with shapes and rules:
// seg_plugins/ops/max_unpool.py.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <tuple>

namespace {

// Windows of one (H, W) plane: window (i, j) begins at (i * stride, j * stride) and is cut at the
// border. Code c means row c / kernel and column c % kernel of the window.
struct Windows {
  int64_t height, width, rows, columns, kernel, stride;

  int64_t pixel(int64_t i, int64_t j, uint8_t code) const {
    const int64_t y = i * stride + code / kernel, x = j * stride + code % kernel;
    TORCH_CHECK_INDEX(y < height && x < width, "code ", int{code}, " of window (", i, ", ", j,
                      ") points outside the output of ", height, " x ", width);
    return y * width + x;
  }
};

int64_t count_windows(int64_t size, int64_t kernel, int64_t stride) {
  const int64_t windows = (std::max<int64_t>(size - kernel, 0) + stride - 1) / stride + 1;
  return (windows - 1) * stride >= size ? windows - 1 : windows;  // each begins inside
}

void check_window(int64_t kernel, int64_t stride) {
  TORCH_CHECK_VALUE(kernel >= 1 && kernel <= 16 && stride >= 1,
                    "kernel must be in 1..16 (a code has one byte) and stride >= 1, not ", kernel,
                    " and ", stride);
}

void check_pooled(const at::Tensor& x, const at::Tensor& codes, int64_t kernel, int64_t stride) {
  check_window(kernel, stride);
  TORCH_CHECK_VALUE(x.dim() == 4 && codes.scalar_type() == at::kByte && x.sizes() == codes.sizes(),
                    "x (N, C, h, w) and uint8 codes must have one shape, not ", x.sizes(), " and ",
                    codes.scalar_type(), " ", codes.sizes());
}

template <typename T>
void pool_plane(const T* in, T* out, uint8_t* codes, const Windows& w) {
  for (int64_t i = 0; i < w.rows; ++i) {
    const int64_t y0 = i * w.stride, y1 = std::min(y0 + w.kernel, w.height);
    for (int64_t j = 0; j < w.columns; ++j) {
      const int64_t x0 = j * w.stride, x1 = std::min(x0 + w.kernel, w.width);
      T best = in[y0 * w.width + x0];
      uint8_t code = 0;
      for (int64_t y = y0; y < y1; ++y) {
        for (int64_t x = x0; x < x1; ++x) {
          const T value = in[y * w.width + x];
          // The first of equal maxima stays and NaN wins, as in torch's max_pool2d.
          if (value > best || value != value) {
            best = value;
            code = static_cast<uint8_t>((y - y0) * w.kernel + (x - x0));
          }
        }
      }
      out[i * w.columns + j] = best;
      codes[i * w.columns + j] = code;
    }
  }
}

std::tuple<at::Tensor, at::Tensor> max_pool_codes(const at::Tensor& input, int64_t kernel,
                                                  int64_t stride) {
  check_window(kernel, stride);
  TORCH_CHECK_VALUE(input.dim() == 4 && input.size(2) > 0 && input.size(3) > 0,
                    "input must have shape (N, C, H, W) with H, W > 0, not ", input.sizes());
  const at::Tensor x = input.contiguous();
  const Windows w{x.size(2),
                  x.size(3),
                  count_windows(x.size(2), kernel, stride),
                  count_windows(x.size(3), kernel, stride),
                  kernel,
                  stride};
  at::Tensor out = at::empty({x.size(0), x.size(1), w.rows, w.columns}, x.options());
  at::Tensor codes = at::empty(out.sizes(), x.options().dtype(at::kByte));
  const int64_t planes = x.size(0) * x.size(1);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "max_pool_codes", [&] {
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    uint8_t* code = codes.mutable_data_ptr<uint8_t>();
    at::parallel_for(0, planes, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p)
        pool_plane(from + p * w.height * w.width, to + p * w.rows * w.columns,
                   code + p * w.rows * w.columns, w);
    });
  });
  return {out, codes};
}

// Writes each pooled value to its pixel; `add` sums where windows overlap (the gradient of
// pooling), otherwise the last window in reading order wins (torch's max_unpool2d on the CPU).
at::Tensor max_unpool_codes(const at::Tensor& pooled, const at::Tensor& codes_in, int64_t kernel,
                            int64_t stride, at::IntArrayRef output_size, bool add) {
  check_pooled(pooled, codes_in, kernel, stride);
  TORCH_CHECK_VALUE(output_size.size() == 2, "output_size must be (H, W)");
  const at::Tensor x = pooled.contiguous(), codes = codes_in.contiguous();
  const Windows w{output_size[0], output_size[1], x.size(2), x.size(3), kernel, stride};
  at::Tensor out = at::zeros({x.size(0), x.size(1), w.height, w.width}, x.options());
  const int64_t planes = x.size(0) * x.size(1);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "max_unpool", [&] {
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    const uint8_t* code = codes.const_data_ptr<uint8_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, planes, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        scalar_t* plane = to + p * w.height * w.width;
        int64_t k = p * w.rows * w.columns;
        for (int64_t i = 0; i < w.rows; ++i)
          for (int64_t j = 0; j < w.columns; ++j, ++k) {
            scalar_t& target = plane[w.pixel(i, j, code[k])];
            target = add ? target + from[k] : from[k];
          }
      }
    });
  });
  return out;
}

// Reads a full-size tensor at the remembered pixels: the gradient of unpooling.
at::Tensor gather_codes(const at::Tensor& full, const at::Tensor& codes_in, int64_t kernel,
                        int64_t stride) {
  check_window(kernel, stride);
  TORCH_CHECK_VALUE(full.dim() == 4 && codes_in.dim() == 4 && codes_in.scalar_type() == at::kByte &&
                        full.size(0) == codes_in.size(0) && full.size(1) == codes_in.size(1),
                    "full (N, C, H, W) and uint8 codes (N, C, h, w) do not belong together: ",
                    full.sizes(), " and ", codes_in.scalar_type(), " ", codes_in.sizes());
  const at::Tensor x = full.contiguous(), codes = codes_in.contiguous();
  const Windows w{x.size(2), x.size(3), codes.size(2), codes.size(3), kernel, stride};
  at::Tensor out = at::empty(codes.sizes(), x.options());
  const int64_t planes = x.size(0) * x.size(1);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "gather_codes", [&] {
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    const uint8_t* code = codes.const_data_ptr<uint8_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, planes, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const scalar_t* plane = from + p * w.height * w.width;
        int64_t k = p * w.rows * w.columns;
        for (int64_t i = 0; i < w.rows; ++i)
          for (int64_t j = 0; j < w.columns; ++j, ++k) to[k] = plane[w.pixel(i, j, code[k])];
      }
    });
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def("max_pool_codes(Tensor input, int kernel, int stride) -> (Tensor, Tensor)");
  m.def(
      "max_unpool_codes(Tensor x, Tensor codes, int kernel, int stride, int[] output_size, "
      "bool add) -> Tensor");
  m.def("gather_codes(Tensor full, Tensor codes, int kernel, int stride) -> Tensor");
}

TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("max_pool_codes", &max_pool_codes);
  m.impl("max_unpool_codes", &max_unpool_codes);
  m.impl("gather_codes", &gather_codes);
}
