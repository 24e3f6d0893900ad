"""The loss surface of a run: its network over one side of the prepared data."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from torch import nn

from batchscape.config.checkpoint import Checkpoint
from batchscape.config.run import RunSpec
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepared import PreparedData
from batchscape.data.tensors import storage_device
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import Weights
from batchscape.models.build import build_network
from batchscape.runtime.device import choose_device
from batchscape.tasks.losses import num_outputs


def training_surface(run: RunDirectory, data: PreparedData) -> LossSurface:
    """Return the loss over the training images, where the run trained (a GPU if there is one, unless it is refused)."""
    return _surface(run, data, data.train_images, data.train_labels)


def validation_surface(run: RunDirectory, data: PreparedData) -> LossSurface:
    """Return the loss over the validation images, likewise."""
    return _surface(run, data, data.validation_images, data.validation_labels)


def load_batch_norm_statistics(surface: LossSurface, weights: Weights, policy: str) -> str:
    """Use the BatchNorm statistics that stand beside weights; return what a table says of the policy.

    That is `none` for a network without BatchNorm.
    """
    surface.statistics = weights.buffers
    return policy if surface.has_batch_norm else "none"


def evaluate_at_checkpoints(
    run: RunDirectory,
    data: PreparedData,
    checkpoints: Iterable[Checkpoint],
    measure: Callable[[LossSurface, np.ndarray], pd.DataFrame],
) -> pd.DataFrame:
    """Return the rows that `measure` gives for the training loss at the weights of each checkpoint, (p,).

    They are led by `checkpoint` and end with `batch_norm`: the statistics are those that stand beside the weights. At
    a checkpoint that the run did not reach the weights are nan.
    """
    surface = training_surface(run, data)
    frames = []
    for checkpoint in checkpoints:
        weights = run.checkpoint_weights(checkpoint)
        policy = load_batch_norm_statistics(surface, weights, "fixed")
        rows = measure(surface, weights.vector)
        rows.insert(0, "checkpoint", run.checkpoint_name(checkpoint))
        frames.append(rows.assign(batch_norm=policy))
    return pd.concat(frames, ignore_index=True)


def initial_network(run: RunDirectory, data: PreparedData, seed: int | None = None) -> nn.Module:
    """Return the network of a run with its initial weights, or with those of another seed."""
    spec = RunSpec.model_validate(run.summary()["spec"])
    outputs = num_outputs(spec.training.loss, len(data.classes))
    return build_network(spec.model, data.train_images.shape[1:], outputs, spec.seed if seed is None else seed)


def device_of(run: RunDirectory) -> torch.device:
    """Return where a run is analyzed: where it trained."""
    return choose_device(run.summary()["spec"]["training"]["accelerator"])


def _surface(run: RunDirectory, data: PreparedData, images: np.ndarray, labels: np.ndarray) -> LossSurface:
    device = device_of(run)
    # Else convolutions on a GPU have ten bits of precision, in which the small steps of the analyses are lost.
    torch.backends.cudnn.allow_tf32 = False
    home = storage_device(images.nbytes, device)
    network = initial_network(run, data)
    return LossSurface(network, torch.from_numpy(images).to(home), torch.from_numpy(labels).to(device))
