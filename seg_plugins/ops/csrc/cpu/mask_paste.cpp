// From a detection's small mask (28x28, say) and its box straight to COCO's run-length string of
// the full-size mask: the pixels that Detectron2's paste_masks_in_image would set, without the
// image.
//
// Bilinear interpolation is separable: a column of the image is first interpolated along x into
// one value per mask row, and between two such values it is linear in y. Where both lie on one
// side of the threshold, so does everything between, and no pixel is computed. Pixels within
// rounding error of the threshold are decided by PyTorch's grid_sample itself, so that the result
// is the same bit for bit whatever instructions either side was compiled to.

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "run_length.h"
#include "tensor.h"

namespace seg_plugins {
namespace {

// The pixels [first, last) of one image axis that a box may touch, and where they fall in the mask.
struct PasteAxis {
  int64_t first = 0, last = 0;
  std::vector<float> grid;  // grid_sample's coordinate of each pixel
  std::vector<int> low;     // the mask pixel before it: -1 to size - 1 inside, others are outside
  std::vector<float> fraction;  // distance from there
  // The pixels from segment[s] to segment[s + 1] lie between mask pixels s - 1 and s.
  std::vector<int64_t> segment;
  float pixels_per_step = 0;  // image pixels from one mask pixel to the next
  bool regular = true;        // the box has an area

  void place(float start, float end, int64_t image_size, int64_t mask_size) {
    // Detectron2 pastes no further than one pixel around the box.
    const float limit = static_cast<float>(image_size);
    const float from = std::max(std::floor(start) - 1.0f, 0.0f);
    const float to = std::min(std::ceil(end) + 1.0f, limit);
    first = static_cast<int64_t>(std::min(from, limit));
    last = std::max(first, static_cast<int64_t>(std::max(to, 0.0f)));
    regular = end > start;
    pixels_per_step = (end - start) / static_cast<float>(mask_size);
    const int64_t count = last - first;
    grid.resize(count);
    low.resize(count);
    fraction.resize(count);
    const float half = static_cast<float>(mask_size) * 0.5f;
    for (int64_t i = 0; i < count; ++i) {
      const float centre = static_cast<float>(first + i) + 0.5f;
      grid[i] = (centre - start) / (end - start) * 2.0f - 1.0f;
      const float at = (grid[i] + 1.0f) * half - 0.5f;
      const float floor = std::floor(at);
      const bool inside = floor >= -1.0f && floor < static_cast<float>(mask_size);
      low[i] = inside ? static_cast<int>(floor) : -2;
      fraction[i] = at - floor;
    }
    segment.assign(mask_size + 2, 0);
    int64_t at = 0;
    while (at < count && low[at] < -1) ++at;
    for (int64_t s = 0; s <= mask_size; ++s) {
      segment[s] = at;
      while (at < count && low[at] == s - 1) ++at;
    }
    segment[mask_size + 1] = at;
  }
};

// Joins runs that meet at the end of a column.
class RunJoiner {
 public:
  void add(int64_t start, int64_t end) {
    if (start == end_) {
      end_ = end;
      return;
    }
    flush();
    start_ = start;
    end_ = end;
  }

  RunWriter finish(int64_t total) {
    flush();
    writer_.finish(total);
    return std::move(writer_);
  }

 private:
  void flush() {
    if (end_ > start_) writer_.add(start_, end_);
  }

  RunWriter writer_;
  int64_t start_ = -1, end_ = -1;
};

struct Undecided {
  float x, y;  // grid_sample's coordinates
};

class Paster {
 public:
  Paster(int64_t size, int64_t height, int64_t width, float threshold)
      : size_(size), height_(height), width_(width), threshold_(threshold) {
    turned_.resize((size + 2) * (size + 2));
    column_.resize(size + 2);
    side_.resize(size + 1);
  }

