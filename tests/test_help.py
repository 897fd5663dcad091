"""What help texts show as examples is understood by the program."""

from __future__ import annotations

import re
import shlex

import click
import numpy as np
import pytest
from conftest import SMALL_MODEL, make_jets, parsed
from documented import PAGES

from flowbdt import EventTable, FlowBDT
from flowbdt.cli.main import flowbdt
from flowbdt.config import ModelConfig, RunConfig
from flowbdt.generation.trained_flow import Flow
from flowbdt.physics.unfolding import UnfoldingInputs
from flowbdt.physics.unfolding.summary import chosen_bins
from flowbdt.tables.formulas.expressions import declared
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.plan import check_config
from flowbdt.tuning.search_space import model_space, narrowed

EXAMPLE = re.compile(r"""(?:\w[\w.]*=\[[^]]*\] | '[^']+' | [^\s,;']+ (?:,[^\s;]+)? )""", re.X)
"""``name=[value]``, a quoted text, or one word with what commas join to it."""


def every_command(command=flowbdt, words=()):
    """Yield the words of every command, and it."""
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from every_command(one, (*words, name))
    yield words, command


def texts(command):
    """Return all that help shows of a command."""
    return [command.help, command.epilog, *(p.help for p in command.params)]


def shown(option):
    """Return the examples in the help of an option: all after e.g., until the end of the part."""
    found = re.search(r"e\.g\. (.+?)(?:; |\. |\.$| \(|$)", " ".join((option.help or "").split()))
    return [] if found is None else EXAMPLE.findall(found[1].replace(" or ", " "))


EXAMPLES = [
    (words, option.opts[0], shown(option))
    for words, command in every_command()
    for option in command.params
    if shown(option)
]


def with_option(words, name, *values):
    """Return what the real parser makes of an option, with the words that are required beside."""
    command = flowbdt
    for word in words:
        command = command.commands[word]
    line = list(words)
    for option in command.params:
        if isinstance(option, click.Argument) and option.required:
            line += ["1"]
        elif option.required and option.opts[0] != name:
            line += [option.opts[0], "x"]
    found = parsed([*line, name, *values])
    return found[next(p.name for p in command.params if name in p.opts)]


def test_command_lines_in_help_are_understood():
    told = {
        line
        for _, command in every_command()
        for text in texts(command)
        for line in re.findall(r"'flowbdt ([^']+)'", " ".join((text or "").split()))
    }
    assert told == {"demo", "fit --dry-run", "data list"}
    for line in told:
        parsed(line.split())


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    path = tmp_path_factory.mktemp("help") / "jets.flowbdt"
    FlowBDT(**SMALL_MODEL).fit(make_jets()).save(path)
    return FlowBDT.load(path).flow().source


def accepted_settings(value, _):
    (text,) = value
    if text.startswith("executor"):
        EXECUTORS.build(RunConfig(executor="htcondor").with_overrides([text]).executor)
    else:
        check_config(RunConfig().with_overrides([text]))


def accepted_columns(value, _):
    assert value == ("nJet,MET_*",)


PARTS = {"eta": "a", "phi": "b", "mass": 0}


def accepted_observables(value, _):
    declared(value, {name: {**PARTS, "pt": f"pt_{name}"} for name in ("e1", "e2")})


def accepted_particles(value, _):
    declared(["m = mass(e1, e1)"], value)


def accepted_sampler(value, flow):
    spec = value[0] if isinstance(value, list) else value
    assert Flow(flow, sampler=spec, compiled=False).n_evaluations == 2


def accepted_search(value, _):
    narrowed(model_space(RunConfig(), 1000, 5), value)


def accepted_flow(value, _):
    check_config(ModelConfig(**value))


def accepted_evaluations(value, _):
    assert value == (4, 8, 16, 32)


def accepted_edges(value, _):
    names = [*value] if "gen_mass" in value else ["gen_mass"]
    table = EventTable.of(np.linspace(0.0, 40.0, 200)[:, None], names)
    assert chosen_bins(UnfoldingInputs.of(table, table, table), value) == value


def accepted_by_network(value, _):
    pytest.importorskip("torch", reason="networks need the extra 'cfm'")
    from flowbdt.networks.shower_network import shower_backbone
    from flowbdt.networks.trainer import TrainingConfig
    from flowbdt.physics import geometry
    from flowbdt.typed_settings import check_settings

    if "widths" in value:
        shower_backbone(geometry("photons"), value)
    else:
        TrainingConfig(**check_settings(value, TrainingConfig, "training setting"))


def run_by_a_page(value, _):
    """Every entry stands in a command of a page, which the tests run."""
    pages = " ".join(page.read_text() for page in PAGES.values())
    for name, text in value.items():
        assert f"{name}: {text}" in pages, name


ACCEPTED = {
    "--set": accepted_settings,
    "--columns": accepted_columns,
    "--observable": accepted_observables,
    "--particle": accepted_particles,
    "--sampler": accepted_sampler,
    "--search": accepted_search,
    "--flow": accepted_flow,
    "--evaluations": accepted_evaluations,
    "unfold --bins": accepted_edges,
    "response evaluate --bins": run_by_a_page,
    "--tags": run_by_a_page,
    "--pairs": run_by_a_page,
    "--backbone": accepted_by_network,
    "--training": accepted_by_network,
}
"""What takes the values of an option, where the name of the option alone does not say it."""


@pytest.mark.parametrize(("words", "name", "values"), EXAMPLES)
def test_example_values_in_help_are_accepted(words, name, values, flow):
    accepted = ACCEPTED.get(" ".join([*words, name])) or ACCEPTED[name]
    typed = values if name == "--set" else [shlex.split(value)[0] for value in values]
    for value in [typed] if name == "--evaluations" else [[value] for value in typed]:
        accepted(with_option(words, name, *value), flow)


def test_every_option_with_an_example_was_found():
    assert len(EXAMPLES) >= 25
    for words, name, values in EXAMPLES:
        assert values, (words, name)
