"""Image sets as they are found: how the folders are read, which level is white, and what is said of it."""

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

from batchscape.config.data import DataConfig, ImageFolderConfig
from batchscape.data.decode import decode_image, open_image
from batchscape.data.inspect import inspect_source
from batchscape.data.layout import infer_layout
from batchscape.data.listing import is_clutter
from batchscape.data.prepare import PrepareResult, prepare
from batchscape.data.source import join_names
from batchscape.study.study import Study
from tests.helpers.bad_images import encode_image, make_image, write_file, write_zip
from tests.helpers.image_sets import (
    encode_16_bit_png,
    encode_16_bit_tiff,
    split_names,
    write_12_bit_images,
    write_16_bit_png,
    write_images,
    write_network_drive,
)

COUNTS = {"train": 8, "val": 3, "test": 2}
DRAWN = "split: 20 % of the images, drawn at random, are for validation (data.split_seed: 0)"


def config(path: Path | str, **keys) -> ImageFolderConfig:
    return ImageFolderConfig.model_validate(
        {"source": "image_folder", "path": str(path), "image_size": (12, 12)} | keys, strict=True
    )


def sides_of(prepared: PrepareResult) -> dict[str, set[str]]:
    """The files on each side of the split."""
    return prepared.manifest.groupby("split")["file"].agg(set).to_dict()


def line(prepared: PrepareResult, beginning: str) -> str:
    return next(line for line in prepared.summary if line.startswith(beginning))


# Sets that are split already.


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
def test_a_given_split_is_used_whatever_the_order_of_folders(
    tmp_path: Path, order: str, packed: bool, names: tuple[str, str, str]
):
    counts = dict(zip(names, COUNTS.values(), strict=True))
    folder = tmp_path / "set"
    write_images(folder, split_names(order, counts))
    write_file(folder / "readme.txt", b"two classes")
    if packed:
        write_zip(tmp_path / "set.zip", folder)
    prepared = prepare(config(tmp_path / "set.zip" if packed else folder), 2)
    assert prepared.data.classes == ("ants", "bees")
    assert np.bincount(prepared.data.train_labels).tolist() == [8, 8]
    assert np.bincount(prepared.data.validation_labels).tolist() == [3, 3]
    sides = sides_of(prepared)
    for side, name in zip(("train", "validation", "test"), names, strict=True):
        assert sides[side] == set(split_names(order, {name: counts[name]}))
    assert sides[""] == {"readme.txt"}
    assert prepared.summary[0].startswith(
        "26 of 27 files are used: 16 for training, 6 for validation, 4 held out for testing"
    )
    assert line(prepared, "split: ").startswith("split: given by the folders: train in ")


def test_each_image_of_a_given_split_is_on_the_side_and_of_the_class_of_its_folder(tmp_path: Path):
    write_images(tmp_path, split_names("{side}/{label}", COUNTS))
    prepared = prepare(config(tmp_path))
    for side, name in (("train", "train"), ("validation", "val")):
        images = [
            np.asarray(Image.open(tmp_path / name / label / f"{number}.png"))
            for label in ("ants", "bees")
            for number in range(COUNTS[name])
        ]
        assert np.array_equal(getattr(prepared.data, f"{side}_images").transpose(0, 2, 3, 1), images)


def test_test_images_are_held_out_where_nothing_validates(tmp_path: Path):
    write_images(tmp_path, split_names("{side}/{label}", {"train": 10, "test": 4}))
    prepared = prepare(config(tmp_path, validation_fraction=0.3, split_seed=5))
    assert Counter(prepared.manifest["split"]) == {"train": 14, "validation": 6, "test": 8}
    assert sides_of(prepared)["test"] == set(split_names("{side}/{label}", {"test": 4}))
    assert "split: given by the folders: train in train; test in test" in prepared.summary
    drawn = "split: 30 % of the training images, drawn at random, are for validation (data.split_seed: 5)"
    assert drawn in prepared.summary
    # As if there were no test images.
    alone = prepare(config(tmp_path / "train", validation_fraction=0.3, split_seed=5))
    assert np.array_equal(prepared.data.train_images, alone.data.train_images)
    assert np.array_equal(prepared.data.validation_images, alone.data.validation_images)


