"""The method: paths from noise to data, velocity fields, solvers, what is known in closed form."""
