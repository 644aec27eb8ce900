"""Post-train with TRL under a plan: the optimizer's knobs, and TRL's own."""

from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

import trainplan as tp

STEPS = 8

sft_plan = tp.Plan(
    horizon=STEPS,
    lr=tp.schedules.wsd(peak=0.01, warmup="25%", decay="25%"),
    weight_decay=tp.schedules.linear(0.1, end=0.0),
)

dpo_plan = tp.Plan(
    horizon=STEPS,
    lr=tp.schedules.cosine(peak=0.01),
    beta=tp.schedules.linear(0.1, end=0.5),
)

grpo_plan = tp.Plan(
    horizon=STEPS,
    lr=tp.schedules.constant(0.01),
    beta=tp.schedules.linear(0.1, end=0.01),  # the pull to the reference model
    max_completion_length=tp.schedules.linear(2, end=8),  # tokens of a rollout
    reward_weights=(1.0, tp.schedules.linear(0.0, end=0.5)),  # one for each reward function
)


def tokenizer():
    words = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(29))]
    vocabulary = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    words = Tokenizer(vocabulary)
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, num_hidden_layers=1, **sizes, **ids))


def settings(steps: int, **options):
    return {
        "max_steps": steps,
        "lr_scheduler_type": "constant",  # the plan drives the learning rate
        "per_device_train_batch_size": 4,
        "save_steps": 1,
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
    } | options


def sft(folder: Path, steps: int = STEPS, plan: tp.Plan = sft_plan, **options):
    return SFTTrainer(
        model(),
        SFTConfig(str(folder), max_length=16, **settings(steps, **options)),
        train_dataset=Dataset.from_dict({"text": ["w1 w2 w3 w4", "w5 w6 w7"] * 16}),
        processing_class=tokenizer(),
        callbacks=[tp.transformers.PlanCallback(plan)],  # no knob of TRL in this plan
    )


def dpo(folder: Path, steps: int = STEPS, plan: tp.Plan = dpo_plan, **options):
    pairs = {"prompt": ["w1 w2"] * 32, "chosen": [" w3 w4"] * 32, "rejected": [" w5"] * 32}
    trainer = DPOTrainer(
        model(),
        model(),
        DPOConfig(str(folder), **settings(steps, **options)),
        train_dataset=Dataset.from_dict(pairs),
        processing_class=tokenizer(),
    )
    tp.trl.attach(plan, trainer)
    return trainer


def speaks_of_w3(completion_ids, **kwargs):
    return [float(ids.count(6)) for ids in completion_ids]


def is_short(completion_ids, **kwargs):
    return [1.0 / len(ids) for ids in completion_ids]


def grpo(folder: Path, steps: int = STEPS, plan: tp.Plan = grpo_plan, beta=0.1, **options):
    start = folder / "start"  # TRL loads the reference model from where the model came from
    model().save_pretrained(start)
    trainer = GRPOTrainer(
        str(start),
        [speaks_of_w3, is_short],
        GRPOConfig(str(folder), beta=beta, num_generations=2, **settings(steps, **options)),
        train_dataset=Dataset.from_dict({"prompt": ["w1 w2", "w7"] * 16}),
        processing_class=tokenizer(),
    )
    tp.trl.attach(plan, trainer)
    return trainer


if __name__ == "__main__":
    folder = Path("trl-run")
    sft(folder / "sft").train()
    dpo(folder / "dpo").train()
    grpo(folder / "grpo", steps=5).train()  # interrupted
    grpo(folder / "grpo").train(resume_from_checkpoint=str(folder / "grpo" / "checkpoint-5"))
