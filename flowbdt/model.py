"""`FlowBDT`: the estimator. Fit a table, sample new events, save and load."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.metaestimators import available_if

from . import atomic_files, seeding
from .config import Card, ModelConfig
from .errors import ConfigError, IncompleteRun, RunError
from .generation.density import Density
from .generation.describe_flow import describe_flow
from .generation.fit_run import fit_replicas, fit_run
from .generation.given_rows import GivenRows, copy_seed, without_steps
from .generation.input_rows import at_least_one
from .generation.model_card import model_card
from .generation.one_event import EventSampler
from .generation.packed.model_arrays import packed_bytes
from .generation.replica_rows import replica_of_rows
from .generation.sample_files import write_sample
from .generation.trained_flow import Flow
from .tables import checks
from .tables.checks import named_columns
from .tables.event_table import EventTable, align_columns
from .tables.html_table import html_table
from .tables.original_types import stored_labels
from .training import run_directory
from .training.explained_variance import explained
from .training.plan import Inputs, check_config
from .training.run_directory import Replicas, Source
from .typed_settings import check_settings

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.figure import Figure

    from .evaluation.evaluate import Evaluation

MOST_LOADED = 4
"""Flows that a model keeps loaded, of different samplers, precisions and the like."""


def _has_density(model: FlowBDT) -> bool:
    """Return True if the model has a density, or will have it; else raise a ConfigError."""
    if model.density or (hasattr(model, "archive_") and model.flow().density is not None):
        return True
    raise ConfigError(
        "no density was learned: fit with density=True, or call fit_density with rows of training"
    )


@contextlib.contextmanager
def _steps_shown(config: ModelConfig, progress: bool) -> Iterator[Any]:
    """Yield what is to be called after each step of a fit: None, or a bar's next mark."""
    if not progress:
        yield None
        return
    from tqdm.auto import tqdm

    total = len(check_config(config).times) * config.n_replicas
    with tqdm(total=total, desc="training", unit="step") as bar:
        yield lambda report: bar.update("time" in report)


