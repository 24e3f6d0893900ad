"""Weights of a network as files and as one vector, and the distance between two of them.

A weights file is safetensors: all entries of the state dict, and in the header the names of the parameters in the
network's order (buffers, such as BatchNorm statistics, are in the file but not in the list). This module does not
import torch, so that tables and analyses start fast.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from batchscape.errors import UserError
from batchscape.io.files import write_bytes

RERUN_HINT = "delete the run's folder to train it again"


@dataclass(frozen=True)
class Layers:
    """Positions of the layers in the vector of all parameters; a layer is the parameters of one module."""

    names: tuple[str, ...]
    """Module names, in the network's order."""

    starts: tuple[int, ...]
    """Index of each layer's first element; a layer ends where the next one starts."""

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> "Layers":
        """Group parameters by their module.

        Args:
            sizes: Number of elements of each parameter by its name (`conv1.weight`), in the network's order.
        """
        names: list[str] = []
        starts: list[int] = []
        position = 0
        for parameter, size in sizes.items():
            layer = parameter.rpartition(".")[0] or parameter
            if not names or names[-1] != layer:
                names.append(layer)
                starts.append(position)
            position += size
        return cls(tuple(names), tuple(starts))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of a vector, (p,), over each layer, (layers,); that of a layer without elements is 0."""
        starts, sums = np.array(self.starts), np.zeros(len(self.starts))
        has_elements = np.diff(starts, append=len(values)) > 0  # of the others, reduceat returns the next element
        sums[has_elements] = np.add.reduceat(values, starts[has_elements])
        return sums


@dataclass(frozen=True)
class Weights:
    """A network's parameters as a flat vector, and the other entries of its state dict."""

    vector: np.ndarray
    """All parameters, (p,), concatenated in the network's order."""

    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each parameter, in the same order."""

    buffers: Mapping[str, np.ndarray]
    """Entries that are not parameters, such as BatchNorm statistics."""

    @property
    def layers(self) -> Layers:
        """The layers of `vector`."""
        return Layers.of({name: math.prod(shape) for name, shape in self.shapes.items()})


def distance_by_layer(start: np.ndarray, end: np.ndarray, layers: Layers) -> np.ndarray:
    """Return ‖end − start‖₂ of each layer.

    The distance of the complete model is the Euclidean norm of the result, since the layers partition the parameters.

    Args:
        start: Parameters, (p,).
        end: Parameters, (p,).
        layers: The layers of both vectors.

    Returns:
        One distance per layer, (layers,), float64; inf or nan for a run that diverged.
    """
    difference = end.astype(np.float64) - start.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(layers.sum(difference * difference))


def write_weights(path: Path, state: Mapping[str, np.ndarray], parameters: list[str]) -> None:
    """Write a state dict as a weights file.

    Args:
        path: The file.
        state: The state dict.
        parameters: Names of its entries that are parameters, in the network's order.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in state.items()}
    header = {"parameters": json.dumps(parameters)}
    write_bytes(path, save(contiguous, metadata=header))


def read_weights(path: Path) -> Weights:
    """Read a weights file.

    Args:
        path: The file.

    Raises:
        UserError: The file is missing, or corrupt or incomplete.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = json.loads((file.metadata() or {})["parameters"])
            arrays = {name: file.get_tensor(name) for name in names}
            buffers = {name: file.get_tensor(name) for name in file.keys() if name not in arrays}  # noqa: SIM118
            vector = np.concatenate([array.ravel() for array in arrays.values()])
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {RERUN_HINT}")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is corrupt or incomplete ({error}); {RERUN_HINT}")
    return Weights(vector, {name: array.shape for name, array in arrays.items()}, buffers)
