"""What the folders of an image set mean: the sides of a split, the classes, and copies of the set inside itself."""

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
from batchscape.data.split import SIDES, TEST, TRAIN, VALIDATION
from batchscape.errors import UserError

# The words of Hugging Face's datasets, and some more of public sets; `pred` has images without labels.
SIDE_OF_WORD = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validate": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
    "evaluation": TEST,
    "holdout": TEST,
    "pred": TEST,
}

OUTSIDE = "outside the class folders: no class"

# Without the tables of this machine, which differ.
MIME_TYPES = mimetypes.MimeTypes()


class Placement(NamedTuple):
    """Where a file stands in an image set."""

    side: str
    """One of SIDES; empty if the folders give no split."""

    label: str
    """Name of its class; empty if it is in no class folder."""

    repeated: bool
    """Whether it stands in a folder that holds the set again."""


class Layout(NamedTuple):
    """What the folders of an image set mean."""

    places: dict[str, Placement]
    """Of each file, by its name."""

    side_folders: dict[str, list[str]]
    """Names of the folders of each side; empty if the folders give no split."""

    repeats: dict[str, list[str]]
    """Folders that hold the set again: what they hold, by their path."""

    common: list[str]
    """Several folders that each of the classes holds, and nothing else; empty if they do not."""

    @property
    def notes(self) -> list[str]:
        """What a user wants to know of it, one line each."""
        notes = []
        if self.side_folders:
            sides = "; ".join(f"{side} in {join_names(names)}" for side, names in self.side_folders.items())
            notes.append(f"split: given by the folders: {sides}")
        notes += [
            f"repeated: the folder {folder} holds {join_names(names)} again, which also stand beside it; "
            "its images count for these, if most of them are the same files"
            for folder, names in self.repeats.items()
        ]
        if self.common:
            notes.append(
                f"classes: each of them holds the same folders, {join_names(self.common)}; "
                "if these are the classes, name one of the folders around them as data.path"
            )
        return notes


def infer_layout(names: Sequence[str], source: str) -> Layout:
    """Return what the folders of files, paths with `/`, mean.

    The classes are the first level with several folders, or with folders of images. Folders are sides of a split, above
    the classes or within each, if each of them has exactly one word of SIDE_OF_WORD in its name, and one of them trains
    and another one does not. A folder that holds only folders named like those beside it holds the set again.

    Raises UserError, which names `source`, where folders of a split stand beside others or are in places that mean
    nothing, where none of them trains, or where the validation side has a class that the training side lacks.
    """
    root = class_root(names)
    groups, repeats = _without_repeats(_by_folder(names, root), root, source)
    sides = _sides(_with_images(groups), f"{source}/{root}".rstrip("/"))
    layout = (
        _sides_above(names, groups, sides, repeats, source) if sides else _sides_within(names, groups, repeats, source)
    )
    if not layout.side_folders:
        _require_no_sides(_below(names, root), source)
    return layout


def class_root(names: Iterable[str], keep: Collection[str] = (), keep_sides: bool = False) -> str:
    """Return what stands before the folder of the class in the paths of images, with a `/` at its end; or nothing.

    A folder is no class, but around the classes, if it is the only one with files that may be images, has folders in
    it, and no image beside them. One in `keep` is a class in any case; with `keep_sides` one that is named after a side
    of a split is not passed either.
    """
    root, names = "", [name for name in names if not is_clutter(name)]
    while True:
        below = [name.removeprefix(root) for name in names if name.startswith(root)]
        folders = {name.partition("/")[0] for name in below if "/" in name and may_be_image(name)}
        if len(folders) != 1:
            return root
        folder = folders.pop()
        deeper = f"{folder}/"
        inside = [name.removeprefix(deeper) for name in below if name.startswith(deeper)]
        if folder in keep or (keep_sides and parse_side(folder)):
            return root
        if not any("/" in name for name in inside) or any(_is_image(name) for name in inside if "/" not in name):
            return root
        root += deeper