class FlowBDT(BaseEstimator):
    """Generative model of a table: flow matching with one multi-output booster per time.

    At each time t of a grid, boosted trees learn the velocity that carries noise (t = 0) to data
    (t = 1); a solver then chains the steps. See Lipman et al., arXiv 2210.02747, for flow
    matching, and arXiv 2404.18219 for the method with trees.

    Parameters
    ----------
    preset : 'fast' or 'balanced': decides whatever is None below, see `flowbdt.config.PRESETS`;
        explicit settings win
    n_steps : steps of the solver
    solver : any of ``flowbdt.flow.solvers.SOLVERS.names()``, or with parameters ``{"name": "edm",
        "s_churn": 10}``; those times that it evaluates are trained, no others
    spacing : any of ``flowbdt.flow.schedules.SCHEDULES.names()``, or with parameters ``{"name":
        "power", "exponent": p}``, or the n_steps + 1 times themselves
    path : 'linear', 'target', 'trigonometric', 'schrodinger_bridge', or with parameters
        ``{"name": "linear", "sigma": 0.01}``
    coupling : 'independent', 'minibatch_ot', or 'given' (with ``source`` in `fit`)
    noise : 'repeats' or 'fresh', or with the settings of `flowbdt.config.Noise`, each of which
        may be left out: ``{"name": "fresh", "n_repeats": 1, "refresh": 10, "candidates": 0}``
    preconditioner : 'none', 'gaussian' or 'mixture': the velocity that is known in closed form, so
        that trees learn only what remains; with parameters ``{"name": "mixture",
        "n_components": 40}``
    rejection : True learns a boosted classifier of real against generated training-side events
        and rejects generated events by its odds, so that what it can see is gone (arXiv
        1810.06758); costs 1 / ``acceptance_`` times the generation time
    inputs : what trees see of a point, some of `flowbdt.flow.step_inputs.VIEWS`
    booster : XGBoost parameters by XGBoost's names, also ``n_estimators`` and
        ``early_stopping_rounds``; ``classifier_rate`` and ``rejection_rate`` are learning rates of
        the classifiers of discrete columns, where there are many rows, and of the rejection, which
        learns from ``rejection_events`` generated events for each real one (4; with 1 its trees
        are not grown again); the rest from the preset and `flowbdt.config.BOOSTER_DEFAULTS`
    transforms : 'auto', a transform's name for all columns, or a mapping from column to transform
    relations : exact relations such as ``"tau21 = tau2 / tau1"``; the left side is not learned but
        computed, so that it holds exactly. 'auto' for all exact ones that the rows show, see
        `flowbdt.tables.proposals.found_relations`; () for none
    observables : such as ``"mee = mass(e1, e2)"``, which the rejection sees besides the columns;
        not stored in events. None for mass and distance of each pair of the first five particles
    particles : what expressions may name, such as ``{"e1": {"pt": "pt1", "eta": "eta1", "phi":
        "phi1", "mass": 0.000511}}``: columns or numbers, of pt, eta, phi, mass (or E); E, px, py,
        pz; or px, py, pz, mass. 'auto' for those that columns' names suggest and their numbers
        confirm, see `flowbdt.tables.proposals.found_particles`; None for none
    coordinates : 'particles' learns momenta, pseudorapidities, differences of azimuth and masses of
        declared particles, and not the common turn of an event where it is a symmetry, so that
        masses and angles survive; 'columns' learns their columns as they stand
    require : cuts such as ``"pt2 > 25"`` that hold in every training row and every generated event:
        others are drawn anew. 'auto' for sharp edges and orders of particles; () for none
    relative : columns learned relative to a condition, such as ``{"sim_pt": "ratio gen_pt",
        "sim_phi": "difference gen_phi"}``; angles that fill a turn by difference on the circle, as
        'angle' says of any; ``"difference gen_phi in width"``: in units of another condition.
        'auto' takes the pairings that clearly narrow what is left, by rows that are trained on;
        None for none
    order : discrete columns to be drawn before the others, in this order; see `transform_`
    validation_fraction : events split off before any noise is drawn
    n_replicas : models of an ensemble, each of the training events with other Poisson weights, so
        that their spread tells how far a generated distribution may be off; 1 for one model
    executor : 'serial', 'joblib', 'htcondor', 'slurm', 'dask', or with parameters
        ``{"name": "joblib", "n_jobs": 4}``
    density : True learns in `fit`, too, what `score_samples` needs, see `fit_density`
    random_state : seed; with an integer, equal input gives equal bytes

    Attributes
    ----------
    n_features_in_, feature_names_in_ : as in scikit-learn
    seed_ : the seed that was used
    n_evaluations_ : evaluations of the velocity field per trajectory
    acceptance_ : share of trajectories whose event is kept; 1 without rejection and cuts
    steps_ : per time: trees used, losses; of an ensemble those of the first replica
    transform_ : the fitted `TableTransform`; ``print("\\n".join(model.transform_.describe()))``

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(500, 2)) * [1.0, 3.0]
    >>> settings = {"noise": {"n_repeats": 2}, "booster": {"n_estimators": 5}}
    >>> model = FlowBDT(n_steps=4, **settings, random_state=1).fit(x)
    >>> model.sample(3, random_state=2).shape
    (3, 2)
    """

    def __init__(
        self,
        n_steps: int | None = None,
        solver: Any = "adams_bashforth_3",
        *,
        preset: str = "balanced",
        spacing: Any = "uniform",
        path: Any = "linear",
        coupling: Any = "independent",
        noise: str | dict[str, Any] | None = None,
        preconditioner: Any = None,
        rejection: bool | None = None,
        inputs: list[str] | None = None,
        booster: dict[str, Any] | None = None,
        transforms: Any = "auto",
        relations: str | list[str] | tuple[str, ...] = "auto",
        observables: list[str] | None = None,
        particles: str | dict[str, Any] | None = "auto",
        coordinates: str = "particles",
        require: str | list[str] | tuple[str, ...] = "auto",
        relative: str | dict[str, str] | None = "auto",
        order: list[str] | tuple[str, ...] = (),
        validation_fraction: float = 0.1,
        n_replicas: int = 1,
        executor: Any = "serial",
        density: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_steps = n_steps
        self.solver = solver
        self.preset = preset
        self.spacing = spacing
        self.path = path
        self.coupling = coupling
        self.noise = noise
        self.preconditioner = preconditioner
        self.rejection = rejection
        self.inputs = inputs
        self.booster = booster
        self.transforms = transforms
        self.relations = relations
        self.observables = observables
        self.particles = particles
        self.coordinates = coordinates
        self.require = require
        self.relative = relative
        self.order = order
        self.validation_fraction = validation_fraction
        self.n_replicas = n_replicas
        self.executor = executor
        self.density = density
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        cond: Any = None,
        sample_weight: Any = None,
        source: Any = None,
        card: Mapping[str, Any] | None = None,
        progress: bool = False,
    ) -> Self:
        """Learn the distribution of ``X``.

        Parameters
        ----------
        X : EventTable, DataFrame or array (n, d), Arrow or polars table, mapping of arrays, awkward
            or structured array; numbers, or categories in columns with names. NaN, None and NA mean
            missing: their patterns are learned, too
        y : ignored, for scikit-learn
        cond : a table as ``X`` with c columns, needed again at generation; NaN means missing
        sample_weight : array (n,), of a positive sum. Where some are negative, non-negative ones of
            the same density take their place, see `flowbdt.trees.signed_weights`
        source : like ``X``: events to start from instead of noise, row by row, with
            ``coupling='given'``
        card : what the model file shall say about itself: some of title, author, licence,
            description, table, sha256, origin, intended_use and limits, all text; see `card`
        progress : True for a bar of the trained steps, in notebooks and terminals

        Raises
        ------
        InputError if the data are infinite, have too few rows, a column has no value, shapes do not
        fit, or weights have no positive sum; ConfigError if a parameter is unknown, of the wrong
        type, or contradicts another.
        """
        if self.density and self.n_replicas != 1:
            raise ConfigError("a density is of one model: fit with n_replicas=1")
        seed = seeding.resolve(self.random_state)
        config = replace(self._config(seed), card=dict(card or {}))
        data, kind = named_columns(X, "the table", gaps=True)
        table = EventTable.of(data, cond=cond, weight=sample_weight, missing=True)
        start = None if source is None else align_columns(source, table.names, table.categories)
        inputs = Inputs(table, config, seed, start, kind, stored_labels(data))
        with (
            tempfile.TemporaryDirectory(prefix="flowbdt-") as folder,
            _steps_shown(config, progress) as on_report,
        ):
            run: Any = Path(folder) / "run"
            try:
                if config.n_replicas > 1:
                    content = fit_replicas(inputs, run, on_report=on_report).archive_bytes()
                else:
                    run = fit_run(inputs, run, on_report=on_report)
                    content = run_directory.archive_bytes(run, run.read_json("manifest.json"))
            except IncompleteRun as error:  # the folder it speaks of is about to go
                raise RunError(f"training failed: {error.reason}") from error
        self._adopt(content)
        if self.density:
            self.fit_density(X, cond=cond, sample_weight=sample_weight)
        self.n_features_in_ = len(table.names)
        if hasattr(X, "columns") and all(isinstance(name, str) for name in X.columns):
            self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def _config(self, seed: int) -> ModelConfig:
        settings = self.get_params(deep=False)
        del settings["density"]  # learned beside the run, from the same rows
        for name in ("booster", "noise"):
            settings[name] = settings[name] or {}
        if self.density and settings["particles"] == "auto":
            settings["particles"] = {}  # and so no cuts: what is beyond one has none
        return ModelConfig(**atomic_files.to_plain({**settings, "random_state": seed}))

    def _adopt(self, content: bytes, flow: Flow | None = None) -> None:
        """Take over a trained model from the bytes of a model file, and its flow if it is there."""
        self.archive_ = content
        self._loaded = {}
        flow = flow or Flow(self._source(None))
        self._loaded[self._loaded_as()] = flow
        self.seed_ = flow.seed
        self.n_evaluations_ = flow.n_evaluations
        self.acceptance_ = flow.acceptance
        self.steps_ = flow.manifest["steps"]
        self.transform_ = flow.transform

    def flow(
        self,
        sampler: dict[str, Any] | None = None,
        compiled: bool | None = None,
        missing: str = "keep",
        precision: str = "double",
        replica: int | None = None,
    ) -> Flow:
        """Return the trained flow: its field, transform and steps. Raises NotFittedError.

        Parameters as for `sample`. Its step models stay loaded between calls, those of the last few
        ways to ask for it.
        """
        if not hasattr(self, "archive_"):
            raise NotFittedError("this FlowBDT is not fitted yet: call fit, or FlowBDT.load")
        key = self._loaded_as(sampler, compiled, missing, precision, replica)
        kept: dict[str, Flow] = self.__dict__.setdefault("_loaded", {})
        if key not in kept:
            options: dict[str, Any] = {
                "compiled": compiled,
                "missing": missing,
                "precision": precision,
            }
            kept[key] = Flow(self._source(replica), sampler=sampler, **options)
        flow = kept[key] = kept.pop(key)  # the last one asked for comes last
        while len(kept) > MOST_LOADED:
            del kept[next(iter(kept))]
        return flow

    def _source(self, replica: int | None) -> Source:
        """Return the model, or one of an ensemble. Raises ConfigError if there is no such one."""
        source: Source = run_directory.open_file(Path("this model"), self.archive_)
        if replica is not None:
            members = source.members if isinstance(source, Replicas) else [source]
            if replica not in range(len(members)):
                raise ConfigError(
                    f"this model has replicas 0 to {len(members) - 1}, not {replica!r}"
                )
            source = members[replica]
        return source

    @staticmethod
    def _loaded_as(
        sampler: Any = None,
        compiled: Any = None,
        missing: Any = "keep",
        precision: Any = "double",
        replica: Any = None,
    ) -> str:
        """Return what a flow with these options is kept under."""
        return repr(atomic_files.to_plain([sampler, compiled, missing, precision, replica]))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_loaded"}

    def sample(
        self,
        n_samples: int | None = None,
        *,
        given: Any = None,
        cond: Any = None,
        source: Any = None,
        sampler: dict[str, Any] | None = None,
        compiled: bool | None = None,
        outside: str | None = "warn",
        missing: str = "keep",
        precision: str = "double",
        replica: int | None = None,
        random_state: Any = None,
    ) -> Any:
        """Generate events; the kind of table that `fit` got comes out.

        Parameters
        ----------
        n_samples : int; by default as many as ``given``, ``cond`` or ``source`` has rows, else 1
        given : table with some of the columns, by name, NaN where unknown; a row for each event or
            one for all. What is known comes back as it is, the rest is drawn given it: discrete
            columns by their classifiers, numeric ones from the closed form of the preconditioner
            'mixture', without the trees of the steps, resampled by weights (approximate; a
            DataWarning tells where too few proposals agree with the given values). Rows are
            complete then, whatever ``missing`` says
        cond : table of conditions, a row for each event or one for all; needed if fitted with it.
            Columns go by name, others are left alone; by position only where there are no names
        source : events to start from, needed if fitted with it
        sampler : None for solver and steps of `fit`; else some of ``solver``, ``n_steps``,
            ``spacing`` and ``interpolate``: other steps through the same step models, without
            rejection. Times that have no model are refused unless ``interpolate`` is True
        compiled : None for the compiled core where it was built, True to insist on it, False for
            XGBoost and numpy; the same events, but for a few that rounding moves
        outside : for conditions further beyond their training range than a tenth of its width,
            where trees are constant, and for missing ones and categories that no training row has:
            'warn' (a DataWarning with their number), 'raise', 'clip' to move all numbers into the
            range, or None not to look
        missing : 'keep' gives missing values where the training table has some, as often and in the
            same patterns; 'fill' the same rows with values drawn in their place, given the others
        precision : 'double', or 'single' for steps in float32 by the compiled core: less than half
            the time; values move by some 1e-6 of their spread, and of thousands of events one over
            a cut of a tree or past a rejection
        replica : number of the model of an ensemble that generates all events; None for all of
            them, each event by one that its row decides, see `replicas_of`
        random_state : seed; an event does not depend on ``n_samples``

        Returns
        -------
        table of n_samples rows, in the kind, names, units and types of the training data

        Raises
        ------
        NotFittedError if `fit` was not called; InputError if a condition is missing or unknown, or
        shapes do not fit, if ``given`` has a column or value that the model does not know, or
        values that contradict each other; GridError or ConfigError if the sampler needs times that
        have no model, or cannot be used with this model; MissingExtra if ``compiled`` is True
        without the core.
        """
        if given is not None:
            single = None if precision == "double" else precision
            without_steps(source=source, sampler=sampler, precision=single)
        flow = self.flow(sampler, compiled, missing, precision, replica)
        seed = seeding.resolve(random_state)
        if given is not None:
            rows = GivenRows(flow, given, n_samples, cond, outside)
            return flow.as_fitted(EventTable.concatenate(list(rows.blocks(seed))))
        blocks = flow.sample_blocks(n_samples, seed=seed, cond=cond, source=source, outside=outside)
        return flow.as_fitted(EventTable.concatenate(list(blocks)))

    def replicas_of(self, n_samples: int, random_state: int) -> np.ndarray:
        """Return which replica made each event of `sample`, int (n,), with the same seed."""
        n_replicas = max(len(self.flow().members), 1)
        return replica_of_rows(random_state, np.arange(n_samples), n_replicas)

    def impute(
        self,
        table: Any,
        n: int = 1,
        *,
        cond: Any = None,
        compiled: bool | None = None,
        outside: str | None = "warn",
        random_state: Any = None,
    ) -> Any:
        """Fill the missing entries of a table with draws given the others.

        Parameters
        ----------
        table : as ``given`` of `sample`, whose other parameters are as there
        n : how often; several draws show how uncertain what is filled in is

        Returns
        -------
        for n = 1 a table of the kind that `fit` got, with all its columns; else a list of n such.
        The index of a DataFrame is kept

        Raises the errors of `sample`.
        """
        n, seed = at_least_one(n, "n"), seeding.resolve(random_state)
        flow = self.flow(None, compiled)
        rows = GivenRows(flow, table, None, cond, outside)
        tables = [
            flow.as_fitted(EventTable.concatenate(list(rows.blocks(copy_seed(seed, i)))))
            for i in range(n)
        ]
        for filled in tables:
            if hasattr(filled, "iloc") and hasattr(table, "iloc"):
                filled.index = table.index
        return tables[0] if n == 1 else tables

    def sample_blocks(
        self,
        n_samples: int | None = None,
        *,
        cond: Any = None,
        source: Any = None,
        sampler: dict[str, Any] | None = None,
        compiled: bool | None = None,
        outside: str | None = "warn",
        missing: str = "keep",
        precision: str = "double",
        random_state: Any = None,
        block_rows: int | None = None,
    ) -> Iterator[Any]:
        """Yield what `sample` gives for the seed, in blocks of about ``block_rows`` events.

        Parameters as for `sample`; ``cond`` and ``source`` may be paths of files, read in blocks.
        """
        flow, seed = self.flow(sampler, compiled, missing, precision), seeding.resolve(random_state)
        blocks = flow.sample_blocks(
            n_samples, seed=seed, cond=cond, source=source, block_rows=block_rows, outside=outside
        )
        return map(flow.as_fitted, blocks)

    def sample_to(
        self,
        path: str | PathLike[str],
        n_samples: int | None = None,
        *,
        cond: Any = None,
        source: Any = None,
        sampler: dict[str, Any] | None = None,
        compiled: bool | None = None,
        outside: str | None = "warn",
        missing: str = "keep",
        precision: str = "double",
        random_state: Any = None,
        block_rows: int | None = None,
        resume: bool = False,
    ) -> None:
        """Write a sample to a file, which appears when it is whole; see `write_sample`.

        Parameters as for `sample_blocks`; with ``resume`` an interrupted call's file is continued.
        """
        write_sample(
            self.flow(sampler, compiled, missing, precision),
            path,
            n_samples,
            seed=seeding.resolve(random_state),
            cond=cond,
            source=source,
            block_rows=block_rows,
            outside=outside,
            resume=resume,
        )

    def sampler(self, *, random_state: Any = None, first: int = 0) -> EventSampler:
        """Return a sampler of single events: ``model.sampler().one(cond)``.

        The events are those of `sample` with the same seed, from number ``first`` on. Raises
        NotFittedError if `fit` was not called, InputError if the model starts from source events.
        """
        return EventSampler(self.flow(), seeding.resolve(random_state), first)

    def fit_density(self, X: Any, *, cond: Any = None, sample_weight: Any = None) -> Self:
        """Learn what `score_samples` needs beside the model: its ratio to rows of training.

        Parameters
        ----------
        X : the rows of `fit`, or others of the same distribution
        cond, sample_weight : of these rows, as for `fit`

        Returns
        -------
        the model itself, which now keeps the density, in its file, too

        Raises
        ------
        NotFittedError; InputError as `sample` for ``given``; ConfigError if it has no density:
        columns that are linear functions of others, or a model without a mixture in closed form.
        """
        flow = self.flow()
        if flow.members:
            raise ConfigError("a density is of one model: fit with n_replicas=1")
        x, known = flow.aligned(X, cond)
        weight = (
            None if sample_weight is None else checks.weights(sample_weight, len(x), signed=True)
        )
        fitted = Density.fit(flow, x, known, weight, int(flow.settings["random_state"]))
        self._adopt(run_directory.with_density(self.archive_, fitted.to_bytes()))
        return self

    @available_if(_has_density)
    def score_samples(self, X: Any, *, cond: Any = None, return_error: bool = False) -> Any:
        """Return the log density of rows, given their conditions.

        That of the closed form and the classifiers of discrete columns, normalised exactly, times a
        boosted ratio of real rows to it, normalised by draws. It is not that of the flow, which has
        none, but of the same rows.

        Parameters
        ----------
        X : table of n rows with all columns of `fit`
        cond : conditions of the rows, or of all of them; needed if fitted with it
        return_error : True for the errors as well

        Returns
        -------
        (n,), logs per unit of the columns of X: of those that are continuous, and not computed by a
        relation. Values with a probability of their own (categories, integers, repeated numbers,
        missing ones) count by that. -inf for a row that cannot be. With ``return_error`` a pair:
        also the error (n,) of the normalisation, and of points drawn for discrete values

        Raises
        ------
        AttributeError, as scikit-learn has it, if no density was learned: fit with
        ``density=True``, or call `fit_density`; NotFittedError; InputError as `sample` for
        ``given``.
        """
        flow = self.flow()
        assert flow.density is not None
        result = Density.restore(flow, flow.density).log_density(*flow.aligned(X, cond))
        return result if return_error else result[0]

    @available_if(_has_density)
    def score(self, X: Any, y: Any = None, *, cond: Any = None, sample_weight: Any = None) -> float:
        """Return the mean of `score_samples`, with event weights (n,) if any; ``y`` is ignored."""
        logs = self.score_samples(X, cond=cond)
        weight = None if sample_weight is None else checks.weights(sample_weight, len(logs))
        return float(np.average(logs, weights=weight))

    def evaluate(
        self,
        X: Any,
        *,
        cond: Any = None,
        sample_weight: Any = None,
        n_samples: int | None = None,
        **options: Any,
    ) -> Evaluation:
        """Generate events and judge them against real ones that the model was not fitted to.

        Parameters
        ----------
        X, cond, sample_weight : real events, as for `fit`
        n_samples : events to generate, at the conditions of ``X`` in turn; by default as many as
            real ones
        options : those of `flowbdt.evaluation.evaluate`, such as ``training=`` or ``quick=True``;
            observables, particles and relations of `fit` are known

        Raises
        ------
        NotFittedError if `fit` was not called; InputError and ConfigError as `evaluate`.
        """
        from .evaluation.evaluate import evaluate

        real, made, options = self._beside(X, cond, sample_weight, n_samples, options)
        return evaluate(real, made, **options)

    def plot(
        self,
        X: Any,
        *,
        cond: Any = None,
        sample_weight: Any = None,
        n_samples: int | None = None,
        columns: list[str] | None = None,
        kind: str = "columns",
        axes: Any = None,
        random_state: int = 0,
    ) -> list[Figure]:
        """Return figures of real and generated events.

        Parameters
        ----------
        X, cond, sample_weight, n_samples : as for `evaluate`
        columns : what to draw; None for all columns and observables
        kind : "columns", histograms with their ratios; "corner", contours of all pairs of up to
            six; "pairs", densities and profile of each two neighbours in ``columns``
        axes : axes of yours to draw into: two for each column, histogram and ratio; rows and
            columns of a corner; three for each pair

        Raises MissingExtra if matplotlib is not installed, ConfigError if axes do not fit.
        """
        from .evaluation.report.sample_figures import sample_figures
        from .tables.formulas.expressions import declared

        options: dict[str, Any] = {"seed": random_state}
        real, made, options = self._beside(X, cond, sample_weight, n_samples, options)
        observables, _ = declared(options["observables"], options["particles"])
        tables = [observables.added_to(table) for table in (real, made)]
        real, made = (t if columns is None else t.select(columns) for t in tables)
        return sample_figures(kind, real, made, axes)

    def _beside(
        self, X: Any, cond: Any, weight: Any, n: int | None, options: dict[str, Any]
    ) -> tuple[EventTable, EventTable, dict[str, Any]]:
        """Return real events, generated ones like them, and options with what `fit` declared."""
        from .evaluation.score_events import generate_like

        flow, seed = self.flow(), options.get("seed", 0)
        data, _ = named_columns(X, "the real events")
        real = EventTable.of(data, cond=cond, weight=weight).as_conditions(flow.condition_names)
        declared = {
            name: flow.settings.get(name) or default
            for name, default in (("relations", ()), ("observables", ()), ("particles", None))
        }
        made = generate_like(flow, real, seed, n or real.n).table
        return real, made, {**declared, "provenance": flow.record(seed), **options}

    def _html_repr(self) -> str:
        """Return a fitted model for notebooks: its columns, and steps in which trees add least."""
        if not hasattr(self, "archive_"):
            return str(super()._html_repr())
        rows = [
            {
                "time": step["time"],
                "trees": step["trees"],
                "validation rmse": step["valid_rmse"],
                "trees explain": f"{explained(step):.2%}",
            }
            for step in sorted(self.steps_, key=explained)
        ]
        words = f"{self.n_evaluations_} evaluations per trajectory, {self.acceptance_:.0%} kept"
        return f"{html_table(words, rows)}{self.transform_._repr_html_()}"

    def summary(self) -> str:
        """Return what was learned, in lines of text: settings, columns, steps, as `flowbdt show`.

        Raises NotFittedError.
        """
        return "\n".join(describe_flow(self.flow()))

    @property
    def card(self) -> str:
        """The card of the model, Markdown text: who made it of what, ranges, scores, settings.

        Raises NotFittedError.
        """
        return model_card(self.flow())

    def add_to_card(self, *, scores: Evaluation | None = None, **entries: str) -> Self:
        """Add entries to the card of a fitted model, as at `fit`, and the scores of an evaluation.

        Raises NotFittedError; ConfigError for an unknown entry, or if this is an ensemble.
        """
        card: dict[str, Any] = {**(self.flow().plan.get("card") or {}), **entries}
        if scores is not None:
            card["scores"] = [
                {name: getattr(r, name) for name in ("column", "value", "error", "floor")}
                | {"metric": r.name}
                for r in scores.results
            ]
        card = check_settings(atomic_files.to_plain(card), Card, "entry of the card")
        self._adopt(run_directory.with_card(self.archive_, card))
        return self

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model as one file (no pickle); `load` and `open_sampler` read it."""
        flow = self.flow()
        packed = None if flow.members else packed_bytes(flow)
        atomic_files.write_bytes(Path(path), run_directory.with_packed(self.archive_, packed))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a model file or the folder of a complete run.

        Raises FormatError if it is truncated, damaged, foreign, of a newer format or unfinished.
        """
        source = run_directory.open_run(path)
        if not Path(path).is_dir():  # in memory: the file may change
            source = run_directory.open_file(Path(path), Path(path).read_bytes())
        flow = Flow(source)
        settings = dict(flow.settings)
        no_setting = ("executor", "card")
        names = [name for name in ModelConfig.__dataclass_fields__ if name not in no_setting]
        settings |= {"n_replicas": max(len(flow.members), 1), "random_state": flow.seed}
        model = cls(**{name: settings[name] for name in names if name in settings})
        if isinstance(source, Replicas):
            content = source.archive_bytes()
        else:
            content = run_directory.archive_bytes(source, flow.manifest)
        model._adopt(content, None if Path(path).is_dir() else flow)  # a folder may go
        model.density = flow.density is not None
        model.n_features_in_ = len(flow.plan["fingerprint"]["columns"]["names"])
        return model
