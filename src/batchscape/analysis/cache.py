"""Cached results of an analysis, so that a rerun computes only what has changed."""

import glob
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from batchscape.io.frames import read_frame, write_frame
from batchscape.io.run_directory import RunDirectory


def cached(
    output: Path, key: Sequence[str], runs: Sequence[RunDirectory], analyze: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """Return the rows of `analyze` for a run or a pair of runs, from the cache if `key` and the runs are the same.

    The cache is the folder `.cache` beside `output`. An entry is valid until the key changes or a run is trained again.
    """
    name = "--".join(run.path.name for run in runs)
    digest = hashlib.sha256("\0".join(key).encode())
    for run in runs:
        digest.update(run.run_file.read_bytes())
    file = output.parent / ".cache" / f"{name}-{digest.hexdigest()[:16]}.csv"
    if not file.exists():
        write_frame(file, analyze())
        for outdated in set(file.parent.glob(f"{glob.escape(name)}-{'?' * 16}.csv")) - {file}:
            outdated.unlink(missing_ok=True)
    # Read even if just written, so that the rows do not depend on whether they came from the cache.
    return read_frame(file)
