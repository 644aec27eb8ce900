"""The teacher follows at its own pace, and only the student learns from it."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainplan import PlanError
from trainplan.models import EmaTeacher, consistency_loss, replace_nan


def student():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def step(model, k):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.full_like(p, 0.1 * (k + 1)))
        model[1].running_mean.fill_(k)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 0.99), st.integers(1, 4), st.integers(0, 9))
def test_the_teacher_averages_every_so_many_steps_and_goes_on_from_its_state(momentum, every, cut):
    model = student()
    teacher = EmaTeacher(model, momentum, every=every)
    expected = [p.clone() for p in model.parameters()]
    for k in range(10):
        if k == cut:
            resumed = EmaTeacher(model, momentum, every=every)
            resumed.load_state_dict(copy.deepcopy(teacher.state_dict()))
            teacher = resumed
        step(model, k)
        teacher.update(model)
        if (k + 1) % every == 0:
            pairs = zip(expected, model.parameters(), strict=True)
            expected = [momentum * old + (1 - momentum) * p.detach() for old, p in pairs]
            assert teacher.module[1].running_mean.eq(k).all()
    for mine, theirs in zip(teacher.module.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher(torch.ones(4, 2)).requires_grad
    assert all(p.requires_grad for p in model.parameters())


def test_only_the_student_gets_a_gradient_and_the_logits_stay():
    mine, theirs = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    before = theirs.detach().clone()
    consistency_loss(mine, theirs, 0.1).backward()
    assert theirs.grad is None
    assert torch.equal(theirs.detach(), before)
    # The gradient of a cross-entropy: what the student says, less what it should say.
    should = (before / 0.1).softmax(1)
    torch.testing.assert_close(mine.grad, (mine.detach().softmax(1) - should) / 5)


def test_broken_numbers_become_the_mean_of_the_others():
    x = torch.tensor([[1.0, float("nan")], [float("inf"), 5.0]])
    assert replace_nan(x).tolist() == [[1.0, 3.0], [float("inf"), 5.0]]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: EmaTeacher(student(), 1.0), "momentum"),
        (lambda: EmaTeacher(student(), every=0), "every"),
        (lambda: consistency_loss(torch.ones(2, 3), torch.ones(2, 4)), "teacher"),
        (lambda: consistency_loss(torch.ones(2, 3), torch.ones(2, 3), 0.0), "temperature"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
