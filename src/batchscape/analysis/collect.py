"""The answers of an analysis for many runs, one below the other."""

import glob
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from batchscape.frames import read_frame, write_frame
from batchscape.training.run_directory import RunDirectory


def collect(directories: Iterable[Path], analyse: Callable[[RunDirectory], pd.DataFrame]) -> pd.DataFrame:
    """Return the rows that `analyse` gives for each run, led by what the run is and how it ended.

    The leading columns are run, setting (the run without its seed), batch_size, learning_rate, seed and status
    (converged, diverged or max_epochs).
    """
    frames = []
    for directory in directories:
        run = RunDirectory(directory)
        summary = run.summary()
        lead = {
            "run": directory.name,
            "setting": _setting_and_seed(directory)[0],
            **{key: summary["spec"][key] for key in ("batch_size", "learning_rate", "seed")},
            "status": summary["status"],
        }
        frames.append(_led_by(lead, analyse(run)))
    frame = pd.concat(frames, ignore_index=True)
    return frame.sort_values(["batch_size", "learning_rate", "setting", "seed"], kind="stable", ignore_index=True)


def collect_pair(
    first: Path, second: Path, analyse: Callable[[RunDirectory, RunDirectory], pd.DataFrame]
) -> pd.DataFrame:
    """Return the rows that `analyse` gives for two runs of one seed, led by what they are and how they ended.

    The leading columns are first and second (`bs32-lr0.01`), seed, and status: the worse of both.
    """
    runs = RunDirectory(first), RunDirectory(second)
    (one, seed), (other, _) = map(_setting_and_seed, (first, second))
    statuses = {run.summary()["status"] for run in runs}
    status = next((status for status in ("diverged", "max_epochs") if status in statuses), "converged")
    lead = {"first": one, "second": other, "seed": int(seed), "status": status}
    return _led_by(lead, analyse(*runs))


def reused(
    output: Path, question: Sequence[str], runs: Sequence[RunDirectory], analyse: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """Return the rows that `analyse` gives for a run or a pair of runs, or gave before to the very same `question`.

    They are kept in the folder `.kept` beside the output, to which they go, for as long as the runs are not trained
    again and nobody asks something else.
    """
    name = "--".join(run.path.name for run in runs)
    digest = hashlib.sha256("\0".join(question).encode())
    for run in runs:
        digest.update(run.run_file.read_bytes())
    kept = output.parent / ".kept" / f"{name}-{digest.hexdigest()[:16]}.csv"
    if not kept.exists():
        write_frame(kept, analyse())
        for other in set(kept.parent.glob(f"{glob.escape(name)}-{'?' * 16}.csv")) - {kept}:
            other.unlink(missing_ok=True)
    # Also what was just written, so that rows are the same whether they were kept or not.
    return read_frame(kept)


def _setting_and_seed(directory: Path) -> tuple[str, str]:
    setting, _, seed = directory.name.rpartition("-seed")
    return setting, seed


def _led_by(lead: Mapping[str, object], rows: pd.DataFrame) -> pd.DataFrame:
    for position, (column, value) in enumerate(lead.items()):
        rows.insert(position, column, value)
    return rows
