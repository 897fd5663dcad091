// What Python asks of the core, see core.py: plain functions on arrays, no exception leaves them.
//
// A part is made of the arrays of one file, checked when it is opened. It never changes, so that
// any number of threads may use it; each call takes working memory of its own.

#include <cstdlib>
#include <mutex>

#include "flowbdt.hpp"
#include "lanes_walker.hpp"
#include "showers.hpp"

#ifdef _WIN32
#define CORE_API extern "C" __declspec(dllexport)
#else
#define CORE_API extern "C" __attribute__((visibility("default")))
#endif
#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

namespace {

using namespace flowbdt;

using detail::guarded;

/// Working memory that waits for its next use.
template <class T>
class Pool {
 public:
  template <class Make>
  std::unique_ptr<T> take(Make&& make) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<T> last = std::move(free_.back());
        free_.pop_back();
        return last;
      }
    }
    return make();
  }

  void give_back(std::unique_ptr<T> one) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(one));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> free_;
};

struct WayMemory {
  std::vector<double> latent, stack, derived;
  WayMemory(const detail::Way& way, const detail::Expressions& seen)
      : latent(way.n_values() + 1), stack(std::max(way.deepest(), seen.deepest())),
        derived(seen.size()) {}
};

/// Kernels for events in SIMD lanes; null if this compiler knows no vectors. FLOWBDT_LANES asks for
/// those of one instruction set, to compare them.
const lanes::Kernels* kernels() {
  const char* name = std::getenv("FLOWBDT_LANES");
  if (name != nullptr && *name == 0) name = nullptr;
  const lanes::Kernels* found = lanes::kernels(name);
  if (name != nullptr && found == nullptr)
    throw ArgumentError(std::string("FLOWBDT_LANES is '") + name +
                        "', which this processor or this build does not know; it may be avx512,"
                        " avx2 or plain, or unset for the fastest");
  return found;
}

void quicken(detail::Trees& trees) {
  if (const lanes::Kernels* found = kernels())
    trees.faster = std::make_shared<lanes::TreeSums>(trees, *found);
}

float as_single(double value) { return static_cast<float>(detail::within_single(value)); }

}  // namespace

struct FlowbdtSteps {
  detail::File file;
  detail::Steps steps;
  std::unique_ptr<lanes::LaneSteps> in_lanes;
  Pool<detail::Walker> walkers;

  FlowbdtSteps(detail::File&& from, bool single) : file(std::move(from)), steps(file) {
    const lanes::Kernels* found = kernels();
    if (single && found == nullptr)
      throw ArgumentError("single precision needs a core that was built by GCC or Clang; use double");
    if (single) in_lanes = std::make_unique<lanes::LaneStepsOf<float>>(steps, *found);
    else if (found != nullptr) in_lanes = std::make_unique<lanes::LaneStepsOf<double>>(steps, *found);
  }

  std::unique_ptr<detail::Walker> walker() const {
    return in_lanes ? in_lanes->walker() : std::make_unique<detail::Walker>(steps);
  }
};

struct FlowbdtForm {
  detail::File file;
  detail::Form form;
};

struct FlowbdtTrees {
  detail::File file;
  detail::Trees trees;
};

struct FlowbdtColumns {
  detail::File file;
  detail::Way way;
  detail::Expressions seen;
  Pool<WayMemory> memory;

  explicit FlowbdtColumns(detail::File&& from) : file(std::move(from)), way(file) {
    if (file.has("seen.sizes")) seen = detail::Expressions(file, "seen", way);
  }

  std::unique_ptr<WayMemory> room() {
    return memory.take([&] { return std::make_unique<WayMemory>(way, seen); });
  }
};

