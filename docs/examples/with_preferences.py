"""Preferences for the true order in stages, easy pairs first, then fine-tuning: TRL and PEFT."""

from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import trainplan as tp

FACTORS = (16, 8, 4, 2)  # from easy to hard
CLIPS = [[f"e{(3 * i + 5 * k) % 24}" for k in range(16)] for i in range(8)]
PROMPTS = ["list " + " ".join(clips) + " :" for clips in CLIPS]


def answer(clips: list[str]) -> str:
    """In earnest: what a model says when it is given these clips' captions, in this order."""
    return " " + " ".join(clips)


def tokenizer():
    words = ["<pad>", "<eos>", "<unk>", "list", ":", *(f"e{i}" for i in range(24))]
    vocabulary = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    split = Tokenizer(vocabulary)
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=split, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return LlamaForCausalLM(LlamaConfig(vocab_size=29, num_hidden_layers=1, **sizes, **ids))


def train(folder: Path, callbacks=(), **options):
    pairs = {
        r: Dataset.from_dict(tp.data.preference_pairs(PROMPTS, CLIPS, answer, r)) for r in FACTORS
    }
    answers = {"prompt": PROMPTS, "completion": [answer(clips) for clips in CLIPS]}
    examples = Dataset.from_dict(answers)
    schedule = tp.data.ProgressivePreferenceSchedule(
        pairs, FACTORS, sft=examples, batch_size=8, peak_lr=0.01, sft_lr=0.01, **options
    )

    def make_trainer(stage: tp.trl.PreferenceStage):
        settings = {
            "output_dir": stage.folder,
            "num_train_epochs": stage.epochs,
            "per_device_train_batch_size": stage.batch_size,
            "lr_scheduler_type": "constant",  # the schedule drives the learning rate
            "save_steps": 1,
            "logging_steps": 1,
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "disable_tqdm": True,
        }
        common = {
            "processing_class": tokenizer(),
            "callbacks": list(callbacks),
            "peft_config": LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"),
        }
        if stage.factor is None:
            return SFTTrainer(stage.model, SFTConfig(**settings), train_dataset=examples, **common)
        return DPOTrainer(
            stage.model,
            stage.reference,
            DPOConfig(beta=0.1, **settings),
            train_dataset=pairs[stage.factor].select_columns(["prompt", "chosen", "rejected"]),
            **common,
        )

    return tp.trl.train_stages(schedule, model(), make_trainer, folder)


if __name__ == "__main__":
    train(Path("preferences-run"))  # the same again after an interruption
