// What the operator's parts hand each other: checked arguments and the kernels of each device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <tuple>
#include <vector>

#include "roi_align.h"

namespace seg_plugins {
namespace roi_align {

// Everything but the tensors.
struct Settings {
  int height, width;  // of the output, in bins
  int sampling_ratio;
  bool aligned;
  bool maximum;
  LevelRule rule;
  int levels;
  double scales[kMaxLevels];
  int64_t batch, channels;
  int heights[kMaxLevels], widths[kMaxLevels];  // of the feature maps
};

using Pooled = std::tuple<at::Tensor, at::Tensor>;

// features: one (N, C, H, W) map per level, all in one dtype and layout; boxes: (K, 5).
// Returns the (K, C, h, w) output in the features' dtype and layout, and for the maximum the
// int32 number of the winning point of each output, empty for the mean.
Pooled forward_cpu(at::TensorList features, const at::Tensor& boxes, bool channels_last,
                   const Settings& settings);

// grad: of the output; returns one gradient per level, in grad's dtype, channels last or not.
std::vector<at::Tensor> backward_cpu(const at::Tensor& grad, const at::Tensor& winners,
                                     const at::Tensor& boxes, bool channels_last,
                                     const Settings& settings);

#ifdef SEG_PLUGINS_WITH_CUDA
Pooled forward_cuda(at::TensorList features, const at::Tensor& boxes, bool channels_last,
                    const Settings& settings);
std::vector<at::Tensor> backward_cuda(const at::Tensor& grad, const at::Tensor& winners,
                                      const at::Tensor& boxes, bool channels_last,
                                      const Settings& settings);
#endif

}  // namespace roi_align
}  // namespace seg_plugins
