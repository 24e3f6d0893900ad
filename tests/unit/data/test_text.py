"""Text as blocks of tokens."""

import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.data.text import TextConfig
from batchscape.data.prepare import PrepareResult, prepare

TEXT = "".join(chr(97 + index % 23) + ("\n" if index % 11 == 0 else "") for index in range(400))


def prepare_text(path: Path, **keys) -> PrepareResult:
    return prepare(TextConfig(source="text", path=str(path), **keys), task="language_model")


def write(path: Path, text: str = TEXT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def inputs(result: PrepareResult, side: str) -> np.ndarray:
    return result.data.sides[side].arrays["inputs"].numpy()


def targets(result: PrepareResult, side: str) -> list[int]:
    """Return the targets that count, in order."""
    arrays = result.data.sides[side].arrays
    tokens = arrays["inputs"].numpy()[:, 1:]
    return tokens[arrays["weights"].numpy() > 0].tolist() if "weights" in arrays else tokens.ravel().tolist()


@pytest.mark.parametrize("length", [1, 7, 64])
def test_every_byte_but_the_first_of_a_side_is_a_target_once(tmp_path: Path, length: int):
    result = prepare_text(write(tmp_path / "a.txt"), block_length=length, test_fraction=0.1)
    content = TEXT.encode()
    bounds = (
        len(content) - round(0.2 * len(content)) - round(0.1 * len(content)),
        len(content) - round(0.1 * len(content)),
    )
    assert targets(result, "train") == list(content[: bounds[0]][1:])
    assert targets(result, "validation") == list(content[bounds[0] : bounds[1]][1:])
    assert targets(result, "test") == list(content[bounds[1] :][1:])
    rows = inputs(result, "train")
    assert rows.dtype == np.uint8
    assert rows.shape[1] == length + 1
    assert np.array_equal(rows[1:, 0], rows[:-1, -1]) or length > 1
    assert result.data.spec.vocabulary == 256
    assert result.data.spec.token_unit == "byte"


def test_padding_has_weight_0(tmp_path: Path):
    result = prepare_text(write(tmp_path / "a.txt", "x" * 20), block_length=6, validation_fraction=0.5)
    weights = result.data.train.arrays["weights"].numpy()
    assert weights.tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert inputs(result, "train")[1].tolist() == [120] * 4 + [0] * 3
    assert "padding: 6 targets of 2 last blocks, of weight 0" in result.summary


def test_there_are_no_weights_without_padding(tmp_path: Path):
    for keys in ({"last_block": "drop"}, {"block_length": 4}):
        result = prepare_text(
            write(tmp_path / "a.txt", "x" * 18), **{"block_length": 6, "validation_fraction": 0.5} | keys
        )
        assert "weights" not in result.data.train.arrays


def test_characters_are_those_of_the_training_text(tmp_path: Path):
    text = "äbcäbcab" * 8 + "cabzz€a"
    result = prepare_text(write(tmp_path / "a.txt", text), tokens="characters", block_length=4, last_block="drop")
    count = len(text) - round(0.2 * len(text))
    vocabulary = sorted(set(text[:count]))
    assert vocabulary == ["a", "b", "c", "ä"]
    assert result.data.spec.vocabulary == 5
    numbers = [vocabulary.index(character) + 1 if character in vocabulary else 0 for character in text]
    assert inputs(result, "train")[0].tolist() == numbers[:5]
    assert targets(result, "validation") == numbers[count + 1 :][: len(targets(result, "validation"))]
    assert any("'\\u20ac', 'z' (3 places)" in line for line in result.summary)


def test_many_characters_need_larger_integers(tmp_path: Path):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 300))) * 3
    result = prepare_text(write(tmp_path / "a.txt", text), tokens="characters")
    assert inputs(result, "train").dtype == np.int16
    assert result.data.spec.vocabulary == 301


def test_chunks_give_the_same_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = "aä€😀b" * 60
    path = write(tmp_path / "a.txt", text)
    results = []
    for size in (2**22, 7):
        monkeypatch.setattr("batchscape.data.text.CHUNK_BYTES", size)
        results.append([prepare_text(path, block_length=5, tokens=tokens) for tokens in ("bytes", "characters")])
    for at_once, in_parts in zip(*results, strict=True):
        assert np.array_equal(inputs(at_once, "train"), inputs(in_parts, "train"))
        assert at_once.manifest.equals(in_parts.manifest)


