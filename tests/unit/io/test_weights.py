"""Weights as files and vectors, and distances between them."""

import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file

import batchscape
from batchscape.io.weights import Layers, distance_by_layer, read_weights, write_weights

PARAMETERS = ["zeta.weight", "zeta.bias", "alpha.weight", "scale", "block.norm.weight", "block.norm.bias"]


def state() -> dict[str, np.ndarray]:
    """A state dict whose order is not alphabetical, with buffers between the parameters."""
    return {
        "zeta.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "zeta.bias": np.array([6, 7], np.float32),
        "alpha.weight": np.array([[8.5]], np.float32),
        "scale": np.array(9.25, np.float32),
        "block.norm.weight": np.array([10, 11], np.float32),
        "block.norm.bias": np.array([12, 13], np.float32),
        "block.norm.running_mean": np.array([100, 200], np.float32),
        "block.norm.num_batches_tracked": np.array(300),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "best.safetensors"
    write_weights(path, state(), PARAMETERS)
    return path


# Distances.


def test_distances_are_euclidean_by_layer_and_in_total():
    layers = Layers.of({"conv.weight": 1, "conv.bias": 1, "dense.weight": 2, "still.weight": 2})
    start = np.array([1, 1, 5, 5, 7, 7], np.float32)
    end = np.array([4, 5, 5, -7, 7, 7], np.float32)
    distance = distance_by_layer(start, end, layers)
    assert distance.tolist() == [5, 12, 0]
    assert np.linalg.norm(distance) == 13


def test_distance_is_symmetric():
    layers = Layers.of({"a.weight": 3, "b.weight": 2})
    start, end = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    assert distance_by_layer(start, end, layers).tolist() == distance_by_layer(end, start, layers).tolist()


def test_small_differences_next_to_a_large_one_are_not_lost():
    # In float32, 4096² + 1 + 1 + … stays 4096².
    end = np.ones(10_001, np.float32)
    end[0] = 4096
    distance = distance_by_layer(np.zeros_like(end), end, Layers.of({"a.weight": end.size}))
    assert distance.dtype == np.float64
    assert distance[0] == pytest.approx(math.sqrt(4096**2 + 10_000), rel=1e-14)


def test_differences_are_computed_in_float64():
    start, end = np.array([1e8], np.float32), np.array([1], np.float32)
    assert distance_by_layer(start, end, Layers.of({"a.weight": 1})).tolist() == [99_999_999]


def test_distance_whose_square_overflows_float32_is_finite():
    start, end = np.array([0], np.float32), np.array([1e30], np.float32)
    assert distance_by_layer(start, end, Layers.of({"a.weight": 1}))[0] == pytest.approx(float(end[0]), rel=1e-14)


def test_distance_of_a_diverged_layer_is_not_finite():
    layers = Layers.of({"a.weight": 1, "b.weight": 1, "c.weight": 1})
    end = np.array([np.nan, np.inf, 2], np.float32)
    distance = distance_by_layer(np.zeros(3, np.float32), end, layers)
    assert np.isnan(distance[0])
    assert distance[1:].tolist() == [math.inf, 2]


@given(arrays(np.float32, (2, 9), elements=st.floats(-1e6, 1e6, width=32)))
def test_layers_partition_the_model(points: np.ndarray):
    start, end = points
    layers = Layers.of({"a.weight": 4, "a.bias": 1, "b.weight": 3, "c.weight": 1})
    distance = distance_by_layer(start, end, layers)
    difference = end.astype(np.float64) - start
    assert distance == pytest.approx([math.hypot(*part) for part in np.split(difference, [5, 8])], rel=1e-12)
    assert np.linalg.norm(distance) == pytest.approx(math.hypot(*difference), rel=1e-12)


# Layers.


def test_layer_without_elements_has_distance_zero():
    sizes = {"first.weight": 0, "a.weight": 4, "middle.weight": 0, "b.weight": 2, "last.weight": 0}
    distance = distance_by_layer(np.zeros(6), np.full(6, 2.0), Layers.of(sizes))
    assert distance.tolist() == pytest.approx([0, 4, 0, math.sqrt(8), 0])


def test_layers_are_modules_in_the_networks_order():
    layers = Layers.of({"zeta.weight": 6, "zeta.bias": 2, "alpha.weight": 1, "scale": 1, "block.norm.weight": 2})
    assert layers == Layers(("zeta", "alpha", "scale", "block.norm"), (0, 8, 9, 10))


def test_layers_with_a_common_prefix_are_separate():
    layers = Layers.of({"block.conv.weight": 2, "block.conv2.weight": 3, "block.conv2.bias": 1})
    assert layers == Layers(("block.conv", "block.conv2"), (0, 2))


# Files.


def test_parameters_are_read_in_the_networks_order_without_buffers(file: Path):
    weights = read_weights(file)
    assert weights.vector.dtype == np.float32
    assert weights.vector.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8.5, 9.25, 10, 11, 12, 13]
    assert weights.layers == Layers(("zeta", "alpha", "scale", "block.norm"), (0, 8, 9, 10))


