"""The weights that another order of the same batches would have given, without training again.

    recorder = OrderRecorder("runs/reference", model, optimizer)   # before the reference run
    estimator = OrderEstimator("runs/reference", model, optimizer, loss_fn, batches)
    estimator.estimate(order).parameters                           # after another order

Needs ``trainplan[torch]``. Yang et al., 2025, "Estimating the Effects of Sample Training Orders for
Large Language Models without Retraining", arXiv 2505.22042.
"""

from __future__ import annotations

from trainplan._extras import require

require("torch", extra="torch")

from trainplan.laws.order.cost import OrderCost, order_cost  # noqa: E402
from trainplan.laws.order.estimator import OrderEstimator  # noqa: E402
from trainplan.laws.order.positions import move_batch, position_effects  # noqa: E402
from trainplan.laws.order.projection import (  # noqa: E402
    Projection,
    ProjectionWarning,
    projection_error,
)
from trainplan.laws.order.recording import OrderRecorder, OrderRun  # noqa: E402
from trainplan.laws.order.sampler import OrderedBatchSampler  # noqa: E402
from trainplan.laws.order.search import Found, genetic_search  # noqa: E402
from trainplan.laws.order.training import batch_noise, train_in_order  # noqa: E402
from trainplan.laws.order.walk import Estimate  # noqa: E402

__all__ = [
    "Estimate",
    "Found",
    "OrderCost",
    "OrderEstimator",
    "OrderRecorder",
    "OrderRun",
    "OrderedBatchSampler",
    "Projection",
    "ProjectionWarning",
    "batch_noise",
    "genetic_search",
    "move_batch",
    "order_cost",
    "position_effects",
    "projection_error",
    "train_in_order",
]
