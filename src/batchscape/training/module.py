"""The Lightning module: one epoch of global batches."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from batchscape.config.run import RunSpec
from batchscape.data.prepared import PreparedData
from batchscape.data.tensors import as_input, on_device
from batchscape.objective import evaluate, loss_and_accuracy, mean_loss
from batchscape.training.batches import epoch_order
from batchscape.training.noise_scale import gradient_noise

# Images that become floats in one operation.
CONVERTED_TOGETHER = 2048


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of training gave."""

    loss: float
    """Mean loss over the epoch's examples, each at the weights that met it."""

    accuracy: float
    """Share of the epoch's examples that were predicted right, each at the weights that met it."""

    update_norms: np.ndarray
    """‖θ_{t+1} − θ_t‖₂ of each batch update, (batches,), float64."""

    seconds: float
    """Wall time."""

    cpu_seconds: float
    """CPU time of this process, all threads: what the epoch costs however many jobs share the machine."""


class EpochOrders:
    """The loader: what Lightning sees as one batch is the order of a whole epoch.

    Lightning's work around each of its batches takes a quarter of the time of a small network's step, so
    the module cuts the order into global batches itself.
    """

    def __init__(self, count: int, seed: int, epoch: Callable[[], int]):
        self.count = count
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield torch.from_numpy(epoch_order(self.count, self.seed, self.epoch()))


class TrainingModule(pl.LightningModule):
    """A network, its data, and the steps of one run."""

    def __init__(self, network: nn.Module, data: PreparedData, spec: RunSpec):
        super().__init__()
        self.automatic_optimization = False
        # Convolutions take and give channels-last tensors without copies if their weights are so too.
        self.network = network.to(memory_format=torch.channels_last)
        self.data = data
        self.spec = spec
        self.result: EpochResult | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            self.network.parameters(),
            lr=self.spec.learning_rate,
            momentum=self.spec.training.momentum,
            weight_decay=self.spec.training.weight_decay,
            fused=True,
        )

    def train_dataloader(self) -> EpochOrders:
        return EpochOrders(len(self.data.train_labels), self.spec.seed, lambda: self.current_epoch + 1)

    def on_fit_start(self) -> None:
        data = self.data
        self.train_images, self.train_labels = on_device(data.train_images, data.train_labels, self.device)
        self.validation_images, self.validation_labels = on_device(
            data.validation_images, data.validation_labels, self.device
        )

    def parameter_vector(self) -> torch.Tensor:
        """All parameters as a new flat vector, (p,), in the network's order."""
        return _flat([parameter.detach() for parameter in self.network.parameters()])

    def training_step(self, order: torch.Tensor, _: int) -> None:
        """Take one SGD step for each global batch of an epoch's order."""
        started, cpu_started = time.perf_counter(), time.process_time()
        optimizer = self.optimizers(use_pl_optimizer=False)
        parameters = list(self.network.parameters())
        weights = [parameter.detach() for parameter in parameters]  # the same memory, without a history of operations
        labels = self.train_labels[order]
        logits, norms = [], []
        before = _flat(weights)
        batches = math.ceil(len(order) / self.spec.batch_size)
        for batch, (inputs, targets) in enumerate(self._batches(order, labels), start=1):
            self._warm_up(optimizer, self.current_epoch * batches + batch, self.spec.warmup_epochs * batches)
            outputs = self.network(inputs)
            for parameter in parameters:  # `Optimizer.zero_grad` without its hooks, which cost 4 % of a small step
                parameter.grad = None
            mean_loss(outputs, targets).backward()
            optimizer.step()
            after = _flat(weights)
            norms.append(torch.linalg.vector_norm(after - before, dtype=torch.float64))
            logits.append(outputs.detach())
            before = after
        # Read from the device once an epoch: each read would wait for all work that is queued there.
        loss, accuracy = loss_and_accuracy(torch.cat(logits), labels)
        self.result = EpochResult(
            loss=loss,
            accuracy=accuracy,
            update_norms=torch.stack(norms).cpu().numpy(),
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu_started,
        )

    def _warm_up(self, optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
        """Set the learning rate of a step, counted from 1: it rises in equal parts until the warm-up ends."""
        if step <= steps:
            for group in optimizer.param_groups:
                group["lr"] = self.spec.learning_rate * (step / steps)

    def _batches(self, order: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Cut an epoch into global batches; images become floats some batches at a time, which bounds the memory."""
        size = self.spec.batch_size
        together = size * max(1, CONVERTED_TOGETHER // size)
        for indices, targets in zip(order.split(together), labels.split(together), strict=True):
            inputs = as_input(self.train_images[indices])
            yield from zip(inputs.split(size), targets.split(size), strict=True)

    def validate(self) -> tuple[float, float]:
        """Return the loss and the accuracy over the validation set at the present weights."""
        return evaluate(self.network, self.validation_images, self.validation_labels)

    def gradient_noise(self) -> tuple[float, float]:
        """Return ‖G‖ and the noise scale tr(Σ)/‖G‖² over the training set at the present weights, after an epoch.

        The batches are cut from the order of the next epoch, which the weights do not depend on yet.
        """
        order = epoch_order(len(self.train_labels), self.spec.seed, self.current_epoch + 2)
        return gradient_noise(self.network, self.train_images, self.train_labels, torch.from_numpy(order))


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
