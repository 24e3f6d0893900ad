"""Interpretation of the folders of an image set: classes, sides of a split, and copies of the set inside itself."""

import mimetypes
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from posixpath import splitext
from typing import NamedTuple

from PIL import Image

from batchscape.data.listing import is_clutter
from batchscape.data.source import join_names
from batchscape.data.spec import SIDE_OF_WORD, SIDES, TRAIN, VALIDATION
from batchscape.errors import UserError

OUTSIDE = "outside the class folders: no class"

# Without the tables of the operating system, which differ between machines.
MIME_TYPES = mimetypes.MimeTypes()


class Placement(NamedTuple):
    """What the folders of a file say about it."""

    side: str
    """One of SIDES; empty if the folders give no split."""

    label: str
    """Name of its class; empty if it is in no class folder."""

    is_repeat: bool
    """Whether it is in a folder that repeats the set."""


class Layout(NamedTuple):
    """The meaning of the folders of an image set."""

    places: dict[str, Placement]
    """The placement of each file, by its name."""

    side_folders: dict[str, list[str]]
    """Names of the folders of each side; empty if the folders give no split."""

    repeats: dict[str, list[str]]
    """Folders that repeat the set, by their path: the classes or sides in them."""

    common: list[str]
    """Two or more folders that every class contains, and nothing else; empty if there are none."""

    @property
    def notes(self) -> list[str]:
        """How the folders were interpreted, one line each, for the log."""
        notes = []
        if self.side_folders:
            sides = "; ".join(f"{side} in {join_names(names)}" for side, names in self.side_folders.items())
            notes.append(f"split: given by the folders: {sides}")
        notes += [
            f"repeated: the folder {folder} contains {join_names(names)} again, which are also beside it; "
            "images that are not copies are added to these"
            for folder, names in self.repeats.items()
        ]
        if self.common:
            notes.append(
                f"classes: each of them contains the same folders, {join_names(self.common)}; "
                "if those are the classes, set data.path to one of the folders around them"
            )
        return notes


def infer_layout(names: Sequence[str], source: str) -> Layout:
    """Return the meaning of the folders in the paths of files, which use `/`.

    The classes are the first level with more than one folder, or with folders of images. Folders are sides of a split,
    above the classes or within each, if each of their names has exactly one word of SIDE_OF_WORD, and at least one is
    for training and one is not. A folder that contains only folders named like its siblings repeats the set.

    Raises UserError, naming `source`, if folders of a split have other siblings or are at an unexpected level, if none
    of them is for training, or if the validation side has a class that the training side lacks.
    """
    root = class_root(names)
    groups, repeats = _merge_repeats(_group_by_folder(names, root), root, source)
    sides = _sides_of_split(_with_images(groups), f"{source}/{root}".rstrip("/"))
    layout = (
        _layout_with_sides_above(names, groups, sides, repeats, source)
        if sides
        else _layout_with_sides_within(names, groups, repeats, source)
    )
    if not layout.side_folders:
        _reject_misplaced_sides(_below(names, root), source)
    return layout


def class_root(names: Iterable[str], keep: Collection[str] = (), keep_sides: bool = False) -> str:
    """Return the part of image paths before the class folders, with a trailing `/`; empty if there is none.

    A folder belongs to this part if it is the only one with possible images, contains folders, and contains no images
    directly. Folders in `keep` are always classes; with `keep_sides`, so are folders named like a side of a split.
    """
    root, names = "", [name for name in names if not is_clutter(name)]
    while True:
        below = [name.removeprefix(root) for name in names if name.startswith(root)]
        folders = {name.partition("/")[0] for name in below if "/" in name and may_be_image(name)}
        if len(folders) != 1:
            return root
        folder = folders.pop()
        prefix = f"{folder}/"
        inside = [name.removeprefix(prefix) for name in below if name.startswith(prefix)]
        if folder in keep or (keep_sides and parse_side(folder)):
            return root
        if not any("/" in name for name in inside) or any(_is_image(name) for name in inside if "/" not in name):
            return root
        root += prefix


def parse_side(folder: str) -> str:
    """Return the side of a split in a folder's name (`train`, `seg_train`, `TestData2`); empty if there is none."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder))
    sides = list(filter(None, (SIDE_OF_WORD.get(word.lower().removesuffix("set")) for word in words)))
    return sides[0] if len(sides) == 1 else ""


def may_be_image(name: str) -> bool:
    """Return whether a file may be an image, judging by its suffix: unless it is that of a text or document format."""
    return _suffix_may_be_image(splitext(name)[1].lower())


def _is_image(name: str) -> bool:
    return _is_image_suffix(splitext(name)[1].lower())


@cache
def _suffix_may_be_image(suffix: str) -> bool:
    kind = MIME_TYPES.guess_type(f"file{suffix}")[0] or ""
    return _is_image_suffix(suffix) or not kind.startswith(("text/", "application/"))


@cache
def _is_image_suffix(suffix: str) -> bool:
    return Image.registered_extensions().get(suffix) in Image.OPEN


Groups = dict[str, dict[str, str]]
"""Files by folder: for each file's name, the rest of its path behind the folder."""

