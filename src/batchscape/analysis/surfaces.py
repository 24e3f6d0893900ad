"""Loss surfaces of a run: its network on the training or validation set."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from batchscape.config.analysis import AnalysisConfig
from batchscape.config.base import Section
from batchscape.config.checkpoint import Checkpoint
from batchscape.config.run import RunSpec
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.dataset import Dataset, storage_device
from batchscape.data.prepared import PreparedData, target_variance
from batchscape.data.spec import TRAIN, VALIDATION
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import Weights
from batchscape.runtime.device import choose_device
from batchscape.tasks.build import build_objective
from batchscape.tasks.objective import Objective

ConfigType = TypeVar("ConfigType", bound=Section)


@dataclass(frozen=True)
class DrawnData(PreparedData):
    """Some examples of prepared data. The task is that of all: class weights, for example, follow from all targets.

    Attributes:
        complete: All examples.
    """

    complete: PreparedData = field(kw_only=True)


def parse_spec(spec: str, section: type[ConfigType]) -> tuple[ConfigType, AnalysisConfig]:
    """Return the section of an analysis, and the one on its examples, from the spec of its job."""
    values = json.loads(spec)
    return section.model_validate(values["section"]), AnalysisConfig.model_validate(values["examples"])


def draw_examples(data: PreparedData, config: AnalysisConfig) -> PreparedData:
    """Return the examples that the analyses of a study look at.

    Args:
        data: The prepared data of the study.
        config: Section `analysis` of the config.

    Returns:
        `config.examples` examples of each side, drawn without replacement and in the order of the data; all of a side
        that has no more.
    """
    train, validation = (draw_rows(side, config.examples, config.seed) for side in (data.train, data.validation))
    variances = dict(data.spec.target_variance)
    for name, side, drawn in ((TRAIN, data.train, train), (VALIDATION, data.validation, validation)):
        if name in variances and drawn is not side:
            variances[name] = target_variance({key: array.numpy() for key, array in drawn.arrays.items()})
    return DrawnData(replace(data.spec, target_variance=variances), train, validation, complete=data)


def draw_rows(data: Dataset, limit: int, seed: int) -> Dataset:
    """Return examples drawn without replacement, in their order; all if there are no more than `limit`."""
    if len(data) <= limit:
        return data
    indices = np.sort(np.random.default_rng(seed).choice(len(data), limit, replace=False))
    return data[torch.from_numpy(indices)]


def training_surface(run: RunDirectory, data: PreparedData) -> LossSurface:
    """Return the loss over the training examples.

    It is computed on the device that the run's config selects: a GPU if there is one, unless the config excludes it.

    Args:
        run: The run, whose network and initial weights are used.
        data: The examples to look at.

    Returns:
        The loss surface, at first with the BatchNorm statistics of the initial network.
    """
    return _surface(run, data, data.train)


def validation_surface(run: RunDirectory, data: PreparedData) -> LossSurface:
    """Return the loss over the validation examples, see `training_surface`."""
    return _surface(run, data, data.validation)


def load_batch_norm_statistics(surface: LossSurface, weights: Weights, policy: str) -> str:
    """Load the BatchNorm statistics of a checkpoint into a loss surface.

    Args:
        surface: The loss surface, modified in place.
        weights: The checkpoint.
        policy: The policy for BatchNorm statistics, such as `fixed`.

    Returns:
        The value of the column `batch_norm`: the policy, or `none` for a network without BatchNorm.
    """
    surface.batch_norm_statistics = weights.buffers
    return policy if surface.has_batch_norm else "none"


def evaluate_at_checkpoints(
    run: RunDirectory,
    data: PreparedData,
    checkpoints: Iterable[Checkpoint],
    measure: Callable[[LossSurface, np.ndarray], pd.DataFrame],
) -> pd.DataFrame:
    """Measure the training loss around the weights of each checkpoint.

    Args:
        run: The run.
        data: The examples to look at.
        checkpoints: The checkpoints.
        measure: Measures a loss surface at weights of shape (p,). The weights are nan if the run did not reach the
            checkpoint; the surface has the BatchNorm statistics of the checkpoint.

    Returns:
        The rows of all checkpoints, with `checkpoint` as the first column, and `batch_norm` and `examples`, the number
        of training examples, as the last.
    """
    surface = training_surface(run, data)
    frames = []
    for checkpoint in checkpoints:
        weights = run.checkpoint_weights(checkpoint)
        policy = load_batch_norm_statistics(surface, weights, "fixed")
        rows = measure(surface, weights.vector)
        rows.insert(0, "checkpoint", run.checkpoint_name(checkpoint))
        frames.append(rows.assign(batch_norm=policy, examples=len(surface)))
    return pd.concat(frames, ignore_index=True)


def build_initial_objective(run: RunDirectory, data: PreparedData, seed: int | None = None) -> Objective:
    """Return the network of a run, with its initial weights or those of another seed, and its loss."""
    spec = RunSpec.model_validate(run.summary()["spec"])
    complete = replace(data.complete, spec=data.spec) if isinstance(data, DrawnData) else data
    return build_objective(spec.model, spec.task, complete, spec.seed if seed is None else seed)


def run_device(run: RunDirectory) -> torch.device:
    """Return the device on which a run is analyzed, from its `training.accelerator`."""
    return choose_device(run.summary()["spec"]["training"]["accelerator"])


def _surface(run: RunDirectory, data: PreparedData, side: Dataset) -> LossSurface:
    device = run_device(run)
    # TF32 convolutions have a mantissa of ten bits, too few for the small steps of the analyses.
    torch.backends.cudnn.allow_tf32 = False
    return LossSurface(build_initial_objective(run, data), side.to(storage_device(side.num_bytes, device)), device)
