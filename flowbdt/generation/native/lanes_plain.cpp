// Flags: -ffp-contract=off 
#define LANES_NAME plain
#define LANES_BYTES 16
#include "lanes_kernels.hpp"
