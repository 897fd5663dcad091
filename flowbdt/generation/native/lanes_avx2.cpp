// Flags: -ffp-contract=off -mavx2 -mfma
#if defined(__x86_64__)
#define LANES_NAME avx2
#define LANES_BYTES 32
#include "lanes_kernels.hpp"
#endif
