"""The files of a run: both their writers and their readers get the names here."""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from batchscape.config.base import PositiveInt, Section
from batchscape.config.checkpoint import Checkpoint
from batchscape.config.run import RunSpec
from batchscape.errors import UserError
from batchscape.io.files import read_json, write_atomically, write_bytes, write_json
from batchscape.io.frames import read_frame
from batchscape.io.weights import RERUN_HINT, Weights, read_weights

# Written last: a run directory with this file is complete.
RUN_FILE = "run.json"
HISTORY_FILE = "history.csv"
# Copies of those two in a run's folder, which Snakemake does not know and so does not delete.
COMPLETED_COPY = ".completed"
# Columns of history.csv of each side that are no metrics of the task, without `train_` or `validation_`.
NOT_METRICS = ("loss", "seconds", "cpu_seconds")


class Environment(Section):
    """The machine and the software that a run was trained on."""

    python: str
    packages: dict[str, str | None]
    platform: str
    processor: str
    cpus: int | None
    threads: int
    device: str
    devices: PositiveInt
    nodes: PositiveInt
    micro_batch: PositiveInt


class Provenance(Section):
    """What a run was trained from, and when."""

    run_key: str
    source_commit: str | None
    data_sha256: str
    started: datetime
    finished: datetime


class Summary(Section):
    """Content of run.json; docs/outputs.md describes its keys."""

    status: Literal["converged", "completed", "budget_spent", "diverged", "stopped"]
    evaluations: PositiveInt
    steps: PositiveInt
    epochs: int | float
    best_step: PositiveInt | None
    best_epoch: int | float | None
    best_validation_loss: float | None
    validation_at_best: dict[str, float | None]
    test_at_best: dict[str, float | None]
    average_validation: dict[str, float | None]
    average_test: dict[str, float | None]
    min_train_loss: float | None
    parameters: PositiveInt
    batches_per_epoch: PositiveInt
    training_examples: PositiveInt
    validation_examples: PositiveInt
    test_examples: int
    classes: list[str]
    spec: RunSpec
    environment: Environment
    provenance: Provenance


