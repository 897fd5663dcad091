"""The conditional cylindrical U-net of CaloDiffusion, with its geometry map.

Its layers take pictures (n, channels, z, alpha, r), closed in alpha.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, pad, silu

from ..errors import ConfigError, InputError
from .backbones import BACKBONES, Backbone, check_condition
from .geometry_map import PHOTONS, PIONS, GeometryMap, Layers, coordinates

ALPHA = 3
"""Axis of the angle."""

Kernel = tuple[int, int, int]
"""Sizes in z, alpha and r."""

POINT = (1, 1, 1)


def closed(x: Tensor, n: int) -> Tensor:
    """Return the picture with its last n bins in alpha before it and its first n behind it."""
    return torch.cat([x[:, :, :, -n:], x, x[:, :, :, :n]], dim=ALPHA) if n else x


def is_ring(x: Tensor, kernel: Sequence[int]) -> bool:
    """Return whether a picture has bins in alpha only: one dimension is several times faster."""
    return (x.shape[2], x.shape[4], kernel[0], kernel[2]) == (1, 1, 1, 1)


class CylinderConv(nn.Conv3d):
    """A 3-d convolution, periodic in alpha, padded by zeros in z and r.

    Along an axis of kernel 1 there is neither padding nor stride.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: Kernel = (3, 3, 3),
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
    ) -> None:
        self.around = kernel[1] // 2 if padding is None else padding
        rest = [self.around if size > 1 else 0 for size in kernel]
        steps = _wide(kernel, (stride, stride, stride))
        super().__init__(n_in, n_out, kernel, steps, (rest[0], 0, rest[2]), bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        wide = closed(input, self.around)
        if not is_ring(wide, self.kernel_size):
            return super().forward(wide)
        flat = conv1d(wide[:, :, 0, :, 0], self.weight[:, :, 0, :, 0], self.bias, self.stride[1])
        return flat[:, :, None, :, None]


class CylinderUp(nn.ConvTranspose3d):
    """A transposed convolution of stride 2, periodic in alpha, to a fixed shape.

    The kernel is 4 in alpha and r. In z it is 3 for an odd target and 4 for an even one, so that
    twice the number of layers, or one less, come out. An axis that `narrow` says is not halved
    stays as it is.
    """

    def __init__(
        self,
        n_channels: int,
        shape: Sequence[int],
        target: Sequence[int],
        narrow: Kernel = (3, 3, 3),
    ) -> None:
        self.target = tuple(target)
        kernel = _wide(narrow, (4 if target[0] % 2 == 0 else 3, 4, 4))
        extra = target[2] - (2 * shape[2]) if kernel[2] > 1 else 0
        super().__init__(
            n_channels,
            n_channels,
            kernel,
            stride=_wide(narrow, (2, 2, 2)),
            padding=(int(kernel[0] > 1), 0, int(kernel[2] > 1)),
            output_padding=(0, 0, extra),
        )

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        # one more bin on both sides, whose contribution beyond the full turn is cut off
        x = closed(input, 1)
        if is_ring(x, self.kernel_size):
            flat = conv_transpose1d(x[:, :, 0, :, 0], self.weight[:, :, 0, :, 0], self.bias, 2)
            wide = flat[:, :, None, :, None]
        else:
            wide = super().forward(x)
        return wide[:, :, :, 3 : 3 + self.target[1]]


class Block(nn.Module):
    """Two convolutions with group norms, shifted by the condition, with a residual connection."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        n_condition: int = 0,
        groups: int = 8,
        kernel: Kernel = (3, 3, 3),
    ) -> None:
        super().__init__()
        self.condition = nn.Linear(n_condition, n_out) if n_condition else None
        self.first = nn.Sequential(CylinderConv(n_in, n_out, kernel), nn.GroupNorm(groups, n_out))
        self.second = nn.Sequential(CylinderConv(n_out, n_out, kernel), nn.GroupNorm(groups, n_out))
        self.skip = nn.Identity() if n_in == n_out else CylinderConv(n_in, n_out, POINT)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = silu(self.first(x))
        if self.condition is not None and condition is not None:
            h = h + self.condition(silu(condition))[:, :, None, None, None]
        summed: Tensor = silu(self.second(h)) + self.skip(x)
        return summed


class LinearAttention(nn.Module):
    """Attention at a cost linear in the number of places, with a residual connection.

    Shen et al. 2021, arXiv 1812.01243 (softmax of queries over features, of keys over places).
    """

    def __init__(self, n_channels: int, heads: int = 1, width: int = 32) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.before = nn.GroupNorm(1, n_channels)
        self.question = CylinderConv(n_channels, 3 * heads * width, POINT, bias=False)
        self.answer = nn.Sequential(
            CylinderConv(heads * width, n_channels, POINT), nn.GroupNorm(1, n_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        projected = self.question(self.before(x)).reshape(len(x), 3, self.heads, self.width, -1)
        query, key, value = projected.unbind(1)
        query = query.softmax(dim=2) * self.width**-0.5
        context = torch.matmul(key.softmax(dim=3), value.transpose(2, 3))  # (n, heads, key, value)
        mixed = torch.matmul(context.transpose(2, 3), query)
        summed: Tensor = x + self.answer(mixed.reshape(len(x), -1, *x.shape[2:]))
        return summed


GEOMETRIES: dict[str, Layers] = {"photons": PHOTONS, "pions": PIONS}
"""Irregular geometries by name."""


class CylinderUNet(nn.Module):
    """U-net on a cylinder: levels of blocks and attention, halved between levels."""

    def __init__(
        self,
        shape: Sequence[int],  # layers, alpha bins, rings of the picture
        n_channels: int,  # of the input
        widths: Sequence[int] = (16, 16, 16, 32),  # of the first convolution, then of every level
        n_inputs: int = 2,  # numbers per event that condition every block, by a small network each
        n_condition: int = 128,  # outputs of all these networks together
        groups: int = 8,  # of the group norms
        n_blocks: int = 2,  # of each level
        n_out: int = 1,  # channels of the output
        kernel: Kernel = (3, 3, 3),  # 1 along an axis that is neither convolved nor halved
    ) -> None:
        super().__init__()
        each = n_condition // n_inputs
        self.inputs = nn.ModuleList(_embedding(each) for _ in range(n_inputs))
        shapes = [tuple(shape)]
        for _ in widths[2:]:
            shapes.append(_halved(shapes[-1], kernel))
        total, pairs = each * n_inputs, list(itertools.pairwise(widths))
        given: Any = {"n_condition": total, "groups": groups, "kernel": kernel}
        self.first = CylinderConv(n_channels, widths[0], kernel)
        self.down = nn.ModuleList(_Level(a, b, n_blocks, **given) for a, b in pairs)
        self.shrink = nn.ModuleList(
            CylinderConv(width, width, _wide(kernel, (3, 4, 4)), 2, padding=1)
            for width in widths[1:-1]
        )
        deep = widths[-1]
        self.before = Block(deep, deep, **given)
        self.middle = LinearAttention(deep)
        self.after = Block(deep, deep, **given)
        # going up, each level ends with the width at which the next one began
        ends = [a for a, _ in reversed(pairs)]
        self.up = nn.ModuleList(
            _Level(2 * b, a, n_blocks, **given)
            for (_, b), a in zip(reversed(pairs), ends, strict=True)
        )
        self.grow = nn.ModuleList(
            CylinderUp(width, small, large, kernel)
            for width, small, large in zip(
                ends[:-1], reversed(shapes[1:]), reversed(shapes[:-1]), strict=True
            )
        )
        self.last = nn.Sequential(
            Block(widths[0], widths[1], 0, groups, kernel),
            CylinderConv(widths[1], n_out, POINT),
        )

    def forward(self, picture: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """Return (n, n_out, z, alpha, r) from (n, channels, z, alpha, r) and one (n,) per input."""
        pairs = zip(self.inputs, inputs, strict=True)
        condition = torch.cat([net(value[:, None]) for net, value in pairs], dim=1)
        x, kept = self.first(picture), []
        for i, level in enumerate(self.down):
            x = level(x, condition)
            kept.append(x)
            if i < len(self.shrink):
                x = self.shrink[i](x)
        x = self.after(self.middle(self.before(x, condition)), condition)
        for i, level in enumerate(self.up):
            x = level(torch.cat([x, kept.pop()], dim=1), condition)
            if i < len(self.grow):
                x = self.grow[i](x)
        predicted: Tensor = self.last(x)
        return predicted


class _Level(nn.Module):
    """Blocks and attention."""

    def __init__(self, n_in: int, n_out: int, n_blocks: int, **of_blocks: Any) -> None:
        super().__init__()
        ends = [n_in, *[n_out] * n_blocks]
        self.blocks = nn.ModuleList(Block(a, b, **of_blocks) for a, b in itertools.pairwise(ends))
        self.attention = LinearAttention(n_out)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, condition)
        attended: Tensor = self.attention(x)
        return attended


def _embedding(width: int) -> nn.Sequential:
    half, gelu = width // 2, nn.GELU
    return nn.Sequential(
        nn.Linear(1, half), gelu(), nn.Linear(half, width), gelu(), nn.Linear(width, width)
    )


def _halved(shape: Sequence[int], kernel: Kernel) -> tuple[int, ...]:
    """Return the shape after kernel (3, 4, 4), stride 2, one bin of padding."""
    z, alpha, r = shape
    if alpha < 2 or (r < 2 and kernel[2] > 1):
        raise ConfigError(f"a cylinder of shape {tuple(shape)} cannot be halved: use fewer widths")
    smaller = (z - 1) // 2 + 1, (alpha - 2) // 2 + 1, (r - 2) // 2 + 1
    kept = zip(kernel, shape, smaller, strict=True)
    return tuple(new if size > 1 else old for size, old, new in kept)


def _wide(kernel: Kernel, sizes: Kernel) -> Kernel:
    """Return sizes, but 1 along axes of kernel 1."""
    z, alpha, r = (new if size > 1 else 1 for size, new in zip(kernel, sizes, strict=True))
    return z, alpha, r


@BACKBONES.register("cylinder_unet")
class CaloUNet(Backbone):
    """CaloDiffusion's network from voxels to voxels, on a cylinder in between.

    Conditions are one number per event and small network, first the scaled incident energy.

    Amram, Pedro 2023, arXiv 2308.03876.
    """

    where: Tensor

    def __init__(
        self,
        # of dataset 1, mapped to a cylinder; or the shape [layers, alpha bins, rings] of another
        geometry: Any = "photons",
        widths: Sequence[int] = (16, 16, 16, 32),  # see `CylinderUNet`
        n_conditions: int = 1,  # numbers per event besides the noise level
        angle: bool | None = None,  # as an input; None: for the irregular geometries
        inverse: str = "pseudo",  # see `GeometryMap`
        n_blocks: int = 2,  # of each level
        # neighbouring rings that are channels of one: fewer places, less time; or [layers, rings],
        # and an axis left with one place is not convolved; or 'all': only alpha is left
        fold: Any = 1,
    ) -> None:
        super().__init__()
        self.geometry, self.widths, self.n_conditions = geometry, list(widths), n_conditions
        self.angle, self.inverse, self.n_blocks, self.fold = angle, inverse, n_blocks, fold
        if n_blocks < 1:
            raise ConfigError(f"n_blocks must be above 0, got {n_blocks}")
        layers = _layers(geometry)
        self._shape = tuple(geometry) if layers is None else layers.shape
        self._fold = _folds(fold, self._shape)
        self.map = None if layers is None else GeometryMap(layers, inverse=inverse)
        shown = layers is not None if angle is None else angle
        where = self._folded(coordinates(layers, self._shape, shown)[None])
        kernel: Kernel = (3, 3, 3)
        if not isinstance(fold, int):
            kernel = _wide((where.shape[2], 3, where.shape[4]), kernel)
            if kernel == (1, 3, 1) and not shown:
                where = where[:, :0]  # z and r are the same at every place
        self.register_buffer("where", where, persistent=False)
        n_condition, n_fold = 64 * (1 + n_conditions), math.prod(self._fold)
        self.unet = CylinderUNet(
            where.shape[2:],
            n_fold + int(where.shape[1]),
            widths,
            1 + n_conditions,
            n_condition,
            n_blocks=n_blocks,
            n_out=n_fold,
            kernel=kernel,
        )

    @property
    def n_voxels(self) -> int:
        """Number of voxels per event."""
        if self.map is not None:
            return self.map.layers.n_voxels
        z, alpha, r = self._shape
        return int(z * alpha * r)

    def _folded(self, picture: Tensor) -> Tensor:
        """Return (n, folds, z / fold, alpha, r / fold), with empty bins up to a multiple."""
        z, r = self._fold
        more = (0, -picture.shape[-1] % r, 0, 0, 0, -picture.shape[2] % z)
        split = pad(picture, more).unflatten(-1, (-1, r)).unflatten(2, (-1, z))
        return split.movedim((-1, 3), (1, 2)).flatten(1, 3)

    def _unfolded(self, folded: Tensor) -> Tensor:
        """Return (n, 1, z, alpha, r): the inverse of `_folded` for one channel."""
        z, r = self._fold
        split = folded.unflatten(1, (r, z)).movedim((1, 2), (-1, 2)).flatten(1, 2).flatten(-2)
        return split[:, None, : self._shape[0], :, : self._shape[2]]

    def forward(self, x: Tensor, noise: Tensor, cond: Tensor | None = None) -> Tensor:
        check_condition(cond, self.n_conditions)
        if x.shape[1:] != (self.n_voxels,):
            raise InputError(
                f"this geometry has {self.n_voxels} voxels, got events of {tuple(x.shape[1:])}"
            )
        picture = x.reshape(-1, 1, *self._shape) if self.map is None else self.map(x)
        where = self.where.to(x.dtype).expand(len(x), -1, -1, -1, -1)
        inputs = [noise, *([] if cond is None else cond.unbind(1))]
        predicted = self.unet(torch.cat([self._folded(picture), where], dim=1), inputs)
        predicted = self._unfolded(predicted)
        return predicted.flatten(1) if self.map is None else self.map.inverse(predicted)


def _folds(fold: Any, shape: Sequence[int]) -> tuple[int, int]:
    """Return how many layers and rings are channels of one place."""
    if fold == "all":
        return shape[0], shape[2]
    try:
        z, r = (1, fold) if isinstance(fold, int) else fold
        if min(z, r) >= 1:
            return int(z), int(r)
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"fold must be a number above 0, [layers, rings] or 'all', got {fold!r}")


def _layers(geometry: Any) -> Layers | None:
    if isinstance(geometry, str):
        if geometry not in GEOMETRIES:
            known = f"{', '.join(GEOMETRIES)}, or a shape"
            raise ConfigError(f"unknown geometry {geometry!r}. Known: {known}")
        return GEOMETRIES[geometry]
    if isinstance(geometry, Mapping):
        return Layers(geometry["edges"], geometry["n_alpha"])
    if not isinstance(geometry, Sequence) or len(geometry) != 3:
        raise ConfigError(f"a geometry is a name or [layers, alpha bins, rings], got {geometry!r}")
    return None


PUBLISHED: dict[str, dict[str, Any]] = {
    "dataset 1, photons": {"geometry": "photons"},
    "dataset 1, pions": {"geometry": "pions"},
    "dataset 2": {"geometry": [45, 16, 9]},
    "dataset 3": {"geometry": [45, 50, 18], "widths": [32, 32, 32, 32]},
}
"""The four published configurations."""
