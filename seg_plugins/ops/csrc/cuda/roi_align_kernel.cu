// Launches the block programs of roi_align_block.h on a CUDA device. The host never waits for it.
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <array>

#include "roi_align_block.h"
#include "roi_align_op.h"

namespace seg_plugins {
namespace roi_align {
namespace {

using at::Tensor;
using at::TensorList;

constexpr int kThreads = 256;

// Blocks that have to fit on a multiprocessor, which bounds a kernel's registers: left to itself
// the compiler aims at more of them and spills. float64, which nothing waits for, may take what it
// wants. DESIGN in tools/cuda_occupancy.py has these numbers with their reasons and checks them.
template <class A>
constexpr int blocks_of(int blocks) {
  return sizeof(A) == 4 ? blocks : 1;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool kVectorAtomics = true;
#else
constexpr bool kVectorAtomics = false;
#endif

extern __shared__ __align__(16) char block_memory[];

struct DeviceBlock {
  int index, size;

  __device__ DeviceBlock() : index(blockIdx.x), size(blockDim.x) {}

  __device__ char* shared() const { return block_memory; }

  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
    f(static_cast<int>(threadIdx.x));
    __syncthreads();
  }

  template <class S>
  struct PerThread {
    S state;
    __device__ explicit PerThread(const DeviceBlock&) {}
    __device__ __forceinline__ S& operator[](int) { return state; }
  };

  template <class A, int L>
  __device__ __forceinline__ void add(A* to, const ArrayPack<A, L>& pack) const {
    if constexpr (kVectorAtomics && std::is_same_v<A, float> && L % 4 == 0) {
      // One 16-byte reduction in the L2 cache instead of four.
      SEG_UNROLL
      for (int i = 0; i < L; i += 4) {
        atomicAdd(
            reinterpret_cast<float4*>(to + i),
            make_float4(pack.value[i], pack.value[i + 1], pack.value[i + 2], pack.value[i + 3]));
      }
    } else {
      SEG_UNROLL
      for (int i = 0; i < L; ++i) atomicAdd(to + i, pack.value[i]);
    }
  }

  __device__ void check(bool condition) const { CUDA_KERNEL_ASSERT(condition); }
};

// Parameters that are structs are __grid_constant__: read in constant memory, where each thread
// would make itself a copy of those whose arrays it indexes.
template <class Pack, class T, class A>
__global__ void __launch_bounds__(kThreads, blocks_of<A>(3))
    pool_kernel(const __grid_constant__ BlockSettings<A> s,
                const __grid_constant__ Maps<const T> maps, const A* boxes, T* output) {
  DeviceBlock block;
  pool_block<Pack>(block, s, maps, boxes, output);
}

template <class T, class A>
__global__ void __launch_bounds__(kThreads, blocks_of<A>(2))
    pool_maximum_kernel(const __grid_constant__ BlockSettings<A> s,
                        const __grid_constant__ Maps<const T> maps, const A* boxes, T* output,
                        int* winners) {
  DeviceBlock block;
  pool_maximum_block(block, s, maps, boxes, output, winners);
}

template <class Pack, class T, class A>
__global__ void __launch_bounds__(kThreads, blocks_of<A>(3))
    scatter_kernel(const __grid_constant__ BlockSettings<A> s, const T* grad, const A* boxes,
                   const __grid_constant__ Maps<A> results) {
  DeviceBlock block;
  scatter_block<Pack>(block, s, grad, boxes, results);
}

template <class T, class A>
__global__ void __launch_bounds__(kThreads, blocks_of<A>(3))
    scatter_maximum_kernel(const __grid_constant__ BlockSettings<A> s, const T* grad,
                           const int* winners, const A* boxes,
                           const __grid_constant__ Maps<A> results) {
  DeviceBlock block;
  scatter_maximum_block(block, s, grad, winners, boxes, results);
}

template <class A>
__global__ void __launch_bounds__(1024, 1)
    bucket_kernel(const __grid_constant__ BlockSettings<A> s, const A* boxes,
                  const __grid_constant__ Buckets buckets) {
  DeviceBlock block;
  bucket_block(block, s, boxes, buckets);
}

template <class Pack, class T, class A>
__global__ void __launch_bounds__(kTileThreads, blocks_of<A>(2))
    gather_kernel(const __grid_constant__ BlockSettings<A> s, const T* grad, const A* boxes,
                  const __grid_constant__ Buckets buckets,
                  const __grid_constant__ Maps<T> results) {
  DeviceBlock block;
  gather_block<Pack>(block, s, grad, boxes, buckets, results);
}

template <class T, class A>
__global__ void __launch_bounds__(kThreads, blocks_of<A>(2))
    gather_maximum_kernel(const __grid_constant__ BlockSettings<A> s, const T* grad,
                          const int* winners, const A* boxes,
                          const __grid_constant__ Buckets buckets,
                          const __grid_constant__ Maps<A> results) {
  DeviceBlock block;
  gather_maximum_block(block, s, grad, winners, boxes, buckets, results);
}

// Launches kernel with that much dynamic shared memory, which has to be asked for beyond 48 KiB.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t bytes,
            Arguments... arguments) {
  if (blocks == 0) return;
  TORCH_CHECK_VALUE(blocks <= kMaxCount, "roi_align: ", blocks,
                    " blocks, more than a GPU's grid has; pool fewer or smaller maps at a time");
  if (bytes > 48 * 1024) {
    const auto error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            static_cast<int>(bytes));
    TORCH_CHECK_VALUE(error == cudaSuccess, "roi_align: the feature maps' height plus width needs ",
                      bytes, " bytes of shared memory, more than this GPU gives a block (",
                      cudaGetErrorString(error), "); use smaller maps or backend='torchvision'");
  }
  kernel<<<static_cast<unsigned>(blocks), threads, static_cast<size_t>(bytes),
           c10::cuda::getCurrentCUDAStream()>>>(arguments...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class A>
BlockSettings<A> block_settings(const Settings& s, int64_t rois, bool channels_last) {
  const char* beyond = beyond_counts(rois, s.batch, s.channels, s.height, s.width, s.levels);
  TORCH_CHECK_VALUE(!beyond, "roi_align: too many ", beyond ? beyond : "", ", more than ",
                    kMaxCount, " cannot be counted; pool fewer at a time");
  BlockSettings<A> to{};
  to.height = s.height;
  to.width = s.width;
  to.sampling_ratio = s.sampling_ratio;
  to.levels = s.levels;
  to.aligned = s.aligned;
  to.channels_last = channels_last;
  to.rule = s.rule;
  to.batch = static_cast<int>(s.batch);
  to.channels = static_cast<int>(s.channels);
  to.rois = static_cast<int>(rois);
  for (int i = 0; i < s.levels; ++i) {
    to.scales[i] = static_cast<A>(s.scales[i]);
    to.heights[i] = s.heights[i];
    to.widths[i] = s.widths[i];
    to.table_capacity = std::max({to.table_capacity, tap_capacity(s.heights[i], s.height),
                                  tap_capacity(s.widths[i], s.width)});
  }
  return to;
}

template <class T>
bool is_vector_aligned(const Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr<T>()) % 16 == 0;
}

// Calls f with the widest pack of T that the channels allow.
template <class T, class F>
void with_pack(bool vectorized, const F& f) {
  using A = at::opmath_type<T>;
  constexpr int kLanes = 16 / sizeof(T);
  if (vectorized) {
    f(ArrayPack<A, kLanes>{});
  } else {
    f(ArrayPack<A, 1>{});
  }
}

at::MemoryFormat layout(bool channels_last) {
  return channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

struct BucketStorage {
  Tensor of, start, order;

  BucketStorage(const Settings& s, const Tensor& boxes)
      : of(at::empty({boxes.size(0)}, boxes.options().dtype(at::kInt))),
        start(at::zeros({s.levels * s.batch + 1}, of.options())),
        order(at::empty_like(of)) {}

  Buckets buckets() const {
    return {of.data_ptr<int>(), start.data_ptr<int>(), order.data_ptr<int>()};
  }
};

}  // namespace

Pooled forward_cuda(TensorList features, const Tensor& boxes, bool channels_last,
                    const Settings& s) {
  const c10::cuda::CUDAGuard guard(boxes.device());
  const std::array<int64_t, 4> shape = {boxes.size(0), s.channels, s.height, s.width};
  const auto integers = boxes.options().dtype(at::kInt);
  Tensor output = at::empty(shape, features[0].options(), layout(channels_last));
  Tensor winners =
      s.maximum ? at::empty(shape, integers, layout(channels_last)) : at::empty({0}, integers);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, output.scalar_type(), "roi_align", [&] {
    using A = at::opmath_type<scalar_t>;
    const Tensor rows = boxes.to(c10::CppTypeToScalarType<A>::value).contiguous();
    const auto settings = block_settings<A>(s, boxes.size(0), channels_last);
    Maps<const scalar_t> maps{};
    bool vectorized = channels_last && s.channels % (16 / sizeof(scalar_t)) == 0;
    for (int i = 0; i < s.levels; ++i) {
      maps.level[i] = features[i].const_data_ptr<scalar_t>();
      vectorized = vectorized && is_vector_aligned<scalar_t>(features[i]);
    }
    const A* box_data = rows.const_data_ptr<A>();
    scalar_t* out = output.data_ptr<scalar_t>();
    if (s.maximum) {
      launch(pool_maximum_kernel<scalar_t, A>, settings.rois, kThreads, 0, settings, maps, box_data,
             out, winners.data_ptr<int>());
      return;
    }
    with_pack<scalar_t>(vectorized, [&](auto pack) {
      launch(pool_kernel<decltype(pack), scalar_t, A>, settings.rois, kThreads,
             BlockTables<A>::bytes(settings.table_capacity, false), settings, maps, box_data, out);
    });
  });
  return {output, winners};
}

std::vector<Tensor> backward_cuda(const Tensor& grad, const Tensor& winners, const Tensor& boxes,
                                  bool channels_last, const Settings& s) {
  const c10::cuda::CUDAGuard guard(boxes.device());
  const bool fixed_order = at::globalContext().deterministicAlgorithms();
  const Tensor dense = grad.contiguous(layout(channels_last));
  const Tensor dense_winners = s.maximum ? winners.contiguous(layout(channels_last)) : winners;
  std::vector<Tensor> results;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, grad.scalar_type(), "roi_align_backward", [&] {
        using A = at::opmath_type<scalar_t>;
        const Tensor rows = boxes.to(c10::CppTypeToScalarType<A>::value).contiguous();
        const auto settings = block_settings<A>(s, boxes.size(0), channels_last);
        const scalar_t* grad_data = dense.const_data_ptr<scalar_t>();
        const A* box_data = rows.const_data_ptr<A>();
        // The tiles write each value once, in its own dtype; everything else adds up in A.
        const bool tiles = fixed_order && !s.maximum;
        const auto options =
            tiles ? grad.options() : grad.options().dtype(c10::CppTypeToScalarType<A>::value);
        Maps<A> sums{};
        Maps<scalar_t> written{};
        for (int i = 0; i < s.levels; ++i) {
          Tensor map = at::empty({s.batch, s.channels, s.heights[i], s.widths[i]}, options,
                                 layout(channels_last));
          if (tiles) {
            written.level[i] = map.data_ptr<scalar_t>();
          } else {
            sums.level[i] = map.zero_().template data_ptr<A>();
          }
          results.push_back(map);
        }
        const bool vectorized = channels_last && s.channels % (16 / sizeof(scalar_t)) == 0 &&
                                is_vector_aligned<scalar_t>(dense);
        if (fixed_order) {
          const BucketStorage storage(s, boxes);
          const Buckets buckets = storage.buckets();
          launch(bucket_kernel<A>, 1, 1024, 0, settings, box_data, buckets);
          if (s.maximum) {
            const int64_t owners = int64_t(s.levels) * s.batch * s.channels;
            launch(gather_maximum_kernel<scalar_t, A>, (owners + kThreads - 1) / kThreads, kThreads,
                   0, settings, grad_data, dense_winners.const_data_ptr<int>(), box_data, buckets,
                   sums);
          } else {
            with_pack<scalar_t>(vectorized, [&](auto pack) {
              int64_t count = 0;
              for (int i = 0; i < s.levels; ++i) {
                count += tiles_of_level(settings, i, settings.channels / decltype(pack)::kLanes);
              }
              launch(gather_kernel<decltype(pack), scalar_t, A>, count, kTileThreads,
                     tile_bytes<A>(s.height, s.width), settings, grad_data, box_data, buckets,
                     written);
            });
          }
        } else if (s.maximum) {
          launch(scatter_maximum_kernel<scalar_t, A>, settings.rois, kThreads, 0, settings,
                 grad_data, dense_winners.const_data_ptr<int>(), box_data, sums);
        } else {
          with_pack<scalar_t>(vectorized, [&](auto pack) {
            launch(scatter_kernel<decltype(pack), scalar_t, A>, settings.rois, kThreads,
                   BlockTables<A>::bytes(settings.table_capacity, true), settings, grad_data,
                   box_data, sums);
          });
        }
        for (Tensor& map : results) map = map.to(grad.scalar_type());
      });
  return results;
}

}  // namespace roi_align
}  // namespace seg_plugins
