// Kernels for processors with AVX2 and fused products.
#if defined(__GNUC__) && defined(__x86_64__)
#define LANES_NAME avx2
#define LANES_BYTES 32
#include "lanes_kernels.hpp"
#endif