/// One attempt at a single event: the parts of its model, and where its numbers are; see core.py.
struct FlowbdtAttempt {
  FlowbdtSteps* steps;
  const FlowbdtForm* form;  // or null
  FlowbdtColumns* columns;
  const FlowbdtTrees* ratio;              // or null
  const double *centre, *scale;           // (d), of columns before the trees of the ratio
  double* z;                              // (m), noise
  const double *scaled, *cond;            // (c), scaled and in the units of the table
  double* x;                              // (d)
  float *inputs, *log_ratio;              // (d + c + k), (across), with a ratio
  std::int64_t undefined;
};

struct FlowbdtDiscrete {
  detail::File file;
  detail::Discrete discrete{file};
};

struct FlowbdtShowers {
  detail::File file;
  detail::Showers showers{file};
};

namespace {

detail::File file_of(const void* bytes, std::size_t size, const char* name) {
  return detail::File(bytes, size, name, "copy the file again, or save the model anew");
}

}  // namespace

/// The sources that this library was built from, see sources.py.
CORE_API const char* flowbdt_sources() { return TEXT(FLOWBDT_SOURCES); }

CORE_API const char* flowbdt_error() { return detail::last_error().c_str(); }

// Each `open` reads a file of `size` bytes that begin at `bytes`, which must stay there if they are
// aligned; `name` is for messages. It tells the sizes of the part.

/// {latent columns, conditions}; not null if `single`: walks in float32.
CORE_API int flowbdt_open_steps(const void* single, const void* bytes, std::size_t size, const char* name,
                                FlowbdtSteps** result, std::size_t* sizes) {
  return guarded([&] {
    *result = new FlowbdtSteps(file_of(bytes, size, name), single != nullptr);
    sizes[0] = (*result)->steps.m;
    sizes[1] = (*result)->steps.n_cond;
  });
}

/// The closed form of `steps` for some conditions that are known, where no mixture tells it.
CORE_API int flowbdt_open_form(const FlowbdtSteps* of, const void* bytes, std::size_t size,
                               const char* name, FlowbdtForm** result, std::size_t*) {
  return guarded([&] {
    const detail::Steps& steps = of->steps;
    auto form = std::unique_ptr<FlowbdtForm>(new FlowbdtForm{file_of(bytes, size, name), {}});
    form->form = detail::Form(form->file, steps.m, steps.n_cond, steps.walk.n_steps());
    form->file.require(steps.takes(form->form), "closed forms");
    if (of->in_lanes) of->in_lanes->prepare(form->form);
    *result = form.release();
  });
}

/// The trees that have the name `part` in the file: {inputs, outputs}
CORE_API int flowbdt_open_trees(const char* part, const void* bytes, std::size_t size,
                                const char* name, FlowbdtTrees** result, std::size_t* sizes) {
  return guarded([&] {
    auto trees = std::unique_ptr<FlowbdtTrees>(new FlowbdtTrees{file_of(bytes, size, name), {}});
    trees->trees = detail::Trees(trees->file, part);
    quicken(trees->trees);
    sizes[0] = trees->trees.n_inputs();
    sizes[1] = trees->trees.n_outputs();
    sizes[2] = trees->trees.across();
    *result = trees.release();
  });
}

/// The way from latent points to columns: {latent columns, columns, conditions, whether a relation
/// reads these, what is computed for the rejection, whether events turn}
CORE_API int flowbdt_open_columns(const void*, const void* bytes, std::size_t size,
                                  const char* name, FlowbdtColumns** result, std::size_t* sizes) {
  return guarded([&] {
    *result = new FlowbdtColumns(file_of(bytes, size, name));
    const detail::Way& way = (*result)->way;
    sizes[0] = way.n_latent();
    sizes[1] = way.n_columns();
    sizes[2] = way.n_conditions();
    sizes[3] = way.needs_conditions();
    sizes[4] = (*result)->seen.size();
    sizes[5] = way.turns();
  });
}

