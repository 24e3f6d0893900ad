"""Cached results of an analysis, so that a rerun computes only what has changed."""

import glob
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from batchscape.io.frames import read_frame, write_frame
from batchscape.io.run_directory import RunDirectory

# The folder beside the output of a job.
CACHE = ".cache"


def cached(
    output: Path, key: Sequence[str], runs: Sequence[RunDirectory], analyze: Callable[[], pd.DataFrame], part: str = ""
) -> pd.DataFrame:
    """Return the rows of `analyze` for a run or a pair of runs, from the cache if `key` and the runs are the same.

    The cache is the folder `.cache` beside `output`. An entry is valid until the key changes or a run is trained again.
    With `part`, a name, the rows are one of several parts of the analysis, each with an entry of its own.
    """
    file = cached_file(output, key, runs, lambda file: write_frame(file, analyze()), part)
    # Read even if just written, so that the rows do not depend on whether they came from the cache.
    return read_frame(file)


def cached_file(
    output: Path,
    key: Sequence[str],
    runs: Sequence[RunDirectory],
    write: Callable[[Path], None],
    part: str = "",
    suffix: str = ".csv",
) -> Path:
    """Return the file of a cache entry, see `cached`; `write` writes it if there is none that is valid.

    Entries of the same runs and part that are no longer valid are deleted.
    """
    name = "--".join([*(run.path.name for run in runs), *([part] if part else [])])
    digest = hashlib.sha256("\0".join(key).encode())
    for run in runs:
        digest.update(run.run_file.read_bytes())
    file = output.parent / CACHE / f"{name}-{digest.hexdigest()[:16]}{suffix}"
    if not file.exists():
        write(file)
        for outdated in set(file.parent.glob(f"{glob.escape(name)}-{'?' * 16}{suffix}")) - {file}:
            outdated.unlink(missing_ok=True)
    return file
