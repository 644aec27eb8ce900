"""Sums of power kernels over all changes of the rate, fast and exact enough.

``F(t) = sum over k <= t of w_k (1 + c_k (S(t) - s_k))^-beta`` is what the multi-power and the
functional law consist of. Directly it costs (points x changes). Written as a sum of exponentials,

    x^-beta = 1/Gamma(beta) * integral of exp(beta v - x e^v) dv,

with the trapezoid rule (whose error falls exponentially with the spacing), each exponential is a
first-order recurrence over the steps, and all points together cost (steps x exponentials).
"""

from __future__ import annotations

import math

import numpy as np

from trainplan.laws.readers.raw import Floats
from trainplan.laws.views import Ints, View

_DIRECT = 4_000_000
_CHUNK = 400_000
_TOLERANCE = 4e-6
_LARGEST_EXPONENT = 600.0
_STRETCH = 4096
_LONGEST_BLOCK = 128


def response(view: View, weights: Floats, speed: Floats, origin: Floats, beta: float) -> Floats:
    """``sum over k <= t of w_k (1 - (1 + c_k (S(t) - s_k))^-beta)`` at the view's points.

    Args:
        view: The schedule.
        weights: ``w``, shape (m,).
        speed: ``c``, one per area, shape (m,); infinite means: at once when the area grows.
        origin: ``s``, shape (m,).
        beta: Exponent, above 0.

    Returns:
        Shape (n,). Directly, or with an error below 5e-6 of the sum of ``|w|`` if that is faster
        (below 1e-6 nats for a law whose drops are worth up to 0.2 nats).
    """
    if view.at.size * view.start.size <= _DIRECT or view.at.size < 64:
        return _direct(view, weights, speed, origin, beta)
    return _by_exponentials(view, weights, speed, origin, beta)


