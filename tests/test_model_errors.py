"""Ensembles: replicas of one run, their events, and what their spread tells."""

import numpy as np
import pytest

import flowbdt
from flowbdt import FlowBDT
from flowbdt.cli.main import main
from flowbdt.errors import ConfigError, FormatError, InputError, RunError
from flowbdt.evaluation.evaluate import evaluate
from flowbdt.evaluation.hist_objects import to_hist
from flowbdt.evaluation.model_errors import amplification, bin_errors, small_ensemble
from flowbdt.evaluation.report import write_report
from flowbdt.generation.fit_run import fit_replicas, fit_run
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import read_attributes, read_table, write_table
from flowbdt.tables.transforms.rank import Rank
from flowbdt.training.plan import Inputs
from flowbdt.training.run_directory import Replicas, open_run

N = 3
SETTINGS = {"preset": "fast", "n_steps": 4, "booster": {"n_estimators": 5}, "random_state": 7}


def events(n=600, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=n), rng.exponential(size=n), rng.poisson(1.0, n)])


@pytest.fixture(scope="module")
def ensemble():
    return FlowBDT(n_replicas=N, **SETTINGS).fit(events())


def test_events_come_from_all_replicas_whatever_the_blocks(ensemble):
    new = ensemble.sample(3_000, random_state=2)
    replica = ensemble.replicas_of(3_000, random_state=2)
    assert np.bincount(replica).min() > 900
    for k in range(N):
        alone = ensemble.sample(3_000, replica=k, random_state=2)
        assert np.array_equal(alone[replica == k], new[replica == k])
        assert not np.array_equal(alone, new)
    assert np.array_equal(ensemble.sample(500, random_state=2), new[:500])
    blocks = ensemble.sample_blocks(3_000, random_state=2, block_rows=1)
    assert np.array_equal(np.vstack(list(blocks)), new)


def test_an_ensemble_is_one_file(ensemble, tmp_path):
    path, new = tmp_path / "jets.flowbdt", ensemble.sample(50, random_state=2)
    ensemble.save(path)
    loaded = FlowBDT.load(path)
    assert (loaded.n_replicas, loaded.random_state, loaded.seed_) == (N, 7, 7)
    assert np.array_equal(loaded.sample(50, random_state=2), new)
    sampler = flowbdt.open_sampler(path, random_state=2)
    assert np.array_equal(np.vstack([sampler.one().copy() for _ in range(5)]), new[:5])
    whole = path.read_bytes()
    place = whole.index(b'"n_replicas"')
    path.write_bytes(whole[:place] + b"?" + whole[place + 1 :])
    with pytest.raises(FormatError, match="CRC"):
        FlowBDT.load(path)
    path.write_bytes(whole[:-200])
    with pytest.raises(FormatError, match="truncated"):
        FlowBDT.load(path)


def test_what_is_of_one_model_only_says_so(ensemble):
    with pytest.raises(ConfigError, match="ensemble of 3.*replica=0"):
        ensemble.sample(given=[[0.0, np.nan, np.nan]])
    assert len(ensemble.sample(given=[[0.0, np.nan, np.nan]], replica=0)) == 1
    with pytest.raises(ConfigError, match="replicas 0 to 2, not 3"):
        ensemble.sample(3, replica=3)
    inputs = Inputs(EventTable.of(events()), ensemble._config(7), 7)
    with pytest.raises(ConfigError, match="n_replicas belongs to"):
        fit_run(inputs, "never")


def said(capsys):
    return capsys.readouterr().err


def test_a_run_folder_holds_all_replicas_and_goes_on(ensemble, tmp_path, monkeypatch, capsys):
    """Equal bytes by a command that was interrupted, and by the estimator."""
    write_table(tmp_path / "x.csv", EventTable.of(events()))
    monkeypatch.chdir(tmp_path)
    sets = ["preset=fast", "n_steps=4", "booster.n_estimators=5", "random_state=7"]
    words = ["fit", "x.csv", "-o", "run", "--replicas", "3"]
    words += [word for one in sets for word in ("--set", one)]
    assert main(words) == 0
    (tmp_path / "run/replica_1/steps/0002.ubj").unlink()
    (tmp_path / "run/replica_1/manifest.json").unlink()
    with pytest.raises(FormatError, match="flowbdt fit -o run --resume"):
        FlowBDT.load("run")
    assert main(["fit", "-o", "run", "--resume"]) == 0
    assert main(["generate", "run", "-n", "200", "-o", "new.h5", "--seed", "2"]) == 0
    assert np.array_equal(read_table("new.h5").x, ensemble.sample(200, random_state=2))
    assert read_attributes("new.h5")["replicas"] == N
    inputs = Inputs(EventTable.of(events()), ensemble._config(7), 7)
    with pytest.raises(RunError, match="run of one model"):
        fit_replicas(inputs, "run/replica_0")
    assert isinstance(open_run("run"), Replicas)
    for words in (["collect", "run"], ["step", "run", "0"], ["submit", "run", "--dry-run"]):
        assert main(words) == 1
        assert "is an ensemble: name one of its runs, such as run/replica_0" in said(capsys)
    for words in (["export", "run", "-o", "out"], ["distil", "run", "-o", "student"]):
        assert main(words) == 1
        assert "not of an ensemble of 3: name one of them" in said(capsys)


