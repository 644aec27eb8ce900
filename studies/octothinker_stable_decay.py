"""OctoThinker's stable-then-decay: branches on mixed data gain the target and keep the base?

Wang et al., 2025, arXiv 2506.20512, train at a constant rate, then decay on branches that share
the trunk and differ in their data. Prose stands for the base, Python code for the target. What the
paper is about, reinforcement learning afterwards, needs language models and is out of reach here.
"""

from trainplan import Plan, schedules
from trainplan.lab import CharModel, Claim, Study, char_text

PEAK, STABLE, DECAY = 2e-3, 2500, 300
DOMAINS = ("prose", "code")
BRANCHES = {
    "decay, no code": ("decay", 0.0),
    "decay, 10% code": ("decay", 0.1),
    "decay, 30% code": ("decay", 0.3),
    "decay, 60% code": ("decay", 0.6),
    "constant, 30% code": ("constant", 0.3),
}


def measure_all(seed: int, stable: int = STABLE) -> dict[str, dict[str, float]]:
    """Train the trunk and its branches; losses in nats per character."""
    lr = schedules.stable_then_decay(PEAK, stable, DECAY, end="2%")
    plan = Plan(horizon=stable + DECAY, lr=lr)
    constant = plan.replace(lr=schedules.constant(PEAK))
    model = CharModel(char_text(DOMAINS), seed)
    model.train(plan.curve("lr")[1][:stable], "prose")
    trunk = model.snapshot()
    found = {"trunk": model.losses()}
    for name, (rate, share) in BRANCHES.items():
        model.restore(trunk)
        chosen = plan if rate == "decay" else constant
        model.train(chosen, {"prose": 1 - share, "code": share})
        found[name] = model.losses()
    return found


STUDY = Study(
    paper="octothinker-stable-decay",
    claim="A short decay branch with a share of target data lowers the target loss clearly without "
    "raising the base loss, and keeps the base better than the same data at a constant rate",
    arms=["trunk", *BRANCHES],
    measure_all=measure_all,
    metric="code",
    claims=[
        Claim(
            text="30 % code in the decay lowers the loss on code by at least 0.2",
            name="target: decay with 30% code against without",
            arm="decay, 30% code",
            than="decay, no code",
            metric="code",
            margin=0.2,
            unit="nats/char",
        ),
        Claim(
            text="The loss on prose is not raised over that of the trunk",
            name="base: decay with 30% code against trunk",
            arm="decay, 30% code",
            than="trunk",
            metric="prose",
            margin=0.0,
            unit="nats/char",
        ),
        Claim(
            text="The same data at a constant rate leave a loss on prose higher by at least 0.02",
            name="base: 30% code, decay against constant",
            arm="decay, 30% code",
            than="constant, 30% code",
            metric="prose",
            margin=0.02,
            unit="nats/char",
        ),
        Claim(
            text="30 % code costs less than 0.01 on prose, against a decay on prose alone",
            name="base: decay with 30% code against without",
            arm="decay, 30% code",
            than="decay, no code",
            metric="prose",
            margin=-0.01,
            unit="nats/char",
            decides=False,
        ),
        Claim(
            text="On code itself the decay is better than the constant rate",
            name="target: 30% code, decay against constant",
            arm="decay, 30% code",
            than="constant, 30% code",
            metric="code",
            unit="nats/char",
            decides=False,
        ),
    ],
    seeds=range(16),
    looks=(4, 8, 16),
    budget="2500 steps of a character model, and 300 for each branch",
    data=lambda: char_text(DOMAINS).digest,
    quick={"stable": 400},
    shown=("prose", "code"),
    note="The share of the paper's result that comes from reinforcement learning is not tested. "
    "The alphabet holds only characters that are frequent in both domains.",
)
