"""Numbers that stand for operations in the arrays of `inverse`."""

from __future__ import annotations

SCALED, RANK, CATEGORICAL, INTEGER, CONSTANT = range(5)
"""What is done to a latent value."""

COLUMN, NUMBER, ADD, SUBTRACT, MULTIPLY, DIVIDE, POWER, NEGATE = range(8)
LOG, EXP, SQRT, ABS, MINIMUM, MAXIMUM = range(8, 14)
"""What a relation does, on a stack."""

AS_IS, SINGLE, TRUTH, WHOLE = range(4)
"""How a column is stored."""
