// Kernels for processors with AVX-512.
#if defined(__GNUC__) && defined(__x86_64__)
#define LANES_NAME avx512
#define LANES_BYTES 64
#include "lanes_kernels.hpp"
#endif
