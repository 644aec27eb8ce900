"""Where a result was obtained: versions, processor, threads, date."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from trainplan._version import __version__

_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn")


def environment(jobs: int) -> dict[str, Any]:
    """Describe this machine and process as plain data.

    Args:
        jobs: Number of worker processes, each of which uses one thread.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "trainplan": __version__,
        "python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": available_cores(),
        "workers": jobs,
        "threads per worker": 1,
    }


def decides_numbers(description: dict[str, Any]) -> dict[str, Any]:
    """The part of an environment that the bits of a result may depend on."""
    return {k: description.get(k) for k in ("python", "torch", "numpy", "system", "cpu")}


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
