"""What a step of each optimizer costs: time, bytes of state and memory beside them, in one run.

    pip install --group benchmarks                # the peers; each is left out if it is missing
    python benchmarks/optim.py [--threads 1 2] [--only apollo adamw ...] [--layers 10]

The parameters are those of GPT-2's blocks at width 512: 40 matrices, 31 M numbers in float32.
Beside whole optimizers stand the products that projecting the gradients needs in any case.
Peers are run, never read: apollo-torch's licence does not allow commercial use.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from trainplan.lab.environment import environment
from trainplan.optim import APOLLO, APOLLOMini, CoSOAdamW, NormProjector, SGDSaI, tract_layer

WIDTH, RANK = 512, 128
SHAPES = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)]
Params = list[nn.Parameter]
Step = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One thing to measure.

    Attributes:
        build: Makes an optimizer, or a function to call as a step, of parameters with gradients.
        limits: What its cost may be at most, as a multiple of another row's:
            ``("ms", "AdamW fused", 1.5)``. The columns are ms, state and peak. Without another
            row, it is a multiple of the largest tensor: ``("peak", "", 1.0)``.
        needs: The package of a peer.
    """

    build: Callable[[Params], Any]
    limits: tuple[tuple[str, str, float], ...] = ()
    needs: str = ""


def products(rank: int) -> Callable[[Params], Step]:
    """Each gradient times a random matrix, along its shorter side, and nothing else."""

    def build(params: Params) -> Step:
        matrices = [torch.randn(min(p.shape), rank) for p in params]

        def step() -> None:
            for p, matrix in zip(params, matrices, strict=True):
                gradient = p.grad if p.shape[0] >= p.shape[1] else p.grad.T
                gradient @ matrix

        return step

    return build


def floor(rank: int) -> Callable[[Params], Step]:
    """The products, Adam of what they give, and plain SGD: no APOLLO can do less.

    What it needs beside that are norms: one of each channel of all gradients, and two of all
    projections.
    """

    def build(params: Params) -> Step:
        matrices = [torch.randn(min(p.shape), rank) for p in params]
        projected = [nn.Parameter(torch.zeros(max(p.shape), rank)) for p in params]
        moments = torch.optim.AdamW(projected, lr=1e-4, fused=True)
        sgd = torch.optim.SGD(params, lr=1e-4, fused=True)

        def step() -> None:
            for p, matrix, small in zip(params, matrices, projected, strict=True):
                gradient = p.grad if p.shape[0] >= p.shape[1] else p.grad.T
                small.grad = gradient @ matrix
            moments.step()
            sgd.step()

        return step

    return build


def peer(package: str, name: str, lr: float = 1e-4, **group: Any) -> Callable[[Params], Any]:
    def build(params: Params) -> Any:
        kind = getattr(importlib.import_module(package), name)
        return kind([{"params": params, **group}], lr=lr)

    return build


LOW_RANK = {"update_proj_gap": 200, "proj_type": "std"}
OTHER_NAMES = {"update_proj_gap": 200, "projection_type": "random"}
CHANNEL = {"rank": RANK, "scale": 1.0, "scale_type": "channel"}
TENSOR = {"rank": 1, "scale": 128.0, "scale_type": "tensor"}
ONE_TENSOR = ("peak", "", 1.0)

ROWS = {
    "SGD": Row(lambda ps: torch.optim.SGD(ps, lr=1e-4, foreach=True)),
    "SGD momentum": Row(lambda ps: torch.optim.SGD(ps, lr=1e-4, momentum=0.9, foreach=True)),
    "AdamW foreach": Row(lambda ps: torch.optim.AdamW(ps, lr=1e-4, foreach=True)),
    "AdamW fused": Row(lambda ps: torch.optim.AdamW(ps, lr=1e-4, fused=True)),
    f"products, rank {RANK}": Row(products(RANK)),
    "products, rank 1": Row(products(1)),
    f"floor, rank {RANK}": Row(floor(RANK)),
    "floor, rank 1": Row(floor(1)),
    "SGD momentum fused": Row(lambda ps: torch.optim.SGD(ps, lr=1e-4, momentum=0.9, fused=True)),
}
"""What is measured, in this order. Each method of ours adds its rows, and its peers', below."""

