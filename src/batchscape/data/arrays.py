"""Images and labels in NumPy's files."""

from pathlib import Path

import numpy as np

from batchscape.config.data import ArraysConfig
from batchscape.data.source import Source, from_arrays, have_channels_first
from batchscape.errors import UserError

NAMES = ("images", "labels")


def load(config: ArraysConfig, threads: int = 1) -> Source:  # noqa: ARG001
    """Return the images and labels of an `.npz` file, or of two `.npy` files. Raises UserError if they are not."""
    content = _read(config.path, "data.path")
    if isinstance(content, np.ndarray):
        if config.labels is None:
            raise UserError(f"data.labels: is missing; {config.path} holds the images alone, so name the labels' file")
        images, labels = content, _read(config.labels, "data.labels")
        if not isinstance(labels, np.ndarray):
            raise UserError(f"data.labels: {config.labels} is no .npy file; give one with the labels")
    else:
        if config.labels is not None:
            raise UserError(f"data.labels: {config.path} is an .npz file, which holds the labels too; take the key out")
        images, labels = (content[name] for name in NAMES)
    if config.channels == "first":
        if images.ndim != 4:
            raise UserError(f"data.channels: images of shape {images.shape} have no channels; take the key out")
        images = np.moveaxis(images, 1, -1)
    elif have_channels_first(images.shape):
        raise UserError(f"data.channels: images of shape {images.shape} have channels first; write `channels: first`")
    return from_arrays(images, labels, None, Path(config.path).name, "data.path")


def _read(path: str, key: str) -> np.ndarray | dict[str, np.ndarray]:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            missing = [name for name in NAMES if name not in content]
            if missing:
                raise UserError(
                    f"{key}: {path} has no array `{missing[0]}`, but {', '.join(content) or 'none'}; "
                    "save it with np.savez(path, images=…, labels=…)"
                )
            return {name: np.asarray(content[name]) for name in NAMES}  # others may be large, or of objects
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path}; paths count from the folder in which the workflow runs")
    except UserError:
        raise
    except Exception as error:  # the header of an array is Python's text, on which NumPy may fail in any way
        raise UserError(f"{key}: {path} cannot be read as NumPy's .npy or .npz ({' '.join(str(error).split())})")
