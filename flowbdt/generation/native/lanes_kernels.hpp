// The kernels of one instruction set. A lanes_*.cpp names it, LANES_NAME, and the bytes of its
// vectors, LANES_BYTES, and includes this; compile it with -ffp-contract=off.
//
// A lane has an event. Each event is computed by the same operations in the same order whatever
// is in the other lanes, so results depend neither on them nor on how many there are. In double no
// product is added without being rounded first, so all instruction sets give the same bytes.
//
// No inline function of a library may be used here: see lanes.hpp.

#include <cstddef>
#include <cstdint>

#include "lanes.hpp"
#include "lanes_rows.hpp"

#define LANES_AS_TEXT(name) #name
#define LANES_TEXT(name) LANES_AS_TEXT(name)

#if LANES_BYTES > 16
#include <immintrin.h>
#endif

namespace flowbdt {
namespace lanes {
namespace {

/// Rows that go through all steps together: the trees of a step are read once for all of them.
constexpr std::size_t kRows = 256;
/// Rows that are compared together.
constexpr std::size_t kCompared = 64;
/// Trees of at least 2 and at most this depth are evaluated for all rows at once.
constexpr std::size_t kWidest = 7;
/// With fewer rows all trees are evaluated row by row.
constexpr std::size_t kFewest = 6;
/// Sums over components are so many side by side, component k in sum k % kSums: none waits long.
constexpr std::size_t kSums = 4;

// ---------------------------------------------------------------------------------------------
// Vectors

template <class R>
struct Vectors;

template <>
struct Vectors<double> {
  typedef double V __attribute__((vector_size(LANES_BYTES)));
  typedef std::int64_t I __attribute__((vector_size(LANES_BYTES)));
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double ln2_high = 0.6931471803691238, ln2_low = 1.9082149292705877e-10;
  static constexpr double least = -700.0;
};

template <>
struct Vectors<float> {
  typedef float V __attribute__((vector_size(LANES_BYTES)));
  typedef std::int32_t I __attribute__((vector_size(LANES_BYTES)));
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float magic = 12582912.0f;  // 1.5 * 2^23
  static constexpr float ln2_high = 0.693145752f, ln2_low = 1.42860677e-6f;
  static constexpr float least = -87.0f;
};

template <class R>
using Vector = typename Vectors<R>::V;

template <class R>
constexpr std::size_t kLanes = LANES_BYTES / sizeof(R);

/// Rows whose closed form is computed together, in two vectors.
template <class R>
constexpr std::size_t kTogether = 2 * kLanes<R>;

#if LANES_BYTES == 64 && defined(__AVX512F__)
inline Vector<double> splat(double x) { return (Vector<double>)_mm512_set1_pd(x); }
inline Vector<float> splat(float x) { return (Vector<float>)_mm512_set1_ps(x); }
inline Vector<float> plus_product(Vector<float> a, Vector<float> b, Vector<float> c) {
  return (Vector<float>)_mm512_fmadd_ps((__m512)b, (__m512)c, (__m512)a);
}
#elif LANES_BYTES == 32 && defined(__AVX2__)
inline Vector<double> splat(double x) { return (Vector<double>)_mm256_set1_pd(x); }
inline Vector<float> splat(float x) { return (Vector<float>)_mm256_set1_ps(x); }
inline Vector<float> plus_product(Vector<float> a, Vector<float> b, Vector<float> c) {
  return (Vector<float>)_mm256_fmadd_ps((__m256)b, (__m256)c, (__m256)a);
}
#else
template <class R>
inline Vector<R> filled(R x) {
  Vector<R> all;
  for (std::size_t l = 0; l < kLanes<R>; ++l) all[l] = x;
  return all;
}
inline Vector<double> splat(double x) { return filled(x); }
inline Vector<float> splat(float x) { return filled(x); }
inline Vector<float> plus_product(Vector<float> a, Vector<float> b, Vector<float> c) {
  return a + b * c;
}
#endif

inline Vector<double> plus_product(Vector<double> a, Vector<double> b, Vector<double> c) {
  return a + b * c;
}

inline double plus_product(double a, double b, double c) { return a + b * c; }
inline float plus_product(float a, float b, float c) {
  return plus_product(splat(a), splat(b), splat(c))[0];
}

inline void put_single(float* to, Vector<float> value) { put(to, value); }

inline void put_single(float* to, Vector<double> value) {
  typedef float Half __attribute__((vector_size(LANES_BYTES / 2)));
  put(to, __builtin_convertvector(value, Half));
}

/// exp(y) for y in [-700, 0] or [-87, 0]: 2^n exp(y - n log 2) with a Taylor polynomial.
template <class R>
inline Vector<R> exponential(Vector<R> y) {
  using T = Vectors<R>;
  constexpr double c[] = {1.0,           1.0,            1.0 / 2,         1.0 / 6,     1.0 / 24,
                          1.0 / 120,     1.0 / 720,      1.0 / 5040,      1.0 / 40320, 1.0 / 362880,
                          1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
  constexpr int size = sizeof(R) == 8 ? 14 : 8;
  const Vector<R> shifted =
      plus_product(splat(T::magic), y, splat(static_cast<R>(1.44269504088896340736)));
  const Vector<R> n = shifted - splat(T::magic);
  y = plus_product(y, n, splat(-T::ln2_high));
  y = plus_product(y, n, splat(-T::ln2_low));
  Vector<R> p[size / 2], power_of_y = y * y;  // in pairs, then pairs of pairs: few have to wait
#pragma GCC unroll 8
  for (int k = 0; k < size / 2; ++k)
    p[k] = plus_product(splat(static_cast<R>(c[2 * k])), splat(static_cast<R>(c[2 * k + 1])), y);
#pragma GCC unroll 8
  for (int left = size / 2; left > 1; left = (left + 1) / 2, power_of_y *= power_of_y)
#pragma GCC unroll 8
    for (int k = 0; k < (left + 1) / 2; ++k)
      p[k] = 2 * k + 1 < left ? plus_product(p[2 * k], p[2 * k + 1], power_of_y) : p[2 * k];
  const typename T::I power = ((typename T::I)shifted + T::bias) << T::mantissa;
  return p[0] * (Vector<R>)power;
}

// ---------------------------------------------------------------------------------------------
// Closed form: U vectors of rows at a time, so that every number is loaded once for all of them

template <class R>
struct FormRoom {
  Vector<R>* inner;  // (K, 1 + n_inner, U): weight, then inner variables
  Vector<R>* joint;  // (K, U)
  Vector<R>* seen;   // (n_seen, U)
  Vector<R>* out;    // (n_out, U)
  Vector<R>* own;    // (n_out, U), low rank
};

/// Computes N inner variables, and adds their squares up; returns where the next numbers are.
template <class R, int U, int N, bool Triangle>
inline const R* inner_block(const R* p, const Vector<R>* x, std::size_t full, Vector<R>* to,
                            Vector<R>* squares) {
  Vector<R> a[N][U];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i)
    for (int u = 0; u < U; ++u) a[i][u] = splat(p[i]);
  p += N;
  for (std::size_t j = 0; j < full; ++j, p += N, x += U)
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const Vector<R> c = splat(p[i]);
      for (int u = 0; u < U; ++u) a[i][u] = plus_product(a[i][u], c, x[u]);
    }
  if (Triangle) {
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j, x += U)
#pragma GCC unroll 4
      for (int i = j; i < N; ++i) {
        const Vector<R> c = splat(*p++);
        for (int u = 0; u < U; ++u) a[i][u] = plus_product(a[i][u], c, x[u]);
      }
  }
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i)
    for (int u = 0; u < U; ++u) {
      to[i * U + u] = a[i][u];
      squares[u] = plus_product(squares[u], a[i][u], a[i][u]);
    }
  return p;
}

