"""The command line: files in, files out, exit statuses, messages."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import click
import h5py
import numpy as np
import pytest
import yaml
from conftest import as_json, importorskip_format, make_jets, parsed, run
from documented import ROOT

from flowbdt.cli.main import TOPICS, flowbdt
from flowbdt.cli.options import Registered, three_digits
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import read_attributes, read_table, write_table
from flowbdt.tables.formulas.expressions import declared
from flowbdt.tables.formulas.particles import proposed_particles
from flowbdt.training.executors import EXECUTORS

SETTINGS = [
    "preset=fast",
    "preconditioner=none",
    "n_steps=3",
    "noise.n_repeats=2",
    "booster.n_estimators=5",
    "booster.max_bin=32",
]
QUICK = [text for setting in (*SETTINGS, "random_state=1") for text in ("--set", setting)]


def test_fit_generate_evaluate_show(folder, capsys):
    relation = "tau21 = tau2 / tau1"
    assert run("fit", "jets.h5", "-o", "run", *QUICK, "--set", f"relations=['{relation}']") == 0
    assert run("generate", "run", "-n", "1e3", "-o", "new.h5", "--seed", 7) == 0
    assert "4 evaluations each" in capsys.readouterr().out
    new = read_table("new.h5")
    assert (new.n, new.names) == (1000, ("mass", "tau1", "tau2", "tau21"))
    assert new.unit("mass") == "GeV"
    record = read_attributes("new.h5")
    assert record["seed"] == 7
    assert record["solver"] == "adams_bashforth_3"
    assert record["n_evaluations"] == 4  # the first step takes two
    assert run("show", "run") == 0
    shown = capsys.readouterr().out
    assert "validation rmse" in shown
    assert "tau21: not learned" in shown
    assert shown.count("\n   ") >= 3


def test_another_sampler_goes_through_the_same_models(folder, capsys):
    run("fit", "jets.h5", "-o", "run", *QUICK)
    command = ["generate", "run", "-n", 10, "-o", "new.h5", "--sampler"]
    assert run(*command, "{solver: euler}") == 0
    record = read_attributes("new.h5")
    assert (record["solver"], record["n_evaluations"]) == ("euler", 3)
    assert run(*command, "euler") == 1
    assert "must be a mapping" in capsys.readouterr().err
    assert run(*command, "{solver: euler, n_steps: 7}") == 1
    said = capsys.readouterr().err
    assert "no step model was trained" in said
    assert "this run can do: adams_bashforth_2, " in said


@pytest.mark.slow
def test_evaluate_writes_a_report(folder, capsys):
    run("fit", "jets.h5", "-o", "run", *QUICK)
    run("generate", "run", "-n", 300, "-o", "new.h5")
    arguments = ["-o", "report", "--training", "jets.h5", "--quick"]
    assert (
        run("evaluate", "jets.h5", "new.h5", *arguments, "--relation", "tau21 = tau2 / tau1") == 0
    )
    assert "AUC, gradient boosting" in capsys.readouterr().out
    assert (folder / "report" / "report.html").exists()
    assert json.loads((folder / "report" / "report.json").read_text())


def test_cuts_and_observables_of_a_configuration(folder, capsys):
    (folder / "own.yaml").write_text(
        "observables: ['r = tau2 / tau1']\nrequire: ['mass > 0', 'r < 2']\nparticles:\n"
        "  j: {pt: mass, eta: 0, phi: 0, mass: 0}\n"
    )
    assert run("fit", "jets.h5", "-o", "run", *QUICK, "--config", "own.yaml") == 0
    capsys.readouterr()
    assert run("show", "run") == 0
    assert "meet require 'mass > 0' and 'r < 2'" in capsys.readouterr().out
    assert run("fit", "-o", "run", "--resume") == 0
    assert run("fit", "-o", "run", "--resume", "--set", "require=[]") == 1
    assert "other settings for require" in capsys.readouterr().err
    assert run("generate", "run", "-n", 2500, "-o", "new.h5") == 0
    new = read_table("new.h5")
    assert new.names == ("mass", "tau1", "tau2", "tau21")
    assert (new.column("mass") > 0).all()
    assert (new.column("tau2") / new.column("tau1") < 2).all()
    assert run("fit", "jets.h5", "--dry-run", *QUICK, "--set", "require=['mass > 1e9']") == 1
    assert "does not hold in" in capsys.readouterr().err


def test_particles_that_rows_show_are_taken_unless_settings_say_none(folder, capsys):
    rng = np.random.default_rng(0)
    columns = {"pt1": 20 + rng.exponential(20, 400), "eta1": rng.normal(size=400)}
    columns |= {"phi1": rng.uniform(-np.pi, np.pi, 400), "sigmaEtaEta1": rng.normal(size=400)}
    columns |= {f"Muon_p{axis}": rng.normal(size=400) for axis in "xyz"}
    columns["Muon_E"] = np.sqrt(sum(columns[f"Muon_p{axis}"] ** 2 for axis in "xyz") + 0.1)
    mass, particles = declared(["M = mass(p1, Muon)"], proposed_particles(list(columns)))
    write_table("p.csv", mass.added_to(EventTable.of(columns)))
    assert run("fit", "p.csv", "--dry-run", *QUICK) == 0
    shown = yaml.safe_load(text := capsys.readouterr().out)
    assert shown["relations"] == ["M = mass(p1, Muon)"]
    assert shown["particles"].keys() == particles.keys() == {"p1", "Muon"}
    assert shown["require"] == []
    assert "# particles:" not in text
    off = ("--set", "particles={}", "--set", "relations=[]")
    assert run("fit", "p.csv", "--dry-run", *QUICK, *off) == 0
    text = capsys.readouterr().out
    assert "particles: {}\n" in text
    assert "#   p1: {pt: pt1, eta: eta1, phi: phi1, mass: 0}" in text
    assert "#   M = mass(p1, Muon)   (largest relative deviation" in text
    assert run("fit", "jets.h5", "--dry-run", *QUICK) == 0
    assert "suggest" not in capsys.readouterr().out


def test_init_writes_settings_that_fit_takes(folder, capsys):
    rng = np.random.default_rng(0)
    columns = {f"eta{i}": rng.normal(size=600) for i in (1, 2)}
    columns |= {f"phi{i}": rng.uniform(-np.pi, np.pi, 600) for i in (1, 2)}
    columns |= {f"pt{i}": 30 + rng.exponential(20, 600) for i in (1, 2)}
    columns |= {"n": rng.integers(0, 3, 600), "Event": np.arange(600) * 7}
    columns["ht"] = columns["pt1"] + columns["pt2"]
    write_table("p.csv", EventTable.of(columns))
    assert run("init", "p.csv") == 0
    text = (folder / "config.yaml").read_text()
    assert "# left out, Event: named as a number of events" in text
    settings = yaml.safe_load(text)
    assert settings["relations"] == ["ht = pt1 + pt2"]
    assert settings["particles"]["p1"] == {"pt": "pt1", "eta": "eta1", "phi": "phi1", "mass": 0}
    assert settings["columns"] == [name for name in columns if name != "Event"]
    capsys.readouterr()
    assert run("fit", "p.csv", "--config", "config.yaml", "--dry-run") == 0
    assert "ht: not learned, computed as ht = pt1 + pt2" in capsys.readouterr().out
    assert run("init", "p.csv") == 1
    assert "config.yaml exists: remove it" in capsys.readouterr().err


@pytest.mark.slow
def test_observables_of_the_command_line_are_judged_and_drawn(folder, capsys):
    run("fit", "jets.h5", "-o", "run", *QUICK)
    run("generate", "run", "-n", 300, "-o", "new.h5")
    own = ["--particle", "j=pt:mass,eta:tau1,phi:0,mass:0", "--observable", "e = energy(j)"]
    assert run("evaluate", "jets.h5", "new.h5", "-o", "r", "--quick", *own) == 0
    scores = json.loads((folder / "r" / "report.json").read_text())
    assert scores["settings"]["particles"] == {
        "j": {"pt": "mass", "eta": "tau1", "phi": 0, "mass": 0}
    }
    assert ("separation", "e") in {(r["name"], r["column"]) for r in scores["results"]}
    assert "e = energy(j)" in (folder / "r" / "report.html").read_text()
    capsys.readouterr()
    judged = ["--real", "jets.h5", "--quick", "-q"]
    assert run("report", "new.h5", "run", *judged, *own, "-o", "page") == 0
    assert run("compare", "r", "new.h5", *judged) == 1
    assert "judged with the observables" in capsys.readouterr().err
    assert run("evaluate", "jets.h5", "new.h5", "-o", "s", "--particle", "j") == 1
    assert "--particle is written e1=pt:pt1" in capsys.readouterr().err


def test_generated_bytes_do_not_depend_on_the_process(folder):
    run("fit", "jets.h5", "-o", "run", *QUICK)
    command = [sys.executable, "-m", "flowbdt.cli", "generate", "run", "-n", "500", "-q"]
    run("generate", "run", "-n", 500, "-q", "-o", "a.h5")
    subprocess.run([*command, "-o", "b.h5"], check=True)
    assert (folder / "a.h5").read_bytes() == (folder / "b.h5").read_bytes()


@pytest.mark.parametrize("ending", ["npy", "npz", "csv", "parquet", "root", "h5"])
def test_output_format_follows_the_ending(folder, ending):
    importorskip_format(f".{ending}")
    run("fit", "jets.h5", "-o", "run", *QUICK)
    assert run("generate", "run", "-n", 10, "-o", f"new.{ending}") == 0
    assert read_table(f"new.{ending}").names == ("mass", "tau1", "tau2", "tau21")


def test_conditions_come_from_a_column_and_a_file(folder, jets):
    run("fit", "jets.h5", "-o", "run", *QUICK, "--set", "conditions=[mass]")
    write_table("cond.csv", jets.select(["mass"]).take(slice(0, 50)))
    assert run("generate", "run", "-o", "new.h5", "--conditions", "cond.csv") == 0
    new = read_table("new.h5")
    assert (new.n, new.names, new.cond_names) == (50, ("tau1", "tau2", "tau21"), ("mass",))
    assert run("generate", "run", "-n", 5, "-o", "no.h5") == 1
    assert not (folder / "no.h5").exists()


def test_full_configuration_lies_beside_the_result_and_fits_again(folder):
    run("fit", "jets.h5", "-o", "run", *QUICK)
    settings = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert settings["n_steps"] == 3
    assert settings["booster"]["max_depth"] == 4  # what the preset decides is written out
    assert run("fit", "jets.h5", "-o", "again", "--config", "run/config.yaml") == 0
    manifests = [json.loads((folder / r / "manifest.json").read_text()) for r in ("run", "again")]
    assert manifests[0] == manifests[1]


def test_show_says_where_trees_add_nothing(folder, capsys):
    rng = np.random.default_rng(0)
    write_table("gauss.h5", EventTable.of(rng.normal(size=(2000, 2))))
    slow = ["--set", "booster.learning_rate=0.5", "--set", "booster.max_depth=6"]
    plain = [*QUICK, "--set", "preconditioner=gaussian", *slow]
    run("fit", "gauss.h5", "-o", "run", *plain, "--set", "booster.early_stopping_rounds=0")
    capsys.readouterr()
    run("show", "run")
    shown = capsys.readouterr().out
    assert "1 Gaussian (full covariance)" in shown
    assert "the trees add nothing to the closed form at t = 0, 0.333, 0.667" in shown


def test_dry_run_prints_all_and_writes_nothing(folder, capsys):
    assert run("fit", "jets.h5", "-o", "run", "--dry-run", *QUICK) == 0
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown)["n_steps"] == 3
    assert "3 step models, at t = 0, 0.3333, 0.6667" in shown
    assert not (folder / "run").exists()


def test_executor_and_its_settings_go_together(folder, capsys):
    options = ["--executor", "joblib", "--set", "executor.n_jobs=2"]
    assert run("fit", "--dry-run", *options) == 0
    assert yaml.safe_load(capsys.readouterr().out)["executor"] == {"name": "joblib", "n_jobs": 2}


def test_dry_run_without_a_table_prints_the_settings(folder, capsys):
    assert run("fit", "--dry-run", "--set", "preset=fast") == 0
    assert yaml.safe_load(capsys.readouterr().out)["preset"] == "fast"


def test_a_run_killed_while_planning_remembers_its_settings(folder):
    run("fit", "jets.h5", "-o", "whole", *QUICK)
    (folder / "cut").mkdir()
    (folder / "cut" / "config.yaml").write_bytes((folder / "whole" / "config.yaml").read_bytes())
    assert run("fit", "jets.h5", "-o", "cut", "--resume") == 0
    manifests = [(folder / name / "manifest.json").read_bytes() for name in ("whole", "cut")]
    assert manifests[0] == manifests[1]


def test_resume_with_other_settings_is_refused(folder, capsys):
    run("fit", "jets.h5", "-o", "run", *QUICK)
    capsys.readouterr()
    assert run("fit", "-o", "run", "--resume", "--set", "n_steps=9") == 1
    assert "n_steps" in capsys.readouterr().err


def test_resume_goes_on_without_the_table(folder, capsys):
    run("fit", "jets.h5", "-o", "run", *QUICK)
    model = folder / "run" / "steps" / "0001.ubj"
    before = model.read_bytes()
    model.unlink()
    (folder / "run" / "manifest.json").unlink()
    assert run("show", "run") == 0
    assert "1 of 3 steps missing (1)" in capsys.readouterr().out
    assert run("fit", "-o", "run", "--resume") == 0
    assert model.read_bytes() == before
    assert run("fit", "jets.h5", "-o", "run", "--resume") == 0


def test_a_failed_step_fails_the_command(folder, capsys, monkeypatch):
    """A peer printed the traceback and exited 0."""

    def without_memory(*arguments, **options):
        raise MemoryError("no memory")

    run("fit", "jets.h5", "-o", "run", *QUICK)
    (folder / "run" / "steps" / "0001.ubj").unlink()
    monkeypatch.setattr("flowbdt.training.train_step.training_pairs", without_memory)
    capsys.readouterr()
    assert run("fit", "-o", "run", "--resume") == 1
    message = capsys.readouterr().err
    assert "Step 1 failed" in message
    assert "0001.log" in message
    assert "--resume" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.h5", "-o", "run"], "nowhere.h5"),
        (["fit", "jets.h5", "-o", "run", "--set", "n_step=3"], "Did you mean 'n_steps'"),
        (["fit", "jets.h5", "-o", "run", "--set", "solver=huen"], "heun"),
        (["fit", "jets.h5", "-o", "run", "--set", "conditions=[masss]"], "mass"),
        (["fit", "-o", "run"], "table"),
        (["generate", "nowhere", "-n", "3", "-o", "x.h5"], "does not exist"),
        (["show", "--card", "jets.h5"], "not a whole flowBDT model file"),
        (["evaluate", "jets.h5", "nowhere.h5", "-o", "r"], "nowhere.h5"),
    ],
)
def test_mistakes_give_one_message_and_status_one(folder, capsys, arguments, message):
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("flowbdt: error:")
    assert "Traceback" not in error


@pytest.mark.parametrize("arguments", [[], ["fits"], ["generate", "run", "-n", "0", "-o", "x.h5"]])
def test_bad_usage_gives_status_two(arguments, capsys):
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("Usage: flowbdt")
    assert said.out == ""


def test_a_truncated_table_is_named(folder, capsys):
    content = (folder / "jets.h5").read_bytes()
    (folder / "cut.h5").write_bytes(content[: len(content) // 2])
    assert run("fit", "cut.h5", "-o", "run") == 1
    assert "cut.h5" in capsys.readouterr().err


def test_infinity_in_a_table_is_named(folder, capsys):
    with h5py.File("bad.h5", "w") as file:
        file["a"] = np.array([1.0, np.inf, 3.0])
    assert run("fit", "bad.h5", "-o", "run") == 1
    error = capsys.readouterr().err
    assert "'a'" in error
    assert "row 1" in error


def test_executor_choices_come_from_the_registry(capsys):
    for name in EXECUTORS.names():
        assert parsed(["fit", "t.h5", "-o", "r", "--executor", name])["executor"] == name
    assert run("fit", "t.h5", "-o", "r", "--executor", "seral") == 2
    assert all(f"'{name}'" in capsys.readouterr().err for name in EXECUTORS.names()[:1])


def test_no_bar_when_nobody_watches(folder):
    command = [sys.executable, "-m", "flowbdt.cli", "fit", "jets.h5", "-o", "run", *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    *told, complete = done.stdout.splitlines()
    assert told[-1] == "  relations: tau21 = tau2 / tau1   (none with relations=[])"
    assert complete.startswith("complete: run")


def commands() -> dict[str, click.Command]:
    """All commands by the words that call them."""
    known = {}
    for name, command in flowbdt.commands.items():
        actions = command.commands if isinstance(command, click.Group) else {"": command}
        known |= {f"{name} {action}".strip(): one for action, one in actions.items()}
    return known


def test_help_lists_every_command_once_under_its_topic(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    listed = [command.name for commands in TOPICS.values() for command in commands]
    assert sorted(listed) == sorted(flowbdt.commands)
    starts = [shown.index(f"\n{topic}:\n") for topic in TOPICS]
    assert starts == sorted(starts)
    for command in flowbdt.commands.values():
        assert f"\n  {command.name} " in shown
        assert command.get_short_help_str(60) in shown
    assert "..." not in shown.split("Train:")[1]
    assert "CaloChallenge" in shown


@pytest.mark.parametrize("words", sorted(commands()))
def test_every_command_explains_itself_and_its_options(words, capsys):
    assert run(*words.split(), "-h") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: flowbdt {words} ")
    command = commands()[words]
    assert command.help
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith((".", "'")), parameter.name
    assert "--quiet" in shown
    assert "--json" in shown


def test_commands_print_by_one_mechanism():
    """What is printed by itself would spoil the one object of ``--json``."""
    for path in (ROOT / "flowbdt" / "cli").glob("*.py"):
        for line in path.read_text().splitlines():
            if "click.echo(" in line and "err=True" not in line:
                assert path.stem in ("options", "main"), line


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with tables, a run and a planned run."""
    place = tmp_path_factory.mktemp("runs")
    for ending in ("h5", "csv"):
        write_table(place / f"jets.{ending}", make_jets())
    for command, name in (("fit", "run"), ("plan", "planned")):
        done = as_json(command, place / "jets.h5", "-o", place / name, *QUICK)
        assert done["run"] == str(place / name)
    return place


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("show run", "plan manifest"),
        ("show jets.h5", "events columns"),
        ("show planned", "run missing"),
        ("show run --card", "card markdown"),
        ("cite run", "arxiv version"),
        ("fit --dry-run", "settings times"),
        ("fit jets.h5 --dry-run", "settings times columns events cost"),
        ("init jets.h5 -o new.yaml", "file"),
        ("step planned 0 1 --files", "copy bring"),
        ("step planned 0 1", "steps"),
        ("submit planned --dry-run", "files"),
        ("generate run -n 50 -o b.csv", "events evaluations file new record seconds"),
        ("impute run jets.csv -o full.csv", "rows copies given file"),
        ("export run -o cpp", "file format"),
        ("data list", "records"),
        ("data list calochallenge1", "name files"),
    ],
)
def test_commands_print_one_object(words, names, runs, tmp_path, monkeypatch):
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert set(names.split()) <= set(as_json(*words.split()))


