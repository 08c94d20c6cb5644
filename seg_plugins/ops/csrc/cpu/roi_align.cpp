// The operator seg_plugins::roi_align: schema, argument checks, autograd and autocast. The kernels
// are in cpu/roi_align_kernel.cpp and cuda/roi_align_kernel.cu, the fake kernel in
// ops/roi_align_operator.py.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/autograd.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "roi_align_op.h"

namespace seg_plugins {
namespace roi_align {
namespace {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Settings make_settings(int64_t batch, int64_t channels, at::IntArrayRef heights,
                       at::IntArrayRef widths, at::IntArrayRef output_size,
                       at::ArrayRef<double> scales, int64_t sampling_ratio, bool aligned,
                       bool maximum, double canonical_size, int64_t canonical_level,
                       int64_t min_level) {
  TORCH_CHECK_VALUE(output_size.size() == 2 && output_size[0] > 0 && output_size[1] > 0,
                    "roi_align: output_size must be two positive numbers, got ", output_size);
  const int64_t levels = static_cast<int64_t>(scales.size());
  TORCH_CHECK_VALUE(levels >= 1 && levels <= kMaxLevels, "roi_align: 1 to ", kMaxLevels,
                    " feature maps are supported, got ", levels);
  TORCH_CHECK_VALUE(static_cast<int64_t>(heights.size()) == levels, "roi_align: ", heights.size(),
                    " feature maps but ", levels, " spatial scales; give one scale per map");
  TORCH_CHECK_VALUE(sampling_ratio <= kMaxSamples, "roi_align: sampling_ratio must be at most ",
                    kMaxSamples, ", got ", sampling_ratio);
  const auto check_axis = [](const char* what, int64_t size) {
    TORCH_CHECK_VALUE(size <= kMaxAxis, "roi_align: ", what, " has ", size,
                      " along an axis, more than ", kMaxAxis, " cannot be counted");
  };
  for (const int64_t size : output_size) check_axis("output_size", size);
  for (const int64_t size : heights) check_axis("a feature map", size);
  for (const int64_t size : widths) check_axis("a feature map", size);
  TORCH_CHECK_VALUE(channels <= kMaxCount, "roi_align: ", channels, " channels, more than ",
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

void check_tensors(TensorList features, const Tensor& boxes) {
  TORCH_CHECK_VALUE(!features.empty(), "roi_align: features must not be empty");
  TORCH_CHECK_VALUE(boxes.dim() == 2 && boxes.size(1) == 5,
                    "roi_align: boxes must be (K, 5): batch index, x0, y0, x1, y1; got ",
                    boxes.sizes());
  const Tensor& first = features[0];
  for (const Tensor& feature : features) {
    TORCH_CHECK_VALUE(feature.dim() == 4, "roi_align: features must be (N, C, H, W), got ",
                      feature.sizes());
    TORCH_CHECK_VALUE(feature.size(0) == first.size(0) && feature.size(1) == first.size(1),
                      "roi_align: all levels must agree in batch size and channels; got ",
                      feature.sizes(), " beside ", first.sizes());
    TORCH_CHECK_TYPE(feature.scalar_type() == first.scalar_type(),
                     "roi_align: all levels must have one dtype; got ", feature.scalar_type(),
                     " beside ", first.scalar_type());
    TORCH_CHECK_VALUE(feature.device() == boxes.device(), "roi_align: features are on ",
                      feature.device(), " but boxes on ", boxes.device());
  }
}

// The fake kernel in ops/roi_align_operator.py says the same.
bool is_channels_last(const Tensor& feature) {
  return feature.is_contiguous(at::MemoryFormat::ChannelsLast) && !feature.is_contiguous();
}

using Backward = decltype(&backward_cpu);
using Forward = decltype(&forward_cpu);

template <Forward kernel>
Pooled forward(TensorList features, const Tensor& boxes, at::IntArrayRef output_size,
               at::ArrayRef<double> scales, int64_t sampling_ratio, bool aligned, bool maximum,
               double canonical_size, int64_t canonical_level, int64_t min_level) {
  check_tensors(features, boxes);
  std::vector<int64_t> heights, widths;
  std::vector<Tensor> dense;
  const bool channels_last = is_channels_last(features[0]);
  const auto layout = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  for (const Tensor& feature : features) {
    heights.push_back(feature.size(2));
    widths.push_back(feature.size(3));
    dense.push_back(feature.contiguous(layout));
  }
  return kernel(
      dense, boxes, channels_last,
      make_settings(features[0].size(0), features[0].size(1), heights, widths, output_size, scales,
                    sampling_ratio, aligned, maximum, canonical_size, canonical_level, min_level));
}

template <Backward kernel>
std::vector<Tensor> backward(const Tensor& grad, const Tensor& winners, const Tensor& boxes,
                             int64_t batch, at::IntArrayRef heights, at::IntArrayRef widths,
                             bool channels_last, at::ArrayRef<double> scales,
                             int64_t sampling_ratio, bool aligned, bool maximum,
                             double canonical_size, int64_t canonical_level, int64_t min_level) {
  return kernel(
      grad, winners, boxes, channels_last,
      make_settings(batch, grad.size(1), heights, widths, {grad.size(2), grad.size(3)}, scales,
                    sampling_ratio, aligned, maximum, canonical_size, canonical_level, min_level));
}

std::tuple<Tensor, Tensor> call_forward(TensorList features, const Tensor& boxes,
                                        c10::SymIntArrayRef output_size,
                                        at::ArrayRef<double> scales, int64_t sampling_ratio,
                                        bool aligned, bool maximum, double canonical_size,
                                        int64_t canonical_level, int64_t min_level) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("seg_plugins::roi_align", "")
          .typed<Pooled(TensorList, const Tensor&, c10::SymIntArrayRef, at::ArrayRef<double>,
                        int64_t, bool, bool, double, int64_t, int64_t)>();
  return op.call(features, boxes, output_size, scales, sampling_ratio, aligned, maximum,
                 canonical_size, canonical_level, min_level);
}

std::vector<Tensor> call_backward(const Tensor& grad, const Tensor& winners, const Tensor& boxes,
                                  c10::SymInt batch, c10::SymIntArrayRef heights,
                                  c10::SymIntArrayRef widths, bool channels_last,
                                  at::ArrayRef<double> scales, int64_t sampling_ratio, bool aligned,
                                  bool maximum, double canonical_size, int64_t canonical_level,
                                  int64_t min_level) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("seg_plugins::roi_align_backward", "")
          .typed<std::vector<Tensor>(const Tensor&, const Tensor&, const Tensor&, c10::SymInt,
                                     c10::SymIntArrayRef, c10::SymIntArrayRef, bool,
                                     at::ArrayRef<double>, int64_t, bool, bool, double, int64_t,
                                     int64_t)>();
  return op.call(grad, winners, boxes, std::move(batch), heights, widths, channels_last, scales,
                 sampling_ratio, aligned, maximum, canonical_size, canonical_level, min_level);
}

// Boxes get no gradient, as in every RoIAlign; the backward itself is not differentiable.
struct RoiAlign : torch::autograd::Function<RoiAlign> {
  static variable_list forward(AutogradContext* ctx, TensorList features, const Tensor& boxes,
                               c10::SymIntArrayRef output_size, at::ArrayRef<double> scales,
                               int64_t sampling_ratio, bool aligned, bool maximum,
                               double canonical_size, int64_t canonical_level, int64_t min_level) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, winners] =
        call_forward(features, boxes, output_size, scales, sampling_ratio, aligned, maximum,
                     canonical_size, canonical_level, min_level);
    ctx->save_for_backward({boxes, winners});
    ctx->mark_non_differentiable({winners});
    std::vector<c10::SymInt> heights, widths;
    for (const Tensor& feature : features) {
      heights.push_back(feature.sym_size(2));
      widths.push_back(feature.sym_size(3));
    }
    ctx->saved_data["batch"] = features[0].sym_size(0);
    ctx->saved_data["heights"] = heights;
    ctx->saved_data["widths"] = widths;
    ctx->saved_data["channels_last"] = is_channels_last(features[0]);
    ctx->saved_data["scales"] = scales.vec();
    ctx->saved_data["sampling_ratio"] = sampling_ratio;
    ctx->saved_data["aligned"] = aligned;
    ctx->saved_data["maximum"] = maximum;
    ctx->saved_data["canonical_size"] = canonical_size;
    ctx->saved_data["canonical_level"] = canonical_level;
    ctx->saved_data["min_level"] = min_level;
    return {output, winners};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto& data = ctx->saved_data;
    const auto heights = data["heights"].toSymIntVector(), widths = data["widths"].toSymIntVector();
    const auto scales = data["scales"].toDoubleVector();
    variable_list result = call_backward(
        grads[0], saved[1], saved[0], data["batch"].toSymInt(), heights, widths,
        data["channels_last"].toBool(), scales, data["sampling_ratio"].toInt(),
        data["aligned"].toBool(), data["maximum"].toBool(), data["canonical_size"].toDouble(),
        data["canonical_level"].toInt(), data["min_level"].toInt());
    // One (absent) gradient for boxes and each of the eight settings.
    result.resize(result.size() + 9);
    return result;
  }
};

Pooled forward_autograd(TensorList features, const Tensor& boxes, c10::SymIntArrayRef output_size,
                        at::ArrayRef<double> scales, int64_t sampling_ratio, bool aligned,
                        bool maximum, double canonical_size, int64_t canonical_level,
                        int64_t min_level) {
  const auto result = RoiAlign::apply(features, boxes, output_size, scales, sampling_ratio, aligned,
                                      maximum, canonical_size, canonical_level, min_level);
  return {result[0], result[1]};
}

// Autocast: features keep their low precision, boxes theirs; where the levels disagree, all go to
// the autocast dtype. (torchvision's operator casts the whole maps up to fp32 instead.)
template <c10::DeviceType device, c10::DispatchKey key>
Pooled forward_autocast(TensorList features, const Tensor& boxes, c10::SymIntArrayRef output_size,
                        at::ArrayRef<double> scales, int64_t sampling_ratio, bool aligned,
                        bool maximum, double canonical_size, int64_t canonical_level,
                        int64_t min_level) {
  c10::impl::ExcludeDispatchKeyGuard guard(key);
  std::vector<Tensor> same(features.begin(), features.end());
  bool mixed = false;
  for (const Tensor& feature : same) mixed |= feature.scalar_type() != same[0].scalar_type();
  if (mixed) {
    for (Tensor& feature : same) {
      feature = feature.to(at::autocast::get_autocast_dtype(device));
    }
  }
  return call_forward(same, boxes, output_size, scales, sampling_ratio, aligned, maximum,
                      canonical_size, canonical_level, min_level);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def(
      "roi_align(Tensor[] features, Tensor boxes, SymInt[2] output_size, float[] spatial_scales, "
      "int sampling_ratio, bool aligned, bool maximum, float canonical_box_size, "
      "int canonical_level, int min_level) -> (Tensor output, Tensor winners)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "roi_align_backward(Tensor grad, Tensor winners, Tensor boxes, SymInt batch_size, "
      "SymInt[] heights, SymInt[] widths, bool channels_last, float[] spatial_scales, "
      "int sampling_ratio, bool aligned, bool maximum, float canonical_box_size, "
      "int canonical_level, int min_level) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("roi_align", &forward<&forward_cpu>);
  m.impl("roi_align_backward", &backward<&backward_cpu>);
}

#ifdef SEG_PLUGINS_WITH_CUDA
TORCH_LIBRARY_IMPL(seg_plugins, CUDA, m) {
  m.impl("roi_align", &forward<&forward_cuda>);
  m.impl("roi_align_backward", &backward<&backward_cuda>);
}
#endif

TORCH_LIBRARY_IMPL(seg_plugins, Autograd, m) {
  m.impl("roi_align", &forward_autograd);
  // An error where somebody differentiates twice.
  m.impl("roi_align_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(seg_plugins, AutocastCPU, m) {
  m.impl("roi_align", &forward_autocast<c10::DeviceType::CPU, c10::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(seg_plugins, AutocastCUDA, m) {
  m.impl("roi_align", &forward_autocast<c10::DeviceType::CUDA, c10::DispatchKey::AutocastCUDA>);
}

}  // namespace roi_align
}  // namespace seg_plugins
