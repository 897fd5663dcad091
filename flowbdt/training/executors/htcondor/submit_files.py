"""Submit descriptions and DAGs as text, from settings that are checked before anything is sent.

Nothing here talks to HTCondor, so golden files hold it. Arguments and environment are one quoted
text each: double quotes around all, single quotes around what has blanks, and both kinds doubled
where they are meant literally. A dollar sign would start a macro, so that it is written as one.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....errors import ConfigError
from ....typed_settings import AtLeastOne, AtLeastZero
from ...numbered_jobs import Batch, JobKind, Needs, name_of
from ..batch_settings import BatchSettings
from ..submission_records import Place, Stage, node_name

PACKS = (".whl", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

RESERVED = frozenset(
    """
    universe executable transfer_executable arguments environment initialdir log output error
    should_transfer_files when_to_transfer_output preserve_relative_paths transfer_input_files
    transfer_output_files transfer_output_remaps request_cpus request_memory request_disk
    success_exit_code max_retries periodic_release periodic_remove submit_event_notes queue
    max_materialize on_exit_remove on_exit_hold
    """.split()  # noqa: SIM905
)
"""Commands of a description that flowBDT writes; all others are the user's."""


@dataclass(frozen=True)
class JobSettings(BatchSettings):
    """Parameters of the executor ``htcondor``, beside those of all batch systems.

    Parameters
    ----------
    transfer : copy files to the node and back; false where node and submit machine share files
    pack : environment that the job unpacks: a packed conda environment (``.tar.gz``), or a wheel of
        flowBDT to use with an interpreter that has the other packages
    request_disk : MiB per job; by default from the cost model
    hold_release_s : seconds after which a held job is tried again; one that lacked memory is at
        once, with more
    max_materialize : jobs in the queue at a time; the others wait in the description

    ``max_retries`` also counts releases; ``submit`` has further lines of the description, e.g.
    ``{"accounting_group": "higgs"}``.

    Raises
    ------
    ConfigError
        For values that cannot work.
    """

    transfer: bool = False
    pack: str | None = None
    request_disk: AtLeastOne | None = None
    hold_release_s: AtLeastZero = 60
    max_materialize: AtLeastOne = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.submit:
            if not re.fullmatch(r"\+?[A-Za-z_][\w.]*", name) or name.lower() in RESERVED:
                raise ConfigError(
                    f"executor.submit cannot set {name!r}: it must be the name of a command that"
                    " flowBDT does not write itself (requirements, accounting_group, +JobFlavour)."
                    " Memory, disk, cores and retries have settings:"
                    " executor.request_memory=2000"
                )
        if self.pack is not None and not self.pack.endswith(PACKS):
            raise ConfigError(f"executor.pack must end in {', '.join(PACKS)}: {self.pack}")
        if self.pack is not None and not Path(self.pack).is_file():
            raise ConfigError(f"executor.pack: there is no file {self.pack}")


_DOLLAR = re.compile(r"\$(?!\((?:number|numbers|name|memory|files)\))")
"""A literal dollar, not that of a variable which differs between the jobs of a description."""


def plain(text: str) -> str:
    """Return text for the right side of ``name = value``. Raises ConfigError for line breaks."""
    if "\n" in text or "\r" in text or text != text.strip():
        raise ConfigError(
            f"HTCondor descriptions hold no line breaks and no blanks at the ends, got {text!r}"
        )
    return _DOLLAR.sub("$(DOLLAR)", text)


def arguments(words: Sequence[str]) -> str:
    """Return words as the quoted value of ``arguments``; no words give ``""``."""
    return '"' + " ".join(_word(word) for word in words) + '"'


def environment(variables: Mapping[str, object]) -> str:
    """Return variables as the quoted value of ``environment``. Raises ConfigError for bad names."""
    for name in variables:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"{name!r} is no name of an environment variable")
    return '"' + " ".join(f"{name}={_word(str(v))}" for name, v in variables.items()) + '"'


