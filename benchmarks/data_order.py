"""What an order of examples costs: first index, every further one, memory, resume; in one run.

    pip install grain torch                       # the peers; each is left out if it is missing
    python benchmarks/data_order.py [--sizes 1e6 1e7 1e8 1e9] [--memory 8] [--only ours numpy]
    python benchmarks/data_order.py --quality     # statistical tests of the permutation instead
    python benchmarks/data_order.py --ranking 1e8 # rank and pace a memory-mapped file of scores

Every row runs in a process of its own, on one thread, with no more memory than given; times are
processor time. "Resume" is the time to the index at n/2 in a fresh process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

READ = 300_000
BATCH = 1024


@dataclass(frozen=True)
class Row:
    """One order to measure.

    Attributes:
        start: Gives batches of indices, or single ones, from a position of n on.
        single: Whether it gives one index at a time.
        resumes: Whether it can begin in the middle otherwise than by reading up to there.
        limits: At most so many ms to the first index, ns per index, MB, and ms to resume.
    """

    start: Callable[[int, int], Iterable[object]]
    single: bool = False
    limits: tuple[float, float, float, float] | None = None


def ours(n: int, position: int) -> Iterator[object]:
    from trainplan.data import Order

    order = Order(n)
    return (order.block(p, BATCH) for p in itertools.count(position, BATCH))


def ours_one_by_one(n: int, position: int) -> Iterator[object]:
    from trainplan.data import Order

    return Order(n).iterate(position)


def ours_sampler(n: int, position: int) -> Iterator[object]:
    from trainplan.data import BatchSampler, Shuffle

    sampler = BatchSampler(Shuffle(n, BATCH))
    sampler.seek(step=position // BATCH)
    return (list(batch) for batch in sampler)


def ours_weighted(n: int, position: int) -> Iterator[object]:
    import numpy as np

    from trainplan.data import Draws

    draws = Draws(n, weights=np.ones(n))
    return (draws.block(p, BATCH) for p in itertools.count(position, BATCH))


def numpy(n: int, position: int) -> Iterator[object]:
    import numpy as np

    order = np.random.default_rng(0).permutation(n)
    return (order[p : p + BATCH] for p in range(position, n, BATCH))


def torch_random(n: int, position: int) -> Iterator[object]:
    import torch

    generator = torch.Generator().manual_seed(0)
    sampler = torch.utils.data.RandomSampler(range(n), generator=generator)
    return itertools.islice(sampler, position, None)


def torch_distributed(n: int, position: int) -> Iterator[object]:
    import torch

    sampler = torch.utils.data.DistributedSampler(range(n), num_replicas=8, rank=3)
    return itertools.islice(sampler, position // 8, None)


def torch_weighted(n: int, position: int) -> Iterator[object]:
    import torch

    sampler = torch.utils.data.WeightedRandomSampler(torch.ones(n), n)
    return itertools.islice(sampler, position, None)


def grain(n: int, position: int) -> Iterator[object]:
    from grain.experimental import index_shuffle

    return (index_shuffle(i, max_index=n - 1, seed=0, rounds=4) for i in range(position, n))


ROWS = {
    "ours": Row(ours, limits=(2, 25, 2, 1)),
    "ours, one by one": Row(ours_one_by_one, single=True, limits=(2, 50, 2, 1)),
    "ours, batch sampler": Row(ours_sampler, limits=(2, 75, 2, 1)),
    "numpy permutation": Row(numpy),
    "torch RandomSampler": Row(torch_random, single=True),
    "torch DistributedSampler (3 of 8)": Row(torch_distributed, single=True),
    "grain index_shuffle": Row(grain, single=True),
    "ours, weighted draws": Row(ours_weighted),
    "torch WeightedRandomSampler": Row(torch_weighted, single=True),
}


def resident() -> float:
    """The most memory that this process has held, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def measure(name: str, n: int, resume: bool, memory: float) -> dict[str, float]:
    """In this process: what one order costs."""
    row = ROWS[name]
    try:
        # What is imported is not the order's cost.
        next(iter(row.start(1000, 0)))
    except (ImportError, AttributeError) as error:
        return {"missing": str(error)}
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (int(memory * 1e9), int(memory * 1e9)))
    before, begin = resident(), time.process_time()
    try:
        reader = iter(row.start(n, n // 2 if resume else 0))
        next(reader)
    except (MemoryError, RuntimeError) as error:
        return {"failed": type(error).__name__}
    first = time.process_time() - begin
    number = min(READ, n // 10)
    begin = time.process_time()
    deque(itertools.islice(reader, number if row.single else number // BATCH), maxlen=0)
    each = (time.process_time() - begin) / (number if row.single else number // BATCH * BATCH)
    return {"first": first * 1e3, "each": each * 1e9, "memory": resident() - before}


def in_a_process(name: str, n: int, resume: bool, memory: float) -> dict[str, float]:
    arguments = ["--one", name, str(n), str(int(resume)), str(memory)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        return {"failed": f"exit {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def verdict(row: Row, values: tuple[float, float, float, float]) -> str:
    if row.limits is None:
        return ""
    over = [v / limit for v, limit in zip(values, row.limits, strict=True)]
    return "within limits" if max(over) <= 1 else f"{max(over):.2f} of a limit"


def compare(sizes: list[int], names: list[str], memory: float) -> None:
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"{'order':34} {'n':>7} {'first ms':>10} {'ns/index':>9} {'MB':>8} {'resume ms':>10}")
    for name in names:
        for n in sizes:
            found = in_a_process(name, n, resume=False, memory=memory)
            if "first" not in found:
                print(f"{name:34} {n:7.0e} {found}")
                continue
            later = in_a_process(name, n, resume=True, memory=memory)
            values = (found["first"], found["each"], found["memory"], later.get("first", -1.0))
            told = verdict(ROWS[name], values)
            print(
                f"{name:34} {n:7.0e} {values[0]:10.2f} {values[1]:9.1f} {values[2]:8.1f} "
                f"{values[3]:10.2f}  {told}",
                flush=True,
            )


def rank(n: int) -> None:
    """Rank scores in a file and draw from what is open; the program's own memory is at most 1 GB.

    Pages of the files, which the system may take back at any time, are not counted.
    """
    import numpy

    from trainplan.data import Curriculum, Ranking, pacing

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        scores = numpy.lib.format.open_memmap(f"{folder}/scores.npy", "w+", numpy.float32, (n,))
        random = numpy.random.default_rng(0)
        for first in range(0, n, 1 << 22):
            part = scores[first : first + (1 << 22)]
            part[:] = random.random(part.size, dtype=numpy.float32)
        over = threading.Event()
        peak = pool.submit(own_memory, over)
        begin = time.process_time()
        scores = numpy.load(f"{folder}/scores.npy", mmap_mode="r")
        ranking = Ranking(scores, cache=folder)
        ranked = time.process_time()
        course = Curriculum(ranking, pacing("root", 0.01, full_at=10**5), BATCH, steps=10**6)
        for step in range(0, 10**6, 10**4):
            course.examples(step, 0, BATCH)
        drawn = time.process_time()
        over.set()
        each = (drawn - ranked) / 100
        print(f"{n:.0e} scores: ranked in {ranked - begin:.0f} s, {each * 1e3:.2f} ms for a batch")
        most = peak.result()
        print(f"own memory {most:.0f} MB (limit 1000): {'ok' if most <= 1000 else 'OVER'}")


def own_memory(over: threading.Event) -> float:
    """The most memory of its own, in MB, that the program has until it is over."""
    most = 0.0
    while not over.wait(0.02):
        with open("/proc/self/status") as status:
            found = re.search(r"RssAnon:\s+(\d+)", status.read())
        most = max(most, int(found[1]) / 1e3 if found else 0.0)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e6, 1e7, 1e8, 1e9])
    parser.add_argument("--memory", type=float, default=8.0, help="GB of addresses; 0: no limit")
    parser.add_argument("--only", nargs="+", default=[], help="beginnings of rows' names")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--ranking", type=float, help="number of scores")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, n, resume, memory = given.one
        print(json.dumps(measure(name, int(n), bool(int(resume)), float(memory))))
    elif given.ranking:
        rank(int(given.ranking))
    elif given.quality:
        from data_order_quality import battery

        battery(given.seeds)
    else:
        chosen = [r for r in ROWS if not given.only or any(r.startswith(o) for o in given.only)]
        compare([int(n) for n in given.sizes], chosen, given.memory)


if __name__ == "__main__":
    main()
