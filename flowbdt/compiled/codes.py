"""Numbers that stand for operations in `arrays.Way`."""

from __future__ import annotations

SCALED, RANK, CATEGORICAL, INTEGER, CONSTANT, CIRCULAR = range(6)
"""What is done to a latent value; an angle comes from two."""

COLUMN, NUMBER, ADD, SUBTRACT, MULTIPLY, DIVIDE, POWER, NEGATE = range(8)
LOG, EXP, SQRT, ABS, MINIMUM, MAXIMUM = range(8, 14)
"""What a relation does, on a stack."""

VALUES, UNARY = (COLUMN, NUMBER), (NEGATE, LOG, EXP, SQRT, ABS)
"""What puts a number on the stack, and what replaces the last one; the others take two."""

AS_IS, SINGLE, TRUTH, WHOLE = range(4)
"""How a column is stored."""
