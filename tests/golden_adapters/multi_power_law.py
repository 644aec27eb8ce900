"""The multi-power law: loss, gradient and objective."""

import numpy as np

from trainplan.laws.fitting import huber
from trainplan.laws.multi_power import MultiPower
from trainplan.laws.views import view_of

ORDER = ("L0", "A", "alpha", "B", "C", "beta", "gamma")


def published_schedule(text):
    """The schedules that the cases describe in words."""
    last = int(text.split("to i =")[-1].strip(" ."))
    i = np.arange(last + 1)
    lr = np.full(last + 1, 3e-4)
    lr[:2160] = np.linspace(0, 3e-4, 2160)
    if "cos" in text:
        total = int(text.split("(i-2160)/(")[1].split("-2160")[0])
        lr[2160:] = 3e-5 + 0.5 * (3e-4 - 3e-5) * (
            1 + np.cos(np.pi * (i[2160:] - 2160) / (total - 2160))
        )
    else:
        start = int(text.split("3e-4 to i =")[1].split(",")[0]) + 1
        lr[start:] = float(text.split("then")[-1].split("to")[0])
    return lr


def _view(inputs, at):
    lr = np.array(inputs["lr"]) if "lr" in inputs else published_schedule(inputs["schedule"])
    return view_of(lr, np.array(at), inputs["skip_first"])


def _law(inputs):
    return MultiPower(**inputs["params"])


def curve(inputs):
    view = _view(inputs, inputs["report_at"])
    law = _law(inputs)
    loss = law.on(view)
    without = MultiPower(**{**inputs["params"], "B": 0.0}).on(view)
    unit = MultiPower(**{**inputs["params"], "L0": 0.0, "A": 0.0, "B": 1.0}).on(view)
    np.testing.assert_allclose(loss, without + inputs["params"]["B"] * unit, rtol=1e-12)
    return {"S": view.area, "R": -unit, "loss": loss}


def gradient(inputs):
    slopes = _law(inputs).slopes(_view(inputs, inputs["report_at"]))[1]
    assert list(_law(inputs).units) == list(ORDER)
    return {"gradient": slopes}


def objective(inputs):
    loss = _law(inputs).on(_view(inputs, inputs["step"]))
    return {"objective": huber(np.log(inputs["observed"]) - np.log(loss), inputs["delta"])}


ADAPTERS = {
    "arrays from 0; S[t]=sum lr[0..t]": curve,
    "d loss[t]/d parameter": gradient,
    "sum_j huber_delta": objective,
}
