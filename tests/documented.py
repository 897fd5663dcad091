"""The examples of a page in their order, run in a folder that has the files which they name."""

from __future__ import annotations

import contextlib
import re
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import as_json

from flowbdt.errors import DataWarning

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
FENCE = re.compile(r'```(\w+)(?: title="([^"]+)")?\n(.*?)```', flags=re.DOTALL)
COMMAND = re.compile(r"(?:\.?v?env/bin/)?flowbdt (?!demo)(.*)")
SMALL = {
    "preset": "fast",
    "n_steps": "2",
    "booster.n_estimators": "3",
    "preconditioner": "{name: mixture, n_components: 3}",
}
"""Settings that let any table be learned in a moment, where a command does not set them itself."""
FEW = {
    "-n": "300",
    "--generate": "300",
    "--replicas": "2",
    "--oversample": "2",
    "--budget": None,
    "--evaluations": "4",
}
"""Options of which an example names more than a test has time for; None: not at all."""
ADDED = {
    "evaluate": ["--quick"],
    "report": ["--quick"],
    "response evaluate": ["--quick"],
    "unfold": ["--iterations", "1", "--replicas", "2"],
    "distil": ["-n", "300"],
    "tune": ["--trials", "1"],
    "tune-sampler": ["--trials", "2"],
}
NOT_RUN = re.compile(
    r"\S*flowbdt demo|python3 -m venv|\S*pip install|\.venv/bin/python|sh tests/run"
    r"|cmake|build/example|eval |cat >"
)
"""Lines that install, compile or show the demo, as .ci/run and other tests do, or that loop."""


@dataclass(frozen=True)
class Example:
    """A block of a page: what it is written in, the file it is, if any, and its text."""

    language: str
    file: str | None
    text: str

    def lines(self) -> Iterator[str]:
        """Yield commands without prompt, comment and line breaks."""
        text = re.sub(r"<<'END'\n.*?\nEND", "", self.text, flags=re.DOTALL)
        for line in text.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*", "", line.removeprefix("$ ")).strip()
            if command and not command.startswith("#"):
                yield command


PAGE_OF_JOBS = ROOT / "docs" / "jobs.md"


def blocks_of(text: str) -> list[Example]:
    """Return the blocks of a text."""
    return [Example(*match.groups()) for match in FENCE.finditer(text)]


def examples(path: Path) -> list[Example]:
    """Return the blocks of a page."""
    return blocks_of(path.read_text())


def words_of(line: str) -> list[str] | None:
    """Return the words of a command of flowbdt; None where a line is none."""
    filled = re.sub(r'"\$\(cat ([^)]+)\)"', lambda match: _quoted_file(match[1]), line)
    match = COMMAND.fullmatch(filled)
    return None if match is None else shlex.split(match[1])


def _quoted_file(path: str) -> str:
    text = Path(path).read_text() if Path(path).exists() else "{solver: euler}"
    return shlex.quote(text)


def small(words: list[str]) -> list[str]:
    """Return a command that does the same with few events, trees and judges."""
    few = ["serial" if word == "joblib" else word for word in words]
    rest = iter(range(len(words)))
    kept: list[str] = []
    for i in rest:
        number = few[i] in FEW and i + 1 < len(few)
        kept += [few[i]] * (not number or FEW[few[i]] is not None)
        if number:
            kept += [FEW[few[i]]] * (FEW[few[i]] is not None)
            while i + 1 < len(few) and not few[i + 1].startswith("-"):
                i = next(rest)
    name = " ".join(kept[: 2 if kept[0] == "response" else 1])
    kept += [] if set(ADDED.get(name, [])) & set(kept) else ADDED.get(name, [])
    if name in ("fit", "plan", "tune") and "--resume" not in kept:
        told = " ".join(kept)
        for setting, value in SMALL.items():
            kept += [] if f"{setting}=" in told else ["--set", f"{setting}={value}"]
    return kept


def run_page(path: Path, python: bool = True) -> int:
    """Run the examples of a page in the current folder; return how many commands there were."""
    known: dict[str, object] = {"__name__": "__main__"}
    done = 0
    for example in examples(path):
        if example.file is not None:
            Path(example.file).write_text(example.text + EXTRA.get(example.file, ""))
        elif example.language == "python" and python:
            with contextlib.redirect_stdout(None):
                exec(compile(example.text, f"{path.name}", "exec"), known)
        elif example.language in ("shell", "console"):
            done += sum(map(run_line, example.lines()))
    return done


SMALL_CHAIN = "model: {preset: fast, n_steps: 2, booster: {n_estimators: 3}}\n"
EXTRA = {"chain.yaml": SMALL_CHAIN, "jets.yaml": SMALL_CHAIN}
"""What lets a file of a page be used in a moment."""


def run_line(line: str, pool: bool = False) -> bool:
    """Run a line, with a batch system only where there is a pool.

    Return whether it is a command of flowbdt. Raises AssertionError if it fails.
    """
    words = words_of(line)
    if line.startswith("for step"):  # jobs of a batch system: the steps of the run, here
        words = ["fit", "-o", "run", "--resume", "--executor", "serial"]
    if words is None:
        assert NOT_RUN.match(line), f"neither a command of flowbdt nor left out: {line}"
        return False
    if needs_pool(words) and not pool:
        words = _on_this_machine(words)
    if words:
        _make_room(words)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # of few events
            as_json(*small(words))
    return True


def needs_pool(words: list[str]) -> bool:
    """Return whether a command asks a batch system."""
    return words[0] == "watch" or "slurm" in str(words) or words[0] == "submit"


def _on_this_machine(words: list[str]) -> list[str]:
    """Return what does the same without a batch system; none where it only waits or shows."""
    if words[0] == "watch" or "slurm" in str(words):
        return []
    if "--dag" in words:
        return ["fit", "-o", words[1], "--resume", "--executor", "serial"]
    if "--dry-run" in words:
        return words
    if "--generate" in words:
        return ["generate", words[1], "-n", "300", "-o", words[words.index("-o") + 1]]
    return ["fit", "-o", words[1], "--resume", "--executor", "serial"]


def _make_room(words: list[str]) -> None:
    """Let a folder that another example wrote be another one."""
    writes_folder = {"fit", "plan", "tune", "distil"} & set(words[:2])
    if "-o" in words and "--resume" not in words and writes_folder:
        target = Path(words[words.index("-o") + 1])
        if target.is_dir():
            target.rename(f"{target}-{len(list(Path().glob(f'{target}-*')))}-before")
