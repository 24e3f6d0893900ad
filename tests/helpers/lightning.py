"""Modules and data for Lightning, as its documentation writes them, also for processes that a test starts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from batchscape.training.lightning import pl

CLASSES = 10


def layers(normalization: type[nn.Module] | None = None) -> nn.Sequential:
    """Return a small classifier of 28 × 28 pixels."""
    norm = normalization(16) if normalization else nn.Identity()
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 16), norm, nn.Tanh(), nn.Linear(16, CLASSES))


class Network(nn.Module):
    """The network of `LitClassifier` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class LitClassifier(pl.LightningModule):
    """A classifier with its own loss and optimizer."""

    def __init__(self, learning_rate: float = 1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.layers = layers()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        self.log("train_loss", loss, prog_bar=True)
        self.log_dict({"train_accuracy": (logits.argmax(1) == y).float().mean()}, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)


class LitBatchNorm(LitClassifier):
    """Couples the examples of a batch in training, as BatchNorm does."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers(nn.BatchNorm1d)


class LitContrastive(LitClassifier):
    """Has a loss that compares the examples of a batch with each other."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        z = F.normalize(self(batch[0]))
        return F.cross_entropy(z @ z.T, torch.arange(len(z), device=self.device))


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        return values * 1.5

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: object, gradient: Tensor) -> Tensor:
        return gradient * 1.5


class LitOnceDifferentiable(LitClassifier):
    """Has an operation without a second derivative, for which torch silently uses zero."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[4](_Scaled.apply(self.layers[:4](x)))


class LitAutoEncoder(pl.LightningModule):
    """Learns to reproduce images: what `forward` returns is not what the loss compares."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(28 * 28, 64), nn.ReLU(), nn.Linear(64, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 28 * 28))

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, _ = batch
        x = x.view(x.size(0), -1)
        loss = F.mse_loss(self.decoder(self.encoder(x)), x)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class MnistLike(pl.LightningDataModule):
    """Images of the shape of MNIST, a bright bar for each class."""

    def __init__(self, batch_size: int = 32, count: int = 240):
        super().__init__()
        self.batch_size, self.count = batch_size, count

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(self.count) % CLASSES
        images = 0.3 * torch.rand(self.count, 1, 28, 28, generator=generator)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[0, 2 * label : 2 * label + 3] += 0.7
        data = TensorDataset(images, labels)
        self.train, self.val, self.test = random_split(data, [0.7, 0.2, 0.1], generator)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=self.batch_size)
