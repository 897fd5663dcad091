// Which kernels this processor runs.

#include "lanes.hpp"

namespace flowbdt {
namespace lanes {

#if defined(__GNUC__)
extern const Kernels plain;
#endif
#if defined(__GNUC__) && defined(__x86_64__)
extern const Kernels avx2, avx512;
#endif

namespace {

bool same(const char* a, const char* b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

[[maybe_unused]] bool wanted(const char* name, const Kernels& kernels) {
  return name == nullptr || same(name, kernels.name);
}

}  // namespace

const Kernels* kernels(const char* name) {
#if defined(__GNUC__) && defined(__x86_64__)
  const bool fused = __builtin_cpu_supports("fma");
  if (wanted(name, avx512) && fused && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return &avx512;
  if (wanted(name, avx2) && fused && __builtin_cpu_supports("avx2")) return &avx2;
#endif
#if defined(__GNUC__)
  if (wanted(name, plain)) return &plain;
#endif
  return nullptr;
}

}  // namespace lanes
}  // namespace flowbdt