def test_errors_of_bins_are_those_of_closed_form():
    """Replicas whose means scatter by s: shares of bins scatter by s times the density."""
    rng, n, m, s = np.random.default_rng(1), 400_000, 40, 0.02
    replica = rng.integers(m, size=n)
    values = rng.normal(size=n) + s * rng.normal(size=m)[replica]
    found = bin_errors(values, replica, np.array([-9.0, 0.0, 9.0]))
    assert found.share.sum() == pytest.approx(1.0)
    assert found.statistical == pytest.approx(0.5 / np.sqrt(n), rel=0.05)
    wanted = small_ensemble(m) * s / np.sqrt(2 * np.pi)
    assert found.model == pytest.approx(wanted, rel=0.35)
    none = bin_errors(rng.normal(size=n), replica, np.array([-9.0, 0.0, 9.0]))
    assert none.model.max() < 0.5 * wanted
    assert small_ensemble(8) == pytest.approx(1.14, abs=0.01)


def test_histograms_for_other_tools_have_the_error_of_the_model(ensemble):
    pytest.importorskip("hist", reason="hist is an extra")
    new, replica = ensemble.sample(2_000, random_state=2), ensemble.replicas_of(2_000, 2)
    table, edges = EventTable.of(new), [-1.0, 0.0, 1.0]
    alone = to_hist({"new": table}, ["x0"], {"x0": edges})["x0"].variances()[0]
    both = to_hist({"new": table}, ["x0"], {"x0": edges}, {"new": replica})["x0"].variances()[0]
    model = bin_errors(new[:, 0], replica, np.array(edges)).model
    np.testing.assert_allclose(both - alone, (2_000 * model) ** 2)
    assert (both > alone).any()
    with pytest.raises(InputError, match=r"got \(5,\) for 'new'"):
        to_hist({"new": table}, replicas={"new": replica[:5]})


def test_a_sample_is_worth_the_events_its_models_were_learned_from():
    """Histograms as models: their spread is that of so many events."""
    rng, n_training, m = np.random.default_rng(3), 2_000, 8
    centres = np.arange(40)
    tables = [rng.choice(rng.choice(centres, n_training), 50_000) for _ in range(m)]
    replica = np.repeat(np.arange(m), 50_000)
    worth = amplification(EventTable.of(np.concatenate(tables)[:, None], ["x"]), replica)
    assert worth[0].region == "all"
    assert worth[0].events == pytest.approx(n_training, rel=0.3)


@pytest.mark.slow
def test_a_report_draws_the_error_of_the_model(ensemble, tmp_path):
    real, new = EventTable.of(events(400, 5)), ensemble.sample(4_000, random_state=2)
    record = {"seed": 2, "replicas": N}
    scores = evaluate(real, new, metrics=["separation"], provenance=record, quick=True)
    page = write_report(scores, real, new, tmp_path / "report").read_text()
    assert "error of the model" in page
    assert "more generation does not help there" in page


def test_a_transform_to_a_normal_distribution_moves_with_weights():
    rng = np.random.default_rng(4)
    x = rng.uniform(size=4_000)
    same, other = Rank().fit(x, rng), Rank().fit(x, rng)
    latent = same.forward(x, rng)[:, 0]
    assert same.reweighted(latent, np.ones(len(x)))(latent) == pytest.approx(latent, abs=1e-9)
    moved = other.reweighted(latent, np.where(x < np.median(x), 1.5, 0.5))(latent)
    assert other.inverse(moved[:, None]) == pytest.approx(x, abs=1e-9)
    drawn = other.inverse(rng.normal(size=(20_000, 1)))
    assert (drawn < np.median(x)).mean() == pytest.approx(0.95 * 0.75 + 0.05 * 0.5, abs=0.01)
