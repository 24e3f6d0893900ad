"""Environment variables of jobs and Slurm's commands, without those settings of the user that would change results.

Settings of where to compute stay, such as CUDA_VISIBLE_DEVICES and SBATCH_ACCOUNT.
"""

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

REMOVED = re.compile(
    "|".join(
        [
            # Lightning reads arguments of its Trainer and seeds from these.
            r"PL_(TRAINER_.*|GLOBAL_SEED|SEED_WORKERS)",
            # Set by a launcher around the user's shell; a job would act as one of its processes.
            r"RANK|LOCAL_RANK|NODE_RANK|GROUP_RANK|ROLE_RANK|JSM_NAMESPACE_RANK|(\w+_)?WORLD_SIZE|MASTER_ADDR|MASTER_PORT",
            r"TORCHELASTIC_.*",
            # Set in containers of NVIDIA: matrix products on a GPU would have ten bits of precision.
            r"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
            # Style of the user's own figures.
            r"MATPLOTLIBRC",
            # For debugging other programs: warnings become errors, docstrings are removed, a prompt waits at the end.
            # And the text encoding, which is UTF-8 for every job.
            r"PYTHON(WARNINGS|OPTIMIZE|INSPECT|IOENCODING|COERCECLOCALE)",
            # Set in a git hook; the commit in a run's provenance would be of another repository.
            r"GIT_(DIR|WORK_TREE|INDEX_FILE)",
            # Output of Slurm's commands, which Snakemake and this package parse: columns, jobs, time format. And
            # whether `scancel` asks for confirmation.
            r"(SQUEUE|SACCT|SINFO|SCANCEL)_.*|SLURM_TIME_FORMAT",
            # Snakemake waits by itself, and the jobs of an array would all write the same files.
            r"SBATCH_(WAIT|ARRAY_INX)",
        ]
    )
)
# Jobs have no display, and a GUI library may be missing. Text is UTF-8, even if the locale does not exist.
OVERRIDES = {"MPLBACKEND": "agg", "PYTHONUTF8": "1"}


def sanitize_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a job, given those of the user."""
    safe = {name: value for name, value in variables.items() if not REMOVED.fullmatch(name)}
    return {**safe, **OVERRIDES, **_cache_variables(safe), **_user_variables(safe)}


def sanitize_environment() -> None:
    """Sanitize the environment of this process and its children. Call it before importing libraries that read it."""
    variables = sanitize_variables(os.environ)
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _cache_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables that move the caches of libraries to the working directory if the home is not writable."""
    caches = Path.cwd() / ".snakemake" / "caches"
    local = {"XDG_CACHE_HOME": str(caches), "MPLCONFIGDIR": str(caches / "matplotlib")}
    try:
        home = Path.home()
    except RuntimeError:  # the user has none
        return {**local, "HOME": str(caches)}
    cache = Path(variables.get("XDG_CACHE_HOME") or home / ".cache")
    config = Path(variables.get("MPLCONFIGDIR") or variables.get("XDG_CONFIG_HOME") or home / ".config")
    # HOME itself stays, because packages may be installed there.
    return {} if _is_writable(cache) and _is_writable(config) else local


def _is_writable(folder: Path) -> bool:
    """Return whether files can be created in a folder, which may not exist yet."""
    existing = next((path for path in (folder, *folder.parents) if os.access(path, os.F_OK)), folder)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _user_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return a variable that names a user without a name, as in a container; Snakemake and torch require one."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not any(variables.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            return {"USER": str(os.getuid())}
    return {}