  void set(const float* mask, const float* box) {
    x_.place(box[0], box[2], width_, size_);
    y_.place(box[1], box[3], height_, size_);
    // The mask with its columns as rows, framed by zeros: grid_sample's padding.
    const int64_t stride = size_ + 2;
    float largest = 0;
    for (int64_t row = 0; row < size_; ++row) {
      for (int64_t col = 0; col < size_; ++col) {
        const float value = mask[row * size_ + col];
        turned_[(col + 1) * stride + row + 1] = value;
        largest = std::max(largest, std::fabs(value));
      }
    }
    // A coordinate is off by a few units in the last place of `size`, a value by that times the
    // difference of two mask pixels.
    doubt_ = static_cast<float>(size_ + 4) * 1e-6f * std::max(largest, 1.0f);
  }

  // The mask's string. Undecided pixels are listed, or, once decided, taken from `decisions`, in
  // the same order.
  RunWriter encode(std::vector<Undecided>* undecided, const bool* decisions) {
    RunJoiner runs;
    const float threshold = threshold_, doubt = doubt_;
    const float* fraction = y_.fraction.data();
    const float far = static_cast<float>(y_.last - y_.first);
    for (int64_t i = 0; i < x_.last - x_.first; ++i) {
      const int64_t base = (x_.first + i) * height_ + y_.first;
      const auto decide = [&](int64_t row) {
        if (decisions) return *decisions++;
        undecided->push_back({x_.grid[i], y_.grid[row]});
        return false;
      };
      if (!x_.regular || !y_.regular) {
        // A box without area has no grid to speak of: leave every pixel to grid_sample.
        for (int64_t row = 0; row < y_.last - y_.first; ++row) {
          if (decide(row)) runs.add(base + row, base + row + 1);
        }
        continue;
      }
      if (x_.low[i] < -1) continue;
      interpolate_column(i);
      for (int64_t segment = 0; segment <= size_;) {
        // Neighbouring segments that are wholly inside, or wholly outside, go as one.
        const int64_t begin = segment;
        const int side = side_[segment];
        do {
          ++segment;
        } while (side != kMixed && segment <= size_ && side_[segment] == side);
        const int64_t first = y_.segment[begin], last = y_.segment[segment];
        if (side == kInside && first < last) runs.add(base + first, base + last);
        if (side != kMixed) continue;
        // From row to row the value only rises, or only falls: first the rows on one side of the
        // threshold, then undecided ones, if any, then those on the other side.
        const float slope = column_[begin + 1] - column_[begin];
        const float sign = slope < 0 ? -1.0f : 1.0f;
        const float a = sign * (column_[begin] - threshold), rise = sign * slope;
        const auto value = [&](int64_t row) { return a + rise * fraction[row]; };
        int64_t middle = first;
        if (first < last) {
          // Where the crossing should be; the steps from there make it exact. NaN begins at first.
          const float guess = (-a / rise - fraction[first]) * y_.pixels_per_step;
          if (guess > 0)
            middle = std::min(first + static_cast<int64_t>(std::min(guess, far)), last);
        }
        while (middle > first && !(value(middle - 1) < -doubt)) --middle;
        while (middle < last && value(middle) < -doubt) ++middle;
        if (sign < 0 && first < middle) runs.add(base + first, base + middle);
        int64_t row = middle;
        for (; row < last && !(value(row) > doubt); ++row) {
          if (decide(row)) runs.add(base + row, base + row + 1);
        }
        if (sign > 0 && row < last) runs.add(base + row, base + last);
      }
    }
    return runs.finish(height_ * width_);
  }

 private:
  enum Side { kOutside = 0, kMixed = 1, kInside = 2 };

  // Values of image column i at the mask's rows, and the side of the threshold that each segment
  // between two of them lies on.
  void interpolate_column(int64_t i) {
    const int64_t stride = size_ + 2;
    const float* left = turned_.data() + (x_.low[i] + 1) * stride;
    const float* right = left + stride;
    const float along = x_.fraction[i], rest = 1.0f - along;
    const float high = threshold_ + doubt_, low = threshold_ - doubt_;
    float* column = column_.data();
    int* side = side_.data();
    for (int64_t row = 0; row < stride; ++row) column[row] = left[row] * rest + right[row] * along;
    for (int64_t row = 0; row < stride - 1; ++row) {
      const float a = column[row], b = column[row + 1];
      // NaN is on neither side: left to grid_sample.
      side[row] = 1 + ((a > high) & (b > high)) - ((a < low) & (b < low));
    }
  }

