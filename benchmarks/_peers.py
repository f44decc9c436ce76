"""Engines beside Octavo, each run in an environment and a process of its own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def peak_memory() -> float:
    """MB that this process has had in memory at most, mapped files included."""
    return int(_line("/proc/self/status", "VmHWM").split()[0]) / 1024


def environment(*packages: str) -> dict[str, Any]:
    """The machine, and the versions that were measured."""
    commit = subprocess.run(["git", "-C", Path(__file__).parent, "rev-parse", "HEAD"], capture_output=True, text=True)
    return {
        "machine": {
            "processor": _line("/proc/cpuinfo", "model name"),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "commit": commit.stdout.strip(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _line(path: str, name: str) -> str:
    """What a file of `name: value` lines says."""
    lines = Path(path).read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(name))
