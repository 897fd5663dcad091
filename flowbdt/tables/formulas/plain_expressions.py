"""Expressions of numbers alone: functions of particles written out in columns, texts as codes.

What reads them knows columns, numbers, arithmetic, comparisons, and few functions of numbers. The
formulas are those of `particles`; ``signed_root(x)`` is the root of abs(x) with the sign of x.
"""

from __future__ import annotations

import ast
import copy
import functools
from collections.abc import Mapping

from .expressions import KINEMATIC, Expression, code_of, is_of_angles, label_of
from .particles import Particle

POLAR = {
    "px": "pt * cos(phi)",
    "py": "pt * sin(phi)",
    "pz": "pt * sinh(eta)",
    "size": "pt * cosh(eta)",
}
CARTESIAN = {"px": "px", "py": "py", "pz": "pz", "size": "hypot(hypot(px, py), pz)"}

MASS = "signed_root(energy ** 2 - (px ** 2 + py ** 2 + pz ** 2))"
TRANSVERSE = f"hypot(hypot(px, py), maximum({MASS}, 0))"
OF_ONE = {
    "arcsin": "arctan2(x, sqrt((1 - x) * (1 + x)))",
    "arccos": "arctan2(sqrt((1 - x) * (1 + x)), x)",
    "arctan": "arctan2(x, 1)",
}
OF_SUM = {
    "mass": MASS,
    "pt": "hypot(px, py)",
    "eta": "arcsinh(pz / hypot(px, py))",
    "phi": "arctan2(py, px)",
    # 0 of a vanishing momentum
    "rapidity": f"arcsinh(pz / maximum({TRANSVERSE}, 1e-290)) * minimum({TRANSVERSE} * 1e290, 1)",
    **{name: name for name in ("energy", "px", "py", "pz")},
}
OF_PAIR = {
    "deltaeta": "first_eta - second_eta",
    "deltaphi": "deltaphi(first_phi, second_phi)",
    "deltaR": "hypot(first_eta - second_eta, deltaphi(first_phi, second_phi))",
}

Parts = Mapping[str, ast.expr]


def plain(expression: Expression) -> ast.expr:
    """Return the tree of an expression with numbers alone, which is nowhere kept."""
    return _Plain(expression).visit(copy.deepcopy(expression.tree))  # type: ignore[no-any-return]


class _Plain(ast.NodeTransformer):
    def __init__(self, expression: Expression) -> None:
        self.particles, self.texts = expression.particles, expression.categories

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        label = label_of(node)
        if label is None or label[0] not in self.texts:
            return self.generic_visit(node)  # type: ignore[return-value]
        code = ast.Constant(code_of(*label, self.texts[label[0]], ""))
        return ast.Compare(ast.Name(label[0]), node.ops, [code])

    def visit_Call(self, node: ast.Call) -> ast.expr:
        name = ast.unparse(node.func)
        if name in OF_ONE:
            return _entered(OF_ONE[name], {"x": self.visit(node.args[0])})
        if name not in KINEMATIC or is_of_angles(node, self.particles):
            return self.generic_visit(node)  # type: ignore[return-value]
        momenta = [self._momentum(one) for one in node.args]
        if name in OF_SUM:
            return _entered(OF_SUM[name], functools.reduce(_sum, momenta))
        parts = {
            f"{which}_{key}": _entered(OF_SUM[key], momentum)
            for which, momentum in zip(("first", "second"), momenta, strict=True)
            for key in ("eta", "phi")
        }
        return _entered(OF_PAIR[name], parts)

    def _momentum(self, node: ast.expr) -> Parts:
        """Return energy, px, py and pz of a particle, or of a sum or difference of some."""
        if isinstance(node, ast.BinOp):
            return _sum(self._momentum(node.left), self._momentum(node.right), node.op)
        assert isinstance(node, ast.Name)
        return _components(self.particles[node.id])


def _sum(a: Parts, b: Parts, op: ast.operator = ast.Add()) -> Parts:  # noqa: B008 (no state)
    return {key: ast.BinOp(a[key], op, b[key]) for key in a}


def _components(one: Particle) -> Parts:
    known = {
        key: ast.Name(value) if isinstance(value, str) else ast.Constant(value)
        for key, value in one.components.items()
    }
    texts = POLAR if "pt" in known else CARTESIAN
    parts = {key: _entered(text, known) for key, text in texts.items()}
    size = parts.pop("size")
    energy = known.get("e") or _entered("hypot(size, mass)", {**known, "size": size})
    return {"energy": energy, **parts}


def _entered(text: str, parts: Parts) -> ast.expr:
    """Return a formula with these parts in place of their names."""

    class Entered(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return parts.get(node.id, node)

    return Entered().visit(ast.parse(text, mode="eval").body)  # type: ignore[no-any-return]
