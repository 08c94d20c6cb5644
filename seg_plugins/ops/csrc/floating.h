// The floating-point types of tensors.
#pragma once

// clang-format off: before PyTorch's headers
#include "stable_abi.h"
// clang-format on

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

namespace seg_plugins {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// The type that sums of T are kept in: float32 for the 16-bit types, else T.
template <class T>
using SumType = std::conditional_t<sizeof(T) == 2, float, T>;

}  // namespace seg_plugins
