"""`Trainer`: the loop that trains a network on events, with checkpoints."""

from __future__ import annotations

import collections
import copy
import csv
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from .. import atomic_files, seeding
from ..errors import ConfigError, FormatError, InputError, RunError, reading
from ..registry import unknown
from ..tables.checks import relative
from ..typed_settings import AtLeastOne, AtLeastZero, Positive, check_settings
from .denoiser import Denoiser
from .network_files import (
    load_weights,
    network_header,
    pack_network,
    read_network,
    stored_backbone,
    weights_of,
)
from .objective import Objective
from .weight_averages import EMA, SIGMA_RELS, Average, PowerEMA, reconstruct

LOG_COLUMNS = ("step", "loss", "valid_loss", "learning_rate", "gradient_norm", "seconds")
CHECKPOINT = "checkpoint"

RATES = ("constant", "cosine", "one_cycle", "inverse_sqrt", "plateau")
"""constant; cosine: to 0 at the end; one_cycle: up and down on cosines; inverse_sqrt: falls as one
over the root of the step (arXiv 2312.02696); plateau: a tenth whenever the training loss of an
epoch did not improve for ``patience`` epochs. All but one_cycle rise linearly during warm-up."""


@dataclass(frozen=True)
class Rate:
    """The factor of the learning rate at a step."""

    name: str  # one of RATES
    n_steps: int  # of the training
    warmup: int  # steps of linear rise (one_cycle: of the rise on a cosine)
    patience: int = 15  # epochs without improvement, for plateau

    def __post_init__(self) -> None:
        if self.name not in RATES:
            raise unknown("learning-rate schedule", self.name, RATES)

    def __call__(self, step: int, epoch_losses: Sequence[float] = ()) -> float:
        """Return the factor of the step (0 is the first); ``epoch_losses`` so far, for plateau."""
        rise = (step + 1) / max(self.warmup, 1)
        left = (step - self.warmup) / max(self.n_steps - self.warmup, 1)
        if self.name == "one_cycle":
            if step < self.warmup:
                return 0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * step / self.warmup))
            return max(0.5 * (1.0 + math.cos(math.pi * left)), 1e-5)
        rise = min(rise, 1.0)
        if self.name == "cosine":
            return rise * 0.5 * (1.0 + math.cos(math.pi * max(left, 0.0)))
        if self.name == "inverse_sqrt":
            return rise * math.sqrt(max(self.warmup, 1) / max(step + 1, self.warmup, 1))
        if self.name == "plateau":
            return rise * 0.1 ** self._falls(epoch_losses)
        return rise

    def _falls(self, epoch_losses: Sequence[float]) -> int:
        """Return how often the loss stayed above its best for more than ``patience`` epochs."""
        best, waited, falls = math.inf, 0, 0
        for loss in epoch_losses:
            waited = 0 if loss < best * (1.0 - 1e-4) else waited + 1
            best = min(best, loss)
            if waited > self.patience:
                falls, waited = falls + 1, 0
        return falls


Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training."""

    n_steps: AtLeastOne = 6000  # batches in all
    batch_size: AtLeastOne = 1024  # events per batch
    learning_rate: Positive = 2e-3  # the largest one, of AdamW
    rate: str = "one_cycle"  # learning-rate schedule, one of `RATES`
    warmup: Share = 0.3  # fraction of the training in which the rate rises
    patience: int = 15  # epochs, for rate 'plateau'
    weight_decay: float = 0.0  # of AdamW
    clip: Positive | None = 1.0  # largest norm of a gradient; None for no limit
    ema: Share | None = 0.998  # decay per step of the simple average of weights; None for none
    snapshots: AtLeastZero = 0  # times, evenly spread, at which power-function averages are stored
    validate_every: AtLeastOne = 500  # steps between two validations and lines of the log
    precision: Literal["float32", "bfloat16"] = "float32"  # the second for mixed precision
    compile: bool = False  # compile the backbone: pays off for long trainings of large networks
    device: str = "auto"  # 'cpu', 'cuda', or 'auto' for a GPU where there is one
    seed: int = 0  # of batches and noise

    def __post_init__(self) -> None:
        check_settings(asdict(self), TrainingConfig, "setting of a training")


def chosen_device(name: str) -> torch.device:
    """Return a device by name; 'auto' is a GPU where there is one. Raises ConfigError for none."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(automatic if name == "auto" else name)
    except RuntimeError as error:
        raise ConfigError(f"device must be 'auto', 'cpu' or 'cuda', got {name!r}") from error
    if device.type == "cuda" and automatic == "cpu":
        raise ConfigError("device 'cuda' needs a GPU that torch can use, and there is none here")
    return device