@pytest.mark.parametrize(
    "keys", [{"validation_fraction": 0.2}, {"split": "random"}, {"split_seed": 0, "split": "first"}], ids=str
)
def test_a_split_that_is_asked_for_beside_a_given_one_is_refused_also_if_it_is_the_default(
    tmp_path: Path, refusal: Callable, keys: dict
):
    write_images(tmp_path, split_names("{side}/{label}", {"train": 3, "val": 2}))
    study = {"name": "s", "data": {"source": "image_folder", "path": str(tmp_path), "image_size": [12, 12]}}
    asked = Study.from_mapping({**study, "data": study["data"] | keys}, "s")
    in_job = TypeAdapter(DataConfig).validate_json(asked.specs.data)
    for look in (prepare, inspect_source):
        message = refusal(look, in_job)
        assert set(message.partition(": ")[0].split(", ")) == {f"data.{key}" for key in keys}
        assert f"the folders of {tmp_path} give the split (train, val)" in message
    silent = TypeAdapter(DataConfig).validate_json(Study.from_mapping(study, "s").specs.data)
    assert len(prepare(silent).data.validation_labels) == 4


def test_a_split_that_is_set_makes_the_data_stale_only_where_folders_may_give_one():
    def data_spec(**keys) -> str:
        return Study.from_mapping({"name": "s", "data": keys}, "s").specs.data

    assert data_spec() == data_spec(split_seed=0)
    folder = {"source": "image_folder", "path": "pets", "image_size": [8, 8]}
    assert data_spec(**folder) != data_spec(**folder, split_seed=0)


def test_classes_named_train_and_test_stay_classes_if_there_is_no_split(tmp_path: Path):
    write_images(tmp_path, [f"{label}/{number}.png" for label in ("bus", "car", "train") for number in range(4)])
    prepared = prepare(config(tmp_path))
    assert prepared.data.classes == ("bus", "car", "train")
    assert DRAWN in prepared.summary
    assert set(prepared.manifest["split"]) == {"train", "validation"}


def test_a_single_side_is_a_folder_around_the_classes(tmp_path: Path):
    write_images(tmp_path, split_names("set/{side}/{label}", {"train": 5}))
    prepared = prepare(config(tmp_path))
    assert (prepared.data.classes, set(prepared.manifest["split"])) == (("ants", "bees"), {"train", "validation"})


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
def test_a_split_that_cannot_be_understood_is_refused_before_any_image_is_read(
    tmp_path: Path, refusal: Callable, names: list[str], expected: str
):
    for name in names:
        write_file(tmp_path / name, b"not read")
    message = refusal(prepare, config(tmp_path))
    assert message.startswith(f"data.path: {tmp_path}")
    assert expected in message
    assert refusal(inspect_source, config(tmp_path)) == message


def test_test_images_without_a_class_that_trains_are_dropped_and_refuse_nothing(tmp_path: Path):
    unlabelled = ["test/7.png", "test/wasps/1.png"]
    write_images(tmp_path, [*split_names("{side}/{label}", COUNTS), *unlabelled])
    manifest = prepare(config(tmp_path)).manifest.set_index("file")
    assert manifest.loc[unlabelled, "split"].tolist() == ["", ""]
    assert manifest.loc[unlabelled, "reason"].tolist() == [
        "outside the class folders: no class",
        "unknown class: it has no training images",
    ]
    assert Counter(manifest["split"]) == {"train": 16, "validation": 6, "test": 4, "": 2}


def test_folders_without_images_are_no_side_and_no_class(tmp_path: Path):
    write_images(tmp_path, split_names("images/{side}/{label}", COUNTS))
    write_file(tmp_path / "annotations" / "train.json", b"{}")
    write_file(tmp_path / "images" / "meta" / "list.csv", b"1,2")
    prepared = prepare(config(tmp_path))
    assert prepared.data.classes == ("ants", "bees")
    assert sides_of(prepared)[""] == {"annotations/train.json", "images/meta/list.csv"}


def test_an_image_on_two_sides_stays_on_the_first_one(tmp_path: Path):
    write_images(tmp_path, split_names("{side}/{label}", COUNTS))
    for other in ("test/bees/8.png", "val/ants/8.png"):
        shutil.copy(tmp_path / "train" / "ants" / "0.png", tmp_path / other)
    shutil.copy(tmp_path / "val" / "bees" / "0.png", tmp_path / "test" / "bees" / "9.png")
    prepared = prepare(config(tmp_path))
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
    assert line(prepared, "3 files are on").startswith("3 files are on two sides of the split; ")


