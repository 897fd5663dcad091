"""A run on disk: one folder that holds everything, or the same in one file.

::

    config.yaml            the full configuration
    transform.json         fitted column transforms
    preconditioner.npz     closed-form velocity, fitted once
    table/*.npy            latent events; conditions, weights and source, if any; split
    plan.json              format, digest, columns, times, hashes of the files above
    tasks/0007.json        one step to train: numbers and names only
    steps/0007.ubj         its model, then
    steps/0007.report.json what was learned, with the task's digest and the model's hash
                           (after the steps, in the same numbering, classifiers of columns)
    logs/0007.log          why a step failed; 0007.out and 0007.err of a batch job
    incoming/              results that a batch system brought and that were not checked yet
    condor/0001/           a submission to HTCondor: description, record, event log
    slurm/0001/            one to Slurm: scripts, record, exit status and output of each task
    samples/<name>/        blocks of a generated sample, see `flowbdt.generation.sample_files`
    rejection.ubj          where used: classifier that rejects generated events, with its report
    manifest.json          written last: the run is whole, hash of every model

A file appears under its name only when it is whole. A step counts as done when its report carries
the digest of its task and the model has the hash that the report states.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import atomic_files
from ..atomic_files import parse_json
from ..errors import ConfigError, FormatError
from ..tables.html_table import html_table
from ..typed_settings import check_stored

FORMAT = 7
"""Version of run directories and model files; raised when old readers would misread new files.

2: models may have a rejection. 3: one setting for noise and targets. 4: scaling and ranges of
conditions. 5: columns that classifiers draw. 6: the rejection sees what is learned relative to
conditions. 7: columns of rounded mantissas, and flows that learn from some rows."""

DESCRIBING = ("transform.json", "preconditioner.npz", "plan.json")
"""Files that generation needs beside the models; config.yaml is for people and for another fit."""

PACKED = "packed.bin"
"""In a model file: the arrays that the compiled core reads, ready to be mapped, see
`flowbdt.generation.packed.model_arrays`."""

MEMBERS = re.compile(
    r"(manifest|plan|transform)\.json|preconditioner\.npz|(rejection|density)\.ubj|packed\.bin|steps/\d+\.ubj"
)
"""Names of the members of a model file."""

MOST_DEFLATED = 100
"""A member may be so many times larger than it is in the file: trees are some 3 to 6 times, and
what would fill the memory thousands of times."""

ENCRYPTED = 0x41
"""Bits of a zip member's flags."""

REAL = ("real", "real_cond", "real_weight")
"""Of a student: training events of its teacher, for its rejection."""

MASKS = ("valid", "shown")
"""Rows that are set aside, and those that show a flow something; all do where this is not there."""

ENSEMBLE = "ensemble.json"
"""Of an ensemble, which is a folder of run folders, or a file of model files."""

MOST_REPLICAS = 1000

replica_name = "replica_{}".format
task_name = "tasks/{:04d}.json".format
model_name = "steps/{:04d}.ubj".format
report_name = "steps/{:04d}.report.json".format
log_name = "logs/{:04d}.log".format
"""Names of the files of a step: task, model, report, and the log of a failure."""

SEAL = "content_sha256"
"""Entry of a JSON file of a run with the hash of all others; files of formats 1 to 3 lack it."""

REJECTION = "rejection.ubj"
REJECTION_REPORT = "rejection.report.json"

DENSITY = "density.ubj"
"""In a model file: the ratio that its density needs, see `flowbdt.generation.density`."""


def trained_times(plan: dict[str, Any]) -> list[float]:
    """Return the times at which a velocity is trained: none where classifiers draw all columns."""
    return list(plan["grid"]["times"]) if plan["n_latent"] else []


def n_jobs(plan: dict[str, Any]) -> int:
    """Return the number of training jobs: one for each time, then one for each classifier."""
    return len(trained_times(plan)) + len(plan["fingerprint"]["columns"].get("classified", ()))


class Source(Protocol):
    """The files of a run: a folder or a single file."""

    path: Path

    def read(self, name: str) -> bytes: ...


