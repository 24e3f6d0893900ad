"""The Lightning module: one epoch of global batches."""

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
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
from batchscape.training.micro_batches import Part, backward
from batchscape.training.noise_scale import gradient_noise
from batchscape.training.sampler import batch_sizes, dropout_seed, epoch_order

# What images may take that become floats in one operation, if more than a batch, or a part of it, is converted.
CONVERTED_BYTES = 512 << 10
# What a run on a GPU holds besides its weights, their gradients and the activations, as a multiple of the weights:
# momentum, the best weights, and the flat copies from which the norm of an update is taken.
WEIGHTS_HELD = 5


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
    """CPU time of the run's processes, all threads: what the epoch costs however many jobs share the machine."""


class EpochSampler:
    """The loader: what Lightning sees as one batch is the order of a whole epoch.

    Lightning's work around each of its batches takes a quarter of the time of a small network's step, so
    the module cuts the order into global batches itself. Of each of them a process sees its share.
    """

    def __init__(self, count: int, batch_size: int, seed: int, process_group: ProcessGroup, epoch: Callable[[], int]):
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.process_group = process_group
        self.epoch = epoch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = torch.from_numpy(epoch_order(self.count, self.seed, self.epoch()))
        if self.process_group.size > 1:
            order = torch.cat([batch[self.process_group.shard(len(batch))] for batch in order.split(self.batch_size)])
        yield order


