// The oldest PyTorch that loads what is compiled here: 2.11. To be included before any of PyTorch's
// headers, which hide what is newer.
#pragma once

#define TORCH_TARGET_VERSION 0x020b000000000000
#ifdef SEG_PLUGINS_WITH_CUDA
#define USE_CUDA  // they show what concerns CUDA
#endif