class RunDirectory:
    """The folder of a run; the only place that knows its file names."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)

    def create(self) -> RunDirectory:
        """Make the folders. Raises RunError if the path cannot be a folder."""
        for name in ("table", "tasks", "steps", "logs"):
            atomic_files.make_folder(self.path / name)
        return self

    def _repr_html_(self) -> str:
        """Return the steps for notebooks, those that are missing first."""
        reports = {step: self.report(step) for step in range(self.n_steps())}
        missing = [step for step, report in reports.items() if report is None]
        shown = ("time", "trees", "train_rmse", "valid_rmse", "cpu_seconds")
        rows = [{"step": step, "state": "missing"} for step in missing]
        for step, report in reports.items():
            if report is not None:
                known = {name: report.get(name) for name in shown}
                rows.append({"step": step, "state": "trained", **known})
        return html_table(f"{self.path}: {len(missing)} of {len(rows)} steps missing", rows)

    def file(self, name: str) -> Path:
        """Return the path of a file by its name within the run."""
        return self.path / name

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises FormatError if it is missing."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            if name == "manifest.json" and self.is_planned():
                raise FormatError(self.unfinished()) from error
            raise FormatError(
                f"{self.path} has no readable {name} ({error}); it is not a whole flowBDT run."
                " 'flowbdt fit TABLE -o RUN' makes one, '--resume' continues one"
            ) from error

    @property
    def whole(self) -> Path:
        """The folder that a fit is told: this one, or that of the ensemble."""
        return self.path.parent if self.is_replica else self.path

    def unfinished(self) -> str:
        """Return what is missing of a planned run that is not complete, and how to go on."""
        missing = self.missing_steps()
        steps = ", ".join(map(str, missing)) or "none"
        return (
            f"{self.path}: not complete, {len(missing)} of {self.n_steps()} steps missing"
            f" ({steps}); go on with: flowbdt fit -o {shlex.quote(str(self.whole))} --resume"
        )

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the mapping of a JSON file.

        Raises FormatError if it is missing, broken, or not what was written.
        """
        what = f"{self.path / name}"
        return unsealed(parse_json(self.read(name), what), what)

    def plan(self) -> dict[str, Any]:
        """Return the plan, see `read_plan`."""
        return read_plan(self)

    def n_steps(self) -> int:
        """Return the number of training jobs of the plan, see `n_jobs`."""
        return n_jobs(self.plan())

    def missing_steps(self) -> list[int]:
        """Return the steps without a valid report, in order."""
        return [step for step in range(self.n_steps()) if self.report(step) is None]

    def task(self, step: int) -> dict[str, Any]:
        """Return a step's task with its settings under their present names.

        Raises FormatError if it is missing, broken, of a newer format or not of this step.
        """
        from .stored_run import present_task

        task, what = self.read_json(task_name(step)), f"{self.path / task_name(step)}"
        check_format(task, what)
        rest = {key: value for key, value in task.items() if key != "digest"}
        if task["format"] == FORMAT and task.get("digest") != atomic_files.digest(rest):
            raise FormatError(f"{what}: its digest is not that of its content; it is damaged")
        return present_task(task, step, what)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file with its own hash in it, whole or not at all."""
        plain = atomic_files.to_plain(value)
        seal = {SEAL: atomic_files.digest(plain)}
        atomic_files.write_json(self.path / name, {**plain, **seal})

    def write_array(self, name: str, array: np.ndarray | None) -> None:
        """Write ``table/<name>.npy``; nothing for None."""
        if array is not None:
            atomic_files.write_array(self.path / "table" / f"{name}.npy", array)

    def array(self, name: str) -> np.ndarray | None:
        """Map ``table/<name>.npy`` into memory; None if the run has none.

        Raises FormatError if it is damaged.
        """
        path = self.path / "table" / f"{name}.npy"
        if not path.exists():
            return None
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # numpy reads the header as Python
            raise FormatError(f"{path} is damaged ({error}); copy it again") from error

    def is_planned(self) -> bool:
        """Test if planning ended (plan.json is written last)."""
        return self.file("plan.json").exists()

    @property
    def is_replica(self) -> bool:
        """True for a run of an ensemble."""
        return (self.path.parent / ENSEMBLE).exists()

    def report(self, step: int) -> dict[str, Any] | None:
        """Return the report of a finished step, or None if it is not done.

        Done means: the report has the digest of the present task, and the model the hash that the
        report states. That a file exists proves nothing: it may be another configuration's.
        """
        with contextlib.suppress(FormatError):
            return self.checked_report(step)
        return None

    def checked_report(self, step: int) -> dict[str, Any] | None:
        """Return the report as `report`. Raises FormatError if task or report are damaged."""
        from .stored_run import ClassifierReport, StepReport

        task, name = self.task(step), report_name(step)
        if not self.file(name).exists():
            return None
        report, what = self.read_json(name), f"{self.path / name}"
        check_stored(report, ClassifierReport if "column" in task else StepReport, what)
        same = ("step", "column", "name") if "column" in task else ("step", "time")
        if any(report[key] != task[key] for key in same):
            raise FormatError(f"{what} is the report of another step; remove it to train it again")
        try:
            whole = atomic_files.digest_file(self.file(model_name(step))) == report["model_sha256"]
        except OSError:
            return None
        return report if whole and report["task_digest"] == task["digest"] else None

    def receive(self, result: str, report: str, key: str) -> bool:
        """Move a result and its report from ``incoming/`` to their places, if both are whole.

        A batch system writes files bit by bit under their names. So it brings them to
        ``incoming/``, and only what has the hash that its report states under ``key`` is moved, the
        report last. Returns whether it was. Raises RunError if it cannot be moved.
        """
        arrived, described = (self.file(f"incoming/{name}") for name in (result, report))
        try:
            stated = self.read_json(f"incoming/{report}")[key]
            whole = atomic_files.digest_file(arrived) == stated
        except (FormatError, KeyError, TypeError, OSError):
            return False
        if whole:
            atomic_files.move(arrived, self.file(result))
            atomic_files.move(described, self.file(report))
        return whole


class Archive:
    """A whole run in one file (a zip), without tables, tasks and logs.

    Raises FormatError if it is no such file, or has a member that is not of a model, encrypted,
    compressed more than `MOST_DEFLATED` times, there twice, or longer than the file.
    """

    known = MEMBERS

    def __init__(self, path: str | Path, content: bytes | None = None) -> None:
        self.path, self._content = Path(path), content
        try:
            self._zip = zipfile.ZipFile(path if content is None else io.BytesIO(content))
            members = self._zip.infolist()
            size = self.path.stat().st_size if content is None else len(content)
        except Exception as error:
            raise FormatError(
                f"{path} is not a whole flowBDT model file ({error}); it may be truncated: copy it"
                " again, or save the model anew"
            ) from error
        if min((member.header_offset for member in members), default=0):
            # of the file of an ensemble that was cut off, the last whole member looks like a file
            raise FormatError(
                f"{path} does not begin with a member of a flowBDT model: it is truncated or was"
                " put together from others; copy it again, or save the model anew"
            )
        names = {member.filename for member in members}
        for member in members:
            most = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MOST_DEFLATED}
            plain = member.compress_type in most and not member.flag_bits & ENCRYPTED
            whole = member.compress_size <= size - member.header_offset
            sound = member.file_size <= most.get(member.compress_type, 0) * member.compress_size
            known = self.known.fullmatch(member.filename) and len(names) == len(members)
            if not (plain and whole and sound and known):
                raise FormatError(
                    f"{path}: the member {member.filename[:80]!r} is compressed too much,"
                    " encrypted, there twice, cut off or none of a flowBDT model: save the model"
                    " anew"
                )

    def read(self, name: str) -> bytes:
        """Return a member's bytes. Raises FormatError if it is missing or damaged."""
        try:
            return self._zip.read(name)
        except Exception as error:
            raise FormatError(
                f"{self.path} has no readable {name} ({error}): it is truncated or not a flowBDT"
                " model file"
            ) from error

    def mapped(self, name: str) -> memoryview | None:
        """Map a member into memory, without a check of its bytes; None if there is none.

        Raises FormatError if it is cut off.
        """
        if name not in self._zip.namelist():
            return None
        info = self._zip.getinfo(name)
        if self._content is not None:
            whole = memoryview(self._content)
        else:
            with open(self.path, "rb") as handle:
                whole = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        head = whole[info.header_offset :][:30]
        start = (
            info.header_offset + 30 + sum(struct.unpack("<HH", bytes(head[26:]).ljust(4, b"\0")))
        )
        member = whole[start : start + info.file_size]
        if len(member) < info.file_size:
            raise FormatError(f"{self.path}: {name} is damaged; copy the file or save it again")
        return member