Repeats = dict[str, list[str]]
"""As in Layout."""


def _group_by_folder(names: Iterable[str], root: str) -> Groups:
    groups: Groups = defaultdict(dict)
    for name in names:
        folder, slash, rest = name.removeprefix(root).partition("/")
        if slash and name.startswith(root):
            groups[folder][name] = rest
    return groups


def _first_folders(paths: Iterable[str]) -> set[str]:
    """Return the first folder of each path to a possible image."""
    return {path.partition("/")[0] for path in paths if "/" in path and may_be_image(path)}


def _merge_repeats(groups: Groups, root: str, source: str) -> tuple[Groups, Repeats]:
    """Return the groups, with files of repeating folders moved to the folders that these repeat, and the repeats."""
    folders = set(_with_images(groups))
    subfolders = {folder: _first_folders(_below_root(groups[folder]).values()) for folder in folders}
    repeating = {folder for folder in folders if len(subfolders[folder] & folders) > 1}
    # If the repeated folders contain such folders too, these are parts that all classes have, such as numbers.
    repeating = {
        folder for folder in repeating if folder not in subfolders[folder] and not subfolders[folder] & repeating
    }
    for folder in sorted(repeating):
        others = subfolders[folder] - folders
        if others:
            raise UserError(
                f"data.path: {source}/{root}{folder} contains folders named like its siblings "
                f"({join_names(subfolders[folder] & folders)}) and others ({join_names(others)}); "
                "set data.path to one of the two levels, or move the folder away"
            )
    merged: Groups = {folder: dict(files) for folder, files in groups.items() if folder not in repeating}
    for folder in repeating:
        for name, path in _below_root(groups[folder]).items():
            target, slash, rest = path.partition("/")
            if slash and target in merged:
                merged[target][name] = rest
    return merged, {f"{root}{folder}": sorted(subfolders[folder]) for folder in sorted(repeating)}


def _below_root(files: dict[str, str]) -> dict[str, str]:
    """Return files with the rest of their path behind the folders that are around all of them."""
    root = class_root(files.values())
    return {name: path.removeprefix(root) for name, path in files.items() if path.startswith(root)}


def _with_images(groups: Groups) -> Groups:
    return {folder: files for folder, files in groups.items() if any(map(may_be_image, files))}


def _sides_of_split(folders: Collection[str], where: str) -> dict[str, str]:
    """Return the side of each folder if the folders are the sides of a split; otherwise nothing."""
    sides = {folder: parse_side(folder) for folder in folders}
    named = {folder for folder, side in sides.items() if side}
    distinct = {sides[folder] for folder in named}
    if len(distinct) < 2 or (TRAIN not in distinct and len(named) < len(folders)):
        return {}
    if TRAIN not in distinct:
        raise UserError(
            f"data.path: {where} has the folders {join_names(named)} of a split, but none for training; "
            "add a folder `train`, or rename the folders if they are classes"
        )
    if len(named) < len(folders):
        raise UserError(
            f"data.path: {where} has folders of a split ({join_names(named)}) beside others "
            f"({join_names(set(folders) - named)}); move the others away, or rename the folders if all are classes"
        )
    return sides


def _layout_with_sides_above(
    names: Sequence[str], groups: Groups, sides: dict[str, str], repeats: Repeats, source: str
) -> Layout:
    """Return the layout of a split whose sides contain the classes."""
    placed: dict[str, tuple[str, str]] = {}
    classes: set[str] = set()
    for folder in sorted(sides, key=lambda folder: (SIDES.index(sides[folder]), folder)):
        files = groups[folder]
        root = class_root(files.values(), keep=classes)
        for name, path in files.items():
            label, slash, _ = path.removeprefix(root).partition("/")
            placed[name] = sides[folder], label if slash and path.startswith(root) else ""
            if sides[folder] == TRAIN and placed[name][1] and may_be_image(name):
                classes.add(label)
    return _split_layout(names, placed, sides, repeats, source)


