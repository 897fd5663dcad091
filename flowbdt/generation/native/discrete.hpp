// The discrete columns of generated events, drawn one after the other by classifiers.

#ifndef FLOWBDT_DISCRETE_HPP
#define FLOWBDT_DISCRETE_HPP

#include "flowbdt.hpp"

namespace flowbdt {
namespace detail {

/// All classifiers in one pass, row by row; see `arrays.DiscreteArrays`.
class Discrete {
 public:
  explicit Discrete(const File& file) : trees_(file, "trees") {
    const auto sizes = file.sizes("discrete", 2);
    d_ = sizes[0];
    n_known_ = sizes[1];
    places_ = file.get<std::int64_t>("discrete.places");
    centre_ = file.get<double>("discrete.centre", places_.size);
    scale_ = file.get<double>("discrete.scale", places_.size);
    forests_ = file.get<std::int64_t>("discrete.forests");
    file.require(forests_.size > 1 && forests_.size <= 1 << 20, "discrete columns");
    first_ = file.get<std::int64_t>("discrete.first", forests_.size);
    log_frequency_ = file.get<float>("discrete.log_frequency");
    atom_ = file.get<double>("discrete.atom", log_frequency_.size);
    source_ = file.get<std::int64_t>("discrete.source", log_frequency_.size);
    enters_ = file.get<std::int64_t>("discrete.enters", 3 * n_columns());
    limits_ = file.get<double>("discrete.limits", 2 * n_columns());
    rules_ = file.get<std::int64_t>("discrete.rules", forests_.size);
    rule_ = file.get<std::int64_t>("discrete.rule");
    meet_ = file.get<std::uint8_t>("discrete.meet");
    check(file);
  }

  std::size_t d() const { return d_; }
  Trees& trees() { return trees_; }
  std::size_t n_known() const { return n_known_; }
  std::size_t n_columns() const { return forests_.size - 1; }

  /// Fills codes (n, q) from x (n, d), what else is known (n, k) and uniform numbers, of which
  /// those of one column are `stride` from those of the one before; enters in x what codes say.
  void draw(double* x, const double* known, const double* uniform, std::size_t stride,
            std::int64_t* codes, std::size_t n) const {
    const std::size_t size = std::min(n, kBlock), width = trees_.n_inputs();
    std::vector<float> inputs(size * width), total(size * trees_.across());
    std::vector<double> joint(n_values_), weights(n_values_);
    std::vector<std::uint8_t> allowed(n_values_);
    for (std::size_t low = 0; low < n; low += kBlock) {
      const std::size_t rows = std::min(kBlock, n - low);
      std::fill(inputs.begin(), inputs.end(), 0.0f);
      bool gaps = false;
      for (std::size_t r = 0; r < rows; ++r) {
        float* to = inputs.data() + r * width;
        for (std::size_t i = 0; i < places_.size; ++i)
          to[i] = seen(i, x[(low + r) * d_ + static_cast<std::size_t>(places_[i])]);
        for (std::size_t i = 0; i < n_known_; ++i)
          to[places_.size + i] = static_cast<float>(known[(low + r) * n_known_ + i]);
        for (std::size_t i = 0; i < width; ++i) gaps = gaps || std::isnan(to[i]);
      }
      for (std::size_t k = 0; k < n_columns(); ++k) {
        trees_.sum(at(forests_[k]), at(forests_[k + 1]), inputs.data(), rows, width, gaps,
                   total.data());
        for (std::size_t r = 0; r < rows; ++r) {
          double* row = x + (low + r) * d_;
          std::int64_t* own = codes + (low + r) * n_columns();
          own[k] = drawn(k, total.data() + r * trees_.across(), own,
                         uniform[k * stride + low + r], joint, weights, allowed);
          float* to = inputs.data() + r * width;
          to[places_.size + n_known_ + k] = static_cast<float>(own[k]);
          enter(k, own[k], row);
          if (enters_[3 * k] >= 0 && enters_[3 * k + 1] >= 0) {
            const std::size_t i = at(enters_[3 * k + 1]);
            to[i] = seen(i, row[at(enters_[3 * k])]);
            gaps = gaps || std::isnan(to[i]);
          }
        }
      }
    }
  }

 private:
  static constexpr double kExcluded = -1e30;

  static std::size_t at(std::int64_t place) { return static_cast<std::size_t>(place); }

  static bool below(std::int64_t place, std::size_t end) {
    return place >= 0 && static_cast<std::uint64_t>(place) < end;
  }

