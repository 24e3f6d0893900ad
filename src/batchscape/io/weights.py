"""Weights of a network as files and as one vector, and the distance between two of them.

A weights file is safetensors: all entries of the state dict, and in the header the names of the
parameters in the network's order (buffers, such as BatchNorm statistics, are in the file but not in
the list). Nothing here needs torch, so that tables and analyses start fast.
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


@dataclass(frozen=True)
class Layers:
    """Where each layer stands in the vector of all parameters; a layer is the parameters of one module."""

    names: tuple[str, ...]
    """Module names, in the network's order."""

    starts: tuple[int, ...]
    """Index of each layer's first element; a layer ends where the next one starts."""

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> "Layers":
        """Group parameters (`conv1.weight` → number of elements, in the network's order) by their module."""
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


@dataclass(frozen=True)
class Weights:
    """A network's parameters at one moment as a flat vector, and what its other entries were."""

    vector: np.ndarray
    """All parameters, (p,), one after the other in the network's order."""

    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each parameter, in the same order."""

    buffers: Mapping[str, np.ndarray]
    """Entries that are no parameters, such as BatchNorm statistics."""

    @property
    def layers(self) -> Layers:
        return Layers.of({name: math.prod(shape) for name, shape in self.shapes.items()})


def distance_by_layer(start: np.ndarray, end: np.ndarray, layers: Layers) -> np.ndarray:
    """Return ‖end − start‖₂ of each layer, (layers,), float64.

    Vectors are (p,); differences and sums are taken in float64. The distance of the whole model is the
    Euclidean norm of the result (`np.linalg.norm`), for layers partition the parameters.
    """
    difference = end.astype(np.float64) - start.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged run's distance is inf or nan, and says so
        return np.sqrt(np.add.reduceat(difference * difference, layers.starts))


def write_weights(path: Path, state: Mapping[str, np.ndarray], parameters: list[str]) -> None:
    """Write a state dict; `parameters` names its entries that are parameters, in the network's order."""
    contiguous = {name: np.asarray(array, order="C") for name, array in state.items()}
    header = {"parameters": json.dumps(parameters)}
    write_bytes(path, save(contiguous, metadata=header))


def read_weights(path: Path) -> Weights:
    """Read a weights file. Raises UserError when it is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = json.loads((file.metadata() or {})["parameters"])
            arrays = {name: file.get_tensor(name) for name in names}
            buffers = {name: file.get_tensor(name) for name in file.keys() if name not in arrays}  # noqa: SIM118
            vector = np.concatenate([array.ravel() for array in arrays.values()])
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; delete the run's folder so that it trains again")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is no whole weights file ({error}); delete the run's folder so that it trains again")
    return Weights(vector, {name: array.shape for name, array in arrays.items()}, buffers)
