"""Histograms for `hist`: sums of weights and variances, edges, categories, gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flowbdt.errors import InputError
from flowbdt.evaluation.hist_objects import to_hist
from flowbdt.tables.event_table import EventTable

pytest.importorskip("hist", reason="hist is not installed (extra 'root')")


def sample(n, seed, weighted):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "mass": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "n": rng.integers(0, 5, n),
            "kind": rng.choice(["b", "light"][: 1 + weighted], n),
        }
    )
    weight = rng.random(n) if weighted else None
    return EventTable.of(frame, weight=weight, units={"mass": "GeV"}, missing=True)


def test_histograms_hold_sums_of_weights_and_of_their_squares():
    real, new = sample(300, 1, True), sample(200, 2, False)
    found = to_hist({"real": real, "generated": new}, edges={"mass": [-1.0, 0.0, 1.0]})
    assert [axis.name for axis in found["mass"].axes] == ["dataset", "mass"]
    assert found["mass"].axes[1].label == "mass [GeV]"
    for name, table in (("real", real), ("generated", new)):
        weight = np.ones(table.n) if table.weight is None else table.weight
        mass, n = table.column("mass"), table.column("n")
        chosen = found["n"][{"dataset": name}]
        np.testing.assert_array_equal(chosen.axes[0].edges.round(9), np.arange(-0.5, 5.0))
        for power, values in ((1, chosen.values()), (2, chosen.variances())):
            expected = [(weight[n == i] ** power).sum() for i in range(5)]
            np.testing.assert_allclose(values, expected)
        counts, _ = np.histogram(mass[~np.isnan(mass)], [-1, 0, 1], weights=weight[~np.isnan(mass)])
        chosen = found["mass"][{"dataset": name}]
        np.testing.assert_allclose(chosen.values(), counts)
        total = chosen.sum(flow=True).value
        np.testing.assert_allclose(total, weight[~np.isnan(mass)].sum())
        kinds = found["kind"][{"dataset": name, "kind": "b"}].value
        np.testing.assert_allclose(kinds, weight[table.typed("kind") == "b"].sum())


def test_the_largest_value_is_in_the_last_bin():
    (histogram,) = to_hist({"a": {"x": np.minimum(np.linspace(0, 2, 400), 1.0)}}).values()
    assert histogram.sum().value == 400


def test_what_cannot_be_filled_is_named():
    real = sample(50, 1, False)
    for wrong, text in (
        ({"samples": {}}, "at least one sample"),
        ({"columns": ["mas"]}, "Did you mean 'mass'"),
        ({"edges": {"mass": [1.0, 0.0]}}, "edges of 'mass' must be increasing"),
        ({"edges": {"kind": [0.0, 1.0]}}, "'kind' has categories"),
        ({"samples": {"a": real, "b": real.select(["n"])}}, "the sample 'b'"),
    ):
        with pytest.raises(InputError, match=text):
            to_hist(**{"samples": {"a": real}, **wrong})
