"""CIFAR-10 and CIFAR-100."""

from pathlib import Path

import numpy as np

from batchscape.config.data.images import CifarConfig
from batchscape.data.cifar import CIFAR_10
from batchscape.data.prepare import PrepareResult, prepare
from tests.helpers.bad_tables import tar

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 3, 32, 32), np.uint8)
FINE = np.arange(24, dtype=np.uint8) % 5


def cifar_10() -> dict[str, bytes]:
    def batch(part: slice) -> bytes:
        return b"".join(bytes([label]) + image.tobytes() for label, image in zip(FINE[part], PIXELS[part], strict=True))

    files = {f"data_batch_{number + 1}.bin": batch(slice(4 * number, 4 * number + 4)) for number in range(5)}
    return {**files, "test_batch.bin": batch(slice(20, 24)), "batches.meta.txt": "\n".join(CIFAR_10).encode() + b"\n\n"}


def prepare_cifar(path: Path, **keys) -> PrepareResult:
    return prepare(CifarConfig(source="cifar", path=str(path), **keys))


def test_cifar_10_from_a_folder_and_a_tar_file(tmp_path: Path):
    inner = tmp_path / "data" / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    for name, content in cifar_10().items():
        (inner / name).write_bytes(content)
    (tmp_path / "c.tar.gz").write_bytes(tar(cifar_10()))
    for path in (inner, tmp_path / "data", tmp_path / "c.tar.gz"):
        data = prepare_cifar(path, split="first").data
        assert data.spec.shape == (3, 32, 32)
        assert data.spec.classes == CIFAR_10
        assert np.array_equal(data.train.arrays["inputs"].numpy(), PIXELS[:16].transpose(0, 2, 3, 1))
        assert np.array_equal(data.validation.arrays["inputs"].numpy(), PIXELS[16:20].transpose(0, 2, 3, 1))
        assert data.test is not None
        assert np.array_equal(data.test.arrays["inputs"].numpy(), PIXELS[20:].transpose(0, 2, 3, 1))
        assert data.test.arrays["targets"].tolist() == FINE[20:].tolist()


def test_cifar_100_has_fine_and_coarse_labels(tmp_path: Path):
    coarse = FINE % 2
    for name, part in (("train.bin", slice(20)), ("test.bin", slice(20, 24))):
        rows = zip(coarse[part], FINE[part], PIXELS[part], strict=True)
        (tmp_path / name).write_bytes(b"".join(bytes([c, f]) + image.tobytes() for c, f, image in rows))
    (tmp_path / "coarse_label_names.txt").write_text("\n".join(f"group_{n}" for n in range(20)))
    fine, grouped = prepare_cifar(tmp_path, split="first"), prepare_cifar(tmp_path, split="first", labels="coarse")
    assert fine.data.train.arrays["targets"].tolist() == FINE[:16].tolist()
    assert grouped.data.train.arrays["targets"].tolist() == coarse[:16].tolist()
    assert len(fine.data.spec.classes) == 100
    assert grouped.data.spec.classes[1] == "group_1"
    assert np.array_equal(fine.data.train.arrays["inputs"].numpy(), PIXELS[:16].transpose(0, 2, 3, 1))


def test_chunks_give_the_same_images(tmp_path: Path, monkeypatch):
    (tmp_path / "c.tar.gz").write_bytes(tar(cifar_10()))
    monkeypatch.setattr("batchscape.data.cifar.CHUNK_RECORDS", 3)
    data = prepare_cifar(tmp_path / "c.tar.gz", split="first").data
    assert np.array_equal(data.train.arrays["inputs"].numpy(), PIXELS[:16].transpose(0, 2, 3, 1))
