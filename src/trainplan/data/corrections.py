"""Examples that show a model its own answer and ask for the true one.

The second method of Cen et al., 2024, arXiv 2410.14655: the model learns to correct itself without
an oracle. The text of the instruction and the shares are our own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainplan.data.forcing import share_of
from trainplan.data.free_running import Logits, continue_prompts, device_of, frozen
from trainplan.data.hashing import checked_seed
from trainplan.data.self_tokens import IGNORED
from trainplan.errors import PlanError

Ids = Sequence[int]
Example = dict[str, list[int]]


def answer_example(prompt: Ids, answer: Ids, eos: int, context: Ids | None = None) -> Example:
    """A prompt and its answer; the loss is on the answer and the end.

    Args:
        prompt: Ids, at least one.
        answer: True ids.
        eos: The end token.
        context: The answer as inputs hold it, if own tokens are among it; of equal length.

    Returns:
        ``input_ids`` and ``labels`` of the same positions.

    >>> answer_example([5], [2, 1], eos=7, context=[2, 3])
    {'input_ids': [5, 2, 3, 7], 'labels': [-100, 2, 1, 7]}
    """
    shown = answer if context is None else context
    if not len(prompt) or len(shown) != len(answer):
        value = [len(prompt), len(answer), len(shown)]
        remedy = "Give a prompt, and a context as long as the answer"
        raise PlanError("lengths do not fit", place="prompt", value=value, remedy=remedy)
    labels = [IGNORED] * len(prompt) + [*answer, eos]
    return {"input_ids": [*prompt, *shown, eos], "labels": labels}


def correction_example(
    prompt: Ids, own: Ids, instruction: Ids, reference: Ids, eos: int
) -> Example:
    """A prompt, the own answer, an instruction to correct it, and the reference.

    The loss is on the reference and the end alone.

    >>> correction_example([5], [3], [8, 9], [2, 1], eos=7)
    {'input_ids': [5, 3, 8, 9, 2, 1, 7], 'labels': [-100, -100, -100, -100, 2, 1, 7]}
    """
    return answer_example([*prompt, *own, *instruction], reference, eos)


class CorrectionBuilder:
    """Turns prompts and answers into plain examples and examples of correction.

    Args:
        instruction: Ids between the own answer and the reference, at least one.
        eos: The end token.
        rac_fraction: Share of pairs that become corrections, in [0, 1]; the others stay plain.
        keep_correct: Share of corrections kept where the own answer is right already, in [0, 1];
            the rest of these become plain examples.
        seed: Of the choice.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> after = torch.eye(10)[[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]]
    >>> builder = CorrectionBuilder([8, 9], eos=7, rac_fraction=1.0)
    >>> builder.build(lambda ids: after[ids], [[4]], [[2]])
    [{'input_ids': [4, 5, 6, 8, 9, 2, 7], 'labels': [-100, -100, -100, -100, -100, 2, 7]}]
    """

    def __init__(
        self,
        instruction: Ids,
        eos: int,
        *,
        rac_fraction: float = 0.5,
        keep_correct: float = 0.1,
        seed: int = 0,
    ) -> None:
        if not len(instruction):
            raise PlanError("is empty", place="instruction", remedy="Give the ids of a sentence")
        self.instruction, self.eos = list(instruction), eos
        self.rac_fraction = share_of(rac_fraction, "rac_fraction")
        self.keep_correct = share_of(keep_correct, "keep_correct")
        self.seed = checked_seed(seed)

    def build(
        self, model: Logits, prompts: Sequence[Ids], answers: Sequence[Ids], round_: int = 0
    ) -> list[Example]:
        """One example for each pair, in order, with the greedy answers of the model as it is now.

        Args:
            model: See `trainplan.data.free_running.Logits`.
            prompts: Ids of each prompt.
            answers: Ids of each true answer, without the end.
            round_: Chooses other pairs in each round.
        """
        if len(prompts) != len(answers):
            value = [len(prompts), len(answers)]
            raise PlanError("not as many answers as prompts", place="answers", value=value)
        draws = np.random.default_rng([self.seed, round_]).random((2, len(prompts)))
        chosen = np.flatnonzero(draws[0] < self.rac_fraction).tolist()
        own = self.answer(model, [prompts[i] for i in chosen], [len(answers[i]) for i in chosen])
        examples = [answer_example(p, a, self.eos) for p, a in zip(prompts, answers, strict=True)]
        for i, found in zip(chosen, own, strict=True):
            if found != list(answers[i]) or draws[1, i] < self.keep_correct:
                parts = (prompts[i], found, self.instruction, answers[i])
                examples[i] = correction_example(*parts, self.eos)
        return examples

    def answer(
        self, model: Logits, prompts: Sequence[Ids], lengths: Sequence[int]
    ) -> list[list[int]]:
        """Greedy answers without their end, at most twice as long as the given lengths."""
        alike: defaultdict[int, list[int]] = defaultdict(list)
        for i, prompt in enumerate(prompts):
            alike[len(prompt)].append(i)
        found: list[list[int]] = [[] for _ in prompts]
        with frozen(model):
            for rows in alike.values():
                ids = torch.tensor([list(prompts[i]) for i in rows])
                most = 2 * max(lengths[i] for i in rows)
                rest = continue_prompts(
                    model, ids.to(device_of(model, ids)), max(most, 1), eos=self.eos
                )
                for i, answer in zip(rows, rest, strict=True):
                    kept = answer[: 2 * lengths[i]]
                    found[i] = kept[:-1] if kept and kept[-1] == self.eos else kept
        return found

    def second_prompt(self, prompt: Ids, own: Ids) -> list[int]:
        """What to give the model for a second pass over its own answer."""
        return [*prompt, *own, *self.instruction]


def padded(examples: Sequence[Example], pad: int) -> dict[str, Any]:
    """A batch of tensors (B, T): ``input_ids``, ``labels`` and ``attention_mask``.

    >>> batch = padded([{"input_ids": [1], "labels": [1]}], pad=0)
    >>> batch["attention_mask"].tolist()
    [[1]]
    """
    longest = max(len(example["input_ids"]) for example in examples)

    def block(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([[*e[name]] + [fill] * (longest - len(e[name])) for e in examples])

    mask = [[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in examples]
    ids, labels = block("input_ids", pad), block("labels", IGNORED)
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.tensor(mask)}
