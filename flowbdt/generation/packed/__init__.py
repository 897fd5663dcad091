"""The arrays of a trained flow that compiled generation reads, checked and in model files."""