def test_a_side_that_repeats_another_one_is_refused(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, split_names("{side}/{label}", {"train": 3}))
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    message = refusal(prepare, config(tmp_path))
    assert message.startswith(f"data.path: {tmp_path} has no usable validation images; there, of 6 files ")
    assert "6 duplicate" in message


def test_a_class_of_a_given_split_may_have_a_single_image_to_train_on(tmp_path: Path):
    write_images(tmp_path, [*split_names("{side}/{label}", COUNTS), "train/wasps/1.png", "val/wasps/1.png"])
    prepared = prepare(config(tmp_path))
    assert prepared.data.classes == ("ants", "bees", "wasps")
    assert np.bincount(prepared.data.validation_labels).tolist() == [3, 3, 1]


def test_a_class_without_images_to_validate_on_is_told(tmp_path: Path):
    write_images(tmp_path, [*split_names("{side}/{label}", COUNTS), "train/wasps/1.png"])
    assert "no validation images of wasps: add some to its folder" in prepare(config(tmp_path)).summary


def test_a_class_whose_images_to_train_on_are_all_damaged_is_refused(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, [*split_names("{side}/{label}", COUNTS), "val/wasps/1.png"])
    write_file(tmp_path / "train" / "wasps" / "1.png", b"damaged")
    assert "validation images of classes without training images (wasps)" in refusal(prepare, config(tmp_path))


# Folders that no user made.


def test_what_systems_and_cameras_keep_is_no_class_and_never_trains(tmp_path: Path):
    write_network_drive(tmp_path / "set")
    write_zip(tmp_path / "set.zip", tmp_path / "set")
    for path in (tmp_path / "set", tmp_path / "set.zip"):
        prepared = prepare(config(path), 2)
        used = prepared.manifest[prepared.manifest["reason"] == ""]
        assert set(used["file"]) == {f"{label}/{number}.jpg" for label in ("ants", "bees") for number in range(20)}
        assert line(prepared, "2 classes") == "2 classes: ants (20), bees (20)"
        dropped = prepared.manifest[prepared.manifest["reason"] != ""]
        assert set(dropped["reason"].str.partition(":")[0]) == {"system file"}
        assert set(dropped["class"]) == {""}
        assert f"{len(dropped)} system file" in prepared.summary[0]


@pytest.mark.parametrize("name", ["trash", "recycle", "misc", "@alice", "#1", "$100", "thumbs", "Cameras", "lost"])
def test_a_class_that_is_named_like_a_system_folder_is_none(name: str):
    assert not is_clutter(f"{name}/1.jpg")


# Sets inside themselves.


def test_a_set_copied_into_itself_is_used_once(tmp_path: Path):
    write_images(tmp_path, [f"{label}/{number}.png" for label in ("daisy", "rose", "tulip") for number in range(5)])
    expected = prepare(config(tmp_path))
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    shutil.move(tmp_path.with_name("copy"), tmp_path / "a" / "flowers")
    write_images(tmp_path / "a" / "flowers" / "rose", ["new.png", "ants.png"])
    prepared = prepare(config(tmp_path))
    assert prepared.data.classes == ("daisy", "rose", "tulip")
    assert line(prepared, "3 classes") == "3 classes: daisy (5), rose (7), tulip (5)"
    assert line(prepared, "repeated: ").startswith("repeated: the folder a contains daisy, rose, tulip again")
    shutil.rmtree(tmp_path / "a" / "flowers" / "rose")
    again = prepare(config(tmp_path))
    assert np.array_equal(again.data.train_images, expected.data.train_images)
    assert np.array_equal(again.data.validation_images, expected.data.validation_images)
    assert sides_of(again)[""] == {f"a/flowers/{label}/{n}.png" for label in ("daisy", "tulip") for n in range(5)}


def test_a_split_set_copied_into_itself_is_used_once(tmp_path: Path):
    write_images(tmp_path, split_names("{side}/{label}", COUNTS))
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    shutil.move(tmp_path.with_name("copy"), tmp_path / "set")
    prepared = prepare(config(tmp_path))
    assert Counter(prepared.manifest["split"]) == {"train": 16, "validation": 6, "test": 4, "": 26}
    assert line(prepared, "repeated: ").startswith("repeated: the folder set contains test, train, val again")


def test_a_folder_with_the_classes_and_others_is_refused(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, ["ants/1.png", "bees/1.png", "full/ants/1.png", "full/bees/1.png", "full/wasps/1.png"])
    message = refusal(prepare, config(tmp_path))
    assert "full contains folders named like its siblings (ants, bees) and others (wasps); " in message


