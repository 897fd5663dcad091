// The walk with events in SIMD lanes: what its kernels read, and which kernels this processor runs.
//
// Kernels are compiled once for each instruction set (lanes_*.cpp), each with flags of its own. So
// this header has only plain structures: an inline function that two of them compile could be
// linked in the form that the processor does not know.

#ifndef FLOWBDT_LANES_HPP
#define FLOWBDT_LANES_HPP

#include <cstddef>
#include <cstdint>

namespace flowbdt {
namespace lanes {

enum Kind : std::int64_t { kNone = 0, kFull = 1, kLowRank = 2 };

/// The closed form at one step, its numbers in the order in which kernels read them.
template <class R>
struct FormStep {
  const R* centre;    // (n_seen)
  const R* constant;  // (K)
  const R* inner;     // (K, inner_size): see `Blocks`
  const R* joint;     // low rank: (K, n_seen, 2), quadratic and linear
  const R* output;    // (K, output_size)
  const R* ratio;     // low rank: (K, n_out)
  const R* ending;    // (n_out): what comes out whatever the point is, or null
  const R* weights;   // (K), with `ending`
  const R* linear;    // (n_out, 1 + n_seen): base, and what each input adds; or null
  std::size_t inner_size, output_size, n_gains;  // n_gains: 0 where the base is all
  // The same for a single row, see `one`; null where there is no such form.
  const R* inner_across;     // (K / L, sum over i of 2 + i, L): constant, and what each input adds
  const R* constant_across;  // (K, filled up with minus infinity)
  const R* output_across;    // pass by pass of kPass vectors of outputs: (K, rows, vectors, L)
  R turn[4];
  bool by_score;
};

/// The closed form of one pattern of known conditions.
template <class R>
struct Form {
  Kind kind;
  std::size_t n_points, n_seen, n_inner, n_components, n_out;
  const std::int64_t* observed;  // (n_seen - n_points)
  bool ready;                    // whether `one` can take it
  const FormStep<R>* steps;
};

/// Rows of a matrix are read in blocks of so many, the last of what is left.
constexpr std::size_t kBlock = 4;

/// Vectors of outputs that a single row computes together.
constexpr std::size_t kPass = 4;

/// Outputs that some trees add to, and what they begin with.
struct Forest {
  std::size_t width, first, base, first_run;  // one more forest has the end of the runs
};

/// Complete trees of one depth one after the other whose thresholds are in one table, if not null;
/// see `detail::Cuts`.
struct TreeTable {
  std::size_t n;
  const std::uint16_t* input;
  const std::uint8_t* missing;
  const std::size_t* first;
  const float* cuts;  // (_, 16)
};

struct TreeRun {
  std::size_t n_trees, depth, padded, first, n_used;
  const TreeTable* table;
  const std::uint16_t *used, *looked_at;  // by the table, or inputs without one
  const std::uint8_t* cut;
  const float* threshold;  // of those without
  const std::uint8_t* missing;
  const float* leaves;
};

struct Trees {
  const Forest* forests;
  const TreeRun* runs;
  const float* base;
  std::size_t across, n_inputs, most_used;  // from one row of sums to the next; of a table
  /// Adds a run to the sums (across) of one row of inputs (n_inputs), see `detail::Trees::add`.
  void (*add_to_row)(const void* owner, std::size_t run, const float* x, float* total, void* row);
  const void* owner;
};

/// The solver, and the inputs of the trees; see `SolverArrays`.
template <class R>
struct Solver {
  std::size_t n_evaluations, n_slots, n_points, n_conditions, n_inputs, n_columns;
  const R *scale, *weight, *to_columns;
  const R* columns_across;  // (n_points, n_columns filled up to whole vectors): to_columns, turned
  const std::int64_t *terms, *term, *slot, *step, *forests;
  const std::uint8_t* silent;
  bool latent, end_point, components;
};

/// Kernels of one instruction set. The double ones give the same bytes in all of them. Rows are
/// independent of each other to the last bit. Memory `room` is 64-byte aligned, of this thread.
template <class R>
struct WalkKernels {
  std::size_t lanes;
  std::size_t (*room)(const Solver<R>&, const Form<R>&, const Trees&);  // bytes
  /// Carries points x (n, m) in place; cond (n, c), NaN where unknown. `row` is for `add_to_row`.
  void (*walk)(const Solver<R>&, const Form<R>&, const Trees&, double* x, const double* cond,
               std::size_t n, void* room, void* row);
  /// Carries one point to the same bytes, with components and columns in lanes; `ready` forms only.
  /// Returns false, and leaves the point as it is, if it comes out infinite or not a number.
  bool (*one)(const Solver<R>&, const Form<R>&, const Trees&, double* x, const double* cond,
              void* room, void* row);
};

struct Kernels {
  const char* name;
  WalkKernels<double> in_double;
  WalkKernels<float> in_single;
  std::size_t (*sum_room)(std::size_t n_inputs, const Trees&);
  /// Fills result (n, n_outputs) with the forests `begin` to `end` of inputs (n, n_inputs).
  void (*sum)(const Trees&, std::size_t begin, std::size_t end, const float* inputs,
              std::size_t n_inputs, std::size_t n, float* result, std::size_t n_outputs,
              void* room, void* row);
};

/// Returns the kernels called `name` (avx512, avx2, plain), or the fastest that this processor
/// runs if it is null. Returns null if the processor does not run them, or nothing has that name.
const Kernels* kernels(const char* name);

}  // namespace lanes
}  // namespace flowbdt

#endif  // FLOWBDT_LANES_HPP
