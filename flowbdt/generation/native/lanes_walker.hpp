// A walker with events in SIMD lanes, and sums of trees: the checked arrays of a model in the order
// in which the kernels read them.

#ifndef FLOWBDT_LANES_WALKER_HPP
#define FLOWBDT_LANES_WALKER_HPP

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "flowbdt.hpp"
#include "lanes.hpp"

namespace flowbdt {
namespace lanes {

/// Numbers of a model in the precision of the kernels.
/// Forms of more numbers are not kept a second time for single rows.
constexpr std::size_t kMostAcross = std::size_t{1} << 20;

template <class R>
std::vector<R> rounded(const detail::Span<double>& from) {
  return std::vector<R>(from.data, from.data + from.size);
}

/// Owns a `Form`.
template <class R>
class FormPlan {
 public:
  FormPlan(const detail::Form& from, std::size_t n_steps, std::size_t lanes)
      : from_(from), lanes_(lanes), observed_(from.observed.begin(), from.observed.end()) {
    const std::size_t size = from.n_components * from.n_inner * (from.n_inner + from.n_used);
    const bool ready = from.kind == detail::kNone || !from.linear.empty() ||
                       (full() && size * n_steps <= kMostAcross);
    form_ = Form<R>{static_cast<Kind>(from.kind), from.n_points, from.n_seen,      from.n_inner,
                    from.n_components,            from.n_used,   observed_.data(), ready,
                    nullptr};
    if (from.kind == detail::kNone) return;
    std::vector<std::array<std::ptrdiff_t, 12>> places;
    for (std::size_t s = 0; s < n_steps; ++s) places.push_back(add(s));
    for (std::size_t s = 0; s < n_steps; ++s) {
      const auto at = [&](std::size_t q) {
        return places[s][q] < 0 ? nullptr : numbers_.data() + places[s][q];
      };
      FormStep<R>& step = steps_[s];
      step.centre = at(0), step.constant = at(1), step.inner = at(2), step.joint = at(3);
      step.output = at(4), step.ratio = at(5), step.ending = at(6), step.weights = at(7);
      step.inner_across = at(8), step.constant_across = at(9), step.output_across = at(10);
      step.linear = at(11);
    }
    form_.steps = steps_.data();
  }

  FormPlan(const FormPlan&) = delete;
  FormPlan& operator=(const FormPlan&) = delete;

  const Form<R>& form() const { return form_; }

 private:
  const double* part(std::size_t s, detail::Where what) const { return from_.part(s, what); }
  bool full() const { return from_.kind == detail::kFull; }
  void put(double value) { numbers_.push_back(static_cast<R>(value)); }

  /// What input j, or for j = n_seen the constant, adds to inner variable i of component k.
  double stack(std::size_t s, std::size_t i, std::size_t j, std::size_t k) const {
    const std::size_t size = from_.n_components, all = from_.n_inner, n = from_.n_seen;
    const double* row = part(s, detail::kStack);
    if (j == n) return row[i * size + k];
    row += all * size;
    if (!full()) return row[(j * all + i) * size + k];
    row += (j * all - j * (j - 1) / 2) * size;  // j (j - 1) / 2 is 0 for j = 0 all the same
    return row[(i - j) * size + k];
  }

