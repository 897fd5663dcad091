"""Showers in 368 and more voxels, judged by the official metrics."""
