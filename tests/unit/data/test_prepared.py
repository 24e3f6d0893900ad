"""The prepared file."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from batchscape.config.data.images import DigitsConfig
from batchscape.data.dataset import Dataset
from batchscape.data.prepare import prepare
from batchscape.data.prepared import CHUNK_BYTES, PreparedData, Rows, read_prepared, write_chunks, write_prepared
from batchscape.data.spec import DataSpec

RNG = np.random.default_rng(0)
CASES = {
    "numbers": (
        DataSpec("numbers", (3,), "numbers", target_shape=(2,), target_name="price"),
        lambda n: {
            "inputs": RNG.normal(size=(n, 3)).astype(np.float32),
            "targets": RNG.normal(size=(n, 2)).astype(np.float32) * 7 + 100,
            "weights": RNG.random(n, dtype=np.float32) + 0.5,
        },
    ),
    "columns": (
        DataSpec("columns", (2,), "class", ("a", "b", "c"), categories=(4, 5)),
        lambda n: {
            "inputs": RNG.normal(size=(n, 2)).astype(np.float32),
            "categories": RNG.integers(0, 4, (n, 2), np.int32),
            "targets": RNG.integers(0, 3, n),
        },
    ),
    "tokens": (
        DataSpec("tokens", (7,), "next_token", vocabulary=256, token_unit="byte"),
        lambda n: {
            "inputs": RNG.integers(0, 256, (n, 8), np.uint8),
            "weights": (RNG.random((n, 7)) < 0.9).astype(np.float32),
        },
    ),
    "many tokens": (
        DataSpec("tokens", (7,), "next_token", vocabulary=30_000),
        lambda n: {"inputs": RNG.integers(0, 30_000, (n, 8), np.int16)},
    ),
    "float images": (
        DataSpec("images", (1, 2, 3), "class", ("a", "b")),
        lambda n: {"inputs": RNG.random((n, 2, 3, 1), np.float32), "targets": RNG.integers(0, 2, n)},
    ),
}


def some_data(case: str, counts: tuple[int, ...] = (20, 11, 5)) -> PreparedData:
    """Return random data of a case; with two counts, without a test side."""
    spec, make = CASES[case]
    sides = [Dataset.from_numpy(spec, make(count)) for count in counts]
    return PreparedData(spec, *sides)


def test_prepared_images_round_trip(prepared: PreparedData, tmp_path: Path):
    path = tmp_path / "data" / "prepared.safetensors"
    write_prepared(path, prepared)
    back = read_prepared(path)
    assert back.spec == prepared.spec
    assert back.test is None
    for side, dataset in prepared.sides.items():
        for name, array in dataset.arrays.items():
            assert back.sides[side].arrays[name].dtype == array.dtype
            assert back.sides[side].arrays[name].equal(array)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("counts", [(20, 11, 5), (20, 11)], ids=["test side", "no test side"])
def test_each_kind_of_data_round_trips_and_is_a_valid_safetensors_file(case: str, counts: tuple, tmp_path: Path):
    data = some_data(case, counts)
    path = tmp_path / "data.safetensors"
    write_prepared(path, data)
    back = read_prepared(path)
    stored = load_file(path)  # the reference implementation checks offsets, sizes and data types
    assert set(back.sides) == set(data.sides)
    for side, dataset in data.sides.items():
        assert set(back.sides[side].arrays) == set(dataset.arrays)
        for name, array in dataset.arrays.items():
            read = back.sides[side].arrays[name]
            assert read.dtype == array.dtype
            assert np.array_equal(read.numpy(), array.numpy())
            assert np.array_equal(stored[f"{side}/{name}"], array.numpy())
            assert read.data_ptr() % read.dtype.itemsize == 0  # aligned
    assert len(stored) == sum(len(dataset.arrays) for dataset in data.sides.values())


def test_variance_of_the_targets_of_each_side_is_weighted_and_in_the_stored_unit(tmp_path: Path):
    data = some_data("numbers")
    write_prepared(tmp_path / "data", data)
    variances = read_prepared(tmp_path / "data").spec.target_variance
    for side, dataset in data.sides.items():
        targets, weights = (dataset.arrays[name].numpy().astype(np.float64) for name in ("targets", "weights"))
        mean = np.average(targets, axis=0, weights=weights)
        expected = np.average((targets - mean) ** 2, axis=0, weights=weights).mean()
        assert variances[side] == pytest.approx(expected, rel=1e-11)


def test_variance_is_that_of_all_chunks(tmp_path: Path):
    """The sum over chunks neither loses digits to a large mean nor forgets that means differ between chunks."""
    targets = (1e5 + np.arange(30_000) % 1000 + np.arange(30_000) // 10_000 * 100).astype(np.float32)
    spec = DataSpec("numbers", (100,), "numbers")
    data = Dataset.from_numpy(spec, {"inputs": np.zeros((30_000, 100), np.float32), "targets": targets})
    assert CHUNK_BYTES < 30_000 * 404
    write_prepared(tmp_path / "data", PreparedData(spec, data, data[:5]))
    variance = read_prepared(tmp_path / "data").spec.target_variance["train"]
    assert variance == pytest.approx(np.var(targets.astype(np.float64)), rel=1e-11)


def test_equal_data_gives_equal_bytes(prepared: PreparedData, tmp_path: Path):
    write_prepared(tmp_path / "a", prepared)
    prepare(DigitsConfig(), path=tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bytes_do_not_depend_on_the_chunks(tmp_path: Path):
    data = some_data("numbers", (50, 20))
    arrays = {side: {k: v.numpy() for k, v in dataset.arrays.items()} for side, dataset in data.sides.items()}
    counts = {"train": 50, "validation": 20}

    def chunks(side: str, size: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, counts[side], size):
            yield {name: array[start : start + size] for name, array in arrays[side].items()}

    for size in (1, 7, 50):
        write_chunks(tmp_path / str(size), data.spec, counts, {side: chunks(side, size) for side in counts})
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_rows_are_yielded_in_order_and_as_often_as_necessary():
    array = np.arange(10 * CHUNK_BYTES // 4, dtype=np.int32).reshape(-1, 1024)
    for indices in (np.arange(0, len(array), 3), np.arange(5, len(array)), np.array([7])):
        rows = Rows({"inputs": array}, indices)
        for _ in range(2):
            chunks = [chunk["inputs"] for chunk in rows]
            assert np.array_equal(np.concatenate(chunks), array[indices])
            assert all(chunk.nbytes <= CHUNK_BYTES for chunk in chunks)
        assert np.array_equal(np.concatenate(list(rows.parts())), indices)


@pytest.mark.parametrize(
    "chunks",
    [
        [np.zeros((4, 2), np.float32)],
        [np.zeros((5, 2), np.float32), np.zeros((1, 2), np.float32)],
        [np.zeros((5, 3), np.float32)],
        [np.zeros((3, 2), np.float32), np.zeros((2, 2), np.float64)],
    ],
    ids=["too few", "too many", "another shape", "another type"],
)
def test_chunks_that_differ_from_what_is_announced_are_an_error_and_leave_no_file(chunks: list, tmp_path: Path):
    spec = DataSpec("numbers", (2,), "numbers")

    def yield_chunks(arrays: list):
        return ({"inputs": array, "targets": np.zeros(len(array), np.float32)} for array in arrays)

    good = yield_chunks([np.zeros((5, 2), np.float32)])
    with pytest.raises(ValueError, match="validation"):
        write_chunks(
            tmp_path / "data",
            spec,
            {"train": 5, "validation": 5},
            {"train": good, "validation": yield_chunks(chunks)},
        )
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_reported_with_the_command_that_creates_it(tmp_path: Path, refusal: Callable):
    path = tmp_path / "prepared.safetensors"
    message = refusal(read_prepared, path)
    assert message.startswith(f"{path}: ")
    assert message.endswith("run `batchscape run FILE prepare --cores 1`")


@pytest.mark.parametrize("size", [0, 7, 100, 5000, -1])
def test_truncated_file_is_rejected(small_data_file: Path, tmp_path: Path, size: int, refusal: Callable):
    path = tmp_path / "prepared.safetensors"
    path.write_bytes(small_data_file.read_bytes()[:size])
    assert refusal(read_prepared, path).startswith(f"{path}: is corrupt or incomplete (")


def edited_header(path: Path, edit: Callable[[dict], object]) -> None:
    """Change the header of a safetensors file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize("missing", ["train/inputs", "train/targets", "validation/inputs", "validation/targets"])
