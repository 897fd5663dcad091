// From the arrays of a model to those that the kernels read, checked arrays only.

#ifndef FLOWBDT_LANES_PLAN_HPP
#define FLOWBDT_LANES_PLAN_HPP

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "lanes.hpp"

namespace flowbdt {
namespace lanes {

/// `FormArrays` as they are in memory.
struct FormArrays {
  Kind kind = kNone;
  std::size_t n_points = 0, n_seen = 0, n_inner = 0, n_components = 0, n_out = 0, n_used = 0;
  std::size_t n_steps = 0;
  const std::int64_t* observed = nullptr;
  const double* turn = nullptr;
  const std::int64_t* where = nullptr;
  const double* numbers = nullptr;
};

/// Owns a `Form`.
template <class R>
class FormPlan {
 public:
  explicit FormPlan(const FormArrays& from)
      : from_(from), observed_(from.observed, from.observed + (from.n_seen - from.n_points)) {
    form_ = Form<R>{from.kind,    from.n_points,     from.n_seen, from.n_inner,
                    from.n_components, from.n_used, observed_.data(), nullptr};
    if (from.kind == kNone) return;
    std::vector<std::array<std::ptrdiff_t, 8>> places;
    for (std::size_t s = 0; s < from.n_steps; ++s) places.push_back(add(s));
    for (std::size_t s = 0; s < from.n_steps; ++s) {
      const auto at = [&](int q) { return places[s][q] < 0 ? nullptr : &numbers_[places[s][q]]; };
      FormStep<R>& step = steps_[s];
      step.centre = at(0), step.constant = at(1), step.inner = at(2), step.joint = at(3);
      step.output = at(4), step.ratio = at(5), step.ending = at(6), step.weights = at(7);
    }
    form_.steps = steps_.data();
  }

  FormPlan(const FormPlan&) = delete;
  FormPlan& operator=(const FormPlan&) = delete;

  const Form<R>& form() const { return form_; }

 private:
  enum Part { kCentre, kStack, kConstant, kQuadratic, kLinear, kBase, kGain, kRatio };

  const double* part(std::size_t s, Part what) const {
    return from_.numbers + from_.where[s * 8 + what];
  }
  bool full() const { return from_.kind == kFull; }
  void put(double value) { numbers_.push_back(static_cast<R>(value)); }

  /// What input j, or for j = n_seen the constant, adds to inner variable i of component k.
  double stack(std::size_t s, std::size_t i, std::size_t j, std::size_t k) const {
    const std::size_t size = from_.n_components, all = from_.n_inner, n = from_.n_seen;
    const double* row = part(s, kStack);
    if (j == n) return row[i * size + k];
    row += all * size;
    if (!full()) return row[(j * all + i) * size + k];
    row += (j * all - j * (j - 1) / 2) * size;  // j (j - 1) / 2 is 0 for j = 0 all the same
    return row[(i - j) * size + k];
  }

  std::array<std::ptrdiff_t, 8> add(std::size_t s) {
    std::array<std::ptrdiff_t, 8> at;
    at.fill(-1);
    FormStep<R> step{};
    const std::size_t n = from_.n_seen, size = from_.n_components;
    for (int q = 0; q < 4; ++q) step.turn[q] = static_cast<R>(from_.turn[4 * s + q]);
    step.by_score = from_.turn[4 * s + 2] > 0.0;
    step.n_gains = step.by_score || from_.where[s * 8 + kGain] >= 0 ? from_.n_inner : 0;
    const auto here = [&] { return static_cast<std::ptrdiff_t>(numbers_.size()); };
    at[0] = here();
    for (std::size_t j = 0; j < n; ++j) put(part(s, kCentre)[j]);
    at[1] = here();
    for (std::size_t k = 0; k < size; ++k) put(part(s, kConstant)[k]);
    if (is_constant(s, step)) {
      at[6] = add_ending(s);
      at[7] = at[6] + static_cast<std::ptrdiff_t>(from_.n_used);
    } else {
      at[2] = here();
      for (std::size_t k = 0; k < size; ++k) add_inner(s, k);
      step.inner_size = static_cast<std::size_t>(here() - at[2]) / size;
      if (!full()) at[3] = here();
      for (std::size_t q = 0; !full() && q < size * n; ++q) {
        put(part(s, kQuadratic)[q]);
        put(part(s, kLinear)[q]);
      }
      at[4] = here();
      for (std::size_t k = 0; k < size; ++k) {
        if (full() && step.by_score) add_transposed(s, k);
        else add_output(s, k, step);
      }
      step.output_size = static_cast<std::size_t>(here() - at[4]) / size;
      if (!full()) at[5] = here();
      for (std::size_t k = 0; !full() && k < size; ++k)
        for (std::size_t o = 0; o < from_.n_used; ++o)
          put(step.by_score ? part(s, kQuadratic)[k * n + o] : part(s, kRatio)[k * from_.n_out + o]);
    }
    steps_.push_back(step);
    return at;
  }

