"""Answers that a job keeps, so that one that is asked again asks only what is new."""

import glob
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from batchscape.io.frames import read_frame, write_frame
from batchscape.io.run_directory import RunDirectory


def kept(
    output: Path, question: Sequence[str], runs: Sequence[RunDirectory], analyze: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """Return the rows that `analyze` gives for a run or a pair of runs, or gave before to the very same `question`.

    They are kept in the folder `.kept` beside the output, to which they go, for as long as the runs are not trained
    again and nobody asks something else.
    """
    name = "--".join(run.path.name for run in runs)
    digest = hashlib.sha256("\0".join(question).encode())
    for run in runs:
        digest.update(run.run_file.read_bytes())
    file = output.parent / ".kept" / f"{name}-{digest.hexdigest()[:16]}.csv"
    if not file.exists():
        write_frame(file, analyze())
        for other in set(file.parent.glob(f"{glob.escape(name)}-{'?' * 16}.csv")) - {file}:
            other.unlink(missing_ok=True)
    # Also what was just written, so that rows are the same whether they were kept or not.
    return read_frame(file)
