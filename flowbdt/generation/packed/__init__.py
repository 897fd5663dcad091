"""The arrays of a trained flow that the core reads, and the one file that holds them."""
