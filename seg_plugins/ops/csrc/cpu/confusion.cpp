// Confusion matrices: label map against label map, and the fused form that takes the class scores,
// so that the scores are read once and no int64 label map exists.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <tuple>
#include <vector>

#include "simd.h"
#include "tensor.h"

namespace {

using namespace seg_plugins;

// Pixels per step: their labels stay in the first-level cache until they are counted.
constexpr int64_t kTile = 2048;
// Fewer pixels than this are counted faster than a second thread comes (about a millisecond).
constexpr int64_t kSerialPixels = int64_t{1} << 21;
// Beyond this many classes several copies of the histogram would leave the cache.
constexpr int64_t kSmallClasses = 64;

// Counts pixels in (K + 2) x (K + 2) cells: classes, then "ignored", then "invalid".
class PairHistogram {
 public:
  explicit PairHistogram(int64_t num_classes)
      : stride_(num_classes + 2),
        copies_(num_classes <= kSmallClasses ? 4 : 1),
        cells_(copies_ * stride_ * stride_, 0) {}

  // Neighbouring pixels mostly fall into the same cell; counting them in turn in separate copies
  // keeps the processor from waiting for its own last store.
  template <typename Truth, typename Prediction>
  void add(const Truth& truth, const Prediction& prediction, int64_t n) {
    const int64_t size = stride_ * stride_;
    if (copies_ == 4) {
      uint32_t* a = cells_.data();
      uint32_t *b = a + size, *c = b + size, *d = c + size;
      int64_t i = 0;
      for (; i + 4 <= n; i += 4) {
        ++a[truth(i) * stride_ + prediction(i)];
        ++b[truth(i + 1) * stride_ + prediction(i + 1)];
        ++c[truth(i + 2) * stride_ + prediction(i + 2)];
        ++d[truth(i + 3) * stride_ + prediction(i + 3)];
      }
      for (; i < n; ++i) ++a[truth(i) * stride_ + prediction(i)];
    } else {
      for (int64_t i = 0; i < n; ++i) ++cells_[truth(i) * stride_ + prediction(i)];
    }
  }

  void add_to(int64_t* total) const {
    const int64_t size = stride_ * stride_;
    for (int64_t copy = 0; copy < copies_; ++copy)
      for (int64_t i = 0; i < size; ++i) total[i] += cells_[copy * size + i];
  }

 private:
  int64_t stride_;
  int64_t copies_;
  std::vector<uint32_t> cells_;
};

// Maps a stored label to its histogram row: class, K for the ignore label, K + 1 for the rest.
template <typename T>
class LabelRows {
 public:
  LabelRows(int64_t num_classes, int64_t ignore) : classes_(num_classes), ignore_(ignore) {
    if constexpr (sizeof(T) == 1) {
      for (int64_t value = 0; value < 256; ++value)
        table_[value] = slow(static_cast<T>(static_cast<uint8_t>(value)));
    }
  }

  int64_t operator()(T value) const {
    if constexpr (sizeof(T) == 1) return table_[static_cast<uint8_t>(value)];
    return slow(value);
  }

 private:
  int64_t slow(T stored) const {
    const int64_t value = static_cast<int64_t>(stored);
    if (value == ignore_) return classes_;
    return value >= 0 && value < classes_ ? value : classes_ + 1;
  }

