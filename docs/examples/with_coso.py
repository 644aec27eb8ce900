"""Learn two tasks with a vision transformer and Transformers' Trainer, each with its own head."""

from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import trainplan as tp
from trainplan.optim import CoSOAdamW, split_params

STEPS = 12
plan = tp.Plan(horizon=STEPS, lr=tp.schedules.cosine(0.01))  # begins anew with each task


def pretrained() -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=4,
    )
    return ViTForImageClassification(config)


def data(task: int) -> list[dict[str, torch.Tensor]]:
    """Images, and which quarter is the brightest (task 0) or the darkest (task 1)."""
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(task))
    quarters = images.unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean((3, 5)).flatten(1)
    labels = quarters.argmax(1) if task == 0 else quarters.argmin(1)
    return [{"pixel_values": x, "labels": y} for x, y in zip(images, labels, strict=True)]


def learn(folder: Path) -> tuple[CoSOAdamW, float]:
    """Both tasks; the optimizer, and how far the second has moved along taken directions."""
    model = pretrained()
    adapted = split_params(model, targets="attention.o_proj")[0]  # as the authors do
    model.requires_grad_(False)
    for p in adapted["params"]:
        p.requires_grad_(True)
    optimizer = CoSOAdamW([adapted], lr=0.01, rank=4, sketch_rank=10, threshold=0.98)
    heads, moved = [], 0.0
    for task in range(2):
        heads.append(torch.nn.Linear(16, 4))
        model.classifier = heads[task]
        optimizer.add_param_group({"params": list(heads[task].parameters()), "rank": None})
        taken = [(p, p.detach().clone(), optimizer.historical(p)) for p in adapted["params"]]
        arguments = TrainingArguments(
            str(folder / str(task)),
            max_steps=STEPS,
            lr_scheduler_type="constant",  # the plan drives the learning rate
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        Trainer(
            model,
            arguments,
            train_dataset=data(task),
            optimizers=(optimizer, None),
            callbacks=[tp.transformers.PlanCallback(plan)],
        ).train()
        optimizer.end_task()
        for p, before, past in taken:
            if past.basis is not None:
                moved = max(moved, (past.basis.T @ (p - before)).abs().max().item())
    return optimizer, moved


if __name__ == "__main__":
    print(learn(Path("coso-run")))