class Trainer:
    """The training of a backbone on events.

    Random numbers are keyed by step, so a resumed training gives the same losses as one without
    interruption, and no state of a random generator is stored.

    Parameters
    ----------
    backbone : `flowbdt.networks.backbones.Backbone`
    objective : `Objective`, name of one, or mapping

    Attributes
    ----------
    denoiser : the network, with its newest weights
    losses, history : training loss of every step so far; one mapping per validation, as in the log
    """

    def __init__(
        self, backbone: nn.Module, objective: Any = "edm", config: TrainingConfig | None = None
    ) -> None:
        self.config = config or TrainingConfig()
        self.device = chosen_device(self.config.device)
        self.objective = Objective.of(objective)
        self.denoiser: Denoiser = self.objective.denoiser(backbone).to(self.device)
        self.extra = nn.ModuleList(self.objective.modules()).to(self.device)
        weights = [*self.denoiser.parameters(), *self.extra.parameters()]
        self.optimiser = torch.optim.AdamW(
            weights, lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        values = self._values()
        decay, widths = self.config.ema, SIGMA_RELS if self.config.snapshots else ()
        self.ema = None if decay is None else EMA(values, decay)
        self.powers = [PowerEMA(values, width) for width in widths]
        self.stored: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] | None = None
        self.losses: list[float] = []
        self.history: list[dict[str, Any]] = []
        self.data_digest: str | None = None
        self._pending: list[Tensor] = []
        if self.config.compile:
            self.denoiser.backbone = torch.compile(backbone)  # type: ignore[assignment]

    @property
    def step(self) -> int:
        """Number of steps done."""
        return len(self.losses) + len(self._pending)

    def _values(self) -> dict[str, Tensor]:
        """Return the trained values by name, compiled or not."""
        named = self.denoiser.named_parameters()
        return {name.replace("_orig_mod.", ""): value for name, value in named}

    def fit(
        self,
        x: Any,
        cond: Any = None,
        weight: Any = None,
        *,
        valid: tuple[Any, Any] | None = None,
        folder: str | Path | None = None,
        checkpoint_every: int | None = None,
        stop_at: int | None = None,
    ) -> Self:
        """Train up to ``config.n_steps``, from the current step on.

        Raises InputError if shapes do not fit, or a resumed training gets other events; RunError if
        the loss is not finite.

        Parameters
        ----------
        x : array (n, ...), events in latent space, of about the width ``sigma_data``
        cond : array (n, c) or None, in any units
        weight : array (n,), non-negative, or None
        valid : (x, cond) of other events, for the validation loss
        folder : for log.csv and checkpoint.npz; None writes nothing
        checkpoint_every : steps between checkpoints; None: at the end only
        stop_at : last step of this call
        """
        data = self._data(x, cond, weight)
        checked = None if valid is None else self._data(valid[0], valid[1], None)
        self._check_same(data[0])
        if not self.step and data[1] is not None:
            self.denoiser.learn_conditions(data[1])
        before = self.history[-1]["seconds"] if self.history else 0.0
        started = time.perf_counter() - before
        last = min(stop_at or self.config.n_steps, self.config.n_steps)
        while self.step < last:
            norm = self._advance(*data)
            if self.step % self.config.validate_every == 0 or self.step == self.config.n_steps:
                self._record(checked, norm, time.perf_counter() - started)
                if folder is not None:
                    write_log(Path(folder) / "log.csv", self.history)
            if folder is not None and checkpoint_every and self.step % checkpoint_every == 0:
                self.save(Path(folder) / "checkpoint.npz")
        self._flush()
        if folder is not None:
            self.save(Path(folder) / "checkpoint.npz")
        return self

    def _data(self, x: Any, cond: Any, weight: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return checked tensors on the device."""
        events = np.asarray(x, dtype=np.float32)
        arrays = [
            events,
            None if cond is None else np.asarray(cond, dtype=np.float64),  # see `Denoiser.raw`
            None if weight is None else relative(weight).astype(np.float32),
        ]
        if events.ndim < 2 or not np.isfinite(events).all() or not len(events):
            raise InputError("events must be a finite array (n, ...) with at least one row")
        if any(array is not None and len(array) != len(events) for array in arrays):
            raise InputError(f"conditions and weights must have {len(events)} rows, as the events")
        tensors = [None if v is None else torch.tensor(v, device=self.device) for v in arrays]
        assert tensors[0] is not None
        return tensors[0], tensors[1], tensors[2]

    def _check_same(self, x: Tensor) -> None:
        digest = atomic_files.digest_array(x.cpu().numpy())
        if self.data_digest not in (None, digest):
            raise InputError(
                "this training began with other events: resume it with the same ones, in the same"
                " order"
            )
        self.data_digest = digest

    def _rows(self, n: int) -> np.ndarray:
        """Return the rows of this step's batch; every epoch goes through all events once."""
        first, rows = self.step * self.config.batch_size, []
        last = first + self.config.batch_size
        while first < last:
            epoch, begin = divmod(first, n)
            rows.append(self._order(epoch, n)[begin : begin + last - first])
            first += len(rows[-1])
        return np.concatenate(rows)

    def _order(self, epoch: int, n: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != (epoch, n):
            rng = seeding.stream(self.config.seed, "network-batches", epoch)
            self._epoch, self._permutation = (epoch, n), rng.permutation(n)
        return self._permutation

    def _generator(self, purpose: str, key: int) -> torch.Generator:
        seed = seeding.derive(self.config.seed, purpose, key)
        return torch.Generator(self.device).manual_seed(seed)

    def _advance(self, x: Tensor, cond: Tensor | None, weight: Tensor | None) -> Tensor:
        """Do one step; return the norm of the gradient before clipping."""
        rows = torch.from_numpy(self._rows(len(x))).to(self.device)
        known = None if cond is None else cond[rows]
        generator = self._generator("network-noise", self.step)
        mixed = self.config.precision == "bfloat16"
        self.denoiser.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            losses = self.objective.losses(self.denoiser, x[rows], known, generator)
            share = None if weight is None else weight[rows] / weight.mean()
            loss = losses.mean() if share is None else (losses * share).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        limit = float("inf") if self.config.clip is None else self.config.clip
        norm = nn.utils.clip_grad_norm_(self.denoiser.parameters(), limit)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * self._factor(len(x))
        self.optimiser.step()
        self._pending.append(loss.detach())
        self._average()
        return norm

    def _factor(self, n: int) -> float:
        config = self.config
        rate = Rate(
            config.rate, config.n_steps, int(config.warmup * config.n_steps), config.patience
        )
        epochs: list[float] = []
        if config.rate == "plateau":
            self._flush()
            size = max(1, n // config.batch_size)
            whole = self.losses[: len(self.losses) // size * size]
            epochs = np.reshape(whole, (-1, size)).mean(axis=1).tolist() if whole else []
        return rate(self.step, epochs)

    def _average(self) -> None:
        """Add the new weights to all averages; store power-function averages at their steps."""
        values = self._values()
        for average in self._averages().values():
            average.update(values, self.step)
        config = self.config
        n_steps, n = config.n_steps, config.snapshots
        if self.powers and self.step in (round(n_steps * (i + 1) / n) for i in range(n)):
            for power in self.powers:
                copied = {name: value.clone() for name, value in power.values.items()}
                entry = {"sigma_rel": power.sigma_rel, "step": self.step, "values": copied}
                self.stored.append(entry)

    def _flush(self) -> None:
        """Move losses from the device into the list. Raises RunError if one is not finite."""
        if self._pending:
            new = torch.stack(self._pending).tolist()
            self._pending = []
            self.losses += new
            if not np.isfinite(new).all():
                raise RunError(
                    f"the loss is not finite near step {len(self.losses)}: lower learning_rate"
                )

    def _record(self, valid: Any, norm: Tensor, seconds: float) -> None:
        self._flush()
        last = self.history[-1]["step"] if self.history else 0
        line = {
            "step": self.step,
            "loss": float(np.mean(self.losses[last:])),
            "valid_loss": None if valid is None else self.validation_loss(*valid[:2]),
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "gradient_norm": float(norm),
            "seconds": seconds,
        }
        known = [h["valid_loss"] for h in self.history if h["valid_loss"] is not None]
        self.history.append(line)
        if valid is not None and (not known or line["valid_loss"] < min(known)):
            self.best = {name: value.detach().clone() for name, value in self._values().items()}

    @torch.no_grad()
    def validation_loss(self, x: Tensor, cond: Tensor | None, repeats: int = 4) -> float:
        """Return the loss on events with fixed noise."""
        self.denoiser.eval()
        total = 0.0
        for repeat in range(repeats):
            generator = self._generator("network-validation", repeat)
            total += float(self.objective.losses(self.denoiser, x, cond, generator).mean())
        return total / repeats

    def network(self, which: str | float = "ema") -> Denoiser:
        """Return a copy of the network with averaged weights.

        They are 'ema', 'newest', 'best' (on validation events), or those of a power-function
        average of width ``which``, reconstructed from the stored ones. Raises ConfigError if they
        were not kept.
        """
        chosen: Mapping[str, Tensor] | None
        if isinstance(which, float):
            chosen = reconstruct(self.stored, which)
        else:
            ema = None if self.ema is None else self.ema.values
            chosen = {"newest": {}, "ema": ema, "best": self.best}.get(which)
        if chosen is None:
            raise ConfigError(
                f"this training kept no weights {which!r}; known: newest, ema (with ema set), best"
                " (with valid set), or a width (with snapshots above 0)"
            )
        backbone: Any = getattr(self.denoiser.backbone, "_orig_mod", self.denoiser.backbone)
        other = Denoiser(copy.deepcopy(backbone), **self.denoiser.settings())
        other.load_state_dict({**weights_of(self.denoiser), **chosen})
        return other.to(self.device).eval()

    def save(self, path: str | Path) -> None:
        """Write a checkpoint for `resume`, whole or not at all, in one file without pickle."""
        self._flush()
        groups = {"network": weights_of(self.denoiser), "extra": self.extra.state_dict()}
        groups |= {name: average.values for name, average in self._averages().items()}
        groups |= {"best": self.best or {}}
        groups |= {f"stored{i}": entry["values"] for i, entry in enumerate(self.stored)}
        states = self.optimiser.state_dict()["state"]
        groups |= {f"optimiser{i}": state for i, state in states.items()}
        tensors = {
            f"{group}/{name}": value
            for group, named in groups.items()
            for name, value in named.items()
        }
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        header = {
            **network_header(self.denoiser),
            "kind": CHECKPOINT,
            **self.settings(),
            "history": self.history,
            "stored": [[entry["sigma_rel"], entry["step"]] for entry in self.stored],
            "data_digest": self.data_digest,
        }
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_bytes(Path(path), pack_network(header, tensors))

    @classmethod
    def resume(cls, path: str | Path) -> Trainer:
        """Return a training, to be continued with the same events. Raises FormatError."""
        header, tensors = read_network(path, CHECKPOINT)
        groups: dict[str, dict[str, Tensor]] = collections.defaultdict(dict)
        for name, value in tensors.items():
            group, _, key = name.partition("/")
            groups[group][key] = value
        with reading(str(path)):
            config = TrainingConfig(**header["training"])
            objective = Objective(**header["objective"])
            trainer = cls(stored_backbone(header, groups["network"]), objective, config)
            if trainer.denoiser.settings() != header["denoiser"]:
                raise FormatError("its network is not that of its objective")
            trainer._restore(header, groups, str(path))
            trainer.losses = groups["losses"][""].double().reshape(-1).tolist()
            if len(trainer.losses) > config.n_steps:
                raise FormatError("it has more losses than steps")
        return trainer

    def _restore(
        self, header: Mapping[str, Any], groups: Mapping[str, dict[str, Tensor]], where: str
    ) -> None:
        def moved(group: str) -> dict[str, Tensor]:
            return {name: value.to(self.device) for name, value in groups[group].items()}

        load_weights(self.denoiser, groups["network"], where)
        self.extra.load_state_dict(groups["extra"])
        for name, average in self._averages().items():
            for key, value in groups[name].items():
                average.values[key].copy_(value)
        self.stored = [
            {"sigma_rel": width, "step": step, "values": moved(f"stored{i}")}
            for i, (width, step) in enumerate(header["stored"])
        ]
        self.best = moved("best") or None
        state: dict[str, Any] = self.optimiser.state_dict()
        numbers = [i for group in state["param_groups"] for i in group["params"]]
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for i, parameter in zip(numbers, parameters, strict=True):
            if known := groups[f"optimiser{i}"]:
                _check_optimiser(known, parameter)
                state["state"][i] = known
        self.optimiser.load_state_dict(state)
        self.history, self.data_digest = header["history"], header["data_digest"]

    def _averages(self) -> dict[str, Average]:
        """Return the running averages by their name in a checkpoint."""
        ema: dict[str, Average] = {} if self.ema is None else {"ema": self.ema}
        return {**ema, **{f"power{i}": power for i, power in enumerate(self.powers)}}

    def settings(self) -> dict[str, Any]:
        """Return objective and configuration in plain values."""
        return {"objective": self.objective.settings(), "training": asdict(self.config)}


def _check_optimiser(state: Mapping[str, Tensor], parameter: Tensor) -> None:
    """Raise FormatError unless a stored state of AdamW is that of a parameter."""
    shapes = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
    if {name: value.shape for name, value in state.items()} != shapes:
        raise FormatError("the state of its optimiser is not that of its weights")
    if state["step"] < 1 or (state["exp_avg_sq"] < 0).any():
        raise FormatError("the state of its optimiser has numbers out of range")


def write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """Write the history as CSV, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files.atomic(path) as partial, open(partial, "w", newline="") as handle:
        writer = csv.DictWriter(handle, LOG_COLUMNS)
        writer.writeheader()
        writer.writerows(history)
