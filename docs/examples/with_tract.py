"""Train a small vision transformer with TrAct in Transformers' Trainer, and resume it."""

from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import trainplan as tp
from trainplan.optim import drive_lambda, tract_layer

plan = tp.Plan(
    horizon=8,
    lr=tp.schedules.cosine(3e-3, warmup="25%"),
    tract_lambda=tp.schedules.linear(0.05, 0.2),
)


class Classifier(torch.nn.Module):
    """A vision transformer whose first layer moves its activations along their gradient."""

    def __init__(self):
        super().__init__()
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        shape = {"image_size": 8, "patch_size": 4, "num_channels": 1, "intermediate_size": 32}
        self.vit = ViTForImageClassification(ViTConfig(**sizes, **shape, num_labels=3))
        self.embeddings.projection = tract_layer(self.embeddings.projection, lambda_=0.05)

    @property
    def embeddings(self):
        return self.vit.vit.embeddings.patch_embeddings

    def forward(self, pixel_values, labels):
        return self.vit(pixel_values=pixel_values, labels=labels)


def fit(folder: Path, resume: Path | None = None):
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters())
    drive_lambda(model.embeddings.projection, optimizer)
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    trainer = Trainer(
        model,
        TrainingArguments(
            str(folder),
            max_steps=8,
            save_steps=4,
            lr_scheduler_type="constant",  # the plan drives the learning rate
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[{"pixel_values": x, "labels": i % 3} for i, x in enumerate(images)],
        optimizers=(optimizer, None),
        callbacks=[tp.transformers.PlanCallback(plan)],
    )
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer


if __name__ == "__main__":
    fit(Path("tract-run"))