  int64_t classes_, ignore_;
  int64_t table_[sizeof(T) == 1 ? 256 : 1];
};

// The class of the highest score for each of n <= kTile pixels; plane k of the scores begins at
// scores + k * plane. NaN wins over numbers and the first of equals stays: the rule of
// torch.argmax.
void argmax_tile_portable(const float* scores, int64_t num_classes, int64_t plane, int64_t n,
                          int32_t* index) {
  float best[kTile];
  std::copy_n(scores, n, best);
  std::fill_n(index, n, 0);
  for (int64_t k = 1; k < num_classes; ++k) {
    const float* row = scores + k * plane;
    for (int64_t i = 0; i < n; ++i) {
      const float score = row[i], leader = best[i];
      const bool larger = (score > leader) | ((score != score) & (leader == leader));
      best[i] = larger ? score : leader;
      index[i] = larger ? static_cast<int32_t>(k) : index[i];
    }
  }
}

#if SEG_HAS_AVX2_TARGET
// The same with the running maximum of 32 pixels in registers, over all planes.
SEG_TARGET_AVX2 void argmax_tile_avx2(const float* scores, int64_t num_classes, int64_t plane,
                                      int64_t n, int32_t* index) {
  typedef float Floats __attribute__((vector_size(32)));
  typedef int32_t Ints __attribute__((vector_size(32)));
  constexpr int kVectors = 4, kLanes = 8;
  int64_t i = 0;
  for (; i + kVectors * kLanes <= n; i += kVectors * kLanes) {
    Floats best[kVectors];
    Ints winner[kVectors];
    for (int j = 0; j < kVectors; ++j) {
      std::memcpy(&best[j], scores + i + j * kLanes, sizeof(best[j]));
      winner[j] = Ints{};
    }
    for (int64_t k = 1; k < num_classes; ++k) {
      const Ints current = Ints{} + static_cast<int32_t>(k);
      for (int j = 0; j < kVectors; ++j) {
        Floats score;
        std::memcpy(&score, scores + k * plane + i + j * kLanes, sizeof(score));
        const Ints larger = (score > best[j]) | ((score != score) & (best[j] == best[j]));
        best[j] = larger ? score : best[j];
        winner[j] = larger ? current : winner[j];
      }
    }
    for (int j = 0; j < kVectors; ++j)
      std::memcpy(index + i + j * kLanes, &winner[j], sizeof(winner[j]));
  }
  argmax_tile_portable(scores + i, num_classes, plane, n - i, index + i);
}
#else
constexpr auto argmax_tile_avx2 = argmax_tile_portable;
#endif

// Row K + 1 or column K + 1 holds invalid values; finds the first such pixel, or -1.
template <typename T>
int64_t first_invalid(const Tensor& labels, int64_t num_classes, int64_t ignore) {
  const T* data = labels.const_data_ptr<T>();
  const LabelRows<T> rows(num_classes, ignore);
  const int64_t pixels = labels.numel();
  for (int64_t i = 0; i < pixels; ++i)
    if (rows(data[i]) == num_classes + 1) return i;
  return -1;
}

// Cuts the (K + 2)-sided totals to (K + 1) and reports whether anything invalid was counted.
struct Totals {
  explicit Totals(int64_t num_classes) : stride(num_classes + 2), cells(stride * stride, 0) {}

  void add(const PairHistogram& histogram) {
    const std::lock_guard<std::mutex> lock(mutex);
    histogram.add_to(cells.data());
  }

  bool invalid_truth() const {
    const auto row = cells.end() - stride;
    return std::any_of(row, cells.end(), [](int64_t count) { return count != 0; });
  }

  bool invalid_prediction() const {
    for (int64_t row = 0; row < stride; ++row)
      if (cells[row * stride + stride - 1] != 0) return true;
    return false;
  }

  Tensor matrix() const {
    Tensor result = empty({stride - 1, stride - 1}, kLong);
    int64_t* out = result.mutable_data_ptr<int64_t>();
    for (int64_t row = 0; row + 1 < stride; ++row)
      std::copy_n(cells.data() + row * stride, stride - 1, out + row * (stride - 1));
    return result;
  }

