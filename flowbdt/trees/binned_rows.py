"""XGBoost's tables of binned rows: Ctrl-C ends their making, and a forked process can make them.

XGBoost fetches rows by callbacks from C, where Python drops exceptions with no more than a line on
standard error: after Ctrl-C there, a table would be cut short and training would go on with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from .xgboost_on_demand import xgb


class Signals:
    """Signals that arrived while a table is made, for their handlers in Python."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._waiting: list[tuple[int, FrameType | None]] = []
        self._hold = True

    def arrived(self, number: int, frame: FrameType | None) -> None:
        """Keep a signal for later."""
        self._waiting.append((number, frame))
        if not self._hold:
            self.deliver()

    def deliver(self) -> None:
        """Call the handlers of what arrived, Ctrl-C first; they may raise."""
        self._waiting.sort(key=lambda signal_: signal_[0] != signal.SIGINT)
        while self._waiting:
            number, frame = self._waiting.pop(0)
            self.handlers[number](number, frame)

    def release(self) -> None:
        """Give the handlers back, and deliver."""
        self._hold = False
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.deliver()


@contextlib.contextmanager
def signals_held() -> Iterator[Signals]:
    """Hold back signals that have handlers in Python, for `Signals.deliver`, at the latest the end.

    Handlers run in the main thread only, so that elsewhere there is nothing to do.
    """
    held = Signals()
    try:
        if threading.current_thread() is threading.main_thread():
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler):
                    held.handlers[number] = handler
                    signal.signal(number, held.arrived)
        yield held
    finally:
        held.release()


def binned(data: Any, label: Any = None, **options: Any) -> xgb.QuantileDMatrix:
    """Return the binned table of an array; parameters as XGBoost's. Signals' handlers may raise."""
    with signals_held():
        return xgb.QuantileDMatrix(data, label, **options)


def _end_threads() -> None:
    """End the OpenMP threads of this thread: a forked process would wait for them for ever."""
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().select(user_api="openmp").lib_controllers:
        pause = getattr(library.dynlib, "omp_pause_resource_all", None)
        if pause is not None:
            pause(1)  # omp_pause_soft: started again when they are needed


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_end_threads)
