"""The functional scaling law: loss, gradient and objective."""

import numpy as np

from trainplan.laws.fitting import huber
from trainplan.laws.functional import Functional
from trainplan.laws.views import view_of

ORDER = ("L0", "c1", "s", "c2", "c3", "c4", "gamma")


def _view(inputs, at):
    return view_of(np.array(inputs["lr"]), np.array(at), inputs["skip_first"])


def curve(inputs):
    view = _view(inputs, inputs["report_at"])
    unit = Functional(**{**inputs["params"], "L0": 0.0, "c1": 0.0, "c2": 1.0}).on(view)
    return {"T": view.area, "R": -unit, "loss": Functional(**inputs["params"]).on(view)}


def gradient(inputs):
    law = Functional(**inputs["params"])
    assert list(law.units) == list(ORDER)
    return {"gradient": law.slopes(_view(inputs, inputs["report_at"]))[1]}


def objective(inputs):
    loss = Functional(**inputs["params"]).on(_view(inputs, inputs["step"]))
    return {"objective": huber(np.log(inputs["observed"]) - np.log(loss), inputs["delta"])}


ADAPTERS = {
    "arrays from 0; T[t]=sum lr[0..t]": curve,
    "d loss[t]/d parameter": gradient,
    "sum_j huber_delta": objective,
}
