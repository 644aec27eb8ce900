"""What every optimizer of the room has to do. To register one, derive a class of tests::

    from optim.optimizer_contract import OptimizerContract
    from optim.training import Subject

    class TestApollo(OptimizerContract):
        subject = Subject(make=lambda model, **options: APOLLO(split_params(model), **options))

What an optimizer cannot do by its nature it says in its `Subject`, or by overriding a test. For
further settings of the same optimizer `UpdateContract` is enough, which leaves the hosts out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import trainplan as tp
from optim.training import (
    STEPS,
    difference,
    loss_of,
    net,
    plan_of,
    reload,
    same,
    saved,
    train,
    weights,
)
from optim.update_contract import UpdateContract


class OptimizerContract(UpdateContract):
    """Derive from it and set ``subject``."""

    def test_a_compiled_step_does_the_same(self):
        if not self.subject.compiles:
            pytest.skip("cannot be traced")
        torch._dynamo.reset()
        model = net()
        optimizer = self.subject.make(model)
        step = torch.compile(optimizer.step, backend="aot_eager")
        for t in range(4):
            optimizer.zero_grad()
            loss_of(model, t).backward()
            step()
        plain = self.trained(steps=4)[0]
        assert difference(weights(model), weights(plain), weights(net())) < 1e-3

    def test_a_plan_drives_its_knobs(self):
        model = net()
        optimizer = self.subject.make(model)
        plan = plan_of(self.subject, optimizer)
        run = tp.torch.attach(plan, optimizer, others="error")
        train(model, optimizer)
        assert run.clock.steps == STEPS

        by_hand = net()
        other = self.subject.make(by_hand)
        own = [{name: group[name] for name in plan} for group in other.param_groups]

        def write(t):
            for group, base in zip(other.param_groups, own, strict=True):
                for name, value in plan.at(t).items():
                    reference = other.defaults[name]
                    plain = isinstance(value, tuple) or not reference
                    group[name] = value if plain else value * (base[name] / reference)

        train(by_hand, other, before=write)
        assert same(weights(model), weights(by_hand))
        assert not same(weights(model), weights(self.trained()[0]))

    def test_resuming_under_a_plan_changes_nothing(self):
        def started():
            model = net()
            optimizer = self.subject.make(model)
            plan = plan_of(self.subject, optimizer)
            return model, optimizer, tp.torch.attach(plan, optimizer)

        model, optimizer, _ = started()
        train(model, optimizer)
        first, paused, run = started()
        train(first, paused, 4)
        again, resumed = reload(self.subject, first, paused)
        other = tp.torch.attach(plan_of(self.subject, resumed), resumed)
        other.load_state_dict(saved(run.state_dict()))
        train(again, resumed, range(4, STEPS))
        assert same(weights(again), weights(model))

    def test_two_processes_equal_one_with_the_joined_batch(self, tmp_path):
        joined = self.trained(dtype=torch.float64, steps=6)[0]
        results = two_processes(type(self), tmp_path)
        assert same(results[0], results[1])
        assert difference(results[0], weights(joined), weights(net(torch.float64))) < 1e-4

    @pytest.mark.parametrize("way", ["class", "instance"])
    def test_transformers_trainer_trains_and_resumes(self, way, tmp_path):
        pytest.importorskip("transformers")
        from optim.tiny_trainer import fit

        if way == "class" and self.subject.trainer is None:
            pytest.skip("needs to be built by hand")
        whole = fit(self.subject, way, tmp_path / "whole")
        again = fit(self.subject, way, tmp_path / "again", resume=tmp_path / "whole/checkpoint-4")
        assert whole.state.global_step == again.state.global_step == 7
        assert same(weights(whole.model), weights(again.model))
        rows = [row["loss"] for row in whole.state.log_history if "loss" in row]
        assert rows[-1] < rows[0]


def two_processes(case: type[OptimizerContract], folder: Path) -> list[list[torch.Tensor]]:
    """The weights that each of two processes ends with, half of every batch for each."""
    script = Path(__file__).with_name("half_of_the_batch.py")
    file = sys.modules[case.__module__].__file__
    call = [sys.executable, str(script), str(file), case.__name__, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    if sys.platform != "linux":
        del environment["GLOO_SOCKET_IFNAME"]
    started = [
        subprocess.Popen([*call, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
