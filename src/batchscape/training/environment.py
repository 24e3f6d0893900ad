"""The machine and the software that a run was trained on."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from batchscape.runtime.workflow import INSTALLED_WORKFLOW

PACKAGES = ("batchscape", "torch", "pytorch-lightning", "numpy")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return the machine, the device and the package versions, on which numbers may depend."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def source_commit() -> str | None:
    """Return the commit of the Git checkout of this library, with `-dirty` if it was edited; None outside one."""
    if INSTALLED_WORKFLOW.is_dir():  # the package may be installed below a repository that is not its own
        return None
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
