// Flags: -ffp-contract=off -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
#if defined(__x86_64__)
#define LANES_NAME avx512
#define LANES_BYTES 64
#include "lanes_kernels.hpp"
#endif
