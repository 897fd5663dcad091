"""Compiled loops that divide energies shower by shower.

The operations of `rings`, `sectors` and `flowbdt.trees.share_distribution`, row by row on the
arrays of `voxel_arrays`; rows are independent. The normal quantile is that of Wichura, Applied
Statistics 37 (1988) 477, algorithm AS 241, PPND16.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from ....trees.share_distribution import CLIP
from .voxel_arrays import BEND, ENDS, KNOTS, LEAF, LOCATION, N_BEND, N_KNOTS, SCALE


def compiled(function: Any) -> Any:
    """Compile when first called."""
    return numba.njit(function, nogil=True, error_model="numpy", fastmath={"contract"}, cache=True)


@compiled
def leaf(nodes: Any, root: int, x: np.ndarray) -> int:
    """Return the leaf of a row."""
    node = root
    while nodes.left[node] >= 0:
        value = x[nodes.feature[node]]
        if math.isnan(value):
            right = nodes.missing[node] == 1
        else:
            right = value >= nodes.threshold[node]
        node = nodes.right[node] if right else nodes.left[node]
    return int(node)


@compiled
def total(nodes: Any, first: int, last: int, base: float, x: np.ndarray) -> float:
    """Return the sum of trees of one output, added as XGBoost does."""
    result = np.float32(base)
    for tree in range(first, last):
        result += nodes.values[nodes.value[leaf(nodes, nodes.roots[tree], x)]]
    return float(result)


@compiled
def normal_quantile(p: float) -> float:
    """Return z at which the cumulative normal distribution is p."""
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        top = ((((((2509.0809287301226727 * r + 33430.575583588128105) * r
                   + 67265.770927008700853) * r + 45921.953931549871457) * r
                 + 13731.693765509461125) * r + 1971.5909503065514427) * r
               + 133.14166789178437745) * r + 3.387132872796366608  # fmt: skip
        low = ((((((5226.495278852854561 * r + 28729.085735721942674) * r
                   + 39307.89580009271061) * r + 21213.794301586595867) * r
                 + 5394.1960214247511077) * r + 687.1870074920579083) * r
               + 42.313330701600911252) * r + 1.0  # fmt: skip
        return q * top / low
    r = math.sqrt(-math.log(p if q < 0 else 1.0 - p))
    if r <= 5.0:
        r -= 1.6
        top = ((((((7.7454501427834140764e-4 * r + 0.0227238449892691845833) * r
                   + 0.24178072517745061177) * r + 1.27045825245236838258) * r
                 + 3.64784832476320460504) * r + 5.7694972214606914055) * r
               + 4.6303378461565452959) * r + 1.42343711074968357734  # fmt: skip
        low = ((((((1.05075007164441684324e-9 * r + 5.475938084995344946e-4) * r
                   + 0.0151986665636164571966) * r + 0.14810397642748007459) * r
                 + 0.68976733498510000455) * r + 1.6763848301838038494) * r
               + 2.05319162663775882187) * r + 1.0  # fmt: skip
    else:
        r -= 5.0
        top = ((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r
                   + 0.0012426609473880784386) * r + 0.026532189526576123093) * r
                 + 0.29656057182850489123) * r + 1.7848265399172913358) * r
               + 5.4637849111641143699) * r + 6.6579046435011037772  # fmt: skip
        low = ((((((2.04426310338993978564e-15 * r + 1.4215117583164458887e-7) * r
                   + 1.8463183175100546818e-5) * r + 7.868691311456132591e-4) * r
                 + 0.0148753612908506148525) * r + 0.13692988092273580531) * r
               + 0.59983220655588793769) * r + 1.0  # fmt: skip
    return -top / low if q < 0 else top / low


@compiled
def clipped(value: float, low: float, high: float) -> float:
    """Return the value clipped to [low, high]."""
    return min(max(value, low), high)


@compiled
def unbent_rank(nodes: Any, d: int, x: np.ndarray, uniform: float, curve: np.ndarray) -> float:
    """Return the rank within the leaf; ``curve`` is working memory."""
    row = nodes.trees[d]
    n = row[N_BEND]
    if n == 0:
        return uniform
    for level in range(n):
        curve[level] = np.float32(0.0)
    for tree in range(row[BEND], row[BEND + 1]):
        at = nodes.value[leaf(nodes, nodes.roots[tree], x)]
        for level in range(n):
            curve[level] += nodes.values[at + level]
    low, largest, rank = 0.0, -math.inf, 0.0
    for level in range(n + 1):
        high = 1.0
        if level < n:
            largest = max(largest, curve[level] + (level + 1) / (n + 1))
            high = clipped(largest, 0.0, 1.0)
        if high > uniform or level == n:
            rank = level + clipped((uniform - low) / max(high - low, 1e-12), 0.0, 1.0)
            break
        low = high
    return rank / (n + 1)


@compiled
def drawn(nodes: Any, d: int, x: np.ndarray, uniform: float, curve: np.ndarray) -> float:
    """Return one share from one uniform number."""
    row = nodes.trees[d]
    rank = unbent_rank(nodes, d, x, uniform, curve)
    number = nodes.value[leaf(nodes, nodes.roots[row[LEAF]], x)]
    zero, one = nodes.ends[row[ENDS] + number, 0], nodes.ends[row[ENDS] + number, 1]
    if rank < zero:
        return 0.0
    if one > 0 and rank >= 1 - one:
        return 1.0
    last = row[N_KNOTS] - 1
    at = clipped((rank - zero) / max(1 - zero - one, 1e-12), 0.0, 1.0) * last
    low = min(int(at), last - 1)
    first = row[KNOTS] + number * (last + 1) + low
    share = nodes.knots[first] + (at - low) * (nodes.knots[first + 1] - nodes.knots[first])
    share = clipped(share, CLIP, 1 - CLIP)
    if row[LOCATION + 1] > row[LOCATION]:
        location = total(nodes, row[LOCATION], row[LOCATION + 1], nodes.base[d, 0], x)
        scale = math.exp(total(nodes, row[SCALE], row[SCALE + 1], nodes.base[d, 1], x))
        logit = location + scale * normal_quantile(share)
        share = clipped(1 / (1 + math.exp(-logit)), CLIP, 1 - CLIP)
    return share


@compiled
def left_segment(share: float, whole: float, threshold: float) -> float:
    """Return the energy of the left segment, see `energy_division.left_energy`."""
    if whole <= 0 or share <= 0:
        return 0.0
    if share >= 1:
        return whole
    if whole < 2 * threshold:
        return whole if share > 0.5 else 0.0
    return threshold + share * (whole - 2 * threshold)


@compiled
def logarithm(energy: float) -> float:
    """Return the logarithm; NaN where there is no energy."""
    return math.log(energy) if energy > 0 else math.nan


@compiled
def segment_fraction(segments: np.ndarray, left: int, whole: int) -> float:
    """Return the fraction of two segments; NaN where there is none."""
    if whole < 0 or segments[whole] <= 0:
        return math.nan
    return segments[left] / segments[whole]


@compiled
def fill_rings(
    nodes: Any,
    plan: Any,
    known: np.ndarray,
    layers: np.ndarray,
    uniform: np.ndarray,
    threshold: float,
    memory: Any,
    rings: np.ndarray,
) -> None:
    """Fill ``rings`` (n, all rings) from known features (n, layers, f) and layer energies."""
    x, curve, segments = memory
    n_known = known.shape[2]
    for shower in range(len(layers)):
        for layer in range(len(plan.start)):
            segments[plan.start[layer]] = layers[shower, layer]
        for number in range(len(plan.steps)):
            step = plan.steps[number]
            whole = segments[step[1]]
            share = uniform[shower, number]
            if whole > 0 and step[6] >= 0:
                for i in range(n_known):
                    x[i] = known[shower, step[0], i]
                x[n_known] = logarithm(whole)
                for i in range(2):
                    x[n_known + 1 + i] = segment_fraction(segments, step[1], step[4 + i])
                for i in range((len(step) - 7) // 2):
                    x[n_known + 3 + i] = segment_fraction(
                        segments, step[7 + 2 * i], step[8 + 2 * i]
                    )
                share = drawn(nodes, step[6], x, share, curve)
            left = left_segment(share, whole, threshold)
            segments[step[2]], segments[step[3]] = left, whole - left
        for ring in range(len(plan.rings)):
            rings[shower, ring] = segments[plan.rings[ring]]


@compiled
def fill_sectors(
    nodes: Any,
    plan: Any,
    known: np.ndarray,
    axes: np.ndarray,
    rings: np.ndarray,
    uniform: np.ndarray,
    threshold: float,
    memory: Any,
    voxels: np.ndarray,
) -> None:
    """Fill a layer of ``voxels`` (n, all voxels) from its rings (n, r) and axes (n, 2)."""
    x, curve, segments = memory
    n_known, n_alpha = known.shape[2], len(plan.cells)
    layer, first_voxel, n_r = plan.where
    for shower in range(len(rings)):
        for i in range(n_known):
            x[i] = known[shower, layer, i]
        for ring in range(n_r):
            first = int(uniform[shower, ring] * n_alpha)
            side = -1.0 if uniform[shower, n_r + ring] < 0.5 else 1.0
            segments[0] = rings[shower, ring]
            x[n_known + 1] = logarithm(segments[0])
            x[n_known + 2] = ring
            for number in range(len(plan.steps)):
                step = plan.steps[number]
                whole = segments[step[0]]
                share = uniform[shower, (2 + number) * n_r + ring]
                if whole > 0 and step[4] >= 0:
                    c, s = plan.away[number, 0], side * plan.away[number, 1]
                    tc, ts = plan.turn[first, 0], plan.turn[first, 1]
                    x[n_known] = logarithm(whole)
                    x[n_known + 3] = axes[shower, 0] * (c * tc - s * ts) + axes[shower, 1] * (
                        c * ts + s * tc
                    )
                    x[n_known + 4] = segment_fraction(segments, step[0], step[3])
                    share = drawn(nodes, step[4], x, share, curve)
                left = left_segment(share, whole, threshold)
                segments[step[1]], segments[step[2]] = left, whole - left
            for place in range(n_alpha):
                sector = (first + (place if side > 0 else -1 - place)) % n_alpha
                voxels[shower, first_voxel + sector * n_r + ring] = segments[plan.cells[place]]
