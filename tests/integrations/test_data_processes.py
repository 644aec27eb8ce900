"""Real processes: two ranks never overlap, and a killed run goes on as if it had not been."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")


from trainplan.data import BatchSampler, Shuffle

FILE = Path(__file__).parent / "data_processes.py"
_SPEC = importlib.util.spec_from_file_location("data_processes", FILE)
script = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(script)
KINDS = ["shuffle", "mixture", "listening"]


def start(folder, kind, steps, *, workers, accumulation, pause=0.0, rank=None, port=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if rank is not None:
        environment |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        environment |= {"MASTER_PORT": str(port)}
    arguments = [folder, kind, steps, workers, accumulation, pause]
    return subprocess.Popen(
        [sys.executable, str(FILE), *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def expected(kind, steps):
    sampler = BatchSampler(script.source(kind), ranks=1, rank=0)
    seen = []
    for step, batch in zip(range(steps), sampler, strict=False):
        seen.append(list(batch))
        script.report(sampler, step, seen[-1])
    return seen


def pair(folder, kind, steps, *, workers, accumulation):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [
        start(folder, kind, steps, workers=workers, accumulation=accumulation, rank=r, port=port)
        for r in range(2)
    ]
    for process in running:
        finish(process)
    return [json.loads((folder / f"rank-{r}.json").read_text()) for r in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_with_workers_share_the_steps_and_one_goes_on(tmp_path, kind):
    accumulation = 2
    ranks = pair(tmp_path, kind, 12, workers=2, accumulation=accumulation)
    assert ranks[0]["state"] == ranks[1]["state"]
    merged = [
        [x for a in range(accumulation) for r in range(2) for x in ranks[r]["seen"][t][a]]
        for t in range(12)
    ]
    assert merged == expected(kind, 12)
    # The rest alone, with other micro-batches and without workers.
    rest = tmp_path / "rest"
    rest.mkdir()
    (rest / "state.json").write_text(json.dumps(ranks[0]["state"]))
    finish(start(rest, kind, 30, workers=0, accumulation=3))
    seen = json.loads((rest / "rank-0.json").read_text())["seen"]
    assert merged + [[x for part in step for x in part] for step in seen] == expected(kind, 30)


def test_a_run_that_is_killed_again_and_again_sees_what_it_would_have_seen(tmp_path):
    steps, chance, kills = 60, random.Random(0), 0
    while kills < 3:
        workers = chance.choice([0, 1, 2])
        process = start(tmp_path, "mixture", steps, workers=workers, accumulation=2, pause=0.02)
        file = tmp_path / "rank-0.json"
        before = file.stat().st_mtime_ns if file.exists() else 0
        while process.poll() is None and (not file.exists() or file.stat().st_mtime_ns == before):
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 0.25))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        kills += 1
    done = len(json.loads((tmp_path / "rank-0.json").read_text())["seen"])
    assert 0 < done < steps
    finish(start(tmp_path, "mixture", steps, workers=2, accumulation=2))
    seen = json.loads((tmp_path / "rank-0.json").read_text())["seen"]
    assert [[x for part in step for x in part] for step in seen] == expected("mixture", steps)


def trainers(folder, name, stop, resume, workers, accumulation):
    """Two ranks of a Trainer; what each was shown."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    files = [folder / f"{name}-{rank}.json" for rank in range(2)]
    running = [
        subprocess.Popen(
            [
                sys.executable,
                str(FILE.parent / "trainer_process.py"),
                *map(str, (folder / "run", files[rank], stop, resume, workers, accumulation)),
            ],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in running:
        finish(process)
    return [json.loads(file.read_text()) for file in files]


def test_a_trainer_on_two_ranks_resumes_in_a_later_epoch_with_other_micro_batches(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("datasets")
    before = trainers(tmp_path, "before", 8, "", workers=2, accumulation=2)
    checkpoint = tmp_path / "run" / "checkpoint-8"
    after = trainers(tmp_path, "after", 0, checkpoint, workers=0, accumulation=1)
    seen = [[x for a in range(2) for r in range(2) for x in before[r][2 * t + a]] for t in range(8)]
    seen += [after[0][t] + after[1][t] for t in range(10)]
    sampler = BatchSampler(Shuffle(50, 8, seed=1, epochs=3), ranks=1, rank=0)
    assert seen == [list(sampler.batch(i)) for i in range(18)]
