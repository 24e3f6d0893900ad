"""The parts of PyTorch Lightning that are used, imported without torchmetrics, which saves a quarter of the start-up.

Lightning imports torchmetrics to recognize a metric when a module logs one, which ours never does. But it brings
scipy.signal and matplotlib into each training process.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import ModuleType

from torch import nn


class _TorchmetricsStub(ModuleType):
    """Defines the two classes that Lightning looks for, of which there are no instances."""

    __version__: str

    class Metric(nn.Module):
        pass

    class MetricCollection(nn.Module):
        pass


@contextmanager
def _without_torchmetrics() -> Iterator[None]:
    """Replace torchmetrics by a stub while Lightning is imported; later imports get the real package."""
    if "torchmetrics" in sys.modules:
        yield
        return
    stub = _TorchmetricsStub("torchmetrics")
    stub.__version__ = version("torchmetrics")
    sys.modules["torchmetrics"] = stub
    try:
        yield
    finally:
        del sys.modules["torchmetrics"]


with _without_torchmetrics():
    import pytorch_lightning as pl
    from pytorch_lightning import loggers
    from pytorch_lightning.plugins import environments
    from pytorch_lightning.strategies import DDPStrategy

__all__ = ["DDPStrategy", "environments", "loggers", "pl"]
