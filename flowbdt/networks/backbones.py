"""Backbones: networks from (scaled point, noise level, conditions) to a prediction.

To add one: derive from `Backbone`, store the constructor's arguments under their names, register
it. ``cylinder_unet``, for calorimeters, is in `flowbdt.networks.calo_unet`.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..registry import Registry

BACKBONES: Registry[Backbone] = Registry("backbone")


class Backbone(nn.Module):
    """A network (x (n, ...), noise (n,), cond (n, c) or None) -> prediction like x.

    noise is log(sigma) / 4. The constructor stores its arguments under their names, so that a file
    can rebuild it.
    """

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def n_parameters(self) -> int:
        """Return the number of trained values."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def build_backbone(spec: Any) -> Backbone:
    """Return a backbone from a name, or a mapping with its name and parameters."""
    return BACKBONES.build(spec)


class NoiseFeatures(nn.Module):
    """log(sigma) / 4, and waves of the time 1 / (1 + sigma): ``sin k pi t, cos k pi t``.

    t spreads all noise levels over (0, 1); the logarithm tells the ends apart.
    """

    waves: Tensor

    def __init__(self, n_waves: int = 8) -> None:
        super().__init__()
        self.width = 2 * n_waves + 1
        waves = math.pi * torch.arange(1, n_waves + 1, dtype=torch.float32)
        self.register_buffer("waves", waves, persistent=False)

    def forward(self, noise: Tensor) -> Tensor:
        """Return features (n, width)."""
        angle = torch.sigmoid(-4.0 * noise)[:, None] * self.waves
        return torch.cat([noise[:, None], torch.sin(angle), torch.cos(angle)], dim=1)


def check_condition(cond: Tensor | None, n_conditions: int) -> None:
    """Raise InputError unless there are ``n_conditions`` conditions."""
    n = 0 if cond is None else cond.shape[1]
    if n != n_conditions:
        raise InputError(f"this network takes {n_conditions} conditions per event, got {n}")


def known(cond: Tensor) -> Tensor:
    """Return conditions with a missing value (NaN) as 0, the mean of a standardised one."""
    return torch.nan_to_num(cond, nan=0.0)


@BACKBONES.register("table_mlp")
class TableMLP(Backbone):
    """A small network for tables: residual layers that are shifted by the noise level."""

    def __init__(
        self,
        n_columns: int,  # of the latent table
        n_conditions: int = 0,
        width: int = 192,  # of the hidden layers
        n_layers: int = 3,  # hidden ones
        n_waves: int = 8,  # of `NoiseFeatures`
    ) -> None:
        super().__init__()
        if min(n_columns, width, n_layers, n_waves) < 1 or n_conditions < 0:
            raise ConfigError("table_mlp needs at least one column, layer and wave, and a width")
        self.n_columns, self.n_conditions, self.width = n_columns, n_conditions, width
        self.n_layers, self.n_waves = n_layers, n_waves
        self.noise = NoiseFeatures(n_waves)
        self.first = nn.Linear(n_columns + n_conditions + self.noise.width, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers - 1))
        self.shifts = nn.ModuleList(
            nn.Linear(self.noise.width + n_conditions, width) for _ in range(n_layers - 1)
        )
        self.last = nn.Linear(width, n_columns)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, noise: Tensor, cond: Tensor | None = None) -> Tensor:
        check_condition(cond, self.n_conditions)
        context = self.noise(noise)
        if cond is not None:
            context = torch.cat([context, known(cond)], dim=1)
        h = nn.functional.silu(self.first(torch.cat([x, context], dim=1)))
        for layer, shift in zip(self.hidden, self.shifts, strict=True):
            h = h + nn.functional.silu(layer(h) + shift(context))
        predicted: Tensor = self.last(h)
        return predicted


@BACKBONES.register("set_attention")
class SetAttention(Backbone):
    """Attention among particles, without an order: permuting them permutes the prediction.

    Vaswani et al. 2017, arXiv 1706.03762, without positions; layers normalised before, as Xiong et
    al. 2020, arXiv 2002.04745.
    """

    def __init__(
        self,
        n_features: int,  # f of x (n, p, f)
        n_conditions: int = 0,
        width: int = 64,  # of the attention
        n_heads: int = 4,
        n_layers: int = 3,
        # condition with the number of real particles, which come first; the others are masked
        count_column: int | None = None,
    ) -> None:
        super().__init__()
        if width % n_heads:
            raise ConfigError(f"width of set_attention must be a multiple of n_heads = {n_heads}")
        if count_column is not None and not 0 <= count_column < n_conditions:
            raise ConfigError(
                f"count_column {count_column} of set_attention is none of {n_conditions} conditions"
            )
        self.n_features, self.n_conditions, self.width = n_features, n_conditions, width
        self.n_heads, self.n_layers, self.count_column = n_heads, n_layers, count_column
        self.noise = NoiseFeatures()
        self.first = nn.Linear(n_features, width)
        self.context = nn.Sequential(
            nn.Linear(self.noise.width + n_conditions, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.layers = nn.ModuleList(_Attending(width, n_heads) for _ in range(n_layers))
        last = nn.Linear(width, n_features)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.last = nn.Sequential(nn.LayerNorm(width), last)

    def forward(self, x: Tensor, noise: Tensor, cond: Tensor | None = None) -> Tensor:
        # the prediction is 0 for particles that are not real
        check_condition(cond, self.n_conditions)
        context = self.noise(noise)
        real = None
        if cond is not None:
            context = torch.cat([context, known(cond)], dim=1)
            if self.count_column is not None:
                place = torch.arange(x.shape[1], device=x.device)
                real = place < cond[:, self.count_column, None]
        h, shift = self.first(x), self.context(context)[:, None]
        for layer in self.layers:
            h = layer(h + shift, real)
        predicted: Tensor = self.last(h)
        return predicted if real is None else predicted * real[..., None]


class _Attending(nn.Module):
    """Attention, then a layer for each particle, both with a residual connection."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.question = nn.Linear(width, 3 * width)
        self.answer = nn.Linear(width, width)
        self.each = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, h: Tensor, real: Tensor | None) -> Tensor:
        n, p, width = h.shape
        projected = self.question(self.before(h)).reshape(n, p, 3, self.n_heads, -1)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        mask = None
        if real is not None:
            # an event without real particles attends to all, so that no softmax is empty
            mask = (real | ~real.any(1, keepdim=True))[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        h = h + self.answer(mixed.transpose(1, 2).reshape(n, p, width))
        summed: Tensor = h + self.each(self.between(h))
        return summed
