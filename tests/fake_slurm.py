"""A Slurm of one machine, for tests: sbatch, squeue, sacct and scancel as far as flowBDT uses them.

The program acts as whatever name it is called by. Jobs run one after the other, in the background;
their states are files in the folder FAKE_SLURM. A job that requests less memory than FAKE_NEEDS
(MiB) lacks it. Without the file ``accounting`` in the folder sacct fails, as where none is kept.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])


def tasks():
    """All tasks of all jobs: id and number within the array -> what is known."""
    return {
        tuple(map(int, path.stem.split("_"))): json.loads(path.read_text())
        for path in sorted(STATE.glob("[0-9]*_*.json"))
    }


def put(number, task, **what):
    part = STATE / f"{number}_{task}.part"
    part.write_text(json.dumps(what))
    part.rename(part.with_suffix(".json"))


def sbatch(words):
    *options, script = words
    text = Path(script).read_text()
    given = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    low, high = map(int, given["array"].split("%")[0].split("-"))
    number = 100 + len({number for number, _ in tasks()})
    for task in range(low, high + 1):
        put(number, task, name=given["job-name"], state="PENDING", code="0:0")
    after = [i for o in options if o.startswith("--dependency") for i in o.split(":")[1:]]
    runner = [sys.executable, "-S", __file__, "run", str(number), script, ",".join(after)]
    runner += [given.get("mem", "0M"), given["output"]]
    subprocess.Popen(runner, start_new_session=True, stdout=subprocess.DEVNULL)
    print(number)


def run(words):
    number, script, after, memory, output = int(words[0]), *words[1:]
    before = set(map(int, filter(None, after.split(","))))
    while any(t["state"] in ("PENDING", "RUNNING") for (n, _), t in tasks().items() if n in before):
        time.sleep(0.05)
    well = all(t["state"] == "COMPLETED" for (n, _), t in tasks().items() if n in before)
    for (n, task), what in tasks().items():
        if n == number:
            ended = one(number, task, what, script, memory, output) if well else ("CANCELLED", 0)
            put(number, task, **{**what, "state": ended[0], "code": f"{ended[1]}:0"})


def one(number, task, what, script, memory, output):
    if int(memory.rstrip("M")) < int(os.environ.get("FAKE_NEEDS", "0")):
        return "OUT_OF_MEMORY", 0
    put(number, task, **{**what, "state": "RUNNING"})
    environ = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}
    with open(output.replace("%a", str(task)), "a") as log:
        status = subprocess.run(["sh", script], env=environ, stdout=log, stderr=log, check=False)
    return "FAILED" if status.returncode else "COMPLETED", status.returncode


def squeue(words):
    names = next(w for w in words if w.startswith("--name=")).split("=")[1].split(",")
    for (number, task), what in tasks().items():
        if what["name"] in names and what["state"] in ("PENDING", "RUNNING"):
            print(f"{what['name']}|{task}|{number}|{what['state']}|node1|None")


def sacct(words):
    if not (STATE / "accounting").exists():
        sys.exit("Slurm accounting storage is disabled")
    ids = next(w for w in words if w.startswith("--jobs=")).split("=")[1].split(",")
    for (number, task), what in tasks().items():
        if str(number) in ids:
            print(f"{number}_{task}|{what['state']}|{what['code']}")


def scancel(words):
    for (number, task), what in tasks().items():
        if str(number) in words:
            put(number, task, **{**what, "state": "CANCELLED"})


if __name__ == "__main__":
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "fake_slurm.py":
        name, words = words[0], words[1:]
    {"sbatch": sbatch, "squeue": squeue, "sacct": sacct, "scancel": scancel, "run": run}[name](
        words
    )