/// What draws discrete columns: {columns, other things that are known, discrete columns}
CORE_API int flowbdt_open_discrete(const void*, const void* bytes, std::size_t size,
                                   const char* name, FlowbdtDiscrete** result,
                                   std::size_t* sizes) {
  return guarded([&] {
    auto part = std::unique_ptr<FlowbdtDiscrete>(new FlowbdtDiscrete{file_of(bytes, size, name)});
    quicken(part->discrete.trees());
    const detail::Discrete& discrete = (*result = part.release())->discrete;
    sizes[0] = discrete.d();
    sizes[1] = discrete.n_known();
    sizes[2] = discrete.n_columns();
  });
}

/// Divisions of showers: {known features of a layer, layers, voxels, uniform numbers}
CORE_API int flowbdt_open_showers(const void*, const void* bytes, std::size_t size,
                                  const char* name, FlowbdtShowers** result, std::size_t* sizes) {
  return guarded([&] {
    auto part = std::unique_ptr<FlowbdtShowers>(new FlowbdtShowers{file_of(bytes, size, name)});
    quicken(part->showers.trees());
    const detail::Showers& showers = (*result = part.release())->showers;
    sizes[0] = showers.n_known();
    sizes[1] = showers.n_layers();
    sizes[2] = showers.n_voxels();
    sizes[3] = showers.n_uniform();
  });
}

CORE_API void flowbdt_close_steps(FlowbdtSteps* part) { delete part; }
CORE_API void flowbdt_close_form(FlowbdtForm* part) { delete part; }
CORE_API void flowbdt_close_trees(FlowbdtTrees* part) { delete part; }
CORE_API void flowbdt_close_columns(FlowbdtColumns* part) { delete part; }
CORE_API void flowbdt_close_discrete(FlowbdtDiscrete* part) { delete part; }
CORE_API void flowbdt_close_showers(FlowbdtShowers* part) { delete part; }

namespace {

void walk(FlowbdtSteps* part, const FlowbdtForm* form, double* x, const double* cond,
          std::size_t n) {
  auto walker = part->walkers.take([&] { return part->walker(); });
  walker->run(x, cond, n, form == nullptr ? nullptr : &form->form);
  part->walkers.give_back(std::move(walker));
}

/// Does something with n events x and their conditions; returns how often a relation was undefined.
template <class Do>
std::size_t each(FlowbdtColumns* part, const double* cond, double* x, std::size_t n, Do&& work) {
  const detail::Way& way = part->way;
  if (cond == nullptr && way.needs_conditions())
    throw ArgumentError("a relation reads conditions, got none");
  auto memory = part->room();
  std::size_t undefined = 0;
  for (std::size_t r = 0; r < n; ++r)
    undefined += work(way, r, x + r * way.n_columns(),
                      cond == nullptr ? nullptr : cond + r * way.n_conditions(),
                      memory->latent.data(), memory->stack.data());
  part->memory.give_back(std::move(memory));
  return undefined;
}

std::size_t restore(FlowbdtColumns* part, const double* z, const double* cond, double* x,
                    std::size_t n) {
  return each(part, cond, x, n, [&](const detail::Way& way, std::size_t r, double* event,
                                    const double* known, double* latent, double* stack) {
    return way.restore(z + r * way.n_latent(), known, event, latent, stack);
  });
}

}  // namespace

/// Carries points x (n, m) in place; cond is (n, c), NaN where unknown. `form` may be null.
CORE_API int flowbdt_walk(FlowbdtSteps* part, const FlowbdtForm* form, double* x,
                          const double* cond, std::size_t n) {
  return guarded([&] { walk(part, form, x, cond, n); });
}

