"""Whether a network fits the data: seen in one step with a few images, before anything trains."""

import copy
from typing import Any

import torch
from torch import nn

from batchscape.config.model import ModelConfig
from batchscape.data.prepared import PreparedData
from batchscape.data.tensors import as_input, on_device
from batchscape.errors import UserError
from batchscape.import_path import told
from batchscape.models import build_network, outputs_for_images
from batchscape.objective import mean_loss, outputs_for
from batchscape.perturbation import perturbed

FEW = 4


def check_network(config: ModelConfig, loss: str, largest_batch: int, data: PreparedData) -> dict[str, Any]:
    """Return what the network is: its input, outputs and parameters.

    Raises UserError if it cannot be made or copied, cannot take the images, gives outputs of another shape than the
    loss wants for these classes, or ones that depend on the other images in evaluation, or has nothing to train; and
    if the largest batch is larger than the data.
    """
    require_batch(largest_batch, data)
    outputs = outputs_for(loss, len(data.classes))
    shape = data.train_images.shape[1:]
    network = build_network(config, shape, outputs, seed=0)
    images, labels = on_device(data.train_images[:FEW], data.train_labels[:FEW], torch.device("cpu"))
    wanted = (len(images), outputs)
    for training in (False, True):  # both, for a network may do other things when it does not train
        predicted = outputs_for_images(network.train(training), as_input(images), config.name)
        if not isinstance(predicted, torch.Tensor) or tuple(predicted.shape) != wanted:
            got = f"shape {tuple(predicted.shape)}" if isinstance(predicted, torch.Tensor) else type(predicted).__name__
            raise UserError(
                f"model.name: {config.name} gives {got} for {len(images)} images; for {len(data.classes)} classes "
                f"({_few(data.classes)}) and "
                f"`training.loss: {loss}` it must give shape {wanted}; let its last layer give {outputs} for each image"
                + (
                    ", or write `training.loss: cross_entropy`"
                    if got == f"shape {(len(images), 2)}" and outputs == 1
                    else ""
                )
            )
        if not training:
            fewer = outputs_for_images(network, as_input(images[:2]), config.name)
            if not torch.allclose(fewer, predicted[:2], rtol=1e-3, atol=1e-4, equal_nan=True):
                raise UserError(
                    f"model.name: {config.name} gives an image other outputs among other images, when it is "
                    "evaluated; have BatchNorm track running statistics, and nothing drawn at random"
                )
    if not predicted.requires_grad:
        raise UserError(f"model.name: {config.name} has no parameter that training could change; give it one")
    mean_loss(predicted, labels).backward()
    parameters = dict(network.named_parameters())
    return {
        "name": config.name,
        "image_shape": list(shape),
        "classes": list(data.classes),
        "outputs": outputs,
        "loss": "binary_cross_entropy" if outputs == 1 else "cross_entropy",
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "shapes": {name: list(parameter.shape) for name, parameter in parameters.items()},
        "batch_norm": any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()),
    }


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def require_batch(size: int, data: PreparedData) -> None:
    """Raise UserError if a batch size is above the number of training images."""
    count = len(data.train_labels)
    if size > count:
        may_fit = size < count + len(data.validation_labels)
        raise UserError(
            f"grid.batch_sizes: {size} is more than the {count} training images; take it out"
            + (" or lower data.validation_fraction" if may_fit else "")
        )


def treats_images_alone(network: nn.Module, images: torch.Tensor) -> bool:
    """Say whether what a network in training gives an image depends on that image alone, and no step leaves a trace.

    Only then do parts of a batch, one after the other or in several processes, give what the batch gives as a whole.
    BatchNorm takes its statistics from all images; others keep statistics in buffers, once for each step. `images` is
    uint8, (n, channels, height, width), n at least 2. The network is left as it is.
    """
    # Statistics of the weights are at rest until a step moves these, and weights of zero hide what is before them.
    twin = perturbed(network).train()
    before = [buffer.clone() for buffer in twin.buffers()]
    inputs = as_input(images)
    others = torch.cat([inputs[:1], 1 - inputs[1:]])
    outputs = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for batch in (inputs, others):
            torch.manual_seed(0)  # the same dropout
            outputs.append(twin(batch)[0])
    untouched = all(map(torch.equal, before, twin.buffers()))
    return untouched and torch.allclose(*outputs, rtol=1e-5, atol=1e-7, equal_nan=True)


def takes_one_image(network: nn.Module, images: torch.Tensor) -> bool:
    """Say whether a network can train on a batch of one image: BatchNorm of single numbers has no variance there.

    `images` is uint8, (n, channels, height, width). The network is left as it is.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(network).train()(as_input(images[:1]))
        except ValueError:
            return False
    return True
