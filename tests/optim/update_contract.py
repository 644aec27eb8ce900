"""What every optimizer's update has to do, whoever calls it; see `optimizer_contract`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optim.training import (
    STEPS,
    Subject,
    difference,
    loss_of,
    net,
    reload,
    same,
    saved,
    train,
    weights,
)
from trainplan.errors import PlanError

DTYPES = [torch.float32, torch.bfloat16, torch.float64]


class UpdateContract:
    """Derive from it and set ``subject``."""

    subject: Subject

    @pytest.fixture(autouse=True)
    def _one_thread(self):
        """Sums over two threads are not the same every time."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)

    def trained(self, *, dtype=torch.float32, steps=STEPS, before=None, **options):
        """A network that the optimizer has trained, the optimizer, and the losses."""
        model = net(dtype)
        optimizer = self.subject.make(model, **options)
        hook = (lambda t: before(t, model)) if before else (lambda t: None)
        losses = train(model, optimizer, steps, before=hook)
        return model, optimizer, losses

    # Numbers

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_the_loss_falls_and_types_stay(self, dtype):
        model = self.trained(dtype=dtype, steps=60)[0]
        begin = sum(loss_of(net(dtype), t).item() for t in range(60))
        end = sum(loss_of(model, t).item() for t in range(60))
        assert end < self.subject.learns * begin
        assert all(p.dtype == dtype and p.isfinite().all() for p in model.parameters())

    def test_gradients_may_lie_in_memory_otherwise_than_weights(self):
        def turn(t, model):
            for p in model.parameters():
                p.grad = p.grad.transpose(0, -1).contiguous().transpose(0, -1)

        turned = weights(self.trained(before=turn)[0])
        assert difference(turned, weights(self.trained()[0]), weights(net())) < 1e-4

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_both_paths_agree(self, dtype):
        if "foreach" not in self.subject.options:
            pytest.skip("has one path")
        fast, _, _ = self.trained(dtype=dtype, steps=5, foreach=True)
        plain, _, _ = self.trained(dtype=dtype, steps=5, foreach=False)
        apart = difference(weights(fast), weights(plain), weights(net(dtype)))
        assert apart <= self.subject.tolerance[dtype]

    def test_the_same_seed_gives_the_same_weights(self):
        assert same(weights(self.trained()[0]), weights(self.trained()[0]))

    def test_maximize_climbs(self):
        if "maximize" not in self.subject.options:
            pytest.skip("does not maximize")
        down = net()
        train(down, self.subject.make(down))
        up = net()
        train(up, self.subject.make(up, maximize=True), sign=-1.0)
        assert same(weights(down), weights(up))

    # Gradients

    def test_a_missing_gradient_leaves_its_parameter_alone(self):
        model = net()
        optimizer = self.subject.make(model)
        last = model[-1].weight
        for t in range(STEPS):
            before = last.detach().clone()
            missing = t % 3 != 1
            train(model, optimizer, range(t, t + 1), before=lambda t, m=missing: hide(last, m))
            assert torch.equal(last, before) == missing
        assert all(p.isfinite().all() for p in model.parameters())

    def test_without_gradients_nothing_happens(self):
        model, optimizer, _ = self.trained(steps=3)
        before = weights(model)
        optimizer.zero_grad()
        optimizer.step()
        assert same(weights(model), before)

    def test_a_first_gradient_of_zero_freezes_nothing(self):
        def zero(t, model):
            if t == 0:
                for p in model.parameters():
                    p.grad.zero_()

        start = weights(net())
        late, _, _ = self.trained(steps=4, before=zero)
        usual, _, _ = self.trained(steps=range(1, 4))
        for a, b, s in zip(weights(late), weights(usual), start, strict=True):
            assert (a - s).norm() > 0.1 * (b - s).norm()

    def test_sparse_gradients_work_or_are_refused(self):
        found = []
        for sparse in (False, True):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Embedding(30, 8, sparse=sparse), nn.Linear(8, 3))
            optimizer = self.subject.make(model)
            model(torch.tensor([1, 2, 2])).square().sum().backward()
            try:
                optimizer.step()
            except PlanError as error:
                refused = str(error)
                break
            found.append(weights(model))
        assert len(found) > 0
        if len(found) == 1:
            assert "sparse" in refused
        else:
            assert torch.allclose(found[0][0], found[1][0], atol=1e-6)

    def test_a_closure_is_evaluated_with_gradients(self):
        model = net()
        optimizer = self.subject.make(model)

        def closure():
            optimizer.zero_grad()
            loss = loss_of(model, 0)
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        assert loss.item() == loss_of(net(), 0).item()
        assert same(weights(model), weights(self.trained(steps=1)[0]))

    def test_clipped_gradients(self):
        def clip(t, model):
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)

        model, _, losses = self.trained(steps=60, before=clip)
        assert all(p.isfinite().all() for p in model.parameters())
        assert loss_of(model, 0).item() < losses[0]

    def test_mixed_precision_scaling_on_the_cpu(self):
        model = net()
        optimizer = self.subject.make(model)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=10_000)
        for t in range(5):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, t)).backward()
            if t == 2:  # an overflow: the step is left out
                model[2].weight.grad.fill_(float("inf"))
                before, state = weights(model), saved(optimizer.state_dict())
            scaler.step(optimizer)
            scaler.update(256.0)
            if t == 2:
                assert same(weights(model), before)
                assert same(saved(optimizer.state_dict())["state"], state["state"])
        plain = net()
        other = self.subject.make(plain)
        train(plain, other, range(2))
        train(plain, other, range(3, 5))
        assert difference(weights(model), weights(plain), weights(net())) < 1e-3

    # Groups and state

    def test_a_group_added_late_trains_and_disturbs_nobody(self):
        model, optimizer, _ = self.trained(steps=3)
        extra = nn.Linear(7, 5)
        begin = weights(extra)
        optimizer.add_param_group({"params": list(extra.parameters())})
        train(model, optimizer, range(3, STEPS), before=lambda t: extra_gradient(extra, t))
        assert same(weights(model), weights(self.trained()[0]))
        for before, p in zip(begin, extra.parameters(), strict=True):
            assert p.isfinite().all()
            assert not torch.equal(before, p)

        again, other = net(), nn.Linear(7, 5)
        resumed = self.subject.make(again)
        resumed.add_param_group({"params": list(other.parameters())})
        resumed.load_state_dict(saved(optimizer.state_dict()))
        assert same(saved(resumed.state_dict()), saved(optimizer.state_dict()))

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_resuming_at_any_step_changes_nothing(self, dtype):
        whole, optimizer, _ = self.trained(dtype=dtype)
        for step in range(STEPS):
            first, paused, _ = self.trained(dtype=dtype, steps=step)
            again, resumed = reload(self.subject, first, paused)
            train(again, resumed, range(step, STEPS))
            assert same(weights(again), weights(whole)), f"resumed at {step}"
            assert same(saved(resumed.state_dict()), saved(optimizer.state_dict()))

    def test_loading_does_not_change_what_was_saved(self):
        optimizer = self.trained(steps=4)[1]
        kept = optimizer.state_dict()
        copy = saved(kept)
        other = net()
        resumed = self.subject.make(other)
        resumed.load_state_dict(copy)
        train(other, resumed, 3)
        assert same(saved(optimizer.state_dict()), saved(kept))


def hide(parameter: nn.Parameter, missing: bool) -> None:
    if missing:
        parameter.grad = None


def extra_gradient(extra: nn.Module, t: int) -> None:
    extra.zero_grad()
    extra(torch.full((2, 7), 0.1 + t)).square().sum().backward()
