// Which kernels this processor runs.

#include "lanes.hpp"

namespace flowbdt {
namespace lanes {

extern const Kernels plain;
#if defined(__x86_64__)
extern const Kernels avx2, avx512;
#endif

namespace {

bool same(const char* a, const char* b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

bool wanted(const char* name, const Kernels& kernels) {
  return name == nullptr || same(name, kernels.name);
}

}  // namespace

const Kernels* kernels(const char* name) {
#if defined(__x86_64__)
  const bool fused = __builtin_cpu_supports("fma");
  if (wanted(name, avx512) && fused && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return &avx512;
  if (wanted(name, avx2) && fused && __builtin_cpu_supports("avx2")) return &avx2;
#endif
  return wanted(name, plain) ? &plain : nullptr;
}

}  // namespace lanes
}  // namespace flowbdt
