"""Submit descriptions and DAGs as text. Nothing here talks to HTCondor, so golden files hold it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..work import Needs, Work, name_of
from .quoting import arguments, environment, file_list, plain, string
from .settings import Settings

MEMORY_HOLD = "(HoldReasonCode == 34 || HoldReasonSubCode == 102)"
"""Held for memory: by the kernel's limit (34), or by the policy HOLD_IF_MEMORY_EXCEEDED (102)."""

USER_HOLD = 1
"""Held by hand; only a hand releases."""

ATTRIBUTE = "FlowbdtSubmission"
"""The attribute of jobs by which the queue is asked about a submission."""

SCRIPT = "job.sh"

JOB_SCRIPT = """\
#!/bin/sh
# Unpack the environment $1, then run flowbdt with its Python, or for a wheel with the Python $2.
# A batch job may have neither PATH nor HOME.
set -e
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
HOME=${HOME:-$PWD}
export PATH HOME
pack=$1
python=$2
shift 2
case $pack in
/*) ;;
*) pack=$PWD/$pack ;;
esac
case $pack in
*.whl)
    PYTHONPATH=$pack${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
    ;;
*)
    place=${_CONDOR_SCRATCH_DIR:-$PWD}/environment
    mkdir -p "$place"
    tar -xf "$pack" -C "$place"
    PATH=$place/bin:$PATH
    python=$place/bin/python
    if [ -x "$place/bin/conda-unpack" ]; then "$place/bin/conda-unpack"; fi
    ;;
esac
exec "$python" -P -m flowbdt.cli "$@"
"""


@dataclass(frozen=True)
class Place:
    """Where a submission lies: the run (absolute), its own folder within it, and its mark.

    The mark is an attribute of every job, by which the queue can be asked about the submission.
    """

    run: Path
    folder: str
    mark: str


@dataclass(frozen=True)
class Stage:
    """Jobs of one description: numbered, or a single one without a number.

    ``folders`` of the run are made before the jobs are sent, for what comes back.
    """

    name: str
    description: str
    numbers: tuple[int, ...] | None = None
    memory_mib: int = 0
    folders: tuple[str, ...] = ()

    def nodes(self) -> list[str]:
        """Return the names of the jobs, as they stand in the event log and in a DAG."""
        if self.numbers is None:
            return [self.name]
        return [node_name(self.name, number) for number in self.numbers]


def node_name(noun: str, number: int) -> str:
    """Return what a job is called in event log and DAG."""
    return f"{noun}-{number}"


def numbered(
    work: Work,
    inputs: Sequence[str],
    needs: Needs,
    numbers: Sequence[int],
    settings: Settings,
    place: Place,
) -> Stage:
    """Return the stage that does ``numbers`` of ``work`` on nodes of the pool.

    Parameters
    ----------
    inputs : files to copy, with ``$(name)`` for the four digits of a number
    needs : memory and disk of one job, where the settings leave them open
    """
    memory = settings.request_memory or needs.memory_mib
    disk = settings.request_disk or needs.disk_mib + settings.pack_mib
    lines = {
        **_program(work.command("$(number)"), settings, place),
        **_files(work.result("$(name)"), inputs, settings),
        **_logs(work.logs("$(name)"), f"{work.noun}-$(number)", place),
        "request_cpus": settings.request_cpus,
        "request_memory": _growing("$(memory)"),
        "request_disk": f"{disk}MB",
        **_policy(settings),
        **_lines_of_user(settings),
    }
    text = _text(f"flowbdt {work.noun}: one job per number", lines)
    comes_back = [*work.result("0"), work.logs("0")]
    folders = {str(Path(name).parent) for name in comes_back}
    folders |= {f"incoming/{folder}" for folder in folders if settings.transfer}
    return Stage(work.noun, text, tuple(numbers), memory, tuple(sorted(folders)))


def single(name: str, words: Sequence[str], settings: Settings, place: Place) -> Stage:
    """Return a stage of one job that runs on the submit machine itself, where the run is."""
    lines = {
        "universe": "local",
        "executable": plain(settings.interpreter_here),
        "arguments": arguments(["-P", "-m", "flowbdt.cli", *words]),
        "initialdir": plain(str(place.run)),
        "environment": environment(settings.env),
        **_logs(f"{place.folder}/{name}", name, place),
    }
    return Stage(name, _text(f"flowbdt {name}, on the submit machine", lines))


