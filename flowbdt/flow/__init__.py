"""The method: paths from noise to data, velocity fields, solvers, and what is known in closed form."""
