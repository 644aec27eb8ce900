"""Schedules, plans and bad input of every kind, for hypothesis to draw from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from trainplan import schedules as ts
from trainplan.schedules import Schedule
from trainplan.schedules.phases import Hold, Phase, Piece, Profile, Sequence, Stairs, Take
from trainplan.schedules.shapes import SHAPES

HORIZONS = st.integers(400, 100_000)
"""Long enough for every schedule drawn below to fit."""

levels = st.floats(1e-6, 1e3) | st.integers(1, 100)
values = st.floats(-1e3, 1e3, allow_subnormal=False) | st.just(0.0)
short = st.integers(0, 10) | st.floats(0.5, 10) | st.integers(0, 8).map(lambda k: f"{k}%")
ends = st.sampled_from([0.0, 1e-5, "10%", "1%", "0%"])

SHAPE_NAMES = sorted(SHAPES)
BETWEEN_ANY = sorted(set(SHAPES) - {"exponential", "inverse"})
"""Shapes that do not need both values above zero."""


@st.composite
def shapes(draw: st.DrawFn) -> Any:
    """A shape between any two values, as a name or with parameters."""
    return draw(
        st.sampled_from(BETWEEN_ANY)
        | st.floats(0.1, 5).map(lambda p: {"polynomial": p})
        | st.floats(0, 0.99).map(lambda d: {"rex": d})
        | st.floats(1, 100).map(lambda p: {"cosine-power": p})
        | st.floats(0.05, 20).map(lambda phi: {"uba": phi})
        | st.floats(0.01, 0.9).map(lambda r: {"exponential": {"ratio": r}})
        | st.floats(0.01, 0.9).map(lambda r: {"inverse": {"ratio": r}})
        | st.builds(
            lambda n, g: {"damped-cosine": {"cycles": n, "gamma": g}},
            st.integers(1, 4),
            st.floats(0, 1),
        )
        | st.just({"step": {"at": [0.25, 0.5], "factor": 0.5}})
    )


@st.composite
def sequences(draw: st.DrawFn) -> Schedule:
    """Phases, holds and stretches of other schedules, one of which may take what is left."""
    n = draw(st.integers(1, 5))
    free = draw(st.integers(0, n))
    pieces: list[Piece] = []
    for i in range(n):
        length = None if i == free else draw(short)
        kind = draw(st.sampled_from(["phase", "phase", "hold", "take"]))
        before = bool(pieces)
        if kind == "phase":
            start = None if before and draw(st.booleans()) else draw(values)
            pieces.append(Phase(start, draw(values), length, draw(shapes())))
        elif kind == "hold":
            value = None if before and draw(st.booleans()) else draw(values)
            pieces.append(Hold(value, length))
        else:
            inner = Phase(draw(values), draw(values), draw(short), draw(shapes()))
            pieces.append(Take(inner, length, skip=draw(st.integers(0, 3))))
    return Sequence(*pieces)


@st.composite
def named(draw: st.DrawFn) -> Schedule:
    """A published schedule."""
    peak = draw(levels)
    warm = draw(short)
    falling = {"end": draw(ends), "warmup": warm}
    build: list[Callable[[], Schedule]] = [
        lambda: ts.constant(peak, warm),
        lambda: ts.linear(peak, **falling),
        lambda: ts.cosine(peak, **falling, skip_zero=True),
        lambda: ts.one_cycle(peak, warmup="20%"),
        lambda: ts.step(peak, every=draw(st.integers(1, 50)), factor=0.5, warmup=warm),
        lambda: ts.step(peak, at=["20%", "50%", "90%"]),
        lambda: ts.wsd(peak, warm, decay="20%"),
        lambda: ts.wsd(peak, warm, decay=None),
        lambda: ts.wsd_s(peak, windows=[("30%", "40%"), ("50%", "60%")], warmup=warm),
        lambda: ts.wsdc(peak, warm, "20%", "30%", shape="1-sqrt"),
        lambda: ts.infinite(peak),
        lambda: ts.rewarm([100, 200], peak),
        lambda: ts.damped_cosine(peak, cycles=2, **falling),
        lambda: ts.cosine_power(peak, p=draw(st.floats(1, 50)), **falling),
        lambda: ts.rex(peak, d=draw(st.floats(0, 0.95)), **falling),
        lambda: ts.uba(peak, phi=draw(st.floats(0.1, 10)), **falling),
        lambda: ts.stable_then_decay(peak, "40%", "30%"),
        lambda: ts.cyclic_cosine(peak, cycles=draw(st.integers(1, 5)), end=0.0),
        lambda: ts.resume_ramp(ts.cosine(peak), peak, at=50, duration=20),
    ]
    return build[draw(st.integers(0, len(build) - 1))]()


leaves = (
    named()
    | sequences()
    | st.builds(Stairs, values, st.floats(0.1, 1), st.integers(1, 50))
    | st.builds(Profile, st.lists(values, min_size=2, max_size=6).map(tuple), st.none() | short)
    | values.map(ts.Constant)
)


def _combined(inner: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    factors = st.floats(0.1, 3)
    return (
        st.builds(lambda s, k: s * k, inner, values)
        | st.builds(lambda a, b: a * b, inner, inner)
        | st.builds(lambda a, b: a + b, inner, inner)
        | st.builds(lambda s, a, b: s.clip(min(a, b), max(a, b)), inner, values, values)
        | st.builds(lambda s, k: s.stretch(k), inner, st.floats(0.5, 1))
        | st.builds(lambda s, k: s.shift(k), inner, st.integers(0, 100))
        | st.builds(lambda s: s.sample(at=[10, "50%"]), inner)
        | st.builds(lambda s, k: s * k + k, inner, factors)
    )


schedules = st.recursive(leaves, _combined, max_leaves=4)
"""Any schedule that fits every horizon of `HORIZONS`."""


SHORT_FORMS: dict[str, tuple[Any, Schedule]] = {
    "a number": (0.1, ts.Constant(0.1)),
    "a constant": ({"constant": 0.1}, ts.Constant(0.1)),
    "one value": ({"cosine": 0.1}, ts.cosine(0.1)),
    "no duration": ({"phases": [{"hold": 0.3}]}, ts.Sequence(ts.Hold(0.3))),
    "a hold in words": ({"hold": {"value": 0.3, "duration": 5}}, ts.Hold(0.3, 5)),
    "phases": (
        {
            "phases": [
                {"start": 0.0, "end": 1e-3, "duration": "2%"},
                {"hold": {}},
                {"end": 0.0, "duration": "20%", "shape": {"polynomial": 2}},
            ]
        },
        ts.Sequence(
            ts.Phase(0.0, 1e-3, "2%"),
            ts.Hold(),
            ts.Phase(None, 0.0, "20%", {"polynomial": 2}),
        ),
    ),
    "a schedule as a phase": (
        {"phases": [{"schedule": {"rex": 0.1}, "duration": 10}, {"hold": 0.0}]},
        ts.Sequence(ts.Take(ts.rex(0.1), 10), ts.Hold(0.0)),
    ),
    "a sum": ({"sum": [0.1, {"rex": 0.1}]}, ts.Constant(0.1) + ts.rex(0.1)),
    "a scaled one": ({"scaled": [{"rex": 0.1}, 2]}, ts.rex(0.1) * 2),
}
"""What people may write, and what it means."""


# Bad input

weird_numbers = (
    st.sampled_from([math.nan, math.inf, -math.inf, -1, 0, -0.0, 1e308, 5e-324])
    | st.sampled_from([2**53, 2**53 + 1, 2**70, 10**400, True, False])
    | st.floats()
    | st.integers()
)
weird_text = st.sampled_from(
    [
        "",
        "10%",
        "-5%",
        "101%",
        "nan%",
        "2B tokens",
        "3 parsecs",
        "1e999",
        "1e999 %",
        "cosine",
        "1-sqrt",
        "é",
        "None",
        "%",
    ]
) | st.text(max_size=12)
weird_scalars = weird_numbers | weird_text | st.none()
_WORDS = (
    "phases sum product hold phase take schedule over peak duration until start end shape warmup "
    "resolve horizon scaled factor stairs value every reduce_on_plateau initial repeated times "
    "sampled at self unit name steps_per_epoch profile values overlaid polynomial exponential step"
)
weird_keys = st.sampled_from([*ts.NAMED, *_WORDS.split()]) | weird_text | st.integers()
weird = st.recursive(
    weird_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(weird_keys, inner, max_size=4),
    max_leaves=12,
)
"""Anything that a file could hold."""
