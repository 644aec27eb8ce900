"""Have a small T5 write a number as tokens, and wean it off the true ones; resume to the bit."""

from pathlib import Path

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration, Trainer, TrainingArguments

import trainplan as tp
from trainplan.data import QuantileVocabulary, TwoPassSampling, teacher_forcing
from trainplan.models import amount_loss, written_amounts

plan = tp.Plan(
    horizon=12,
    lr=tp.schedules.cosine(3e-3),
    ratio=teacher_forcing(),  # of true tokens: 5 % when 80 % of the run are over
)
random = np.random.default_rng(0)
features = random.integers(10, size=(48, 3))
seconds = np.exp(features.mean(1) / 3 + 0.3 * random.standard_normal(48))
vocabulary = QuantileVocabulary.fit(seconds, unit=0.1)  # of training values alone
# One table holds the amounts and, after them, the features, which are worth nothing.
values = torch.from_numpy(np.pad(vocabulary.values, (0, 10))).float()


def examples() -> list[dict[str, object]]:
    rows = zip(features + len(vocabulary), vocabulary.encode(seconds), seconds, strict=True)
    return [{"input_ids": x, "answer": ids, "seconds": y} for x, ids, y in rows]


class NumberTrainer(Trainer):
    """Two passes of the decoder; the encoder runs once."""

    sampling = TwoPassSampling(plan["ratio"])

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        encoded = model.get_encoder()(inputs["input_ids"])

        def decode(read):
            return model(encoder_outputs=encoded, decoder_inputs_embeds=read).logits

        ids, table = inputs["answer"], model.get_input_embeddings().weight
        logits = self.sampling(decode, ids[:, :-1], table, self.state.global_step)
        return amount_loss(logits, ids[:, 1:], inputs["seconds"], values).total / len(ids)


def fit(folder: Path, resume: Path | None = None, **options) -> NumberTrainer:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=len(values), **sizes, decoder_start_token_id=1, eos_token_id=2)
    trainer = NumberTrainer(
        T5ForConditionalGeneration(config),
        TrainingArguments(
            str(folder),
            max_steps=plan.horizon,
            per_device_train_batch_size=8,
            save_steps=7,
            lr_scheduler_type="constant",  # the plan drives the rate
            remove_unused_columns=False,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            **options,
        ),
        train_dataset=examples(),
        callbacks=[tp.transformers.PlanCallback(plan)],
    )
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer


def write(model, rows) -> torch.Tensor:
    """What the model writes on its own, in seconds."""
    encoded = model.eval().get_encoder()(torch.from_numpy(rows + len(vocabulary)))

    def decode(read):
        return model(encoder_outputs=encoded, decoder_inputs_embeds=read).logits

    return written_amounts(decode, model.get_input_embeddings().weight, len(rows), values)


if __name__ == "__main__":
    print(write(fit(Path("numbers-run")).model, features[:5]))
