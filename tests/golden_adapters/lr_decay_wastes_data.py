"""WSD with the square-root decay to a low or a moderate end."""

from trainplan import schedules as s


def wsd(inputs):
    schedule = s.wsd(
        inputs["peak_lr"],
        inputs["warmup"],
        inputs["T"] - inputs["t_decay"],
        "1-sqrt",
        inputs["end_lr"],
        decay_start=inputs["t_decay"],
    )
    return {"lr": schedule(inputs["t"])}


ADAPTERS = {"WSD with 1-sqrt decay": wsd}