/// Makes x, and the logarithm of its ratio, of z, which is carried in place. `undefined` tells how
/// often a relation was; -1, and nothing of x, if z comes out infinite or not a number.
CORE_API int flowbdt_attempt(FlowbdtAttempt* at) {
  return guarded([&] {
    const detail::Way& way = at->columns->way;
    at->undefined = -1;
    walk(at->steps, at->form, at->z, at->scaled, 1);
    for (std::size_t j = 0; j < way.n_latent(); ++j)
      if (!std::isfinite(at->z[j])) return;
    at->undefined = static_cast<std::int64_t>(restore(at->columns, at->z, at->cond, at->x, 1));
    if (at->ratio == nullptr) return;
    const std::size_t d = way.n_columns(), n = at->ratio->trees.n_inputs();
    const detail::Expressions& seen = at->columns->seen;
    const std::size_t derived = n - seen.size();
    for (std::size_t j = 0; j < d; ++j)
      at->inputs[j] = as_single((at->x[j] - at->centre[j]) / at->scale[j]);
    for (std::size_t j = d; j < derived; ++j) at->inputs[j] = static_cast<float>(at->scaled[j - d]);
    if (derived < n) {
      auto memory = at->columns->room();
      seen.compute(at->x, at->cond, memory->stack.data(), memory->derived.data());
      for (std::size_t j = derived; j < n; ++j)
        at->inputs[j] = as_single(memory->derived[j - derived]);
      at->columns->memory.give_back(std::move(memory));
    }
    at->ratio->trees.sum(0, at->ratio->trees.n_forests(), at->inputs, 1, n,
                         at->log_ratio);
  });
}

/// Fills out (n, outputs) for x (n, inputs), NaN where missing.
CORE_API int flowbdt_predict(const FlowbdtTrees* part, const float* x, std::size_t n, float* out) {
  return guarded([&] {
    const detail::Trees& trees = part->trees;
    const std::size_t p = trees.n_inputs(), m = trees.n_outputs(), across = trees.across();
    std::vector<float> total(std::min(n, detail::kBlock) * across);
    for (std::size_t low = 0; low < n; low += detail::kBlock) {
      const std::size_t rows = std::min(detail::kBlock, n - low);
      const float* inputs = x + low * p;
      trees.sum(0, trees.n_forests(), inputs, rows, p, total.data());
      for (std::size_t r = 0; r < rows; ++r)
        std::copy_n(total.data() + r * across, m, out + (low + r) * m);
    }
  });
}

/// Fills x (n, d) from z (n, m) and the conditions (n, c), null if no relation reads them, in the
/// units of the table; tells how often a relation was undefined.
CORE_API int flowbdt_restore(FlowbdtColumns* part, const double* z, const double* cond, double* x,
                             std::size_t n, std::size_t* undefined) {
  return guarded([&] { *undefined = restore(part, z, cond, x, n); });
}

/// Turns events x (n, d) by angles (n); the rest is as for `flowbdt_restore`.
CORE_API int flowbdt_turn(FlowbdtColumns* part, const double* angles, const double* cond, double* x,
                          std::size_t n, std::size_t* undefined) {
  return guarded([&] {
    *undefined = each(part, cond, x, n, [&](const detail::Way& way, std::size_t r, double* event,
                                            const double* known, double* latent, double* stack) {
      return way.turn(angles[r], event, known, latent, stack);
    });
  });
}

/// Fills codes (n, q) from x (n, d), what else is known (n, k) and uniform numbers (q, n); enters
/// in x what they say.
CORE_API int flowbdt_draw(const FlowbdtDiscrete* part, double* x, const double* known,
                          const double* uniform, std::int64_t* codes, std::size_t n) {
  return guarded([&] {
    detail::Discrete::Room room;
    part->discrete.draw(x, known, uniform, n, codes, n, room);
  });
}

/// Fills voxels (n, v) from known features of layers (n, l, f), energies of layers (n, l), axes
/// (n, 2) and uniform numbers (n, u).
CORE_API int flowbdt_fill_showers(const FlowbdtShowers* part, const float* known,
                                  const double* layers, const double* axes, const double* uniform,
                                  double threshold, std::size_t n, double* voxels) {
  return guarded(
      [&] { part->showers.fill(known, layers, axes, uniform, threshold, n, voxels); });
}
