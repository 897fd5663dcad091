"""Bad command lines, all through the entry point in one process: a status and one clear error."""

from __future__ import annotations

import itertools
import re
import traceback

import click
import numpy as np
import pytest
from fault_trials import Trials, copied, trials

from flowbdt.cli.main import flowbdt, main

pytestmark = pytest.mark.faults

GOOD = {
    "show": ["run"],
    "fit": ["jets.h5", "-o", "new"],
    "plan": ["jets.h5", "-o", "new"],
    "step": ["run", "0"],
    "collect": ["run"],
    "generate": ["run", "-n", "20", "-o", "new.h5"],
    "impute": ["run", "jets.h5", "-o", "new.h5"],
    "export": ["run", "-o", "new.onnx"],
    "evaluate": ["jets.h5", "made.h5", "-o", "new", "--quick"],
    "compare": ["report", "made.h5", "--real", "jets.h5", "--quick"],
    "report": ["report", "made.h5", "-o", "new", "--real", "jets.h5", "--quick"],
    "tune": ["jets.h5", "-o", "new", "--trials", "1"],
    "trial": ["study", "0"],
    "tune-sampler": ["run", "jets.h5", "-o", "new", "--trials", "1", "--evaluations", "4"],
    "distil": ["run", "-o", "new", "-n", "300"],
    "submit": ["run", "--dry-run", "--generate", "10", "-o", "new.h5"],
    "watch": ["planned", "--once"],
    "part": ["run", "sample", "0"],
    "merge": ["run", "sample"],
    "data list": ["hepmass"],
    "data fetch": ["no-such-record"],
    "calo evaluate": ["made.h5", "jets.h5", "-o", "new"],
}
"""Command -> words, which are right where the command has something to do."""

NUMBERS = ["0", "-1", "x", "1.5", "nan", "inf", "1e400", "", "1e-3", "\udcff", "9" * 400, "٣x"]
FLOATS = ["0", "-1", "x", "nan", "inf", "1e400", "", "\udcff"]
WHOLE = ["-1", "x", "1.5", "", "nan", "\udcff"]
NO_TABLE = [
    *("absent.h5", "empty.h5", "zeros.npy", "text.csv", "odd.zip", "absent.root", "run", "."),
    *("", "no-ending", "a/b.h5", "nul\udcff.h5", "n" * 300 + ".h5", "taken/x.h5", "/dev/null"),
]
NO_RUN = ["absent", "taken", "empty.h5", ".", "", "text.csv", "taken/x", "odd.flowbdt", "\udcff"]
NO_FOLDER = ["taken/x", "taken", "/proc/x/y", "/dev/null/x"]
NO_FILE = ["taken/x.h5", "/proc/x/y.h5", "/dev/null/x.h5", "folder.h5", "run/steps"]
SETTINGS = [
    *("x", "=1", "nosuch=1", "n_steps=zero", "n_steps=-1", "n_steps=0", "n_steps=1.5"),
    *("random_state=-1", "random_state=x", "booster=[1", "booster={a: 1}", "booster.max_depth=x"),
    *("booster.n_estimators=-3", "booster.learning_rate=nan", "preset=nosuch", "solver=nosuch"),
    *("booster.learning_rate=0", "booster.max_leaves=null", "booster.max_dept=3"),
    *("booster.monotone_constraints='(1,0)'", "booster.interaction_constraints=[[0]]"),
    *(
        "solver={name: heun, x: 1}",
        "spacing=[0, 0.7, 0.3, 1]",
        "spacing=[]",
        "spacing=[0, .nan, 1]",
    ),
    *(
        "relations=['a = ']",
        "relations=['tau21 = nosuch / tau1']",
        "columns=[nosuch]",
        "columns=[]",
    ),
    *(
        "conditions=[nosuch]",
        "weight=nosuch",
        "transforms={mass: nosuch}",
        "transforms={nosuch: log}",
    ),
    *("validation_fraction=1", "validation_fraction=-0.1", "validation_fraction=x", "noise=nosuch"),
    *("noise.n_repeats=0", "noise={name: repeats, x: 1}", "preconditioner={name: mixture}x"),
    *("preconditioner={name: mixture, n_components: 0}", "path=nosuch", "coupling=nosuch"),
    *("coupling=given", "inputs=[nosuch]", "inputs=3", "rejection=maybe", "executor=nosuch"),
    *("executor={name: local, n_jobs: 0}", "executor.n_jobs=x", "a.b.c=1", "\udcff=1", "n_steps"),
    *(
        "n_steps=[",
        "n_steps={",
        "n_steps=!!python/object:os.system",
        "n_steps=&a *b",
        "transforms=3",
    ),
]
SAMPLERS = [
    *("x", "3", "[1]", "{a: ", "{nosuch: 1}", "{solver: nosuch}", "{n_steps: 0}", "{n_steps: x}"),
    *("{solver: heun, n_steps: 1.5}", "{spacing: [1, 0]}", "{spacing: nosuch}", "{interpolate: 7}"),
    *("{solver: {name: edm, x: 1}}", "{solver: 3}", "{spacing: [0.0, 1e400]}", "\udcff", "{? }"),
]
SEARCHES = ["x", "{nosuch: 1}", "{max_depth: deep}", "{max_depth: [0, 3]}", "{noise: []}", "[", "3"]
BAD = {
    "--set": SETTINGS,
    "--sampler": SAMPLERS,
    "--search": SEARCHES,
    "--config": ["absent.yaml", ".", "text.csv", "latin.yaml", "list.yaml", "bad.yaml"],
    "--from": NO_RUN,
    "--executor": ["nosuch", "", "3"],
    "--format": ["nosuch", ""],
    "--published": ["absent.yaml", "list.yaml", "bad.yaml", ".", "latin.yaml", "empty.h5"],
    "--objectives": ["", "nosuch", "train_s", "auc_gb,nosuch"],
    "--metric": ["nosuch", "train_s", ""],
    "--method": ["anything"],
    "--relation": ["x", "mass = ", "mass = nosuch / 2", "nosuch = mass", "mass = __import__('os')"],
    "--weight": ["nosuch", ""],
    "--base-url": ["x"],
    "--interpolate": ["maybe"],
    "--real": NO_TABLE,
    "--training": NO_TABLE,
    "--test": NO_TABLE,
    "--source": ["absent.h5", "jets.h5"],
    "--given": NO_TABLE,
    "--conditions": ["absent.h5", "jets.h5"],
    "--evaluate": ["absent.h5"],
}
"""Option -> values that cannot be right; others by the type of their values."""