def parse_side(folder: str) -> str:
    """Return the side of a split that a folder is named after: `train`, `seg_train`, `TestData2`; or nothing."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder))
    sides = [SIDE_OF_WORD.get(word.lower().removesuffix("set")) for word in words]
    found = [side for side in sides if side]
    return found[0] if len(found) == 1 else ""


def may_be_image(name: str) -> bool:
    """Say whether a file may be an image by its name: it is none if its suffix is that of a text or a document."""
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
"""Files by folder: the rest of each path behind the folder, by the file's name."""


def _by_folder(names: Iterable[str], root: str) -> Groups:
    groups: Groups = defaultdict(dict)
    for name in names:
        folder, slash, rest = name.removeprefix(root).partition("/")
        if slash and name.startswith(root):
            groups[folder][name] = rest
    return groups


def _folders(paths: Iterable[str]) -> set[str]:
    """Return the first folders of paths, of those with files that may be images."""
    return {path.partition("/")[0] for path in paths if "/" in path and may_be_image(path)}


def _without_repeats(groups: Groups, root: str, source: str) -> tuple[Groups, dict[str, list[str]]]:
    """Return the files with those of a repeated set in the folders that it repeats, and what each such folder holds."""
    folders = set(_with_images(groups))
    held = {folder: _folders(_behind(groups[folder]).values()) for folder in folders}
    alike = {folder for folder in folders if len(held[folder] & folders) > 1}
    # Where those that are named hold such folders too, these are parts that all classes have, such as numbers.
    alike = {folder for folder in alike if folder not in held[folder] and not held[folder] & alike}
    for folder in sorted(alike):
        others = held[folder] - folders
        if others:
            raise UserError(
                f"data.path: {source}/{root}{folder} holds folders named like those beside it "
                f"({join_names(held[folder] & folders)}) and others ({join_names(others)}); "
                "name one of the two levels as data.path, or move the folder away"
            )
    merged: Groups = {folder: dict(files) for folder, files in groups.items() if folder not in alike}
    for folder in alike:
        for name, path in _behind(groups[folder]).items():
            inner, slash, rest = path.partition("/")
            if slash and inner in merged:
                merged[inner][name] = rest
    return merged, {f"{root}{folder}": sorted(held[folder]) for folder in sorted(alike)}


def _behind(files: dict[str, str]) -> dict[str, str]:
    """Return files by the rest of their path behind the folders that are around all of them."""
    root = class_root(files.values())
    return {name: path.removeprefix(root) for name, path in files.items() if path.startswith(root)}


def _with_images(groups: Groups) -> Groups:
    return {folder: files for folder, files in groups.items() if any(map(may_be_image, files))}


def _sides(folders: Collection[str], where: str) -> dict[str, str]:
    """Return the side of each folder if they are the sides of a split; else nothing."""
    sides = {folder: parse_side(folder) for folder in folders}
    named = {folder for folder, side in sides.items() if side}
    found = {sides[folder] for folder in named}
    if len(found) < 2 or (TRAIN not in found and len(named) < len(folders)):
        return {}
    if TRAIN not in found:
        raise UserError(
            f"data.path: {where} has the folders {join_names(named)} of a split, but none to train on; "
            "add a folder `train`, or rename the folders if they are classes"
        )
    if len(named) < len(folders):
        raise UserError(
            f"data.path: {where} has folders of a split ({join_names(named)}) beside others "
            f"({join_names(set(folders) - named)}); move the others away, or rename the folders if all are classes"
        )
    return sides


def _sides_above(names: Sequence[str], groups: Groups, sides: dict[str, str], repeats: dict, source: str) -> Layout:
    """Return the layout of a split whose sides hold the classes."""
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


