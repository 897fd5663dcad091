"""The core in C++: trees, closed form, solver and columns in one pass, for Python and for exports.

Optional: where it was not built, or a run has something that it does not know, `engine` falls back
on XGBoost and numpy.
"""
