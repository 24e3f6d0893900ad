"""The Lightning module: one epoch of global batches."""

import copy
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from torch import nn

from batchscape.config.run import RunSpec
from batchscape.data.prepared import PreparedData
from batchscape.data.tensors import gather_examples, normalize_images, storage_device
from batchscape.models.memory import find_largest_fitting, max_micro_batch_size, saved_tensor_bytes
from batchscape.runtime.device import free_memory, limit_gpu_memory
from batchscape.runtime.randomness import seed_global_rngs
from batchscape.tasks.compatibility import NUM_PROBE_EXAMPLES, examples_are_independent
from batchscape.tasks.losses import evaluate_loss_and_correct, evaluation_mode, normalize_sums, summed_loss_and_correct
from batchscape.training.augmentation import Augmentation, augment_images, draw_augmentation
from batchscape.training.batch_norm import GlobalBatchNorm, synchronize_batch_norm
from batchscape.training.distributed import ProcessGroup
from batchscape.training.lightning import pl
from batchscape.training.micro_batches import MicroBatch, backward
from batchscape.training.noise_scale import estimate_noise_scale
from batchscape.training.sampler import EpochSampler, batch_sizes, dropout_seed, epoch_order

# Bytes of images that are converted to floats in one operation, unless a batch, or a micro-batch, is larger.
CONVERTED_BYTES = 512 << 10
# GPU memory of a run besides its weights, their gradients and the activations, as a multiple of the weights: momentum,
# the best weights, and the flat copies from which the norm of an update is computed.
EXTRA_WEIGHT_COPIES = 5


@dataclass(frozen=True)
class EpochResult:
    """Measurements of one epoch of training."""

    loss: float
    """Mean loss over the epoch's examples, each evaluated before its update."""

    accuracy: float
    """Fraction of the epoch's examples that were predicted correctly, each evaluated before its update."""

    update_norms: np.ndarray
    """‖θ_{t+1} − θ_t‖₂ of each batch update, (batches,), float64."""

    seconds: float
    """Wall time."""

    cpu_seconds: float
    """CPU time of the run's processes, all threads: the cost of the epoch however many jobs share the machine."""


