"""Checkpoints from which a killed run resumes, to the same end."""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from batchscape.errors import UserError
from batchscape.io.files import write_bytes

CHECKPOINT, PREVIOUS_CHECKPOINT = "checkpoint.safetensors", "checkpoint-previous.safetensors"
# The fields of TrainingState that are arrays by name, and single arrays.
ARRAY_GROUPS = ("network", "optimizer", "average", "best")
SINGLE_ARRAYS = ("update_norms", "previous_weights", "interval_sums")
# Those that are JSON in the header of a checkpoint.
METADATA_FIELDS = (
    "step",
    "optimizer_values",
    "history",
    "interval_values",
    "best_evaluation",
    "best_loss",
    "micro_batch",
)


@dataclass(frozen=True)
class TrainingState:
    """A run after a step: with the seed, all that its further steps and its record depend on."""

    step: int
    """Steps that have been taken."""

    network: dict[str, np.ndarray]
    """State dict of the network."""

    optimizer: dict[str, np.ndarray]
    """Arrays of the state of the optimizer, see `optim.state`."""

    optimizer_values: dict[str, Any]
    """All else of that state."""

    average: dict[str, np.ndarray]
    """Arrays of the average of the weights; empty without it."""

    best: dict[str, np.ndarray]
    """State dict at the lowest validation loss; empty if no evaluation had a finite loss."""

    update_norms: np.ndarray
    """‖θ_{t+1} − θ_t‖₂ of every update so far, (steps,), float64."""

    previous_weights: np.ndarray
    """Parameters at the last evaluation, (p,)."""

    interval_sums: np.ndarray
    """Sums of loss and metrics since the last evaluation, (1 + m,) float64."""

    interval_values: dict[str, Any]
    """What else was measured since then."""

    history: list[dict[str, Any]]
    """One row per evaluation."""

    best_evaluation: int | None
    best_loss: float

    micro_batch: int
    """Examples that go through the network at once: on a GPU, as many as fit when the run starts."""


def run_key(spec: str, data_sha256: str, code: str) -> str:
    """Return the key that runs of the same specification, data and code share.

    Args:
        spec: The run's specification, as JSON.
        data_sha256: Digest of the prepared data.
        code: Fingerprint of the code that trains.

    Returns:
        A SHA-256 digest, in hexadecimal.
    """
    return hashlib.sha256(json.dumps([spec, data_sha256, code]).encode()).hexdigest()


def write_checkpoint(folder: Path, state: TrainingState, key: str) -> None:
    """Write the state of a run; the previous checkpoint remains, in case this one gets corrupted.

    Args:
        folder: Where the run stores its two checkpoints.
        state: What to save.
        key: The `run_key` of the run.
    """
    arrays = {
        **{
            f"{group}/{name}": np.asarray(array)
            for group in ARRAY_GROUPS
            for name, array in getattr(state, group).items()
        },
        **{name: getattr(state, name) for name in SINGLE_ARRAYS},
    }
    metadata = json.dumps({"run_key": key, **{field: getattr(state, field) for field in METADATA_FIELDS}})
    if (folder / CHECKPOINT).exists():
        (folder / CHECKPOINT).replace(folder / PREVIOUS_CHECKPOINT)
    write_bytes(folder / CHECKPOINT, save(arrays, {"metadata": metadata, "sha256": _checksum(arrays, metadata)}))


def read_checkpoint(folder: Path, key: str) -> TrainingState | None:
    """Read the last complete checkpoint of a run.

    Args:
        folder: Where the run stores its two checkpoints.
        key: The `run_key` of the run.

    Returns:
        The state, or None if neither checkpoint is complete and of this run.
    """
    states = (_read(folder / name, key) for name in (CHECKPOINT, PREVIOUS_CHECKPOINT))
    return next((state for state in states if state is not None), None)


def read_state(path: Path) -> TrainingState:
    """Read the state from which a branch begins, without the record of the run that saved it.

    Args:
        path: A checkpoint of any run.

    Raises:
        UserError: It is missing or corrupt.
    """
    state = _read(path, None)
    if state is None:
        raise UserError(
            f"{path}: is missing or corrupt, so nothing can branch from it; delete it to train up to it again"
        )
    return replace(
        state, best={}, best_evaluation=None, best_loss=math.inf, history=[], update_norms=state.update_norms[:0]
    )


def _read(path: Path, key: str | None) -> TrainingState | None:
    """Return a checkpoint; None if it is not complete or of another run, unless `key` is None."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            text, checksum = (file.metadata()[name] for name in ("metadata", "sha256"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    if checksum != _checksum(arrays, text):
        return None
    metadata = json.loads(text)
    if metadata.pop("run_key", None) != key and key is not None:
        return None
    groups: dict[str, Any] = {group: _with_prefix(arrays, f"{group}/") for group in ARRAY_GROUPS}
    single_arrays: dict[str, Any] = {name: arrays[name] for name in SINGLE_ARRAYS}
    return TrainingState(**groups, **single_arrays, **metadata)


def _with_prefix(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _checksum(arrays: dict[str, np.ndarray], metadata: str) -> str:
    digest = hashlib.sha256(metadata.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape} {arrays[name].dtype}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
