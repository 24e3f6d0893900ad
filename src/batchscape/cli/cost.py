"""The estimated time of the trainings of a study on this machine, from a few training steps."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from batchscape.config.data import SyntheticConfig
from batchscape.config.run import RunSpec
from batchscape.data.inspect import Inspection
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, read_prepared, write_prepared
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.duration import format_duration
from batchscape.runtime.user_code import summarize_error
from batchscape.study.plan import TrainingGroup
from batchscape.study.study import Study
from batchscape.training.train import train

# Per timed batch size: batches of an epoch, and epochs, of which the first warms up.
NUM_BATCHES, NUM_EPOCHS = 4, 3
# Larger batches are not needed to measure the time per image.
MAX_FIRST_BATCH_SIZE, BATCH_SIZE_RATIO = 32, 4
# If the first batch size takes longer, a second one is not timed.
TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Pace:
    """Seconds of a training per batch, per training image, and per validation image."""

    batch: float
    image: float
    validation_image: float

    def epoch(self, batch_size: int, num_train: int, num_validation: int) -> float:
        """Return the seconds of an epoch."""
        num_batches = math.ceil(num_train / batch_size)
        return num_batches * self.batch + num_train * self.image + num_validation * self.validation_image


def fit_pace(seconds: Mapping[int, float], validation_image: float) -> Pace:
    """Fit the pace to the measured seconds of a batch, by batch size, such that no part of it is negative."""
    small, large = min(seconds), max(seconds)
    if small == large:
        return Pace(0.0, seconds[small] / small, validation_image)
    image = max(0.0, (seconds[large] - seconds[small]) / (large - small))
    image = min(image, seconds[small] / small)
    return Pace(seconds[small] - image * small, image, validation_image)


def max_total_seconds(trainings: list[TrainingGroup], pace: Pace, num_train: int, num_validation: int) -> float:
    """Return the seconds of all trainings one after another, if each reaches its last epoch."""
    return sum(
        each.count * each.max_epochs * pace.epoch(each.batch_size, num_train, num_validation) for each in trainings
    )


def describe_cost(study: Study, inspection: Inspection) -> list[str]:
    """Return lines with the estimated time of all trainings and its basis, or why there is no estimate.

    `inspection` is what is known about the data before it is prepared. Raises UserError if the network is invalid.
    """
    hint = "; run `snakemake --cores 4 prepare --configfile FILE`, then `check` measures it"
    try:
        sample, counts = _sample_data(study, inspection)
        if sample is None:
            return [f"time: unknown before the data is prepared{hint}"]
        pace, device = _measure_pace(study, sample)
    except UserError as error:
        if str(error).startswith("model."):
            raise
        return [f"time: not estimated ({error})"]
    except Exception as error:  # of custom code
        return [f"time: not estimated, because a few steps of training failed: {summarize_error(error)}"]
    sizes = sorted({min(study.grid.batch_sizes), max(study.grid.batch_sizes)})
    basis = f"rough estimate from a few steps on one {device}"
    if counts is None:
        epochs = _format_epochs(pace, sizes, 1000, 0)
        return [f"time ({basis}): an epoch of 1,000 images takes {epochs}; the number of images is not known yet{hint}"]
    total = format_duration(max_total_seconds(study.plan.trainings, pace, *counts))
    return [
        f"time ({basis}): an epoch takes {_format_epochs(pace, sizes, *counts)}; all trainings one after another take "
        f"at most {total}, less if runs converge early; analyses and the startup of each job are not included"
    ]


def _format_epochs(pace: Pace, sizes: list[int], num_train: int, num_validation: int) -> str:
    return ", ".join(f"{pace.epoch(size, num_train, num_validation):.2g} s at batch size {size}" for size in sizes)


def _sample_data(study: Study, inspection: Inspection) -> tuple[PreparedData | None, tuple[int, int] | None]:
    """Return images like those of the study, and the numbers of training and validation images; None if unknown."""
    if Path(study.paths.prepared_data).exists():
        data = read_prepared(Path(study.paths.prepared_data))
        return data, (len(data.train_images), len(data.validation_images))
    if inspection.shape is None or inspection.classes is None:
        return None, None
    height, width, channels = inspection.shape
    synthetic = SyntheticConfig(
        source="synthetic",
        images=max(20, 2 * inspection.classes),
        image_size=(height, width),
        channels=channels,
        classes=inspection.classes,
    )
    return prepare(synthetic).data, inspection.counts


def _measure_pace(study: Study, sample: PreparedData) -> tuple[Pace, str]:
    """Return the pace of a training of the study on this machine, and the name of the device."""
    first = min(MAX_FIRST_BATCH_SIZE, min(study.grid.batch_sizes))
    second = min(BATCH_SIZE_RATIO * first, max(study.grid.batch_sizes))
    training = study.training.model_copy(update={"max_epochs": NUM_EPOCHS, "patience": NUM_EPOCHS, "checkpoints": ()})
    seconds: dict[int, float] = {}
    start = time.monotonic()
    for batch_size in sorted({first, second}):
        if seconds and time.monotonic() - start > TIMEOUT_SECONDS:
            break
        spec = RunSpec(
            batch_size=batch_size,
            learning_rate=study.comparison.fixed_learning_rate,
            seed=study.grid.seeds[0],
            model=study.model,
            training=training,
        )
        num_images = NUM_BATCHES * batch_size
        with TemporaryDirectory(prefix="batchscape-check-") as folder:
            data = Path(folder) / "images.safetensors"
            write_prepared(data, _resize(sample, num_images))
            run = RunDirectory(train(spec, data, Path(folder) / "run"))
            history = run.history(["train_seconds", "validation_seconds"]).iloc[1:]
            device = run.summary()["environment"]["device"]
        seconds[batch_size] = float(history["train_seconds"].median()) / NUM_BATCHES
        validation_image = float(history["validation_seconds"].median()) / num_images
    return fit_pace(seconds, validation_image), device


def _resize(data: PreparedData, count: int) -> PreparedData:
    """Return data with this many training and validation images, repeated as often as necessary."""
    train, validation = (
        np.resize(np.arange(len(labels)), count) for labels in (data.train_labels, data.validation_labels)
    )
    return PreparedData(
        data.train_images[train],
        data.train_labels[train],
        data.validation_images[validation],
        data.validation_labels[validation],
        data.classes,
    )
