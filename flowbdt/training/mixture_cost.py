"""Expected CPU time and memory of the closed form: its fit, and its velocity at a point.

Counts of operations follow from the sizes and the algorithm. How many iterations and components it
takes, the data decide, so that there are two times: the one to expect and the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..flow.closed_form import expectation_maximisation as em
from ..flow.closed_form.mixture import GaussianPreconditioner, MixturePreconditioner
from ..registry import spec_name

MIB = 2**20

NANOSECONDS = {
    "pairs": 0.33,  # of two products of two variables, per row and component
    "near": 0.19,  # an element of a matrix times a vector, per row and component
    "velocity": 0.11,  # the same where the closed form is evaluated
    "exponents": 7.0,  # a column where it is evaluated, per row and component
    "core": 0.12,  # a cell of a component's matrix where the core evaluates it
}
"""CPU time of one unit of work, on the same core as `expected_cost.NANOSECONDS`."""

USUAL_ITERATIONS = 30
SEARCHED_ITERATIONS = 22
"""On jets and tables of mixed normal numbers the final fit takes so many iterations; so many after
a search, which starts it well and tries two numbers of components."""

MOMENT_COPIES = 10
"""Arrays of the sums (K, p + 1, p + 1) that a maximisation has at once."""


def n_inputs(plan: Mapping[str, Any]) -> int:
    """Return the number of latent columns and conditions."""
    return int(plan["n_latent"]) + len(plan["fingerprint"]["columns"]["conditions"])


@dataclass(frozen=True)
class MixtureCost:
    """Sizes of a closed form: rows that it is fitted to, variables and components."""

    rows: int
    p: int
    components: int | None  # None: searched
    covariance: str
    rank: int

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> MixtureCost | None:
        spec = plan["fingerprint"]["settings"]["preconditioner"] or "none"
        given = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
        kinds: dict[str, type[MixturePreconditioner]] = {
            "mixture": MixturePreconditioner,
            "gaussian": GaussianPreconditioner,
        }
        kind = kinds.get(spec_name(spec))
        if kind is None or not plan["n_latent"]:
            return None
        wanted = 1 if kind is GaussianPreconditioner else given.get("n_components", "auto")
        covariance = given.get("covariance", "auto")
        if covariance == "auto":
            covariance = "full" if plan["n_latent"] <= kind.most_full else "low_rank"
        rows, p = min(plan["n_train"], int(given.get("max_rows", kind.max_rows))), n_inputs(plan)
        fits = None if wanted == "auto" else min(wanted, max(rows // (2 * (p + 2)), 1))
        return cls(rows, p, fits, covariance, int(given.get("rank", kind.rank)))

    def seconds(self, rows: int, components: int, n: int) -> float:
        """Return the time of ``n`` iterations."""
        if self.covariance == "full" and self.p <= em.WIDE:
            name, cells = "pairs", (self.p + 1) * (self.p + 2) / 2
        elif self.covariance == "full":
            name, cells = "near", self.p**2
        else:
            name, cells = "near", self.p * (self.rank + 3) + 2 * self.p**2 / max(components, 1)
        products = float(n * rows * components * cells)
        if self.covariance != "full":  # the factors are improved from the scatter matrices
            products += n * components * self.p**2 * self.rank * 5
        return NANOSECONDS[name] * products * 1e-9

    def started(self, rows: int, components: int, n: int) -> float:
        """Return the time of `expectation_maximisation.fit_mixture`."""
        few = min(rows, max(em.START_ROWS, 50 * components))
        return self.seconds(
            few, components, em.N_STARTS * (em.START_ITERATIONS + 3)
        ) + self.seconds(rows, components, n)

    def fit(self) -> tuple[float, float, float]:
        """Return the CPU seconds to expect and at most, and the peak memory in MiB."""
        most = MixturePreconditioner.max_iter
        if self.components is not None:
            iterations = 2 if self.components == 1 else USUAL_ITERATIONS
            times = [self.started(self.rows, self.components, n) for n in (iterations, most)]
            return times[0], times[1], self._mib(self.components)
        train = round((1 - em.HELD_OUT) * min(self.rows, em.SEARCH_ROWS))
        largest = max(min(em.MOST, train // (self.p + 2)), 1)
        enough = min(em.ENOUGH, self.rows // em.ROWS_FOR_EACH, self.rows // (2 * (self.p + 2)))
        enough = min(max(enough, 2), largest)
        tried = [enough * 2**i for i in range(8) if enough * 2**i <= largest] or [1]
        each = [self.started(train, k, em.SEARCH_ITERATIONS) for k in tried]
        usual = sum(each[:2]) + self.seconds(self.rows, tried[0], SEARCHED_ITERATIONS)
        return usual, sum(each) + self.seconds(self.rows, tried[-1], most), self._mib(tried[-1])

    def velocity(self, m: int) -> float:
        """Return the time of one evaluation at one point of m latent columns, by numpy."""
        one = 3 * self._inner(m) * NANOSECONDS["velocity"] + NANOSECONDS["exponents"]
        return 1e-9 * (self.components or em.ENOUGH) * m * one

    def core_velocity(self, m: int) -> float:
        """Return the same time in the core."""
        cells = (self.components or em.ENOUGH) * m * self._inner(m)
        return 1e-9 * NANOSECONDS["core"] * cells

    def _inner(self, m: int) -> int:
        return m if self.covariance == "full" else self.rank

    def _mib(self, components: int) -> float:
        """Return the peak memory of a fit."""
        moments = MOMENT_COPIES * components * (self.p + 1) ** 2
        joint = self.rows * (4 * self.p + components) + 4 * em.WIDE_ROWS * components
        return 8 * (moments + joint) / MIB
