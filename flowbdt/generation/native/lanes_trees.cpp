// Trees node by node, the same for all instruction sets: compiled once, as no vector is longer than
// four numbers.

#if defined(__GNUC__)
#include "lanes.hpp"
#include "lanes_rows.hpp"

namespace flowbdt {
namespace lanes {
namespace {

/// Adds the leaves of `Count` trees of depth D (0: any) from number t on to a row; the trees are
/// walked side by side, none waits for another.
template <bool Gaps, int D, int Count>
inline void add_trees(const Trees& trees, const Forest& forest, std::size_t t, const float* x,
                      std::size_t stride, float* sums) {
  const std::size_t depth = D > 0 ? D : forest.depth, width = forest.padded;
  const std::size_t size = std::size_t{1} << depth, first = forest.nodes + t * size;
  std::uint32_t k[Count] = {};
  const auto descend = [&](std::size_t d) {
#pragma GCC unroll 8
    for (int q = 0; q < Count; ++q) {
      const std::size_t node = first + q * size + (std::size_t{1} << d) + k[q];
      const float value = x[trees.feature[node] * stride];
      bool beyond = value >= trees.threshold[node];
      if (Gaps) beyond |= (value != value) & (trees.missing[node] != 0);
      k[q] |= static_cast<std::uint32_t>(beyond) << d;
    }
  };
  if (D == 0) {
    for (std::size_t d = 0; d < depth; ++d) descend(d);
  } else {
#pragma GCC unroll 8
    for (std::size_t d = 0; d < D; ++d) descend(d);
  }
  const float* leaf[Count];
  for (int q = 0; q < Count; ++q)
    leaf[q] = trees.leaves + forest.leaves + ((t + q) * size + k[q]) * width;
  if (width % 4 == 0) add_to_row<Count, 4>(leaf, width, sums);
  else add_to_row<Count, 1>(leaf, width, sums);
}

/// Adds a forest's leaves row by row.
template <bool Gaps, int D>
void add_row_by_row(const Trees& trees, const Forest& forest, const float* x, std::size_t stride,
                    std::size_t n, float* total) {
  for (std::size_t r = 0; r < n; ++r) {
    float* sums = total + r * trees.across + forest.first;
    std::size_t t = 0;
    for (; t + 8 <= forest.n_trees; t += 8)
      add_trees<Gaps, D, 8>(trees, forest, t, x + r, stride, sums);
    for (; t + 4 <= forest.n_trees; t += 4)
      add_trees<Gaps, D, 4>(trees, forest, t, x + r, stride, sums);
    for (; t < forest.n_trees; ++t) add_trees<Gaps, D, 1>(trees, forest, t, x + r, stride, sums);
  }
}

}  // namespace

void add_by_node(const Trees& trees, const Forest& forest, const float* x, std::size_t stride,
                 std::size_t n, bool gaps, float* total) {
  if (gaps) return add_row_by_row<true, 0>(trees, forest, x, stride, n, total);
  switch (forest.depth) {  // known depths are walked without a loop
    case 3: return add_row_by_row<false, 3>(trees, forest, x, stride, n, total);
    case 4: return add_row_by_row<false, 4>(trees, forest, x, stride, n, total);
    case 5: return add_row_by_row<false, 5>(trees, forest, x, stride, n, total);
    case 6: return add_row_by_row<false, 6>(trees, forest, x, stride, n, total);
    default: return add_row_by_row<false, 0>(trees, forest, x, stride, n, total);
  }
}

}  // namespace lanes
}  // namespace flowbdt
#endif