class Replicas:
    """An ensemble of runs: a folder of run folders, or one file of model files.

    Read as one run it is the first of its ``members``. Raises FormatError as they do, or if one is
    missing.
    """

    def __init__(self, path: Path, about: Any, member: Callable[[str], Source]) -> None:
        check_format(about, f"{path}: {ENSEMBLE}")
        n, self.seed = about.get("n_replicas"), about.get("seed")
        if type(n) is not int or not 2 <= n <= MOST_REPLICAS or type(self.seed) is not int:
            raise FormatError(
                f"{path}: {ENSEMBLE} states {n!r} replicas of seed {self.seed!r}, not 2 to"
                f" {MOST_REPLICAS} of a whole number: it is damaged"
            )
        self.path, self.about = path, about
        self.members = [member(replica_name(k)) for k in range(n)]

    @classmethod
    def of_folder(cls, path: Path) -> Replicas:
        """Open the folder of an ensemble."""
        about = RunDirectory(path).read_json(ENSEMBLE)
        return cls(path, about, lambda name: RunDirectory(path / name))

    @classmethod
    def of_file(cls, path: Path, content: bytes | None = None) -> Replicas:
        """Open the file of an ensemble."""
        archive = _ReplicaArchive(path, content)
        about = parse_json(archive.read(ENSEMBLE), f"{path}: {ENSEMBLE}")
        return cls(path, about, lambda name: Archive(f"{path}: {name}", archive.read(name)))

    def read(self, name: str) -> bytes:
        """Return a file's bytes of the first run."""
        return self.members[0].read(name)

    def archive_bytes(self) -> bytes:
        """Return all in one file: equal ensembles give equal bytes."""
        contents = {ENSEMBLE: atomic_files.json_bytes(self.about)}
        for k, member in enumerate(self.members):
            contents[replica_name(k)] = archive_bytes(member, read_manifest(member))
        return _zipped(contents)


