"""How much of the data is open at each time; written down beside the other schedules."""

from __future__ import annotations

from trainplan.schedules.pacings import PACINGS, fraction, pacing
from trainplan.schedules.round_sizes import cyclic_counts, cyclic_sizes, ramp_sizes

__all__ = ["PACINGS", "cyclic_counts", "cyclic_sizes", "fraction", "pacing", "ramp_sizes"]
