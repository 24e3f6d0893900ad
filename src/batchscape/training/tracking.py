"""Keeps trackers such as TensorBoard up to date with runs, which a failing tracker neither stops nor changes."""

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from batchscape.config.base import Section
from batchscape.config.run import RunSpec
from batchscape.errors import UserError
from batchscape.io.files import read_json, write_json
from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import RERUN_HINT
from batchscape.training.lightning import pl
from batchscape.training.recorder import Recorder
from batchscape.training.trackers import TrackedRun, Tracker, open_tracker

# Seconds between two writes at least: evaluations of a small network follow each other in milliseconds.
WRITE_INTERVAL = 5.0
# Columns of the history that are nan where they are not measured.
NOT_ALWAYS_MEASURED = ("gradient_norm", "noise_scale")
MAX_REASON = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracking:
    """The trackers of a run, and the names by which they group it."""

    trackers: tuple[str, ...]
    """Names as in `config.tracking.TrackerName`; none if the run is not tracked."""

    folder: str
    """Folder of all trackers of the study."""

    study: str
    setting: str

    @classmethod
    def of_run(cls, trackers: str, study_folder: Path, run: str) -> "Tracking":
        """Return the tracking of a run of a study.

        Args:
            trackers: The names, separated by spaces.
            study_folder: Folder of the results of the study, which has its name.
            run: The setting and the seed of the run, such as `bs32-lr0.01-seed0`.
        """
        setting = run.rpartition("-seed")[0]
        return cls(tuple(trackers.split()), str(study_folder / "tracking"), study_folder.name, setting)


NO_TRACKING = Tracking((), "", "", "")


class Record(Section):
    """What a tracker has of a run: a file of the study, so that a later attempt replaces just that."""

    tracker: Literal["tensorboard", "mlflow", "wandb", "csv"]
    run: str
    run_key: str
    place: str
    is_complete: bool