class _ReplicaArchive(Archive):
    known = re.compile(rf"{re.escape(ENSEMBLE)}|replica_\d+")


def open_run(path: str | PathLike[str]) -> Source:
    """Open a run folder, a model file, or an ensemble. Raises FormatError if there is neither."""
    path = Path(path)
    if not path.exists():
        raise FormatError(f"{path} does not exist; expected a run folder or a model file")
    if not path.is_dir():
        return open_file(path)
    return Replicas.of_folder(path) if (path / ENSEMBLE).exists() else RunDirectory(path)


def open_file(path: Path, content: bytes | None = None) -> Archive | Replicas:
    """Open a model file, or its bytes, or that of an ensemble. Raises FormatError."""
    try:
        with zipfile.ZipFile(path if content is None else io.BytesIO(content)) as whole:
            names = whole.namelist()
    except Exception:  # `Archive` says what is wrong
        names = []
    return Replicas.of_file(path, content) if ENSEMBLE in names else Archive(path, content)


def unsealed(content: Any, what: str) -> dict[str, Any]:
    """Return a mapping without its hash. Raises FormatError if it is no mapping or was changed."""
    if not isinstance(content, dict):
        raise FormatError(f"{what} holds no mapping; it is damaged")
    rest = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != atomic_files.digest(rest):
        raise FormatError(f"{what} is not as it was written: it is damaged or was changed by hand")
    return rest


def check_format(content: dict[str, Any], what: str) -> None:
    """Refuse a file of a format that this release does not know."""
    stored = content.get("format") if isinstance(content, dict) else None
    if type(stored) is not int or not 1 <= stored <= FORMAT:
        raise FormatError(
            f"{what} has format {stored!r}; this release reads 1 to {FORMAT}. A newer flowBDT wrote"
            " it, or it is no flowBDT file: upgrade with 'pip install -U flowbdt'"
        )
    planned = content.get("fingerprint", content)  # of a plan, or a task
    events = planned.get("events") if isinstance(planned, dict) else None
    grid = content.get("grid")
    student = isinstance(events, dict) and "ways" in events
    if student and not (isinstance(grid, dict) and grid.get("times") == [0.0]):
        raise FormatError(
            f"{what} is of a student of an earlier version, with more than one evaluation or not"
            " trained to its end, which this release does not read: students have one evaluation;"
            " train it anew with 'flowbdt distil'"
        )


def read_plan(source: Source) -> dict[str, Any]:
    """Return the plan of a run. Raises FormatError if it is missing, broken or of a newer format.

    Settings of older formats come under their present names.
    """
    what = f"{source.path}: plan.json"
    plan = parse_json(source.read("plan.json"), what)
    return present_plan(unsealed(plan, what) if isinstance(source, RunDirectory) else plan, what)


def present_plan(plan: Any, what: str) -> dict[str, Any]:
    """Return a parsed plan of any format, checked, with settings under their present names."""
    from .stored_run import check_plan, present_noise, present_settings  # YAML is slow to load

    check_format(plan, what)
    plan = {name: value for name, value in plan.items() if name != SEAL}
    check_plan(plan, what)
    settings = present_noise(present_settings(plan["fingerprint"]["settings"]))
    return {**plan, "fingerprint": {**plan["fingerprint"], "settings": settings}}


def read_manifest(source: Source) -> dict[str, Any]:
    """Return the manifest of a run. Raises FormatError if it has not the form it must have."""
    from .stored_run import Manifest

    what = f"{source.path}: manifest.json"
    manifest = parse_json(source.read("manifest.json"), what)
    if isinstance(source, RunDirectory):
        manifest = unsealed(manifest, what)
    check_format(manifest, what)
    manifest.pop(SEAL, None)
    check_stored(manifest, Manifest, what)
    return dict(manifest)


