"""Orders that listen decide by what a declared lag lets them know, whatever the loader's timing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trainplan import PlanError
from trainplan.data import BatchSampler, Curriculum, Feedback

N = 200
HARD = np.arange(N, dtype=float)


class Ability:
    """Opens more the better the mean reward: a controller with a state."""

    def __init__(self):
        self.level = 0.2

    def value(self, t):
        return self.level

    def observe(self, t, **signals):
        if "reward" in signals:
            self.level = min(1.0, self.level + 0.05 * float(signals["reward"].means.mean()))

    def state_dict(self):
        return {"level": self.level}

    def load_state_dict(self, state):
        self.level = state["level"]


def source(lag, within="draw"):
    return Curriculum(HARD, Feedback(Ability(), lag, keys=N), 8, within=within)


def reward(example):
    return (example * 37 % 11) / 10


def run(sampler, batches, steps, start=0):
    """Train: use each batch, then report on it."""
    seen = []
    for step, batch in zip(range(start, steps), batches, strict=False):
        examples = [int(x) for x in batch]
        seen.append(examples)
        sampler.source.pacing.observe(step, reward=(examples, [reward(x) for x in examples]))
    return seen


@pytest.mark.parametrize("within", ["draw", "pass"])
@pytest.mark.parametrize("lag", [0, 1, 4])
def test_a_decision_knows_what_was_observed_before_its_lag(lag, within):
    sampler = BatchSampler(source(lag, within))
    seen = run(sampler, sampler, 20)
    ability, levels = Ability(), []
    for step in range(20):
        if step - 1 - lag >= 0:
            told = seen[step - 1 - lag]
            keys = sorted(set(told))
            ability.level = min(1.0, ability.level + 0.05 * np.mean([reward(k) for k in keys]))
        levels.append(ability.level)
    if within == "draw":
        for step in range(20):
            opened = max(int(np.ceil(levels[step] * N)), 8)
            assert max(seen[step]) < opened
    assert levels[-1] > 0.4


@pytest.mark.parametrize("within", ["draw", "pass"])
def test_workers_change_nothing_at_an_equal_lag(within):
    data = pytest.importorskip("torch.utils.data")

    class Numbers(data.Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            return i

    traces = []
    for workers, factor in [(0, None), (1, 2), (2, 2)]:
        sampler = BatchSampler(source(4, within))
        loader = data.DataLoader(
            Numbers(), batch_sampler=sampler, num_workers=workers, prefetch_factor=factor
        )
        traces.append(run(sampler, iter(loader), 25))
    assert traces[0] == traces[1] == traces[2]
    assert len(traces[0]) == 25


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lag_too_short_for_the_loader_is_an_error_before_the_run():
    data = pytest.importorskip("torch.utils.data")
    sampler = BatchSampler(source(3))
    loader = data.DataLoader(list(range(N)), batch_sampler=sampler, num_workers=2)
    with pytest.raises(PlanError, match="lag=4"):
        iter(loader)
    # Two micro-batches per step halve the look-ahead in steps.
    sampler = BatchSampler(source(2), accumulation=2)
    loader = data.DataLoader(list(range(N)), batch_sampler=sampler, num_workers=2)
    assert len(next(iter(loader))) == 4


def test_missing_feedback_is_an_error_and_not_a_guess():
    sampler = BatchSampler(source(1))
    iterator = iter(sampler)
    next(iterator)
    next(iterator)
    with pytest.raises(PlanError, match=r"step 2 needs feedback of step 0, last seen -1.*>= 2"):
        next(iterator)
    sampler.source.pacing.observe(0)
    next(iterator)


def test_feedback_that_comes_too_late_is_refused():
    feedback = Feedback(Ability(), 0, keys=N)
    feedback.observe(0, reward={3: 1.0})
    feedback.decide(1)
    with pytest.raises(PlanError, match="after its observations had counted"):
        feedback.observe(0, reward={4: 1.0})


def test_reports_of_a_step_add_up_in_any_order():
    class Hears(Ability):
        def observe(self, t, **signals):
            self.heard = (t, signals)

    one = Hears()
    feedback = Feedback(one, 0)
    feedback.observe(0, reward={"b": 1.0, "a": 3.0}, loss=2.0)
    feedback.observe(0, reward=(["a", "a"], [0.0, 0.0]), loss=4.0)
    feedback.decide(1)
    step, signals = one.heard
    assert step == 0
    assert signals["loss"] == 3.0
    told = signals["reward"]
    assert (told.keys, told.sums, told.counts) == (("a", "b"), (3.0, 1.0), (3, 1))
    assert told.means.tolist() == [1.0, 1.0]


def test_unknown_examples_and_domains_are_refused():
    with pytest.raises(PlanError, match="Known: 0 to 199"):
        source(0).pacing.observe(0, reward={200: 1.0})
    with pytest.raises(PlanError, match="Known: code, web"):
        Feedback(Ability(), keys=("code", "web")).observe(0, reward={"math": 1.0})
    with pytest.raises(PlanError, match="not a finite number"):
        source(0).pacing.observe(0, reward={1: float("nan")})


@pytest.mark.parametrize("within", ["draw", "pass"])
@pytest.mark.parametrize(("lag", "ahead"), [(0, 0), (1, 0), (3, 0), (3, 3), (4, 4)])
def test_a_resumed_run_draws_what_was_in_flight_again(lag, ahead, within):
    """Drawn ahead by hand, as a loader with workers does."""

    def trace(sampler, start, stop):
        iterator, queue, seen = iter(sampler), [], []
        for step in range(start, stop):
            while len(queue) <= ahead and step + len(queue) < 30:
                queue.append(list(next(iterator)))
            examples = queue.pop(0)
            seen.append(examples)
            sampler.source.pacing.observe(step, reward=(examples, [reward(x) for x in examples]))
        return seen

    whole = trace(BatchSampler(source(lag, within)), 0, 30)
    for stop in (0, 1, 2, 5, 13, 26):
        first = BatchSampler(source(lag, within))
        seen = trace(first, 0, stop)
        state = json.loads(json.dumps(first.state_dict(step=stop)))
        second = BatchSampler(source(lag, within))
        second.load_state_dict(state)
        assert seen + trace(second, stop, 30) == whole


def test_states_of_listening_and_other_orders_are_not_confused():
    listening = BatchSampler(source(1)).state_dict()
    plain = BatchSampler(Curriculum(HARD, 0.5, 8, within="draw"))
    with pytest.raises(PlanError, match="pacing differs"):
        plain.load_state_dict(listening)
    with pytest.raises(PlanError, match="pacing differs"):
        BatchSampler(source(1)).load_state_dict(plain.state_dict())
    with pytest.raises(PlanError, match="pacing differs"):
        BatchSampler(source(2)).load_state_dict(listening)


def test_a_reader_that_skips_is_not_asked_what_it_saw():
    whole = BatchSampler(source(1))
    expected = run(whole, whole, 20)
    first = BatchSampler(source(1))
    run(first, first, 8)
    second = BatchSampler(source(1))
    second.load_state_dict(first.state_dict(step=8), skipped=True)
    iterator = iter(second)
    for _ in range(8):
        next(iterator)
    assert run(second, iterator, 20, start=8) == expected[8:]


@pytest.mark.filterwarnings("ignore")
def test_a_loaders_snapshot_lacks_what_was_heard_since_and_is_refused():
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    loader = loaders.StatefulDataLoader(
        list(range(N)), batch_sampler=BatchSampler(source(4)), num_workers=2
    )
    next(iter(loader))
    again = loaders.StatefulDataLoader(
        list(range(N)), batch_sampler=BatchSampler(source(4)), num_workers=2
    )
    again.load_state_dict(loader.state_dict())
    with pytest.raises(PlanError, match=r"beside the loader's own state"):
        iter(again)
    alone = loaders.StatefulDataLoader(list(range(N)), batch_sampler=BatchSampler(source(4)))
    next(iter(alone))
    again = loaders.StatefulDataLoader(list(range(N)), batch_sampler=BatchSampler(source(4)))
    again.load_state_dict(alone.state_dict())
    next(iter(again))
