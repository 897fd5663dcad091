"""Layers of a network on a cylinder: pictures (n, channels, z, alpha, r), closed in alpha."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

ALPHA = 3
"""Axis of the angle."""


def closed(x: Tensor, n: int) -> Tensor:
    """Return the picture with its last n bins in alpha before it and its first n behind it."""
    return torch.cat([x[:, :, :, -n:], x, x[:, :, :, :n]], dim=ALPHA) if n else x


class CylinderConv(nn.Conv3d):
    """A 3-d convolution that goes around in alpha and meets zeros in z and r.

    With stride 1 it commutes with rotations.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int | tuple[int, int, int] = 3,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
    ) -> None:
        around = (kernel if isinstance(kernel, int) else kernel[1]) // 2
        self.around = around if padding is None else padding
        rest = (self.around, 0, self.around)
        super().__init__(n_in, n_out, kernel, stride=stride, padding=rest, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the picture of the convolution."""
        return super().forward(closed(input, self.around))


class CylinderUp(nn.ConvTranspose3d):
    """A transposed convolution of stride 2 that goes around in alpha, to a given shape.

    The kernel is 4 in alpha and r. In z it is 3 where the target is odd and 4 where it is even,
    so that twice the number of layers, or one less, come out.
    """

    def __init__(self, n_channels: int, shape: Sequence[int], target: Sequence[int]) -> None:
        self.target = tuple(target)
        kernel = (4 if target[0] % 2 == 0 else 3, 4, 4)
        extra = target[2] - (2 * shape[2])
        super().__init__(
            n_channels,
            n_channels,
            kernel,
            stride=2,
            padding=(1, 0, 1),
            output_padding=(0, 0, extra),
        )

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the larger picture."""
        # one more bin on both sides; what they add beyond the turn is cut off
        wide = super().forward(closed(input, 1))
        return wide[:, :, :, 3 : 3 + self.target[1]]


class Block(nn.Module):
    """Two convolutions with group norms, shifted by the condition, added to what came in."""

    def __init__(self, n_in: int, n_out: int, n_condition: int = 0, groups: int = 8) -> None:
        super().__init__()
        self.condition = nn.Linear(n_condition, n_out) if n_condition else None
        self.first = nn.Sequential(CylinderConv(n_in, n_out), nn.GroupNorm(groups, n_out))
        self.second = nn.Sequential(CylinderConv(n_out, n_out), nn.GroupNorm(groups, n_out))
        self.skip = nn.Identity() if n_in == n_out else CylinderConv(n_in, n_out, 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return a picture of n_out channels."""
        h = silu(self.first(x))
        if self.condition is not None and condition is not None:
            h = h + self.condition(silu(condition))[:, :, None, None, None]
        summed: Tensor = silu(self.second(h)) + self.skip(x)
        return summed


class LinearAttention(nn.Module):
    """Attention whose cost grows with the number of places only, added to what came in.

    References
    ----------
    Shen et al. 2021, arXiv 1812.01243 (softmax of queries over features, of keys over places).
    """

    def __init__(self, n_channels: int, heads: int = 1, width: int = 32) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.before = nn.GroupNorm(1, n_channels)
        self.question = CylinderConv(n_channels, 3 * heads * width, 1, bias=False)
        self.answer = nn.Sequential(
            CylinderConv(heads * width, n_channels, 1), nn.GroupNorm(1, n_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the picture with what each place asked of all others."""
        parts = self.question(self.before(x)).reshape(len(x), 3, self.heads, self.width, -1)
        query, key, value = parts.unbind(1)
        query = query.softmax(dim=2) * self.width**-0.5
        context = torch.matmul(key.softmax(dim=3), value.transpose(2, 3))  # (n, heads, key, value)
        seen = torch.matmul(context.transpose(2, 3), query)
        summed: Tensor = x + self.answer(seen.reshape(len(x), -1, *x.shape[2:]))
        return summed