def test_file_without_one_of_its_arrays_is_rejected(
    missing: str, small_data_file: Path, tmp_path: Path, refusal: Callable
):
    path = tmp_path / "prepared.safetensors"
    path.write_bytes(small_data_file.read_bytes())
    edited_header(path, lambda header: header.pop(missing))
    message = refusal(read_prepared, path)
    assert message.startswith(f"{path}: is corrupt or incomplete (")
    assert missing in message


@pytest.mark.parametrize(
    "edit",
    [
        lambda header: header.pop("__metadata__"),
        lambda header: header["__metadata__"].update(about="{}"),
        lambda header: header["train/targets"].update(dtype="F16"),
        lambda header: header["train/targets"].update(shape=[1, 2, 3]),
        lambda header: header["train/inputs"].update(data_offsets=[10**9, 2 * 10**9]),
        lambda header: header["train/inputs"].update(shape=[230, 4, 16, 1]),
        lambda header: header["train/inputs"].update(shape=[-230, -8, 8, 1]),
    ],
    ids=range(7),
)
def test_file_with_another_header_is_rejected(edit: Callable, small_data_file: Path, tmp_path: Path, refusal: Callable):
    path = tmp_path / "prepared.safetensors"
    path.write_bytes(small_data_file.read_bytes())
    edited_header(path, edit)
    assert refusal(read_prepared, path).startswith(f"{path}: is corrupt or incomplete (")


