"""Generation as machine code: trees, closed form and solver in one pass, by numba.

Optional: without numba, or where a run has something that is not compiled, `engine` falls back on
XGBoost and numpy.
"""
