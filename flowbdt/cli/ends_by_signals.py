"""Signals that end the program: each is an exception, so that nothing is left behind."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any


class Ended(SystemExit):
    """An end by SIGTERM or SIGHUP, as batch systems and closed terminals send them."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Interrupted(KeyboardInterrupt):
    """An end by Ctrl-C; unlike Python's own it can be watched."""


def end_of(number: int) -> Ended | Interrupted:
    """Return the exception of a signal."""
    return Interrupted() if number == signal.SIGINT else Ended(number)


HANDLERS = {
    "SIGINT": signal.default_int_handler,
    "SIGTERM": signal.SIG_DFL,
    "SIGHUP": signal.SIG_DFL,
}
"""The signals that end a program, with the handlers that are replaced: not those of others, nor
that of nohup, which ignores."""


class Ends:
    """The end that was raised last, and whether it was lost on its way.

    Python drops exceptions in callbacks from C and in finalizers, and some libraries clear those of
    code that they call: the program would go on and never end. An exception that is destroyed while
    the program goes on was lost, and its signal is sent once more.
    """

    def __init__(self) -> None:
        self.lost: int | None = None
        self._raised: weakref.ref[BaseException] | None = None

    def arrived(self, number: int, _: Any) -> None:
        """Raise the end of a signal; all but Ctrl-C once only: then it is tidied up."""
        if number == signal.SIGINT or self._raised is None or self._raised() is None:
            error = end_of(number)
            self._raised = weakref.ref(error, lambda _: self._send_again(number))
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: it would keep itself alive

    def told(self) -> None:
        """Take note that the program says by itself why it ends."""
        self.lost = self._raised = None

    def _send_again(self, number: int) -> None:
        def send() -> None:
            time.sleep(0.1)
            if self.lost is not None:
                os.kill(os.getpid(), number)

        self.lost = number
        # an exception may be destroyed anywhere, also where threading holds its locks
        _thread.start_new_thread(send, ())


@contextlib.contextmanager
def ends_by_signals() -> Iterator[Ends]:
    """Raise `Ended` or `Interrupted` at signals; elsewhere than in the main thread do nothing."""

    def unraisable(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, (Ended, Interrupted)):
            hook(dropped)

    main = threading.current_thread() is threading.main_thread()
    known = {getattr(signal, name, None): before for name, before in HANDLERS.items()}
    ours = {n: h for n, h in known.items() if main and n is not None and signal.getsignal(n) is h}
    ends = Ends()
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    for number in ours:
        signal.signal(number, ends.arrived)
    try:
        yield ends
    finally:
        ends.told()
        sys.unraisablehook = hook
        for number, handler in ours.items():
            signal.signal(number, handler)
