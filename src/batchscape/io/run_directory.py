"""The files of one run: who writes them and who reads them both ask here for their names."""

import csv
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
from batchscape.io.weights import Weights, read_weights

# Written last: a run directory with this file is whole.
RUN_FILE = "run.json"
HISTORY_FILE = "history.csv"
KEPT = ".completed"
MEND = "delete the run's folder so that it trains again"


class Environment(Section):
    """Where a run trained, and with what."""

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
    """Of what a run was made, and when."""

    identity: str
    source_commit: str | None
    data_sha256: str
    started: datetime
    finished: datetime


class Summary(Section):
    """What run.json holds; docs/outputs.md says of each key what it is."""

    status: Literal["converged", "diverged", "max_epochs"]
    epochs: PositiveInt
    best_epoch: PositiveInt | None
    best_validation_loss: float | None
    validation_accuracy_at_best: float | None
    min_train_loss: float | None
    parameters: PositiveInt
    batches_per_epoch: PositiveInt
    training_examples: PositiveInt
    validation_examples: PositiveInt
    classes: list[str]
    spec: RunSpec
    environment: Environment
    provenance: Provenance


def is_noise_scale_epoch(epoch: int) -> bool:
    """Say whether history.csv has the gradient noise after an epoch (from 1): after 1, 2, 4, 8, …"""
    return epoch & (epoch - 1) == 0


@dataclass(frozen=True)
class RunDirectory:
    path: Path

    @property
    def checkpoint_folder(self) -> Path:
        """Where a run on its way keeps its state; not there once the run is whole."""
        return self.path / "resume"

    @property
    def run_file(self) -> Path:
        return self.path / RUN_FILE

    @property
    def history_file(self) -> Path:
        return self.path / HISTORY_FILE

    @property
    def update_norms_file(self) -> Path:
        return self.path / "update_norms.npy"

    def weights_file(self, name: str) -> Path:
        """Path of `init`, `best`, `last` or a snapshot (`epoch00010`)."""
        return self.path / "weights" / f"{name}.safetensors"

    def restore_if_complete(self, identity: str) -> bool:
        """Say whether all of the very run stands here that has this identity; put back what of it was deleted.

        Of one that became whole after its Snakemake had been killed, the next Snakemake deletes the outputs before it
        asks for them again; these are put back from the copies that `write_summary` kept.
        """
        copies = RunDirectory(self.path / KEPT)
        if not (_is(self, identity) or _is(copies, identity)):
            return False
        summary = (self if self.run_file.exists() else copies).summary()
        names = ["init", "last", *(["best"] if summary["best_epoch"] else [])]
        names += map(self.checkpoint_name, filter(summary["epochs"].__ge__, summary["spec"]["training"]["checkpoints"]))
        if not all(path.exists() for path in [self.update_norms_file, *map(self.weights_file, names)]):
            return False
        for copy, file in ((copies.history_file, self.history_file), (copies.run_file, self.run_file)):
            if not file.exists():
                write_bytes(file, copy.read_bytes())
        return True

    def clear(self, keep_snapshots_to: int = 0) -> None:
        """Delete the files of a run, the one that says that it is whole first, and nothing else.

        The initial weights and snapshots up to an epoch stay if it goes on from there.
        """
        copies = RunDirectory(self.path / KEPT)
        for file in (copies.run_file, copies.history_file, self.run_file, self.history_file, self.update_norms_file):
            file.unlink(missing_ok=True)
        kept = {self.checkpoint_name(epoch) for epoch in range(1, keep_snapshots_to + 1)}
        for weights in self.weights_file("any").parent.glob("*.safetensors"):
            if weights.stem not in kept:
                weights.unlink()

    @staticmethod
    def checkpoint_name(checkpoint: Checkpoint) -> str:
        """Name of the weights at a checkpoint: `best`; `epoch00010` for those after the tenth epoch."""
        return f"epoch{checkpoint:05d}" if isinstance(checkpoint, int) else checkpoint

    def summary(self) -> dict[str, Any]:
        """The content of run.json, that of a `Summary`. Raises UserError when the file is missing or damaged."""
        return read_json(self.run_file, Summary, MEND)

    def history(self, columns: Sequence[str]) -> pd.DataFrame:
        """Columns of history.csv, one row an epoch. Raises UserError when the file is missing or damaged."""
        frame = read_frame(self.history_file, MEND)
        for name in ("epoch", *columns):
            if name not in frame or not is_numeric_dtype(frame[name]):
                raise UserError(f"{self.history_file}: has no column {name} of numbers; {MEND}")
        epochs = self.summary()["epochs"]
        if list(frame["epoch"]) != list(range(1, epochs + 1)):
            raise UserError(f"{self.history_file}: has not one row for each of the {epochs} epochs; {MEND}")
        return frame[list(columns)]

    def update_norms(self) -> np.ndarray:
        """‖θ_{t+1} − θ_t‖ of every batch update, (steps,), float64. Raises UserError when the file is damaged."""
        try:
            norms = np.load(self.update_norms_file, allow_pickle=False)
        except Exception as error:  # its header is Python's text, on which NumPy may fail in any way
            raise UserError(f"{self.update_norms_file}: cannot be read ({' '.join(str(error).split())}); {MEND}")
        if not (isinstance(norms, np.ndarray) and norms.ndim == 1 and norms.dtype == np.float64):
            raise UserError(f"{self.update_norms_file}: holds no list of norms; {MEND}")
        return norms

    def weights(self, name: str) -> Weights:
        """Weights that the run kept. Raises UserError when they are missing, damaged or not of this run's network."""
        weights, parameters = read_weights(self.weights_file(name)), self.summary()["parameters"]
        if len(weights.vector) != parameters:
            raise UserError(
                f"{self.weights_file(name)}: has {len(weights.vector)} parameters, but the run's network {parameters}; "
                + MEND
            )
        return weights

    def checkpoint_weights(self, checkpoint: Checkpoint) -> Weights:
        """The weights at a checkpoint; all nan if the run did not come so far.

        That is `best` of a run that had no finite loss, or a snapshot after the run's end.
        """
        summary = self.summary()
        reached = (
            checkpoint <= summary["epochs"]
            if isinstance(checkpoint, int)
            else (checkpoint != "best" or summary["best_epoch"] is not None)
        )
        if reached:
            return self.weights(self.checkpoint_name(checkpoint))
        initial = self.weights("init")
        return replace(initial, vector=np.full_like(initial.vector, np.nan))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write run.json, and before it copies of it and of the history, which are no outputs of the workflow."""
        copies = RunDirectory(self.path / KEPT)
        write_bytes(copies.history_file, self.history_file.read_bytes())
        write_json(copies.run_file, summary)
        write_json(self.run_file, summary)

    def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write one line an epoch; floats are written so that they read back to the same bits."""

        def write(partial: Path) -> None:
            with partial.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.history_file, write)

    def write_update_norms(self, norms: np.ndarray) -> None:
        def write(partial: Path) -> None:
            with partial.open("wb") as stream:
                np.save(stream, norms, allow_pickle=False)

        write_atomically(self.update_norms_file, write)


def _is(directory: RunDirectory, identity: str) -> bool:
    try:
        return directory.summary()["provenance"]["identity"] == identity
    except UserError:
        return False
