"""Published schedules by name, each a sentence in the language of phases.

All take the ``peak`` first. ``warmup``, ``decay`` and the like are durations: a number in the
plan's unit, a percentage of the whole ("10%"), or an amount ("2B tokens"). ``end`` and
``constant`` are levels: a number, or a percentage of the peak ("10%"). A schedule whose durations
are all absolute needs no horizon. By default a warm-up starts at 0, so that the first update is
made at rate 0, as in most libraries; ``skip_zero=True`` starts it at ``peak / warmup`` instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from typing import Any, Literal

import numpy as np

from trainplan.errors import PlanError, nearest
from trainplan.schedules.algebra import Overlaid
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Duration, Span, optional_duration
from trainplan.schedules.phases import (
    Hold,
    Phase,
    Piece,
    PowerLaw,
    Profile,
    Sequence,
    Stairs,
    Take,
)
from trainplan.schedules.registry import named
from trainplan.schedules.shapes import (
    Cosine,
    CosinePower,
    DampedCosine,
    Exponential,
    Inverse,
    Rex,
    Shape,
    Uba,
    parse_shape,
)
from trainplan.schedules.values import count, finite, level

Time = int | float | str
"""A duration as people write it."""
Level = float | str
"""A value, or a percentage of the peak."""
ShapeLike = Any
"""The name of a shape, ``{name: parameters}``, a `Shape`, or a function on [0, 1]."""


@named
def constant(peak: float, warmup: Time = 0, *, skip_zero: bool = False) -> Schedule:
    """The peak for ever, after a warm-up.

    eta(t) = peak min(1, t / W)

    >>> constant(0.1, warmup=10)([0, 5, 10, 1000]).tolist()
    [0.0, 0.05, 0.1, 0.1]
    """
    peak = finite(peak, "peak")
    return Sequence(*_warm(peak, warmup, skip_zero=skip_zero), Hold(peak))


@named
def linear(
    peak: float,
    end: Level = 0.0,
    warmup: Time = 0,
    duration: Time | None = None,
    *,
    skip_zero: bool = False,
) -> Schedule:
    """A straight line from the peak to the end, after a warm-up.

    eta(t) = end + (peak - end) (T - t) / (T - W). Linear decay to 0 is what the worst-case theory
    of the last iterate asks for (Defazio et al., 2023, arXiv 2310.07831).

    Args:
        peak: Value after the warm-up.
        end: Value at the end and afterwards.
        warmup: Length of the linear rise from 0.
        duration: Length of the whole, warm-up included; None is the horizon.
        skip_zero: Begin the warm-up at ``peak / warmup`` instead of 0.

    >>> linear(1.0, warmup=10, duration=110)([0, 10, 60, 110]).tolist()
    [0.0, 1.0, 0.5, 0.0]
    """
    return _decaying(peak, end, warmup, duration, "linear", skip_zero=skip_zero)


@named
def cosine(
    peak: float,
    end: Level = 0.0,
    warmup: Time = 0,
    duration: Time | None = None,
    *,
    skip_zero: bool = False,
) -> Schedule:
    """Half a cosine wave from the peak to the end, after a warm-up.

    eta(t) = end + (peak - end) (1 + cos(pi (t - W)/(T - W))) / 2 (Loshchilov and Hutter, 2017,
    arXiv 1608.03983). It does not rise again after its end.

    Args:
        peak: Value after the warm-up.
        end: Value at the end and afterwards; language models often use "10%".
        warmup: Length of the linear rise from 0.
        duration: Length of the whole, warm-up included; None is the horizon.
        skip_zero: Begin the warm-up at ``peak / warmup`` instead of 0.

    >>> round(cosine(1.0, end="10%", duration=100)(50), 12)
    0.55
    """
    return _decaying(peak, end, warmup, duration, "cosine", skip_zero=skip_zero)


@named
def one_cycle(
    peak: float,
    start: Level = "4%",
    end: Level = "0.0004%",
    warmup: Time = "30%",
    duration: Time | None = None,
    shape: ShapeLike = "cosine",
) -> Schedule:
    """Up to the peak and down again, far below the start (Smith, 2018, arXiv 1708.07120).

    The defaults are those of PyTorch's ``OneCycleLR``, which spreads the cycle over one step less
    than its ``total_steps``.

    Args:
        peak: Value at the top.
        start: Value at the beginning.
        end: Value at the end.
        warmup: Length of the rise.
        duration: Length of the whole; None is the horizon.
        shape: Shape of the rise and the fall.

    >>> one_cycle(1.0, duration=100)([0, 30]).tolist()
    [0.04, 1.0]
    """
    peak = finite(peak, "peak")
    rise = Phase(level(start, peak, "start"), peak, _time(warmup, "warmup"), shape)
    return _lasting(duration, rise, Phase(peak, level(end, peak), shape=shape))


@named
def step(
    peak: float,
    every: Time | None = None,
    at: Seq[Time] | None = None,
    factor: float = 0.1,
    warmup: Time = 0,
) -> Schedule:
    """The peak times a factor for each milestone passed.

    Args:
        peak: Value before the first drop.
        every: Drop after each such duration (``StepLR``); counted from the end of the warm-up.
        at: Or: drop at these times, ascending, counted from the start (``MultiStepLR``).
        factor: What each drop multiplies by.
        warmup: Length of the linear rise from 0.

    >>> step(1.0, at=[30, 60])([0, 29, 30, 60]).tolist()
    [1.0, 1.0, 0.1, 0.010000000000000002]
    """
    peak, factor = finite(peak, "peak"), finite(factor, "factor")
    if (every is None) == (at is None):
        raise PlanError("give either every or at", place="every", value=every)
    if every is not None:
        stairs = Stairs(peak, factor, _time(every, "every"))
        return Sequence(*_warm(peak, warmup), Take(stairs)) if warmup else stairs
    edges = [_time(x, f"at[{i}]") for i, x in enumerate(at or ())]
    holds = [Hold(peak * factor**k, until=edge) for k, edge in enumerate(edges)]
    return Sequence(*_warm(peak, warmup), *holds, Hold(peak * factor ** len(edges)))


@named
def wsd(
    peak: float,
    warmup: Time = "1%",
    decay: Time | None = "10%",
    shape: ShapeLike = "exponential",
    end: Level = "10%",
    decay_start: Time | None = None,
    *,
    skip_zero: bool = False,
) -> Schedule:
    """Warm-up, stable, decay (Hu et al., 2024, arXiv 2404.06395).

    eta(t) = peak t/W for t < W; peak until the decay starts; then the shape, down to the end. The
    stable part can be prolonged, and the decay started, whenever one likes: write the trunk with
    ``decay=None`` and branch the plan. At least 10 % of the run should be decay.

    Args:
        peak: Value of the stable part.
        warmup: Length of the linear rise from 0.
        decay: Length of the decay; None without ``decay_start`` never decays, and with it takes
            what is left.
        shape: Shape of the decay. ``"1-sqrt"`` with ``end=0.0`` is a good one too;
            ``{"exponential": {"half_life": 5000}}`` with ``end=0.0`` and ``decay=None`` is the
            authors' annealing, which has neither a floor nor an end.
        end: Value at the end. The exponential shape needs it above 0.
        decay_start: Start of the decay; by default it ends with the horizon.
        skip_zero: Begin the warm-up at ``peak / warmup`` instead of 0.

    >>> wsd(1.0, warmup=10, decay_start=80, decay=20, shape="1-sqrt", end=0.0)([5, 50, 85]).tolist()
    [0.5, 1.0, 0.5]
    """
    peak = finite(peak, "peak")
    start = _warm(peak, warmup, skip_zero=skip_zero)
    if decay is None and decay_start is None:
        return Sequence(*start, Hold(peak))
    length = _optional(decay, "decay")
    return Sequence(
        *start,
        Hold(peak, until=_optional(decay_start, "decay_start")),
        Phase(peak, level(end, peak), length, shape),
    )


@named
def wsd_s(
    peak: float,
    windows: Seq[Seq[Time]] | None = None,
    budgets: Seq[float] | None = None,
    fraction: float = 0.1,
    warmup: Time = 0,
    rewarmup: Time | Seq[Time] = 0,
    shape: ShapeLike = "inverse",
    end: Level = "10%",
    *,
    skip_zero: bool = False,
    authors_first_step: bool = False,
) -> Schedule:
    """One trunk that decays for every checkpoint and jumps straight back (Wen et al., 2024).

    arXiv 2410.05192. Unlike WSD, training goes on *from the decayed weights* at the peak, so no
    step is thrown away. The weights after the last update of a window are the checkpoint. The
    authors' experiments used ``shape="linear"``; the inverse is what their theory asks for.

    Args:
        peak: Value outside the windows.
        windows: ``(first step, end step)`` of each decay, ascending; durations.
        budgets: Or: the WSD budgets to be equalled, from which `wsd_s_windows` computes windows
            of ``fraction`` of each budget that cost the same in total.
        fraction: Share of each budget that is decay.
        warmup: Length of the first linear rise, from 0.
        rewarmup: Length of the rises after each window, from its end value; one for all, or one
            for each window, of which the first is not used. The authors use 0.
        shape: Shape of each decay.
        end: Value at the end of each window.
        skip_zero: Begin the warm-up at ``peak / warmup`` instead of 0.
        authors_first_step: Repeat the value of a decay's second step at its first, as the
            authors' released builder does for the inverse shape; needs windows in numbers.

    >>> wsd_s(1.0, windows=[(8, 10), (18, 20)], shape="linear", end=0.0)([7, 9, 10, 19]).tolist()
    [1.0, 0.5, 1.0, 0.5]
    """
    peak = finite(peak, "peak")
    if (windows is None) == (budgets is None):
        raise PlanError("give either windows or budgets", place="windows", value=windows)
    windows = windows if budgets is None else wsd_s_windows(budgets, fraction)
    low = level(end, peak)
    pieces = _warm(peak, warmup, skip_zero=skip_zero)
    for k, window in enumerate(windows or ()):
        pair = _row(window, ("first step", "end step"), f"windows[{k}]")
        first, last = (_time(x, f"windows[{k}][{i}]") for i, x in enumerate(pair))
        rise = _time(_each(rewarmup, k, len(windows or ()), "rewarmup"), "rewarmup")
        if k and rise.amount:
            pieces.append(Phase(None, peak, rise))
        pieces.append(Hold(peak, until=first))
        decay = Phase(peak, low, until=last, shape=shape)
        pieces.extend(_repeat_second(decay, first, last) if authors_first_step else [decay])
    return Sequence(*pieces)


@named
def wsdc(
    peak: float,
    warmup: Time,
    stable: Time,
    decay: Time,
    end: Level = "10%",
    shape: ShapeLike = "cosine",
    tail: Time | None = None,
    levels: Seq[Seq[Any]] = (),
) -> Schedule:
    """Warm-up, stable, decay, constant (Deng et al., 2025, arXiv 2503.12167).

    After the decay the rate stays at ``end`` for as long as training goes on, usually with new
    data. The paper gives no lengths and no floor: these are ours. Further constant levels make
    the schedule of DeepSeek-V3.

    Args:
        peak: Value of the stable part.
        warmup: Length of the linear rise from 0.
        stable: Length at the peak.
        decay: Length of the decay.
        end: Value of the constant tail.
        shape: Shape of the decay.
        tail: Length of the tail; only needed before further levels.
        levels: ``(length, value)`` pairs after the tail.

    >>> wsdc(1.0, 10, 80, 10, end=0.1)([5, 50, 100, 10_000]).tolist()
    [0.5, 1.0, 0.1, 0.1]
    """
    peak = finite(peak, "peak")
    if levels and tail is None:
        raise PlanError("further levels need a length for the tail", place="tail", value=None)
    low = level(end, peak)
    after = [Hold(low, _time(tail, "tail"))] if tail is not None else []
    for k, row in enumerate(levels):
        length, value = _row(row, ("length", "value"), f"levels[{k}]")
        after.append(Hold(level(value, peak, f"levels[{k}][1]"), _time(length, f"levels[{k}][0]")))
    return Sequence(
        *_warm(peak, warmup),
        Hold(peak, _time(stable, "stable")),
        Phase(peak, low, _time(decay, "decay"), shape),
        *after,
    )


@named
def infinite(
    peak: float,
    constant: Level = "25%",
    end: Level = "1%",
    warmup: Time = "5%",
    cooldown_end: Time = "30%",
    anneal_start: Time | None = "80%",
    shape: ShapeLike = "cosine",
    task: int = 0,
) -> Schedule:
    """Warm up once, cool down once to a constant, anneal only on a branch.

    Ibrahim et al., 2024, arXiv 2403.08763; Singh et al., 2025, arXiv 2503.02844. Later datasets
    go on at the constant from the weights *before* annealing: they need no re-warming.

    Args:
        peak: Value after the warm-up.
        constant: Value of the plateau that every dataset shares.
        end: Value at the end of annealing, above 0.
        warmup: Length of the linear rise from 0.
        cooldown_end: When the cooldown ends. It and ``anneal_start`` are positions, not lengths.
        anneal_start: When annealing starts; None never anneals.
        shape: Shape of the cooldown: ``"cosine"``, ``"inverse-sqrt"`` or ``"linear"``.
        task: 0 for the first dataset; later ones have neither warm-up nor cooldown.

    >>> [infinite(1.0).resolve(100)(t) for t in (0, 5, 30, 79)]
    [0.0, 1.0, 0.25, 0.25]
    """
    peak = finite(peak, "peak")
    plateau, low = level(constant, peak, "constant"), level(end, peak)
    first: list[Piece] = []
    if count(task, "task", least=0) == 0:
        cooldown = Phase(peak, plateau, until=_time(cooldown_end, "cooldown_end"), shape=shape)
        first = [*_warm(peak, warmup), cooldown]
    if anneal_start is None:
        return Sequence(*first, Hold(plateau))
    anneal: list[Piece] = [
        Hold(plateau, until=_time(anneal_start, "anneal_start")),
        Phase(plateau, low, shape=Exponential()),
    ]
    return Sequence(*first, *anneal)


@named
def rewarm(
    datasets: Seq[float],
    peak: float | Seq[float],
    end: Level | Seq[Level] = "10%",
    warmup: Time | Seq[Time] = "1%",
    rewarm_from: Literal["zero", "previous_end"] = "zero",
) -> Schedule:
    """Re-warm and re-decay for every dataset (Ibrahim et al., 2024, arXiv 2403.08763).

    In each dataset, with the local step t: peak max(1, t) / W for t <= W, then a cosine to the
    end. The paper resets the optimizer's state in between, and mixes replay into the new data.

    Args:
        datasets: Length of each, in the plan's unit.
        peak: Value after each warm-up; one for all, or one each.
        end: Value at the end of each dataset; one for all, or one each.
        warmup: Length of each rise; a percentage is one of that dataset. One for all, or one each.
        rewarm_from: ``"zero"`` starts each rise near 0, as the authors do; ``"previous_end"``
            starts it where the dataset before ended.

    >>> rewarm([100, 100], 1.0, end=0.1, warmup=10)([0, 1, 10, 99, 110, 200]).round(3).tolist()
    [0.1, 0.1, 1.0, 0.1, 1.0, 0.1]
    """
    _one_of(rewarm_from, ("zero", "previous_end"), "rewarm_from")
    lengths = [
        _whole_length(x, f"datasets[{i}]") for i, x in enumerate(_some(datasets, "datasets"))
    ]
    n = len(lengths)
    pieces: list[Piece] = []
    low = 0.0
    for k, length in enumerate(lengths):
        top = finite(_each(peak, k, n, "peak"), "peak")
        rise = _whole(Span(length, whole=True), _each(warmup, k, n, "warmup"), "warmup")
        if rise > length:
            raise PlanError(
                f"the warm-up is longer than the dataset, {length}", place="warmup", value=rise
            )
        pieces += _rise(low if rewarm_from == "previous_end" and k else None, top, rise)
        low = level(_each(end, k, n, "end"), top)
        pieces.append(Phase(top, low, Duration(length - rise), Cosine()))
    return Sequence(*pieces)


@named
def damped_cosine(
    peak: float,
    end: Level = "10%",
    cycles: int = 1,
    gamma: float | None = None,
    warmup: Time = "5%",
    duration: Time | None = None,
    *,
    skip_zero: bool = False,
) -> Schedule:
    """A cosine wave between two falling lines (Zhao et al., 2025, arXiv 2510.12285).

    Known to us at second hand; see `trainplan.schedules.shapes.DampedCosine` for the equation.

    Args:
        peak: Value after the warm-up.
        end: Value at the end.
        cycles: Number of waves N; the curve has 2N - 1 half-waves, so N > 1 rises again.
        gamma: How much of the peak the upper line keeps, in [0, 1]. By default end / peak, with
            which the two lines do not cross; 0 is the published form.
        warmup: Length of the linear rise from 0.
        duration: Length of the whole, warm-up included; None is the horizon.
        skip_zero: Begin the warm-up at ``peak / warmup`` instead of 0.

    >>> round(damped_cosine(1.0, end=0.1, gamma=0.0, warmup=0, duration=100)(50), 12)
    0.4
    """
    shape = DampedCosine(count(cycles, "cycles", most=10_000), gamma)
    return _decaying(peak, end, warmup, duration, shape, skip_zero=skip_zero)


@named
def cosine_power(
    peak: float,
    end: Level = 0.0,
    p: float = 10.0,
    warmup: Time = 0,
    duration: Time | None = None,
    *,
    mode: Literal["closed_form", "authors_epoch_table"] = "closed_form",
    start_epoch: int = 1,
    restart_lr: bool = True,
    skip_zero: bool = False,
) -> Schedule:
    """Cosine power annealing (Hundt et al., 2019, arXiv 1903.09900).

    eta(t) = end + (peak - end) (p^c - 1) / (p - 1), c = (1 + cos(pi t/T)) / 2. It helps when the
    budget is long, hurts when it is short, and forgives a peak that is too high.

    Args:
        peak: Value after the warm-up.
        end: Value at the end.
        p: At least 1; 1 is the cosine, larger falls faster.
        warmup: Length of the linear rise from 0.
        duration: Length of the whole, warm-up included; None is the horizon.
        mode: ``"authors_epoch_table"`` holds one value per epoch from the authors' table, which is
            rescaled so that its ends are exact; ``duration`` (and ``warmup``) must then be whole
            numbers of epochs.
        start_epoch: Of the authors' table: the epoch that the run starts with.
        restart_lr: Of the authors' table: whether the table begins anew at ``start_epoch``.
        skip_zero: Begin the warm-up at ``peak / warmup`` instead of 0.

    >>> cosine_power(1.0, p=1.0, duration=100)([0, 100]).tolist()
    [1.0, 0.0]
    """
    if _one_of(mode, ("closed_form", "authors_epoch_table"), "mode") == "closed_form":
        return _decaying(peak, end, warmup, duration, CosinePower(p), skip_zero=skip_zero)
    peak = finite(peak, "peak")
    epochs = count(duration, "duration", least=2, most=1_000_000)
    rise = count(warmup, "warmup", least=0)
    shares = _epoch_table(epochs, CosinePower(p), rise)
    low = level(end, peak)
    values = [share * (peak - low) + low for share in shares]
    values = values if restart_lr else values[count(start_epoch, "start_epoch") - 1 :]
    return Profile(tuple(values), Duration(len(values)), hold=True)


@named
def rex(
    peak: float,
    end: Level = 0.0,
    d: float = 0.5,
    warmup: Time = 0,
    duration: Time | None = None,
    warmup_from: Level = 0.0,
    *,
    skip_zero: bool = False,
) -> Schedule:
    """Reflected exponential (Chen et al., 2022, arXiv 2107.04197).

    eta = end + (peak - end) z / ((1 - d) + d z), z the share of the run that is left. It holds
    high for longer than a line and drops late, which helps when the budget is short.

    Args:
        peak: Value after the warm-up.
        end: Value at the end.
        d: In [0, 1): 0 is linear, 0.5 the paper's, 0.9 common in fine-tuning tools.
        warmup: Length of the linear rise.
        duration: Length of the whole, warm-up included; None is the horizon.
        warmup_from: Value at the beginning of the rise.
        skip_zero: Begin the warm-up one step further on.

    >>> rex(1.0, duration=100)([0, 50, 100]).round(6).tolist()
    [1.0, 0.666667, 0.0]
    """
    return _decaying(peak, end, warmup, duration, Rex(d), warmup_from, skip_zero=skip_zero)


@named
def uba(
    peak: float,
    end: Level = 0.0,
    phi: float = 1.0,
    warmup: Time = 0,
    duration: Time | None = None,
    stages: Seq[Seq[float]] = (),
    *,
    skip_zero: bool = False,
) -> Schedule:
    """Budgeted annealing with one knob (Tang et al., 2025, arXiv 2505.24452).

    eta = end + (peak - end) 2c / (2 phi + (2 - phi) c), c = 1 + cos(pi t/T). Short or badly
    conditioned runs want a phi of 0.25 to 0.5, long or well conditioned ones 2.5 to 10; tune the
    peak again for each.

    Args:
        peak: Value after the warm-up.
        end: Value at the end.
        phi: Above 0; 2 is the cosine.
        warmup: Length of the linear rise from 0.
        duration: Length of the whole, warm-up included; None is the horizon.
        stages: Further stages ``(length, peak, end)``, each with its own curve; the first then
            needs a duration.
        skip_zero: Begin the warm-up at ``peak / warmup`` instead of 0.

    >>> round(uba(1.0, phi=2.0, duration=100)(50), 12)
    0.5
    """
    first = _decaying(peak, end, warmup, duration, Uba(phi), skip_zero=skip_zero)
    if not stages:
        return first
    if duration is None:
        raise PlanError("further stages need a duration", place="duration", value=None)
    more = [_stage(stage, f"stages[{k}]", Uba(phi)) for k, stage in enumerate(stages)]
    return Sequence(Take(first, _time(duration, "duration")), *more)


@named
def power(
    peak: float,
    batch: float,
    a: float = 4.0,
    b: float = -0.51,
    warmup: Time = "1B tokens",
    decay: Time | None = "10%",
    end: Level = 0.0,
) -> Schedule:
    """Rate by tokens seen and batch size (Shen et al., 2024, arXiv 2408.13359).

    eta(n) = min(peak, batch a n^b) after n tokens; before it a linear rise to its value at the end
    of the warm-up, after it the decay (e^(1-u) - 1)/(e - 1). The constants assume muP.

    Args:
        peak: The cap, 0.02 in the paper.
        batch: Batch size in sequences of 4096 tokens.
        a: Above 0. 4 is the schedule's; 4.6 is the law for the best WSD rate, another thing.
        b: Below 0.
        warmup: Length of the rise; 1B tokens in the paper.
        decay: Length of the decay at the end of the horizon; None never decays.
        end: Value at the end.

    The law counts tokens: in a plan that counts steps, give the plan ``tokens_per_step``.

    >>> lr = power(0.02, batch=1024).resolve(10**12, unit="tokens")
    >>> lr([10**9, 2 * 10**9, 10**12]).tolist()
    [0.02, 0.02, 0.0]
    """
    peak = finite(peak, "peak")
    law = PowerLaw(finite(batch, "batch") * finite(a, "a"), b, peak, "tokens")
    rise = _time(warmup, "warmup")
    pieces: list[Piece] = [Phase(0.0, None, rise)] if rise.amount else []
    pieces.append(Take(law, skip=rise))
    if decay is not None:
        shape = Exponential(ratio=1 / math.e)
        pieces.append(Phase(None, level(end, peak), _time(decay, "decay"), shape))
    return Sequence(*pieces)


@named
def stable_then_decay(
    peak: float,
    stable: Time,
    decay: Time,
    end: Level = "10%",
    shape: ShapeLike = "cosine",
) -> Schedule:
    """Mid-training in two stages: constant, then decay on a new mixture (Wang et al., 2025).

    arXiv 2506.20512: 200B tokens constant and 20B of decay per branch. There is no warm-up, and
    the optimizer's state is kept when a branch begins.

    Args:
        peak: Value of the stable stage.
        stable: Length of the stable stage.
        decay: Length of a branch.
        end: Value at the end of a branch.
        shape: Shape of the decay.

    >>> stable_then_decay(1.0, 200, 20, end=0.1)([0, 200, 220]).tolist()
    [1.0, 1.0, 0.1]
    """
    peak = finite(peak, "peak")
    return Sequence(
        Hold(peak, _time(stable, "stable")),
        Phase(peak, level(end, peak), _time(decay, "decay"), shape),
    )


@named
def cyclic_cosine(
    peak: float,
    cycles: int | None = None,
    ends: Seq[Time] | None = None,
    end: Level = "10%",
    warmup: Time = 0,
    *,
    skip_zero: bool = False,
) -> Schedule:
    """A cosine that begins again at the peak (Loshchilov and Hutter, 2017, arXiv 1608.03983).

    Args:
        peak: Value at the start of each cycle.
        cycles: Number of cycles of equal length over the horizon.
        ends: Or: when each cycle ends, ascending.
        end: Value at the end of each cycle.
        warmup: Length of the linear rise from 0, within the first cycle.
        skip_zero: Begin the warm-up at ``peak / warmup`` instead of 0.

    >>> cyclic_cosine(1.0, ends=[10, 30], end=0.0)([0, 5, 10, 20]).round(6).tolist()
    [1.0, 0.5, 1.0, 0.5]
    """
    peak = finite(peak, "peak")
    if (cycles is None) == (ends is None):
        raise PlanError("give either cycles or ends", place="cycles", value=cycles)
    if ends is None:
        n = count(cycles, "cycles", most=10_000)
        marks = [_time(f"{100 * (k + 1) / n!r}%", "cycles") for k in range(n)]
    else:
        marks = [_time(x, f"ends[{k}]") for k, x in enumerate(_some(ends, "ends"))]
    low = level(end, peak)
    waves = [Phase(peak, low, until=mark, shape=Cosine()) for mark in marks]
    return Sequence(*_warm(peak, warmup, skip_zero=skip_zero), *waves)


@named
def resume_ramp(schedule: Schedule, peak: float, at: Time, duration: Time) -> Schedule:
    """A schedule with a linear ramp from 0 to the peak put over it after a resume.

    From ``at``, for ``duration``, the ramp overrides whatever the schedule says there; then the
    schedule goes on as if nothing had been. MiniCPM's training code does this (Hu et al., 2024).

    >>> resume_ramp(constant(1.0), 1.0, at=100, duration=10)([99, 100, 105, 110]).tolist()
    [1.0, 0.0, 0.5, 1.0]
    """
    ramp = Phase(0.0, finite(peak, "peak"))
    return Overlaid(schedule, ramp, _time(at, "at"), _time(duration, "duration"))


def wsd_s_windows(budgets: Seq[float], fraction: float = 0.1) -> list[tuple[int, int]]:
    """Decay windows of one WSD-S run that equal WSD runs of these budgets in total cost.

    With d_k = fraction T_k and C_k = T_k + sum_{j<k} d_j, window k is [C_k - d_k, C_k)
    (Wen et al., 2024, arXiv 2410.05192).

    Args:
        budgets: Steps of each WSD run, ascending.
        fraction: Share of each budget that is decay, in (0, 1).

    >>> wsd_s_windows([12500, 25000, 50000])
    [(11250, 12500), (23750, 26250), (48750, 53750)]
    """
    windows = []
    spent = 0
    for budget, decay in _budget_decays(budgets, fraction):
        windows.append((budget + spent - decay, budget + spent))
        spent += decay
    return windows


def wsd_windows(budgets: Seq[float], fraction: float = 0.1) -> list[tuple[int, int]]:
    """Decay windows of WSD runs of these budgets that branch from one trunk.

    >>> wsd_windows([12500, 25000])
    [(11250, 12500), (22500, 25000)]
    """
    return [(budget - decay, budget) for budget, decay in _budget_decays(budgets, fraction)]


def cycle_windows(
    total: int,
    cycles: int | Seq[int] = 1,
    warmup: float = 0,
    rewarmup: float = 0,
    decay: float | None = None,
) -> list[tuple[int, int]]:
    """Decay windows of the authors' cyclic builder: one at the end of each cycle.

    Amounts up to 1 are shares *of the cycle* (not of the budget), cut down to whole steps.

    Args:
        total: Number of steps.
        cycles: Number of equal cycles, or their end points (``total`` is added).
        warmup: Length of the first warm-up.
        rewarmup: Length of the later ones.
        decay: Length of the decay; None is everything after the warm-up.

    >>> cycle_windows(1000, [400], warmup=20, decay=0.1)
    [(360, 400), (940, 1000)]
    """
    if isinstance(cycles, int):
        ends = [int(total / cycles * (k + 1)) for k in range(cycles - 1)]
    else:
        ends = list(cycles)
    ends = ends if ends and ends[-1] == total else [*ends, total]
    windows = []
    begin = 0
    for k, end in enumerate(ends):
        length = end - begin
        rise = _share_or_steps(rewarmup if k else warmup, length)
        fall = length - rise if decay is None else _share_or_steps(decay, length)
        if rise + fall > length:
            raise PlanError(
                f"cycle {k} of {length} steps is shorter than its warm-up and decay",
                place="decay",
                value=decay,
                remedy="Shorten them",
            )
        windows.append((end - fall, end))
        begin = end
    return windows


def _share_or_steps(amount: float, length: int) -> int:
    return int(amount * length) if amount <= 1 else int(amount)


def _budget_decays(budgets: Seq[float], fraction: float) -> list[tuple[int, int]]:
    share = finite(fraction, "fraction")
    if not 0 < share < 1:
        raise PlanError("the fraction must lie between 0 and 1", place="fraction", value=fraction)
    whole = [count(budget, f"budgets[{k}]") for k, budget in enumerate(budgets)]
    if sorted(set(whole)) != whole:
        raise PlanError("budgets must ascend", place="budgets", value=whole)
    return [(budget, round(share * budget)) for budget in whole]


def _time(value: Any, place: str) -> Duration:
    duration = optional_duration(value, place)
    if duration is None:
        raise PlanError("a duration is missing", place=place, value=None)
    return duration


def _optional(value: Any, place: str) -> Duration | None:
    return optional_duration(value, place)


def _warm(peak: float, warmup: Time, start: Level = 0.0, *, skip_zero: bool = False) -> list[Piece]:
    """The rise to the peak, as pieces of a sequence; none if it has no length."""
    length = _time(warmup, "warmup")
    if not length.amount:
        return []
    ahead = Duration(1 if skip_zero else 0)
    return [Phase(level(start, peak, "warmup_from"), peak, length, ahead=ahead)]


def _decaying(
    peak: float,
    end: Level,
    warmup: Time,
    duration: Time | None,
    shape: ShapeLike,
    warmup_from: Level = 0.0,
    *,
    skip_zero: bool = False,
) -> Schedule:
    """Warm-up, then one shape down to the end."""
    peak = finite(peak, "peak")
    rise = _warm(peak, warmup, warmup_from, skip_zero=skip_zero)
    return _lasting(duration, *rise, Phase(peak, level(end, peak), shape=shape))


def _lasting(duration: Time | None, *pieces: Piece) -> Schedule:
    """Pieces that fill a duration, of which their percentages are shares; or the horizon."""
    whole = Sequence(*pieces)
    return whole if duration is None else Sequence(Take(whole, _time(duration, "duration")))


def _repeat_second(decay: Phase, first: Duration, last: Duration) -> list[Piece]:
    """A decay whose first value is that of its second step, as the authors' builder has it."""
    if not isinstance(parse_shape(decay.shape), Inverse):
        return [decay]
    length = last.amount - first.amount
    if first.unit or last.unit or length < 1:
        raise PlanError(
            "the authors' first step needs windows in numbers", place="windows", value=first.plain()
        )
    whole = Phase(decay.start, decay.end, Duration(length), decay.shape)
    return [Hold(whole(1), Duration(1)), Take(whole, Duration(length - 1), skip=Duration(1))]