template <class R, int U, bool Triangle>
inline const R* inner_some(std::size_t n, const R* p, const Vector<R>* x, std::size_t full,
                           Vector<R>* to, Vector<R>* squares) {
  switch (n) {
    case 1: return inner_block<R, U, 1, Triangle>(p, x, full, to, squares);
    case 2: return inner_block<R, U, 2, Triangle>(p, x, full, to, squares);
    case 3: return inner_block<R, U, 3, Triangle>(p, x, full, to, squares);
    default: return inner_block<R, U, 4, Triangle>(p, x, full, to, squares);
  }
}

/// Fills `room.joint` with log(weight) + log p of each component; returns the largest in `top`.
template <class R, int U, bool Full>
inline void joints(const Form<R>& form, const FormStep<R>& step, const FormRoom<R>& room,
                   Vector<R>* top) {
  using V = Vector<R>;
  const std::size_t n_inner = form.n_inner, n_seen = form.n_seen;
  const V half = splat(R(-0.5));
  for (int u = 0; u < U; ++u) top[u] = splat(static_cast<R>(-__builtin_inf()));
  for (std::size_t k = 0; k < form.n_components; ++k) {
    const R* p = step.inner + k * step.inner_size;
    V *to = room.inner + (k * (1 + n_inner) + 1) * U, *joint = room.joint + k * U, squares[U] = {};
    const V constant = splat(step.constant[k]);
    if (!Full) {
      const R* q = step.joint + k * 2 * n_seen;
      for (std::size_t j = 0; j < n_seen; ++j, q += 2)
        for (int u = 0; u < U; ++u) {
          const V x = room.seen[j * U + u];
          const V slope = plus_product(splat(q[1]), splat(q[0]), x);
          squares[u] = plus_product(squares[u], slope, x);
        }
    }
    V own[U] = {};
    for (std::size_t i = 0; i < n_inner; i += kBlock) {
      const std::size_t n = n_inner - i < kBlock ? n_inner - i : kBlock;
      p = inner_some<R, U, Full>(n, p, room.seen, Full ? i : n_seen, to + i * U, own);
    }
    for (int u = 0; u < U; ++u) {
      joint[u] = plus_product(constant, half, Full ? own[u] : squares[u] - own[u]);
      top[u] = joint[u] > top[u] ? joint[u] : top[u];
    }
  }
}

/// Turns `room.joint` into weights, of the largest one, and multiplies the inner variables by them.
/// Adds the weights up.
template <class R, int U>
inline void weigh(const Form<R>& form, const FormStep<R>& step, const FormRoom<R>& room,
                  const Vector<R>* top, Vector<R>* sum) {
  using V = Vector<R>;
  const V least = splat(Vectors<R>::least);
  V sums[kSums][U] = {};
  for (std::size_t k = 0; k < form.n_components; ++k) {
    V* own = room.inner + k * (1 + form.n_inner) * U;
    for (int u = 0; u < U; ++u) {
      const V below = room.joint[k * U + u] - top[u];
      own[u] = exponential<R>(below > least ? below : least);
      sums[k % kSums][u] += own[u];
    }
    for (std::size_t i = 1; i <= step.n_gains; ++i)
      for (int u = 0; u < U; ++u) own[i * U + u] *= own[u];
  }
  for (int u = 0; u < U; ++u) sum[u] = (sums[0][u] + sums[1][u]) + (sums[2][u] + sums[3][u]);
}

/// Computes N outputs from the components: of the rows from `first` on of their inner variables.
template <class R, int U, int N, bool Triangle>
inline void output_block(const R* numbers, std::size_t size, std::size_t first, std::size_t last,
                         std::size_t n_inner, std::size_t n_components,
                         const FormRoom<R>& room, Vector<R>* out) {
  Vector<R> sums[kSums][N][U];
  for (std::size_t s = 0; s < kSums; ++s) {
    Vector<R> a[N][U] = {};
    for (std::size_t k = s; k < n_components; k += kSums) {
      const R* p = numbers + k * size;
      const Vector<R>* own = room.inner + (k * (1 + n_inner) + first) * U;
      std::size_t i = first;
      if (Triangle) {
#pragma GCC unroll 4
        for (int r = 0; r < N; ++r, own += U)
#pragma GCC unroll 4
          for (int j = 0; j <= r; ++j) {
            const Vector<R> c = splat(*p++);
            for (int u = 0; u < U; ++u) a[j][u] = plus_product(a[j][u], c, own[u]);
          }
        i += N;
      }
      for (; i < last; ++i, own += U, p += N)
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) {
          const Vector<R> c = splat(p[j]);
          for (int u = 0; u < U; ++u) a[j][u] = plus_product(a[j][u], c, own[u]);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j)
      for (int u = 0; u < U; ++u) sums[s][j][u] = a[j][u];
  }
#pragma GCC unroll 4
  for (int j = 0; j < N; ++j)
    for (int u = 0; u < U; ++u)
      out[j * U + u] = (sums[0][j][u] + sums[1][j][u]) + (sums[2][j][u] + sums[3][j][u]);
}

/// Computes `n_out` outputs; `last` is 1 + the number of inner variables that add to them.
template <class R, int U, bool Triangle>
inline void outputs(const R* numbers, std::size_t size, std::size_t n_out, std::size_t last,
                    std::size_t n_inner, std::size_t n_components, const FormRoom<R>& room,
                    Vector<R>* out) {
  for (std::size_t o = 0; o < n_out; o += kBlock) {
    const std::size_t n = n_out - o < kBlock ? n_out - o : kBlock, first = Triangle ? 1 + o : 0;
    Vector<R>* to = out + o * U;
#define LANES_BLOCK(N) \
  output_block<R, U, N, Triangle>(numbers, size, first, last, n_inner, n_components, room, to)
    switch (n) {
      case 1: LANES_BLOCK(1); break;
      case 2: LANES_BLOCK(2); break;
      case 3: LANES_BLOCK(3); break;
      default: LANES_BLOCK(4);
    }
#undef LANES_BLOCK
    numbers += Triangle ? n * (n + 1) / 2 + (last - first - n) * n : last * n;
  }
}

