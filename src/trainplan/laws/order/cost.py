"""What an estimate will need, before it starts: disk, memory, and gradients to compute."""

from __future__ import annotations

from dataclasses import dataclass

from trainplan.errors import PlanError, nearest
from trainplan.laws.order.projection import projection_error
from trainplan.schedules.values import count

CURVATURES = ("hvp", "secant", "fisher")


@dataclass(frozen=True)
class OrderCost:
    """Bytes and gradient evaluations.

    Attributes:
        run_bytes: The recorded run on disk.
        table_bytes: The table of gradients on disk; 0 without one.
        working_bytes: Vectors in memory during an estimate; the model, its activations and the
            points of the run that are cached come on top.
        table_gradients: Gradients computed once, for the table.
        estimate_gradients: What one estimate costs, in gradients, at most.
        retraining_gradients: What retraining in one order costs.
        reconstruction_error: Relative error of a gradient read from the table; 0 unless projected.
    """

    run_bytes: int
    table_bytes: int
    working_bytes: int
    table_gradients: int
    estimate_gradients: int
    retraining_gradients: int
    reconstruction_error: float

    @property
    def pays_from(self) -> float:
        """From how many orders on the estimates are cheaper than retraining; infinite if never."""
        saved = self.retraining_gradients - self.estimate_gradients
        return self.table_gradients / saved if saved > 0 else float("inf")

    def __str__(self) -> str:
        lines = [
            f"recorded run    {readable(self.run_bytes)} on disk",
            f"gradient table  {readable(self.table_bytes)} on disk, "
            f"{self.table_gradients} gradients to compute",
            f"one estimate    {readable(self.working_bytes)} in memory beside the activations, "
            f"about {self.estimate_gradients} gradients (retraining: {self.retraining_gradients})",
        ]
        if self.reconstruction_error:
            lines.append(
                f"projection      a gradient read back is off by {self.reconstruction_error:.1f} "
                "times its own norm"
            )
        return "\n".join(lines)


def order_cost(
    parameters: int,
    steps: int,
    batches: int | None = None,
    *,
    curvature: str = "hvp",
    terms: int = 1,
    projection: int | None = None,
    value_bytes: int = 4,
    state_values: int = 2,
    keep_moments: bool = True,
) -> OrderCost:
    """What estimating orders needs; see `OrderCost`.

    Args:
        parameters: D, how many values are trained.
        steps: T, of the reference run.
        batches: How many there are; by default one per step.
        curvature: ``hvp``, ``fisher`` or ``secant``; only the last one has a table.
        terms: 0, 1 or 2.
        projection: k, how many numbers are stored of each gradient of the table.
        value_bytes: Of one value: 4 for float32.
        state_values: Of the optimizer for each parameter: 2 for Adam.
        keep_moments: Whether the run keeps that state of every step.

    Raises:
        PlanError: If a number is not positive or the curvature is unknown.

    A model of 200M parameters and 256 steps; the projection is to a 32nd:

    >>> print(order_cost(200_000_000, 256, curvature="secant", projection=6_250_000))
    recorded run    616.8 GB on disk
    gradient table  1.6 TB on disk, 65536 gradients to compute
    one estimate    10.4 GB in memory beside the activations, about 0 gradients (retraining: 256)
    projection      a gradient read back is off by 5.7 times its own norm
    """
    if curvature not in CURVATURES:
        remedy = nearest(curvature, CURVATURES)
        raise PlanError("unknown", place="curvature", value=curvature, remedy=remedy)
    size, total = count(parameters, "parameters"), count(steps, "steps")
    number = total if batches is None else count(batches, "batches")
    tabled = curvature == "secant"
    width = count(projection, "projection") if projection is not None else size
    vector = size * value_bytes
    kept = total + 1 if keep_moments else min(2, total + 1)
    # theta_0, theta_t, theta_t+1; the estimate, its displacement and gradient; the gradient of the
    # batch, its changes and their sum; for secants as many points and gradients more as there are
    # differences.
    vectors = 8 + terms + state_values + (2 * terms if tabled else 0)
    return OrderCost(
        run_bytes=vector * (total + 1 + state_values * kept),
        table_bytes=total * number * width * value_bytes if tabled else 0,
        working_bytes=vector * vectors,
        table_gradients=total * number if tabled else 0,
        estimate_gradients=0 if tabled else total * (1 + terms),
        retraining_gradients=total,
        reconstruction_error=projection_error(size, width) if projection is not None else 0.0,
    )


def readable(size: float) -> str:
    """Bytes in the unit that suits them.

    >>> readable(52_428_800)
    '52.4 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.1f} TB"
