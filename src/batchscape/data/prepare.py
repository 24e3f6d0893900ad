"""From a configured source to the prepared data of a study."""

from batchscape.config.data import DataConfig
from batchscape.data.digits import load_digits
from batchscape.data.prepared import PreparedData
from batchscape.data.split import split
from batchscape.errors import UserError


def prepare(config: DataConfig) -> PreparedData:
    """Load the configured source and split it. Raises UserError when the split leaves a side empty."""
    images, labels = {"digits": load_digits}[config.source]()
    try:
        train, validation = split(len(images), config.validation_fraction, config.split_seed)
    except ValueError as error:
        raise UserError(f"data.validation_fraction: {error}; choose a fraction such as 0.2")
    return PreparedData(images[train], labels[train], images[validation], labels[validation])