def _rise(start: float | None, peak: float, length: int | float) -> list[Piece]:
    """The rise of one dataset; without a start, steps 0 and 1 share the value peak / length."""
    if not length:
        return []
    if start is not None:
        return [Phase(start, peak, Duration(length))]
    first = peak / length
    return [Hold(first, Duration(min(1, length))), Phase(first, peak, Duration(max(0, length - 1)))]


def _stage(stage: Any, place: str, shape: Shape) -> Phase:
    length, top, low = _row(stage, ("length", "peak", "end"), place)
    top = finite(top, f"{place}[1]")
    return Phase(top, level(low, top, f"{place}[2]"), _time(length, f"{place}[0]"), shape)


def _row(value: Any, names: tuple[str, ...], place: str) -> Any:
    """A list of as many items as there are names for them."""
    if not isinstance(value, (list, tuple)) or len(value) != len(names):
        raise PlanError(f"must be a list of {', '.join(names)}", place=place, value=value)
    return value


def _some(values: Any, place: str) -> Any:
    """A list that is not empty."""
    if not isinstance(values, (list, tuple)) or not values:
        raise PlanError("must be a list that is not empty", place=place, value=values)
    return values


def _one_of(value: Any, known: tuple[str, ...], place: str) -> Any:
    if value not in known:
        remedy = nearest(str(value), known)
        raise PlanError("unknown choice", place=place, value=value, remedy=remedy)
    return value


