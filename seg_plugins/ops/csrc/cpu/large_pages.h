// Large pages for large results.
//
// The C library takes tens of megabytes from the system anew for every tensor. Faulting such memory
// in by pages of 4 KiB takes longer than RoIAlign takes to compute a pyramid's gradient.
#pragma once

#include <cstdint>

#include "tensor.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace seg_plugins {

// Asks for large pages behind a tensor that is about to be written as a whole. Advice: where the
// system has none to give, nothing happens.
inline void prefer_large_pages(const Tensor& tensor) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  const auto start = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  const uintptr_t first = (start + kPage - 1) & ~(kPage - 1);
  const uintptr_t last = (start + tensor.numel() * tensor.element_size()) & ~(kPage - 1);
  // A few pages are not worth the call.
  if (last > first + kPage) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

}  // namespace seg_plugins