@pytest.mark.parametrize("name", ["all", "zoo"])
@pytest.mark.parametrize("drop", [True, False])
def test_a_class_that_repeats_the_images_of_others_is_refused(tmp_path: Path, refusal: Callable, name: str, drop: bool):
    write_images(tmp_path, [f"{label}/{label}{number}.png" for label in ("ants", "bees") for number in range(4)])
    write_images(tmp_path, [f"{name}/more.png"])
    for label in ("ants", "bees"):
        for file in (tmp_path / label).iterdir():
            shutil.copy(file, tmp_path / name)
    message = refusal(prepare, config(tmp_path, drop_duplicates=drop))
    assert message.startswith(f"data.path: {tmp_path} has ")
    assert "in other classes too" in message


@pytest.mark.parametrize(
    ("labels", "parts"),
    [("abc", "abc"), (("left", "right"), ("left", "right")), ("0123456789", "123")],
    ids=["named after each other", "left and right", "numbers"],
)
def test_classes_with_parts_that_are_named_like_classes_stay_classes(labels: Sequence[str], parts: Sequence[str]):
    names = [f"{label}/{part}/{n}.png" for label in labels for part in parts for n in range(2)]
    layout = infer_layout(names, "set")
    assert all(place.label == name.partition("/")[0] for name, place in layout.places.items())
    assert not layout.repeats


def test_folders_named_like_classes_that_hold_other_images_are_refused(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, [f"{label}/{n}.png" for label in ("1", "2", "0/1", "0/2") for n in range(4)])
    shutil.copy(tmp_path / "1" / "0.png", tmp_path / "0" / "1")
    message = refusal(prepare, config(tmp_path))
    assert "has folders named like those around them, but only 1 of the 8 images in them are copies; " in message


def test_folders_that_hold_the_same_classes_are_told(tmp_path: Path):
    names = [
        f"{kind}/in/{label}/{n}.png" for kind in ("colour", "grey") for label in ("ants", "bees") for n in range(3)
    ]
    write_images(tmp_path, names)
    prepared = prepare(config(tmp_path))
    assert prepared.data.classes == ("colour", "grey")
    beginning = "classes: each of them contains the same folders, ants, bees; "
    assert line(prepared, "classes: ").startswith(beginning)
    assert inspect_source(config(tmp_path)).lines[1].startswith(f"data: {beginning}")
    write_images(tmp_path, ["grey/1.png"])
    assert not any(line.startswith("classes: ") for line in prepare(config(tmp_path)).summary)


def test_names_in_a_zip_that_lead_out_of_it_lead_nowhere(tmp_path: Path):
    write_images(tmp_path / "set", [f"{label}/{n}.png" for label in ("ants", "bees") for n in range(3)])
    write_zip(tmp_path / "set.zip", tmp_path / "set", inside="../../")
    assert np.array_equal(
        prepare(config(tmp_path / "set.zip")).data.train_images, prepare(config(tmp_path / "set")).data.train_images
    )


def test_files_with_several_images_are_told(tmp_path: Path):
    write_images(tmp_path, [f"{label}/{n}.png" for label in ("ants", "bees") for n in range(3)])
    first, second = (make_image(0, number, (12, 12)).convert("L") for number in (100, 101))
    for name, kind in (("ants/stack.tif", "TIFF"), ("bees/film.gif", "GIF"), ("ants/phone.jpg", "MPO")):
        write_file(tmp_path / name, encode_image(first, kind, save_all=True, append_images=[second]))
        first = first.rotate(90)
    write_file(tmp_path / "ants" / "one.tif", encode_image(second, "TIFF"))
    prepared = prepare(config(tmp_path))
    assert line(prepared, "pages: ") == "pages: 2 files contain several images, of which only the first is used"
    assert prepared.summary[0].startswith("10 of 10 files are used")


# Values of more than 8 bits.


def test_12_bits_in_16_are_scaled_by_the_level_that_holds_the_whole_set(tmp_path: Path):
    write_12_bit_images(tmp_path)
    prepared = prepare(config(tmp_path, color="grayscale"))
    images = {
        file: np.asarray(Image.open(tmp_path / file)).astype(int)
        for file in prepared.manifest["file"]
        if prepared.manifest.set_index("file").loc[file, "split"] == "train"
    }
    expected = [np.round(values * 255 / 4095) for values in images.values()]
    assert np.array_equal(prepared.data.train_images[:, 0], expected)
    assert line(prepared, "levels: 4,095").startswith("levels: 4,095 is white in 20 files of 16 bits (their largest ")
    assert "darker half" not in line(prepared, "levels: pixel values")


