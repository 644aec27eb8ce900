"""AutoLRS: the released forecast, and the table of stages."""

from trainplan.schedules.forecast import released_forecast
from trainplan.schedules.stages import stage_table


def forecast(inputs):
    curve = released_forecast(inputs["losses"], training=inputs["is_training"])
    return {
        "a": curve.a,
        "b": curve.b,
        "c": curve.c,
        "forecast": [curve(x) for x in inputs["predict_at"]],
        "kept_x": list(curve.kept),
    }


def stages(inputs):
    table = stage_table(
        inputs["n_stages"],
        trial_steps=inputs["lr_steps0"],
        stage_steps=inputs["tau0"],
        longest_stage=inputs["tau_max"],
    )
    return {
        "stages": [
            {
                "stage": stage.index,
                "lr_steps": stage.trial_steps,
                "tau": stage.steps,
                "uses_validation": stage.validates,
                "val_every": stage.validate_every,
            }
            for stage in table
        ]
    }


ADAPTERS = {"loss forecast": forecast, "stage table": stages}