def test_file_contains_the_state_dict_with_types_and_shapes(file: Path):
    content = load_file(file)
    assert content.keys() == state().keys()
    for name, array in state().items():
        assert (content[name].dtype, content[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(content[name], array)


def test_non_contiguous_array_is_written_in_index_order(tmp_path: Path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_weights(tmp_path / "a", {"a.weight": array.T}, ["a.weight"])
    assert read_weights(tmp_path / "a").vector.tolist() == [0, 3, 1, 4, 2, 5]


def test_equal_weights_give_equal_bytes(file: Path, tmp_path: Path):
    write_weights(tmp_path / "again", state(), PARAMETERS)
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_writing_leaves_no_other_files(file: Path):
    assert list(file.parent.iterdir()) == [file]


def test_missing_weights_raise_with_a_hint(tmp_path: Path, refusal: Callable):
    message = refusal(read_weights, tmp_path / "none.safetensors")
    assert message.startswith(f"{tmp_path}/none.safetensors: is missing; ")


@pytest.mark.parametrize("num_bytes", [0, 1, 7, 8, 100, -8, -1])
def test_truncated_weights_raise(file: Path, num_bytes: int, refusal: Callable):
    file.write_bytes(file.read_bytes()[:num_bytes])
    assert refusal(read_weights, file).startswith(f"{file}: is corrupt or incomplete")


def damaged_file(header: dict[str, str] | None) -> Callable[[Path], None]:
    return lambda path: save_file({"a.weight": np.ones(2, np.float32)}, path, metadata=header)


@pytest.mark.parametrize(
    "write",
    [
        damaged_file(None),
        damaged_file({"parameters": "a.weight"}),
        damaged_file({"parameters": json.dumps(["b.weight"])}),
        lambda path: path.write_bytes(b"\xff" * 200),
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    ],
    ids=[
        "no list",
        "a list that is not JSON",
        "a missing entry",
        "noise",
        "text",
    ],
)
def test_foreign_files_raise(write: Callable, tmp_path: Path, refusal: Callable):
    path = tmp_path / "a.safetensors"
    write(path)
    assert refusal(read_weights, path).startswith(f"{path}: ")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("dump", [lambda trap, path: path.write_bytes(pickle.dumps(trap)), torch.save])
def test_pickle_raises_and_is_never_executed(dump: Callable, tmp_path: Path, refusal: Callable):
    path, mark = tmp_path / "a.safetensors", tmp_path / "executed"
    dump(Trap(mark), path)
    assert refusal(read_weights, path).startswith(f"{path}: is corrupt or incomplete")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists()  # the trap works


def test_weights_are_read_without_torch():
    code = f"""
import sys
sys.path.insert(0, {str(Path(batchscape.__file__).parents[1])!r})
import batchscape.io.weights
sys.exit("loaded torch" if "torch" in sys.modules else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
