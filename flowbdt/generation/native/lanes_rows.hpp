// Numbers of a row as vectors of any size. Each file that includes this has functions of its own,
// in its own instructions: see lanes.hpp.

#ifndef FLOWBDT_LANES_ROWS_HPP
#define FLOWBDT_LANES_ROWS_HPP

#include <cstddef>

namespace flowbdt {
namespace lanes {
namespace {

template <class V, class R>
inline V at(const R* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class V, class R>
inline void put(R* to, V value) {
  __builtin_memcpy(to, &value, sizeof value);
}

template <int W>
struct Some;
template <>
struct Some<16> {
  typedef float Floats __attribute__((vector_size(64)));
};
template <>
struct Some<8> {
  typedef float Floats __attribute__((vector_size(32)));
};
template <>
struct Some<4> {
  typedef float Floats __attribute__((vector_size(16)));
};
template <>
struct Some<1> {
  using Floats = float;
};

/// Adds the leaves of `Count` trees to a row, tree by tree; W numbers at a time.
template <int Count, int W>
inline void add_to_row(const float* const* leaf, std::size_t width, float* sums) {
  using Part = typename Some<W>::Floats;
  for (std::size_t o = 0; o < width; o += W) {
    Part own = at<Part>(sums + o);
#pragma GCC unroll 8
    for (int q = 0; q < Count; ++q) own += at<Part>(leaf[q] + o);
    put(sums + o, own);
  }
}

}  // namespace
}  // namespace lanes
}  // namespace flowbdt

#endif  // FLOWBDT_LANES_ROWS_HPP
