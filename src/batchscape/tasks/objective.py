"""The loss of a network on batches: all that training, evaluation and the analyses know of a task."""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from batchscape.data.dataset import Batch, Dataset, slices
from batchscape.tasks.modes import evaluation_mode
from batchscape.tasks.task import Task

# Outputs are gathered up to this size before loss and metrics are computed: for small batches once an epoch, so that it
# hardly takes time, and for large ones in every batch, so that it hardly takes memory.
RECORD_BYTES = 4 << 20
# Bytes of examples, as stored, that are decoded at once for their weights.
WEIGHT_BYTES = 4 << 20
# So many small records are joined: each of them lies between the freed tensors of its batch, which could not be reused.
MAX_RECORDS = 64


class Outcome(NamedTuple):
    """The result of a network on a batch."""

    loss: Tensor
    """(), the mean over the weight of the batch, differentiable."""

    record: Any
    """What `Objective.measure` needs of the batch, detached."""


class Objective(Protocol):
    """A network with its loss and metrics: the seam between a task and all that trains or analyzes.

    The contract: the loss of a batch times its total weight, the sum of `example_weights`, is additive over any split
    of the batch. `tasks.compatibility` tests it on a few examples before anything trains.
    """

    module: nn.Module
    metrics: tuple[str, ...]

    def on(self, module: nn.Module) -> Self:
        """Return the objective of another network for the same task."""

    def copy(self) -> Self:
        """Return the objective of a copy of the network."""

    def network_inputs(self, batch: Batch) -> Any:
        """Return what the network takes of a batch: a tensor, or a tuple of tensors."""

    def __call__(self, batch: Batch) -> Outcome:
        """Return the loss of the module on a batch."""

    def record(self, batch: Batch) -> Any:
        """Return the record of a batch without its loss."""

    def example_weights(self, batch: Batch) -> Tensor | None:
        """Return the weight of each example in the mean, (b,), from the data alone; None if all are 1."""

    def join(self, records: Sequence[Any]) -> Any:
        """Return the record of several batches as one."""

    def measure(self, record: Any) -> Tensor:
        """Return the loss and the metrics of a record, each times its total weight, as sums, (1 + m,) float64."""

    def report(self, sums: Tensor, total_weight: float, side: str) -> "Measurement":
        """Return the loss and the metrics of a side of the data from the sums of `measure`."""


class Measurement(NamedTuple):
    """Loss and metrics over a dataset."""

    loss: float
    metrics: dict[str, float]
    """By name, in the order of `Objective.metrics`."""

    def columns(self, prefix: str) -> dict[str, float]:
        """Return all values by the name of their column, `<prefix>loss` and so on."""
        return {f"{prefix}{name}": value for name, value in {"loss": self.loss, **self.metrics}.items()}


