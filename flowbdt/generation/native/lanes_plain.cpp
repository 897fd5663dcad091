// Kernels for any processor: vectors of 16 bytes, as those of SSE2 and NEON.
#if defined(__GNUC__)
#define LANES_NAME plain
#define LANES_BYTES 16
#include "lanes_kernels.hpp"
#endif
