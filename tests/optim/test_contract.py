"""PyTorch's own optimizers keep the contract, so that failing it means something."""

import torch

from optim.optimizer_contract import OptimizerContract
from optim.training import Subject


class TestAdamW(OptimizerContract):
    subject = Subject(
        make=lambda model, **options: torch.optim.AdamW(model.parameters(), lr=0.01, **options),
        knobs={"betas": (0.9, 0.95), "weight_decay": 0.1},
        trainer=lambda model: (torch.optim.AdamW, {"lr": 0.01}),
    )

    def test_sparse_gradients_work_or_are_refused(self):
        """PyTorch refuses them too, with an error of its own."""