  std::array<std::ptrdiff_t, 12> add(std::size_t s) {
    std::array<std::ptrdiff_t, 12> at;
    at.fill(-1);
    FormStep<R> step{};
    const std::size_t n = from_.n_seen, size = from_.n_components;
    for (std::size_t q = 0; q < 4; ++q) step.turn[q] = static_cast<R>(from_.turn[4 * s + q]);
    step.by_score = from_.by_score(s);
    step.n_gains = step.by_score || from_.has_gain(s) ? from_.n_inner : 0;
    const auto here = [&] { return static_cast<std::ptrdiff_t>(numbers_.size()); };
    at[0] = here();
    for (std::size_t j = 0; j < n; ++j) put(part(s, detail::kCentre)[j]);
    at[1] = here();
    for (std::size_t k = 0; k < size; ++k) put(part(s, detail::kConstant)[k]);
    if (is_constant(s, step)) {
      at[6] = add_ending(s);
      at[7] = at[6] + static_cast<std::ptrdiff_t>(from_.n_used);
    } else if (!from_.linear.empty()) {
      step.by_score = false;
      at[11] = here();
      const std::size_t count = from_.n_used * (1 + n);
      for (std::size_t q = 0; q < count; ++q) put(from_.linear[s * count + q]);
    } else {
      at[2] = here();
      for (std::size_t k = 0; k < size; ++k) add_inner(s, k);
      step.inner_size = static_cast<std::size_t>(here() - at[2]) / size;
      if (!full()) at[3] = here();
      for (std::size_t q = 0; !full() && q < size * n; ++q) {
        put(part(s, detail::kQuadratic)[q]);
        put(part(s, detail::kLinear)[q]);
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
          put(step.by_score ? part(s, detail::kQuadratic)[k * n + o] : part(s, detail::kRatio)[k * from_.n_out + o]);
      if (form_.ready) {
        at[8] = here();
        add_inner_across(s);
        at[9] = here();
        for (std::size_t k = 0; k < (size + lanes_ - 1) / lanes_ * lanes_; ++k)
          put(k < size ? part(s, detail::kConstant)[k] : -std::numeric_limits<double>::infinity());
        at[10] = here();
        for (std::size_t low = 0; low < from_.n_used; low += kPass * lanes_)
          for (std::size_t k = 0; k < size; ++k) add_output_across(s, k, low, step);
      }
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
        for (std::size_t j = 0; j <= n; ++j) {
          if (full() && j < n && j > i) continue;
          if (stack(s, i, j, k) != stack(s, i, j, 0)) return false;
        }
    if (full()) return true;
    for (std::size_t q = 0; q < size * n; ++q)
      if (part(s, detail::kQuadratic)[q] != part(s, detail::kQuadratic)[q % n] ||
          part(s, detail::kLinear)[q] != part(s, detail::kLinear)[q % n])
        return false;
    for (std::size_t q = 0; q < size * from_.n_out; ++q)
      if (part(s, detail::kRatio)[q] != 0.0) return false;
    return true;
  }

  std::ptrdiff_t add_ending(std::size_t s) {
    const std::size_t size = from_.n_components;
    const double* constant = part(s, detail::kConstant);
    const double largest = *std::max_element(constant, constant + size);
    std::vector<double> weights(size), out(from_.n_used, 0.0);
    double sum = 0.0;
    for (std::size_t k = 0; k < size; ++k) sum += weights[k] = std::exp(constant[k] - largest);
    for (std::size_t k = 0; k < size; ++k) {
      weights[k] /= sum;
      for (std::size_t o = 0; o < from_.n_used; ++o)
        out[o] += weights[k] * part(s, detail::kBase)[k * from_.n_out + o];
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
        put(step.by_score ? 0.5 * part(s, detail::kLinear)[k * from_.n_seen + o]
                          : part(s, detail::kBase)[k * width + o]);
      for (std::size_t i = 0; i < step.n_gains; ++i)
        for (std::size_t o = low; o < high; ++o)
          put(step.by_score ? -stack(s, i, o, k)
                            : part(s, detail::kGain)[(k * from_.n_inner + i) * width + o]);
    }
  }

  /// Of each group of components, as many as there are lanes, side by side.
  void add_inner_across(std::size_t s) {
    for (std::size_t k = 0; k < from_.n_components; k += lanes_)
      for (std::size_t i = 0; i < from_.n_inner; ++i)
        for (std::size_t j = 0; j <= i + 1; ++j)
          for (std::size_t l = k; l < k + lanes_; ++l)
            put(l < from_.n_components ? stack(s, i, j == 0 ? from_.n_seen : j - 1, l) : 0.0);
  }

  /// Row by row (base, then inner variables; for a score these from the first output on) what is
  /// added to the outputs of a pass, side by side.
  void add_output_across(std::size_t s, std::size_t k, std::size_t low, const FormStep<R>& step) {
    const std::size_t width = from_.n_out, n = from_.n_used;
    const std::size_t high = std::min(low + kPass * lanes_, (n + lanes_ - 1) / lanes_ * lanes_);
    for (std::size_t row = step.by_score ? 1 + low : 0; row < 1 + step.n_gains; ++row)
      for (std::size_t o = low; o < (step.by_score ? std::min(high, (row - 1) / lanes_ * lanes_ + lanes_) : high); ++o) {
        if (o >= n || (step.by_score && o >= row)) put(0.0);
        else if (step.by_score) put(stack(s, row - 1, o, k));
        else if (row == 0) put(part(s, detail::kBase)[k * width + o]);
        else put(part(s, detail::kGain)[(k * from_.n_inner + row - 1) * width + o]);
      }
  }

  const detail::Form& from_;  // read while this is made, not later
  std::size_t lanes_;
  std::vector<std::int64_t> observed_;
  std::vector<R> numbers_;
  std::vector<FormStep<R>> steps_;
  Form<R> form_;
};

/// The runs of a `Trees`, which has to stay where it is.
class TreePlan {
 public:
  explicit TreePlan(const detail::Trees& from) {
    std::size_t across = from.across(), most_used = 1;
    for (const detail::Cuts& one : from.tables()) {
      tables_.push_back(TreeTable{one.input.size(), one.input.data(), one.missing.data(),
                                  one.first.data(), one.cuts.data()->at});
      most_used = std::max(most_used, one.input.size());
    }
    for (std::size_t f = 0; f < from.n_forests(); ++f) {
      const detail::Forest& one = from.forests()[f];
      forests_.push_back(Forest{one.width, one.first, one.base, from.first_run()[f]});
    }
    forests_.push_back(Forest{0, 0, 0, from.runs().size()});
    for (const detail::TreeRun& run : from.runs()) {
      const detail::Forest& forest = from.forests()[run.forest];
      const bool numbered = run.table != detail::TreeRun::kNone;
      const std::size_t nodes = forest.nodes + (run.begin << forest.depth);
      runs_.push_back(TreeRun{
          run.end - run.begin, forest.depth, forest.padded, forest.first, run.used.size(),
          numbered ? tables_.data() + run.table : nullptr, run.used.data(),
          numbered ? from.looked_at().data() + run.nodes : from.feature().data + nodes,
          numbered ? from.cut() + run.nodes : nullptr, from.threshold().data + nodes,
          from.missing().data + nodes,
          from.leaves().data + forest.leaves + (run.begin << forest.depth) * forest.padded});
    }
    if (across > 1) across = (across + 15) / 16 * 16;
    const auto add = [](const void* owner, std::size_t run, const float* x, float* total,
                        void* row) {
      static_cast<const detail::Trees*>(owner)->add(run, x, total,
                                                    *static_cast<detail::TreeRow*>(row));
    };
    trees_ = Trees{forests_.data(), runs_.data(), from.base().data, across,
                   from.n_inputs(), most_used,    add,              &from};
  }
  TreePlan(const TreePlan&) = delete;
  TreePlan& operator=(const TreePlan&) = delete;

  const Trees& trees() const { return trees_; }

 private:
  std::vector<Forest> forests_;
  std::vector<TreeTable> tables_;
  std::vector<TreeRun> runs_;
  Trees trees_;
};

/// Memory that begins with a line of the cache, zeros at first.
class Room {
 public:
  void* fit(std::size_t bytes) {
    if (bytes + 64 > bytes_.size()) bytes_.assign(bytes + 64, 0);
    const std::size_t beyond = reinterpret_cast<std::uintptr_t>(bytes_.data()) % 64;
    return bytes_.data() + (64 - beyond) % 64;
  }

 private:
  std::vector<unsigned char> bytes_;
};

/// Sums of trees by the kernels, for `detail::Trees::faster`.
class TreeSums : public detail::TreeSums {
 public:
  TreeSums(const detail::Trees& from, const Kernels& kernels)
      : plan_(from), kernels_(kernels), n_inputs_(from.n_inputs()), across_(from.across()) {}

  void sum(std::size_t begin, std::size_t end, const float* x, std::size_t n,
           float* total) const override {
    thread_local Room room;
    detail::TreeRow row;
    kernels_.sum(plan_.trees(), begin, end, x, n_inputs_, n, total, across_,
                 room.fit(kernels_.sum_room(n_inputs_, plan_.trees())), &row);
  }

 private:
  TreePlan plan_;
  const Kernels& kernels_;
  std::size_t n_inputs_, across_;
};

inline const WalkKernels<double>& walk_kernels(const Kernels& all, double) { return all.in_double; }
inline const WalkKernels<float>& walk_kernels(const Kernels& all, float) { return all.in_single; }

/// Steps as the kernels read them, and walkers for them.
class LaneSteps {
 public:
  virtual ~LaneSteps() = default;
  /// Puts a form in the order of the kernels; before threads share it.
  virtual void prepare(detail::Form& form) const = 0;
  virtual std::unique_ptr<detail::Walker> walker() const = 0;
};

template <class R>
class LaneStepsOf : public LaneSteps {
 public:
  LaneStepsOf(detail::Steps& steps, const Kernels& kernels)
      : steps_(steps),
        kernels_(walk_kernels(kernels, R())),
        trees_(steps.trees),
        scale_(rounded<R>(steps.walk.scale)),
        weight_(rounded<R>(steps.walk.weight)),
        to_columns_(rounded<R>(steps.walk.to_columns)) {
    const detail::Walk& walk = steps.walk;
    solver_.n_evaluations = walk.step.size, solver_.n_slots = steps.n_slots;
    solver_.n_points = steps.m, solver_.n_conditions = steps.n_cond;
    solver_.n_inputs = steps.trees.n_inputs();
    solver_.n_columns = walk.to_columns.size / steps.m;
    solver_.scale = scale_.data(), solver_.weight = weight_.data();
    solver_.to_columns = to_columns_.data();
    const std::size_t lanes = kernels_.lanes, q = solver_.n_columns;
    const std::size_t across = (q + lanes - 1) / lanes * lanes;
    columns_across_.resize(steps.m * across);
    for (std::size_t i = 0; i < q * steps.m; ++i)
      columns_across_[i % steps.m * across + i / steps.m] = to_columns_[i];
    solver_.columns_across = columns_across_.data();
    solver_.terms = walk.terms.data, solver_.term = walk.term.data;
    solver_.slot = walk.slot.data, solver_.step = walk.step.data;
    solver_.forests = walk.forests.data, solver_.silent = walk.silent.data;
    solver_.latent = walk.latent, solver_.end_point = walk.end_point;
    solver_.components = walk.components;
    prepare(steps.form);
  }

  void prepare(detail::Form& form) const override {
    form.in_lanes = std::make_shared<FormPlan<R>>(form, steps_.walk.n_steps(), kernels_.lanes);
  }

  std::unique_ptr<detail::Walker> walker() const override {
    return std::make_unique<Walker>(*this);
  }

 private:
  class Walker : public detail::Walker {
   public:
    explicit Walker(const LaneStepsOf& own) : detail::Walker(own.steps_), own_(own) {}

   protected:
    void prepare(detail::Form& form) const override { own_.prepare(form); }

    void walk(const detail::Form& form, double* x, const double* cond, std::size_t n) override {
      const Form<R>& own = static_cast<const FormPlan<R>*>(form.in_lanes.get())->form();
      const Trees& trees = own_.trees_.trees();
      void* room = room_.fit(own_.kernels_.room(own_.solver_, own, trees));
      if (n == 1 && own.ready &&
          own_.kernels_.one(own_.solver_, own, trees, x, cond, room, &row_))
        return;
      own_.kernels_.walk(own_.solver_, own, trees, x, cond, n, room, &row_);
    }

    const LaneStepsOf& own_;
    Room room_;
    detail::TreeRow row_;
  };

  const detail::Steps& steps_;
  const WalkKernels<R>& kernels_;
  TreePlan trees_;
  std::vector<R> scale_, weight_, to_columns_, columns_across_;
  Solver<R> solver_{};
};

}  // namespace lanes
}  // namespace flowbdt

#endif  // FLOWBDT_LANES_WALKER_HPP
