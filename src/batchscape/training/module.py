"""The Lightning module: the global batches of one evaluation interval."""

import copy
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import psutil
import torch

from batchscape.config.run import RunSpec
from batchscape.data.dataset import Batch, Dataset, input_tensors, slices, storage_device
from batchscape.data.prepared import PreparedData
from batchscape.models.memory import find_largest_fitting, max_micro_batch_size, saved_tensor_bytes
from batchscape.models.parameters import flatten_tensors
from batchscape.optim.averaging import WeightAverage
from batchscape.optim.clipping import clip_gradients
from batchscape.optim.optimizers import build_optimizer
from batchscape.runtime.device import free_memory, limit_gpu_memory
from batchscape.runtime.randomness import seed_global_rngs
from batchscape.tasks.compatibility import NUM_PROBE_EXAMPLES, examples_are_independent
from batchscape.tasks.modes import evaluation_mode
from batchscape.tasks.objective import Measurement, Meter, Objective, dataset_weights, evaluate
from batchscape.training.augmentation import Augmentation, augment_images, draw_augmentation
from batchscape.training.batch_norm import GlobalBatchNorm, synchronize_batch_norm
from batchscape.training.distributed import ProcessGroup
from batchscape.training.lightning import pl
from batchscape.training.micro_batches import backward
from batchscape.training.noise_scale import estimate_noise_scale
from batchscape.training.plan import Part, StepPlan
from batchscape.training.precision import Autocast, tf32
from batchscape.training.sampler import SEED_BLOCK, IntervalSampler, dropout_seeds, epoch_order

# Bytes of inputs that are decoded in one operation, unless a batch, or a micro-batch, is larger.
DECODED_BYTES = 512 << 10
# GPU memory of a run besides its weights, their gradients and the activations, as a multiple of the weights: momentum,
# the best weights, and the flat copies from which the norm of an update is computed.
EXTRA_WEIGHT_COPIES = 5


@dataclass(frozen=True)
class Interval:
    """What was measured since the last evaluation."""

    sums: torch.Tensor
    """Sums of loss and metrics over the examples, each evaluated before its update, (1 + m,) float64."""

    weight: float = 0.0
    """Sum of the weights of the examples."""

    update_norms: np.ndarray = field(default_factory=lambda: np.empty(0))
    """‖θ_{t+1} − θ_t‖₂ of each step, (steps,), float64."""

    clipped: int = 0
    """Steps whose gradient was clipped."""

    seconds: float = 0.0
    """Wall time."""

    cpu_seconds: float = 0.0
    """CPU time of the run's processes, all threads: the cost however many jobs share the machine."""