def _direct(view: View, weights: Floats, speed: Floats, origin: Floats, beta: float) -> Floats:
    out = np.zeros(view.at.size)
    rows = max(1, _CHUNK // max(view.start.size, 1))
    order = np.searchsorted(view.start, view.at, side="right")
    for i in range(0, view.at.size, rows):
        m = int(order[i : i + rows].max(initial=0))
        if m:
            grown = view.area[i : i + rows, None] - origin[None, :m]
            share = 1.0 - kernel(grown, speed[None, :m], beta)
            seen = view.start[None, :m] <= view.at[i : i + rows, None]
            out[i : i + rows] = np.where(seen, share, 0.0) @ weights[:m]
    return out


def kernel(grown: Floats, speed: Floats, beta: float) -> Floats:
    """``(1 + c x)^-beta``: 1 where x is 0, even at infinite speed, and 0 beyond it then."""
    with np.errstate(invalid="ignore", over="ignore"):
        product = speed * np.maximum(grown, 0.0)
        product = np.where(np.isnan(product), 0.0, product)
        return np.asarray(np.exp(-beta * np.log1p(product)))


def _spacing(beta: float) -> int:
    """How many nodes per octave keep the trapezoid rule's relative error below the tolerance."""
    from scipy.special import loggamma

    for per_octave in range(1, 9):
        h = math.log(2) / per_octave
        error = 2 * abs(np.exp(loggamma(beta + 2j * math.pi / h) - loggamma(beta)))
        if error < _TOLERANCE:
            return per_octave
    return 8


def _by_exponentials(
    view: View, weights: Floats, speed: Floats, origin: Floats, beta: float
) -> Floats:
    areas = np.cumsum(view.rates)
    total = np.zeros(areas.size)
    np.add.at(total, view.start, weights)
    fixed = np.isfinite(speed)
    instant = _instant(view, areas, np.where(fixed, 0.0, weights))
    amount, shift, w = _amounts(view, weights, speed, origin, beta, fixed, areas.size)
    memory = _memory(areas, amount, shift, w, beta)
    values = np.cumsum(total) - memory - instant
    return np.asarray(values[view.at])


def inverse_distances(rates: Floats, weights: Floats, at: Ints) -> Floats:
    """``sum over k < t of w_k / (S(t) - S(k))`` with the sums ``S`` of the rates.

    Args:
        rates: All above 0; shape (T,).
        weights: ``w``, none below 0; shape (T,).
        at: Steps ``t``, shape (n,).

    Returns:
        Shape (n,); directly, or with a relative error of about 1e-5 if that is faster.
    """
    areas = np.cumsum(rates)
    if at.size * rates.size <= _DIRECT or at.size < 64:
        out = np.zeros(at.size)
        for i, t in enumerate(at):
            out[i] = (weights[:t] / (areas[t] - areas[:t])).sum()
        return out
    # Step k acts from k + 1 on, at a distance of at least the rate there.
    amount, shift = np.zeros(rates.size), np.full(rates.size, -np.inf)
    amount[1:], shift[1:] = weights[:-1], areas[:-1]
    size = np.zeros(rates.size)
    size[1:] = weights[:-1] / rates[1:]
    return np.asarray(_memory(areas, amount, shift, size, 1.0)[at])


def _instant(view: View, areas: Floats, weights: Floats) -> Floats:
    """Drops to rate zero have no effect until the area grows again."""
    if not weights.any():
        return np.zeros(areas.size)
    at = np.zeros(areas.size)
    np.add.at(at, view.start, weights)
    running = np.cumsum(at)
    first = np.searchsorted(areas, areas, side="left")  # where the area reached this value
    return np.asarray(running - running[first])


def _amounts(
    view: View,
    weights: Floats,
    speed: Floats,
    origin: Floats,
    beta: float,
    fixed: np.ndarray,
    steps: int,
) -> tuple[Floats, Floats, Floats]:
    """Per step: ``w c^-beta``, the shift ``s - 1/c``, and ``|w|``."""
    amount, shift, size = np.zeros(steps), np.full(steps, -np.inf), np.zeros(steps)
    k = view.start[fixed]
    amount[k] = weights[fixed] * speed[fixed] ** -beta
    shift[k] = origin[fixed] - 1.0 / speed[fixed]
    size[k] = np.abs(weights[fixed])
    return amount, shift, size


def _memory(areas: Floats, amount: Floats, shift: Floats, size: Floats, beta: float) -> Floats:
    used = np.flatnonzero(size)
    if not used.size:
        return np.zeros(areas.size)
    per_octave = _spacing(beta)
    h = math.log(2) / per_octave
    low = math.floor(math.log(0.1 / (areas[-1] - shift[used].min())) / h)
    nearest = np.full(areas.size, np.inf)
    nearest[used] = areas[used] - shift[used]
    nearest[used[_negligible(nearest[used], size[used])]] = np.inf
    scale = h / math.gamma(beta)
    out = scale * _tail(areas, amount, shift, math.exp(h * low), h, beta)
    state = np.zeros(0)
    for i in range(0, areas.size, _STRETCH):
        part = slice(i, i + _STRETCH)
        closest = float(nearest[max(0, i - _STRETCH) : i + _STRETCH].min())
        high = low if math.isinf(closest) else math.ceil(math.log(15.0 / closest) / h)
        nodes = np.exp(h * np.arange(low, max(high, low) + 1))
        state = np.pad(state, (0, max(0, nodes.size - state.size)))[: nodes.size]
        before = float(areas[i - 1]) if i else 0.0
        state = _stretch(
            areas[part] - before, amount[part], shift[part] - before, nodes, per_octave,
            scale * nodes**beta, state, out[part],
        )  # fmt: skip
    return out


def _negligible(nearest: Floats, size: Floats) -> np.ndarray:
    """The nearest sources, as long as together they are a millionth of all."""
    octave = np.frexp(nearest)[1]
    octave -= octave.min()
    mass = np.cumsum(np.bincount(octave, weights=size))
    return np.asarray(octave < np.searchsorted(mass, 1e-6 * mass[-1]))


def _tail(
    areas: Floats, amount: Floats, shift: Floats, node: float, h: float, beta: float
) -> Floats:
    """The exponentials below the lowest node, to second order in their small exponents."""
    moved = np.where(amount != 0, shift, 0.0)
    m0, m1 = np.cumsum(amount), np.cumsum(amount * moved)
    m2 = np.cumsum(amount * moved**2)
    sums = [node ** (beta + i) / math.expm1(h * (beta + i)) for i in range(3)]
    first = areas * m0 - m1
    second = areas**2 * m0 - 2 * areas * m1 + m2
    return np.asarray(sums[0] * m0 - sums[1] * first + 0.5 * sums[2] * second)


def _stretch(
    areas: Floats,
    amount: Floats,
    shift: Floats,
    nodes: Floats,
    per_octave: int,
    scales: Floats,
    state: Floats,
    out: Floats,
) -> Floats:
    """Add ``scales z`` with ``z(t) = sum_k a_k exp(-node (S(t) - shift_k))`` to ``out``.

    Steps are taken in blocks that are short enough for the exponentials of a block not to
    overflow; ``state`` is ``z`` before the first step, and the one after the last is returned.
    """
    block = _block_length(areas, amount, shift, float(nodes[-1]))
    count = -(-areas.size // block)
    pad = count * block - areas.size

    def blocks(x: Floats, fill: float) -> Floats:
        return (
            np.concatenate([x, np.full(pad, fill)]).reshape(count, block)
            if pad
            else x.reshape(count, block)
        )

    reference = np.concatenate([[0.0], areas[block - 1 :: block]])[:count, None]
    ahead = blocks(areas, float(areas[-1])) - reference
    source = blocks(shift, -np.inf) - reference
    decay = _powers(-ahead, nodes, per_octave)
    rise = _powers(source, nodes, per_octave)
    rise *= blocks(amount, 0.0)
    np.cumsum(rise, axis=2, out=rise)
    ends, sums = decay[:, :, -1].T.copy(), rise[:, :, -1].T.copy()
    carried = np.empty((count, nodes.size))
    for b in range(count):
        carried[b] = state
        state = (state + sums[b]) * ends[b]
    rise += carried.T[:, :, None]
    rise *= decay
    out += np.tensordot(scales, rise, axes=1).reshape(-1)[: areas.size]
    return state


def _powers(exponent: Floats, nodes: Floats, per_octave: int) -> Floats:
    """``exp(node exponent)`` for all nodes; an octave higher is the square."""
    out = np.empty((nodes.size, *exponent.shape))
    for j, node in enumerate(nodes):
        if j < per_octave:
            np.exp(node * exponent, out=out[j])
        else:
            np.multiply(out[j - per_octave], out[j - per_octave], out=out[j])
    return out


def _block_length(areas: Floats, amount: Floats, shift: Floats, node: float) -> int:
    """The longest block within which no source comes too far ahead of the block's start."""
    used = np.flatnonzero(amount)
    if not used.size:
        return _LONGEST_BLOCK
    block = _LONGEST_BLOCK
    while block > 1:
        starts = used - used % block - 1
        ahead = shift[used] - np.where(starts >= 0, areas[starts], 0.0)
        if node * float(ahead.max()) < _LARGEST_EXPONENT:
            break
        block //= 2
    return block


__all__ = ["Ints", "kernel", "response"]
