"""Record gradient norms in a loop that clips, and refine the plan with them."""

from pathlib import Path

import torch

import trainplan as tp
from trainplan.integrations.gradnorms import GradNormRecorder

STEPS = 200


def train(plan: tp.Plan, file: Path | None = None) -> float:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    run = tp.torch.attach(plan, optimizer)
    recorder = GradNormRecorder(model).attach(optimizer)  # scaler=scaler, if there is one
    for step in range(STEPS):
        data = torch.Generator().manual_seed(step)
        x = torch.randn(16, 8, generator=data)
        noise = step / STEPS * torch.randn(16, 1, generator=data)  # more of it at the end
        loss = (model(x) - torch.sin(x.sum(1, keepdim=True)) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)  # is not seen by the recorder
        optimizer.step()
    if file is not None:
        recorder.save(file)
    run.detach()
    return loss.item()


if __name__ == "__main__":
    plan = tp.Plan(horizon=STEPS, name="first", lr=tp.schedules.linear(0.01, warmup="5%"))
    plan.save("first.yaml")
    train(plan, Path("grad_norms.csv"))
    print("now: trainplan refine grad_norms.csv --plan first.yaml")
