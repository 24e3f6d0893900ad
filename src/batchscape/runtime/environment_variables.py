"""The environment variables of jobs and Slurm's commands, without the user's settings that would change what they do.

What says where to compute stays: CUDA_VISIBLE_DEVICES, and accounts and partitions (SBATCH_ACCOUNT).
"""

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

DROPPED = re.compile(
    "|".join(
        [
            # Lightning takes these as arguments of its Trainer and as seeds.
            r"PL_(TRAINER_.*|GLOBAL_SEED|SEED_WORKERS)",
            # A launcher around the user's shell left them; a job would take itself for one of its processes.
            r"RANK|LOCAL_RANK|NODE_RANK|GROUP_RANK|ROLE_RANK|JSM_NAMESPACE_RANK|(\w+_)?WORLD_SIZE|MASTER_ADDR|MASTER_PORT",
            r"TORCHELASTIC_.*",
            # Containers of NVIDIA set it: matrix products on a GPU would have ten bits of precision.
            r"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
            # The style of the user's own figures.
            r"MATPLOTLIBRC",
            # How the user debugs other programs: warnings become errors, docstrings go, a prompt waits at the end. And
            # the encoding of text, which is UTF-8 wherever the job runs.
            r"PYTHON(WARNINGS|OPTIMIZE|INSPECT|IOENCODING|COERCECLOCALE)",
            # A git hook sets them, and the commit in a run's provenance would be that of another repository.
            r"GIT_(DIR|WORK_TREE|INDEX_FILE)",
            # How Slurm's commands answer, which is read here and by Snakemake: other columns, other jobs, other times,
            # and whether `scancel` asks.
            r"(SQUEUE|SACCT|SINFO|SCANCEL)_.*|SLURM_TIME_FORMAT",
            # Snakemake waits by itself, and several jobs of an array would write the same files.
            r"SBATCH_(WAIT|ARRAY_INX)",
        ]
    )
)
# No job has a screen, and a GUI library may be missing. All text is UTF-8, also where the locale is none that there is.
SET = {"MPLBACKEND": "agg", "PYTHONUTF8": "1"}


def sanitize_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables for a job, given those of the user."""
    kept = {name: value for name, value in variables.items() if not DROPPED.fullmatch(name)}
    return {**kept, **SET, **_without_home(kept), **_without_name(kept)}


def sanitize_environment() -> None:
    """Clean those of this process, which what it starts inherits. Call it before the libraries that read them."""
    variables = sanitize_variables(os.environ)
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _without_home(variables: Mapping[str, str]) -> dict[str, str]:
    """Return where libraries keep their caches if that cannot be the user's home: in the folder of the workflow."""
    caches = Path.cwd() / ".snakemake" / "caches"
    elsewhere = {"XDG_CACHE_HOME": str(caches), "MPLCONFIGDIR": str(caches / "matplotlib")}
    try:
        home = Path.home()
    except RuntimeError:  # a user without one
        return {**elsewhere, "HOME": str(caches)}
    cache = Path(variables.get("XDG_CACHE_HOME") or home / ".cache")
    config = Path(variables.get("MPLCONFIGDIR") or variables.get("XDG_CONFIG_HOME") or home / ".config")
    # HOME itself stays, for packages of the user's may be installed there.
    return {} if _can_be_written(cache) and _can_be_written(config) else elsewhere


def _can_be_written(folder: Path) -> bool:
    """Say whether files can be made in a folder, which may have to be made itself."""
    there = next((path for path in (folder, *folder.parents) if os.access(path, os.F_OK)), folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _without_name(variables: Mapping[str, str]) -> dict[str, str]:
    """Return a name for a user who has only a number, as in a container: Snakemake and torch ask for one."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not any(variables.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            return {"USER": str(os.getuid())}
    return {}
