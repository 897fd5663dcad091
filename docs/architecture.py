"""Draw the packages of flowBDT and who imports whom, from the imports that the tests check.

    python docs/architecture.py

writes ``docs/architecture.svg``. An arrow that follows from others is left out: where A imports B
and B imports C, A may import C as well.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
WIDTH, BOX, HEIGHT, GAP = 760, 228, 74, 46

Arrows = dict[str, set[str]]


def packages() -> Arrows:
    """Return which packages each one imports, in the order of the layers."""
    sys.path.insert(0, str(DOCS.parent / "tests"))
    from test_layers import ARROWS, PACKAGES, WHEN_CALLED

    found: Arrows = {name: set() for name in PACKAGES}
    for file, others in ARROWS.items():
        home = file.split(".")[1:2]
        if home and home[0] in found:
            used = {other.split(".")[1] for other in others if "." in other} & set(PACKAGES)
            found[home[0]] |= used - {home[0]}
    return {name: {o for o in used if (name, o) not in WHEN_CALLED} for name, used in found.items()}


def direct(arrows: Arrows) -> Arrows:
    """Leave out the arrows that others imply."""
    below: Arrows = {}
    for name, used in arrows.items():  # from the bottom, so that all below is known
        below[name] = used.union(*(below[other] for other in used))
    return {
        name: {one for one in used if not any(one in below[other] for other in used)}
        for name, used in arrows.items()
    }


def rows(arrows: Arrows) -> list[list[str]]:
    """Return the packages from the top to the bottom, those of one height in a row."""
    height: dict[str, int] = {}
    for name, used in arrows.items():
        height[name] = 1 + max((height[other] for other in used), default=0)
    levels = range(max(height.values()), 0, -1)
    return [[name for name in arrows if height[name] == level] for level in levels]


def purpose(name: str) -> str:
    """Return the first sentence of a package's docstring."""
    home = DOCS.parent / "flowbdt" / name
    file = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return doc.splitlines()[0].rstrip(".").replace("`", "")


def drawing() -> str:
    """Return the picture as SVG."""
    arrows = direct(packages())
    places = {
        name: ((i + 1) * WIDTH / (len(row) + 1), j * (HEIGHT + GAP))
        for j, row in enumerate(rows(arrows))
        for i, name in enumerate(row)
    }
    bottom = max(y for _, y in places.values()) + HEIGHT + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -4 {WIDTH} {bottom:.0f}"'
        ' font-family="sans-serif" font-size="12">',
        '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#546e7a"/></marker>',
    ]
    for name, used in arrows.items():
        for other in sorted(used):
            (x, y), (to, end) = places[name], places[other]
            bend = (y + HEIGHT + end) / 2
            parts.append(
                f'<path d="M{x:.0f} {y + HEIGHT} C{x:.0f} {bend:.0f} {to:.0f} {bend:.0f}'
                f' {to:.0f} {end}" fill="none" stroke="#546e7a" marker-end="url(#tip)"/>'
            )
    for name, (x, y) in places.items():
        left = x - BOX / 2
        parts.append(
            f'<rect x="{left:.0f}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="6"'
            ' fill="#eceff1" stroke="#546e7a"/>'
            f'<text x="{left + 10:.0f}" y="{y + 18}" font-weight="bold">{name}</text>'
        )
        for k, line in enumerate(textwrap.wrap(purpose(name), 33)[:3]):
            shown = f'<text x="{left + 10:.0f}" y="{y + 36 + 15 * k}">{escape(line)}</text>'
            parts.append(shown)
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    (DOCS / "architecture.svg").write_text(drawing(), encoding="utf-8")