/// Fills `room.out` with what the components say of the points in `room.seen`, not yet a score's
/// end point; their weights are the first of `room.inner`, times `share`.
template <class R, int U>
inline void closed_form(const Form<R>& form, const FormStep<R>& step, const FormRoom<R>& room,
                        Vector<R>* share) {
  using V = Vector<R>;
  const bool full = form.kind == kFull;
  V top[U], sum[U];
  if (full) joints<R, U, true>(form, step, room, top);
  else joints<R, U, false>(form, step, room, top);
  weigh<R, U>(form, step, room, top, sum);
  const std::size_t inner = form.n_inner, last = 1 + step.n_gains, n_out = form.n_out;
  const std::size_t n = form.n_components;
  for (int u = 0; u < U; ++u) share[u] = splat(R(1)) / sum[u];
  if (full && step.by_score)
    outputs<R, U, true>(step.output, step.output_size, n_out, last, inner, n, room, room.out);
  else
    outputs<R, U, false>(step.output, step.output_size, n_out, last, inner, n, room, room.out);
  if (!full) outputs<R, U, false>(step.ratio, n_out, n_out, 1, inner, n, room, room.own);
  for (std::size_t o = 0; o < n_out; ++o)
    for (int u = 0; u < U; ++u) {
      V& out = room.out[o * U + u];
      if (!full)
        out = plus_product(out, room.own[o * U + u], room.seen[o % form.n_points * U + u]);
      out *= share[u];
    }
}

template <class V, class R>
inline V in_all(R x) {
  if constexpr (sizeof(V) == sizeof(R)) return x;
  else return splat(x);
}

/// Fills `out` with what a single component says of what is seen.
template <class V, class R, int U>
inline void linear_form(const Form<R>& form, const R* p, const V* seen, V* out) {
  for (std::size_t o = 0; o < form.n_out; ++o, p += 1 + form.n_seen)
    for (int u = 0; u < U; ++u) {
      V a = in_all<V>(p[0]), b{}, c{}, d{};
      std::size_t j = 0;
      const auto add = [&](V& sum, std::size_t i) {
        sum = plus_product(sum, in_all<V>(p[1 + i]), seen[i * U + u]);
      };
      for (; j + 4 <= form.n_seen; j += 4) add(a, j), add(b, j + 1), add(c, j + 2), add(d, j + 3);
      if (j < form.n_seen) add(a, j++);
      if (j < form.n_seen) add(b, j++);
      if (j < form.n_seen) add(c, j++);
      out[o * U + u] = (a + b) + (c + d);
    }
}

// ---------------------------------------------------------------------------------------------
// Trees

struct TreeRoom {
  std::uint64_t* marks;    // (2^kWidest)
  std::uint8_t* chosen;    // (4, kCompared)
  std::uint8_t* numbers;   // (most_used, kRows), of the thresholds that inputs have passed
  std::uint8_t* known;     // (most_used): whether these are there
  const TreeTable** table; // for which they are
  float* inputs;           // (n_inputs), of one row
  void* row;               // for `add_to_row`
};

#if (LANES_BYTES == 64 && defined(__AVX512BW__)) || (LANES_BYTES == 32 && defined(__AVX2__))
#define LANES_COMPARES 1

#if LANES_BYTES == 64
/// Returns the bits of 64 rows whose number is not below that of a threshold.
inline std::uint64_t compared(const std::uint8_t* x, std::uint8_t cut) {
  return _mm512_cmpge_epu8_mask(_mm512_loadu_si512(x), _mm512_set1_epi8(static_cast<char>(cut)));
}

/// Returns the bits of 64 rows that are not below a threshold; NaN is not if `Unordered`.
template <bool Unordered>
inline std::uint64_t compared(const float* x, float cut) {
  constexpr int how = Unordered ? _CMP_NLT_UQ : _CMP_GE_OQ;
  const __m512 c = _mm512_set1_ps(cut);
  const auto bits = [&](int q) {
    return static_cast<std::uint64_t>(_mm512_cmp_ps_mask(_mm512_loadu_ps(x + 16 * q), c, how))
           << (16 * q);
  };
  return (bits(0) | bits(1)) | (bits(2) | bits(3));
}

/// Returns how many of 16 are not above a value.
inline unsigned below(const float* cuts, float value) {
  return static_cast<unsigned>(__builtin_popcount(
      _mm512_cmp_ps_mask(_mm512_loadu_ps(cuts), _mm512_set1_ps(value), _CMP_LE_OQ)));
}

/// Sets the leaf of each place from the bits of the levels.
template <int D>
inline void put_leaves(const std::uint64_t* levels, std::uint8_t* chosen) {
  __m512i leaf = _mm512_setzero_si512();
  for (int l = 0; l < D; ++l)
    leaf = _mm512_or_si512(
        leaf, _mm512_maskz_set1_epi8(static_cast<__mmask64>(levels[l]), static_cast<char>(1 << l)));
  _mm512_storeu_si512(chosen, leaf);
}
#else
inline std::uint64_t compared(const std::uint8_t* x, std::uint8_t cut) {
  const __m256i c = _mm256_set1_epi8(static_cast<char>(cut));
  const auto half = [&](int q) {
    const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 32 * q));
    return static_cast<std::uint32_t>(
        _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(value, c), value)));
  };
  return half(0) | static_cast<std::uint64_t>(half(1)) << 32;
}

template <bool Unordered>
inline std::uint64_t compared(const float* x, float cut) {
  constexpr int how = Unordered ? _CMP_NLT_UQ : _CMP_GE_OQ;
  const __m256 c = _mm256_set1_ps(cut);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing leaves another
  const auto mask = [&](int q) {
    return _mm256_castps_si256(_mm256_cmp_ps(_mm256_loadu_ps(x + 8 * q), c, how));
  };
  const auto half = [&](int q) {
    const __m256i low = _mm256_packs_epi32(mask(q), mask(q + 1));
    const __m256i high = _mm256_packs_epi32(mask(q + 2), mask(q + 3));
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(
        _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order)));
  };
  return half(0) | static_cast<std::uint64_t>(half(4)) << 32;
}

inline unsigned below(const float* cuts, float value) {
  const __m256 x = _mm256_set1_ps(value);
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(cuts), x, _CMP_LE_OQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(cuts + 8), x, _CMP_LE_OQ));
  return static_cast<unsigned>(__builtin_popcount(static_cast<unsigned>(low | high << 8)));
}

