"""Labels, lengths, the leaky network, the curricula, the loss, and timescales."""

import torch

from trainplan.data import HorizonCurriculum
from trainplan.data.memory_tasks import delayed_match, length_range, parity
from trainplan.models import LeakyRNN, autocovariance, fit_timescale, summed_loss


def labels(inputs):
    bits = torch.tensor(inputs["sequences"]).T.numpy()
    return {
        "parity": [parity(bits, n).tolist() for n in inputs["Ns"]],
        "dms": [delayed_match(bits, n).tolist() for n in inputs["Ns"]],
    }


def lengths(inputs):
    low, high = zip(*map(length_range, inputs["N_max"]), strict=True)
    return {"low": list(low), "high_exclusive": list(high)}


def network(leak):
    def forward(inputs, case=""):
        units, heads = len(inputs["tau"]), list(range(len(inputs["readout_w"])))
        outside = leak == "outside" or "outside" in case
        x = torch.tensor(inputs["x_time_batch_feature"]).double()
        model = LeakyRNN(
            x.shape[2],
            units,
            heads,
            classes=len(inputs["readout_b"][0]),
            leak="outside" if outside else "inside",
            rescale=inputs.get("k", 1),
        ).double()
        values = {
            "tau": inputs["tau"],
            "input.weight": inputs["w_in"],
            "input.bias": inputs["b_in"],
            "recurrent.weight": inputs["w_rec"],
            "recurrent.bias": inputs["b_rec"],
        }
        for k in heads:
            values[f"readouts.{k}.weight"] = inputs["readout_w"][k]
            values[f"readouts.{k}.bias"] = inputs["readout_b"][k]
        model.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
        start = torch.tensor(inputs["h0"]).double()
        with torch.no_grad():
            logits = model(x, heads, start)
            return {
                "states": model.states(x, start),
                "logits": [logits[k].tolist() for k in heads],
            }

    return forward


def curriculum(inputs):
    options = {name: inputs[name] for name in ("add", "forget") if name in inputs}
    found = HorizonCurriculum(inputs["kind"], inputs["start"], threshold=98, **options)
    active = [list(found.active)]
    for row in inputs["accuracy_per_epoch"]:
        found.update(dict(zip(found.active, row, strict=False)))
        active.append(list(found.active))
    return {"Ns_after_each_epoch": active}


def loss(inputs):
    logits = dict(enumerate(torch.tensor(inputs["logits_head_batch_class"]).double()))
    answers = dict(enumerate(torch.tensor(inputs["labels_head_batch"])))
    each = [summed_loss({k: logits[k]}, answers).item() for k in logits]
    return {"per_head": each, "total": summed_loss(logits, answers).item()}


def timescale(inputs):
    fit = fit_timescale(inputs["ac"], inputs["lags"])
    return {"selected_model": fit.exponentials, "tau_net": fit.tau}


ADAPTERS = {
    "N-parity label": labels,
    "sequence length drawn": lengths,
    "leaky RNN forward": network("inside"),
    "leak_outside with tau": network("outside"),
    "set of N trained": curriculum,
    "same, ": curriculum,
    "training loss": loss,
    "mean-removed autocovariance": lambda inputs: {
        "ac": autocovariance(inputs["trials"], inputs.get("max_lag", 30))
    },
    "fit ac/ac[0]": timescale,
}