ROWS |= {
    "APOLLO": Row(
        lambda ps: APOLLO(ps, lr=1e-4, rank=RANK),
        limits=(
            # Missed where products are fast: the floor itself can be over it.
            ("ms", f"products, rank {RANK}", 1.3),
            ("ms", f"floor, rank {RANK}", 1.3),
            ("ms", "APOLLO of pytorch_optimizer", 0.5),
            ("state", "AdamW fused", 0.3),
            ONE_TENSOR,
        ),
    ),
    "APOLLO, projections redrawn": Row(
        lambda ps: APOLLO(ps, lr=1e-4, rank=RANK, keep_projections=False)
    ),
    "APOLLO of pytorch_optimizer": Row(
        peer("pytorch_optimizer", "APOLLO", **CHANNEL, **OTHER_NAMES), needs="pytorch_optimizer"
    ),
    "APOLLO of apollo-torch": Row(
        peer("apollo_torch", "APOLLOAdamW", proj="random", **CHANNEL, **LOW_RANK),
        needs="apollo_torch",
    ),
    "GaLore of galore-torch": Row(
        peer("galore_torch", "GaLoreAdamW", rank=RANK, scale=0.25, **LOW_RANK),
        needs="galore_torch",
    ),
    "APOLLO-Mini": Row(
        lambda ps: APOLLOMini(ps, lr=1e-4),
        limits=(
            ("ms", "AdamW fused", 1.5),
            # Missed: the floor alone takes 0.6 to 0.8 of the peer's time.
            ("ms", "Mini of pytorch_optimizer", 0.5),
            ("state", "AdamW fused", 0.02),
            ONE_TENSOR,
        ),
    ),
    "Mini of pytorch_optimizer": Row(
        peer("pytorch_optimizer", "APOLLO", **TENSOR, **OTHER_NAMES), needs="pytorch_optimizer"
    ),
    "Mini of apollo-torch": Row(
        peer("apollo_torch", "APOLLOAdamW", proj="random", **TENSOR, **LOW_RANK),
        needs="apollo_torch",
    ),
}

ROWS |= {
    "SGD-SaI": Row(
        lambda ps: SGDSaI(ps, lr=1e-4),
        limits=(
            ("ms", "SGD momentum", 1.3),
            # Missed: fused SGD, without the decay, takes 0.34 of the peer's time.
            ("ms", "SaI of pytorch_optimizer", 0.33),
            ("state", "AdamW fused", 0.51),
            ONE_TENSOR,
        ),
    ),
    "SaI of pytorch_optimizer": Row(peer("pytorch_optimizer", "SGDSaI"), needs="pytorch_optimizer"),
}


def whole_step(model: nn.Module, inputs: torch.Tensor, optimizer: torch.optim.Optimizer) -> Step:
    """Forward, backward and update of a model."""

    def step() -> None:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    return step


def convolutional(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[Params], Step]:
    """A whole step of a small network on 64 images of 32 x 32, its first layer wrapped."""

    def build(_: Params) -> Step:
        layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 10)]
        layers[0] = wrap(layers[0])
        model = nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        return whole_step(model, torch.randn(64, 3, 32, 32), optimizer)

    return build


ROWS |= {
    "small network": Row(convolutional(lambda layer: layer)),
    "small network, TrAct": Row(
        convolutional(tract_layer), limits=(("ms", "small network", 1.25),)
    ),
}


def transformer(hold: bool) -> Callable[[Params], Step]:
    """A whole step of two layers of width 256 on 8 x 64 tokens, all matrices projected or not."""

    def build(_: Params) -> Step:
        torch.manual_seed(0)
        block = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        model = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        if hold:
            NormProjector(model, lambda _, p: p.ndim == 2).attach(optimizer)
        return whole_step(model, torch.randn(8, 64, 256), optimizer)

    return build


ROWS |= {
    "transformer of two layers": Row(transformer(hold=False)),
    "the same, norms held": Row(
        transformer(hold=True), limits=(("ms", "transformer of two layers", 1.05),)
    ),
}


def there_and_back(rank: int) -> Callable[[Params], Step]:
    """Each gradient into a subspace, and the update back onto the weight, and nothing else."""

    def build(params: Params) -> Step:
        bases = [torch.linalg.qr(torch.randn(len(p), rank)).Q for p in params]

        @torch.no_grad()
        def step() -> None:
            for p, basis in zip(params, bases, strict=True):
                p.addmm_(basis, basis.T @ p.grad, alpha=-1e-4)

        return step

    return build


