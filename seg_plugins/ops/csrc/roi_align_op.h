// What the operator's parts hand each other: checked arguments and the kernels of each device.
#pragma once

#include <tuple>
#include <vector>

#include "roi_align.h"
#include "tensor.h"

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
  bool deterministic;  // the gradient adds up in one order: CUDA's choice, the CPU always does
};

using Pooled = std::tuple<Tensor, Tensor>;

// features: one (N, C, H, W) map per level, all in one dtype and layout; boxes: (K, 5).
// Returns the (K, C, h, w) output in the features' dtype and layout, and for the maximum the
// int32 number of the winning point of each output, empty for the mean.
Pooled forward_cpu(const std::vector<Tensor>& features, const Tensor& boxes, bool channels_last,
                   const Settings& settings);

// grad: of the output; returns one gradient per level, in grad's dtype, channels last or not.
std::vector<Tensor> backward_cpu(const Tensor& grad, const Tensor& winners, const Tensor& boxes,
                                 bool channels_last, const Settings& settings);

// The same on a GPU.
Pooled forward_cuda(const std::vector<Tensor>& features, const Tensor& boxes, bool channels_last,
                    const Settings& settings);
std::vector<Tensor> backward_cuda(const Tensor& grad, const Tensor& winners, const Tensor& boxes,
                                  bool channels_last, const Settings& settings);

}  // namespace roi_align
}  // namespace seg_plugins