def is_noise_scale_evaluation(evaluation: int) -> bool:
    """Return whether the gradient noise scale is measured at an evaluation: at the first, second, fourth, eighth, …."""
    return evaluation & (evaluation - 1) == 0


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one run."""

    path: Path
    """The directory."""

    @property
    def checkpoint_folder(self) -> Path:
        """Folder of the checkpoints from which a killed run resumes; removed once the run is complete."""
        return self.path / "resume"

    def state_folder(self, step: int) -> Path:
        """Return the folder of the complete state after a step, from which branches begin."""
        return self.path / "states" / f"step{step:08d}"

    @property
    def run_file(self) -> Path:
        """Path of run.json."""
        return self.path / RUN_FILE

    @property
    def history_file(self) -> Path:
        """Path of history.csv."""
        return self.path / HISTORY_FILE

    @property
    def update_norms_file(self) -> Path:
        """Path of update_norms.npy."""
        return self.path / "update_norms.npy"

    def weights_file(self, name: str) -> Path:
        """Return the path of the weights `init`, `best`, `last`, `average` or those after an epoch (`epoch00010`)."""
        return self.path / "weights" / f"{name}.safetensors"

    def second_moments_file(self, name: str) -> Path:
        """Return the path of the second moments of Adam at the weights `last` or those after an epoch."""
        return self.path / "second_moments" / f"{name}.safetensors"

    @property
    def is_complete(self) -> bool:
        """Whether the run is complete: it has a run.json, or a copy of it."""
        return self.readable(self.run_file).exists()

    def readable(self, file: Path) -> Path:
        """Return run.json or history.csv, or its copy if it does not exist.

        Snakemake deletes both if their job fails, which it also does because of another seed.
        """
        copy = self.path / COMPLETED_COPY / file.name
        return copy if copy.exists() and not file.exists() else file

    def restore_if_complete(self, run_key: str) -> bool:
        """Restore a complete run whose outputs Snakemake has deleted.

        If a run completes after its Snakemake was killed, the next Snakemake deletes the outputs before it runs the job
        again. They are restored from the copies that `write_summary` made.

        Args:
            run_key: The key that the run must have.

        Returns:
            Whether the directory now contains that run, complete.
        """
        copies = RunDirectory(self.path / COMPLETED_COPY)
        if not (_has_key(self, run_key) or _has_key(copies, run_key)):
            return False
        summary = (self if self.run_file.exists() else copies).summary()
        names = ["init", "last", *(["best"] if summary["best_epoch"] else [])]
        names += ["average"] if summary["average_validation"] else []
        names += map(self.checkpoint_name, filter(summary["epochs"].__ge__, summary["spec"]["training"]["checkpoints"]))
        if not all(path.exists() for path in [self.update_norms_file, *map(self.weights_file, names)]):
            return False
        for copy, file in ((copies.history_file, self.history_file), (copies.run_file, self.run_file)):
            if not file.exists():
                write_bytes(file, copy.read_bytes())
        return True

    def clear(self, last_epoch: float = 0) -> None:
        """Delete the files of an earlier run, run.json first, and if it does not resume the states for branches.

        Args:
            last_epoch: The epoch after which the run resumes: weights of checkpoints up to this one are not deleted.
        """
        copies = RunDirectory(self.path / COMPLETED_COPY)
        for file in (copies.run_file, copies.history_file, self.run_file, self.history_file, self.update_norms_file):
            file.unlink(missing_ok=True)
        if not last_epoch:
            shutil.rmtree(self.state_folder(0).parent, ignore_errors=True)
        retained = {self.checkpoint_name(epoch) for epoch in range(1, int(last_epoch) + 1)}
        for any_file in (self.weights_file("any"), self.second_moments_file("any")):
            for file in any_file.parent.glob("*.safetensors"):
                if file.stem not in retained:
                    file.unlink()

    @staticmethod
    def checkpoint_name(checkpoint: Checkpoint) -> str:
        """Return the name of the weights at a checkpoint: `best`; `epoch00010` after the tenth epoch."""
        return f"epoch{checkpoint:05d}" if isinstance(checkpoint, int) else checkpoint

    def summary(self) -> dict[str, Any]:
        """Return the content of run.json, as described by `Summary`.

        Raises:
            UserError: The file is missing or corrupt.
        """
        return read_json(self.readable(self.run_file), Summary, RERUN_HINT)

    def metrics(self) -> list[str]:
        """Return the names of the metrics of the task, in the order of the columns of history.csv.

        Raises:
            UserError: The file is missing or corrupt.
        """
        columns = read_frame(self.readable(self.history_file), RERUN_HINT).columns
        names = [column.removeprefix("validation_") for column in columns if column.startswith("validation_")]
        return [name for name in names if name not in NOT_METRICS]

    def history(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return columns of history.csv.

        Args:
            columns: Names of numeric columns.

        Returns:
            One row per evaluation.

        Raises:
            UserError: The file is missing or corrupt, or lacks a column.
        """
        frame = read_frame(self.readable(self.history_file), RERUN_HINT)
        for name in ("step", *columns):
            if name not in frame or not is_numeric_dtype(frame[name]):
                raise UserError(f"{self.history_file}: has no numeric column {name}; {RERUN_HINT}")
        summary = self.summary()
        steps, evaluations = frame["step"], summary["evaluations"]
        if len(frame) != evaluations or steps.iloc[-1] != summary["steps"] or not steps.is_monotonic_increasing:
            raise UserError(f"{self.history_file}: expected {evaluations} rows, one per evaluation; {RERUN_HINT}")
        return frame[list(columns)]

    def update_norms(self) -> np.ndarray:
        """Return ‖θ_{t+1} − θ_t‖₂ of every batch update, (steps,), float64.

        Raises:
            UserError: The file is missing or corrupt.
        """
        try:
            norms = np.load(self.update_norms_file, allow_pickle=False)
        except Exception as error:  # NumPy may fail in any way on a corrupt header, which it parses as Python text
            reason = " ".join(str(error).split())
            raise UserError(f"{self.update_norms_file}: cannot be read ({reason}); {RERUN_HINT}")
        if not (isinstance(norms, np.ndarray) and norms.ndim == 1 and norms.dtype == np.float64):
            raise UserError(f"{self.update_norms_file}: is not a vector of float64; {RERUN_HINT}")
        return norms

    def weights(self, name: str) -> Weights:
        """Return weights that the run saved.

        Args:
            name: `init`, `best`, `last`, `average` or those after an epoch (`epoch00010`).

        Raises:
            UserError: The file is missing, corrupt or not of this run's network.
        """
        weights, parameters = read_weights(self.weights_file(name)), self.summary()["parameters"]
        if len(weights.vector) != parameters:
            raise UserError(
                f"{self.weights_file(name)}: has {len(weights.vector)} parameters, but the run's network {parameters}; "
                + RERUN_HINT
            )
        return weights

    def checkpoint_weights(self, checkpoint: Checkpoint) -> Weights:
        """Return the weights at a checkpoint.

        Args:
            checkpoint: `init`, `best`, `last` or an epoch.

        Returns:
            The weights; all nan if the run did not reach the checkpoint: `best` of a run that had no finite loss, or an
            epoch after the end of the run.

        Raises:
            UserError: A file is missing, corrupt or not of this run's network.
        """
        summary = self.summary()
        is_reached = (
            checkpoint <= summary["epochs"]
            if isinstance(checkpoint, int)
            else (checkpoint != "best" or summary["best_epoch"] is not None)
        )
        if is_reached:
            return self.weights(self.checkpoint_name(checkpoint))
        initial = self.weights("init")
        return replace(initial, vector=np.full_like(initial.vector, np.nan))

    def second_moments(self, checkpoint: Checkpoint) -> np.ndarray | None:
        """Return the second moments of Adam at a checkpoint, (p,); None if the run has not saved them.

        Raises:
            UserError: The file is corrupt or not of this run's network.
        """
        path = self.second_moments_file(self.checkpoint_name(checkpoint))
        if not path.exists():
            return None
        vector, parameters = read_weights(path).vector, self.summary()["parameters"]
        if len(vector) != parameters:
            raise UserError(
                f"{path}: has {len(vector)} values, but the run's network {parameters} parameters; {RERUN_HINT}"
            )
        return vector

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write run.json, after copies of it and of the history that are not outputs of the workflow.

        Args:
            summary: The content, as described by `Summary`.
        """
        copies = RunDirectory(self.path / COMPLETED_COPY)
        write_bytes(copies.history_file, self.history_file.read_bytes())
        write_json(copies.run_file, summary)
        write_json(self.run_file, summary)

    def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write history.csv; floats round-trip to the same bits.

        Args:
            rows: One row per evaluation, all with the same keys.
        """

        def write(partial: Path) -> None:
            with partial.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.history_file, write)

    def write_update_norms(self, norms: np.ndarray) -> None:
        """Write update_norms.npy.

        Args:
            norms: ‖θ_{t+1} − θ_t‖₂ of every batch update, (steps,), float64.
        """

        def write(partial: Path) -> None:
            with partial.open("wb") as stream:
                np.save(stream, norms, allow_pickle=False)

        write_atomically(self.update_norms_file, write)


def _has_key(directory: RunDirectory, run_key: str) -> bool:
    try:
        return directory.summary()["provenance"]["run_key"] == run_key
    except UserError:
        return False
