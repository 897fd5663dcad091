"""The method: paths from noise to data, velocity fields, solvers, what is known in closed form."""

from . import curved_paths as curved_paths  # enters its paths in PATHS
