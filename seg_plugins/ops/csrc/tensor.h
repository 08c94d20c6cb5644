// PyTorch's tensors through its stable ABI: what is compiled here loads in every PyTorch from
// TORCH_TARGET_VERSION on, whatever version it was compiled with, as long as nothing of ATen or c10
// is included beside it.
//
// The stable ABI knows std exceptions only. Python sees std::invalid_argument as ValueError,
// std::out_of_range as IndexError and any other as RuntimeError.
#pragma once

// clang-format off: before PyTorch's headers
#include "stable_abi.h"
// clang-format on

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <mutex>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "floating.h"

namespace seg_plugins {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

constexpr ScalarType kBool = ScalarType::Bool, kByte = ScalarType::Byte, kShort = ScalarType::Short,
                     kUInt16 = ScalarType::UInt16, kInt = ScalarType::Int, kLong = ScalarType::Long,
                     kFloat = ScalarType::Float, kDouble = ScalarType::Double;

// ------------------------------------------------------------------------------------- errors

template <class Part>
void write_part(std::ostream& out, const Part& part) {
  out << part;
}

inline void write_part(std::ostream& out, const Sizes& sizes) {
  out << '[';
  for (size_t i = 0; i < sizes.size(); ++i) out << (i == 0 ? "" : ", ") << sizes[i];
  out << ']';
}

inline void write_part(std::ostream& out, const std::vector<int64_t>& sizes) {
  write_part(out, Sizes(sizes));
}

inline void write_part(std::ostream& out, ScalarType type) {
  out << torch::headeronly::toString(type);
}

inline void write_part(std::ostream& out, const torch::stable::Device& device) {
  out << (device.is_cpu() ? "cpu" : device.is_cuda() ? "cuda" : "another device");
  if (device.index() >= 0) out << ':' << device.index();
}

// Throws an Error whose message is the parts one after the other.
template <class Error, class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (write_part(message, parts), ...);
  throw Error(message.str());
}

#define SEG_CHECK(Error, condition, ...)       \
  do {                                         \
    if (!(condition)) [[unlikely]]             \
      ::seg_plugins::fail<Error>(__VA_ARGS__); \
  } while (false)
#define SEG_CHECK_VALUE(condition, ...) SEG_CHECK(std::invalid_argument, condition, __VA_ARGS__)
#define SEG_CHECK_INDEX(condition, ...) SEG_CHECK(std::out_of_range, condition, __VA_ARGS__)

// ------------------------------------------------------------------------------------ tensors

// The strides of (N, C, H, W) with the channels last.
inline std::vector<int64_t> channels_last_strides(Sizes sizes) {
  return {sizes[1] * sizes[2] * sizes[3], 1, sizes[1] * sizes[3], sizes[1]};
}

// Whether an (N, C, H, W) tensor lies with its channels last; an axis of one step may have any
// stride, as PyTorch has it.
inline bool lies_channels_last(const Tensor& tensor) {
  const Sizes sizes = tensor.sizes(), strides = tensor.strides();
  if (sizes.size() != 4) return false;
  int64_t expected = 1;
  for (const int axis : {1, 3, 2, 0}) {
    if (sizes[axis] == 1) continue;
    if (strides[axis] != expected) return false;
    expected *= sizes[axis];
  }
  return true;
}

// A tensor whose memory is not filled, on the device of `like` or on the CPU; `channels_last` asks
// for that layout of four axes.
inline Tensor empty(Sizes sizes, ScalarType type, const Tensor* like = nullptr,
                    bool channels_last = false) {
  std::vector<int64_t> strides(sizes.size());
  if (channels_last) {
    strides = channels_last_strides(sizes);
  } else {
    int64_t stride = 1;
    for (size_t i = sizes.size(); i-- > 0; stride *= std::max<int64_t>(sizes[i], 1)) {
      strides[i] = stride;
    }
  }
  int32_t device_type = aoti_torch_device_type_cpu(), device_index = 0;
  if (like) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like->get(), &device_type));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like->get(), &device_index));
  }
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle result = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                                  strides.data(), code, device_type, device_index,
                                                  &result));
  return Tensor(result);
}

inline Tensor zeros(Sizes sizes, ScalarType type, const Tensor* like = nullptr,
                    bool channels_last = false) {
  Tensor result = empty(sizes, type, like, channels_last);
  const int64_t bytes = result.numel() * static_cast<int64_t>(result.element_size());
  // Going through PyTorch's dispatcher takes longer than so few bytes.
  if (result.is_cpu() && bytes <= int64_t{1} << 17) {
    if (bytes > 0) std::memset(result.mutable_data_ptr(), 0, bytes);
  } else {
    torch::stable::zero_(result);
  }
  return result;
}

// The tensor in reading order, or with the channels last: a copy only where it lies otherwise.
inline Tensor dense(const Tensor& tensor, bool channels_last = false) {
  if (channels_last ? lies_channels_last(tensor) : tensor.is_contiguous()) return tensor;
  const auto format = channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                    : torch::headeronly::MemoryFormat::Contiguous;
  return torch::stable::contiguous(tensor, format);
}

// The ScalarType of float or double, which sums are kept in.
template <class A>
constexpr ScalarType kSumType = std::is_same_v<A, double> ? kDouble : kFloat;

inline Tensor to_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// Calls function(T{}) with the floating-point type T of a tensor.
template <class Function>
void visit_floating(ScalarType type, const char* what, const Function& function) {
  switch (type) {
    case ScalarType::Double:
      return function(double{});
    case ScalarType::Float:
      return function(float{});
    case ScalarType::Half:
      return function(Half{});
    case ScalarType::BFloat16:
      return function(BFloat16{});
    default:
      fail<std::runtime_error>('"', what, "\" not implemented for '", type, "'");
  }
}

// ------------------------------------------------------------------------------------ threads

// Calls work(first, last) on PyTorch's threads for ranges that make up [begin, end), each of
// `grain` steps or more. The first exception of any thread comes out as it is.
template <class Work>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Work& work) {
  std::exception_ptr error;
  std::mutex mutex;
  torch::stable::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) {
    try {
      work(first, last);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace seg_plugins
