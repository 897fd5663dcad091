// Models as plain functions of floats, whose files are in the program and whose random numbers are
// given: what LHCb's Lamarr calls. flowbdt/generation/export/lamarr.py writes one source with these.

#ifndef FLOWBDT_STAGES_HPP
#define FLOWBDT_STAGES_HPP

#include <atomic>

#include "flowbdt.hpp"

namespace flowbdt {

/// Columns of an event that are not as a stage tells them: `to` are the places of some that add up
/// to one, told from shares at the places `from` of what inputs at the places `before` leave. If
/// there is one more of the first, it has what is left. They are stored as `kinds` say.
struct Shares {
  std::vector<std::size_t> to, from, before;
  std::vector<std::int64_t> kinds;

  float stored(std::size_t i, double value) const {
    static constexpr double range[] = {0.0, 1.0};
    return static_cast<float>(detail::as_stored(kinds[i], range, value));
  }
};

/// Bytes on the stack for the working memory of a call; what needs more asks for it.
constexpr std::size_t kMemory = 16384;

/// A model that is there as long as the library; calls share nothing but two counters, and what is
/// ready for one of them at a time.
class Stage {
 public:
  /// `bytes` is the content of a file; `order`: where in an event each output is.
  Stage(const void* bytes, std::size_t size, const char* name, std::size_t attempts,
        std::vector<std::size_t> order = {}, std::vector<Shares> shares = {})
      : model_(std::make_shared<const Model>(bytes, size, name, "export it again")),
        attempts_(attempts),
        order_(std::move(order)),
        shares_(std::move(shares)) {
    try {  // an event of zeros: all working memory has its size then
      auto room = std::make_unique<Room>(model_);
      if (model_->is_classifier()) room->generator.probabilities(room->cond.data(), room->cond.size());
      else draw(*room);
      ready_ = room.release();
    } catch (const std::exception&) {  // every call makes its own
    }
  }
  ~Stage() { delete ready_.load(); }
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  /// Fills `out` with the probabilities of the values; NaN where it fails.
  float* probabilities(float* out, const float* in) const {
    const std::size_t size = model_->n_values();
    return called(out, size, in, [&](Room& room) {
      std::copy_n(room.generator.probabilities(room.cond.data(), room.cond.size()), size, out);
    });
  }

  /// Fills `out` with an event of given normal numbers: for each attempt those of an event, and one
  /// that tells whether to keep it, which the last attempt does not need.
  float* event(float* out, const float* in, const float* random) const {
    return called(out, order_.size(), in, [&](Room& room) {
      const detail::Work<double>&cond = room.cond, &event = room.event, &noise = room.noise;
      for (std::size_t left = attempts_; left > 0; --left) {
        std::copy_n(random, noise.size(), room.noise.begin());
        random += noise.size();
        const double kept = draw(room, left > 1);
        if (left > 1 && detail::uniform_of(*random++) < kept) break;
      }
      for (std::size_t i = 0; i < order_.size(); ++i) out[i] = static_cast<float>(event[order_[i]]);
      for (const Shares& group : shares_) {
        double left = 1.0;
        for (const std::size_t i : group.before) left -= cond[i];
        if (!(left > kNothing)) left = 0.0;
        for (std::size_t i = 0; i < group.from.size(); ++i) {
          const double share = detail::within(event[group.from[i]], 0.0, 1.0);
          out[group.to[i]] = group.stored(i, left * share);
          left = share < 1.0 ? left * (1.0 - share) : 0.0;
        }
        const std::size_t last = group.from.size();
        if (group.to.size() > last) out[group.to[last]] = group.stored(last, left);
      }
    });
  }

  /// Calls with a condition far outside of the training, see `Model::outside`; calls that failed.
  unsigned long long outside() const { return outside_.load(std::memory_order_relaxed); }
  unsigned long long failed() const { return failed_.load(std::memory_order_relaxed); }

 private:
  static constexpr double kNothing = 1e-6;  // as in physics/response/shares.py

  /// The working memory of a call.
  struct Room {
    explicit Room(const std::shared_ptr<const Model>& model)
        : generator(model), cond(model->n_conditions()), noise(model->n_latent()),
          event(model->n_columns()) {}
    Generator generator;
    detail::Work<double> cond, noise, event;
  };

  static double draw(Room& room, bool asks = true) {
    return room.generator.from_noise(room.noise.data(), room.cond.data(), room.cond.size(),
                                     room.event.data(), asks);
  }

  template <class Do>
  float* called(float* out, std::size_t size, const float* in, Do&& work) const {
    const auto whole = [&](Room& room) {
      std::copy_n(in, room.cond.size(), room.cond.begin());
      if (model_->outside(room.cond.data()) > 0) outside_.fetch_add(1, std::memory_order_relaxed);
      work(room);
    };
    // unknown conditions need memory for a closed form of their own
    const bool known = std::none_of(in, in + model_->n_conditions(), [](float x) { return x != x; });
    Room* ready = known ? ready_.exchange(nullptr, std::memory_order_acquire) : nullptr;
    try {
      if (ready != nullptr) whole(*ready);
      else in_own_memory(whole);
    } catch (...) {  // no text is kept: nothing outlives a call
      failed_.fetch_add(1, std::memory_order_relaxed);
      std::fill(out, out + size, std::numeric_limits<float>::quiet_NaN());
    }
    if (ready != nullptr) ready_.store(ready, std::memory_order_release);
    return out;
  }

  template <class Do>
  void in_own_memory(Do&& work) const {
    alignas(64) unsigned char memory[kMemory];
    const detail::Lent lent(memory, kMemory);
    Room room(model_);
    work(room);
  }

  std::shared_ptr<const Model> model_;
  std::size_t attempts_;
  std::vector<std::size_t> order_;
  std::vector<Shares> shares_;
  mutable std::atomic<Room*> ready_{nullptr};
  mutable std::atomic<unsigned long long> outside_{0}, failed_{0};
};

/// Trees that tell real from generated objects, made by several stages: the chance to keep one.
class Rejection {
 public:
  Rejection(const void* bytes, std::size_t size, const char* name)
      : file_(bytes, size, name, "export it again"),
        trees_(file_, "ratio"),
        ceiling_(file_.get<double>("ratio.ceiling", 1)[0]) {
    file_.require(trees_.n_outputs() == 1 && ceiling_ > 0.0, "numbers of a rejection");
  }

  /// Fills `out` with the chance to keep an object; NaN where it fails.
  float* probabilities(float* out, const float* in) const {
    alignas(64) unsigned char memory[kMemory];
    const detail::Lent lent(memory, kMemory);
    try {
      const std::size_t n = trees_.n_inputs();
      detail::Work<float> total(std::max<std::size_t>(trees_.across(), 1));
      trees_.sum(0, trees_.n_forests(), in, 1, n, total.data());
      out[0] = static_cast<float>(detail::acceptance(total[0], ceiling_));
    } catch (...) {
      failed_.fetch_add(1, std::memory_order_relaxed);
      out[0] = std::numeric_limits<float>::quiet_NaN();
    }
    return out;
  }

  unsigned long long outside() const { return 0; }
  unsigned long long failed() const { return failed_.load(std::memory_order_relaxed); }

 private:
  detail::File file_;
  detail::Trees trees_;
  double ceiling_;
  mutable std::atomic<unsigned long long> failed_{0};
};

}  // namespace flowbdt

#endif  // FLOWBDT_STAGES_HPP
