"""The loss, tables of positions, frames of a video, and the space-time block."""

import torch

from trainplan.data.frames import FrameSampler, segments
from trainplan.data.temporal_tables import expand_temporal_embedding
from trainplan.models import SpaceTimeBlock, cosine_similarities, retrieval_loss
from trainplan.models.space_time import total_positions


def double(values):
    return torch.tensor(values, dtype=torch.double)


def loss(inputs):
    # The reference read similarities in single precision, and went on in double.
    similarities = torch.tensor(inputs["sim"]).double()
    return {"loss": retrieval_loss(similarities, inputs["temperature"]).item()}


def table(inputs):
    loaded = double(inputs["loaded"])
    return {"table": expand_temporal_embedding(loaded, inputs["new_num_frames"], inputs["mode"])}


def middle(inputs):
    found = FrameSampler(random=False)([inputs["video_length"]], inputs["num_frames"])[0]
    return {"indices": found[found >= 0]}


def possible(inputs):
    parts = segments(inputs["video_length"], inputs["num_frames"])
    return {"possible": [list(range(first, last)) for first, last in zip(*parts, strict=True)]}


def block(inputs):
    ratio = inputs["mlp_ratio"]
    model = SpaceTimeBlock(inputs["dim"], inputs["heads"], ratio, time_init="random").double()
    model.load_state_dict({name: double(value) for name, value in inputs["state"].items()})
    with torch.no_grad():
        return {"y": model(double(inputs["x"]), inputs["frames"])}


ADAPTERS = {
    "symmetric normalised-softmax": loss,
    "cosine similarity": lambda inputs: {
        "sim": cosine_similarities(double(inputs["a"]), double(inputs["b"]))
    },
    "temporal position table": table,
    "deterministic (uniform)": middle,
    "training (random)": possible,
    "total positional": lambda inputs: {
        "total": total_positions(
            double(inputs["pos"]), double(inputs["temporal"]), inputs["current_frames"]
        )
    },
    "divided space-time block": block,
}
