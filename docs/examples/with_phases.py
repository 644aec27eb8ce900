"""Fine-tune LoRA experts in phases, short examples first, and a gate between them: TRL and PEFT."""

from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

import trainplan as tp
from trainplan.data import Phase, PhaseCurriculum
from trainplan.models import GatedExperts

EXPERTS = ("cpp", "php")
curriculum = PhaseCurriculum(
    [
        Phase("snippet", peak_lr=9e-3, batch_size=8, warmup=1),
        Phase("snippet", peak_lr=7e-3, batch_size=8, warmup=1),
        Phase("program", peak_lr=5e-3, batch_size=4, warmup=1),
        Phase("program", peak_lr=2e-3, batch_size=4, warmup=1),
    ],
    {"snippet": 24, "program": 12},
)


def examples(expert: str, level: str) -> Dataset:
    """Texts in two languages; beyond 95 of 100 lengths they are left out."""
    lines, number = (1, curriculum.sizes["snippet"]) if level == "snippet" else (4, 12)
    rows = [[f"w{(7 * i + 3 * k) % 20}" for k in range(3 * lines)] for i in range(number)]
    _, kept = tp.data.percentile_length_filter([len(row) for row in rows], 0.95)
    prompts = [" ".join([expert, *rows[i], "py"]) for i in kept]
    answers = [" " + " ".join(reversed(rows[i])) for i in kept]
    return Dataset.from_dict({"prompt": prompts, "completion": answers})


def tokenizer():
    words = ["<pad>", "<eos>", "<unk>", "py", *EXPERTS, *(f"w{i}" for i in range(20))]
    vocabulary = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    split = Tokenizer(vocabulary)
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=split, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def experts_of() -> PeftModel:
    """A model with an adapter for each language, of rank 4 and scale 8."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=26, num_hidden_layers=1, **sizes, **ids))
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]
    first, *others = EXPERTS
    lora = LoraConfig(r=4, lora_alpha=32, lora_dropout=0.05, target_modules=layers)
    model = get_peft_model(base, lora, first)
    for name in others:
        model.add_adapter(name, lora)
    return model


def settings(folder: Path, batch_size: int):
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": batch_size,
        "lr_scheduler_type": "constant",  # the plan drives the learning rate
        "save_steps": 1,
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


def train_experts(folder: Path, callbacks=()) -> PeftModel:
    model = experts_of()
    for expert in EXPERTS:
        model.set_adapter(expert)
        for k, phase in enumerate(curriculum.phases):  # each with a fresh optimizer
            plan = curriculum.plan(k, weight_decay=0.05)
            arguments = settings(folder / expert / str(k), phase.batch_size)
            trainer = SFTTrainer(  # trains on completions alone
                model,
                SFTConfig(**arguments, num_train_epochs=phase.epochs),
                train_dataset=examples(expert, phase.data),
                processing_class=tokenizer(),
                callbacks=[tp.transformers.PlanCallback(plan), *callbacks],
            )
            tp.transformers.order_data(trainer, curriculum.sources[k])
            tp.transformers.train_or_load(trainer, curriculum.lengths[k])
    return model


def train_gate(model: PeftModel, folder: Path, steps: int = 6) -> GatedExperts:
    gated = GatedExperts(model, EXPERTS)
    rows = [row for name in EXPERTS for row in examples(name, "program")]
    encode = tokenizer()
    whole = encode([row["prompt"] + row["completion"] for row in rows], padding=True)
    prompts = [len(encode(row["prompt"])["input_ids"]) for row in rows]
    lengths = [sum(mask) for mask in whole["attention_mask"]]
    labels = tp.data.completion_labels(whole["input_ids"], prompts, lengths)
    columns = {name: whole[name] for name in ("input_ids", "attention_mask")}
    plan = tp.Plan(horizon=steps, lr=tp.schedules.cosine(5e-3, warmup=1))
    trainer = Trainer(
        gated,
        TrainingArguments(**settings(folder / "gate", 1), max_steps=steps),
        train_dataset=Dataset.from_dict(columns | {"labels": labels.tolist()}),
        callbacks=[tp.transformers.PlanCallback(plan)],
    )
    tp.transformers.train_or_load(trainer, steps)
    return gated


if __name__ == "__main__":
    folder = Path("phases-run")
    gated = train_gate(train_experts(folder), folder)
    asked = tokenizer()(["php w1 w2 w3 py"], return_tensors="pt")
    print(gated.generate(asked["input_ids"], asked["attention_mask"], max_new_tokens=4))
