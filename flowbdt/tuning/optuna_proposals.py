"""What to try next: Optuna's tree-structured Parzen estimator, its study in an SQLite file.

The only place that knows Optuna. It proposes and remembers; what was found is in JSON files of our
own, from which a lost database is built anew. The estimator keeps no state that would be pickled.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import seeding
from ..errors import FormatError, MissingExtra
from .search_space import Choice, Space

RANDOM_TRIALS = 10
"""Trials, first tries included, before the estimator takes over from random choice."""

TIMEOUT_S = 60
"""So long a locked database is waited for."""


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra(f"tuning needs optuna: pip install 'flowbdt[tune]' ({error})") from error
    return optuna


def check_installed() -> None:
    """Raise MissingExtra, before any long work, if Optuna is not installed."""
    _optuna()


@contextlib.contextmanager
def _whole(database: Path | None) -> Iterator[None]:
    """Raise FormatError instead of what SQLAlchemy, which comes with Optuna, raises if damaged."""
    from sqlalchemy.exc import DatabaseError, OperationalError

    try:
        yield
    except OperationalError:  # such as one that is locked
        raise
    except DatabaseError as error:
        raise FormatError(
            f"{database} is damaged ({error.orig}); delete it, then resume: it is built anew from"
            " the trials"
        ) from error


class Proposals:
    """Parameters to try, by what earlier trials found; every objective is to be small.

    Parameters
    ----------
    database : file, made if absent; None keeps the study in memory
    space : what to choose from
    n_objectives : numbers that each trial gives
    seed : proposals depend on it, on the number of the trial, and on what is known by then
    first : parameters to begin with, proposed in this order
    n_random : trials before the estimator takes over

    Raises
    ------
    FormatError
        If the database is damaged.
    """

    def __init__(
        self,
        database: Path | None,
        space: Space,
        n_objectives: int,
        *,
        seed: int,
        first: Sequence[Mapping[str, Any]] = (),
        n_random: int = RANDOM_TRIALS,
    ) -> None:
        self._optuna, self._seed, self._n_random = _optuna(), seed, n_random
        self._space = space
        self._distributions = {name: self._distribution(p) for name, p in space.items()}
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        with _whole(database):
            self._storage = None if database is None else self._open(database)
            self._study = self._optuna.create_study(
                storage=self._storage,
                study_name="flowbdt",
                directions=["minimize"] * n_objectives,
                load_if_exists=True,
            )
        with warnings.catch_warnings():  # "enqueued twice" is what a resumed study does
            warnings.simplefilter("ignore")
            for params in first:
                self._study.enqueue_trial(dict(params), skip_if_exists=True)

    def _open(self, database: Path) -> Any:
        from sqlalchemy import URL  # comes with optuna

        url = URL.create("sqlite", database=str(database.resolve()))
        settings = {"connect_args": {"timeout": TIMEOUT_S}}
        return self._optuna.storages.RDBStorage(
            url.render_as_string(hide_password=False), engine_kwargs=settings
        )

    def _distribution(self, parameter: Any) -> Any:
        kinds = self._optuna.distributions
        if isinstance(parameter, Choice):
            return kinds.CategoricalDistribution(list(parameter.options))
        if parameter.whole:
            return kinds.IntDistribution(
                int(parameter.low), int(parameter.high), log=parameter.log
            )  # fmt: skip
        return kinds.FloatDistribution(parameter.low, parameter.high, log=parameter.log)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Return the number and the parameters of a new trial, which counts as running."""
        number = len([t for t in self._trials() if t.state.name != "WAITING"])
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=seeding.derive(self._seed, "tune-ask", number), n_startup_trials=self._n_random
        )
        trial = self._study.ask(self._distributions)
        return trial.number, dict(trial.params)

    def tell(self, number: int, values: Sequence[float] | None, *, failed: bool = False) -> None:
        """Say what a running trial found: its objectives; None if it was given up, or failed."""
        state = None
        if values is None:
            states = self._optuna.trial.TrialState
            state = states.FAIL if failed else states.PRUNED
        self._study.tell(number, None if values is None else list(values), state=state)

    def running(self) -> list[int]:
        """Return the trials that were asked for and not told about."""
        return [t.number for t in self._trials() if t.state.name == "RUNNING"]

    def count(self) -> int:
        """Return how many trials there are that do not wait."""
        return len([t for t in self._trials() if t.state.name != "WAITING"])

    def params(self, number: int) -> dict[str, Any]:
        """Return the parameters of a trial."""
        return dict(self._trials()[number].params)

    def add(
        self, params: Mapping[str, Any] | None, values: Sequence[float] | None, state: str
    ) -> None:
        """Add a trial that a lost database knew: state 'complete', 'pruned' or 'failed'."""
        states = self._optuna.trial.TrialState
        known = {"complete": states.COMPLETE, "pruned": states.PRUNED}
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=known.get(state, states.FAIL),
                params=dict(params or {}),
                distributions=self._distributions if params else {},
                values=None if values is None else list(values),
            )
        )

    def _trials(self) -> list[Any]:
        return list(self._study.get_trials(deepcopy=False))

    def close(self) -> None:
        """Let go of the database."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()