class TrainingModule(pl.LightningModule):
    """A network, its data, and the steps of one run."""

    interval: Interval
    """What was measured since the last evaluation."""

    step: int
    """Steps that have been taken."""

    average: WeightAverage | None
    """The average of the weights, if the specification has one."""

    after_segment: Callable[[], None]
    """Called within an interval after each of its segments but the last, where a run can be saved."""

    optimizer: torch.optim.Optimizer
    """Set by `configure_optimizers`; Lightning's `optimizers()` may return a list."""

    rate_ratios: list[float]
    """Learning rate of each parameter group as a multiple of that of the run: 1, unless a LightningModule differs."""

    def __init__(
        self,
        objective: Objective,
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
        network = objective.module
        probe = data.train.batch(slice(NUM_PROBE_EXAMPLES), torch.device("cpu"))
        if self.process_group.size > 1:
            synchronize_batch_norm(objective, probe, data.spec, self.process_group)
        # Then each process must run the forward pass, even if its shard of a short batch is empty.
        self.has_collectives_in_forward = any(isinstance(layer, GlobalBatchNorm) for layer in network.modules())
        self.supports_micro_batches = (
            not self.has_collectives_in_forward
            if self.process_group.size > 1
            else examples_are_independent(objective, probe, data.spec)
        )
        self.network = network
        self.objective = objective
        self.data = data
        self.spec = spec
        self.jobs_per_gpu = jobs_per_gpu
        self.plan = StepPlan(spec, len(data.train))
        self.micro_batch = micro_batch or self.plan.max_batch_size
        self.step = 0
        self.interval = self.new_interval()
        self.after_segment = lambda: None
        self.has_user_code = ":" in f"{spec.model.name} {spec.task.loss} {spec.optimizer.name}"
        # Caches of the last epoch, or the last block of steps, that was asked for.
        self._order_of_epoch: tuple[int, torch.Tensor] = 0, torch.empty(0)
        self._augmentation_of_epoch: tuple[int, Augmentation] | None = None
        self._seeds_of_block: dict[int, tuple[int, list[int]]] = {}  # by rank

    def new_interval(self) -> Interval:
        """Return an interval in which nothing has been measured."""
        return Interval(torch.zeros(1 + len(self.objective.metrics), dtype=torch.float64))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        rate = self.spec.learning_rate
        self.optimizer = build_optimizer(self.network, self.spec.optimizer, rate)
        self.rate_ratios = [group["lr"] / rate for group in self.optimizer.param_groups]
        return self.optimizer

    def train_dataloader(self) -> IntervalSampler:
        return IntervalSampler(self.plan.evaluations, lambda: self.current_epoch)

    def on_fit_start(self) -> None:
        self.process_group.assert_initialized()
        device = self.device
        half_life, precision = self.spec.averaging.half_life, self.spec.training.precision
        self.average = WeightAverage(self.network, half_life) if half_life else None
        self.training_objective = self.objective
        if precision == "bf16":
            self.training_objective = self.objective.on(Autocast(self.network, device.type))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        # Before they move to a device whose memory they may fill.
        self.train_weights, self.validation_weights = (
            dataset_weights(self.objective, side, device) for side in (self.data.train, self.data.validation)
        )
        num_bytes = self.data.train.num_bytes + self.data.validation.num_bytes
        storage = storage_device(num_bytes, device, free_memory(device, self.jobs_per_gpu))
        self.train_data, self.validation_data = self.data.train.to(storage), self.data.validation.to(storage)
        with evaluation_mode(self.network):
            self.chunk = max_micro_batch_size(self.network, self._network_inputs(NUM_PROBE_EXAMPLES))
        if self.supports_micro_batches and device.type == "cpu":
            self.micro_batch = min(self.chunk, self.micro_batch)
        elif self.supports_micro_batches:  # no smaller than the memory demands: on a GPU that would only cost time
            self.micro_batch = self._largest_micro_batch()
        elif device.type == "cpu":  # a GPU raises an error in the first step if its memory does not suffice
            self._check_memory()

    @property
    def _max_shard_size(self) -> int:
        """The most examples of a batch that this process has."""
        return math.ceil(self.plan.max_batch_size / self.process_group.size)

    def _check_memory(self) -> None:
        """Raise MemoryError if the backward pass of a batch needs more memory than the machine has.

        Otherwise Linux would kill this process, or others, once the pages are touched.
        """
        if len(self.train_data) < NUM_PROBE_EXAMPLES:
            return
        with self._restored_rngs():
            network = copy.deepcopy(self.network)
            all_bytes, half_bytes = (
                saved_tensor_bytes(network, self._network_inputs(count))
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
        with limit_gpu_memory(self.device, self.jobs_per_gpu), self._restored_rngs():
            objective = self.objective.copy()
            weight_bytes = sum(parameter.nbytes for parameter in objective.module.parameters())
            extra_copies = torch.empty(EXTRA_WEIGHT_COPIES * weight_bytes, dtype=torch.uint8, device=self.device)
            backward(objective, [self._decode(slice(count))], count)
            del extra_copies

    def parameter_vector(self) -> torch.Tensor:
        """Return all parameters as a new flat vector, (p,), in the network's order."""
        return flatten_tensors([parameter.detach() for parameter in self.network.parameters()])

    def training_step(self, stop: int, _: int) -> None:
        """Take the steps up to the one after which the run is evaluated."""
        if self.step == (self.plan.evaluations[self.current_epoch - 1] if self.current_epoch else 0):
            self.interval = self.new_interval()  # otherwise it is that of a checkpoint
        while self.step < stop:
            with tf32(self.spec.training.precision == "tf32"):
                self._train_segment(self.plan.segment_end(self.step))
            if self.step < stop:
                self.after_segment()

    def _train_segment(self, stop: int) -> None:
        """Take one optimizer step for each global batch up to a step, and add what was measured to the interval."""
        started, cpu_started = time.perf_counter(), time.process_time()
        optimizer, clip_norm = self.optimizer, self.spec.optimizer.clip_norm
        parameters = list(self.network.parameters())
        weights = [parameter.detach() for parameter in parameters]  # the same memory, without autograd
        meter = Meter(self.objective, self.device)
        norms, clipped = [], []
        before = flatten_tensors(weights)
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        total_weight = 0.0
        with self._restored_rngs():
            for part in self.plan.parts(self.step, stop):
                order = self._order(part)
                batch_weights = self._batch_weights(order, part.sizes)
                batches = self._batches(order, part)
                for size, weight, micro_batches in zip(part.sizes, batch_weights, batches, strict=True):
                    self._seed_rngs(self.step)
                    self.step += 1
                    self._set_learning_rate(optimizer, self.step)
                    for parameter in parameters:  # `Optimizer.zero_grad` without its hooks: 4 % of a small step
                        parameter.grad = None
                    for record in backward(self.training_objective, micro_batches, weight):
                        meter.add(record)
                    if self.process_group.size > 1:
                        self.process_group.all_reduce_gradients(trainable)
                    if clip_norm is not None:
                        clipped.append(clip_gradients(trainable, clip_norm))
                    if self.process_group.size > 1:  # an optimizer with noise must draw the same in all processes
                        self._seed_rngs(self.step - 1, rank=0)
                    optimizer.step()
                    if self.average is not None:
                        self.average.update(size)
                    after = flatten_tensors(weights)
                    norms.append(torch.linalg.vector_norm(after - before, dtype=torch.float64))
                    before = after
                total_weight += self._total_weight(order)
        # Read from the device once a segment: each read would wait for all work that is queued there.
        sums = self.process_group.all_reduce(meter.sums()).cpu()
        interval = self.interval
        self.interval = Interval(
            sums=interval.sums + sums,
            weight=interval.weight + total_weight,
            update_norms=np.concatenate([interval.update_norms, torch.stack(norms).cpu().numpy()]),
            clipped=interval.clipped + (int(torch.stack(clipped).sum()) if clipped else 0),
            seconds=interval.seconds + time.perf_counter() - started,
            cpu_seconds=interval.cpu_seconds + self.all_reduce_sum(time.process_time() - cpu_started),
        )

    def training_measurement(self) -> Measurement:
        """Return the means of loss and metrics over the examples of the interval, each before its update."""
        return self.objective.report(self.interval.sums, self.interval.weight, "train")

    def _order(self, part: Part) -> torch.Tensor:
        """Return the examples of a part of an epoch, in the order of training."""
        epoch = part.epoch if self.spec.training.reshuffle else 1
        if self._order_of_epoch[0] != epoch:
            order = epoch_order(len(self.data.train), self.spec.seed, epoch)
            self._order_of_epoch = epoch, torch.from_numpy(order)
        return self._order_of_epoch[1][part.examples]

    def _batch_weights(self, order: torch.Tensor, sizes: list[int]) -> Sequence[float | torch.Tensor]:
        """Return the total weight of each global batch, the same in all processes."""
        if self.train_weights is None:
            return sizes
        return [part.sum() for part in self.train_weights[order.to(self.train_weights.device)].split(sizes)]

    def _total_weight(self, order: torch.Tensor) -> float:
        """Return the total weight of examples; that of an epoch is the sum over the data in its own order."""
        if self.train_weights is None:
            return float(len(order))
        is_complete = len(order) == len(self.train_weights)
        weights = self.train_weights if is_complete else self.train_weights[order.to(self.train_weights.device)]
        return weights.sum().item()

    def _set_learning_rate(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rate of a step, counted from 1."""
        rate = self.learning_rate(step)
        for group, ratio in zip(optimizer.param_groups, self.rate_ratios, strict=True):
            group["lr"] = rate * ratio

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return self.spec.learning_rate * self.plan.learning_rate_factor(step)

    @contextmanager
    def _restored_rngs(self) -> Iterator[None]:
        """Restore the states of all random number generators at the end, and seed them for the next step."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []), seed_global_rngs(0):
            self._seed_rngs(self.step)
            yield

    def _seed_rngs(self, step: int, rank: int | None = None) -> None:
        """Seed the random number generators for a step, counted from 0, as for dropout; by default of this process."""
        block, place = divmod(step, SEED_BLOCK)
        rank = self.process_group.rank if rank is None else rank
        if rank not in self._seeds_of_block or self._seeds_of_block[rank][0] != block:
            self._seeds_of_block[rank] = block, dropout_seeds(self.spec.seed, block, rank)
        seed = self._seeds_of_block[rank][1][place]
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` takes a millisecond: it seeds GPUs too
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        if self.has_user_code:  # nothing of ours draws from these
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002

    def _draw_augmentation(self, epoch: int) -> Augmentation | None:
        """Return an epoch's augmentation of the training images, on their device; None without augmentation."""
        flip, shift = self.spec.training.augment_flip, self.spec.training.augment_shift
        if not (flip or shift):
            return None
        if self._augmentation_of_epoch is None or self._augmentation_of_epoch[0] != epoch:
            drawn = draw_augmentation(len(self.data.train), flip, shift, self.spec.seed, epoch)
            self._augmentation_of_epoch = epoch, drawn.to(self.train_data.storage)
        return self._augmentation_of_epoch[1]

    def _batches(self, order: torch.Tensor, part: Part) -> Iterator[list[Batch] | Iterator[Batch]]:
        """Yield this process's shard of each global batch of a part of an epoch, as micro-batches.

        To bound the memory, examples are decoded a few batches at a time, or one micro-batch at a time if batches are
        split.
        """
        counts, augmentation = part.sizes, self._draw_augmentation(part.epoch)
        size = self.micro_batch
        shards = [self.process_group.shard(count) for count in counts]
        sizes = [shard.stop - shard.start for shard in shards]
        if self.process_group.size > 1:
            order = torch.cat([batch[shard] for batch, shard in zip(order.split(counts), shards, strict=True)])
        order = order.to(self.train_data.storage)
        if size < sizes[0]:
            for indices in order.split(sizes):
                parts = indices.split(size) if len(indices) else ()
                yield (self._decode(part, augmentation) for part in parts)
            return
        # A part may begin with the short last batch of an epoch, of which a shard can be empty.
        batches_at_once = max(1, DECODED_BYTES // (max(1, sizes[0]) * self._input_bytes))
        groups = [sizes[start : start + batches_at_once] for start in range(0, len(sizes), batches_at_once)]
        for group, indices in zip(groups, order.split(list(map(sum, groups))), strict=True):
            for batch in self._decode(indices, augmentation).split(group):
                yield [batch] if len(batch) or self.has_collectives_in_forward else []

    def _decode(self, indices: torch.Tensor | slice, augmentation: Augmentation | None = None) -> Batch:
        """Return training examples as a batch."""
        if augmentation is None:
            return self.train_data.batch(indices, self.device)
        drawn = augmentation[indices].to(self.device)
        return self.train_data.batch(indices, self.device, transform=lambda images: augment_images(images, drawn))

    def _network_inputs(self, count: int) -> Any:
        """Return the first training examples as the network takes them."""
        return self.objective.network_inputs(self._decode(slice(count)))

    @cached_property
    def _input_bytes(self) -> int:
        """Bytes of one input of the network."""
        return sum(part.nbytes for part in input_tensors(self._decode(slice(1)).inputs))

    def validate(self) -> Measurement:
        """Return the loss and the metrics over the validation set at the current weights."""
        return self._evaluate(self.validation_data, self.validation_weights, "validation")

    def test(self) -> Measurement | None:
        """Return the loss and the metrics over the test set at the current weights; None if there is no test set."""
        if self.data.test is None:
            return None
        weights = dataset_weights(self.objective, self.data.test, self.device)
        return self._evaluate(self.data.test, weights, "test")

    @contextmanager
    def loaded(self, state: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Load a state dict into the network while the block runs, and restore its own afterwards."""
        own = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(state)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def _evaluate(self, data: Dataset, weights: torch.Tensor | None, side: str) -> Measurement:
        shard = data[self.process_group.shard(len(data))]

        def compute(chunk: int) -> torch.Tensor:
            batches = (shard.batch(part, self.device) for part in slices(len(shard), chunk))
            return evaluate(self.objective, batches, self.device)

        self.chunk, sums = find_largest_fitting(self.chunk, compute)
        total_weight = len(data) if weights is None else weights.sum().item()
        return self.objective.report(self.process_group.all_reduce(sums), total_weight, side)

    def all_reduce_sum(self, value: float) -> float:
        """Return the sum of a number over all processes."""
        return self.process_group.all_reduce(torch.tensor(value, dtype=torch.float64, device=self.device)).item()

    def noise_scale(self) -> tuple[float, float]:
        """Return ‖G‖ and the gradient noise scale over the training set: see `estimate_noise_scale`.

        Its batches follow the order of the next epoch that begins and shuffles, which is independent of the weights.
        """
        epoch = self.plan.next_epoch(self.step)
        order = torch.from_numpy(epoch_order(len(self.train_data), self.spec.seed, epoch))
        weights = None if self.train_weights is None else self.train_weights.to(self.train_data.storage)
        self.chunk, estimates = find_largest_fitting(
            self.chunk,
            lambda chunk: estimate_noise_scale(
                self.objective, self.train_data, order, self.device, weights, chunk=chunk
            ),
        )
        return estimates
