// Launches the block programs of roi_align_block.h on a CUDA device. The host never waits for it.
#include <cuda_runtime.h>

#include <algorithm>
#include <array>

#include "roi_align_block.h"
#include "roi_align_op.h"

namespace seg_plugins {
namespace roi_align {
namespace {

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

// The stream that PyTorch is on, of the current device.
cudaStream_t current_stream() {
  void* stream = nullptr;
  const auto device = torch::stable::accelerator::getCurrentDeviceIndex();
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// Launches kernel with that much dynamic shared memory, which has to be asked for beyond 48 KiB.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t bytes,
            Arguments... arguments) {
  if (blocks == 0) return;
  SEG_CHECK_VALUE(blocks <= kMaxCount, "roi_align: ", blocks,
                  " blocks, more than a GPU's grid has; pool fewer or smaller maps at a time");
  if (bytes > 48 * 1024) {
    const auto error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            static_cast<int>(bytes));
    SEG_CHECK_VALUE(error == cudaSuccess, "roi_align: the feature maps' height plus width needs ",
                    bytes, " bytes of shared memory, more than this GPU gives a block (",
                    cudaGetErrorString(error), "); use smaller maps or backend='torchvision'");
  }
  kernel<<<static_cast<unsigned>(blocks), threads, static_cast<size_t>(bytes), current_stream()>>>(
      arguments...);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class A>
BlockSettings<A> block_settings(const Settings& s, int64_t rois, bool channels_last) {
  const char* beyond = beyond_counts(rois, s.batch, s.channels, s.height, s.width, s.levels);
  SEG_CHECK_VALUE(!beyond, "roi_align: too many ", beyond ? beyond : "", ", more than ", kMaxCount,
                  " cannot be counted; pool fewer at a time");
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
  using A = SumType<T>;
  constexpr int kLanes = 16 / sizeof(T);
  if (vectorized) {
    f(ArrayPack<A, kLanes>{});
  } else {
    f(ArrayPack<A, 1>{});
  }
}

struct BucketStorage {
  Tensor of, start, order;

  BucketStorage(const Settings& s, const Tensor& boxes)
      : of(empty({boxes.size(0)}, kInt, &boxes)),
        start(zeros({s.levels * s.batch + 1}, kInt, &boxes)),
        order(empty({boxes.size(0)}, kInt, &boxes)) {}

  Buckets buckets() const {
    return {of.mutable_data_ptr<int>(), start.mutable_data_ptr<int>(),
            order.mutable_data_ptr<int>()};
  }
};

}  // namespace

Pooled forward_cuda(const std::vector<Tensor>& features, const Tensor& boxes, bool channels_last,
                    const Settings& s) {
  const torch::stable::accelerator::DeviceGuard guard(boxes.get_device_index());
  const std::array<int64_t, 4> shape = {boxes.size(0), s.channels, s.height, s.width};
  const ScalarType type = features[0].scalar_type();
  const Tensor output = empty(shape, type, &boxes, channels_last);
  const Tensor winners =
      s.maximum ? empty(shape, kInt, &boxes, channels_last) : empty({0}, kInt, &boxes);
  visit_floating(type, "roi_align", [&](auto zero) {
    using T = decltype(zero);
    using A = SumType<T>;
    const Tensor rows = dense(to_type(boxes, kSumType<A>));
    const auto settings = block_settings<A>(s, boxes.size(0), channels_last);
    Maps<const T> maps{};
    bool vectorized = channels_last && s.channels % (16 / sizeof(T)) == 0;
    for (int i = 0; i < s.levels; ++i) {
      maps.level[i] = features[i].const_data_ptr<T>();
      vectorized = vectorized && is_vector_aligned<T>(features[i]);
    }
    const A* box_data = rows.const_data_ptr<A>();
    T* out = output.mutable_data_ptr<T>();
    if (s.maximum) {
      launch(pool_maximum_kernel<T, A>, settings.rois, kThreads, 0, settings, maps, box_data, out,
             winners.mutable_data_ptr<int>());
      return;
    }
    with_pack<T>(vectorized, [&](auto pack) {
      launch(pool_kernel<decltype(pack), T, A>, settings.rois, kThreads,
             BlockTables<A>::bytes(settings.table_capacity, false), settings, maps, box_data, out);
    });
  });
  return {output, winners};
}

std::vector<Tensor> backward_cuda(const Tensor& grad_in, const Tensor& winners_in,
                                  const Tensor& boxes, bool channels_last, const Settings& s) {
  const torch::stable::accelerator::DeviceGuard guard(boxes.get_device_index());
  const ScalarType type = grad_in.scalar_type();
  const Tensor grad = dense(grad_in, channels_last);
  const Tensor winners = s.maximum ? dense(winners_in, channels_last) : winners_in;
  std::vector<Tensor> results;
  visit_floating(type, "roi_align_backward", [&](auto zero) {
    using T = decltype(zero);
    using A = SumType<T>;
    const Tensor rows = dense(to_type(boxes, kSumType<A>));
    const auto settings = block_settings<A>(s, boxes.size(0), channels_last);
    const T* grad_data = grad.const_data_ptr<T>();
    const A* box_data = rows.const_data_ptr<A>();
    // The tiles write each value once, in its own dtype; everything else adds up in A.
    const bool tiles = s.deterministic && !s.maximum;
    Maps<A> sums{};
    Maps<T> written{};
    for (int i = 0; i < s.levels; ++i) {
      const std::array<int64_t, 4> shape = {s.batch, s.channels, s.heights[i], s.widths[i]};
      if (tiles) {
        results.push_back(empty(shape, type, &boxes, channels_last));
        written.level[i] = results.back().template mutable_data_ptr<T>();
      } else {
        results.push_back(zeros(shape, kSumType<A>, &boxes, channels_last));
        sums.level[i] = results.back().template mutable_data_ptr<A>();
      }
    }
    const bool vectorized =
        channels_last && s.channels % (16 / sizeof(T)) == 0 && is_vector_aligned<T>(grad);
    if (s.deterministic) {
      const BucketStorage storage(s, boxes);
      const Buckets buckets = storage.buckets();
      launch(bucket_kernel<A>, 1, 1024, 0, settings, box_data, buckets);
      if (s.maximum) {
        const int64_t owners = int64_t(s.levels) * s.batch * s.channels;
        launch(gather_maximum_kernel<T, A>, (owners + kThreads - 1) / kThreads, kThreads, 0,
               settings, grad_data, winners.const_data_ptr<int>(), box_data, buckets, sums);
      } else {
        with_pack<T>(vectorized, [&](auto pack) {
          int64_t count = 0;
          for (int i = 0; i < s.levels; ++i) {
            count += tiles_of_level(settings, i, settings.channels / decltype(pack)::kLanes);
          }
          launch(gather_kernel<decltype(pack), T, A>, count, kTileThreads,
                 tile_bytes<A>(s.height, s.width), settings, grad_data, box_data, buckets, written);
        });
      }
    } else if (s.maximum) {
      launch(scatter_maximum_kernel<T, A>, settings.rois, kThreads, 0, settings, grad_data,
             winners.const_data_ptr<int>(), box_data, sums);
    } else {
      with_pack<T>(vectorized, [&](auto pack) {
        launch(scatter_kernel<decltype(pack), T, A>, settings.rois, kThreads,
               BlockTables<A>::bytes(settings.table_capacity, true), settings, grad_data, box_data,
               sums);
      });
    }
    for (Tensor& map : results) map = to_type(map, type);
  });
  return results;
}

}  // namespace roi_align
}  // namespace seg_plugins