@pytest.mark.parametrize(
    ("brightest", "white"),
    [(3, 255), (255, 255), (256, 511), (1000, 1023), (16383, 16383), (16384, 32767), (40000, 65535)],
)
def test_the_white_level_has_as_few_bits_as_hold_the_largest_value(tmp_path: Path, brightest: int, white: int):
    for number, label in enumerate(("ants", "ants", "bees", "bees")):
        values = np.zeros((12, 12), np.uint16)
        values[number] = brightest if number == 2 else 1
        write_16_bit_png(tmp_path / label / f"{number}.png", values)
    prepared = prepare(config(tmp_path, color="grayscale", validation_fraction=0.5))
    both = np.concatenate([prepared.data.train_images, prepared.data.validation_images])
    assert both.max() == round(brightest * 255 / white)
    assert any(f"levels: {white:,} is white in 4 files" in line for line in prepared.summary)


def test_the_white_level_that_is_set_is_used_and_what_exceeds_it_is_dropped(tmp_path: Path):
    for label in ("ants", "bees"):
        for number, value in enumerate((100, 200, 1200)):
            write_16_bit_png(
                tmp_path / label / f"{number}.png", np.full((12, 12), value + len(label) + (label == "ants"), np.uint16)
            )
    prepared = prepare(config(tmp_path, color="grayscale", white_level=1000))
    reasons = prepared.manifest.set_index("file")["reason"]
    assert reasons["ants/2.png"] == "above data.white_level: its largest value is 1,205, white is 1,000"
    used = np.concatenate([prepared.data.train_images, prepared.data.validation_images])
    assert set(used.ravel().tolist()) == {round(255 * value / 1000) for value in (104, 105, 204, 205)}
    assert "levels: 1,000 is white in 4 files of 16 bits (set by data.white_level)" in prepared.summary


def test_files_of_8_bits_beside_those_of_12_are_not_scaled(tmp_path: Path):
    write_12_bit_images(tmp_path)
    rng = np.random.default_rng(1)
    plain = {f"ants/plain{n}.png": rng.integers(0, 256, (12, 12), np.uint8) for n in range(3)}
    for name, values in plain.items():
        write_file(tmp_path / name, encode_image(Image.fromarray(values), "PNG"))
    prepared = prepare(config(tmp_path, color="grayscale"))
    side = prepared.manifest.set_index("file")["split"]
    kept = {"train": prepared.data.train_images[:, 0], "validation": prepared.data.validation_images[:, 0]}
    for name, values in plain.items():
        assert (kept[side[name]] == values).all(axis=(1, 2)).any()
    assert any("4,095 is white in 20 files of 16 bits" in line for line in prepared.summary)


def test_the_white_level_is_that_of_the_images_to_test_on_too(tmp_path: Path):
    for side, count in {"train": 3, "val": 2, "test": 2}.items():
        for label, value in (("ants", 500), ("bees", 900)):
            for number in range(count):
                values = np.full((12, 12), value + 10 * number + (3000 if side == "test" else len(side)), np.uint16)
                write_16_bit_png(tmp_path / side / label / f"{number}.png", values)
    prepared = prepare(config(tmp_path))
    assert any("levels: 4,095 is white in 10 files" in line for line in prepared.summary)
    assert prepared.data.train_images.max() == round(925 * 255 / 4095)


RNG = np.random.default_rng(2)
COLORS = RNG.integers(0, 4096, (5, 7, 3)).astype(np.uint16)
ENCODERS = {
    "PNG": encode_16_bit_png,
    **{
        f"TIFF {order} {packed}": lambda values, order=order, packed=packed: encode_16_bit_tiff(values, order, packed)
        for order in "<>"
        for packed in (False, True)
    },
}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("white", [4095, 65535])
def test_colours_of_12_bits_keep_all_their_bits(kind: str, white: int):
    content = ENCODERS[kind](COLORS)
    assert open_image(content).max_value == COLORS.max()
    assert np.array_equal(decode_image(content, (5, 7), "stretch", "rgb", white), np.round(COLORS * (255 / white)))


