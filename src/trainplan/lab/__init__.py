"""Train plans side by side, and say honestly what the difference is.

The lab holds workloads (what is trained), experiments (which arms, seeds and budgets), the runner
(processes, checkpoints, shared prefixes), statistics and reports. :func:`compare` does all of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainplan.lab.arms import default_arms
    from trainplan.lab.chars import CharModel
    from trainplan.lab.comparison import compare
    from trainplan.lab.conclusion import conclude
    from trainplan.lab.domains import CharText, char_text
    from trainplan.lab.experiment import Arm, Experiment, Tuning
    from trainplan.lab.few_shot import episodes, few_shot_accuracy
    from trainplan.lab.results import Comparison, Run, Summary
    from trainplan.lab.runner import Interrupted, LabError
    from trainplan.lab.statistics import (
        Interval,
        holm,
        mean_interval,
        paired_difference,
        paired_p_value,
        probability_of_improvement,
    )
    from trainplan.lab.store import RunDirectoryError
    from trainplan.lab.study import Claim, Study, Tuned
    from trainplan.lab.study_runner import run_study
    from trainplan.lab.workload import Task, Workload, WorkloadSpec

_HOME = {
    "Arm": "experiment",
    "CharModel": "chars",
    "CharText": "domains",
    "Claim": "study",
    "Comparison": "results",
    "Experiment": "experiment",
    "Interrupted": "runner",
    "Interval": "statistics",
    "LabError": "runner",
    "Run": "results",
    "RunDirectoryError": "store",
    "Study": "study",
    "Summary": "results",
    "Task": "workload",
    "Tuned": "study",
    "Tuning": "experiment",
    "Workload": "workload",
    "WorkloadSpec": "workload",
    "char_text": "domains",
    "compare": "comparison",
    "conclude": "conclusion",
    "default_arms": "arms",
    "episodes": "few_shot",
    "few_shot_accuracy": "few_shot",
    "holm": "statistics",
    "mean_interval": "statistics",
    "paired_difference": "statistics",
    "paired_p_value": "statistics",
    "probability_of_improvement": "statistics",
    "run_study": "study_runner",
}

__all__ = [
    "Arm",
    "CharModel",
    "CharText",
    "Claim",
    "Comparison",
    "Experiment",
    "Interrupted",
    "Interval",
    "LabError",
    "Run",
    "RunDirectoryError",
    "Study",
    "Summary",
    "Task",
    "Tuned",
    "Tuning",
    "Workload",
    "WorkloadSpec",
    "char_text",
    "compare",
    "conclude",
    "default_arms",
    "episodes",
    "few_shot_accuracy",
    "holm",
    "mean_interval",
    "paired_difference",
    "paired_p_value",
    "probability_of_improvement",
    "run_study",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trainplan.lab' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trainplan.lab.{_HOME[name]}"), name)
    globals()[name] = value
    return value