# A process that may use little memory reads a file of many times as much.
READ = """
import math, resource, sys
from pathlib import Path
import torch
from batchscape.data.prepared import read_prepared

used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[2]), used + int(sys.argv[2])))
data = read_prepared(Path(sys.argv[1]))
total = sum(data.train.batch(torch.arange(i, i + 100), torch.device("cpu")).inputs.double().sum().item()
            for i in range(0, len(data.train), 100))
print(total)
try:
    bytearray(2 * int(sys.argv[2]))
except MemoryError:
    print("limited")
"""


def test_file_larger_than_the_memory_is_read_from_its_mapping(tmp_path: Path):
    path = tmp_path / "data"
    limit = 50_000_000
    spec = DataSpec("numbers", (10_000,), "numbers")
    rows = np.tile(np.arange(10_000, dtype=np.float32), (100, 1))

    def chunks(count: int):
        return (
            {"inputs": rows[:count], "targets": np.zeros(len(rows[:count]), np.float32)} for _ in range(0, count, 100)
        )

    write_chunks(path, spec, {"train": 5000, "validation": 1}, {"train": chunks(5000), "validation": chunks(1)})
    assert path.stat().st_size > 4 * limit
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(limit)], capture_output=True, text=True, check=True
    )
    total, is_limited = done.stdout.splitlines()
    assert math.isclose(float(total), 5000 * 9999 * 10_000 / 2)
    assert is_limited == "limited"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rows", [slice(0, 4), torch.arange(4)], ids=["slice", "indices"])
def test_network_may_write_into_a_batch_of_a_mapped_file(case: str, rows: slice | torch.Tensor, tmp_path: Path):
    """The mapping is read-only: writing to it would end the process."""
    write_prepared(tmp_path / "data", some_data(case))
    data = read_prepared(tmp_path / "data").train
    batch, same = (data.batch(rows, torch.device("cpu")) for _ in range(2))
    parts = batch.inputs if isinstance(batch.inputs, tuple) else (batch.inputs,)
    targets = batch.targets.clone()
    for part in parts:
        part.zero_()
    assert batch.targets.equal(targets)
    batch.targets.zero_()
    if batch.weights is not None:
        batch.weights.zero_()
    again = data.batch(rows, torch.device("cpu"))
    assert again.targets.equal(same.targets)
