"""What is used of PyTorch Lightning, imported without torchmetrics: a quarter of what a training needs to start.

Lightning imports torchmetrics to know a metric when a module logs one, which the module here never does. But it brings
scipy.signal and matplotlib into each of the processes that train.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import ModuleType

from torch import nn


@contextmanager
def _without_torchmetrics() -> Iterator[None]:
    """Classes without instances stand in for it while Lightning is imported; who imports it later gets the real one."""
    if "torchmetrics" in sys.modules:
        yield
        return
    stand_in = ModuleType("torchmetrics")
    stand_in.__version__ = version("torchmetrics")
    stand_in.Metric, stand_in.MetricCollection = (type(name, (nn.Module,), {}) for name in ("Metric", "Collection"))
    sys.modules["torchmetrics"] = stand_in
    try:
        yield
    finally:
        del sys.modules["torchmetrics"]


with _without_torchmetrics():
    import pytorch_lightning as pl
    from pytorch_lightning.plugins import environments
    from pytorch_lightning.strategies import DDPStrategy

__all__ = ["DDPStrategy", "environments", "pl"]