@pytest.mark.parametrize("tokens", ["bytes", "characters"])
def test_a_folder_may_have_more_files_than_a_process_may_open(tmp_path: Path, tokens: str):
    for number in range(150):
        write(tmp_path / f"{number:03}.txt", f"text {number:03}.")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 30, hard))
    try:
        result = prepare_text(tmp_path, block_length=4, tokens=tokens)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(result.manifest) == 300  # two blocks of each


def test_blocks_do_not_cross_files(tmp_path: Path):
    write(tmp_path / "a.txt", "a" * 10)
    write(tmp_path / "b" / "b.txt", "b" * 10)
    write(tmp_path / "c.txt", "c" * 20)
    write(tmp_path / ".hidden", "h" * 20)
    write(tmp_path / "d.txt", "")
    result = prepare_text(tmp_path, block_length=4, validation_fraction=0.25)
    for row in inputs(result, "train"):
        assert len(set(row.tolist()) - {0}) == 1
    assert sorted(set(targets(result, "train"))) == [97, 98, 99]
    assert set(targets(result, "validation")) == {99}
    assert len(targets(result, "train")) == 9 + 9 + 9
    empty = result.manifest[result.manifest["file"] == "d.txt"]
    assert empty["reason"].tolist() == ["empty file: 0 bytes"]


def test_folders_give_the_split(tmp_path: Path):
    for side, letter in (("train", "t"), ("val", "v"), ("test", "e")):
        write(tmp_path / side / "1.txt", letter * 30)
    result = prepare_text(tmp_path, block_length=8)
    assert {side: set(targets(result, side)) for side in result.data.sides} == {
        "train": {ord("t")},
        "validation": {ord("v")},
        "test": {ord("e")},
    }


def test_a_folder_of_training_files_is_cut_if_there_is_none_for_validation(tmp_path: Path):
    write(tmp_path / "train" / "1.txt", "t" * 80 + "u" * 20)
    write(tmp_path / "test" / "1.txt", "e" * 30)
    result = prepare_text(tmp_path, block_length=4)
    assert set(targets(result, "train")) == {ord("t")}
    assert set(targets(result, "validation")) == {ord("u")}
    assert set(targets(result, "test")) == {ord("e")}


def test_files_are_drawn_with_the_seed(tmp_path: Path):
    for index in range(10):
        write(tmp_path / f"{index}.txt", chr(97 + index) * 50)
    seen = set()
    for seed in range(4):
        result = prepare_text(tmp_path, block_length=7, split="random", split_seed=seed, test_fraction=0.1)
        sides = {side: set(targets(result, side)) for side in result.data.sides}
        assert {side: len(letters) for side, letters in sides.items()} == {"train": 7, "validation": 2, "test": 1}
        assert len(set.union(*sides.values())) == 10
        seen.add(tuple(sorted(sides["validation"])))
    assert len(seen) > 1


def test_only_files_of_the_pattern_are_read(tmp_path: Path):
    write(tmp_path / "a.txt", "a" * 100)
    write(tmp_path / "a.md", "b" * 100)
    result = prepare_text(tmp_path, pattern="*.txt", block_length=8)
    assert set(targets(result, "train")) == {97}


def test_the_next_token_is_the_target_of_a_batch(tmp_path: Path):
    import torch

    result = prepare_text(write(tmp_path / "a.txt"), block_length=16)
    batch = result.data.train.batch(slice(0, 2), torch.device("cpu"))
    assert batch.inputs.shape == batch.targets.shape == (2, 16)
    assert batch.targets[:, :-1].equal(batch.inputs[:, 1:])
    assert bytes(batch.inputs[0].tolist()) == TEXT.encode()[:16]


@pytest.mark.parametrize("tokens", ["bytes", "characters"])
def test_memory_does_not_grow_with_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: str):
    monkeypatch.setattr("batchscape.data.text.CHUNK_BYTES", 2**14)
    monkeypatch.setattr("batchscape.data.prepared.CHUNK_BYTES", 2**14)
    peaks = []
    for count in (10_000, 1_010_000):
        path = write(tmp_path / f"{count}.txt", TEXT * (count // len(TEXT)))
        tracemalloc.start()
        prepare_text(path, tokens=tokens, block_length=100, last_block="drop")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Some bytes for each of the 10,000 blocks.
    assert peaks[1] - peaks[0] < 500_000


def test_a_block_longer_than_every_file_is_an_error(tmp_path: Path, refusal: Callable):
    path = write(tmp_path / "a.txt", "x" * 100)
    message = refusal(prepare_text, path, block_length=5000, validation_fraction=0.2)
    assert message.startswith("data.block_length: 5,000 is longer than every file of every side, of which the longest ")