def test_rates_have_three_digits_and_no_exponent():
    assert [three_digits(x) for x in (1.2345, 28.04, 1273.0, 123456.0)] == [
        *("1.23", "28", "1,270", "123,000"),
    ]


def test_an_error_prints_no_object(folder, capsys):
    assert run("show", "nothing", "--json") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "nothing" in told.err


def loaded(code: str, words: list[str]) -> set[str]:
    """Libraries that a process of the program loads for these command lines."""
    code += "\nprint(*{name.split('.')[0] for name in sys.modules if sys.modules[name]})"
    command = [sys.executable, "-c", f"import sys; from flowbdt.cli import main\n{code}"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"xgboost", "pandas", "h5py", "scipy", "sklearn", "torch", "matplotlib"}


def test_help_is_light():
    code = "for words in sys.argv[1:]: main.main([*words.split(), '--help'])"
    found = loaded(code, ["", *commands()])
    assert not found & (HEAVY | {"numpy", "yaml", "tqdm"})
    assert "click" in found


def test_help_shows_the_names_of_registries_without_them():
    options = [option.type for command in commands().values() for option in command.params]
    named = {one.name_of: one for one in options if isinstance(one, Registered)}
    assert set(named) == {"EXECUTORS", "REFINERS", "METHODS"}
    for one in named.values():
        assert list(one.shown) == list(one.choices)


