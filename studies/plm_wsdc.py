"""PLM's WSDC: what does a constant tail after the decay do?

Deng et al., 2025, arXiv 2503.12167, name the four phases but give no number for the schedule, so
the claim is ours: the model goes on improving on a tail at a tenth of the peak, and going back to
the peak throws the gain of the decay away. One trunk per seed; everything branches from it.
"""

from trainplan import Plan, schedules
from trainplan.lab import CharModel, Claim, Study, char_text

PEAK, WARMUP, STABLE, DECAY, TAIL = 2e-3, 100, 2400, 300, 500
TAILS = {"tail at 2%": 0.02, "tail at 10%": 0.1, "tail at 100%": 1.0}
MIXED = {"prose": 0.7, "code": 0.3}
DOMAINS = ("prose", "code")


def measure_all(seed: int, stable: int = STABLE) -> dict[str, dict[str, float]]:
    """Train a trunk, decay it, and train every tail from there; losses in nats per character."""
    lr = schedules.wsdc(PEAK, WARMUP, stable, DECAY, end="2%")
    trunk_end, decay_end = WARMUP + stable, WARMUP + stable + DECAY
    rates = Plan(horizon=decay_end, lr=lr).curve("lr")[1]
    longer = schedules.wsdc(PEAK, WARMUP, stable + TAIL, DECAY, end="2%")

    model = CharModel(char_text(DOMAINS), seed)
    model.train(rates[:trunk_end], "prose")
    trunk = model.snapshot()
    found = {"trunk": model.losses()}
    model.train(rates[trunk_end:], "prose")
    decayed = model.snapshot()
    found["decayed"] = model.losses()
    for name, level in TAILS.items():
        model.restore(decayed)
        model.train([level * PEAK] * TAIL, "prose")
        found[name] = model.losses()
    model.restore(decayed)
    model.train([0.1 * PEAK] * TAIL, MIXED)
    found["code in tail"] = model.losses()

    model.restore(trunk)
    model.train(Plan(horizon=decay_end + TAIL, lr=longer), "prose")
    found["longer stable"] = model.losses()

    model.restore(trunk)
    model.train([PEAK] * (DECAY + TAIL), "prose")
    found["never decayed"] = model.losses()

    model.restore(trunk)
    model.train(rates[trunk_end:], MIXED)
    mixed = model.snapshot()
    model.train([0.1 * PEAK] * TAIL, "prose")
    found["code in decay"] = model.losses()
    model.restore(mixed)
    model.train([0.1 * PEAK] * TAIL, MIXED)
    found["code in both"] = model.losses()
    return found


STUDY = Study(
    paper="plm-wsdc",
    claim="A constant tail at a tenth of the peak keeps lowering the loss of the decayed model, and"
    " going back to the peak throws the gain of the decay away",
    arms=[
        *("trunk", "decayed", *TAILS, "longer stable", "never decayed"),
        *("code in tail", "code in decay", "code in both"),
    ],
    measure_all=measure_all,
    metric="prose",
    claims=[
        Claim(
            text="500 steps on a tail at 10 % of the peak lower the loss by at least 0.005",
            arm="tail at 10%",
            than="decayed",
            metric="prose",
            margin=0.005,
            unit="nats/char",
        ),
        Claim(
            text="Back at the peak the model gains less than 0.02 from having been decayed",
            name="never decayed against tail at 100%",
            arm="never decayed",
            than="tail at 100%",
            metric="prose",
            margin=-0.02,
            unit="nats/char",
        ),
        Claim(
            text="A tail at 10 % of the peak ends lower than one at the peak, by at least 0.01",
            arm="tail at 10%",
            than="tail at 100%",
            metric="prose",
            margin=0.01,
            unit="nats/char",
            decides=False,
        ),
        Claim(
            text="At equal steps the tail at 10 % ends lower than a longer stable phase",
            arm="tail at 10%",
            than="longer stable",
            metric="prose",
            unit="nats/char",
            decides=False,
        ),
        Claim(
            text="At equal steps, code in the tail adapts to code better than code in the decay",
            arm="code in tail",
            than="code in decay",
            metric="code",
            unit="nats/char",
            decides=False,
        ),
    ],
    seeds=range(100, 116),
    looks=(4, 8, 16),
    budget="2500 steps of a character model, then 300 of decay and 500 of tail for each arm",
    data=lambda: char_text(DOMAINS).digest,
    quick={"stable": 400},
    shown=("prose", "code"),
    note="The decayed model and its tails differ in steps, as the claim means it; the comparison "
    "at equal steps is with the longer stable phase. The trunk's peak was chosen on other "
    "seeds.",
)