template <int D>
inline void put_leaves(const std::uint64_t* levels, std::uint8_t* chosen) {
  const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,  //
                                          2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201u));
  for (int half = 0; half < 2; ++half) {
    __m256i leaf = _mm256_setzero_si256();
    for (int l = 0; l < D; ++l) {
      const int bits = static_cast<int>(levels[l] >> (32 * half));
      const __m256i own = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), bit);
      leaf = _mm256_or_si256(leaf, _mm256_and_si256(_mm256_cmpeq_epi8(own, bit),
                                                    _mm256_set1_epi8(static_cast<char>(1 << l))));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(chosen + 32 * half), leaf);
  }
}
#endif

/// Finds the leaves from the comparisons of all nodes: node k of level l has number 2^l + k, bit l
/// of a leaf is what is decided there. From the lowest level up each node knows the ones below.
template <int D>
inline void choose(const std::uint64_t* marks, std::uint8_t* chosen) {
  std::uint64_t below[D][1 << (D - 1)];
#pragma GCC unroll 8
  for (int level = D - 1; level >= 0; --level) {
    const std::uint64_t* decided = marks + (1 << level);
#pragma GCC unroll 8
    for (int d = level + 1; d < D; ++d)
      for (int i = 0; i < 1 << level; ++i)
        below[d][i] ^= decided[i] & (below[d][i] ^ below[d][i + (1 << level)]);
    for (int i = 0; i < 1 << level; ++i) below[level][i] = decided[i];
  }
  std::uint64_t levels[D];
#pragma GCC unroll 8
  for (int l = 0; l < D; ++l) levels[l] = below[l][0];
  put_leaves<D>(levels, chosen);
}

/// Finds the numbers of an input for all rows, see `detail::Cuts::number`.
inline void number(const TreeTable& table, std::size_t f, const float* x, std::size_t n,
                   std::uint8_t* numbers) {
  const float* cuts = table.cuts + 16 * table.first[f];
  bool gaps = false;
  for (std::size_t r = 0; r < n; ++r) {
    const unsigned many = below(cuts, x[r]);
    numbers[r] = static_cast<std::uint8_t>(16 * many + below(cuts + 16 * (1 + many), x[r]));
    gaps |= x[r] != x[r];
  }
  if (!gaps || table.missing[f] == 0) return;
  for (std::size_t r = 0; r < n; ++r)
    if (x[r] != x[r]) numbers[r] = 255;
}

/// Finds those that a run looks at and that are not there yet.
inline void number(const TreeRun& run, const float* x, std::size_t stride, std::size_t n,
                   const TreeRoom& room) {
  if (*room.table != run.table) {
    *room.table = run.table;
    for (std::size_t f = 0; f < run.table->n; ++f) room.known[f] = 0;
  }
  for (std::size_t i = 0; i < run.n_used; ++i) {
    const std::size_t f = run.used[i];
    if (room.known[f] == 0)
      number(*run.table, f, x + run.table->input[f] * stride, n, room.numbers + f * kRows);
    room.known[f] = 1;
  }
}

/// Adds leaves of `count` trees to each row, tree by tree; W numbers at a time.
template <int Count, int W>
inline void add_leaves(const float* leaves, std::size_t size, std::size_t width,
                       const std::uint8_t* chosen, std::size_t n, std::size_t across,
                       float* total) {
  for (std::size_t row = 0; row < n; ++row) {
    const float* leaf[Count];
#pragma GCC unroll 4
    for (int q = 0; q < Count; ++q)
      leaf[q] = leaves + (q * size + chosen[q * kCompared + row]) * width;
    add_to_row<Count, W>(leaf, width, total + row * across);
  }
}

template <int W>
inline void add_some(std::size_t count, const float* leaves, std::size_t size, std::size_t width,
                     const std::uint8_t* chosen, std::size_t n, std::size_t across, float* total) {
  switch (count) {
    case 1: return add_leaves<1, W>(leaves, size, width, chosen, n, across, total);
    case 2: return add_leaves<2, W>(leaves, size, width, chosen, n, across, total);
    case 3: return add_leaves<3, W>(leaves, size, width, chosen, n, across, total);
    default: return add_leaves<4, W>(leaves, size, width, chosen, n, across, total);
  }
}

/// Adds the leaves of a run, four trees at a time. All rows use the same four trees before the next
/// ones, whose leaves then are in the cache.
void add_by_comparison(const Trees& trees, const TreeRun& run, const float* x, std::size_t stride,
                       std::size_t n, const TreeRoom& room, float* total) {
  const std::size_t size = std::size_t{1} << run.depth, width = run.padded;
  for (std::size_t t = 0; t < run.n_trees; t += 4) {
    const std::size_t count = run.n_trees - t < 4 ? run.n_trees - t : 4;
    const float* leaves = run.leaves + t * size * width;
    for (std::size_t low = 0; low < n; low += kCompared) {
      for (std::size_t q = 0; q < count; ++q) {
        const std::size_t first = (t + q) * size;
        if (run.table != nullptr) {
          for (std::size_t k = first + 1; k < first + size; ++k)
            room.marks[k - first] =
                compared(room.numbers + run.looked_at[k] * kRows + low, run.cut[k]);
        } else {
          for (std::size_t k = first + 1; k < first + size; ++k) {
            const float* values = x + run.looked_at[k] * stride + low;
            room.marks[k - first] = run.missing[k] != 0 ? compared<true>(values, run.threshold[k])
                                                        : compared<false>(values, run.threshold[k]);
          }
        }
        std::uint8_t* chosen = room.chosen + q * kCompared;
        switch (run.depth) {
          case 2: choose<2>(room.marks, chosen); break;
          case 3: choose<3>(room.marks, chosen); break;
          case 4: choose<4>(room.marks, chosen); break;
          case 5: choose<5>(room.marks, chosen); break;
          case 6: choose<6>(room.marks, chosen); break;
          default: choose<7>(room.marks, chosen);
        }
      }
      float* sums = total + low * trees.across + run.first;
      const std::size_t rows = n - low < kCompared ? n - low : kCompared;
      if (width % 16 == 0)
        add_some<LANES_BYTES / 4>(count, leaves, size, width, room.chosen, rows, trees.across, sums);
      else if (width % 4 == 0)
        add_some<4>(count, leaves, size, width, room.chosen, rows, trees.across, sums);
      else
        add_some<1>(count, leaves, size, width, room.chosen, rows, trees.across, sums);
    }
  }
}
#endif

