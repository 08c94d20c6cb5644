// The operator of every device: arguments checked, then the device's kernel.
#pragma once

#include <algorithm>

#include "roi_align_op.h"

namespace seg_plugins {
namespace roi_align {

using Integers = std::vector<int64_t>;
using Numbers = std::vector<double>;

inline Settings make_settings(int64_t batch, int64_t channels, const Integers& heights,
                              const Integers& widths, const Integers& output_size,
                              const Numbers& scales, int64_t sampling_ratio, bool aligned,
                              bool maximum, double canonical_size, int64_t canonical_level,
                              int64_t min_level) {
  SEG_CHECK_VALUE(output_size.size() == 2 && output_size[0] > 0 && output_size[1] > 0,
                  "roi_align: output_size must be two positive numbers, got ", output_size);
  const int64_t levels = static_cast<int64_t>(scales.size());
  SEG_CHECK_VALUE(levels >= 1 && levels <= kMaxLevels, "roi_align: 1 to ", kMaxLevels,
                  " feature maps are supported, got ", levels);
  SEG_CHECK_VALUE(static_cast<int64_t>(heights.size()) == levels, "roi_align: ", heights.size(),
                  " feature maps but ", levels, " spatial scales; give one scale per map");
  SEG_CHECK_VALUE(sampling_ratio <= kMaxSamples, "roi_align: sampling_ratio must be at most ",
                  kMaxSamples, ", got ", sampling_ratio);
  const auto check_axis = [](const char* what, int64_t size) {
    SEG_CHECK_VALUE(size <= kMaxAxis, "roi_align: ", what, " has ", size,
                    " along an axis, more than ", kMaxAxis, " cannot be counted");
  };
  for (const int64_t size : output_size) check_axis("output_size", size);
  for (const int64_t size : heights) check_axis("a feature map", size);
  for (const int64_t size : widths) check_axis("a feature map", size);
  SEG_CHECK_VALUE(channels <= kMaxCount, "roi_align: ", channels, " channels, more than ",
                  kMaxCount, " cannot be counted");
  Settings settings{};
  settings.height = static_cast<int>(output_size[0]);
  settings.width = static_cast<int>(output_size[1]);
  settings.sampling_ratio = static_cast<int>(std::max<int64_t>(sampling_ratio, 0));
  settings.aligned = aligned;
  settings.maximum = maximum;
  settings.rule = {static_cast<float>(canonical_size), static_cast<float>(canonical_level),
                   static_cast<int>(min_level), static_cast<int>(min_level + levels - 1)};
  settings.levels = static_cast<int>(levels);
  settings.batch = batch;
  settings.channels = channels;
  for (int64_t i = 0; i < levels; ++i) {
    settings.scales[i] = scales[i];
    settings.heights[i] = static_cast<int>(heights[i]);
    settings.widths[i] = static_cast<int>(widths[i]);
  }
  return settings;
}

inline void check_tensors(const std::vector<Tensor>& features, const Tensor& boxes) {
  SEG_CHECK_VALUE(!features.empty(), "roi_align: features must not be empty");
  SEG_CHECK_VALUE(boxes.dim() == 2 && boxes.size(1) == 5,
                  "roi_align: boxes must be (K, 5): batch index, x0, y0, x1, y1; got ",
                  boxes.sizes());
  const Tensor& first = features[0];
  for (const Tensor& feature : features) {
    SEG_CHECK_VALUE(feature.dim() == 4, "roi_align: features must be (N, C, H, W), got ",
                    feature.sizes());
    SEG_CHECK_VALUE(feature.size(0) == first.size(0) && feature.size(1) == first.size(1),
                    "roi_align: all levels must agree in batch size and channels; got ",
                    feature.sizes(), " beside ", first.sizes());
    SEG_CHECK_VALUE(feature.scalar_type() == first.scalar_type(),
                    "roi_align: all levels must have one dtype; got ", feature.scalar_type(),
                    " beside ", first.scalar_type());
    SEG_CHECK_VALUE(feature.device() == boxes.device(), "roi_align: features are on ",
                    feature.device(), " but boxes on ", boxes.device());
  }
}

// ops/roi_align_registration.py says the same.
inline bool is_channels_last(const Tensor& feature) {
  return !feature.is_contiguous() && lies_channels_last(feature);
}

using Forward = Pooled (*)(const std::vector<Tensor>& features, const Tensor& boxes,
                           bool channels_last, const Settings& settings);
using Backward = std::vector<Tensor> (*)(const Tensor& grad, const Tensor& winners,
                                         const Tensor& boxes, bool channels_last,
                                         const Settings& settings);

template <Forward kernel>
Pooled forward(const std::vector<Tensor>& features, const Tensor& boxes,
               const Integers& output_size, const Numbers& scales, int64_t sampling_ratio,
               bool aligned, bool maximum, double canonical_size, int64_t canonical_level,
               int64_t min_level) {
  check_tensors(features, boxes);
  Integers heights, widths;
  std::vector<Tensor> maps;
  const bool channels_last = is_channels_last(features[0]);
  for (const Tensor& feature : features) {
    heights.push_back(feature.size(2));
    widths.push_back(feature.size(3));
    maps.push_back(dense(feature, channels_last));
  }
  return kernel(
      maps, boxes, channels_last,
      make_settings(features[0].size(0), features[0].size(1), heights, widths, output_size, scales,
                    sampling_ratio, aligned, maximum, canonical_size, canonical_level, min_level));
}

template <Backward kernel>
std::vector<Tensor> backward(const Tensor& grad, const Tensor& winners, const Tensor& boxes,
                             int64_t batch, const Integers& heights, const Integers& widths,
                             bool channels_last, const Numbers& scales, int64_t sampling_ratio,
                             bool aligned, bool maximum, double canonical_size,
                             int64_t canonical_level, int64_t min_level, bool deterministic) {
  Settings settings =
      make_settings(batch, grad.size(1), heights, widths, {grad.size(2), grad.size(3)}, scales,
                    sampling_ratio, aligned, maximum, canonical_size, canonical_level, min_level);
  settings.deterministic = deterministic;
  return kernel(grad, winners, boxes, channels_last, settings);
}

}  // namespace roi_align
}  // namespace seg_plugins
