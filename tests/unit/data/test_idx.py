"""IDX files."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.data.images import IdxConfig
from batchscape.data.idx import inspect_idx
from batchscape.data.prepare import PrepareResult, prepare
from tests.helpers.bad_tables import idx

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (count, 6, 4), np.uint8) for count in (40, 10))
TRAIN_LABELS, TEST_LABELS = np.arange(40, dtype=np.uint8) % 10, np.arange(10, dtype=np.uint8)


def write(
    folder: Path, prefix: str = "", test: str = "t10k", suffix: str = "-idx{}-ubyte", zipped: bool = False
) -> None:
    for side, images, labels in (("train", TRAIN, TRAIN_LABELS), (test, TEST, TEST_LABELS)):
        for kind, values in (("images", images), ("labels", labels)):
            content = idx(values)
            name = f"{prefix}{side}-{kind}{suffix.format(values.ndim)}"
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def prepare_idx(path: Path, **keys) -> PrepareResult:
    return prepare(IdxConfig(source="idx", path=str(path), **keys))


@pytest.mark.parametrize("suffix", ["-idx{}-ubyte", ".idx{}-ubyte"])
@pytest.mark.parametrize("zipped", [True, False])
def test_images_are_those_of_the_files_and_t10k_tests(tmp_path: Path, suffix: str, zipped: bool):
    write(tmp_path, suffix=suffix, zipped=zipped)
    result = prepare_idx(tmp_path, split="first")
    data = result.data
    assert data.spec.shape == (1, 6, 4)
    assert data.spec.classes == tuple("0123456789")
    assert np.array_equal(data.train.arrays["inputs"].numpy()[..., 0], TRAIN[:32])
    assert np.array_equal(data.validation.arrays["inputs"].numpy()[..., 0], TRAIN[32:])
    assert data.test is not None
    assert np.array_equal(data.test.arrays["inputs"].numpy()[..., 0], TEST)
    assert data.test.arrays["targets"].tolist() == TEST_LABELS.tolist()
    assert data.train.arrays["targets"].tolist() == TRAIN_LABELS[:32].tolist()


def test_manifest_has_the_hashes_of_images_and_labels(tmp_path: Path):
    write(tmp_path, zipped=True)
    before = prepare_idx(tmp_path).manifest
    labels = next(tmp_path.glob("train-labels*"))
    labels.write_bytes(gzip.compress(idx(TRAIN_LABELS[::-1].copy())))
    after = prepare_idx(tmp_path).manifest
    for file in tmp_path.iterdir():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert set(after.loc[after["file"].str.startswith(file.name), "sha256"]) == {digest}
    changed = before.loc[before["sha256"].ne(after["sha256"]), "file"]
    assert changed.tolist() == [labels.name]


def test_emnist_is_transposed_and_its_classes_are_named(tmp_path: Path):
    write(tmp_path, "emnist-letters-", "test")
    (tmp_path / "emnist-letters-mapping.txt").write_text("".join(f"{n} {65 + n} {97 + n}\n" for n in range(10)))
    result = prepare_idx(tmp_path, split="first")
    assert result.data.spec.shape == (1, 4, 6)
    assert np.array_equal(result.data.train.arrays["inputs"].numpy()[..., 0], TRAIN[:32].transpose(0, 2, 1))
    assert result.data.spec.classes[:2] == ("Aa", "Bb")
    assert any("height and width are swapped" in line for line in result.summary)
    assert prepare_idx(tmp_path, transpose=False).data.spec.shape == (1, 6, 4)


def test_a_file_of_images_with_the_labels_beside_it(tmp_path: Path):
    write(tmp_path)
    result = prepare_idx(tmp_path / "t10k-images-idx3-ubyte", split="first")
    assert result.data.test is None
    assert np.array_equal(result.data.train.arrays["inputs"].numpy()[..., 0], TEST[:8])
    (tmp_path / "x").write_bytes(idx(TEST))
    named = prepare_idx(tmp_path / "x", labels=str(tmp_path / "t10k-labels-idx1-ubyte"), split="first")
    assert np.array_equal(named.data.train.arrays["inputs"].numpy(), result.data.train.arrays["inputs"].numpy())


def test_headers_show_what_is_prepared(tmp_path: Path):
    write(tmp_path, zipped=True)
    seen = inspect_idx(IdxConfig(source="idx", path=str(tmp_path)))
    assert seen.counts == [40, 10]
    assert seen.shape == (6, 4)
    assert seen.classes == tuple("0123456789")


def test_chunks_give_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path)
    monkeypatch.setattr("batchscape.data.idx.CHUNK_BYTES", 100)
    result = prepare_idx(tmp_path, split="first")
    assert np.array_equal(result.data.train.arrays["inputs"].numpy()[..., 0], TRAIN[:32])
