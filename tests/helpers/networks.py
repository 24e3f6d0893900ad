"""Custom networks that are valid PyTorch, but each need something from the code that calls them."""

import torch
from torch import nn
from torch.nn import functional as F

from batchscape.config.model import ModelConfig
from batchscape.data.spec import DataSpec
from batchscape.models.build import build_network

Shape = tuple[int, int, int]


def build_image_network(config: ModelConfig, shape: Shape, outputs: int, seed: int) -> nn.Module:
    """Return a network of images, (channels, height, width)."""
    return build_network(config, DataSpec("images", tuple(shape), "class"), outputs, seed)


def _layers(image_shape: Shape, outputs: int, width: int = 8) -> nn.Sequential:
    size = image_shape[0] * image_shape[1] * image_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.Tanh(), nn.Linear(width, outputs))


class WritesIntoItsInput(nn.Module):
    """Normalizes its input in place."""

    def __init__(self, image_shape: Shape, outputs: int):
        super().__init__()
        self.layers = _layers(image_shape, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images -= 0.5
        images *= 2
        return self.layers(images)


class WritesInTraining(WritesIntoItsInput):
    """Adds noise in place, only in training mode."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            images += 0.1 * torch.rand_like(images)
        return self.layers(images)


class WritesThroughData(WritesIntoItsInput):
    """Normalizes its input in place without autograd noticing."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images.data.sub_(0.5).mul_(2)
        return self.layers(images)


class NeedsContiguousMemory(nn.Module):
    """Calls `view` on the output of a convolution, which needs contiguous memory."""

    def __init__(self, image_shape: Shape, outputs: int):
        super().__init__()
        self.one = nn.Conv2d(image_shape[0], 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.size = 4 * image_shape[1] * image_shape[2]
        self.head = nn.Linear(self.size, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.two(torch.tanh(self.one(images)))).view(-1, self.size))


class ViewsItsWeights(NeedsContiguousMemory):
    """Standardizes its weights (Qiao et al. 2019) with `view`."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weights = self.two.weight
        flat = weights.view(len(weights), -1)
        weights = ((flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-5)).view_as(weights)
        hidden = F.conv2d(torch.tanh(self.one(images)), weights, self.two.bias, padding=1)
        return self.head(torch.tanh(hidden).flatten(1))


class NeedsContiguousMemoryAndWrites(NeedsContiguousMemory):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images -= 0.5
        return super().forward(images)


class HasAttention(nn.Module):
    """Contains torch's transformer layer, whose fused attention has no second derivative."""

    def __init__(self, image_shape: Shape, outputs: int):
        super().__init__()
        self.patches = nn.Conv2d(image_shape[0], 8, 4, 4)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True)
        self.head = nn.Linear(8, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


class HasLstm(nn.Module):
    """Contains an LSTM, whose backward pass cuDNN does not support in evaluation mode."""

    def __init__(self, image_shape: Shape, outputs: int):
        super().__init__()
        self.lstm = nn.LSTM(image_shape[0] * image_shape[2], 8, batch_first=True)
        self.head = nn.Linear(8, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(images.permute(0, 2, 1, 3).flatten(2))[0][:, -1])


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(context: object, values: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return values * 1.5

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return gradient * 1.5


class OnceDifferentiable(nn.Module):
    """Contains a custom operation without a second derivative, for which torch silently uses zero."""

    def __init__(self, image_shape: Shape, outputs: int):
        super().__init__()
        self.layers = _layers(image_shape, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers[2:](_Scaled.apply(self.layers[:2](images)))


NET_MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, image_shape, outputs, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear({features}, width), nn.ReLU(), nn.Linear(width, {outputs}))

    def forward(self, images):
        return self.layers(images)
"""


def net(features: str = "image_shape[0] * image_shape[1] * image_shape[2]", outputs: str = "outputs") -> str:
    """Return the text of a module with a network, whose input and output sizes are these expressions."""
    return NET_MODULE.format(features=features, outputs=outputs)
