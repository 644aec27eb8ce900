"""Train with Accelerate under a plan, on any number of processes, and resume."""

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader, TensorDataset

import trainplan as tp

plan = tp.Plan(
    horizon=12,
    lr=tp.schedules.wsd(peak=0.05, warmup="25%", decay="25%"),
    weight_decay=tp.schedules.linear(0.1, end=0.01),
)


def examples(n: int = 96):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x.sum(dim=1, keepdim=True))


def fit(folder: Path, steps: int, plan: tp.Plan = plan, resume=None, accumulate=1, split=False):
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=split),
    )
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    # On n processes a batch is four for each of them, or four for all of them if it is split.
    loader = DataLoader(examples(), batch_size=4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    run = tp.accelerate.attach(plan, optimizer, accelerator)  # no scheduler, and no step() of it
    if resume:
        accelerator.load_state(str(resume))
    done, rates = run.clock.steps, []
    while done < steps:
        batches = accelerator.skip_first_batches(loader, done * accumulate % len(loader))
        for x, y in batches:
            with accelerator.accumulate(model):
                loss = torch.nn.functional.mse_loss(model(x), y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if run.clock.steps > done:
                done = run.clock.steps
                rates.append(run.values["lr"])
                run.observe(loss=loss.item())  # on every process: controllers hear the mean
                accelerator.save_state(str(folder / f"step-{done}"))
                accelerator.wait_for_everyone()
            if done == steps:
                break
    return accelerator.unwrap_model(model), run, rates


if __name__ == "__main__":
    folder = Path("accelerate-run")
    fit(folder, steps=7)  # interrupted
    fit(folder, steps=12, resume=folder / "step-7")
