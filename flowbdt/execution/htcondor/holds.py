"""What a hold means and what to do about it."""

from __future__ import annotations

MEMORY = "it used more memory than it had asked for"

_AGAIN = "it is tried again by itself"

_ADVICE = {
    1: "somebody held it: condor_release {job} lets it go on, condor_rm {job} gives it up",
    6: "its program could not be started: set executor.python to an interpreter that exists on the"
    " nodes, or executor.pack to an environment that the job brings",
    7: "its log could not be written: is the run folder on a file system that the nodes share?"
    " else set executor.transfer=true",
    12: "its results could not be brought back: is there room where the run lies?",
    13: "its input files could not be copied: are they all there, and readable?",
    14: "the run folder is not there on the node: set executor.transfer=true, or use a folder on"
    " a file system that the nodes share",
    34: MEMORY,
    46: "it ran longer than the pool allows: ask for more time in executor.submit, or lower"
    " booster.n_estimators",
    47: "it ran longer than the pool allows: ask for more time in executor.submit, or lower"
    " booster.n_estimators",
}

_STARTD = {
    102: MEMORY,
    104: "it used more disk than it had asked for: set executor.request_disk (MiB)",
}
"""Held by the node's own policy (code 21)."""


def is_memory(code: int, subcode: int) -> bool:
    """Whether a job was held for using more memory than it had asked for."""
    return code == 34 or subcode == 102


def advice(code: int, subcode: int, job: str) -> str:
    """Return what to do about a hold of ``job`` (cluster.process)."""
    if is_memory(code, subcode):
        return (
            f"{MEMORY}; it is tried again by itself with twice as much. Set"
            " executor.request_memory (MiB) to spare the other jobs that"
        )
    known = _STARTD.get(subcode) if code == 21 else _ADVICE.get(code)
    text = (known or "see what 'condor_q -hold {job}' says").format(job=job)
    return text if code == 1 else f"{text} ({_AGAIN})"
