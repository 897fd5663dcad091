"""Peak memory of a part of this process."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Let the peak start again from the memory that is in use now, where the system can (Linux).

    Elsewhere `peak_mib` stays an upper bound: the peak of the process since its start, and of a
    forked one before that.
    """
    with contextlib.suppress(OSError):
        REFERENCES.write_text("5")


def peak_mib() -> float:
    """Return the largest resident memory since `reset_peak`, in MiB."""
    with contextlib.suppress(OSError, StopIteration):
        # not `ru_maxrss`, which a forked process inherits, even if it becomes another program
        lines = STATUS.read_text().splitlines()
        return int(next(s for s in lines if s.startswith("VmHWM")).split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
