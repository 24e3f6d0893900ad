"""The state of a run on its way, from which a killed run goes on to the same end."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from batchscape.io.files import write_bytes

CHECKPOINT, PREVIOUS_CHECKPOINT = "checkpoint.safetensors", "checkpoint-previous.safetensors"
PARTS = ("network", "momentum", "best")
METADATA_FIELDS = ("history", "best_epoch", "best_loss", "micro_batch")


@dataclass(frozen=True)
class TrainingState:
    """A run after an epoch: with the seed, all that its further course depends on, and all that it has to tell."""

    network: dict[str, np.ndarray]
    """The state dict of the network."""

    momentum: dict[str, np.ndarray]
    """SGD's momentum by the index of the parameter; empty without momentum."""

    best: dict[str, np.ndarray]
    """The state dict at the least validation loss; empty if no epoch had a finite loss."""

    update_norms: np.ndarray
    """‖θ_{t+1} − θ_t‖ of every update so far, (steps,), float64."""

    history: list[dict[str, Any]]
    """A row an epoch."""

    best_epoch: int | None
    best_loss: float

    micro_batch: int
    """Examples that go through the network at once: on a GPU, as many as fitted when the run began."""

    @property
    def epoch(self) -> int:
        """How many epochs were trained."""
        return len(self.history)


def identity(spec: str, data_sha256: str, code: str) -> str:
    """Return what a state belongs to: a run's specification, its data, and the code that trains it."""
    return hashlib.sha256(json.dumps([spec, data_sha256, code]).encode()).hexdigest()


def write_checkpoint(folder: Path, state: TrainingState, belongs_to: str) -> None:
    """Write the state of a run; the one before it stays until the next time, in case this one gets damaged."""
    arrays = {f"{part}/{name}": np.asarray(array) for part in PARTS for name, array in getattr(state, part).items()}
    arrays["update_norms"] = state.update_norms
    about = json.dumps({"identity": belongs_to, **{key: getattr(state, key) for key in METADATA_FIELDS}})
    if (folder / CHECKPOINT).exists():
        (folder / CHECKPOINT).replace(folder / PREVIOUS_CHECKPOINT)
    write_bytes(folder / CHECKPOINT, save(arrays, {"about": about, "sha256": _checksum(arrays, about)}))


def read_checkpoint(folder: Path, belongs_to: str) -> TrainingState | None:
    """Return the last whole state of this very run, or None."""
    states = (_read(folder / name, belongs_to) for name in (CHECKPOINT, PREVIOUS_CHECKPOINT))
    return next((state for state in states if state is not None), None)


def _read(path: Path, belongs_to: str) -> TrainingState | None:
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about, checksum = (file.metadata()[key] for key in ("about", "sha256"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    told = json.loads(about) if checksum == _checksum(arrays, about) else {}
    if told.pop("identity", None) != belongs_to:
        return None
    parts = {
        part: {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{part}/")}
        for part in PARTS
    }
    return TrainingState(**parts, update_norms=arrays["update_norms"], **told)


def _checksum(arrays: dict[str, np.ndarray], about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape} {arrays[name].dtype}".encode())
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()