  int64_t size_, height_, width_;
  float threshold_, doubt_ = 0;
  PasteAxis x_, y_;
  std::vector<float> turned_, column_;
  std::vector<int> side_;
};

// Bilinear, zero outside, align_corners=False.
Tensor grid_sample(const Tensor& image, const Tensor& grid) {
  using torch::stable::detail::from;
  constexpr int64_t kBilinear = 0, kZeros = 0;
  std::array<StableIValue, 5> stack{from(image), from(grid), from(kBilinear), from(kZeros),
                                    from(false)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::grid_sampler", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// What grid_sample makes of some points of one mask.
std::vector<uint8_t> sample(const float* mask, int64_t size, const std::vector<Undecided>& points,
                            float threshold) {
  const int64_t count = static_cast<int64_t>(points.size());
  const Tensor image = empty({1, 1, size, size}, kFloat), grid = empty({1, 1, count, 2}, kFloat);
  std::copy_n(mask, size * size, image.mutable_data_ptr<float>());
  float* to = grid.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    to[2 * i] = points[i].x;
    to[2 * i + 1] = points[i].y;
  }
  const Tensor values = dense(grid_sample(image, grid));
  std::vector<uint8_t> inside(count);
  const float* value = values.const_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) inside[i] = value[i] >= threshold;
  return inside;
}

std::tuple<Tensor, Tensor> paste_masks(const Tensor& masks_in, const Tensor& boxes_in,
                                       int64_t height, int64_t width, double threshold_in) {
  SEG_CHECK_VALUE(masks_in.dim() == 3 && masks_in.size(1) == masks_in.size(2),
                  "paste_masks: masks must be (N, M, M), got ", masks_in.sizes());
  SEG_CHECK_VALUE(
      boxes_in.dim() == 2 && boxes_in.size(0) == masks_in.size(0) && boxes_in.size(1) == 4,
      "paste_masks: boxes must be (N, 4) for N = ", masks_in.size(0), " masks, got ",
      boxes_in.sizes());
  SEG_CHECK_VALUE(height > 0 && width > 0, "paste_masks: the image must not be empty, got ", height,
                  "x", width);
  const Tensor masks = dense(to_type(masks_in, kFloat));
  const Tensor boxes = dense(to_type(boxes_in, kFloat));
  const int64_t count = masks.size(0), size = masks.size(1);
  const float *mask = masks.const_data_ptr<float>(), *box = boxes.const_data_ptr<float>();
  SEG_CHECK_VALUE(std::all_of(box, box + 4 * count, [](float side) { return std::isfinite(side); }),
                  "paste_masks: boxes must be finite; drop those that are not");
  const float threshold = static_cast<float>(threshold_in);
  std::vector<RunWriter> writers(count);
  parallel_for(0, count, 4, [&](int64_t begin, int64_t end) {
    Paster paster(size, height, width, threshold);
    std::vector<Undecided> undecided;
    for (int64_t i = begin; i < end; ++i) {
      undecided.clear();
      paster.set(mask + i * size * size, box + 4 * i);
      writers[i] = paster.encode(&undecided, nullptr);
      if (undecided.empty()) continue;
      const std::vector<uint8_t> inside =
          sample(mask + i * size * size, size, undecided, threshold);
      writers[i] = paster.encode(nullptr, reinterpret_cast<const bool*>(inside.data()));
    }
  });
  return pack(writers);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def(
      "paste_masks(Tensor masks, Tensor boxes, int height, int width, float threshold) -> "
      "(Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) { m.impl("paste_masks", TORCH_BOX(&paste_masks)); }

}  // namespace seg_plugins