/// Sets `total` (n, across) to what the forests `begin` to `end` say of the inputs x (p, stride), of
/// which the first `n_new` are others than before.
void add_forests(const Trees& trees, std::size_t begin, std::size_t end, const float* x,
                 std::size_t stride, std::size_t n, std::size_t n_new, const TreeRoom& room,
                 float* total) {
  for (std::size_t f = begin; f < end; ++f) {  // all of them first: leaves are filled up with zeros
    const Forest& forest = trees.forests[f];
    for (std::size_t r = 0; r < n; ++r)
      for (std::size_t o = 0; o < forest.width; ++o)
        total[r * trees.across + forest.first + o] = trees.base[forest.base + o];
  }
  for (std::size_t f = 0; stride > 1 && *room.table != nullptr && f < (*room.table)->n; ++f)
    if ((*room.table)->input[f] < n_new) room.known[f] = 0;
  for (std::size_t i = trees.forests[begin].first_run; i < trees.forests[end].first_run; ++i) {
#ifdef LANES_COMPARES
    const TreeRun& run = trees.runs[i];
    if (run.depth >= 2 && run.depth <= kWidest && n >= kFewest) {
      if (run.table != nullptr) number(run, x, stride, n, room);
      add_by_comparison(trees, run, x, stride, n, room, total);
      continue;
    }
#endif
    for (std::size_t r = 0; r < n; ++r) {
      for (std::size_t j = 0; stride > 1 && j < trees.n_inputs; ++j)
        room.inputs[j] = x[j * stride + r];
      trees.add_to_row(trees.owner, i, stride > 1 ? room.inputs : x, total + r * trees.across,
                       room.row);
    }
  }
}

// ---------------------------------------------------------------------------------------------
// Memory

/// Hands out parts of a room, or finds out how large it has to be.
class Parts {
 public:
  explicit Parts(void* room) : room_(static_cast<char*>(room)) {}

  template <class T>
  void take(T*& part, std::size_t size) {
    part = room_ == nullptr ? nullptr : reinterpret_cast<T*>(room_ + used_);
    used_ += (size * sizeof(T) + 63) / 64 * 64;
  }

  std::size_t used() const { return used_; }

 private:
  char* room_;
  std::size_t used_ = 0;
};

void take(Parts& parts, const Trees& trees, TreeRoom& room) {
  parts.take(room.marks, std::size_t{1} << kWidest);
  parts.take(room.chosen, 4 * kCompared);
  parts.take(room.numbers, trees.most_used * kRows);
  parts.take(room.known, trees.most_used);
  parts.take(room.table, 1);
  parts.take(room.inputs, trees.n_inputs);
}

// ---------------------------------------------------------------------------------------------
// Walk

template <class R>
struct WalkRoom {
  R *x, *cond, *slots;  // (m, kRows), (c, kRows), (n_slots, m, kRows)
  float *inputs, *total;  // (p, kRows), (kRows, across)
  FormRoom<R> form;
  TreeRoom trees;

  WalkRoom(const Solver<R>& solver, const Form<R>& f, const Trees& t, Parts& parts) {
    const std::size_t m = solver.n_points, pair = 2;
    parts.take(x, m * kRows);
    parts.take(cond, solver.n_conditions * kRows);
    parts.take(slots, solver.n_slots * m * kRows);
    parts.take(inputs, (solver.n_inputs + 1) * kRows);
    parts.take(total, kRows * t.across);
    parts.take(form.inner, f.n_components * (1 + f.n_inner) * pair);
    parts.take(form.joint, f.n_components * pair);
    parts.take(form.seen, f.n_seen * pair);
    parts.take(form.out, f.n_out * pair);
    parts.take(form.own, f.n_out * pair);
    take(parts, t, trees);
  }
};

/// Goes to the point of an evaluation: a multiple of the last one plus some velocities.
template <class R>
void move(const Solver<R>& solver, std::size_t e, std::size_t rows, const WalkRoom<R>& room) {
  using V = Vector<R>;
  const V scale = splat(solver.scale[e]);
  const std::size_t m = solver.n_points;
  for (std::size_t j = 0; j < m; ++j)
    for (std::size_t r = 0; r < rows; r += kLanes<R>) {
      R* place = room.x + j * kRows + r;
      V x = at<V>(place) * scale;
      for (std::int64_t q = solver.terms[e]; q < solver.terms[e + 1]; ++q) {
        const R* velocity =
            room.slots + (static_cast<std::size_t>(solver.term[q]) * m + j) * kRows + r;
        x = plus_product(x, splat(solver.weight[q]), at<V>(velocity));
      }
      put(place, x);
    }
}

/// Of U vectors of rows: the closed form's part of the velocity, and what trees see of it.
template <class R, int U>
void closed_part(const Form<R>& form, std::size_t s, std::size_t r,
                 R* velocity, float* ends, float* weights, const WalkRoom<R>& room) {
  using V = Vector<R>;
  constexpr std::size_t lanes = kLanes<R>;
  const FormStep<R>& step = form.steps[s];
  const std::size_t m = form.n_points, last = form.n_out - m;
  V share[U] = {}, *out = room.form.out;
  const auto row = [&](R* rows, std::size_t j, int u) { return rows + j * kRows + r + u * lanes; };
  if (step.ending == nullptr) {
    for (std::size_t j = 0; j < form.n_seen; ++j)
      for (int u = 0; u < U; ++u) {
        const R* from =
            j < m ? row(room.x, j, u)
                  : row(room.cond, static_cast<std::size_t>(form.observed[j - m]), u);
        room.form.seen[j * U + u] = at<V>(from) - splat(step.centre[j]);
      }
    if (step.linear != nullptr) linear_form<V, R, U>(form, step.linear, room.form.seen, out);
    else closed_form<R, U>(form, step, room.form, share);
  }
  const V turn = splat(step.turn[0]), pull = splat(step.turn[1]), scale = splat(step.turn[2]),
          variance = splat(step.turn[3]);
  for (std::size_t o = 0; o < form.n_out; ++o)
    for (int u = 0; u < U; ++u) {
      const V x = at<V>(row(room.x, o % m, u));
      V value = step.ending != nullptr ? splat(step.ending[o]) : out[o * U + u];
      if (step.by_score) value = (x - variance * value) / scale;
      if (o >= last && ends != nullptr)
        put_single(ends + (o - last) * kRows + r + u * lanes, value);
      if (o < m) put(row(velocity, o, u), last > 0 ? value : turn * value + pull * x);
    }
  for (std::size_t k = 0; weights != nullptr && k < form.n_components; ++k)
    for (int u = 0; u < U; ++u)
      put_single(weights + k * kRows + r + u * lanes,
                 step.ending != nullptr ? splat(step.weights[k])
                                        : room.form.inner[k * (1 + form.n_inner) * U + u] * share[u]);
}