def bad_values(option: click.Parameter) -> list[str]:
    """Return values that an option refuses."""
    name = next((n for n in option.opts if n in BAD), None)
    if "-o" in option.opts and option.metavar == "OUT":  # a folder will do, too
        return NO_FILE[:3]
    if "-o" in option.opts:
        return NO_FILE if option.metavar == "FILE" else NO_FOLDER
    kind = getattr(option.type, "name", "")
    if name is not None:
        return BAD[name]
    if "positive_float" in str(option.type) or kind == "positive_float":
        return FLOATS
    if "positive_integer" in str(option.type) or kind == "positive_integer":
        return NUMBERS
    return WHOLE if isinstance(option.type, click.IntRange) else []


def leaf(name: str) -> click.Command:
    """Return the command of a name, of a group too."""
    command: click.Command = flowbdt
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command


def lines() -> list[list[str]]:
    """Return bad command lines of every command, in a fixed order."""
    result = [
        [],
        ["nosuch"],
        ["--nosuch"],
        ["fitt", "jets.h5"],
        ["data"],
        ["calo", "x"],
        ["\udcff"],
    ]
    for name, words in GOOD.items():
        start = name.split()
        result += [[*start, *words, "--nosuch"], [*start, *words, "-o"]]
        if name != "data list":
            result += [[*start], [*start, "--"]]
        result.append([*start, *words, "surplus", "words", "--quiet=1"])
        for option in leaf(name).params:
            if isinstance(option, click.Option):
                result += [[*start, *words, option.opts[0], value] for value in bad_values(option)]
                if option.is_flag and option.opts:
                    result.append([*start, *words, f"{option.opts[-1]}=yes"])
        for place, word in enumerate(words):
            others = {"run": NO_RUN, "planned": NO_RUN, "study": NO_RUN, "report": NO_RUN}.get(word)
            if word.endswith(".h5") and words[place - 1] != "-o":
                others = NO_TABLE
            if name in ("compare", "report"):  # which compare runs, too
                others = [other for other in others or () if other != "run"]
            for other in others or ():
                result.append([*start, *words[:place], other, *words[place + 1 :]])
    return result


def tried(words: list[str], counter: Trials, capfd: pytest.CaptureFixture[str]) -> None:
    """Call the entry point, and judge what came."""
    capfd.readouterr()
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        counter.add("traceback", repr(words), traceback.format_exc())
        return
    text = "".join(capfd.readouterr())
    errors = len(re.findall(r"(?m)^(?:flowbdt: error: |Error: )", text))
    if status == 0:
        counter.add("silent", repr(words), text)
    elif status in (1, 2) and "Traceback" not in text and (errors == 1 or not words[1:]):
        counter.add("error", repr(words))
    else:
        counter.add("traceback", f"{words!r}: status {status}, {errors} errors", text)


def test_bad_command_lines_have_a_status_and_one_clear_error(
    fault_world, tmp_path, monkeypatch, capfd, request
):
    monkeypatch.chdir(copied(fault_world, tmp_path / "world"))
    every = lines()
    order = np.random.default_rng(18).permutation(len(every))
    with trials("bad command lines", request) as counter:
        for number in itertools.islice(order, 300 * counter.scale):
            tried(every[int(number)], counter, capfd)