class TrainingModule(pl.LightningModule):
    """A network, its data, and the steps of one run."""

    result: EpochResult
    """Measurements of the last epoch."""

    optimizer: torch.optim.Optimizer
    """Set by `configure_optimizers`; Lightning's `optimizers()` may return a list."""

    def __init__(
        self,
        network: nn.Module,
        data: PreparedData,
        spec: RunSpec,
        process_group: ProcessGroup | None = None,
        jobs_per_gpu: int = 1,
        micro_batch: int | None = None,
    ):
        """Prepare the training of a network, by this process alone unless a `process_group` is given.

        On a GPU that `jobs_per_gpu` jobs share, the batches of a network that supports it are split into micro-batches
        that fit in memory, of at most `micro_batch` examples if that is given, as by a checkpoint.
        """
        super().__init__()
        self.automatic_optimization = False
        self.process_group = process_group or ProcessGroup()
        probe_images = torch.from_numpy(data.train_images[:NUM_PROBE_EXAMPLES])
        if self.process_group.size > 1:
            synchronize_batch_norm(network, probe_images, self.process_group)
        # Then each process must run the forward pass, even if its shard of a short batch is empty.
        self.has_collectives_in_forward = any(isinstance(layer, GlobalBatchNorm) for layer in network.modules())
        self.supports_micro_batches = (
            not self.has_collectives_in_forward
            if self.process_group.size > 1
            else examples_are_independent(network, probe_images)
        )
        self.network = network
        self.data = data
        self.spec = spec
        self.jobs_per_gpu = jobs_per_gpu
        self.micro_batch = micro_batch or spec.batch_size

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=self.spec.learning_rate,
            momentum=self.spec.training.momentum,
            weight_decay=self.spec.training.weight_decay,
            fused=True,
        )
        return self.optimizer

    def train_dataloader(self) -> EpochSampler:
        spec, reshuffle = self.spec, self.spec.training.reshuffle
        return EpochSampler(
            len(self.data.train_labels), spec.batch_size, spec.seed, self.process_group,
            lambda: self.current_epoch + 1 if reshuffle else 1,
        )  # fmt: skip

    def on_fit_start(self) -> None:
        self.process_group.assert_initialized()
        data, device = self.data, self.device
        num_bytes = data.train_images.nbytes + data.validation_images.nbytes
        storage = storage_device(num_bytes, device, free_memory(device, self.jobs_per_gpu))
        self.train_images, self.validation_images = (
            torch.from_numpy(images).to(storage) for images in (data.train_images, data.validation_images)
        )
        self.train_labels, self.validation_labels = (
            torch.from_numpy(labels).to(device) for labels in (data.train_labels, data.validation_labels)
        )
        probe_images = self.train_images[:NUM_PROBE_EXAMPLES].to(device)
        with evaluation_mode(self.network):
            self.chunk = max_micro_batch_size(self.network, normalize_images(probe_images))
        if self.supports_micro_batches and device.type == "cpu":
            self.micro_batch = min(self.chunk, self.micro_batch)
        elif self.supports_micro_batches:  # no smaller than the memory demands: on a GPU that would only cost time
            self.micro_batch = self._largest_micro_batch()
        elif device.type == "cpu":  # a GPU raises an error in the first step if its memory does not suffice
            self._check_memory()

    @property
    def _max_shard_size(self) -> int:
        """The most examples of a batch that this process has."""
        return math.ceil(self.spec.batch_size / self.process_group.size)

    def _check_memory(self) -> None:
        """Raise MemoryError if the backward pass of a batch needs more memory than the machine has.

        Otherwise Linux would kill this process, or others, once the pages are touched.
        """
        if len(self.train_images) < NUM_PROBE_EXAMPLES:
            return
        with self._seeded_rngs():
            network = copy.deepcopy(self.network)
            all_bytes, half_bytes = (
                saved_tensor_bytes(network, self._inputs(torch.arange(count), None))
                for count in (NUM_PROBE_EXAMPLES, NUM_PROBE_EXAMPLES // 2)
            )
        bytes_per_example = (all_bytes - half_bytes) / (NUM_PROBE_EXAMPLES - NUM_PROBE_EXAMPLES // 2)
        num_local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
        if bytes_per_example * self._max_shard_size * num_local_processes > psutil.virtual_memory().total:
            raise MemoryError("out of memory: the backward pass of a batch needs more than this machine has")

    def _largest_micro_batch(self) -> int:
        """Return how many examples of this process's shard of a batch fit in the GPU's memory at once."""
        return find_largest_fitting(min(self._max_shard_size, self.micro_batch), self._try_step)[0]

    def _try_step(self, count: int) -> None:
        """Compute the gradient of a micro-batch on a GPU within a margin of memory, with a copy of the network.

        Raises an out-of-memory error if the examples do not fit.
        """
        with limit_gpu_memory(self.device, self.jobs_per_gpu), self._seeded_rngs():
            network = copy.deepcopy(self.network)
            weight_bytes = sum(parameter.nbytes for parameter in network.parameters())
            extra_copies = torch.empty(EXTRA_WEIGHT_COPIES * weight_bytes, dtype=torch.uint8, device=self.device)
            indices = torch.arange(count, device=self.train_images.device)
            backward(network, [(self._inputs(indices, None), self.train_labels[:count])], count)
            del extra_copies

    def parameter_vector(self) -> torch.Tensor:
        """Return all parameters as a new flat vector, (p,), in the network's order."""
        return _flatten([parameter.detach() for parameter in self.network.parameters()])

    def training_step(self, order: torch.Tensor, _: int) -> None:
        """Take one SGD step for each global batch of an epoch; `order` has the indices of this process's shards."""
        started, cpu_started = time.perf_counter(), time.process_time()
        optimizer = self.optimizer
        parameters = list(self.network.parameters())
        weights = [parameter.detach() for parameter in parameters]  # the same memory, without autograd
        labels = self.train_labels[order]
        counts = batch_sizes(len(self.train_labels), self.spec.batch_size)
        batches = self._batches(order, labels, counts, self._draw_augmentation(len(self.train_labels)))
        logits: list[torch.Tensor] = []
        norms = []
        before = _flatten(weights)
        step, warm_up = self.current_epoch * len(counts), self.spec.warmup_epochs * len(counts)
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        has_gradient: list[bool] = []
        with self._seeded_rngs():
            for count, micro_batches in zip(counts, batches, strict=True):
                step += 1
                self._warm_up(optimizer, step, warm_up)
                for parameter in parameters:  # `Optimizer.zero_grad` without its hooks, which cost 4 % of a small step
                    parameter.grad = None
                logits += backward(self.network, micro_batches, count)
                if self.process_group.size > 1:
                    # Found in the first batch, of which no shard is empty.
                    has_gradient = has_gradient or self.process_group.has_gradient(trainable)
                    self.process_group.all_reduce_gradients(trainable, has_gradient)
                optimizer.step()
                after = _flatten(weights)
                norms.append(torch.linalg.vector_norm(after - before, dtype=torch.float64))
                before = after
        # Read from the device once an epoch: each read would wait for all work that is queued there.
        sums = self.process_group.all_reduce(summed_loss_and_correct(torch.cat(logits), labels))
        loss, accuracy = normalize_sums(sums, len(self.train_labels))
        self.result = EpochResult(
            loss=loss,
            accuracy=accuracy,
            update_norms=torch.stack(norms).cpu().numpy(),
            seconds=time.perf_counter() - started,
            cpu_seconds=self.all_reduce_sum(time.process_time() - cpu_started),
        )

    def _warm_up(self, optimizer: torch.optim.Optimizer, step: int, num_steps: int) -> None:
        """Set the learning rate of a step, counted from 1, that rises linearly over `num_steps`."""
        if step <= num_steps:
            for group in optimizer.param_groups:
                group["lr"] = self.spec.learning_rate * (step / num_steps)

    @contextmanager
    def _seeded_rngs(self) -> Iterator[None]:
        """Seed all random number generators by (seed, epoch, rank), as for dropout; restore them at the end."""
        seed = dropout_seed(self.spec.seed, self.current_epoch + 1, self.process_group.rank)
        on_gpu = self.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.device] if on_gpu else []), seed_global_rngs(seed):
            torch.default_generator.manual_seed(seed)  # `torch.manual_seed` takes a millisecond: it seeds GPUs too
            if on_gpu:
                torch.cuda.manual_seed(seed)
            yield

    def _draw_augmentation(self, count: int) -> Augmentation | None:
        """Return this epoch's augmentation of the training images, on their device; None without augmentation."""
        flip, shift = self.spec.training.augment_flip, self.spec.training.augment_shift
        if not (flip or shift):
            return None
        augmentation = draw_augmentation(count, flip, shift, self.spec.seed, self.current_epoch + 1)
        return augmentation.to(self.train_images.device)

    def _batches(
        self, order: torch.Tensor, labels: torch.Tensor, counts: list[int], augmentation: Augmentation | None
    ) -> Iterator[Iterable[MicroBatch]]:
        """Yield this process's shard of each global batch, whose sizes are `counts`, as micro-batches.

        To bound the memory, images are converted to floats a few batches at a time, or one micro-batch at a time if
        batches are split.
        """
        size = self.micro_batch
        shard_sizes = [shard.stop - shard.start for shard in map(self.process_group.shard, counts)]
        order = order.to(self.train_images.device)
        if size < shard_sizes[0]:
            for indices, targets in zip(order.split(shard_sizes), labels.split(shard_sizes), strict=True):
                micro_inputs = (self._inputs(micro_batch, augmentation) for micro_batch in indices.split(size))
                yield zip(micro_inputs, targets.split(size), strict=True) if len(indices) else []
            return
        image_bytes = self.train_images[0].numel() * torch.float32.itemsize
        batches_at_once = max(1, CONVERTED_BYTES // (shard_sizes[0] * image_bytes))
        groups = [shard_sizes[start : start + batches_at_once] for start in range(0, len(shard_sizes), batches_at_once)]
        group_sizes = list(map(sum, groups))
        for group, indices, targets in zip(groups, order.split(group_sizes), labels.split(group_sizes), strict=True):
            inputs = self._inputs(indices, augmentation)
            for batch in zip(inputs.split(group), targets.split(group), strict=True):
                yield [batch] if len(batch[1]) or self.has_collectives_in_forward else []

    def _inputs(self, indices: torch.Tensor, augmentation: Augmentation | None) -> torch.Tensor:
        """Return the training images of some indices as inputs of the network."""
        images = gather_examples(self.train_images, indices, self.device)
        if augmentation:
            images = augment_images(images, augmentation[indices].to(self.device))
        return normalize_images(images)

    def validate(self) -> tuple[float, float]:
        """Return the loss and the accuracy over the validation set at the current weights."""
        count = len(self.validation_labels)
        shard = self.process_group.shard(count)
        images, labels = self.validation_images[shard], self.validation_labels[shard]
        self.chunk, sums = find_largest_fitting(
            self.chunk, lambda chunk: evaluate_loss_and_correct(self.network, images, labels, chunk)
        )
        return normalize_sums(self.process_group.all_reduce(sums), count)

    def all_reduce_sum(self, value: float) -> float:
        """Return the sum of a number over all processes."""
        return self.process_group.all_reduce(torch.tensor(value, dtype=torch.float64, device=self.device)).item()

    def noise_scale(self) -> tuple[float, float]:
        """Return ‖G‖ and the gradient noise scale over the training set, after an epoch: see `estimate_noise_scale`.

        Its batches follow the order of the next epoch that shuffles, which is independent of the weights.
        """
        order = torch.from_numpy(epoch_order(len(self.train_labels), self.spec.seed, self.current_epoch + 2))
        images, labels = self.train_images, self.train_labels
        self.chunk, estimates = find_largest_fitting(
            self.chunk, lambda chunk: estimate_noise_scale(self.network, images, labels, order, chunk=chunk)
        )
        return estimates


def _flatten(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