def test_program_imports_what_it_needs(tmp_path):
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(60, 2)))
    plan = f"plan {tmp_path}/table.npy -o {tmp_path}/run {' '.join(QUICK)}"
    code = "sys.argv[1:] = sys.argv[1].split(); assert main.main() == 0"
    assert "sklearn" not in loaded(code, [plan])
    found = loaded(code, [f"step {tmp_path}/run 0"])
    assert not found & {"sklearn", "pandas", "matplotlib", "torch"}
    assert "xgboost" in found


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["generat", "run"], "'generate'"),
        (["tune_sampler", "run"], "'tune-sampler'"),
        (["calo", "evalute"], "'evaluate'"),
        (["data", "fech"], "'fetch'"),
        (["fit", "--exekutor", "joblib"], "'--executor'"),
        (["generate", "run", "--event", "3"], "'--events'"),
    ],
)
def test_misspelt_words_come_with_a_suggestion(words, hint, capsys):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert "Did you mean" in error
    assert hint in error


def test_evaluations_end_at_the_next_option():
    words = ["report", "a", "b", "--evaluations", "4", "8", "1e2", "-o", "page", "--quick"]
    found = parsed(words)
    assert found["evaluations"] == (4, 8, 100)
    assert found["entries"] == ("a", "b")
    assert parsed(["tune-sampler", "run", "t.h5", "-o", "x"])["evaluations"] == (8, 16, 32)
    assert parsed(["tune-sampler", "r", "t", "-o", "x", "--evaluations", "7"])["evaluations"] == (
        7,
    )


