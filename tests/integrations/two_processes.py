"""What each of two processes does for test_accelerate.py; prints one line of JSON."""

import importlib.util
import json
import sys
from pathlib import Path

import torch

import trainplan as tp


def load(file):
    spec = importlib.util.spec_from_file_location("example", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorder:
    """A controller that holds what it has heard."""

    def __init__(self):
        self.heard = []

    def value(self, t):
        return 0.01 / (1 + len(self.heard))

    def observe(self, t, **signals):
        self.heard.append(signals["loss"])

    def state_dict(self):
        return {"heard": list(self.heard)}

    def load_state_dict(self, state):
        self.heard = list(state["heard"])

    def plain(self):
        return {"recorder": {}}


def result(fitted):
    model, run, rates = fitted
    weights = [p.tolist() for p in model.parameters()]
    return {"rates": rates, "steps": run.clock.steps, "weights": weights}


def counted(example):
    accelerator = example.Accelerator(cpu=True)
    optimizer = accelerator.prepare(torch.optim.SGD([torch.nn.Parameter(torch.ones(()))]))
    plan = tp.Plan(horizon=100, unit="tokens", lr=tp.schedules.linear(0.5))
    run = tp.accelerate.attach(plan, optimizer, accelerator)
    run.count(tokens=10 * (accelerator.process_index + 1))
    optimizer.step()
    return run.t


def main(file, folder):
    torch.set_num_threads(1)
    example, folder = load(file), Path(folder)
    found = {"processes": example.Accelerator(cpu=True).num_processes}
    found["whole"] = result(example.fit(folder / "whole", 12))
    found["resumed"] = result(example.fit(folder / "again", 12, resume=folder / "whole" / "step-5"))
    found["split"] = result(example.fit(folder / "split", 12, split=True))
    found["accumulated"] = result(example.fit(folder / "accumulated", 5, accumulate=2))
    listening = tp.Plan(lr=Recorder())
    found["listening"] = result(example.fit(folder / "listening", 4, plan=listening))
    found["heard"] = listening.controllers["lr"].heard
    found["counted"] = counted(example)
    print("\n" + json.dumps(found), flush=True)
    # A process that exits with its group open may abort in the threads of gloo.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