def test_opacity_of_16_bits_beside_colours_of_12_is_opaque():
    opaque = np.dstack([COLORS, np.full(COLORS.shape[:2], 65535, np.uint16)])
    assert open_image(encode_16_bit_png(opaque)).max_value == COLORS.max()
    assert np.array_equal(
        decode_image(encode_16_bit_png(opaque), (5, 7), "stretch", "rgb", 4095), np.round(COLORS * (255 / 4095))
    )
    opaque[..., 3] = 0
    assert (decode_image(encode_16_bit_png(opaque), (5, 7), "stretch", "rgb", 4095) == 255).all()


def test_a_format_that_names_its_white_level_is_scaled_by_that():
    content = b"P5 2 1 4095\n" + np.array([2048, 4095], ">u2").tobytes()
    assert open_image(content).max_value == 0
    assert decode_image(content, (1, 2), "stretch", "grayscale", 1023).ravel().tolist() == [128, 255]


def test_images_that_use_few_levels_of_8_bits_are_told(tmp_path: Path):
    for number, label in enumerate(("ants", "ants", "bees", "bees")):
        values = np.random.default_rng(number).integers(0, 2, (12, 12), np.uint8)
        write_file(tmp_path / label / f"{number}.png", encode_image(Image.fromarray(values), "PNG"))
    prepared = prepare(config(tmp_path, validation_fraction=0.5))
    assert line(prepared, "levels: ").startswith(
        "levels: pixel values range from 0 to 1 and use 2 of 256 levels; almost all are "
    )


def test_a_pixel_that_is_always_white_does_not_hide_that_the_others_have_12_bits(tmp_path: Path):
    write_12_bit_images(tmp_path)
    for file in tmp_path.rglob("*.png"):
        values = np.array(Image.open(file).resize((64, 64)))
        values[5, 5] = 65535
        write_16_bit_png(file, values)
    dark = prepare(config(tmp_path, color="grayscale", image_size=(64, 64)))
    assert line(dark, "levels: pixel values").startswith("levels: pixel values range from 0 to 255 and use ")
    assert "; almost all are in the darker half: " in line(dark, "levels: pixel values")


# What `check` says.


def test_check_sees_in_names_what_the_job_will_find(tmp_path: Path):
    write_images(tmp_path / "set", split_names("{side}/{label}", COUNTS))
    write_file(tmp_path / "set" / "val" / "notes" / "1.txt", b"no image")
    write_network_drive(tmp_path / "drive")
    inspection = inspect_source(config(tmp_path / "set"))
    summary, split = inspection.lines
    sides = "train: 16, validation: 6, test: 4"
    assert summary == f"data: {tmp_path / 'set'}: 26 of 27 files are images of 2 classes, {sides}: ants (13), bees (13)"
    assert split == "data: split: given by the folders: train in train; validation in val; test in test"
    assert inspection.counts == (16, 6)
    (drive,) = inspect_source(config(tmp_path / "drive")).lines
    assert drive.endswith(" files are images of 2 classes: ants (20), bees (20)")


def test_check_refuses_a_folder_without_classes(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, ["1.png", "2.png"])
    assert "has no images in class folders; " in refusal(inspect_source, config(tmp_path))
    write_images(tmp_path, ["ants/1.png", "ants/2.png"])
    write_file(tmp_path / "bees" / "1.txt", b"no image")
    assert "has images of one class only (ants); " in refusal(inspect_source, config(tmp_path))


def test_more_classes_than_fit_in_a_line_are_summed_up(tmp_path: Path):
    write_images(tmp_path, [f"c{label:02}/{n}.png" for label in range(30) for n in range(2 + (label == 4))])
    prepared = prepare(config(tmp_path))
    assert line(prepared, "30 classes") == "30 classes: from c00 (2) to c04 (3)"


def test_the_study_that_the_report_prints_is_the_study_again(tmp_path: Path):
    for keys in ({}, {"split_seed": 3}):
        data = {"source": "image_folder", "path": str(tmp_path), "image_size": [4, 4], **keys}
        study = Study.from_mapping({"name": "s", "data": data}, "s.yaml")
        printed = YAML(typ="safe").load(json.loads(study.specs.report)["config"])
        again = Study.from_mapping(printed, "printed")
        assert again == study
        assert again.specs.data == study.specs.data


def test_names_are_in_the_order_of_their_numbers():
    assert join_names(["10", "2", "a10", "a9"]) == "2, 10, a9, a10"
