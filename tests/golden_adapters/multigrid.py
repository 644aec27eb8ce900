"""Multigrid schedules, rates, batches and sub-batch normalisation."""

import torch

from trainplan.data import MultigridSchedule, ShortCycleBatchSampler, short_cycle_sizes
from trainplan.models import SubBatchNorm3d


def schedule(inputs):
    return MultigridSchedule.from_step_schedule(
        inputs["lr_steps"],
        inputs["max_epoch"],
        crop=inputs["crop_size"],
        frames=inputs["num_frames"],
        gamma=inputs["gamma"],
        epoch_factor=inputs["epoch_factor"],
        long_cycle=inputs["long_cycle"],
        short_cycle=inputs["short_cycle"],
        long_factors=inputs["long_cycle_factors"],
        short_factors=inputs["short_cycle_factors"],
    )


def described(inputs):
    grid = schedule(inputs)
    phases = [
        {
            "lr_step_index": phase.stage,
            "batch_factor": phase.factor,
            "num_frames": phase.frames,
            "crop_size": phase.crop,
            "end_epoch": phase.end,
        }
        for phase in grid.phases
    ]
    return {
        "max_epoch": grid.epochs,
        "lr_steps": list(grid.boundaries),
        "relative_lrs": list(grid.relative_rates),
        "phases": phases,
    }


def rates(inputs):
    grid = schedule(inputs)
    options = {"warmup": inputs["warmup_epochs"], "start": inputs["warmup_start_lr"]}
    return {"lr": [grid.rate_at(e, inputs["base_lr"], **options) for e in inputs["epochs"]]}


KINDS = {"sub": "sub_batchnorm", "sync": "sync_batchnorm", "plain": "batchnorm"}


def states(inputs):
    grid = schedule(inputs)
    shape = (inputs["num_frames"], inputs["crop_size"])
    row = {
        "batch_size": inputs["batch_size"],
        "num_frames": shape[0],
        "crop_size": shape[1],
        "norm": "batchnorm",
        "bn_splits": None,
        "bn_sync_devices": None,
        "max_sampling_rate": inputs["sampling_rate"],
    }
    rows = []
    for epoch in inputs["epochs"]:
        phase = grid.at(epoch)
        changed = (phase.frames, phase.crop) != shape
        if changed:
            shape = (phase.frames, phase.crop)
            normal = grid.normalisation(
                phase, inputs["batch_size"], inputs["num_devices"], inputs["bn_base_size"]
            )
            row = {
                "batch_size": phase.factor * inputs["batch_size"],
                "num_frames": phase.frames,
                "crop_size": phase.crop,
                "norm": KINDS[normal.kind],
                "bn_splits": normal.splits if normal.kind == "sub" else None,
                "bn_sync_devices": normal.devices if normal.kind == "sync" else None,
                "max_sampling_rate": grid.largest_stride(phase, inputs["sampling_rate"]),
            }
        rows.append({"epoch": epoch, "changed": changed, **row})
    return {"rows": rows}


def batches(inputs):
    sizes = short_cycle_sizes(
        inputs["base_batch"],
        inputs["long_cycle_crop"],
        inputs["default_crop"],
        inputs["short_cycle_factors"],
    )
    sampler = ShortCycleBatchSampler(
        range(inputs["n_examples"]), sizes, drop_last=inputs["drop_last"]
    )
    found = list(sampler)
    return {
        "three_batch_sizes": [size for size, _ in sizes],
        "batch_lengths": [len(batch) for batch in found],
        "cycle_index": [k % len(sizes) for k in range(len(found))],
        "crop": [batch[0][1] for batch in found],
        "first_example": [batch[0][0] for batch in found],
        "reported_len": len(sampler),
    }


def normalisation(inputs):
    x = torch.tensor(inputs["x"], dtype=torch.float64)
    layer = SubBatchNorm3d(x.shape[1], inputs["num_splits"]).double()
    trained = layer.train()(x)
    evaluated = layer.eval()(x)
    return {
        "train_out": trained.tolist(),
        "agg_mean": layer.running_mean.tolist(),
        "agg_var": layer.running_var.tolist(),
        "eval_out": evaluated.tolist(),
    }


ADAPTERS = {
    "multigrid long/short cycle schedule": described,
    "learning rate at (fractional) epochs": rates,
    "long-cycle state visited": states,
    "short-cycle batch sampler": batches,
    "sub-batch normalisation": normalisation,
    "epochs (0-based) after which evaluation": lambda inputs: {
        "eval_epochs": schedule(inputs).evaluations
    },
}
