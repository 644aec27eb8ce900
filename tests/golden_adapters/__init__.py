"""One module per paper: its functions, in words, as calls of the library."""

LATER: dict[str, tuple[str, ...]] = {
    "chinese-modernbert": ("visit words in the given order",),
    "continual-pretraining": (
        "tokens of new and of replayed data",
        "number of replayed examples",
    ),
    "lr-decay-wastes-data": (
        "average of the last N checkpoints",
        "data order from quality scores",
    ),
    "minicpm-wsd": (
        "loss C_N N^-alpha",
        "optimal batch size in tokens",
        "total training steps for m stable lengths",
    ),
    "octothinker-stable-decay": (
        "tokens trained for nb branches",
        "tokens drawn from each source",
    ),
    "power-scheduler": (
        "optimal WSD stable learning rate",
        "least-squares fit in log-log space",
    ),
    "sharpdarts-cosine-power": ("Max-W mixing",),
}
"""Functions whose rooms are not built yet: what their descriptions begin with, by paper."""