class Record(NamedTuple):
    """What is left of a batch: the outputs of the network, detached, and what they are compared with."""

    outputs: Tensor
    targets: Tensor
    weights: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of the outputs."""
        return self.outputs.nbytes


class LossRecord(NamedTuple):
    """What is left of a batch if all metrics follow from the loss."""

    total: Tensor
    """(), float64, the loss times the total weight of the batch."""

    @property
    def nbytes(self) -> int:
        """Bytes of the sum."""
        return self.total.nbytes


class SupervisedObjective:
    """A network with a task, whose loss compares its outputs with targets.

    Args:
        module: The network.
        task: The loss and the metrics.
    """

    def __init__(self, module: nn.Module, task: Task):
        self.module = module
        self.task = task
        self.metrics = task.metric_names
        # To measure the outputs of all tokens once more, in float64, would take a quarter of a step. Therefore training
        # records the loss itself, and the values of tokens are computed in the data type of the outputs. Sums over
        # them are float64.
        self._is_per_token = len(task.output_shape) > 1
        self._reuses_loss = self._is_per_token and all(metric.function is task.loss for metric in task.metrics)

    def on(self, module: nn.Module) -> Self:
        """Return the objective of another network for the same task."""
        return type(self)(module, self.task)

    def copy(self) -> Self:
        """Return the objective of a copy of the network."""
        return self.on(copy.deepcopy(self.module))

    def network_inputs(self, batch: Batch) -> Any:
        """Return what the network takes of a batch: its inputs."""
        return batch.inputs

    def __call__(self, batch: Batch) -> Outcome:
        """Return the loss of the network on a batch; on an empty one, a loss whose gradient is 0."""
        outputs = self.module(batch.inputs)
        weights = self._weights(batch)
        loss = self.loss(outputs, batch.targets, weights) if len(batch) else outputs.sum()
        if self._reuses_loss:
            weight = len(batch) if weights is None else weights.sum(dtype=torch.float64)
            return Outcome(loss, LossRecord(loss.detach().double() * weight))
        return Outcome(loss, Record(outputs.detach(), batch.targets, weights))

    def record(self, batch: Batch) -> Record:
        """Return the record of a batch without its loss."""
        return Record(self.module(batch.inputs).detach(), batch.targets, self._weights(batch))

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Return the mean loss, ().

        Args:
            outputs: The outputs of the network, (b, *task.output_shape).
            targets: (b, …).
            weights: Their shape is a prefix of that of the targets; None: all are 1.
        """
        if weights is None:
            return self.task.loss(outputs, targets, reduction="mean")
        weights = weights.to(outputs.dtype)
        return _weighted_sum(self.task.loss(outputs, targets, reduction="none"), weights) / weights.sum()

    def example_weights(self, batch: Batch) -> Tensor | None:
        """Return the weight of each example in the mean, (b,) float64; None if all are 1."""
        weights = self._weights(batch)
        if weights is None:
            return None
        return weights.double().flatten(1).sum(1) if weights.dim() > 1 else weights.double()

    def join(self, records: Sequence[Record | LossRecord]) -> Record | LossRecord:
        """Return the record of several batches as one; all are of one kind."""
        totals = [record.total for record in records if isinstance(record, LossRecord)]
        if totals:
            return LossRecord(torch.stack(totals).sum())
        batches = [record for record in records if isinstance(record, Record)]
        weights = [batch.weights for batch in batches if batch.weights is not None]
        return Record(
            torch.cat([batch.outputs for batch in batches]),
            torch.cat([batch.targets for batch in batches]),
            torch.cat(weights) if weights else None,
        )

    def measure(self, record: Record | LossRecord) -> Tensor:
        """Return the loss and the metrics of a record, each times its total weight, as sums, (1 + m,) float64."""
        functions = [self.task.loss, *(metric.function for metric in self.task.metrics)]
        if isinstance(record, LossRecord):
            return record.total.expand(len(functions))
        outputs, targets, weights = record
        if not len(targets):  # whose mean would be nan
            return torch.zeros(len(functions), dtype=torch.float64, device=outputs.device)
        if not self._is_per_token:
            outputs = outputs.double()
        sums = {}  # metrics that follow from one mean, such as RMSE and R², share their function
        for function in dict.fromkeys(functions):
            if weights is None and function is self.task.loss and not self._is_per_token:
                sums[function] = function(outputs, targets, reduction="mean") * len(outputs)
                continue
            values = function(outputs, targets, reduction="none").double()
            if weights is None:
                # Of several values of each example, such as one a token, it is their mean that counts.
                sums[function] = values.sum() / max(1, values[:1].numel())
            else:
                sums[function] = _weighted_sum(values, weights.double())
        return torch.stack([sums[function] for function in functions])

    def report(self, sums: Tensor, total_weight: float, side: str) -> Measurement:
        """Return the loss and the metrics of a side of the data from the sums of `measure`.

        If the loss is nan, so are the metrics.
        """
        loss, *means = (sums / total_weight).tolist()
        metrics = {
            metric.name: math.nan if math.isnan(loss) else metric.finalize(mean, side)
            for metric, mean in zip(self.task.metrics, means, strict=True)
        }
        return Measurement(loss, metrics)

    def _weights(self, batch: Batch) -> Tensor | None:
        """Return the weights of a batch, with those that the task derives from the targets."""
        if self.task.target_weights is None:
            return batch.weights
        weights = self.task.target_weights(batch.targets)
        if batch.weights is None:
            return weights
        return weights.reshape(weights.shape + (1,) * (batch.weights.dim() - weights.dim())) * batch.weights


def _weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Return Σ w·v; values of the axes that the weights lack are averaged."""
    if values.dim() > weights.dim():
        values = values.flatten(weights.dim()).mean(-1)
    return (weights * values).sum()


class Meter:
    """Sums of loss and metrics over batches."""

    def __init__(self, objective: Objective, device: torch.device):
        self.objective = objective
        self._sums = torch.zeros(1 + len(objective.metrics), dtype=torch.float64, device=device)
        self._records: list[Any] = []
        self._num_bytes = 0

    def add(self, record: Any) -> None:
        """Add the record of a batch."""
        self._records.append(record)
        self._num_bytes += record.nbytes
        if self._num_bytes >= RECORD_BYTES:
            self._measure()
        elif len(self._records) >= MAX_RECORDS:
            self._records = [self.objective.join(self._records)]

    def sums(self) -> Tensor:
        """Return the sums over all batches so far, (1 + m,) float64."""
        self._measure()
        return self._sums

    def _measure(self) -> None:
        if self._records:
            with torch.no_grad():
                self._sums += self.objective.measure(self.objective.join(self._records))
            self._records, self._num_bytes = [], 0


def evaluate(objective: Objective, batches: Iterable[Batch], device: torch.device) -> Tensor:
    """Return the sums of loss and metrics over batches, (1 + m,) float64; the module is in evaluation mode."""
    meter = Meter(objective, device)
    with evaluation_mode(objective.module), torch.no_grad():
        for batch in batches:
            meter.add(objective.record(batch))
        return meter.sums()


def dataset_weights(objective: Objective, data: Dataset, device: torch.device) -> Tensor | None:
    """Return the weight of each example of a dataset, (n,) float64, on `device`; None if all are 1."""
    if not len(data) or objective.example_weights(data.batch(slice(1), device)) is None:
        return None
    chunk = max(1, WEIGHT_BYTES * len(data) // data.num_bytes)
    parts = [objective.example_weights(data.batch(rows, device)) for rows in slices(len(data), chunk)]
    return torch.cat([part for part in parts if part is not None])