@pytest.mark.parametrize("number", ["0", "-3", "2.5", "nan", "inf", "many"])
def test_numbers_of_events_are_positive_and_whole(number, capsys):
    assert run("generate", "run", "-n", number, "-o", "x.h5") == 2
    assert f"expected a whole number of at least 1, got {number}" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_budgets_are_positive_and_finite(seconds, capsys):
    assert run("tune", "t.h5", "-o", "s", "--budget", seconds) == 2
    assert f"expected a number above 0, got {seconds}" in capsys.readouterr().err


def test_a_study_starts_from_one_set_of_settings(capsys):
    assert run("tune", "t.h5", "-o", "s", "--config", "c.yaml", "--from", "run") == 2
    assert "--config and --from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["submit", "run", "--dry-run", "--sampler", "{solver: heun}"], "--sampler"),
        (["submit", "run", "--dry-run", "--seed", 0], "--seed"),
        (["submit", "run", "--dag", "--parts", 3, "--dry-run"], "--parts"),
        (["submit", "run", "--dry-run", "--cond", "jets.h5"], "--conditions"),
        (["compare", "report", "report", "--training", "jets.h5"], "--training"),
        (["compare", "report", "report", "--fit"], "--fit"),
        (["report", "report", "-o", "page", "--quick"], "--quick"),
        (["report", "report", "-o", "page", "--evaluations", 4, 8], "--evaluations"),
        (["calo", "evaluate", "a.h5", "b.h5", "--epochs", 3], "--epochs"),
        (["distil", "run", "-o", "new", "--weight", "w"], "--weight"),
    ],
)
def test_an_option_without_use_is_refused(folder, capsys, words, option):
    assert run("plan", "jets.h5", "-o", "run", *QUICK) == 0
    capsys.readouterr()
    assert run(*words) == 1
    assert f"{option} has nothing to act on" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (BrokenPipeError, 0)])
def test_interruptions_have_their_exit_status(error, status, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("flowbdt.training.run_directory.open_run", fail)
    assert run("show", "run") == status
    assert ("interrupted" in capsys.readouterr().err) == (status == 130)


def test_the_version_is_that_of_the_package(capsys):
    import flowbdt as package

    assert run("--version") == 0
    assert capsys.readouterr().out == f"flowbdt {package.__version__}\n"


@pytest.mark.parametrize("words", [
    ["evaluate", "jets.h5", "no.h5", "-o", "jets.h5"],
    ["evaluate", "jets.h5", "no.h5", "-o", "jets.h5/page"],
    ["report", "no.h5", "-o", "jets.h5/page"],
    ["compare", "no", "no.h5", "-o", "jets.h5/page.json"],
    ["compare", "no", "no.h5", "-o", "."],
    ["tune-sampler", "no", "jets.h5", "-o", "jets.h5"],
])  # fmt: skip
def test_a_place_that_cannot_be_written_is_noticed_before_the_work(folder, capsys, words):
    assert run(*words) == 1
    error = capsys.readouterr().err
    assert "cannot make the folder" in error or "is a folder" in error