def subspaces(svd: str) -> Callable[[Params], Step]:
    """Updates of one matrix that find a subspace, half of its 512 directions taken."""

    def build(_: Params) -> Step:
        p = nn.Parameter(torch.zeros(WIDTH, 4 * WIDTH))
        p.grad = torch.randn(WIDTH, 4 * WIDTH)
        optimizer = CoSOAdamW([p], rank=50, sketch_rank=120, svd=svd)
        optimizer.state[p]["historical"] = torch.linalg.qr(torch.randn(WIDTH, WIDTH // 2)).Q
        return optimizer.step

    return build


ROWS |= {
    "products there and back, rank 50": Row(there_and_back(50)),
    "CoSO, between subspaces": Row(
        lambda ps: CoSOAdamW(ps, rank=50, update_proj_gap=200, svd="lowrank"),
        limits=(
            ("ms", "products there and back, rank 50", 1.3),
            ("state", "AdamW fused", 0.2),
            ONE_TENSOR,
        ),
    ),
    "CoSO, a subspace by SVD": Row(subspaces("full")),
    "CoSO, a subspace by projection": Row(
        subspaces("lowrank"), limits=(("ms", "CoSO, a subspace by SVD", 0.5),)
    ),
}


def parameters(layers: int) -> Params:
    """The matrices of so many blocks, with gradients."""
    random = torch.Generator().manual_seed(0)
    params = []
    for shape in SHAPES * layers:
        p = nn.Parameter(torch.randn(shape, generator=random) * 0.02)
        p.grad = torch.randn(shape, generator=random) * 1e-3
        params.append(p)
    return params


def tensors_of(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """All tensors that can be reached from an object: state, caches and all."""
    if id(thing) in seen or isinstance(thing, (str, int, float, type(None), type)):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from tensors_of(value, seen)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from tensors_of(value, seen)
    elif hasattr(thing, "__dict__"):
        yield from tensors_of(vars(thing), seen)


def state_bytes(optimizer: Any, params: Params) -> int:
    """Bytes of every tensor that an optimizer keeps, parameters and gradients apart."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        return 0
    known = {t.data_ptr() for p in params for t in (p, p.grad)}
    found = {}
    things = [dict(optimizer.state), {k: v for k, v in vars(optimizer).items() if k != "state"}]
    for tensor in tensors_of(things, set()):
        if tensor.data_ptr() not in known:
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def peak_bytes(step: Step) -> int:
    """The most that a call has allocated at once, beside what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def measure(row: Row, layers: int, repeats: int) -> dict[str, float]:
    """Milliseconds of the fastest step, megabytes of state, and of memory beside it."""
    params = parameters(layers)
    made = row.build(params)
    step = made.step if isinstance(made, torch.optim.Optimizer) else made
    for _ in range(3):
        step()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    largest = max(p.numel() * p.element_size() for p in params)
    return {
        "ms": min(times) * 1e3,
        "state": state_bytes(made, params) / 1e6,
        "peak": peak_bytes(step) / 1e6,
        "largest": largest / 1e6,
    }


def best(found: list[dict[str, float]]) -> dict[str, float]:
    """The least of several measurements: other programs only ever add."""
    return {key: min(one[key] for one in found) for key in found[0]}


def chosen(words: list[str]) -> dict[str, Row]:
    """The rows whose names contain a word, those they are compared with, and peers that exist."""
    names = {n for n in ROWS if not words or any(w.lower() in n.lower() for w in words)}
    names |= {other for n in names for _, other, _ in ROWS[n].limits if other}
    rows = {}
    for name in (n for n in ROWS if n in names):
        if missing := why_missing(ROWS[name].needs):
            print(f"left out: {name} ({missing})")
        else:
            rows[name] = ROWS[name]
    return rows


def why_missing(package: str) -> str:
    try:
        importlib.import_module(package or "torch")
    except ImportError as error:
        return str(error)
    return ""


def verdicts(rows: dict[str, Row], results: dict[str, dict[str, float]]) -> Iterator[tuple]:
    for name, row in rows.items():
        for column, other, limit in row.limits:
            if other and other not in results:
                continue
            mine = results[name]
            whole = results[other][column] if other else mine["largest"]
            ratio = mine[column] / whole
            yield name, column, other or "largest tensor", ratio, limit


def table(rows: dict[str, Row], threads: int, layers: int, repeats: int, rounds: int) -> bool:
    """Print the measurements with so many threads; whether all limits are kept."""
    torch.set_num_threads(threads)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, row in rows.items():
            found[name].append(measure(row, layers, repeats))
    results = {name: best(several) for name, several in found.items()}
    adamw = 2e-6 * sum(p.numel() * p.element_size() for p in parameters(layers))
    print(f"\n{threads} thread{'s' * (threads > 1)}")
    print(f"{'':34}{'ms':>8}{'state MB':>10}{'/ AdamW':>9}{'peak MB':>9}")
    for name, one in results.items():
        print(f"{name:34}{one['ms']:8.1f}{one['state']:10.2f}", end="")
        print(f"{one['state'] / adamw:9.4f}{one['peak']:9.2f}")
    print(f"\n{'':34}{'of':8}{'against':26}{'ratio':>7}{'limit':>7}")
    kept = True
    for name, column, other, ratio, limit in verdicts(rows, results):
        kept &= ratio <= limit
        print(f"{name:34}{column:8}{other:26}{ratio:7.3f}{limit:7.2f}", end="")
        print("  ok" if ratio <= limit else "  OVER")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", default=[], help="rows whose names contain a word")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=9, help="steps timed in each round")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = chosen(given.only)
    here = environment(1)
    number = sum(p.numel() for p in parameters(given.layers))
    print(f"{4 * given.layers} matrices, {number / 1e6:.1f} M parameters, float32")
    print(f"{here['cpu']}, Python {here['python']}, torch {here['torch']}, {here['date']}")
    kept = [table(rows, n, given.layers, given.repeats, given.rounds) for n in given.threads]
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
