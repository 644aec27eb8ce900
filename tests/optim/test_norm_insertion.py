"""Layers are found by running a model, whatever it is made of."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

import trainplan as tp
from trainplan.errors import PlanError
from trainplan.optim import find_scale_invariant, normalize_and_project
from trainplan.optim.layer_tracing import Trace


class Functional(nn.Module):
    """Activations as functions, out of the order of its attributes, with one layer unused."""

    def __init__(self):
        super().__init__()
        self.last, self.second, self.first = nn.Linear(8, 2), nn.Linear(8, 8), nn.Linear(4, 8)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.last(torch.relu(self.second(functional.gelu(self.first(x)))).tanh())


def test_functions_are_seen_as_modules_are():
    model = Functional()
    trace = Trace().of(model, torch.zeros(2, 4))
    assert trace.linear == ["first", "second", "last"]
    assert trace.into == {"first": ("activation", "gelu"), "second": ("activation", "relu")}
    projector = normalize_and_project(model, {"x": torch.zeros(2, 4)})
    assert sorted(projector.weights) == ["first.weight", "second.weight"]


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("scale", ["none", "decay"])
def test_projected_matrices_are_those_whose_scale_does_not_matter(norm, scale):
    torch.manual_seed(0)
    model, x = Functional(), torch.randn(16, 4)
    assert find_scale_invariant(model, x) == ["unused.weight"]
    projector = normalize_and_project(model, x, norm=norm, scale=scale)
    assert set(find_scale_invariant(model, x)) == {"unused.weight", *projector.weights}


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_convolutions_are_normalized_over_channels_and_positions(kind, norm):
    torch.manual_seed(0)
    layers = [kind(2, 4, 3, padding=1), nn.LeakyReLU(), kind(4, 4, 3, padding=1)]
    model = nn.Sequential(*layers)
    x = torch.randn(3, 2, *[5] * int(kind.__name__[4]))
    projector = normalize_and_project(model, x, norm=norm, scale="project")
    y = model[0](x)
    assert y.square().mean(tuple(range(1, y.ndim))).tolist() == pytest.approx([1] * 3, abs=1e-3)
    assert find_scale_invariant(model, x) == list(projector.weights) == ["0.weight"]


def test_norms_that_are_there_stay_and_their_gains_can_be_held():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)]
    model, x = nn.Sequential(*layers), torch.randn(4, 1, 5, 5)
    running = copy.deepcopy(model[1].state_dict())
    projector = normalize_and_project(model, x, scale="project")
    assert projector.norms == [model[1]]
    assert model[0].bias is None
    assert not hasattr(model[0], "output_norm")
    assert find_scale_invariant(model, x) == ["0.weight"]
    assert all(
        torch.equal(a, b)
        for a, b in zip(running.values(), model[1].state_dict().values(), strict=True)
    )


def test_doing_it_twice_inserts_nothing_more():
    model, x = Functional(), torch.randn(3, 4)
    normalize_and_project(model, x)
    before = model(x)
    projector = normalize_and_project(model, x)
    assert torch.equal(model(x), before)
    assert len(projector.weights) == 2


def test_the_head_and_other_layers_on_request():
    make = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))  # noqa: E731
    x = torch.zeros(1, 4)
    chosen = {
        "head": {"project_head": True},
        "all": {"project": "all"},
        "both": {"project": "all", "project_head": True},
        "names": {"project": ["2"]},
        "function": {"project": lambda name, layer: layer.out_features == 2},
    }
    found = {
        key: list(normalize_and_project(make(), x, **options).weights)
        for key, options in chosen.items()
    }
    names = ["0.weight", "2.weight", "3.weight"]
    assert found == {
        "head": [names[0], names[2]],
        "all": names[:2],
        "both": names,
        "names": [names[1]],
        "function": [names[2]],
    }


def test_parameters_keep_their_names_and_copies_their_norms():
    model, x = Functional(), torch.randn(3, 4)
    names = {name for name, _ in model.named_parameters()}
    normalize_and_project(model, x)
    assert names - set(model.state_dict()) == {"first.bias", "second.bias"}
    assert torch.equal(copy.deepcopy(model)(x), model(x))


@pytest.mark.parametrize(
    ("build", "options", "place"),
    [
        (lambda: nn.Linear(4, 4), {}, "model"),
        (Functional, {"scale": "project"}, "scale"),
        (Functional, {"norm": "batch"}, "norm"),
        (Functional, {"scale": "no"}, "scale"),
        (Functional, {"project": ["frist"]}, "project"),
    ],
)
def test_bad_input_names_its_place(build, options, place):
    with pytest.raises(PlanError) as caught:
        normalize_and_project(build(), torch.zeros(2, 4), **options)
    assert caught.value.place == place


def test_the_function_is_what_its_name_gives_however_the_room_is_entered():
    code = (
        "from trainplan.optim.norm_insertion import normalize_and_project as one\n"
        "import trainplan as tp\n"
        "assert tp.optim.normalize_and_project is one\n"
        "assert callable(tp.optim.effective_lr)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def fit(folder, resume=None):
    from optim.tiny_trainer import fit as fit_tiny
    from optim.training import Subject

    made = []

    def make(model):
        ids = torch.arange(8).repeat(2, 1)
        model.config.use_cache = False
        projector = normalize_and_project(model, {"input_ids": ids}, scale="decay")
        groups = projector.param_groups()
        optimizer = torch.optim.AdamW(groups, lr=0.01)
        projector.attach(optimizer)
        made.append(projector)
        return optimizer

    return fit_tiny(Subject(make), "made", folder, resume=resume), made[0]


def test_transformers_trains_gpt2_and_resumes_bit_by_bit(tmp_path):
    pytest.importorskip("transformers")
    whole, projector = fit(tmp_path)
    assert list(projector.weights) == ["transformer.h.0.mlp.c_fc.weight"]
    assert projector.steps == 7
    assert list(projector.ratios().values()) == pytest.approx([1.0], rel=1e-5)
    again, other = fit(tmp_path / "b", resume=tmp_path / "checkpoint-4")
    assert other.state_dict() == projector.state_dict()
    for a, b in zip(
        whole.model.state_dict().values(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_a_transformer_can_be_held_as_a_whole():
    pytest.importorskip("transformers")
    from optim.tiny_trainer import gpt2

    model, ids = gpt2(), torch.arange(8).repeat(2, 1)
    projector = normalize_and_project(model, {"input_ids": ids}, project="all")
    assert len(projector.weights) == 4
    assert not any("wte" in name for name in projector.weights)
    tied = normalize_and_project(model, {"input_ids": ids}, project="all", project_head=True)
    assert "transformer.wte.weight" in tied.weights


def test_the_optimizer_inside_a_wrapper_is_followed():
    accelerate = pytest.importorskip("accelerate")
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    projector = normalize_and_project(model, torch.zeros(1, 4))
    optimizer = accelerate.optimizer.AcceleratedOptimizer(torch.optim.Adam(model.parameters(), 0.1))
    projector.attach(optimizer)
    model(torch.randn(4, 4)).square().sum().backward()
    optimizer.step()
    assert projector.steps == 1
    assert tp.optim.effective_lr(model, optimizer)["2.weight"] > 0


def test_the_example_follows_its_plan_and_resumes_bit_by_bit(tmp_path):
    pytest.importorskip("transformers")
    import with_norms_held

    whole, projector, rates = with_norms_held.fit(tmp_path)
    again, other, late = with_norms_held.fit(tmp_path / "b", resume=tmp_path / "checkpoint-4")
    wanted = with_norms_held.plan.ready["effective_lr"]
    assert rates == pytest.approx([wanted(t) for t in range(8)], rel=1e-4)
    assert late == rates[4:]
    assert len(projector.weights) == 8
    assert projector.state_dict() == other.state_dict()
    for a, b in zip(
        whole.model.state_dict().values(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
