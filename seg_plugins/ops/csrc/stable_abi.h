// The oldest PyTorch that loads what is compiled here: 2.11. To be included before any of PyTorch's
// headers, which hide what is newer.
#pragma once

#define TORCH_TARGET_VERSION 0x020b000000000000
#ifdef SEG_PLUGINS_WITH_CUDA
#define USE_CUDA  // they show what concerns CUDA
#endif

// What is compiled under a newer Linux loads under glibc 2.28, too, as PyTorch does: dlsym has
// moved to another library since, and libstdc++'s shared_ptr asks a variable that 2.28 does not
// have.
#include <cstdlib>
#if defined(__GLIBC__) && defined(__x86_64__) && !defined(__CUDA_ARCH__)
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
extern "C" {
__attribute__((weak, visibility("hidden"))) char __libc_single_threaded = 0;
}
#endif