class TrainingModule(pl.LightningModule):
    """A network, its data, and the steps of one run."""

    def __init__(
        self,
        network: nn.Module,
        data: PreparedData,
        spec: RunSpec,
        process_group: ProcessGroup | None = None,
        jobs_per_gpu: int = 1,
        micro_batch: int | None = None,
    ):
        """`process_group` is this process among those that train the run together; by default it is alone.

        On a GPU that `jobs_per_gpu` share, a batch that may be cut goes through the network in micro-batches that fit
        in memory, of at most `micro_batch` examples if that is given, as by the state from which a run resumes.
        """
        super().__init__()
        self.automatic_optimization = False
        self.process_group = process_group or ProcessGroup()
        few = torch.from_numpy(data.train_images[:NUM_PROBE_EXAMPLES])
        if self.process_group.size > 1:
            synchronize_batch_norm(network, few, self.process_group)
        # Then a process goes through the network even if its share of a short batch is empty.
        self.has_collectives_in_forward = any(isinstance(layer, GlobalBatchNorm) for layer in network.modules())
        # Else the parts of a batch would not give what it gives as a whole.
        self.supports_micro_batches = (
            not self.has_collectives_in_forward
            if self.process_group.size > 1
            else examples_are_independent(network, few)
        )
        self.network = network
        self.data = data
        self.spec = spec
        self.jobs_per_gpu = jobs_per_gpu
        self.micro_batch = micro_batch or spec.batch_size
        self.result: EpochResult | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            self.network.parameters(),
            lr=self.spec.learning_rate,
            momentum=self.spec.training.momentum,
            weight_decay=self.spec.training.weight_decay,
            fused=True,
        )

    def train_dataloader(self) -> EpochSampler:
        spec, reshuffle = self.spec, self.spec.training.reshuffle
        return EpochSampler(
            len(self.data.train_labels), spec.batch_size, spec.seed, self.process_group,
            lambda: self.current_epoch + 1 if reshuffle else 1,
        )  # fmt: skip

    def on_fit_start(self) -> None:
        self.process_group.assert_initialized()
        data, device = self.data, self.device
        size = data.train_images.nbytes + data.validation_images.nbytes
        home = storage_device(size, device, free_memory(device, self.jobs_per_gpu))
        self.train_images, self.validation_images = (
            torch.from_numpy(images).to(home) for images in (data.train_images, data.validation_images)
        )
        self.train_labels, self.validation_labels = (
            torch.from_numpy(labels).to(device) for labels in (data.train_labels, data.validation_labels)
        )
        with evaluation_mode(self.network):
            self.chunk = max_micro_batch_size(
                self.network, normalize_images(self.train_images[:NUM_PROBE_EXAMPLES].to(device))
            )
        if (
            self.supports_micro_batches and device.type == "cpu"
        ):  # on a GPU more parts than memory demands would only cost
            self.micro_batch = min(self.chunk, self.micro_batch)
        elif self.supports_micro_batches:
            self.micro_batch = self._largest_micro_batch()
        elif device.type == "cpu":  # a GPU says itself in the first step that its memory does not suffice
            self._require_memory()

    @property
    def _share(self) -> int:
        """How many examples of a batch this process has at most."""
        return math.ceil(self.spec.batch_size / self.process_group.size)

    def _require_memory(self) -> None:
        """Raise MemoryError if the network keeps more for the gradient of a batch than the machine has memory.

        Without it Linux would kill the process, or others, once the pages are touched.
        """
        if len(self.train_images) < NUM_PROBE_EXAMPLES:
            return
        with self._randomness():
            network = copy.deepcopy(self.network)
            few, half = (
                saved_tensor_bytes(network, self._inputs(torch.arange(n), None))
                for n in (NUM_PROBE_EXAMPLES, NUM_PROBE_EXAMPLES // 2)
            )
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of this machine; torchrun sets it
        if (few - half) / (
            NUM_PROBE_EXAMPLES - NUM_PROBE_EXAMPLES // 2
        ) * self._share * processes > psutil.virtual_memory().total:
            raise MemoryError("out of memory: a batch keeps more for its gradient than this machine has")

    def _largest_micro_batch(self) -> int:
        """Return how many examples fit in a GPU's memory at once, of this process's share of a batch."""
        return find_largest_fitting(min(self._share, self.micro_batch), self._try_step)[0]

    def _try_step(self, count: int) -> None:
        """Take the gradient of a micro-batch on a GPU, with a margin of memory; the network stays as it is.

        Raises an out-of-memory error if the examples do not fit.
        """
        with limit_gpu_memory(self.device, self.jobs_per_gpu), self._randomness():
            network = copy.deepcopy(self.network)
            weights = sum(parameter.nbytes for parameter in network.parameters())
            held = torch.empty(WEIGHTS_HELD * weights, dtype=torch.uint8, device=self.device)
            indices = torch.arange(count, device=self.train_images.device)
            backward(network, [(self._inputs(indices, None), self.train_labels[:count])], count)
            del held

    def parameter_vector(self) -> torch.Tensor:
        """All parameters as a new flat vector, (p,), in the network's order."""
        return _flat([parameter.detach() for parameter in self.network.parameters()])

    def training_step(self, order: torch.Tensor, _: int) -> None:
        """Take one SGD step for each global batch of an epoch's order, of which this process has its share."""
        started, cpu_started = time.perf_counter(), time.process_time()
        optimizer = self.optimizers(use_pl_optimizer=False)
        parameters = list(self.network.parameters())
        weights = [parameter.detach() for parameter in parameters]  # the same memory, without a history of operations
        labels = self.train_labels[order]
        counts = batch_sizes(len(self.train_labels), self.spec.batch_size)
        batches = self._batches(order, labels, counts, self._augmentation(len(self.train_labels)))
        logits, norms = [], []
        before = _flat(weights)
        step, warm_up = self.current_epoch * len(counts), self.spec.warmup_epochs * len(counts)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        used: list[bool] = []
        with self._randomness():
            for count, parts in zip(counts, batches, strict=True):
                step += 1
                self._warm_up(optimizer, step, warm_up)
                for parameter in parameters:  # `Optimizer.zero_grad` without its hooks, which cost 4 % of a small step
                    parameter.grad = None
                logits += backward(self.network, parts, count)
                if self.process_group.size > 1:
                    used = used or self.process_group.has_gradient(
                        trained
                    )  # of the first batch each process has a share
                    self.process_group.all_reduce_gradients(trained, used)
                optimizer.step()
                after = _flat(weights)
                norms.append(torch.linalg.vector_norm(after - before, dtype=torch.float64))
                before = after
        # Read from the device once an epoch: each read would wait for all work that is queued there.
        loss, accuracy = normalize_sums(
            self.process_group.all_reduce(summed_loss_and_correct(torch.cat(logits), labels)), len(self.train_labels)
        )
        self.result = EpochResult(
            loss=loss,
            accuracy=accuracy,
            update_norms=torch.stack(norms).cpu().numpy(),
            seconds=time.perf_counter() - started,
            cpu_seconds=self.all_reduce_sum(time.process_time() - cpu_started),
        )

    def _warm_up(self, optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
        """Set the learning rate of a step, counted from 1: it rises in equal parts until the warm-up ends."""
        if step <= steps:
            for group in optimizer.param_groups:
                group["lr"] = self.spec.learning_rate * (step / steps)

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        """Have dropout and the like draw by (seed, epoch) for a while; then all random states are as they were."""
        seed = dropout_seed(self.spec.seed, self.current_epoch + 1, self.process_group.rank)
        on_gpu = self.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.device] if on_gpu else []), seed_global_rngs(seed):
            torch.default_generator.manual_seed(seed)  # `torch.manual_seed` takes a millisecond: it seeds GPUs too
            if on_gpu:
                torch.cuda.manual_seed(seed)
            yield

    def _augmentation(self, count: int) -> Augmentation | None:
        """What this epoch does to each training image, where the images are; None if training has them as they are."""
        flip, shift = self.spec.training.augment_flip, self.spec.training.augment_shift
        if not (flip or shift):
            return None
        drawn = draw_augmentation(count, flip, shift, self.spec.seed, self.current_epoch + 1)
        return drawn.to(self.train_images.device)

    def _batches(
        self, order: torch.Tensor, labels: torch.Tensor, counts: list[int], augmentation: Augmentation | None
    ) -> Iterator[Iterable[Part]]:
        """Cut an epoch into this process's shares of the global batches, whose sizes are `counts`, and each into parts.

        Images become floats some batches at a time, or part by part if batches are cut, which bounds the memory.
        """
        part = self.micro_batch
        shares = [share.stop - share.start for share in map(self.process_group.shard, counts)]
        order = order.to(self.train_images.device)
        if part < shares[0]:
            for indices, targets in zip(order.split(shares), labels.split(shares), strict=True):
                inputs = (self._inputs(some, augmentation) for some in indices.split(part))
                yield zip(inputs, targets.split(part), strict=True) if len(indices) else []
            return
        image = self.train_images[0].numel() * torch.float32.itemsize
        together = max(1, CONVERTED_BYTES // (shares[0] * image))
        groups = [shares[start : start + together] for start in range(0, len(shares), together)]
        sizes = list(map(sum, groups))
        for group, indices, targets in zip(groups, order.split(sizes), labels.split(sizes), strict=True):
            inputs = self._inputs(indices, augmentation)
            for batch in zip(inputs.split(group), targets.split(group), strict=True):
                yield [batch] if len(batch[1]) or self.has_collectives_in_forward else []

    def _inputs(self, indices: torch.Tensor, augmentation: Augmentation | None) -> torch.Tensor:
        """The training images of some indices as the network takes them."""
        images = gather_examples(self.train_images, indices, self.device)
        if augmentation:
            images = augment_images(images, augmentation[indices].to(self.device))
        return normalize_images(images)

    def validate(self) -> tuple[float, float]:
        """Return the loss and the accuracy over the validation set at the present weights."""
        mine, count = self.process_group.shard(len(self.validation_labels)), len(self.validation_labels)
        images, labels = self.validation_images[mine], self.validation_labels[mine]
        self.chunk, found = find_largest_fitting(
            self.chunk, lambda chunk: evaluate_loss_and_correct(self.network, images, labels, chunk)
        )
        return normalize_sums(self.process_group.all_reduce(found), count)

    def all_reduce_sum(self, seconds: float) -> float:
        """Return the sum of what each process has."""
        return self.process_group.all_reduce(torch.tensor(seconds, dtype=torch.float64, device=self.device)).item()

    def gradient_noise(self) -> tuple[float, float]:
        """Return ‖G‖ and the noise scale tr(Σ)/‖G‖² over the training set at the present weights, after an epoch.

        The batches are cut from the order of the next epoch if it is shuffled anew, which the weights do not depend on.
        """
        order = torch.from_numpy(epoch_order(len(self.train_labels), self.spec.seed, self.current_epoch + 2))
        images, labels = self.train_images, self.train_labels
        self.chunk, found = find_largest_fitting(
            self.chunk, lambda chunk: gradient_noise(self.network, images, labels, order, chunk=chunk)
        )
        return found


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
