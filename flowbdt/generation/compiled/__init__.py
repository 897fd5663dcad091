"""Generation as machine code: trees, closed form and solver in one pass, by way of numba.

`arrays` says how a trained flow lies in flat arrays, `layout` and `inverse` fill them and `checked`
checks them; `kernels` has the loops over them, `columns` those from latent points back to a table,
and `engine` brings all together. Nothing here is needed for
generation: without numba, or where a run has something that is not known here, `engine` says so
and XGBoost is asked instead.
"""

from __future__ import annotations
