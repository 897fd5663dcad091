"""The network that comes with the package, and networks of tables as files."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")

from flowbdt import EventTable, TableTransform  # noqa: E402
from flowbdt.errors import FormatError  # noqa: E402
from flowbdt.evaluation.metrics import classifier_auc  # noqa: E402
from flowbdt.networks import TableNetwork, load_network, pretrained_network  # noqa: E402
from flowbdt.networks.backbones import TableMLP  # noqa: E402
from flowbdt.networks.denoiser import Denoiser  # noqa: E402
from flowbdt.physics import bundled  # noqa: E402
from flowbdt.trees.boosted_trees import make_classifier  # noqa: E402

N = 3000


@pytest.fixture(scope="module")
def jets() -> EventTable:
    return pretrained_network().sample(N, random_state=1)


def small() -> TableNetwork:
    rng = np.random.default_rng(0)
    table = EventTable.of(rng.normal(size=(300, 2)), ["a", "b"], units={"a": "GeV"})
    torch.manual_seed(1)
    backbone = TableMLP(2, width=8, n_layers=2)
    torch.nn.init.normal_(backbone.last.weight, std=0.1)
    transform = TableTransform("auto").fit(table)
    return TableNetwork(Denoiser(backbone).eval(), transform, table.names, table.units)


def test_the_network_of_the_package_is_small():
    path = resources.files("flowbdt.physics") / "data" / "top_jets_network.npz"
    assert len(path.read_bytes()) < 1_000_000


def test_its_jets_have_the_columns_and_relations_of_real_ones(jets):
    real = bundled().load("test")
    assert (jets.names, jets.units) == (real.names, real.units)
    np.testing.assert_allclose(
        jets.column("tau21"), jets.column("tau2") / jets.column("tau1"), rtol=1e-6
    )


def test_a_classifier_hardly_tells_its_jets_from_test_jets(jets):
    """An AUC above 0.60 would be that of a network that was not trained."""
    real = bundled().load("test").x[:N]
    auc = classifier_auc(real, jets.x, make_classifier, n_model_seeds=1, n_split_seeds=2)
    assert auc.value < 0.56 + 5 * auc.error
    noise = pretrained_network().transform.inverse(np.random.default_rng(1).normal(size=(N, 9)))
    start = classifier_auc(real, noise, make_classifier, n_model_seeds=1, n_split_seeds=1)
    assert start.value > 0.65


def test_equal_seeds_begin_with_the_same_events():
    few, many = (small().sample(n, 3, random_state=4).x for n in (5, 60))
    np.testing.assert_allclose(few, many[:5], atol=1e-6)
    assert not np.allclose(few, small().sample(5, 3, random_state=5).x)


def test_a_network_of_a_table_survives_its_file(tmp_path):
    network = small()
    network.save(tmp_path / "network.npz")
    again = TableNetwork.load(tmp_path / "network.npz")
    assert (again.names, again.units) == (("a", "b"), ("GeV", ""))
    np.testing.assert_array_equal(
        again.sample(9, 3, random_state=1).x, network.sample(9, 3, random_state=1).x
    )


def test_other_files_are_refused(tmp_path):
    small().save(tmp_path / "network.npz")
    with pytest.raises(FormatError, match="not a network"):
        load_network(tmp_path / "network.npz")
    (tmp_path / "short.npz").write_bytes((tmp_path / "network.npz").read_bytes()[:500])
    for name in ("short.npz", "missing.npz"):
        with pytest.raises(FormatError, match=name):
            TableNetwork.load(tmp_path / name)