def queued(stage: Stage, settings: Settings) -> str:
    """Return a description that submits all jobs of a stage at once.

    More than ``max_materialize`` jobs wait in the description until others have ended.
    """
    numbers = stage.numbers or ()
    late = len(numbers) > settings.max_materialize
    limit = f"max_materialize = {settings.max_materialize}\n" if late else ""
    rows = "".join(f"{n} {name_of(n)} {stage.memory_mib}\n" for n in numbers)
    return f"{stage.description}{limit}queue number,name,memory from (\n{rows})\n"


def dag(stages: Sequence[Stage]) -> str:
    """Return a DAG: every job of a stage waits for all of the stage before it."""
    stages = [stage for stage in stages if stage.nodes()]
    lines = ["# flowbdt: " + ", then ".join(stage.name for stage in stages)]
    for stage in stages:
        lines += [f"JOB {node} {stage.name}.sub" for node in stage.nodes()]
        lines += [
            f'VARS {node_name(stage.name, n)} number="{n}" name="{name_of(n)}"'
            f' memory="{stage.memory_mib}"'
            for n in stage.numbers or ()
        ]
    for before, after in itertools.pairwise(stages):
        lines.append(f"PARENT {' '.join(before.nodes())} CHILD {' '.join(after.nodes())}")
    return "\n".join(lines) + "\n"


def _program(words: Sequence[str], settings: Settings, place: Place) -> dict[str, str]:
    if settings.pack is None:
        program, words = settings.interpreter, ["-P", "-m", "flowbdt.cli", *words]
        transfer = "False"
    else:
        pack = Path(settings.pack).resolve()
        words = [pack.name if settings.transfer else str(pack), settings.interpreter, *words]
        program, transfer = f"{place.run}/{place.folder}/{SCRIPT}", str(settings.transfer)
    return {
        "universe": "vanilla",
        "executable": plain(program),
        "transfer_executable": transfer,
        "arguments": arguments(words),
        "environment": environment({"PYTHONUNBUFFERED": "1", **settings.env}),
        "initialdir": plain(str(place.run)),
    }


def _files(result: Sequence[str], inputs: Sequence[str], settings: Settings) -> dict[str, str]:
    if not settings.transfer:
        return {"should_transfer_files": "NO"}
    pack = [] if settings.pack is None else [str(Path(settings.pack).resolve())]
    return {
        "should_transfer_files": "YES",
        # of a failed job only its logs come back; results it lacks would put it on hold
        "when_to_transfer_output": "ON_SUCCESS",
        "preserve_relative_paths": "True",
        "transfer_input_files": file_list([*inputs, *pack]),
        "transfer_output_files": file_list(result),
        "transfer_output_remaps": string("; ".join(f"{n} = incoming/{n}" for n in result)),
    }


def _logs(stem: str, note: str, place: Place) -> dict[str, str]:
    return {
        "log": f"{place.folder}/events.log",
        "output": f"{stem}.out",
        "error": f"{stem}.err",
        "submit_event_notes": note,
        f"My.{ATTRIBUTE}": string(place.mark),
    }


def _growing(memory: str) -> str:
    """Return memory that doubles, from what was asked for and from what was used, at each hold."""
    # both attributes are undefined at first, and would make the whole undefined
    return (
        f"ifThenElse((NumHolds ?: 0) > 0, max({{ {memory} * (1 + NumHolds),"
        f" 2 * (MemoryUsage ?: 0) }}), {memory})"
    )


def _policy(settings: Settings) -> dict[str, str | int]:
    """Return what happens to jobs that fail or are held: retried so many times, then given up."""
    held = f"HoldReasonCode =!= {USER_HOLD}"
    waited = f"(time() - EnteredCurrentStatus) >= {settings.hold_release_s}"
    retries = settings.max_retries
    return {
        "success_exit_code": 0,
        "max_retries": retries,
        "periodic_release": f"{held} && NumHolds <= {retries} && ({MEMORY_HOLD} || {waited})",
        "periodic_remove": f"JobStatus == 5 && {held} && NumHolds > {retries}",
    }


def _lines_of_user(settings: Settings) -> dict[str, str]:
    return {name: plain(str(value)) for name, value in settings.submit.items()}


def _text(title: str, lines: Mapping[str, object]) -> str:
    return f"# {title}\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())
