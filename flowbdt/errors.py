"""Every error and warning that flowBDT raises on purpose.

One root, so that a caller can catch all of them; each child also derives from the built-in
exception that a user of numpy or scikit-learn would expect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class FlowbdtError(Exception):
    """Root of all flowBDT errors."""


class InputError(FlowbdtError, ValueError):
    """A table, array or file has the wrong shape, type, names or values."""


class InputTypeError(InputError, TypeError):
    """The entries of a table are of a kind that cannot become numbers."""


class ConfigError(FlowbdtError, ValueError):
    """A setting is unknown, of the wrong type, or contradicts another one."""


class GridError(FlowbdtError, ValueError):
    """A velocity is needed at a time for which no step model was trained."""


class FormatError(FlowbdtError, ValueError):
    """A file is truncated, foreign, or of a format version this release cannot read."""


class RunError(FlowbdtError, RuntimeError):
    """A run directory cannot be used (another run's folder, no space, a failed step)."""


class IncompleteRun(RunError):
    """Steps of a run are missing; the message names them and the command that makes them.

    ``reason`` is that of the first step that failed, as far as it is known.
    """

    def __init__(self, message: str, reason: str = "unknown") -> None:
        super().__init__(message)
        self.reason = reason


class FetchError(FlowbdtError, OSError):
    """A public file could not be downloaded, or is not the one that its source describes."""


class MissingExtra(FlowbdtError, ImportError):
    """An optional dependency is not installed; the message has the command that installs it."""

    @classmethod
    def of(cls, package: str, error: ImportError, extra: str) -> MissingExtra:
        """Return the error for a package of an extra that could not be imported."""
        return cls(
            f"{package} is not usable ({error}); install it with: pip install 'flowbdt[{extra}]'"
        )


class DataWarning(UserWarning):
    """The data were accepted, but something about them deserves a look."""


class SlowWarning(UserWarning):
    """Something is slower than it could be; the message says why."""


class JobWarning(UserWarning):
    """A job was held, lost, or not understood; the message says what happens next."""


def plural(count: int, noun: str) -> str:
    """Return a number with its noun, as ``"1 row"`` or ``"3 rows"``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever goes wrong while stored content is read into a FormatError that names it.

    Files may come from strangers, so any error means that the content is not what we wrote.
    """
    try:
        yield
    except MissingExtra:
        raise
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from error
    except Exception as error:
        kind = "" if isinstance(error, FlowbdtError) else f"{type(error).__name__}: "
        raise FormatError(
            f"{what}: it is damaged, or was not written by flowBDT ({kind}{str(error)[:300]})"
        ) from error
