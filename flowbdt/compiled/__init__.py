"""Generation as machine code: trees, closed form and solver in one pass, by way of numba.

`layout` says how a trained flow lies in flat arrays, `kernels` has the loops over them, `engine`
brings both together; `columns` takes latent points back to a table. Nothing here is needed for
generation: without numba, or where a run has something that is not known here, `engine` says so
and XGBoost is asked instead.
"""

from __future__ import annotations
