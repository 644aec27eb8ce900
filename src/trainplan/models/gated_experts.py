"""Several LoRA adapters of one model, and a gate between them: the second half of SteloCoder.

PEFT holds the adapters. All of them are switched on, and what each adds to a layer is weighted by
hooks, so that no model file is changed (Pan et al., 2023, arXiv 2310.15539).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from trainplan._extras import require
from trainplan.errors import PlanError, nearest
from trainplan.models.expert_gate import ExpertGate

require("peft", extra="hf")


class GatedExperts(nn.Module):
    """A model with LoRA experts, of which only a gate is trained.

    In training mode all experts are averaged by the gate's weights, in evaluation mode the
    likeliest is used alone. The experts must have been trained; everything but the gate is frozen,
    and the state is the gate's alone.

    Args:
        model: A ``PeftModel`` with the adapters; it stays in use, with all of them switched on.
        experts: Names of the adapters, in the order of the gate.
        mask_padding: See `ExpertGate`.
        first_layer: The module whose input the gate reads; by default the first layer of the
            model's first list of layers, which reads the sum of the embeddings.

    Raises:
        PlanError: If an adapter is missing.
    """

    def __init__(
        self,
        model: Any,
        experts: Sequence[str],
        *,
        mask_padding: bool = True,
        first_layer: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.experts = tuple(experts)
        for name in self.experts:
            if name not in model.peft_config:
                remedy = nearest(name, model.peft_config)
                raise PlanError("no such adapter", place="experts", value=name, remedy=remedy)
        if not self.experts:
            raise PlanError("there is no expert", place="experts", value=experts)
        model.base_model.set_adapter(list(self.experts))
        model.requires_grad_(False)
        table = model.get_input_embeddings().weight
        self.model = model
        self.config = model.config  # trainers look for it here
        self.gate = ExpertGate(table.shape[1], len(self.experts), mask_padding=mask_padding)
        self.gate.to(table.device)
        self._mask: Tensor | None = None
        self._held: Tensor | None = None
        self._weights: Tensor | None = None
        first = _first_layer(model) if first_layer is None else first_layer
        first.register_forward_pre_hook(self._weigh, with_kwargs=True)
        self._weight_the_adapters()

    def _weight_the_adapters(self) -> None:
        for module in self.model.modules():
            ups: Any = getattr(module, "lora_B", {})
            for index, name in enumerate(self.experts):
                if name in ups:
                    ups[name].register_forward_hook(partial(self._scale, index))

    def _weigh(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        inputs = args[0] if args else kwargs["hidden_states"]
        self._weights = self.gate(inputs, self._mask) if self._held is None else self._held

    def _scale(self, index: int, module: nn.Module, args: Any, update: Tensor) -> Tensor:
        assert self._weights is not None  # noqa: S101 - the first layer runs before any adapter
        weight = self._weights[:, index].to(update.dtype)
        # Beam search and the like repeat each sequence.
        weight = weight.repeat_interleave(len(update) // len(weight))
        return update * weight.view(-1, *[1] * (update.dim() - 1))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """What the model returns.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T) 0 at padding.
            labels: (B, T) for the loss.
            **inputs: Whatever else the model takes.
        """
        self._mask = attention_mask
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, labels=labels, **inputs
        )

    def choose(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B,) the likeliest expert for each prompt, by its number."""
        training = self.training
        self.eval()
        with self._hold(None):
            self(input_ids, attention_mask)
        self.train(training)
        assert self._weights is not None  # noqa: S101 - the first layer has run
        return self._weights.argmax(dim=1)

    @contextmanager
    def _hold(self, weights: Tensor | None) -> Iterator[None]:
        before, self._held = self._held, weights
        try:
            yield
        finally:
            self._held = before

    def generate(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> Any:
        """Generate with one expert for each prompt, chosen from the prompt and then kept.

        Asked at every new token, a gate would see that token alone.
        """
        chosen = self.choose(input_ids, attention_mask)
        weights = nn.functional.one_hot(chosen, len(self.experts)).float()
        with self._hold(weights):
            return self.model.generate(
                input_ids=input_ids, attention_mask=attention_mask, **options
            )

    # Only the gate is trained, and saved.

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The gate's."""
        return self.gate.state_dict(*args, **kwargs)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Go on with a gate."""
        return self.gate.load_state_dict(state_dict, strict=strict, assign=assign)


def _first_layer(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module):
            return module[0]
    raise PlanError(
        "the model has no list of layers", place="first_layer", remedy="Give its first layer"
    )
