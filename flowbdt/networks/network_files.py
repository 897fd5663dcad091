"""Networks and checkpoints as files: arrays and one JSON text in an npz, no pickle."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import atomic_files
from ..errors import FormatError
from .backbones import build_backbone
from .denoiser import Denoiser

FORMAT = 1
HEADER = "header"
NETWORK = "network"


def pack(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Return header and tensors as the bytes of an npz file."""
    text = np.frombuffer(atomic_files.json_bytes({"format": FORMAT, **header}), dtype=np.uint8)
    arrays: Any = {f"t/{name}": tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    arrays[HEADER] = text
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack(content: bytes, where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors. Raises FormatError that names the file if it is not ours."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            header = json.loads(bytes(archive[HEADER]))
            names = [name for name in archive.files if name.startswith("t/")]
            tensors = {name[2:]: torch.from_numpy(archive[name]) for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{where} is no network of flowBDT, or truncated ({error})") from error
    if header.get("format") != FORMAT:
        raise FormatError(
            f"{where} has format {header.get('format')!r}, this release reads {FORMAT}"
        )
    return header, tensors


def read(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a file.

    Raises FormatError if it cannot be read, is not ours, or of another kind.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    header, tensors = unpack(content, str(path))
    if header.get("kind") != kind:
        raise FormatError(f"{path} is a {header.get('kind')}, not a {kind}")
    return header, tensors


def network_header(denoiser: Denoiser) -> dict[str, Any]:
    """Return how to build the network again."""
    backbone: Any = denoiser.backbone
    backbone = getattr(backbone, "_orig_mod", backbone)  # as torch.compile wraps it
    names = {entry: name for name, entry in _registered().items()}
    return {
        "kind": NETWORK,
        "backbone": {"name": names[type(backbone)], **backbone.settings()},
        "denoiser": denoiser.settings(),
    }


def _registered() -> dict[str, Any]:
    from . import calo_unet  # noqa: F401  registers itself
    from .backbones import BACKBONES

    return {name: BACKBONES.get(name) for name in BACKBONES.names()}


def weights_of(denoiser: Denoiser) -> dict[str, Tensor]:
    """Return all weights by name, the same whether the network is compiled or not."""
    return {k.replace("_orig_mod.", ""): v for k, v in denoiser.state_dict().items()}


def load_weights(denoiser: Denoiser, weights: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a network. Raises FormatError if they belong to another one."""
    own = denoiser.state_dict()
    try:
        named = {k: weights[k.replace("_orig_mod.", "")] for k in own}
        denoiser.load_state_dict(named)
    except (KeyError, RuntimeError) as error:
        raise FormatError(f"{where} holds the weights of another network: {error}") from error


def save_network(path: str | Path, denoiser: Denoiser) -> None:
    """Write a network, whole or not at all; `load_network` reads it."""
    atomic_files.write_bytes(path, pack(network_header(denoiser), weights_of(denoiser)))


def load_network(path: str | Path, device: str = "cpu") -> Denoiser:
    """Read a network.

    Raises
    ------
    FormatError
        If the file is truncated, foreign, or of another format.
    """
    return restored(*read(path, NETWORK), str(path)).to(device).eval()


def restored(header: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> Denoiser:
    """Return the network of a header with its weights. Raises FormatError if they do not fit."""
    denoiser = Denoiser(build_backbone(header["backbone"]), **header["denoiser"])
    load_weights(denoiser, tensors, where)
    return denoiser
