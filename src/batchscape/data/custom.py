"""Images from a function of the user's own."""

from batchscape.config.data import OwnDataConfig
from batchscape.data.source import RawDataset, from_arrays
from batchscape.errors import UserError
from batchscape.runtime.user_code import call_user_code, import_object


def load(config: OwnDataConfig, threads: int = 1) -> RawDataset:  # noqa: ARG001
    """Return what the function gives: images, labels, and the names of the classes if it likes.

    Raises UserError when it cannot be imported, fails, or gives something else.
    """
    given = call_user_code(import_object(config.source, "data.source"), config.arguments, config.source, "data")
    if not (isinstance(given, tuple | list) and len(given) in (2, 3)):
        raise UserError(f"data.source: {config.source} must return (images, labels) or (images, labels, classes)")
    images, labels, classes = (*given, None)[:3]
    return from_arrays(images, labels, classes, config.source, "data.source")