  int64_t stride;
  std::vector<int64_t> cells;
  std::mutex mutex;
};

template <typename Function>
auto visit_label_type(const Tensor& labels, const char* what, const Function& function) {
  switch (labels.scalar_type()) {
    case kByte:
      return function(uint8_t{});
    case kUInt16:
      return function(uint16_t{});
    case kShort:
      return function(int16_t{});
    case kInt:
      return function(int32_t{});
    case kLong:
      return function(int64_t{});
    default:
      fail<std::invalid_argument>(what, " must be uint8, uint16, int16, int32 or int64, not ",
                                  labels.scalar_type());
  }
}

void check_label_map(const Tensor& labels, const char* what) {
  SEG_CHECK_VALUE(labels.dim() == 2, what, " must have shape (H, W), not ", labels.sizes());
  SEG_CHECK_VALUE(labels.is_cpu(), what, " must be on the CPU");
}

// labels (H, W), confusion (K + 1, K + 1), flat index of the first invalid truth pixel or -1.
std::tuple<Tensor, Tensor, int64_t> argmax_confusion(const Tensor& scores_in,
                                                     const Tensor& target_in,
                                                     int64_t ignore_label) {
  SEG_CHECK_VALUE(scores_in.dim() == 3 && scores_in.scalar_type() == kFloat,
                  "scores must be float32 of shape (K, H, W), not ", scores_in.scalar_type(),
                  " of shape ", scores_in.sizes());
  check_label_map(target_in, "target");
  SEG_CHECK_VALUE(scores_in.sizes().slice(1).equals(target_in.sizes()), "scores ",
                  scores_in.sizes(), " and target ", target_in.sizes(), " differ in size");
  const int64_t num_classes = scores_in.size(0);
  SEG_CHECK_VALUE(num_classes >= 1 && num_classes <= 32767, "between 1 and 32767 classes, not ",
                  num_classes);
  const Tensor scores = dense(scores_in), target = dense(target_in);
  const int64_t pixels = target.numel();
  const bool narrow = num_classes <= 256;
  Tensor labels = empty(target.sizes(), narrow ? kByte : kUInt16);
  uint8_t* narrow_out = narrow ? labels.mutable_data_ptr<uint8_t>() : nullptr;
  uint16_t* wide_out = narrow ? nullptr : labels.mutable_data_ptr<uint16_t>();
  const float* score_data = scores.const_data_ptr<float>();
  const auto argmax = seg_plugins::has_avx2() ? argmax_tile_avx2 : argmax_tile_portable;
  Totals totals(num_classes);

  visit_label_type(target, "target", [&](auto tag) {
    using T = decltype(tag);
    const T* truth = target.const_data_ptr<T>();
    const LabelRows<T> rows(num_classes, ignore_label);
    parallel_for(0, (pixels + kTile - 1) / kTile, 8, [&](int64_t first, int64_t last) {
      PairHistogram histogram(num_classes);
      std::vector<int32_t> index(kTile);
      for (int64_t tile = first; tile < last; ++tile) {
        const int64_t at = tile * kTile, n = std::min(kTile, pixels - at);
        argmax(score_data + at, num_classes, pixels, n, index.data());
        if (narrow)
          for (int64_t i = 0; i < n; ++i) narrow_out[at + i] = static_cast<uint8_t>(index[i]);
        else
          for (int64_t i = 0; i < n; ++i) wide_out[at + i] = static_cast<uint16_t>(index[i]);
        histogram.add([&](int64_t i) { return rows(truth[at + i]); },
                      [&](int64_t i) { return index[i]; }, n);
      }
      totals.add(histogram);
    });
  });
  int64_t invalid = -1;
  if (totals.invalid_truth())
    invalid = visit_label_type(target, "target", [&](auto tag) {
      return first_invalid<decltype(tag)>(target, num_classes, ignore_label);
    });
  return {labels, totals.matrix(), invalid};
}

// confusion (K + 1, K + 1), flat indices of the first invalid truth and prediction pixel or -1.
std::tuple<Tensor, int64_t, int64_t> label_confusion(const Tensor& labels_in,
                                                     const Tensor& target_in, int64_t num_classes,
                                                     int64_t ignore_label) {
  check_label_map(labels_in, "labels");
  check_label_map(target_in, "target");
  SEG_CHECK_VALUE(labels_in.sizes().equals(target_in.sizes()), "labels ", labels_in.sizes(),
                  " and target ", target_in.sizes(), " differ in size");
  SEG_CHECK_VALUE(num_classes >= 1 && num_classes <= 32767, "between 1 and 32767 classes, not ",
                  num_classes);
  const Tensor labels = dense(labels_in), target = dense(target_in);
  Totals totals(num_classes);
  visit_label_type(target, "target", [&](auto truth_tag) {
    using T = decltype(truth_tag);
    const T* truth = target.const_data_ptr<T>();
    const LabelRows<T> truth_rows(num_classes, ignore_label);
    visit_label_type(labels, "labels", [&](auto label_tag) {
      using P = decltype(label_tag);
      const P* predicted = labels.const_data_ptr<P>();
      const LabelRows<P> label_rows(num_classes, ignore_label);
      parallel_for(0, target.numel(), kSerialPixels, [&](int64_t first, int64_t last) {
        PairHistogram histogram(num_classes);
        histogram.add([&](int64_t i) { return truth_rows(truth[first + i]); },
                      [&](int64_t i) { return label_rows(predicted[first + i]); }, last - first);
        totals.add(histogram);
      });
    });
  });
  const auto find = [&](bool wanted, const Tensor& map, const char* what) -> int64_t {
    if (!wanted) return -1;
    return visit_label_type(map, what, [&](auto tag) {
      return first_invalid<decltype(tag)>(map, num_classes, ignore_label);
    });
  };
  return {totals.matrix(), find(totals.invalid_truth(), target, "target"),
          find(totals.invalid_prediction(), labels, "labels")};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(seg_plugins, m) {
  m.def(
      "argmax_confusion(Tensor scores, Tensor target, int ignore_label) -> (Tensor, Tensor, int)");
  m.def(
      "label_confusion(Tensor labels, Tensor target, int num_classes, int ignore_label) -> "
      "(Tensor, "
      "int, int)");
}

STABLE_TORCH_LIBRARY_IMPL(seg_plugins, CPU, m) {
  m.impl("argmax_confusion", TORCH_BOX(&argmax_confusion));
  m.impl("label_confusion", TORCH_BOX(&label_confusion));
}