def _sides_within(names: Sequence[str], groups: Groups, repeats: dict, source: str) -> Layout:
    """Return the layout of classes, which hold the sides of a split or none."""
    images = _with_images(groups)
    roots = {label: class_root(files.values(), keep_sides=True) for label, files in images.items()}
    held = {label: _folders(_below(files.values(), roots[label])) for label, files in images.items()}
    within = {label for label, folders in held.items() if folders and all(map(parse_side, folders))}
    union = sorted({folder for label in within for folder in held[label]})
    sides = _sides(union, f"{source}/*")
    unlike = {
        label
        for label, files in images.items()
        if label not in within
        or any(_is_image(path) for path in _below(files.values(), roots[label]) if "/" not in path)
    }
    if not sides:
        placed = {name: ("", label) for label, files in groups.items() for name in files}
        return Layout(_places(names, placed, repeats), {}, repeats, _common(images, held, roots))
    if unlike:
        raise UserError(
            f"data.path: {source} has classes with folders of a split ({join_names(union)}) and classes without "
            f"({join_names(unlike)}); put all images of a class into such folders, or none"
        )
    placed = {}
    deeper: list[set[str]] = []
    for label, files in images.items():
        deeper.append(set())
        for name, path in files.items():
            folder, slash, rest = path.removeprefix(roots[label]).partition("/")
            if slash and path.startswith(roots[label]) and folder in sides:
                placed[name] = sides[folder], label
                deeper[-1] |= _folders([rest])
    common = set.intersection(*deeper)
    if len(common) > 1:
        raise UserError(
            f"data.path: {source} has several sets ({join_names(images)}), each with the folders of a split and in "
            f"these {join_names(common)}; name one of the sets as data.path"
        )
    return _split_layout(names, placed, sides, repeats, source)


def _common(groups: Groups, held: dict[str, set[str]], roots: dict[str, str]) -> list[str]:
    """Return the folders in each group, if there are several, the same in all, and no image beside them."""
    first = next(iter(held.values()), set())
    if len(groups) < 2 or len(first) < 2 or any(folders != first for folders in held.values()):
        return []
    images = ((path, roots[label]) for label, files in groups.items() for path in files.values() if _is_image(path))
    inside = all(path.startswith(root) and "/" in path.removeprefix(root) for path, root in images)
    return sorted(first) if inside else []


def _require_no_sides(paths: Iterable[str], source: str) -> None:
    """Raise UserError if folders of a split are among the folders of images, where no split was found."""
    folders = {folder for path in paths if may_be_image(path) for folder in path.split("/")[:-1]}
    named = {folder for folder in folders if parse_side(folder) and re.fullmatch(r"[^\W\d_]+[\d_]*", folder)}
    sides = {parse_side(folder) for folder in named}
    if TRAIN in sides and len(sides) > 1:
        raise UserError(
            f"data.path: {source} has folders of a split ({join_names(named)}), but neither around its classes nor "
            "right inside each of them; move them there, or rename them if they mean something else"
        )


def _below(paths: Iterable[str], root: str) -> list[str]:
    return [path.removeprefix(root) for path in paths if path.startswith(root)]


def _split_layout(
    names: Sequence[str], placed: dict[str, tuple[str, str]], sides: dict[str, str], repeats: dict, source: str
) -> Layout:
    held = {side: {label for name, (of, label) in placed.items() if of == side and label} for side in SIDES}
    folders = {side: sorted(folder for folder in sides if sides[folder] == side) for side in SIDES}
    for side in (TRAIN, VALIDATION):
        if folders[side] and not held[side]:
            raise UserError(
                f"data.path: {source} is split into {join_names(sides)}, but {join_names(folders[side])} has no class "
                "folders; put its images into one folder a class"
            )
    with_images = {label for name, (of, label) in placed.items() if of == VALIDATION and label and may_be_image(name)}
    require_training_classes(with_images, held[TRAIN], source)
    used = {side: folders[side] for side in SIDES if folders[side]}
    return Layout(_places(names, placed, repeats), used, repeats, [])


def require_training_classes(validated: Collection[str], trained: Collection[str], source: str) -> None:
    """Raise UserError if a class to validate on is none to train on."""
    strange = set(validated) - set(trained)
    if strange:
        raise UserError(
            f"data.path: {source} has classes to validate on that it does not train ({join_names(strange)}); "
            "give both sides the same class folders"
        )


def _places(names: Sequence[str], placed: dict[str, tuple[str, str]], repeats: dict) -> dict[str, Placement]:
    inside = tuple(f"{folder}/" for folder in repeats)
    return {name: Placement(*placed.get(name, ("", "")), bool(inside) and name.startswith(inside)) for name in names}
