"""Images from a user's function."""

from batchscape.config.data import CustomDataConfig
from batchscape.data.source import DEFAULT_OPTIONS, LoadOptions, RawDataset, from_arrays
from batchscape.errors import UserError
from batchscape.runtime.user_code import call_user_code, import_object


def load(config: CustomDataConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:  # noqa: ARG001
    """Return the images, labels and, optionally, class names that the function returns.

    Raises UserError if it cannot be imported, fails, or returns anything else.
    """
    returned = call_user_code(import_object(config.source, "data.source"), config.arguments, config.source, "data")
    if not (isinstance(returned, tuple | list) and len(returned) in (2, 3)):
        raise UserError(f"data.source: {config.source} must return (images, labels) or (images, labels, classes)")
    images, labels, classes = (*returned, None)[:3]
    return from_arrays(images, labels, classes, config.source, "data.source")