def _each(value: Any, k: int, n: int, place: str) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) != n:
        raise PlanError(f"needs one value, or one each, {n} in all", place=place, value=value)
    return value[k]


def _whole_length(value: Any, place: str) -> int | float:
    duration = _time(value, place)
    if duration.unit or not duration.amount:
        raise PlanError(
            "a dataset needs a length above zero in the plan's unit",
            place=place,
            value=value,
            remedy="Write a number",
        )
    return duration.amount


def _whole(span: Span, value: Any, place: str) -> int | float:
    return span.measure(_time(value, place))


def _epoch_table(epochs: int, shape: CosinePower, warmup: int) -> list[float]:
    """The authors' table of shares, one per epoch, min-max rescaled after the warm-up."""
    if epochs - warmup < 2:
        raise PlanError(
            "the table needs two epochs after the warm-up", place="warmup", value=warmup
        )
    rising = [(k + 1) / (warmup + 1) for k in range(warmup + 1)] if warmup else []
    total = epochs - warmup
    # Epochs count from 1, and from 1 - warmup with a warm-up, whose entries are then replaced; they
    # count for the rescaling all the same.
    u = np.arange(1 - warmup, total + 1) / total
    raw = np.asarray(shape.falls(u, 1 - u, np))
    scaled = (raw - raw.min()) / (raw.max() - raw.min())
    return [*rising, *scaled[len(rising) :].tolist()]
