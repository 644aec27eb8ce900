"""How much of the data is open at each time; written down beside the other schedules."""

from __future__ import annotations

from trainplan.schedules.pacings import PACINGS, fraction, pacing

__all__ = ["PACINGS", "fraction", "pacing"]
