"""A gate between LoRA experts: PEFT's adapters add what the equations say."""

import warnings

import pytest

torch = pytest.importorskip("torch")

from trainplan import PlanError  # noqa: E402
from trainplan.models import ExpertGate, choose_expert, lora_mixture  # noqa: E402


def test_padding_does_not_open_the_gate_unless_it_may():
    torch.manual_seed(0)
    x, far = torch.randn(3, 4, 5), 50 * torch.randn(3, 2, 5)
    padded, mask = torch.cat([x, far], 1), torch.tensor([[1, 1, 1, 1, 0, 0]] * 3)
    gate, open_gate = ExpertGate(5, 4), ExpertGate(5, 4, mask_padding=False)
    torch.testing.assert_close(gate(padded, mask), gate(x))
    open_gate.load_state_dict(gate.state_dict())
    assert not torch.allclose(open_gate(padded, mask), gate(x))
    assert gate(x).sum(1).tolist() == pytest.approx([1.0] * 3)
    gate.eval()
    assert gate(x).tolist() == choose_expert(gate.scores(x)).tolist()
    with pytest.raises(PlanError, match="all padding"):
        gate(x, torch.zeros(3, 4))


def test_the_first_of_equals_is_chosen():
    assert choose_expert(torch.zeros(2, 3)).tolist() == [[1, 0, 0]] * 2


@pytest.fixture(scope="module")
def experts():
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    from trainplan.models import GatedExperts

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    ids = {"pad_token_id": 0, "eos_token_id": None, "bos_token_id": None}
    config = transformers.LlamaConfig(num_attention_heads=2, **sizes, **ids)
    lora = peft.LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "o_proj", "down_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(transformers.LlamaForCausalLM(config), lora, "first")
        model.add_adapter("second", lora)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return GatedExperts(model, ["second", "first"])


def test_layers_add_the_mixture(experts):
    layer = experts.model.base_model.model.model.layers[1].self_attn.o_proj
    seen = {}
    layer.register_forward_hook(lambda module, args, out: seen.update(x=args[0], y=out))
    ids, mask = torch.randint(1, 32, (3, 6)), torch.ones(3, 6, dtype=torch.long)
    mask[0, 4:] = 0
    maps = [
        torch.stack([getattr(layer, name)[expert].weight for expert in experts.experts])
        for name in ("lora_A", "lora_B")
    ]
    table = experts.model.get_input_embeddings()
    for training in (True, False):
        experts.train(training)
        experts(ids, mask)
        weights = experts.gate(table(ids), mask)
        update = lora_mixture(seen["x"], *maps, weights, layer.scaling["first"])
        torch.testing.assert_close(seen["y"] - layer.base_layer(seen["x"]), update)


def test_only_the_gate_learns_and_is_kept(experts):
    ids = torch.randint(1, 32, (3, 6))
    experts.train()
    experts(ids, labels=ids).loss.backward()
    grown = [name for name, p in experts.named_parameters() if p.grad is not None]
    assert grown == ["gate.weight"]
    assert experts.gate.weight.grad.abs().sum() > 0
    experts.gate.weight.grad = None
    state = experts.state_dict()
    assert list(state) == ["weight"]
    experts.load_state_dict({"weight": 2 * state["weight"]})
    assert torch.equal(experts.gate.weight, state["weight"])


def test_the_prompt_decides_for_the_whole_answer(experts):
    experts.eval()
    torch.nn.init.normal_(experts.gate.weight)
    ids = torch.randint(1, 32, (8, 5))
    chosen = experts.choose(ids)
    assert set(chosen.tolist()) == {0, 1}
    said = experts.generate(ids, torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    for expert, name in enumerate(experts.experts):
        experts.model.base_model.set_adapter(name)
        with experts._hold(torch.ones(8, 2)):
            alone = experts.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=6,
                do_sample=False,
            )
        assert torch.equal(said[chosen == expert], alone[chosen == expert])
    experts.model.base_model.set_adapter(list(experts.experts))
    beams = experts.generate(ids, torch.ones_like(ids), max_new_tokens=3, num_beams=2)
    assert beams.shape == (8, 8)


def test_missing_adapters_are_named(experts):
    from trainplan.models import GatedExperts

    with pytest.raises(PlanError, match="Did you mean 'second'"):
        GatedExperts(experts.model, ["secnd"])