  /// Whether all components see the same of a point, as of pure noise, and say the same of it.
  bool is_constant(std::size_t s, const FormStep<R>& step) const {
    if (step.n_gains > 0) return false;
    const std::size_t size = from_.n_components, n = from_.n_seen;
    for (std::size_t k = 0; k < size; ++k)
      for (std::size_t i = 0; i < from_.n_inner; ++i)
        for (std::size_t j = full() ? 0 : 0; j <= n; ++j) {
          if (full() && j < n && j > i) continue;
          if (stack(s, i, j, k) != stack(s, i, j, 0)) return false;
        }
    if (full()) return true;
    for (std::size_t q = 0; q < size * n; ++q)
      if (part(s, kQuadratic)[q] != part(s, kQuadratic)[q % n] ||
          part(s, kLinear)[q] != part(s, kLinear)[q % n])
        return false;
    for (std::size_t q = 0; q < size * from_.n_out; ++q)
      if (part(s, kRatio)[q] != 0.0) return false;
    return true;
  }

  std::ptrdiff_t add_ending(std::size_t s) {
    const std::size_t size = from_.n_components;
    const double* constant = part(s, kConstant);
    const double largest = *std::max_element(constant, constant + size);
    std::vector<double> weights(size), out(from_.n_used, 0.0);
    double sum = 0.0;
    for (std::size_t k = 0; k < size; ++k) sum += weights[k] = std::exp(constant[k] - largest);
    for (std::size_t k = 0; k < size; ++k) {
      weights[k] /= sum;
      for (std::size_t o = 0; o < from_.n_used; ++o)
        out[o] += weights[k] * part(s, kBase)[k * from_.n_out + o];
    }
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(numbers_.size());
    for (const double value : out) put(value);
    for (const double value : weights) put(value);
    return at;
  }

  /// Block by block of inner variables: constants; of each input before the block (of all of them,
  /// for low rank) what it adds; of each input of the block what it adds from its own row on.
  void add_inner(std::size_t s, std::size_t k) {
    for (std::size_t low = 0, high; low < from_.n_inner; low = high) {
      high = std::min(low + kBlock, from_.n_inner);
      for (std::size_t i = low; i < high; ++i) put(stack(s, i, from_.n_seen, k));
      for (std::size_t j = 0; j < (full() ? high : from_.n_seen); ++j)
        for (std::size_t i = full() ? std::max(low, j) : low; i < high; ++i) put(stack(s, i, j, k));
    }
  }

  /// Block by block of outputs j: of each inner variable i from the block's first on what it adds.
  void add_transposed(std::size_t s, std::size_t k) {
    for (std::size_t low = 0, high; low < from_.n_points; low = high) {
      high = std::min(low + kBlock, from_.n_points);
      for (std::size_t i = low; i < from_.n_inner; ++i)
        for (std::size_t j = low; j < std::min(high, i + 1); ++j) put(stack(s, i, j, k));
    }
  }

  /// Block by block of outputs: base, then what each inner variable adds, if there are gains.
  void add_output(std::size_t s, std::size_t k, const FormStep<R>& step) {
    const std::size_t width = from_.n_out;
    for (std::size_t low = 0, high; low < from_.n_used; low = high) {
      high = std::min(low + kBlock, from_.n_used);
      for (std::size_t o = low; o < high; ++o)
        put(step.by_score ? 0.5 * part(s, kLinear)[k * from_.n_seen + o]
                          : part(s, kBase)[k * width + o]);
      for (std::size_t i = 0; i < step.n_gains; ++i)
        for (std::size_t o = low; o < high; ++o)
          put(step.by_score ? -stack(s, i, o, k)
                            : part(s, kGain)[(k * from_.n_inner + i) * width + o]);
    }
  }

  FormArrays from_;
  std::vector<std::int64_t> observed_;
  std::vector<R> numbers_;
  std::vector<FormStep<R>> steps_;
  Form<R> form_;
};

/// How many numbers a leaf of so many outputs takes; as `leaf_width` of arrays.py.
inline std::size_t leaf_width(std::size_t width) {
  if (width == 1) return 1;
  const std::size_t by_four = (width + 3) / 4 * 4;
  return by_four % 16 == 12 ? by_four + 4 : by_four;
}

/// Owns the forests of a `Trees`.
class TreePlan {
 public:
  TreePlan(const std::int64_t* table, std::size_t n_forests, const std::uint16_t* feature,
           const float* threshold, const std::uint8_t* missing, const float* leaves,
           const float* base) {
    std::size_t across = 1;
    for (std::size_t f = 0; f < n_forests; ++f) {
      const auto value = [&](int q) { return static_cast<std::size_t>(table[7 * f + q]); };
      forests_.push_back(Forest{value(0), value(1), value(2), value(3), value(4), value(5),
                                value(6), leaf_width(value(2))});
      across = std::max(across, forests_[f].first + forests_[f].padded);
    }
    trees_ = Trees{forests_.data(), feature, threshold, missing, leaves, base,
                   across == 1 ? 1 : (across + 15) / 16 * 16};
  }
  TreePlan(const TreePlan&) = delete;
  TreePlan& operator=(const TreePlan&) = delete;
  const Trees& trees() const { return trees_; }

 private:
  std::vector<Forest> forests_;
  Trees trees_;
};

}  // namespace lanes
}  // namespace flowbdt

#endif  // FLOWBDT_LANES_PLAN_HPP
