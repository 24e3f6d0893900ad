"""The loss of a LightningModule, which its `training_step` computes."""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from batchscape.data.dataset import Batch
from batchscape.models.step_network import StepNetwork, step_inputs
from batchscape.tasks.objective import Measurement, Outcome


class StepRecord(NamedTuple):
    """What is left of a batch."""

    totals: Tensor
    """(1 + m,), float64, loss and metrics times the number of examples."""

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        return self.totals.nbytes


class LightningObjective:
    """A LightningModule, whose `training_step` returns the mean loss of a batch and logs the means of its metrics.

    All examples weigh the same. Loss and metrics of a side of the data are those of `training_step` in evaluation mode.

    Args:
        module: The network, or one around it that converts its inputs or outputs.
        metrics: Names of the logged values that it returns; those of the network by default.
    """

    def __init__(self, module: nn.Module, metrics: tuple[str, ...] | None = None):
        if metrics is None:
            assert isinstance(module, StepNetwork)
            metrics = module.metrics
        self.module = module
        self.metrics = metrics

    def on(self, module: nn.Module) -> Self:
        """Return the objective of another network for the same task."""
        return type(self)(module, self.metrics)

    def copy(self) -> Self:
        """Return the objective of a copy of the network."""
        return self.on(copy.deepcopy(self.module))

    def network_inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return what the network takes of a batch: its inputs and, last, its targets."""
        return step_inputs(batch.inputs, batch.targets)

    def __call__(self, batch: Batch) -> Outcome:
        """Return the loss of the network on a batch of at least one example."""
        values = self.module(self.network_inputs(batch))
        return Outcome(values[0], StepRecord(values.detach().double() * len(batch)))

    def record(self, batch: Batch) -> StepRecord:
        """Return the record of a batch without its loss."""
        return self(batch).record

    def example_weights(self, batch: Batch) -> None:  # noqa: ARG002
        """Return None, since all weights are 1."""
        return

    def join(self, records: Sequence[StepRecord]) -> StepRecord:
        """Return the record of several batches as one."""
        return StepRecord(torch.stack([record.totals for record in records]).sum(0))

    def measure(self, record: StepRecord) -> Tensor:
        """Return the loss and the metrics of a record, each times its number of examples, as sums, (1 + m,) float64."""
        return record.totals

    def report(self, sums: Tensor, total_weight: float, side: str) -> Measurement:  # noqa: ARG002
        """Return the loss and the metrics of a side of the data from the sums of `measure`.

        If the loss is nan, so are the metrics.
        """
        loss, *means = (sums / total_weight).tolist()
        values = means if not math.isnan(loss) else [math.nan] * len(means)
        return Measurement(loss, dict(zip(self.metrics, values, strict=True)))