@dataclass
class RunTracker:
    """Writes one run to its trackers. A tracker that fails is left out from then on, with a warning."""

    tracking: Tracking
    spec: RunSpec
    run_key: str
    failures: dict[str, str] = field(default_factory=dict)
    """Why a tracker failed, in one line."""

    def __post_init__(self) -> None:
        self.run = TrackedRun(Path(self.tracking.folder), self.tracking.study, self.tracking.setting, self.spec.seed)
        self._open: dict[str, Tracker] = {}
        self._rows = 0
        self._last_write = -math.inf

    def open(self, names: Iterable[str]) -> None:
        """Open trackers, in place of what they have of the run."""
        parameters = self.spec.model_dump(mode="json")
        for name in names:
            record = read_record(self.run, name)
            try:
                tracker = open_tracker(name, self.run, parameters, record.place if record else None)
                self._open[name] = tracker
                self._write_record(name, is_complete=False)
            except Exception as error:  # a package of another project may fail in any way
                self._fail(name, error)

    def update(self, rows: Sequence[Mapping[str, Any]], *, is_last: bool = False) -> None:
        """Write the evaluations that are new; none if the last write was just before, unless these are the last ones.

        Args:
            rows: All rows of the history so far.
            is_last: Whether no more rows follow.
        """
        now = time.monotonic()
        if not (is_last or now - self._last_write >= WRITE_INTERVAL):
            return
        new = [(int(row["step"]), metrics_of(row)) for row in rows[self._rows :]]
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(new)
            except Exception as error:
                self._fail(name, error)
        self._rows = len(rows)
        self._last_write = time.monotonic()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the results of the complete run, as in run.json, and close the trackers."""
        results = {
            "best/step": summary["best_step"],
            "best/epoch": summary["best_epoch"],
            "best/validation_loss": summary["best_validation_loss"],
            **{f"best/test_{name}": value for name, value in summary["test_at_best"].items()},
        }
        measured = {name: float(value) for name, value in results.items() if value is not None}
        for name, tracker in list(self._open.items()):
            try:
                tracker.finish(measured, summary["steps"])
                self._write_record(name, is_complete=True)
            except Exception as error:
                self._fail(name, error)

    def _write_record(self, name: str, is_complete: bool) -> None:
        record = Record(
            tracker=name,  # type: ignore[arg-type]
            run=self.run.name,
            run_key=self.run_key,
            place=self._open[name].place,
            is_complete=is_complete,
        )
        write_json(_record_file(self.run, name), record.model_dump(mode="json"))

    def _fail(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        self.failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_REASON]
        log.warning(
            "tracking: %s failed for %s, which is otherwise unaffected (%s)", name, self.run.name, self.failures[name]
        )


class TrackRun(pl.Callback):
    """Updates the trackers with the history of a recorder, after whose callbacks these must run."""

    def __init__(self, tracker: RunTracker, recorder: Recorder):
        self.tracker = tracker
        self.recorder = recorder

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.tracker.open(self.tracker.tracking.trackers)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.tracker.update(self.recorder.history)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.tracker.update(self.recorder.history, is_last=True)


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what trackers show of a row of the history: neither the step, nor layers, nor what was not measured."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "step" and "/" not in name and not (name in NOT_ALWAYS_MEASURED and math.isnan(value))
    }


def track_complete_runs(directories: Mapping[str, Path], trackers: str, study_folder: Path) -> pd.DataFrame:
    """Add to each tracker the complete runs that it lacks.

    These are the runs that trained before the tracker was in the study file, and those for which it failed.

    Args:
        directories: The directories of the runs, by setting and seed, such as `bs32-lr0.01-seed0`.
        trackers: The names, separated by spaces.
        study_folder: Folder of the results of the study, which has its name.

    Returns:
        One row for each run and tracker. Columns: run, setting, seed, tracker, place (of the run in the tracker).

    Raises:
        UserError: A tracker failed, or the files of a run are missing or corrupt.
    """
    rows = []
    failures: dict[str, str] = {}
    for name, directory in directories.items():
        run_directory = RunDirectory(directory)
        summary = run_directory.summary()
        spec = RunSpec.model_validate_json(json.dumps(summary["spec"]))
        tracking = Tracking.of_run(trackers, study_folder, name)
        tracker = RunTracker(tracking, spec, _run_key(summary))
        missing = [each for each in tracking.trackers if each not in failures and not is_tracked(tracker, each)]
        if missing:
            history = read_frame(run_directory.history_file, RERUN_HINT)
            numbers = run_directory.history([column for column in history if "/" not in column])
            tracker.open(missing)
            tracker.update(numbers.to_dict("records"), is_last=True)
            tracker.finish(summary)
            log.info("%s: added to %s", name, ", ".join(missing))
        failures |= tracker.failures
        for each in tracking.trackers:
            if each not in failures and (record := read_record(tracker.run, each)):
                row = {
                    "run": name,
                    "setting": tracking.setting,
                    "seed": spec.seed,
                    "tracker": each,
                    "place": record.place,
                }
                rows.append(row)
    if failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise UserError(
            f"tracking: not all runs could be added ({reasons}); rerun the same command to try again, or remove "
            f"{' and '.join(failures)} from `tracking`"
        )
    return pd.DataFrame(rows)


def is_tracked(tracker: RunTracker, name: str) -> bool:
    """Return whether a tracker has the complete run."""
    record = read_record(tracker.run, name)
    return record is not None and record.is_complete and record.run_key == tracker.run_key


def read_record(run: TrackedRun, name: str) -> Record | None:
    """Return what a tracker has of a run; None if that is nothing, or unknown."""
    try:
        return Record.model_validate(read_json(_record_file(run, name), Record, ""))
    except UserError:
        return None


def _record_file(run: TrackedRun, name: str) -> Path:
    # Not in the directory of the run, which users delete to train it again; deleted with what the tracker has.
    return run.folder / name / ".records" / f"{run.name}.json"


def _run_key(summary: Mapping[str, Any]) -> str:
    return str(summary["provenance"]["run_key"])