/// Fills the inputs of the trees, but for those that the closed form gives.
template <class R>
void fill_inputs(const Solver<R>& solver, std::size_t rows, std::size_t n_given,
                 const WalkRoom<R>& room) {
  using V = Vector<R>;
  constexpr std::size_t lanes = kLanes<R>;
  const std::size_t m = solver.n_points;
  float* to = room.inputs;
  if (solver.latent)
    for (std::size_t j = 0; j < m; ++j, to += kRows)
      for (std::size_t r = 0; r < rows; r += lanes) put_single(to + r, at<V>(room.x + j * kRows + r));
  for (std::size_t q = 0; q < solver.n_columns; ++q, to += kRows)
    for (std::size_t r = 0; r < rows; r += lanes) {
      V value = {};
      for (std::size_t j = 0; j < m; ++j)
        value = plus_product(value, splat(solver.to_columns[q * m + j]),
                             at<V>(room.x + j * kRows + r));
      put_single(to + r, value);
    }
  to += n_given * kRows;
  for (std::size_t j = 0; j < solver.n_conditions; ++j, to += kRows)
    for (std::size_t r = 0; r < rows; r += lanes)
      put_single(to + r, at<V>(room.cond + j * kRows + r));
}

template <class R>
void carry(const Solver<R>& solver, const Form<R>& form, const Trees& trees, std::size_t n,
           const WalkRoom<R>& room) {
  *room.trees.table = nullptr;
  const std::size_t m = solver.n_points, n_new = solver.n_inputs - solver.n_conditions;
  const std::size_t rows = (n + kTogether<R> - 1) / kTogether<R> * kTogether<R>;
  const std::size_t n_ends = solver.end_point ? m : 0;
  const std::size_t n_weights = solver.components ? form.n_components : 0;
  for (std::size_t e = 0; e < solver.n_evaluations; ++e) {
    move(solver, e, rows, room);
    const std::size_t s = static_cast<std::size_t>(solver.step[e]);
    R* velocity = room.slots + static_cast<std::size_t>(solver.slot[e]) * m * kRows;
    fill_inputs(solver, rows, n_ends + n_weights, room);
    if (form.kind != kNone) {
      const bool heard = solver.silent[s] == 0;
      float* given = room.inputs + ((solver.latent ? m : 0) + solver.n_columns) * kRows;
      if (!heard)
        for (std::size_t i = 0; i < (n_ends + n_weights) * kRows; ++i) given[i] = 0.0f;
      float* ends = heard && solver.end_point ? given : nullptr;
      float* weights = heard && solver.components ? given + n_ends * kRows : nullptr;
      for (std::size_t r = 0; r < rows; r += kTogether<R>)
        closed_part<R, 2>(form, s, r, velocity, ends, weights, room);
    }
    add_forests(trees, static_cast<std::size_t>(solver.forests[s]),
                static_cast<std::size_t>(solver.forests[s + 1]), room.inputs, kRows, n, n_new,
                room.trees, room.total);
    for (std::size_t j = 0; j < m; ++j) {
      R* row = velocity + j * kRows;
      for (std::size_t r = 0; r < n; ++r)
        row[r] = (form.kind == kNone ? R(0) : row[r]) +
                 static_cast<R>(room.total[r * trees.across + j]);
    }
  }
  move(solver, solver.n_evaluations, rows, room);
}

template <class R>
std::size_t walk_room(const Solver<R>& solver, const Form<R>& form, const Trees& trees) {
  Parts parts(nullptr);
  WalkRoom<R> room(solver, form, trees, parts);
  return parts.used();  // of a single row it is less
}

template <class R>
void walk(const Solver<R>& solver, const Form<R>& form, const Trees& trees, double* x,
          const double* cond, std::size_t n, void* memory, void* row) {
  Parts parts(memory);
  WalkRoom<R> room(solver, form, trees, parts);
  room.trees.row = row;
  const std::size_t m = solver.n_points, n_cond = solver.n_conditions;
  for (std::size_t low = 0; low < n; low += kRows) {
    const std::size_t rows = n - low < kRows ? n - low : kRows;
    double* points = x + low * m;
    // the last vectors are filled up with the last row
    const std::size_t full = (rows + kTogether<R> - 1) / kTogether<R> * kTogether<R>;
    for (std::size_t r = 0; r < full; ++r) {
      const std::size_t from = r < rows ? r : rows - 1;
      for (std::size_t j = 0; j < m; ++j)
        room.x[j * kRows + r] = static_cast<R>(points[from * m + j]);
      for (std::size_t j = 0; j < n_cond; ++j)
        room.cond[j * kRows + r] = static_cast<R>(cond[(low + from) * n_cond + j]);
    }
    carry(solver, form, trees, rows, room);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t j = 0; j < m; ++j)
        points[r * m + j] = static_cast<double>(room.x[j * kRows + r]);
  }
}

// ---------------------------------------------------------------------------------------------
// A single row: components, outputs and columns are in the lanes. Each number is computed by the
// same operations in the same order as in a vector of rows: sums over components go one by one.

template <class R>
constexpr std::size_t filled_up(std::size_t n) {
  return (n + kLanes<R> - 1) / kLanes<R> * kLanes<R>;
}

template <class R>
struct OneRoom {
  R *x, *slots, *seen, *inner, *joint, *out;
  float *inputs, *total;

  OneRoom(const Solver<R>& solver, const Form<R>& f, const Trees& t, Parts& parts) {
    const std::size_t m = filled_up<R>(solver.n_points);
    parts.take(x, m);
    parts.take(slots, solver.n_slots * m);
    parts.take(seen, f.n_seen);
    parts.take(inner, filled_up<R>(f.n_components) * (1 + f.n_inner));
    parts.take(joint, filled_up<R>(f.n_components));
    parts.take(out, filled_up<R>(f.n_out));
    parts.take(inputs, solver.n_inputs + 2 * kLanes<R>);
    parts.take(total, t.across);
  }
};

/// Fills the inner variables of G groups of components, and log(weight) + log p of each.
template <class R, int G>
inline void joints_of_one(const Form<R>& form, const FormStep<R>& step, std::size_t group,
                          const OneRoom<R>& room, Vector<R>* top) {
  using V = Vector<R>;
  constexpr std::size_t lanes = kLanes<R>;
  const std::size_t n = form.n_inner, size = n * (n + 3) / 2 * lanes, across = (1 + n) * lanes;
  const R* p = step.inner_across + group * size;
  R* own = room.inner + group * across + lanes;
  V squares[G] = {};
  for (std::size_t i = 0; i < n; ++i, own += lanes) {
    V a[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) a[g] = at<V>(p + g * size);
    p += lanes;
    for (std::size_t j = 0; j <= i; ++j, p += lanes) {
      const V x = splat(room.seen[j]);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) a[g] = plus_product(a[g], at<V>(p + g * size), x);
    }
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      put(own + g * across, a[g]);
      squares[g] = plus_product(squares[g], a[g], a[g]);
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    const std::size_t k = (group + g) * lanes;
    const V joint = plus_product(at<V>(step.constant_across + k), splat(R(-0.5)), squares[g]);
    put(room.joint + k, joint);
    *top = joint > *top ? joint : *top;
  }
}

