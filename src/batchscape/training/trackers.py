"""The programs that show the curves of runs, each written through its logger of Lightning.

A tracker holds one run. To open it replaces what the tracker had of that run: so a run that resumes, or trains again,
has each step once.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from batchscape.training.lightning import loggers

# Metrics that MLflow accepts in one request.
MLFLOW_BATCH = 1000
# Seconds after which a server counts as away: meanwhile the training waits.
SERVER_TIMEOUT = 20
# Unless the user has set them. Both packages report their use and their errors by default.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(SERVER_TIMEOUT),
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_MODE": "offline",
}


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers name it."""

    folder: Path
    """Folder of all trackers of the study."""

    study: str
    setting: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.setting}-seed{self.seed}"


class Tracker(Protocol):
    """A run in one of the programs."""

    place: str
    """What identifies the run in the program, from which a later attempt replaces it."""

    def log(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Write the metrics of evaluations, each with its step, and wait until they are written."""

    def finish(self, results: Mapping[str, float], step: int) -> None:
        """Write the results of the complete run, of the last step, and close it."""


def open_tracker(name: str, run: TrackedRun, parameters: dict[str, Any], previous: str | None) -> Tracker:
    """Open a run in a tracker, in place of what that has of the run.

    Args:
        name: One of `config.tracking.TrackerName`.
        run: The run.
        parameters: Its hyperparameters, which may be nested.
        previous: The `place` of the last attempt; None if there was none.
    """
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    kinds: dict[str, Callable[[TrackedRun, dict[str, Any], str | None], Tracker]] = {
        "tensorboard": _TensorBoard,
        "mlflow": _MLflow,
        "wandb": _Wandb,
        "csv": _Csv,
    }
    return kinds[name](run, parameters, previous)


class _TensorBoard:
    """Event files in a folder of the run; TensorBoard groups runs by folders."""

    def __init__(self, run: TrackedRun, parameters: dict[str, Any], previous: str | None):
        folder = run.folder / "tensorboard" / run.setting / f"seed{run.seed}"
        shutil.rmtree(folder, ignore_errors=True)
        # `purge_step`: a TensorBoard that is open forgets what it has read of the deleted files.
        self.logger = loggers.TensorBoardLogger(
            folder.parents[1], run.setting, folder.name, default_hp_metric=False, purge_step=0
        )
        self.place = f"tensorboard/{run.setting}/{folder.name}"
        self.parameters = parameters
        self.log(())

    def log(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for step, metrics in rows:
            self.logger.log_metrics(metrics, step)
        # The thread that writes is then idle, so its time is not part of the measured time of the next steps.
        self.logger.save()

    def finish(self, results: Mapping[str, float], step: int) -> None:
        # The table of hyperparameters needs both in one call.
        self.logger.log_hyperparams(self.parameters, dict(results), step)
        self.logger.finalize("success")


class _Csv:
    """The file metrics.csv in a folder of the run, with the columns of Lightning's CSVLogger."""

    def __init__(self, run: TrackedRun, parameters: dict[str, Any], previous: str | None):
        folder = run.folder / "csv" / run.setting / f"seed{run.seed}"
        shutil.rmtree(folder, ignore_errors=True)
        self.logger = loggers.CSVLogger(folder.parents[1], run.setting, folder.name)
        self.place = f"csv/{run.setting}/{folder.name}"
        self.logger.log_hyperparams(parameters)
        self.logger.save()

    def log(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for step, metrics in rows:
            self.logger.log_metrics(dict(metrics), step)
        self.logger.save()

    def finish(self, results: Mapping[str, float], step: int) -> None:
        self.logger.finalize("success")


class _MLflow:
    """A run of the experiment of the study, in a database of the study or on the server of MLFLOW_TRACKING_URI."""

    def __init__(self, run: TrackedRun, parameters: dict[str, Any], previous: str | None):
        from mlflow.exceptions import MlflowException

        folder = (run.folder / "mlflow").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"
        self.lock_file = folder / ".lock"
        with self._lock():
            self.logger = loggers.MLFlowLogger(
                run.study,
                run.name,
                uri,
                tags={"study": run.study, "setting": run.setting, "seed": str(run.seed)},
                artifact_location=None if "://" in uri and not uri.startswith("sqlite:") else f"{folder}/artifacts",
            )
            if previous:
                with suppress(MlflowException):  # it is of another server, or deleted
                    self.logger.experiment.delete_run(previous)
            self.place = str(self.logger.run_id)
            self.logger.log_hyperparams(parameters)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the lock of the database: MLflow neither creates it nor an experiment for two processes at once."""
        with self.lock_file.open("a") as stream:
            with suppress(OSError):  # a file system without locks
                flock(stream, LOCK_EX)
            yield

    def log(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        # Not `log_metrics`, which is one transaction for each row: twenty times as slow.
        metrics = [Metric(name, value, now, step) for step, row in rows for name, value in row.items()]
        with self._lock():
            for start in range(0, len(metrics), MLFLOW_BATCH):
                self.logger.experiment.log_batch(self.place, metrics[start : start + MLFLOW_BATCH])

    def finish(self, results: Mapping[str, float], step: int) -> None:
        self.log([(step, results)])
        with self._lock():
            self.logger.finalize("success")


class _Wandb:
    """A run of the project of the study, in a folder or, with WANDB_MODE=online, on the server."""

    def __init__(self, run: TrackedRun, parameters: dict[str, Any], previous: str | None):
        import wandb

        if wandb.run is not None:  # one that failed in this process, which Lightning would continue
            wandb.finish(exit_code=1)
        self.place = previous or uuid4().hex[:8]
        for folder in (run.folder / "wandb").glob(f"*run-*-{self.place}"):
            shutil.rmtree(folder, ignore_errors=True)
        run.folder.mkdir(parents=True, exist_ok=True)
        self.logger = loggers.WandbLogger(
            run.name,
            run.folder,
            id=self.place,
            project=run.study,
            group=run.setting,
            # The same id without `resume` replaces the run on the server.
            resume=None,
            mode=os.environ["WANDB_MODE"],
            settings=wandb.Settings(
                console="off", silent=True, init_timeout=SERVER_TIMEOUT, finish_timeout=SERVER_TIMEOUT
            ),
        )
        self.logger.log_hyperparams(parameters)

    def log(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for step, metrics in rows:
            self.logger.log_metrics(metrics, step)

    def finish(self, results: Mapping[str, float], step: int) -> None:
        run = self.logger.experiment
        run.summary.update(dict(results))
        self.logger.finalize("success")
        run.finish()