def check_whole(manifest: dict[str, Any], plan: dict[str, Any], what: str) -> None:
    """Raise FormatError unless a manifest belongs to a plan and names every step's model."""
    names, n_times = [model_name(job) for job in range(n_jobs(plan))], len(trained_times(plan))
    drawn = list(plan["fingerprint"]["columns"].get("classified", ()))
    stated = manifest["files"]
    good = {
        "digest": manifest["digest"] == plan["digest"],
        "models": sorted(manifest["models"]) == names,
        "steps": [one["step"] for one in manifest["steps"]] == list(range(n_times)),
        "classifiers": [one["name"] for one in manifest.get("classifiers", ())] == drawn,
        "files": set(DESCRIBING) <= set(stated) <= {*DESCRIBING, REJECTION, DENSITY, PACKED},
        "hashes": plan["fingerprint"]["fitted"] == {k: stated.get(k) for k in DESCRIBING[:2]},
    }
    for name, fits in good.items():
        if not fits:
            raise FormatError(
                f"{what}: {name} of the manifest do not fit the plan: the run is not whole, or of"
                " another plan. Copy it again, or finish it with 'flowbdt fit --resume'"
            )


def read_model(source: Source, step: int, manifest: dict[str, Any]) -> bytes:
    """Return the bytes of one step's model after holding them against the manifest's hash."""
    name = model_name(step)
    content = source.read(name)
    expected = manifest["models"].get(name)
    if atomic_files.digest_bytes(content) != expected:
        raise FormatError(
            f"{source.path}: {name} does not have the hash that the manifest states; it is damaged"
            " or from another run. Copy it again, or delete it and run 'flowbdt fit --resume'"
        )
    return content


def archive_bytes(source: Source, manifest: dict[str, Any]) -> bytes:
    """Return a whole run as one file: equal runs give equal bytes (fixed dates, fixed order)."""
    names = [*manifest["files"], "manifest.json", *sorted(manifest["models"])]
    own = {"manifest.json": atomic_files.json_bytes(manifest)}
    return _zipped({name: own[name] if name in own else source.read(name) for name in names})


def _zipped(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            times = len(content) / max(len(zlib.compress(content)), 1)
            way = zipfile.ZIP_DEFLATED if 1 < times < MOST_DEFLATED / 2 else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, way)
    return buffer.getvalue()


def with_density(content: bytes, density: bytes) -> bytes:
    """Return a model file with the bytes of a density, in place of one that it has."""
    source = Archive("this model", content)
    manifest = read_manifest(source)
    return _with(source, manifest, DENSITY, density)


def with_card(content: bytes, card: dict[str, Any]) -> bytes:
    """Return a model file with another card. Raises ConfigError for an ensemble."""
    source = open_file(Path("this model"), content)
    if isinstance(source, Replicas):
        raise ConfigError("a card is added to a model, not to an ensemble: give it at fit")
    plan = {**parse_json(source.read("plan.json"), "plan.json"), "card": card}
    return _with(source, read_manifest(source), "plan.json", atomic_files.json_bytes(plan))


def _with(source: Source, manifest: dict[str, Any], name: str, content: bytes) -> bytes:
    """Return a model file with other content under a name."""
    manifest["files"][name] = atomic_files.digest_bytes(content)
    manifest.pop("packed", None)
    return archive_bytes(_Beside(source, name, content), manifest)


class _Beside:
    """A run with other content under a name."""

    def __init__(self, source: Source, name: str, content: bytes) -> None:
        self.path, self._source, self._name, self._content = source.path, source, name, content

    def read(self, name: str) -> bytes:
        return self._content if name == self._name else self._source.read(name)


def with_packed(content: bytes, arrays: bytes | None) -> bytes:
    """Return a model file with packed arrays, if any; they begin at a multiple of 64 bytes.

    The manifest states their hash as ``packed``.
    """
    if arrays is None:
        return content
    source = Archive("this model", content)
    manifest = parse_json(source.read("manifest.json"), "manifest.json")
    manifest["packed"] = atomic_files.digest_bytes(arrays)
    buffer = io.BytesIO(archive_bytes(source, manifest))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        info = zipfile.ZipInfo(PACKED, (1980, 1, 1, 0, 0, 0))
        begin = archive.start_dir + 30 + len(PACKED) + 4
        fill = -begin % 64
        info.extra = struct.pack("<HH", 0xFB0D, fill) + bytes(fill)
        archive.writestr(info, arrays)
    return buffer.getvalue()