/// Fills `room.inner` with weights, of the largest one, and inner variables times them; returns the
/// sum of the weights.
template <class R>
R weigh_one(const Form<R>& form, const FormStep<R>& step, const OneRoom<R>& room) {
  using V = Vector<R>;
  constexpr std::size_t lanes = kLanes<R>;
  const std::size_t n = form.n_inner, size = form.n_components;
  const std::size_t groups = (size + lanes - 1) / lanes;
  const V least = splat(Vectors<R>::least);
  V top = splat(static_cast<R>(-__builtin_inf()));
  for (std::size_t g = 0, some; g < groups; g += some) {
    const std::size_t left = groups - g;
    some = left == 5 ? 3 : left < 4 ? left : 4;  // a single one has to wait for itself
    switch (some) {
      case 1: joints_of_one<R, 1>(form, step, g, room, &top); break;
      case 2: joints_of_one<R, 2>(form, step, g, room, &top); break;
      case 3: joints_of_one<R, 3>(form, step, g, room, &top); break;
      default: joints_of_one<R, 4>(form, step, g, room, &top);
    }
  }
  for (std::size_t l = 1; l < lanes; ++l) top[0] = top[l] > top[0] ? top[l] : top[0];
  const V largest = splat(top[0]);
  R* own = room.inner;
  for (std::size_t k = 0; k < size; k += lanes, own += (1 + n) * lanes) {
    const V below = at<V>(room.joint + k) - largest;
    const V weight = exponential<R>(below > least ? below : least);
    put(own, weight);
    for (std::size_t i = 1; i <= step.n_gains; ++i)
      put(own + i * lanes, at<V>(own + i * lanes) * weight);
  }
  const auto weight = [&](std::size_t k) {
    return k < size ? room.inner[k / lanes * (1 + n) * lanes + k % lanes] : R(0);
  };
  R a = 0, b = 0, c = 0, d = 0;
  for (std::size_t k = 0; k < size; k += kSums)
    a += weight(k), b += weight(k + 1), c += weight(k + 2), d += weight(k + 3);
  return (a + b) + (c + d);
}

/// Adds `rows` inner variables of each of C components to N vectors of its outputs; `size` numbers
/// lie between two components.
template <class R, int N, int C, int Most>
inline const R* add_rows(const R* p, std::size_t size, const R* const* own, std::size_t from,
                         std::size_t rows, Vector<R> (*a)[Most]) {
  using V = Vector<R>;
  constexpr std::size_t lanes = kLanes<R>;
  for (std::size_t i = from; i < from + rows; ++i, p += N * lanes)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const V factor = splat(own[c][i * lanes]);
#pragma GCC unroll 4
      for (int q = 0; q < N; ++q)
        a[c][q] = plus_product(a[c][q], at<V>(p + c * size + q * lanes), factor);
    }
  return p;
}

/// Adds C components from number k on to N vectors of outputs, each to its own sum. Of a score
/// (`Triangle`) those from `low` on, to which the inner variables from this number on add.
template <class R, int N, int C, bool Triangle>
inline void add_components(const Form<R>& form, const R* p, std::size_t size, std::size_t k,
                           std::size_t low, std::size_t last, const R* inner, Vector<R> (*a)[N]) {
  constexpr std::size_t lanes = kLanes<R>;
  const R* own[C];
  for (std::size_t c = 0; c < C; ++c)
    own[c] = inner + (k + c) / lanes * (1 + form.n_inner) * lanes + (k + c) % lanes;
  std::size_t i = Triangle ? 1 + low : 0;
  if (Triangle) {
    const auto some = [&] { return last - i < lanes ? last - i : lanes; };
    if (N > 1) p = add_rows<R, 1, C, N>(p, size, own, i, some(), a), i += some();
    if (N > 2) p = add_rows<R, 2, C, N>(p, size, own, i, some(), a), i += some();
    if (N > 3) p = add_rows<R, 3, C, N>(p, size, own, i, some(), a), i += some();
  }
  add_rows<R, N, C, N>(p, size, own, i, last - i, a);
}

/// Computes N vectors of outputs; returns where the numbers of the next ones are.
template <class R, int N, bool Triangle>
inline const R* output_pass(const Form<R>& form, const FormStep<R>& step, const R* p,
                            std::size_t low, const OneRoom<R>& room) {
  using V = Vector<R>;
  constexpr std::size_t lanes = kLanes<R>;
  const std::size_t last = 1 + step.n_gains;
  std::size_t size = 0, left = last - (Triangle ? 1 + low : 0);
  for (std::size_t q = 1; Triangle && q < N; ++q) {  // of the first rows only some outputs
    const std::size_t some = left < lanes ? left : lanes;
    size += some * q * lanes, left -= some;
  }
  size += left * N * lanes;
  V a[kSums][N];
#pragma GCC unroll 4
  for (std::size_t c = 0; c < kSums; ++c)
#pragma GCC unroll 4
    for (int q = 0; q < N; ++q) a[c][q] = V{};
  std::size_t k = 0;
  for (; k + kSums <= form.n_components; k += kSums, p += kSums * size)
    add_components<R, N, kSums, Triangle>(form, p, size, k, low, last, room.inner, a);
  for (; k < form.n_components; ++k, p += size)
    add_components<R, N, 1, Triangle>(form, p, size, k, low, last, room.inner, a + k % kSums);
#pragma GCC unroll 4
  for (int q = 0; q < N; ++q)
    put(room.out + low + q * lanes, (a[0][q] + a[1][q]) + (a[2][q] + a[3][q]));
  return p;
}

template <class R, bool Triangle>
void outputs_of_one(const Form<R>& form, const FormStep<R>& step, const OneRoom<R>& room) {
  constexpr std::size_t lanes = kLanes<R>;
  const R* p = step.output_across;
  for (std::size_t low = 0; low < form.n_out; low += kPass * lanes)
    switch ((form.n_out - low + lanes - 1) / lanes) {
      case 1: p = output_pass<R, 1, Triangle>(form, step, p, low, room); break;
      case 2: p = output_pass<R, 2, Triangle>(form, step, p, low, room); break;
      case 3: p = output_pass<R, 3, Triangle>(form, step, p, low, room); break;
      default: p = output_pass<R, 4, Triangle>(form, step, p, low, room);
    }
}

