"""Networks, data and an optimizer for tests of complete recipes, also in processes that a test starts."""

import os
import signal
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from batchscape.data.prepared import PreparedData
from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.training import plan, recorder
from tests.helpers.objectives import image_data, image_dataset

# Steps of a segment, after each of which a checkpoint is written; and the step after which a process kills itself.
SEGMENT, KILL_AFTER = "TEST_RECIPE_SEGMENT", "TEST_RECIPE_KILL_AFTER"
if steps := os.environ.get(SEGMENT):
    plan.SEGMENT_STEPS, recorder.CHECKPOINT_INTERVAL = int(steps), 0.0

# Batches of 12 leave a last one of a single example: with two processes, a shard of it is empty.
NUM_EXAMPLES = 97


class Exact(nn.Module):
    """Computes in float64, so that only the order of sums may differ; some of its parameters have no gradient."""

    def __init__(self, outputs: int, normalization: str = "group", dropout: float = 0.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if normalization == "batch" else nn.GroupNorm(2, 4)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(4 * 4 * 4, outputs)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.pool(self.norm(self.conv(images.to(self.conv.weight.dtype)))))
        return self.head(self.dropout(features.flatten(1)))


class NoisySGD(torch.optim.SGD):
    """Adds noise that it draws from the global generator of NumPy, and records it."""

    drawn: ClassVar[list[float]] = []

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        super().step(closure)
        noise = np.random.randn()  # noqa: NPY002
        self.drawn.append(noise)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter += 1e-4 * noise


def killing_adamw(
    parameters: Iterable[Any],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.01,
    fused: bool | None = None,
) -> torch.optim.AdamW:
    """Return AdamW, which kills its process before the step that follows those of the environment variable."""
    optimizer = torch.optim.AdamW(parameters, lr, betas, weight_decay=weight_decay, fused=fused)

    def maybe_kill(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        taken = max((int(state["step"]) for state in optimizer.state.values()), default=0)
        if os.environ.get(KILL_AFTER) == str(taken):
            os.kill(os.getpid(), signal.SIGKILL)

    optimizer.register_step_pre_hook(maybe_kill)
    return optimizer


def three_classes() -> PreparedData:
    """Return images of 8 × 8 in three classes: 97 to train, 31 to validate and 20 to test with."""
    rng = np.random.default_rng(0)
    counts = (NUM_EXAMPLES, 31, 20)
    labels = np.arange(sum(counts)) % 3
    images = rng.integers(0, 256, (len(labels), 1, 8, 8), dtype=np.uint8)
    images[labels == 1, :, 2:5] //= 3
    images[labels == 2, :, :, 4:] //= 2
    sides = list(zip(*(np.split(each, np.cumsum(counts)[:-1]) for each in (images, labels)), strict=True))
    data = image_data(*sides[0], *sides[1], ("a", "b", "c"))
    return PreparedData(data.spec, data.train, data.validation, image_dataset(*sides[2], classes=3))


def recorded(run: RunDirectory) -> dict[str, Any]:
    """Return all that a run has recorded, except times.

    That is the bytes of its weights and second moments, its update norms and its history.
    """
    frame = read_frame(run.history_file, "")
    return {
        **{f"second moments of {path.name}": path.read_bytes() for path in sorted(run.path.glob("second_moments/*"))},
        **{path.name: path.read_bytes() for path in sorted((run.path / "weights").iterdir())},
        "update_norms": run.update_norms().tolist(),
        # As text, nan equals nan.
        **{name: repr(frame[name].tolist()) for name in frame if "seconds" not in name},
    }
