"""Microsoft's Cats vs Dogs."""

from batchscape.config.data import CatsVsDogsConfig
from batchscape.data.source import Source


def load(config: CatsVsDogsConfig, threads: int = 1) -> Source:
    """Return the images of the zip file, which is downloaded if the study names none."""
    raise NotImplementedError