/// The closed form's part of the velocity of one row, and what trees see of it.
template <class R>
void closed_part_of_one(const Form<R>& form, std::size_t s, const double* cond, R* velocity,
                        float* ends, float* weights, const OneRoom<R>& room) {
  constexpr std::size_t lanes = kLanes<R>;
  const FormStep<R>& step = form.steps[s];
  const std::size_t m = form.n_points, last = form.n_out - m;
  R share = 0;
  if (step.ending == nullptr) {
    for (std::size_t j = 0; j < form.n_seen; ++j)
      room.seen[j] =
          (j < m ? room.x[j] : static_cast<R>(cond[static_cast<std::size_t>(form.observed[j - m])])) -
          step.centre[j];
    share = step.linear != nullptr ? R(1) : R(1) / weigh_one(form, step, room);
    if (step.linear != nullptr) linear_form<R, R, 1>(form, step.linear, room.seen, room.out);
    else if (step.by_score) outputs_of_one<R, true>(form, step, room);
    else outputs_of_one<R, false>(form, step, room);
  }
  const R turn = step.turn[0], pull = step.turn[1], scale = step.turn[2], variance = step.turn[3];
  for (std::size_t o = 0; o < form.n_out; ++o) {
    const R x = room.x[o % m];
    R value = step.ending != nullptr ? step.ending[o] : room.out[o] * share;
    if (step.by_score) value = (x - variance * value) / scale;
    if (o >= last && ends != nullptr) ends[o - last] = static_cast<float>(value);
    if (o < m) velocity[o] = last > 0 ? value : turn * value + pull * x;
  }
  for (std::size_t k = 0; weights != nullptr && k < form.n_components; ++k)
    weights[k] = static_cast<float>(
        step.ending != nullptr
            ? step.weights[k]
            : room.inner[k / lanes * (1 + form.n_inner) * lanes + k % lanes] * share);
}

/// Goes to the point of an evaluation, as `move`.
template <class R>
void move_one(const Solver<R>& solver, std::size_t e, const OneRoom<R>& room) {
  using V = Vector<R>;
  const std::size_t m = filled_up<R>(solver.n_points);
  const V scale = splat(solver.scale[e]);
  for (std::size_t j = 0; j < m; j += kLanes<R>) {
    V x = at<V>(room.x + j) * scale;
    for (std::int64_t q = solver.terms[e]; q < solver.terms[e + 1]; ++q)
      x = plus_product(x, splat(solver.weight[q]),
                       at<V>(room.slots + static_cast<std::size_t>(solver.term[q]) * m + j));
    put(room.x + j, x);
  }
}

template <class R>
bool one(const Solver<R>& solver, const Form<R>& form, const Trees& trees, double* x,
         const double* cond, void* memory, void* row) {
  using V = Vector<R>;
  Parts parts(memory);
  const OneRoom<R> room(solver, form, trees, parts);
  TreeRoom alone{};
  alone.row = row;
  const std::size_t m = solver.n_points, across = filled_up<R>(solver.n_columns);
  const std::size_t n_ends = solver.end_point ? m : 0;
  const std::size_t n_weights = solver.components ? form.n_components : 0;
  for (std::size_t j = 0; j < m; ++j) room.x[j] = static_cast<R>(x[j]);
  for (std::size_t e = 0; e < solver.n_evaluations; ++e) {
    move_one(solver, e, room);
    const std::size_t s = static_cast<std::size_t>(solver.step[e]);
    R* velocity = room.slots + static_cast<std::size_t>(solver.slot[e]) * filled_up<R>(m);
    float* to = room.inputs;
    for (std::size_t j = 0; solver.latent && j < m; ++j) *to++ = static_cast<float>(room.x[j]);
    for (std::size_t q = 0; q < across; q += kLanes<R>) {
      V value = {};
      for (std::size_t j = 0; j < m; ++j)
        value = plus_product(value, at<V>(solver.columns_across + j * across + q), splat(room.x[j]));
      put_single(to + q, value);  // what is filled up is written over
    }
    to += solver.n_columns;
    if (form.kind != kNone) {
      const bool heard = solver.silent[s] == 0;
      for (std::size_t i = 0; !heard && i < n_ends + n_weights; ++i) to[i] = 0.0f;
      closed_part_of_one(form, s, cond, velocity, heard && solver.end_point ? to : nullptr,
                         heard && solver.components ? to + n_ends : nullptr, room);
    }
    to += n_ends + n_weights;
    for (std::size_t j = 0; j < solver.n_conditions; ++j)
      *to++ = static_cast<float>(static_cast<R>(cond[j]));
    add_forests(trees, static_cast<std::size_t>(solver.forests[s]),
                static_cast<std::size_t>(solver.forests[s + 1]), room.inputs, 1, 1, 0,
                alone, room.total);
    for (std::size_t j = 0; j < m; ++j)
      velocity[j] = (form.kind == kNone ? R(0) : velocity[j]) + static_cast<R>(room.total[j]);
  }
  move_one(solver, solver.n_evaluations, room);
  for (std::size_t j = 0; j < m; ++j)
    if (room.x[j] - room.x[j] != R(0)) return false;
  for (std::size_t j = 0; j < m; ++j) x[j] = static_cast<double>(room.x[j]);
  return true;
}

// ---------------------------------------------------------------------------------------------
// Trees alone

struct SumRoom {
  float *inputs, *total;
  TreeRoom trees;

  SumRoom(std::size_t n_inputs, const Trees& t, Parts& parts) {
    parts.take(inputs, (n_inputs + 1) * kRows);
    parts.take(total, kRows * t.across);
    take(parts, t, trees);
  }
};

std::size_t sum_room(std::size_t n_inputs, const Trees& trees) {
  Parts parts(nullptr);
  SumRoom room(n_inputs, trees, parts);
  return parts.used();
}

void sum(const Trees& trees, std::size_t begin, std::size_t end, const float* inputs,
         std::size_t n_inputs, std::size_t n, float* result, std::size_t n_outputs, void* memory,
         void* row) {
  Parts parts(memory);
  SumRoom room(n_inputs, trees, parts);
  room.trees.row = row;
  for (std::size_t low = 0; low < n; low += kRows) {
    const std::size_t rows = n - low < kRows ? n - low : kRows;
    *room.trees.table = nullptr;
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t i = 0; i < n_inputs; ++i)
        room.inputs[i * kRows + r] = inputs[(low + r) * n_inputs + i];
    add_forests(trees, begin, end, room.inputs, kRows, rows, 0, room.trees, room.total);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t o = 0; o < n_outputs; ++o)
        result[(low + r) * n_outputs + o] = room.total[r * trees.across + o];
  }
}

}  // namespace

extern const Kernels LANES_NAME;
const Kernels LANES_NAME = {LANES_TEXT(LANES_NAME),
                            {kLanes<double>, walk_room<double>, walk<double>, one<double>},
                            {kLanes<float>, walk_room<float>, walk<float>, one<float>},
                            sum_room,
                            sum};

}  // namespace lanes
}  // namespace flowbdt
