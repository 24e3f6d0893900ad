"""Layouts of image sets: splits, classes, and copies of the set inside itself."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from batchscape.config.data.sources import DataConfig
from batchscape.data.inspect import inspect_source
from batchscape.data.layout import class_root, infer_layout
from batchscape.data.prepare import PrepareResult, prepare
from batchscape.study.study import Study
from tests.helpers.bad_images import write_file, write_zip
from tests.helpers.image_sets import image_folder, split_names, summary_line, write_images, write_network_drive
from tests.helpers.objectives import images_of, labels_of

COUNTS = {"train": 8, "val": 3, "test": 2}
DRAWN = "split: 20 % of the images, drawn at random, are for validation (data.split_seed: 0)"


def sides_of(prepared: PrepareResult) -> dict[str, set[str]]:
    """Return the files on each side of the split."""
    return prepared.manifest.groupby("split")["file"].agg(set).to_dict()


# Splits.


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    "order",
    [
        "{side}/{label}",
        "{label}/{side}",
        "top/in/{side}/{label}",
        "{side}/in/{label}/deep/er",
        "top/{label}/in/{side}/deep",
        "{side}_set/{side}_set/{label}",
        "seg_{side}/{label}",
    ],
)
@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "Testing"), ("train", "dev", "eval")]
)
def test_split_of_the_folders_is_used_at_any_level(
    tmp_path: Path, order: str, packed: bool, names: tuple[str, str, str]
):
    counts = dict(zip(names, COUNTS.values(), strict=True))
    folder = tmp_path / "set"
    write_images(folder, split_names(order, counts))
    write_file(folder / "readme.txt", b"two classes")
    if packed:
        write_zip(tmp_path / "set.zip", folder)
    prepared = prepare(image_folder(tmp_path / "set.zip" if packed else folder), 2)
    assert prepared.data.spec.classes == ("ants", "bees")
    assert np.bincount(labels_of(prepared.data.train)).tolist() == [8, 8]
    assert np.bincount(labels_of(prepared.data.validation)).tolist() == [3, 3]
    sides = sides_of(prepared)
    for side, name in zip(("train", "validation", "test"), names, strict=True):
        assert sides[side] == set(split_names(order, {name: counts[name]}))
    assert sides[""] == {"readme.txt"}
    assert prepared.summary[0].startswith("26 of 27 files are used: 16 for training, 6 for validation, 4 for testing")
    assert summary_line(prepared, "split: ").startswith("split: given by the folders: train in ")


def test_images_have_the_side_and_class_of_their_folders(tmp_path: Path):
    write_images(tmp_path, split_names("{side}/{label}", COUNTS))
    prepared = prepare(image_folder(tmp_path))
    for side, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        images = [
            np.asarray(Image.open(tmp_path / name / label / f"{number}.png"))
            for label in ("ants", "bees")
            for number in range(COUNTS[name])
        ]
        dataset = prepared.data.sides[side]
        assert np.array_equal(dataset.arrays["inputs"].numpy(), images)
        assert labels_of(dataset).tolist() == [0] * COUNTS[name] + [1] * COUNTS[name]


def test_test_images_are_held_out_without_a_validation_folder(tmp_path: Path):
    write_images(tmp_path, split_names("{side}/{label}", {"train": 10, "test": 4}))
    prepared = prepare(image_folder(tmp_path, validation_fraction=0.3, split_seed=5))
    assert Counter(prepared.manifest["split"]) == {"train": 14, "validation": 6, "test": 8}
    assert sides_of(prepared)["test"] == set(split_names("{side}/{label}", {"test": 4}))
    assert "split: given by the folders: train in train; test in test" in prepared.summary
    drawn = "split: 30 % of the training images, drawn at random, are for validation (data.split_seed: 5)"
    assert drawn in prepared.summary
    # The same as without test images.
    alone = prepare(image_folder(tmp_path / "train", validation_fraction=0.3, split_seed=5))
    assert np.array_equal(images_of(prepared.data.train), images_of(alone.data.train))
    assert np.array_equal(images_of(prepared.data.validation), images_of(alone.data.validation))


@pytest.mark.parametrize(
    "keys", [{"validation_fraction": 0.2}, {"split": "random"}, {"split_seed": 0, "split": "first"}], ids=str
)
def test_split_keys_are_rejected_if_the_folders_give_the_split(tmp_path: Path, refusal: Callable, keys: dict):
    write_images(tmp_path, split_names("{side}/{label}", {"train": 3, "val": 2}))
    study = {"name": "s", "data": {"source": "image_folder", "path": str(tmp_path), "image_size": [12, 12]}}
    explicit = Study.from_mapping({**study, "data": study["data"] | keys}, "s")
    in_job = TypeAdapter(DataConfig).validate_python(json.loads(explicit.specs.data)["data"])
    for function in (prepare, inspect_source):
        message = refusal(function, in_job)
        assert set(message.partition(": ")[0].split(", ")) == {f"data.{key}" for key in keys}
        assert f"the folders of {tmp_path} (train, val)" in message
    silent = TypeAdapter(DataConfig).validate_python(json.loads(Study.from_mapping(study, "s").specs.data)["data"])
    assert len(labels_of(prepare(silent).data.validation)) == 4


def test_explicit_split_keys_change_the_data_spec_of_image_folders_only():
    def data_spec(**keys) -> str:
        return Study.from_mapping({"name": "s", "data": keys}, "s").specs.data

    assert data_spec() == data_spec(split_seed=0)
    folder = {"source": "image_folder", "path": "pets", "image_size": [8, 8]}
    assert data_spec(**folder) != data_spec(**folder, split_seed=0)


def test_class_named_train_is_a_class_if_there_is_no_split(tmp_path: Path):
    write_images(tmp_path, [f"{label}/{number}.png" for label in ("bus", "car", "train") for number in range(4)])
    prepared = prepare(image_folder(tmp_path))
    assert prepared.data.spec.classes == ("bus", "car", "train")
    assert DRAWN in prepared.summary
    assert set(prepared.manifest["split"]) == {"train", "validation"}


def test_single_side_folder_is_not_a_split(tmp_path: Path):
    write_images(tmp_path, split_names("set/{side}/{label}", {"train": 5}))
    prepared = prepare(image_folder(tmp_path))
    assert (prepared.data.spec.classes, set(prepared.manifest["split"])) == (("ants", "bees"), {"train", "validation"})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            [*split_names("{side}/{label}", {"train": 2, "test": 2}), "extra/ants/1.png"],
            "has folders of a split (test, train) beside others (extra); ",
        ),
        (
            split_names("{side}/{label}", {"valid": 2, "test": 2}),
            "has the folders test, valid of a split, but none for training; ",
        ),
        (
            [*split_names("{label}/{side}", {"train": 2, "val": 2}), "wasps/1.png"],
            "has classes with folders of a split (train, val) and classes without (wasps); ",
        ),
        (
            [*split_names("{label}/{side}", {"train": 2, "val": 2}), "ants/1.png"],
            "has classes with folders of a split (train, val) and classes without (ants); ",
        ),
        ([*split_names("{side}/{label}", {"train": 2}), "val/1.png", "val/2.png"], "but val has no class folders; "),
        (["train/cat.1.jpg", "train/dog.1.jpg", "test1/1.jpg"], "but train has no class folders; "),
        (
            [*split_names("{side}/{label}", {"train": 2, "val": 2}), "val/wasps/1.png"],
            "has validation images of classes without training images (wasps); ",
        ),
        (
            [f"{maker}/{name}" for maker in ("old", "new") for name in split_names("{side}/{label}", COUNTS)],
            "has several sets (new, old), each with the folders of a split and in these ants, bees; ",
        ),
        (
            split_names("{label}/one/{side}", COUNTS) + split_names("{label}/two/{side}", COUNTS),
            "has folders of a split (test, train, val), but neither around its classes nor directly inside each of ",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ambiguous_split_is_rejected_before_images_are_read(
    tmp_path: Path, refusal: Callable, names: list[str], expected: str
):
    for name in names:
        write_file(tmp_path / name, b"not read")
    message = refusal(prepare, image_folder(tmp_path))
    assert message.startswith(f"data.path: {tmp_path}")
    assert expected in message
    assert refusal(inspect_source, image_folder(tmp_path)) == message


def test_test_images_of_unknown_classes_are_dropped(tmp_path: Path):
    unlabelled = ["test/7.png", "test/wasps/1.png"]
    write_images(tmp_path, [*split_names("{side}/{label}", COUNTS), *unlabelled])
    manifest = prepare(image_folder(tmp_path)).manifest.set_index("file")
    assert manifest.loc[unlabelled, "split"].tolist() == ["", ""]
    assert manifest.loc[unlabelled, "reason"].tolist() == [
        "outside the class folders: no class",
        "unknown class: it has no training images",
    ]
    assert Counter(manifest["split"]) == {"train": 16, "validation": 6, "test": 4, "": 2}


def test_folders_without_images_are_neither_sides_nor_classes(tmp_path: Path):
    write_images(tmp_path, split_names("images/{side}/{label}", COUNTS))
    write_file(tmp_path / "annotations" / "train.json", b"{}")
    write_file(tmp_path / "images" / "meta" / "list.csv", b"1,2")
    prepared = prepare(image_folder(tmp_path))
    assert prepared.data.spec.classes == ("ants", "bees")
    assert sides_of(prepared)[""] == {"annotations/train.json", "images/meta/list.csv"}


def test_image_on_two_sides_counts_for_the_first(tmp_path: Path):
    write_images(tmp_path, split_names("{side}/{label}", COUNTS))
    for other in ("test/bees/8.png", "val/ants/8.png"):
        shutil.copy(tmp_path / "train" / "ants" / "0.png", tmp_path / other)
    shutil.copy(tmp_path / "val" / "bees" / "0.png", tmp_path / "test" / "bees" / "9.png")
    prepared = prepare(image_folder(tmp_path))
    manifest = prepared.manifest.set_index("file")
    assert manifest.loc["train/ants/0.png", "split"] == "train"
    assert manifest.loc["val/ants/8.png", "reason"] == (
        "duplicate: of train/ants/0.png, which is on another side of the split"
    )
    assert manifest.loc["test/bees/8.png", "reason"] == (
        "duplicate: of train/ants/0.png, which is of another class and on another side of the split"
    )
    assert manifest.loc["test/bees/9.png", "reason"].startswith("duplicate: of val/bees/0.png")
    sides = prepared.manifest[prepared.manifest["split"] != ""].groupby("split")["sha256"].agg(set)
    assert not sides["train"] & sides["validation"]
    assert not sides["test"] & (sides["train"] | sides["validation"])
    assert summary_line(prepared, "3 files are on").startswith("3 files are on two sides of the split; ")


def test_validation_side_that_repeats_training_is_rejected(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, split_names("{side}/{label}", {"train": 3}))
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    message = refusal(prepare, image_folder(tmp_path))
    assert message.startswith(f"data.path: {tmp_path} has no usable validation images; there, of 6 files ")
    assert "6 duplicate" in message


def test_class_of_a_given_split_may_have_one_training_image(tmp_path: Path):
    write_images(tmp_path, [*split_names("{side}/{label}", COUNTS), "train/wasps/1.png", "val/wasps/1.png"])
    prepared = prepare(image_folder(tmp_path))
    assert prepared.data.spec.classes == ("ants", "bees", "wasps")
    assert np.bincount(labels_of(prepared.data.validation)).tolist() == [3, 3, 1]


def test_class_without_validation_images_is_reported(tmp_path: Path):
    write_images(tmp_path, [*split_names("{side}/{label}", COUNTS), "train/wasps/1.png"])
    assert "no validation images of wasps: add some to its folder" in prepare(image_folder(tmp_path)).summary


def test_class_with_only_corrupt_training_images_is_rejected(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, [*split_names("{side}/{label}", COUNTS), "val/wasps/1.png"])
    write_file(tmp_path / "train" / "wasps" / "1.png", b"damaged")
    assert "validation images of classes without training images (wasps)" in refusal(prepare, image_folder(tmp_path))


# Files of systems and cameras.


def test_files_of_systems_and_cameras_are_dropped(tmp_path: Path):
    write_network_drive(tmp_path / "set")
    write_zip(tmp_path / "set.zip", tmp_path / "set")
    for path in (tmp_path / "set", tmp_path / "set.zip"):
        prepared = prepare(image_folder(path), 2)
        used = prepared.manifest[prepared.manifest["reason"] == ""]
        assert set(used["file"]) == {f"{label}/{number}.jpg" for label in ("ants", "bees") for number in range(20)}
        assert summary_line(prepared, "2 classes") == "2 classes: ants (20), bees (20)"
        dropped = prepared.manifest[prepared.manifest["reason"] != ""]
        assert set(dropped["reason"].str.partition(":")[0]) == {"system file"}
        assert set(dropped["class"]) == {""}
        assert f"{len(dropped)} system file" in prepared.summary[0]


# Datasets copied into themselves.


def test_dataset_copied_into_itself_is_used_once(tmp_path: Path):
    write_images(tmp_path, [f"{label}/{number}.png" for label in ("daisy", "rose", "tulip") for number in range(5)])
    expected = prepare(image_folder(tmp_path))
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    shutil.move(tmp_path.with_name("copy"), tmp_path / "a" / "flowers")
    write_images(tmp_path / "a" / "flowers" / "rose", ["new.png", "ants.png"])
    prepared = prepare(image_folder(tmp_path))
    assert prepared.data.spec.classes == ("daisy", "rose", "tulip")
    assert summary_line(prepared, "3 classes") == "3 classes: daisy (5), rose (7), tulip (5)"
    assert summary_line(prepared, "repeated: ").startswith("repeated: the folder a contains daisy, rose, tulip again")
    shutil.rmtree(tmp_path / "a" / "flowers" / "rose")
    again = prepare(image_folder(tmp_path))
    assert np.array_equal(images_of(again.data.train), images_of(expected.data.train))
    assert np.array_equal(images_of(again.data.validation), images_of(expected.data.validation))
    assert sides_of(again)[""] == {f"a/flowers/{label}/{n}.png" for label in ("daisy", "tulip") for n in range(5)}


def test_split_dataset_copied_into_itself_is_used_once(tmp_path: Path):
    write_images(tmp_path, split_names("{side}/{label}", COUNTS))
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    shutil.move(tmp_path.with_name("copy"), tmp_path / "set")
    prepared = prepare(image_folder(tmp_path))
    assert Counter(prepared.manifest["split"]) == {"train": 16, "validation": 6, "test": 4, "": 26}
    assert summary_line(prepared, "repeated: ").startswith("repeated: the folder set contains test, train, val again")


def test_partly_repeating_folder_is_rejected(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, ["ants/1.png", "bees/1.png", "full/ants/1.png", "full/bees/1.png", "full/wasps/1.png"])
    message = refusal(prepare, image_folder(tmp_path))
    assert "full contains folders named like its siblings (ants, bees) and others (wasps); " in message


@pytest.mark.parametrize("name", ["all", "zoo"])
@pytest.mark.parametrize("drop", [True, False])
def test_class_that_repeats_images_of_others_is_rejected(tmp_path: Path, refusal: Callable, name: str, drop: bool):
    write_images(tmp_path, [f"{label}/{label}{number}.png" for label in ("ants", "bees") for number in range(4)])
    write_images(tmp_path, [f"{name}/more.png"])
    for label in ("ants", "bees"):
        for file in (tmp_path / label).iterdir():
            shutil.copy(file, tmp_path / name)
    message = refusal(prepare, image_folder(tmp_path, drop_duplicates=drop))
    assert message.startswith(f"data.path: {tmp_path} has ")
    assert "in other classes too" in message


@pytest.mark.parametrize(
    ("labels", "parts"),
    [("abc", "abc"), (("left", "right"), ("left", "right")), ("0123456789", "123")],
    ids=["named after each other", "left and right", "numbers"],
)
def test_classes_with_parts_named_like_classes_are_classes(labels: Sequence[str], parts: Sequence[str]):
    names = [f"{label}/{part}/{n}.png" for label in labels for part in parts for n in range(2)]
    layout = infer_layout(names, "set")
    assert all(place.label == name.partition("/")[0] for name, place in layout.places.items())
    assert not layout.repeats


def test_repeating_folder_with_other_images_is_rejected(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, [f"{label}/{n}.png" for label in ("1", "2", "0/1", "0/2") for n in range(4)])
    shutil.copy(tmp_path / "1" / "0.png", tmp_path / "0" / "1")
    message = refusal(prepare, image_folder(tmp_path))
    assert "has folders named like those around them, but only 1 of the 8 images in them are copies; " in message


def test_folders_with_the_same_subfolders_are_reported(tmp_path: Path):
    names = [f"{kind}/in/{label}/{n}.png" for kind in ("color", "gray") for label in ("ants", "bees") for n in range(3)]
    write_images(tmp_path, names)
    prepared = prepare(image_folder(tmp_path))
    assert prepared.data.spec.classes == ("color", "gray")
    beginning = "classes: each of them contains the same folders, ants, bees; "
    assert summary_line(prepared, "classes: ").startswith(beginning)
    assert inspect_source(image_folder(tmp_path)).lines[1].startswith(f"data: {beginning}")
    write_images(tmp_path, ["gray/1.png"])
    assert not any(line.startswith("classes: ") for line in prepare(image_folder(tmp_path)).summary)


def test_study_printed_in_the_report_parses_to_the_same_study(tmp_path: Path):
    for keys in ({}, {"split_seed": 3}):
        data = {"source": "image_folder", "path": str(tmp_path), "image_size": [4, 4], **keys}
        study = Study.from_mapping({"name": "s", "data": data}, "s.yaml")
        printed = YAML(typ="safe").load(json.loads(study.specs.report)["config"])
        again = Study.from_mapping(printed, "printed")
        assert again == study
        assert again.specs.data == study.specs.data


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["cats/1.jpg", "dogs/1.jpg"], ""),
        (["readme.pdf", "cats/1.jpg", "dogs/1.jpg"], ""),
        (["PetImages/cats/1.jpg", "PetImages/dogs/1.jpg"], "PetImages/"),
        (["readme.txt", "top/a.docx", "top/in/cats/1.jpg", "top/in/dogs/1.jpg"], "top/in/"),
        ([".git/x", "__MACOSX/top/cats/._1.jpg", "top/cats/1.jpg", "top/dogs/1.jpg"], "top/"),
        (["cats/old/1.jpg", "cats/1.jpg", "cats/new/2.jpg"], ""),
        (["cats/1.jpg"], ""),
        (["1.jpg"], ""),
        ([], ""),
    ],
)
def test_class_root_skips_folders_around_the_classes(names: list[str], root: str):
    assert class_root(names) == root
