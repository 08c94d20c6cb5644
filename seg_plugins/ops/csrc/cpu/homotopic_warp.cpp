// Warping of one binary image towards another by flipping simple points, which never changes the
// topology (Jain et al., Boundary Learning by Optimization with Topological Constraints, 2010).

#include <cstdint>
#include <vector>

#include "tensor.h"

namespace {

using namespace seg_plugins;

// The eight neighbours as bits, in reading order; outside the image is background.
int neighbourhood(const uint8_t* image, int64_t height, int64_t width, int64_t y, int64_t x) {
  int bits = 0, bit = 0;
  for (int64_t dy = -1; dy <= 1; ++dy) {
    for (int64_t dx = -1; dx <= 1; ++dx) {
      if (dy == 0 && dx == 0) continue;
      const int64_t v = y + dy, u = x + dx;
      if (v >= 0 && v < height && u >= 0 && u < width && image[v * width + u]) bits |= 1 << bit;
      ++bit;
    }
  }
  return bits;
}

// In rounds: the pixels that differ and are simple when the round begins are visited in reading
// order and flipped if they are simple still. Rounds peel layers, so thinning stays centred.
Tensor homotopic_warp(const Tensor& source_in, const Tensor& target_in, const Tensor& mask_in,
                      const Tensor& simple_in) {
  SEG_CHECK_VALUE(source_in.dim() == 2 && source_in.sizes().equals(target_in.sizes()) &&
                      source_in.sizes().equals(mask_in.sizes()) && simple_in.numel() == 256,
                  "source, target and mask must have one shape (H, W), simple 256 entries");
  for (const Tensor* tensor : {&source_in, &target_in, &mask_in, &simple_in})
    SEG_CHECK_VALUE(tensor->scalar_type() == kByte, "all inputs must be uint8");
  Tensor result = torch::stable::clone(dense(source_in));
  const Tensor target = dense(target_in), mask = dense(mask_in), simple = dense(simple_in);
  const int64_t height = result.size(0), width = result.size(1);
  uint8_t* image = result.mutable_data_ptr<uint8_t>();
  const uint8_t* goal = target.const_data_ptr<uint8_t>();
  const uint8_t* allowed = mask.const_data_ptr<uint8_t>();
  const uint8_t* is_simple = simple.const_data_ptr<uint8_t>();
  const auto can_flip = [&](int64_t i) {
    return is_simple[neighbourhood(image, height, width, i / width, i % width)] != 0;
  };

  std::vector<int64_t> differing, round;
  for (int64_t i = 0; i < height * width; ++i)
    if (allowed[i] && (image[i] != 0) != (goal[i] != 0)) differing.push_back(i);
  for (bool changed = true; changed;) {
    changed = false;
    round.clear();
    for (const int64_t i : differing)
      if (can_flip(i)) round.push_back(i);
    for (const int64_t i : round) {
      if (!can_flip(i)) continue;
      image[i] = goal[i];
      changed = true;
    }
    std::erase_if(differing, [&](int64_t i) { return (image[i] != 0) == (goal[i] != 0); });
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def("homotopic_warp(Tensor source, Tensor target, Tensor mask, Tensor simple) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("homotopic_warp", TORCH_BOX(&homotopic_warp));
}