def _word(word: str) -> str:
    text = _DOLLAR.sub("$(DOLLAR)", word).replace('"', '""')
    if "\n" in word or "\r" in word:
        raise ConfigError(f"HTCondor takes no line breaks in arguments, got {word!r}")
    if not text or re.search(r"[\s']", text):
        return "'" + text.replace("'", "''") + "'"
    return text


def string(text: str) -> str:
    """Return text as a ClassAd string."""
    return '"' + plain(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def file_list(names: Sequence[str]) -> str:
    """Return names for ``transfer_input_files``. Raises ConfigError for commas, which divide."""
    for name in names:
        if "," in name or '"' in name:
            raise ConfigError(
                f"HTCondor cannot copy a file with a comma or a quote in its name: {name};"
                " rename it, or use a shared file system (executor.transfer=false)"
            )
    return ", ".join(plain(name) for name in names)


MEMORY_HOLD = "(HoldReasonCode == 34 || HoldReasonSubCode == 102)"
"""Held for memory: by the kernel's limit (34), or by the policy HOLD_IF_MEMORY_EXCEEDED (102)."""

ATTRIBUTE = "FlowbdtSubmission"
"""The attribute of jobs by which the queue tells submissions apart."""

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
case $pack in /*) ;; *) pack=$PWD/$pack ;; esac
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
class PoolStage(Stage):
    """Jobs of one description; their names stand in the event log and in a DAG.

    ``files`` are inputs of one number each, with ``$(name)`` for its four digits.
    """

    memory_mib: int = 0
    files: tuple[str, ...] = ()

    def variables(self) -> list[dict[str, str]]:
        """Return what differs between the jobs; only the last value may hold blanks."""
        return [
            {
                "number": str(batch[0]),
                "name": name_of(batch[0]),
                "memory": str(self.memory_mib),
                "numbers": "+".join(map(str, batch)),
                **({"files": self._files(batch)} if self.files else {}),
            }
            for batch in self.batches or ()
        ]

    def _files(self, batch: Batch) -> str:
        names = (name.replace("$(name)", name_of(n)) for n in batch for name in self.files)
        return ", ".join(names)


def numbered(
    kind: JobKind,
    inputs: Sequence[str],
    needs: Needs,
    batches: Sequence[Batch],
    settings: JobSettings,
    place: Place,
) -> PoolStage:
    """Return the stage that does numbered jobs of a kind on nodes of the pool, batch by batch.

    ``inputs`` are files to copy, with ``$(name)`` for the four digits of a number; ``needs`` is the
    memory and disk of a job where the settings leave them open.
    """
    memory = settings.request_memory or needs.memory_mib
    # room for the packed environment and what it unpacks to, about
    pack_mib = 0 if settings.pack is None else 4 * Path(settings.pack).stat().st_size / 2**20
    disk = settings.request_disk or needs.disk_mib + round(pack_mib)
    lines = {
        **_program(kind.command("$(numbers)"), settings, place),
        **_files(kind, inputs, settings),
        **_logs(kind.logs("$(name)"), f"{kind.noun}-$(number)", place),
        "request_cpus": settings.request_cpus,
        # doubles at each hold; both attributes are undefined at first, and would make it undefined
        "request_memory": "ifThenElse((NumHolds ?: 0) > 0, max({ $(memory) * (1 + NumHolds),"
        " 2 * (MemoryUsage ?: 0) }), $(memory))",
        "request_disk": f"{disk}MB",
        **_policy(settings),
        **{name: plain(str(value)) for name, value in settings.submit.items()},
    }
    text = _text(f"flowbdt {kind.noun}: {'one' if kind.folder is None else 'some'} per job", lines)
    comes_back = [*kind.result("0"), kind.logs("0")]
    folders = {str(Path(name).parent) for name in comes_back}
    folders |= {f"incoming/{folder}" for folder in folders if settings.transfer}
    own = tuple(name for name in inputs if "$(name)" in name) if settings.transfer else ()
    return PoolStage(kind.noun, text, tuple(batches), tuple(sorted(folders)), memory, own)


def single(name: str, words: Sequence[str], settings: JobSettings, place: Place) -> PoolStage:
    """Return a stage of one job that runs on the submit machine itself, where the run is."""
    lines = {
        "universe": "local",
        "executable": plain(sys.executable),
        "arguments": arguments(["-P", "-m", "flowbdt.cli", *words]),
        "initialdir": plain(str(place.run)),
        "environment": environment(settings.env),
        **_logs(f"{place.folder}/{name}", name, place),
    }
    return PoolStage(name, _text(f"flowbdt {name}, on the submit machine", lines))


def queued(stage: PoolStage, settings: JobSettings) -> str:
    """Return a description that submits all jobs of a stage at once.

    More than ``max_materialize`` jobs wait in the description until others have ended.
    """
    jobs = stage.variables()
    late = len(jobs) > settings.max_materialize
    limit = f"max_materialize = {settings.max_materialize}\n" if late else ""
    rows = "".join(" ".join(job.values()) + "\n" for job in jobs)
    return f"{stage.description}{limit}queue {','.join(jobs[0])} from (\n{rows})\n"


def dag(stages: Sequence[PoolStage]) -> str:
    """Return a DAG: every job of a stage waits for all of the stage before it."""
    stages = [stage for stage in stages if stage.nodes()]
    lines = ["# flowbdt: " + ", then ".join(stage.name for stage in stages)]
    for stage in stages:
        lines += [f"JOB {node} {stage.name}.sub" for node in stage.nodes()]
        for job in stage.variables():
            values = " ".join(f'{name}="{value}"' for name, value in job.items())
            lines.append(f"VARS {node_name(stage.name, int(job['number']))} {values}")
    for before, after in itertools.pairwise(stages):
        lines.append(f"PARENT {' '.join(before.nodes())} CHILD {' '.join(after.nodes())}")
    return "\n".join(lines) + "\n"


def _program(words: Sequence[str], settings: JobSettings, place: Place) -> dict[str, str]:
    python = settings.python or sys.executable
    if settings.pack is None:
        program, words = python, ["-P", "-m", "flowbdt.cli", *words]
        transfer = "False"
    else:
        pack = Path(settings.pack).resolve()
        words = [pack.name if settings.transfer else str(pack), python, *words]
        program, transfer = f"{place.run}/{place.folder}/{SCRIPT}", str(settings.transfer)
    return {
        "universe": "vanilla",
        "executable": plain(program),
        "transfer_executable": transfer,
        "arguments": arguments(words),
        "environment": environment({**{"PYTHONUNBUFFERED": "1"}, **settings.env}),
        "initialdir": plain(str(place.run)),
    }


def _files(kind: JobKind, inputs: Sequence[str], settings: JobSettings) -> dict[str, object]:
    if not settings.transfer:
        return {"should_transfer_files": "NO"}
    pack = [] if settings.pack is None else [str(Path(settings.pack).resolve())]
    shared = [name for name in inputs if "$(name)" not in name]
    own = ["$(files)"] if len(shared) < len(inputs) else []
    if kind.folder is None:  # of a job that failed only its logs come back: results it lacks
        result: tuple[str, ...] = kind.result("$(name)")  # would put it on hold
        when: dict[str, object] = {"when_to_transfer_output": "ON_SUCCESS", "success_exit_code": 0}
    else:  # of several what was done does, whatever ends the job; a success code would prevent it
        result, when = (kind.folder,), {"when_to_transfer_output": "ON_EXIT_OR_EVICT"}
    return {
        "should_transfer_files": "YES",
        **when,
        "preserve_relative_paths": "True",
        "transfer_input_files": file_list([*own, *shared, *pack]),
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


def _policy(settings: JobSettings) -> dict[str, str | int]:
    """Return the retries and releases of failed and held jobs, after which they are removed."""
    held = "HoldReasonCode =!= 1"  # 1: by hand; only a hand releases
    waited = f"(time() - EnteredCurrentStatus) >= {settings.hold_release_s}"
    retries = settings.max_retries
    return {
        "max_retries": retries,
        "periodic_release": f"{held} && NumHolds <= {retries} && ({MEMORY_HOLD} || {waited})",
        "periodic_remove": f"JobStatus == 5 && {held} && NumHolds > {retries}",
    }


def _text(title: str, lines: Mapping[str, object]) -> str:
    return f"# {title}\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())