  void check(const File& file) {
    const char* what = "discrete columns";
    const std::size_t q = n_columns();
    file.require(std::max<std::size_t>(places_.size + n_known_, 1) + q == trees_.n_inputs(), what);
    for (std::size_t i = 0; i < places_.size; ++i) file.require(below(places_[i], d_), what);
    file.require(forests_[0] == 0 && first_[0] == 0 && rules_[0] == 0, what);
    for (std::size_t k = 0; k < q; ++k) {
      file.require(forests_[k] <= forests_[k + 1] && first_[k] < first_[k + 1] &&
                       rules_[k] <= rules_[k + 1],
                   what);
      const std::size_t size = at(first_[k + 1]) - at(first_[k]);
      file.require(size <= trees_.n_outputs(), what);
      n_values_ = std::max(n_values_, size);
      const std::int64_t* enters = enters_.data + 3 * k;
      file.require(enters[0] == -1 || below(enters[0], d_), what);
      file.require(enters[1] == -1 || below(enters[1], places_.size), what);
    }
    file.require(at(forests_[q]) <= trees_.n_forests() && at(first_[q]) == source_.size &&
                     at(rules_[q]) <= rule_.size / 2,
                 what);
    for (std::size_t i = 0; i < source_.size; ++i)
      file.require(source_[i] == -1 || below(source_[i], d_), what);
    for (std::size_t k = 0; k < q; ++k)
      for (std::size_t r = at(rules_[k]); r < at(rules_[k + 1]); ++r) {
        file.require(below(rule_[2 * r], k) && rule_[2 * r + 1] >= 0, what);
        const std::size_t before = at(rule_[2 * r]);
        const std::size_t pairs = n_values(before) * n_values(k);
        file.require(at(rule_[2 * r + 1]) <= meet_.size &&
                         pairs <= meet_.size - at(rule_[2 * r + 1]),
                     what);
      }
  }

  std::size_t n_values(std::size_t k) const { return at(first_[k + 1]) - at(first_[k]); }

  float seen(std::size_t i, double value) const {
    constexpr double largest = std::numeric_limits<float>::max();
    return static_cast<float>(within((value - centre_[i]) / scale_[i], -largest, largest));
  }

  /// Fills `allowed` with what column k may be beside earlier codes; false if it may be all.
  bool excludes(std::size_t k, const std::int64_t* codes, std::vector<std::uint8_t>& allowed) const {
    const std::size_t begin = at(rules_[k]), end = at(rules_[k + 1]), size = n_values(k);
    if (begin == end) return false;
    bool some = false;
    for (std::size_t o = 0; o < size; ++o) {
      bool may = true;
      for (std::size_t r = begin; r < end; ++r)
        may = may && meet_[at(rule_[2 * r + 1]) + at(codes[rule_[2 * r]]) * size + o] != 0;
      allowed[o] = may;
      some = some || may;
    }
    return some;
  }

  /// Returns a code with the probabilities of the classifier; see `seeding.drawn`.
  std::int64_t drawn(std::size_t k, const float* total, const std::int64_t* codes, double uniform,
                     std::vector<double>& joint, std::vector<double>& weights,
                     std::vector<std::uint8_t>& allowed) const {
    const std::size_t size = n_values(k);
    if (size == 1) return 0;
    const bool some_not = excludes(k, codes, allowed);
    for (std::size_t o = 0; o < size; ++o) {
      const float sum = total[o] + log_frequency_[at(first_[k]) + o];
      joint[o] = some_not && !allowed[o] ? kExcluded : static_cast<double>(sum);
    }
    softmax(joint.data(), weights.data(), size);
    std::size_t last = size - 1;
    while (some_not && last > 0 && !allowed[last]) --last;
    double edge = 0.0;
    for (std::size_t code = 0; code < last; ++code) {
      edge += some_not && !allowed[code] ? 0.0 : weights[code];
      if (edge > uniform) return static_cast<std::int64_t>(code);
    }
    return static_cast<std::int64_t>(last);
  }

  /// Enters in a row (d) what a code says of another column, see `Pattern.enter`.
  void enter(std::size_t k, std::int64_t code, double* row) const {
    const std::size_t value = at(first_[k]) + at(code);
    if (enters_[3 * k] < 0) return;
    double& to = row[at(enters_[3 * k])];
    if (source_[value] >= 0)
      to = as_stored(enters_[3 * k + 2], limits_.data + 2 * k, row[at(source_[value])]);
    else if (!std::isnan(atom_[value]))
      to = atom_[value];
  }

  Trees trees_;
  std::size_t d_ = 0, n_known_ = 0, n_values_ = 0;
  Span<std::int64_t> places_, forests_, first_, source_, enters_, rules_, rule_;
  Span<double> centre_, scale_, atom_, limits_;
  Span<float> log_frequency_;
  Span<std::uint8_t> meet_;
};

}  // namespace detail
}  // namespace flowbdt

#endif  // FLOWBDT_DISCRETE_HPP
