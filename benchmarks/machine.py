"""Where and with what a run was made: no figure is worth anything without it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata

import psutil

PACKAGES = ("enginery", "pyzmq", "msgspec", "cloudpickle", "numpy")


def describe_machine(packages: Iterable[str] = ()) -> dict[str, str | float | int]:
    """Processor, memory, system, load and versions."""
    facts: dict[str, str | float | int] = {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_at_start": round(psutil.getloadavg()[0], 2),
    }
    for package in dict.fromkeys([*PACKAGES, *filter(None, packages)]):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


def processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except FileNotFoundError:
        pass
    return platform.processor() or platform.machine()
