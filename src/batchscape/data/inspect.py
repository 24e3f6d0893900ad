"""What can be seen of a source without decoding or loading it: what `check` says of the data."""

from collections import Counter
from pathlib import Path

from batchscape.config.data import ArraysConfig, DataConfig, ImageFolderConfig
from batchscape.data import arrays
from batchscape.data.archive import opened
from batchscape.data.image_folder import by_class, require_one_split
from batchscape.data.layout import SIDES, joined, may_be_image
from batchscape.data.source import require_two_classes
from batchscape.errors import UserError


def inspect_source(config: DataConfig) -> list[str]:
    """Return what names, headers and sizes say of a source, a line each.

    Raises UserError where they show already that `prepare` would.
    """
    if isinstance(config, ImageFolderConfig) and config.path:
        return _folder(config)
    if isinstance(config, ArraysConfig):
        header, classes = arrays.looked_at(config)
        require_two_classes(classes)
        count, height, width = header.shape[:3]
        channels = header.shape[3] if len(header.shape) == 4 else 1
        size = f"{count:,} images of {height} × {width} pixels, channels: {channels}, {header.dtype}"
        return [f"data: {config.path}: {size}; {len(classes):,} classes: {joined(classes)}"]
    if isinstance(config, ImageFolderConfig):
        return [f"data: {config.source}: is downloaded when the study runs, if it is not in downloads/"]
    if config.known_size.images:
        return [f"data: {config.source}: {config.known_size.images:,} images"]
    return [f"data: {config.source}: is called when the study runs"]


def _folder(config: ImageFolderConfig) -> list[str]:
    with opened(Path(config.path)) as files:
        listed, layout = by_class(files, config.path)
    require_one_split(layout, config)
    images = [each for each in listed if not each.reason and may_be_image(each.file.name)]
    counts = Counter(each.label for each in images)
    if len(counts) < 2:
        found = f"images of one class only ({next(iter(counts))})" if counts else "no image in a class folder"
        raise UserError(
            f"data.path: {config.path} has {found}; name a folder with two or more folders of images in it, one a class"
        )
    by_side = Counter(each.side for each in images)
    sides = "".join(f", {side}: {by_side[side]:,}" for side in SIDES if by_side[side])
    classes = joined([f"{label} ({count:,})" for label, count in counts.items()])
    total = f"data: {config.path}: {counts.total():,} of {len(listed):,} files are images of {len(counts):,} classes"
    return [f"{total}{sides}: {classes}", *(f"data: {note}" for note in layout.notes)]
