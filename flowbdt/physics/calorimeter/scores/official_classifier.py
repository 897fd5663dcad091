"""The official classifier of the CaloChallenge, in torch: large, so a GPU helps.

`shower_judges` has its inputs, and a fast judge for the CPU.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ....errors import InputError, MissingExtra
from ....evaluation.metrics.base import Result, auc_error, checked_events, same_width
from ....seeding import derive, stream

SHARES = (80_000, 20_000, 21_000)
"""Showers of each class to train, to choose the epoch ("test") and to measure ("val"), photons."""


@dataclass(frozen=True)
class Network:
    """Settings of the official network.

    Two hidden layers follow the first one, all with LeakyReLU (slope 0.01), no dropout, one output;
    Adam, binary cross entropy, the epoch of best accuracy on the middle block.
    """

    hidden: int = 2048  # units per layer
    epochs: int = 50
    batch: int = 1000
    learning_rate: float = 2e-4
    double: bool = True  # float64 as in the official code; float32 is several times faster
    device: str | None = None  # "cpu", "cuda", or None: a GPU if there is one


def deep_classifier_auc(
    reference: np.ndarray,
    generated: np.ndarray,
    *,
    network: Network | None = None,
    n_runs: int = 1,
    seed: int = 0,
    name: str = "auc_deep",
) -> Result:
    """Return the AUC of the official network, generated (label 0) against reference (label 1).

    Each run splits both classes anew (80 : 20 : 21), trains, keeps the epoch of best accuracy on
    the second part, calibrates by isotonic regression there, and measures on the third part. Inputs
    (n, d) and (m, d) are those of `low_level_inputs` or `high_level_inputs`, not standardised.

    The error is the spread over runs (ddof 0, as published, there of 10), for one run that of the
    finite sample. ``settings``: ``aucs``, ``aucs_uncalibrated``, ``jsd`` = (ln 2 - BCE) / ln 2.

    Raises MissingExtra without torch; InputError for fewer than 30 showers, or other columns.

    References
    ----------
    CaloChallenge/homepage, code/evaluate.py (network and training); arXiv:2410.21611.
    """
    torch = _torch()
    network = network or Network()
    real, _ = checked_events(reference, None, 2, "reference")
    new, _ = checked_events(generated, None, 2, "generated")
    same_width(real, new)
    if min(len(real), len(new)) < 30:
        raise InputError(
            f"the classifier needs at least 30 showers per sample, got {len(real)} and {len(new)}"
        )
    runs = [
        _run(torch, real, new, network, derive(seed, "deep-classifier", i)) for i in range(n_runs)
    ]
    aucs = np.array([run["auc"] for run in runs])
    error = float(aucs.std()) if n_runs > 1 else runs[0]["error"]
    settings = {
        "network": asdict(network),
        "aucs": aucs.tolist(),
        "aucs_uncalibrated": [run["raw"] for run in runs],
        "jsd": float(np.mean([run["jsd"] for run in runs])),
        "seed": seed,
    }
    return Result(name, float(aucs.mean()), error, min(len(real), len(new)), settings=settings)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", error, "cfm") from error
    return torch


def _run(
    torch: Any, real: np.ndarray, new: np.ndarray, network: Network, seed: int
) -> dict[str, float]:
    """Train once and measure; the global random state of torch does not change."""
    parts = _split(real, new, np.random.default_rng(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        scores = _scores(torch, parts, network, seed)
    return _measured(scores[0], parts[1][1], scores[1], parts[2][1])


def _split(
    real: np.ndarray, new: np.ndarray, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return events and labels for training, choice of the epoch and measurement."""
    blocks = []
    for events in (real, new):
        ends = np.round(np.cumsum(SHARES)[:2] / sum(SHARES) * len(events)).astype(int)
        blocks.append(np.split(events[rng.permutation(len(events))], ends))
    return [
        (np.concatenate(both), np.repeat([1.0, 0.0], [len(x) for x in both]))
        for both in zip(*blocks, strict=True)
    ]


def build_network(torch: Any, n_inputs: int, network: Network) -> Any:
    """Return the untrained network: n_inputs -> hidden, hidden, hidden -> 1 logit."""
    layers: list[Any] = []
    for width in (n_inputs, network.hidden, network.hidden):
        layers += [torch.nn.Linear(width, network.hidden), torch.nn.LeakyReLU(0.01)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(network.hidden, 1))


def _scores(
    torch: Any, parts: list[tuple[np.ndarray, np.ndarray]], network: Network, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of the second and third part at the epoch best on the second."""
    device = network.device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.float64 if network.double else torch.float32
    data = [(torch.as_tensor(x, dtype=kind, device=device), y) for x, y in parts]
    model = build_network(torch, parts[0][0].shape[1], network).to(device=device, dtype=kind)
    optimiser = torch.optim.Adam(model.parameters(), lr=network.learning_rate)
    loss = torch.nn.BCEWithLogitsLoss()
    target = torch.as_tensor(data[0][1], dtype=kind, device=device)
    rng = stream(seed, "deep-classifier-batches")
    best, kept = -1.0, (np.empty(0), np.empty(0))
    for _ in range(network.epochs):
        order = torch.as_tensor(rng.permutation(len(target)), device=device)
        for rows in order.split(network.batch):
            optimiser.zero_grad()
            loss(model(data[0][0][rows])[:, 0], target[rows]).backward()
            optimiser.step()
        found = [_probability(torch, model, x, network.batch) for x, _ in data[1:]]
        accuracy = float(((found[0] > 0.5) == (data[1][1] > 0.5)).mean())
        if accuracy > best:
            best, kept = accuracy, (found[0], found[1])
        if best == 1.0:
            break
    return kept


def _probability(torch: Any, model: Any, x: Any, batch: int) -> np.ndarray:
    with torch.no_grad():
        parts = [torch.sigmoid(model(rows)[:, 0]) for rows in x.split(10 * batch)]
    return np.asarray(torch.cat(parts).cpu().numpy(), dtype=np.float64)


def _measured(
    tuning: np.ndarray, tuning_labels: np.ndarray, scores: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return AUC after and before calibration, its error, and the Jensen-Shannon divergence."""
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics import roc_auc_score

    isotonic = IsotonicRegression(out_of_bounds="clip", y_min=1e-6, y_max=1 - 1e-6)
    calibrated = isotonic.fit(tuning, tuning_labels).predict(scores)
    likelihood = np.where(labels == 1, calibrated, 1 - calibrated)
    one = labels == 1
    ones, zeros = np.ones(one.sum()), np.ones((~one).sum())
    return {
        "auc": float(roc_auc_score(labels, calibrated)),
        "raw": float(roc_auc_score(labels, scores)),
        "jsd": float((np.log(2) + np.log(likelihood).mean()) / np.log(2)),
        "error": auc_error(calibrated[one], calibrated[~one], ones, zeros),
    }
