"""The manifest: what a source contains, and its summary."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchscape.data.manifest import MAX_EXAMPLES_LISTED, make_manifest, summarize_manifest
from batchscape.data.source import ManifestEntry
from batchscape.io.frames import read_frame, write_frame

ENTRIES = [
    ManifestEntry("a.csv", "1", examples=4),
    ManifestEntry("labels.csv", "3", examples=0),
    ManifestEntry("b.csv:7", "", reason="missing: no value of price", examples=1),
    ManifestEntry("b.csv", "2", examples=2),
]


def test_examples_of_a_file_are_listed_with_their_side_and_class():
    manifest = make_manifest(ENTRIES, np.array([0, 1, 0, 2, 0, 1]), np.array([1, 0, 1, 1, 0, 0]), ("no", "yes"))
    assert list(zip(manifest["file"], manifest["class"], manifest["split"], strict=True)) == [
        ("a.csv[0]", "yes", "train"),
        ("a.csv[1]", "no", "validation"),
        ("a.csv[2]", "yes", "train"),
        ("a.csv[3]", "yes", "test"),
        ("labels.csv", "", ""),
        ("b.csv:7", "", ""),
        ("b.csv[0]", "no", "train"),
        ("b.csv[1]", "no", "validation"),
    ]
    assert manifest["examples"].tolist() == [1, 1, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("count", [6, MAX_EXAMPLES_LISTED + 1])
@pytest.mark.parametrize("first_class", ["no", ""])
def test_a_file_without_examples_is_neither_a_class_nor_dropped(count: int, first_class: str, tmp_path: Path):
    entries = [ManifestEntry("x.npy", "1", examples=count), ManifestEntry("y.npy", "2", examples=0)]
    labels, sides = np.arange(count) % 2, np.arange(count) // 2 % 2
    write_frame(tmp_path / "manifest.csv", make_manifest(entries, sides, labels, (first_class, "yes")))
    lines = summarize_manifest(read_frame(tmp_path / "manifest.csv", text=True))
    (train, validation), (first, second) = np.bincount(sides), np.bincount(labels)
    assert lines == [
        f"{count:,} of {count:,} examples are used: {train:,} for training, {validation:,} for validation",
        f"2 classes: {first_class} ({first:,}), yes ({second:,})",
    ]


@pytest.mark.parametrize("count", [MAX_EXAMPLES_LISTED, MAX_EXAMPLES_LISTED + 1])
@pytest.mark.parametrize("has_classes", [True, False])
def test_summary_is_the_same_whether_examples_are_listed_or_counted(count: int, has_classes: bool, tmp_path: Path):
    rng = np.random.default_rng(0)
    sides, labels = rng.integers(0, 3, count), rng.integers(0, 2, count) if has_classes else np.full(count, -1)
    entries = [ManifestEntry("big.npz", "1", examples=count), ManifestEntry("x", "", reason="odd: row", examples=3)]
    manifest = make_manifest(entries, sides, labels, ("no", "yes") if has_classes else ())
    assert len(manifest) == (count + 1 if count == MAX_EXAMPLES_LISTED else (7 if has_classes else 4))
    write_frame(tmp_path / "manifest.csv", manifest)
    for table in (manifest, read_frame(tmp_path / "manifest.csv", text=True)):
        lines = summarize_manifest(table)
        train, validation, test = np.bincount(sides)
        assert lines[0] == (
            f"{count:,} of {count + 3:,} examples are used: {train:,} for training, {validation:,} for validation, "
            f"{test:,} for testing; dropped: 3 odd"
        )
        no, yes = (labels == 0).sum(), (labels == 1).sum()
        expected = {f"2 classes: no ({no:,}), yes ({yes:,})", f"2 classes: yes ({yes:,}), no ({no:,})"}
        assert (len(lines) == 2 and lines[1] in expected) if has_classes else len(lines) == 1


def test_control_characters_in_names_are_escaped(tmp_path: Path):
    entries = [
        ManifestEntry("a\r/1\r.png", "1", "a\r"),
        ManifestEntry("b/1.png", "2", "b"),
        ManifestEntry("b/Icon\r", "3", "b", "duplicate: of a\r/1\r.png, which is of another class"),
        ManifestEntry("b/\x00\n\x7fé\\.png", "4", "b"),
    ]
    manifest = make_manifest(entries, np.array([0, 1, 1]), np.array([0, 1, 1]), ("a\r", "b"))
    assert manifest["file"].tolist() == [r"a\r/1\r.png", "b/1.png", r"b/Icon\r", r"b/\x00\n\x7fé\.png"]
    assert manifest["class"].tolist() == [r"a\r", "b", "b", "b"]
    write_frame(tmp_path / "manifest.csv", manifest)
    pd.testing.assert_frame_equal(read_frame(tmp_path / "manifest.csv", text=True), manifest)


def test_files_of_one_example_each_have_no_column_of_counts():
    entries = [
        ManifestEntry("a/1.png", "1", "a"),
        ManifestEntry("b/1.png", "2", "b"),
        ManifestEntry("x", "", reason="r"),
    ]
    manifest = make_manifest(entries, np.array([0, 1]), np.array([0, 1]), ("a", "b"))
    pd.testing.assert_frame_equal(
        manifest,
        pd.DataFrame(
            [["a/1.png", "1", "a", "train", ""], ["b/1.png", "2", "b", "validation", ""], ["x", "", "", "", "r"]],
            columns=["file", "sha256", "class", "split", "reason"],
        ),
    )
    assert summarize_manifest(manifest)[0] == ("2 of 3 files are used: 1 for training, 1 for validation; dropped: 1 r")
    assert "no training images of b: use another data.split_seed or data.split" in summarize_manifest(manifest)
