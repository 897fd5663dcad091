"""Networks as npz files without pickle, and a network with the transform of its table."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import atomic_files, seeding
from ..errors import FormatError, reading
from ..flow.schedules import SCHEDULES, boundaries_of
from ..flow.solvers import SOLVERS, integrate
from ..seeding import RowNoise
from ..tables.event_table import EventTable
from ..tables.transforms import TableTransform
from ..typed_settings import AtLeastOne, NotNegative, Positive, Stored, check_stored
from .backbones import BACKBONES, Backbone, build_backbone
from .denoiser import Denoiser
from .network_field import NetworkField

FORMAT = 1
HEADER = "header"
NETWORK, TABLE_NETWORK, SHOWER_NETWORK = "network", "table network", "shower network"


def pack_network(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Return header and tensors as the bytes of an npz file."""
    arrays: Any = {f"t/{name}": tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    text = atomic_files.json_bytes({"format": FORMAT, **header})
    arrays[HEADER] = np.frombuffer(text, dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class StoredDenoiser(Stored):
    """Settings of a `Denoiser`."""

    prediction: str
    sigma_data: Positive
    sigma_min: Positive
    sigma_max: Positive


class StoredLoss(Stored):
    """A line of the log of a training."""

    step: AtLeastOne
    loss: float
    valid_loss: float | None
    learning_rate: float
    gradient_norm: float
    seconds: NotNegative


class StoredCoordinates(Stored):
    """Settings of `flowbdt.networks.voxel_coordinates.VoxelCoordinates`."""

    detector: str
    threshold: Positive


class Header(Stored):
    """Description of the tensors of a file; all but plain networks have more."""

    format: int
    kind: str
    backbone: dict[str, Any]
    denoiser: StoredDenoiser
    transform: dict[str, Any] | None = None
    names: list[str] | None = None
    units: list[str] | None = None
    objective: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    history: list[StoredLoss] | None = None
    stored: list[tuple[Positive, AtLeastOne]] | None = None
    data_digest: str | None = None
    coordinates: StoredCoordinates | None = None


def unpack_network(content: bytes, where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors. Raises FormatError that names a foreign file."""
    with reading(f"{where} is no network of flowBDT, or truncated"):
        arrays = atomic_files.read_arrays(content, "the file")
        header = json.loads(arrays.pop(HEADER).tobytes())
        if header["format"] != FORMAT:
            raise FormatError(f"it has format {header['format']!r}; this release reads {FORMAT}")
        check_stored(header, Header, HEADER)
        tensors = {name.removeprefix("t/"): torch.from_numpy(a) for name, a in arrays.items()}
        for name, tensor in tensors.items():
            if f"t/{name}" not in arrays or not torch.isfinite(tensor).all():
                raise FormatError(f"tensor {name!r} is unknown, or not finite")
    return header, tensors


def read_network(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a file. Raises FormatError for a file of another kind."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    header, tensors = unpack_network(content, str(path))
    if header["kind"] != kind:
        raise FormatError(f"{path} is a {header['kind']}, not a {kind}")
    return header, tensors


def network_header(denoiser: Denoiser) -> dict[str, Any]:
    """Return the settings from which `rebuilt` makes the network."""
    backbone: Any = denoiser.backbone
    backbone = getattr(backbone, "_orig_mod", backbone)  # as torch.compile wraps it
    names: dict[Any, str] = {BACKBONES.get(name): name for name in BACKBONES.names()}
    return {
        "kind": NETWORK,
        "backbone": {"name": names[type(backbone)], **backbone.settings()},
        "denoiser": denoiser.settings(),
    }


def weights_of(denoiser: Denoiser) -> dict[str, Tensor]:
    """Return all weights by name, the same whether the network is compiled or not."""
    return {k.replace("_orig_mod.", ""): v for k, v in denoiser.state_dict().items()}


def load_weights(denoiser: Denoiser, weights: Mapping[str, Tensor], where: str) -> None:
    """Load weights into a network. Raises FormatError if they belong to another one."""
    try:
        named = {k: weights[k.replace("_orig_mod.", "")] for k in denoiser.state_dict()}
        denoiser.load_state_dict(named)
    except (KeyError, RuntimeError) as error:
        raise FormatError(f"{where} holds the weights of another network: {error}") from error


def save_network(path: str | Path, denoiser: Denoiser) -> None:
    """Write a network, whole or not at all; `load_network` reads it."""
    atomic_files.write_bytes(path, pack_network(network_header(denoiser), weights_of(denoiser)))


def load_network(path: str | Path, device: str = "cpu") -> Denoiser:
    """Read a network. Raises FormatError if it is truncated, foreign, or of another format."""
    return rebuilt(*read_network(path, NETWORK), str(path)).to(device).eval()


def rebuilt(header: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> Denoiser:
    """Return the network of a header with its weights. Raises FormatError if they do not fit."""
    with reading(where):
        backbone = stored_backbone(header, tensors)
        denoiser = Denoiser(backbone, **header["denoiser"])
        if unknown := tensors.keys() - weights_of(denoiser).keys():
            raise FormatError(f"it has unknown tensors {sorted(unknown)}")
        load_weights(denoiser, tensors, where)
    return denoiser


def stored_backbone(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Backbone:
    """Return the untrained backbone of a header, no larger than its tensors.

    A number in a header could ask for any amount of memory or time, so a network is first built
    without memory.
    """
    spec, size = header["backbone"], sum(tensor.numel() for tensor in tensors.values())
    for name, value in spec.items():
        most = len(tensors) if name == "n_layers" else size
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and not 0 <= number <= most:
                raise FormatError(f"{name} of the backbone, {number}, does not fit its weights")
    with torch.device("meta"):
        outline = build_backbone(spec)
    if sum(value.numel() for value in outline.state_dict().values()) > size:
        raise FormatError("its backbone has more numbers than it stores")
    return build_backbone(spec)


@dataclass(frozen=True, eq=False)
class TableNetwork:
    """A trained network and the fitted transform of its events."""

    denoiser: Denoiser  # in the latent space of the transform
    transform: TableTransform
    names: tuple[str, ...]  # columns, in order
    units: tuple[str, ...]  # of the columns, "" for none

    def sample(self, n: int, steps: int = 20, random_state: Any = None) -> EventTable:
        """Return n events, by UniPC in as many steps; the first ones do not depend on n."""
        seed, tables = seeding.resolve(random_state), []
        grid = boundaries_of(SCHEDULES.build({"name": "warped"}), steps)
        field, solver = NetworkField(self.denoiser), SOLVERS.build("unipc")
        units = dict(zip(self.names, self.units, strict=True))
        for _, low, high in seeding.block_ranges(n):
            rows = RowNoise(seed, "sample", np.arange(low, high), once=True)
            x0 = rows.standard_normal((high - low, self.transform.n_latent))
            x = self.transform.inverse(integrate(solver, field, x0, grid).x)
            tables.append(EventTable.of(x, list(self.names), units=units))
        return EventTable.concatenate(tables)

    def save(self, path: str | Path) -> None:
        """Write network and transform, whole or not at all; `load` reads them."""
        header = network_header(self.denoiser)
        header |= {"kind": TABLE_NETWORK, "transform": self.transform.to_json()}
        header |= {"names": list(self.names), "units": list(self.units)}
        atomic_files.write_bytes(path, pack_network(header, weights_of(self.denoiser)))

    @classmethod
    def load(cls, path: str | Path) -> TableNetwork:
        """Read a file. Raises FormatError if it is truncated, foreign, or of another format."""
        header, tensors = read_network(path, TABLE_NETWORK)
        denoiser = rebuilt(header, tensors, str(path))
        with reading(str(path)):
            transform = TableTransform.from_json(header["transform"])
            names, units = tuple(header["names"]), tuple(header["units"])
            n_columns = header["backbone"].get("n_columns")
            if names != transform.names or len(units) != len(names):
                raise FormatError("its names and units are not those of its transform")
            if n_columns != transform.n_latent or header["backbone"].get("n_conditions"):
                raise FormatError("its network is not one of its latent columns alone")
        return cls(denoiser.eval(), transform, names, units)


def pretrained_network() -> TableNetwork:
    """Return a network of 12 observables of jets, trained on the training split of `bundled`."""
    source = resources.files("flowbdt.physics") / "data" / "top_jets_network.npz"
    with resources.as_file(source) as path:
        return TableNetwork.load(path)