def _layout_with_sides_within(names: Sequence[str], groups: Groups, repeats: Repeats, source: str) -> Layout:
    """Return the layout of classes that contain the sides of a split, or no split."""
    images = _with_images(groups)
    roots = {label: class_root(files.values(), keep_sides=True) for label, files in images.items()}
    subfolders = {label: _first_folders(_below(files.values(), roots[label])) for label, files in images.items()}
    with_sides = {label for label, folders in subfolders.items() if folders and all(map(parse_side, folders))}
    side_folders = sorted({folder for label in with_sides for folder in subfolders[label]})
    sides = _sides_of_split(side_folders, f"{source}/*")
    without_sides = {
        label
        for label, files in images.items()
        if label not in with_sides
        or any(_is_image(path) for path in _below(files.values(), roots[label]) if "/" not in path)
    }
    if not sides:
        placed = {name: ("", label) for label, files in groups.items() for name in files}
        return Layout(_placements(names, placed, repeats), {}, repeats, _common_folders(images, subfolders, roots))
    if without_sides:
        raise UserError(
            f"data.path: {source} has classes with folders of a split ({join_names(side_folders)}) and classes without "
            f"({join_names(without_sides)}); put all images of each class into such folders, or none"
        )
    placed = {}
    below_sides: list[set[str]] = []
    for label, files in images.items():
        below_sides.append(set())
        for name, path in files.items():
            folder, slash, rest = path.removeprefix(roots[label]).partition("/")
            if slash and path.startswith(roots[label]) and folder in sides:
                placed[name] = sides[folder], label
                below_sides[-1] |= _first_folders([rest])
    common = set.intersection(*below_sides)
    if len(common) > 1:
        raise UserError(
            f"data.path: {source} has several sets ({join_names(images)}), each with the folders of a split and in "
            f"these {join_names(common)}; set data.path to one of the sets"
        )
    return _split_layout(names, placed, sides, repeats, source)


def _common_folders(groups: Groups, subfolders: dict[str, set[str]], roots: dict[str, str]) -> list[str]:
    """Return the folders in each group if there are several, all groups have the same, and no images beside them."""
    first = next(iter(subfolders.values()), set())
    if len(groups) < 2 or len(first) < 2 or any(folders != first for folders in subfolders.values()):
        return []
    images = ((path, roots[label]) for label, files in groups.items() for path in files.values() if _is_image(path))
    all_in_folders = all(path.startswith(root) and "/" in path.removeprefix(root) for path, root in images)
    return sorted(first) if all_in_folders else []


def _reject_misplaced_sides(paths: Iterable[str], source: str) -> None:
    """Raise UserError if folders of images are named like a split, but no split was found."""
    folders = {folder for path in paths if may_be_image(path) for folder in path.split("/")[:-1]}
    named = {folder for folder in folders if parse_side(folder) and re.fullmatch(r"[^\W\d_]+[\d_]*", folder)}
    sides = {parse_side(folder) for folder in named}
    if TRAIN in sides and len(sides) > 1:
        raise UserError(
            f"data.path: {source} has folders of a split ({join_names(named)}), but neither around its classes nor "
            "directly inside each of them; move them there, or rename them if they mean something else"
        )


def _below(paths: Iterable[str], root: str) -> list[str]:
    return [path.removeprefix(root) for path in paths if path.startswith(root)]


def _split_layout(
    names: Sequence[str], placed: dict[str, tuple[str, str]], sides: dict[str, str], repeats: Repeats, source: str
) -> Layout:
    """Return the layout of a split, checked: `placed` has the side and the class of each file."""
    classes = {side: {label for name, (of, label) in placed.items() if of == side and label} for side in SIDES}
    folders = {side: sorted(folder for folder in sides if sides[folder] == side) for side in SIDES}
    for side in (TRAIN, VALIDATION):
        if folders[side] and not classes[side]:
            raise UserError(
                f"data.path: {source} is split into {join_names(sides)}, but {join_names(folders[side])} has no class "
                "folders; put its images into one folder per class"
            )
    with_images = {label for name, (of, label) in placed.items() if of == VALIDATION and label and may_be_image(name)}
    require_training_classes(with_images, classes[TRAIN], source)
    used = {side: folders[side] for side in SIDES if folders[side]}
    return Layout(_placements(names, placed, repeats), used, repeats, [])


def require_training_classes(validation: Collection[str], training: Collection[str], source: str) -> None:
    """Raise UserError if the validation side has classes that the training side lacks."""
    missing = set(validation) - set(training)
    if missing:
        raise UserError(
            f"data.path: {source} has validation images of classes without training images ({join_names(missing)}); "
            "give both sides the same class folders"
        )


def _placements(names: Sequence[str], placed: dict[str, tuple[str, str]], repeats: Repeats) -> dict[str, Placement]:
    repeating = tuple(f"{folder}/" for folder in repeats)
    return {
        name: Placement(*placed.get(name, ("", "")), bool(repeating) and name.startswith(repeating)) for name in names
    }
