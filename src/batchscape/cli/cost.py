"""What the trainings of a study cost on this machine: measured with a few steps, before anything trains."""

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
from batchscape.study.study import Study, Trainings
from batchscape.training.train import train

# Of each batch size that is timed: batches of an epoch, and epochs, the first of which warms up.
BATCHES, EPOCHS = 4, 3
# No larger batch is needed to see what an image costs.
LARGEST_FIRST, RATIO = 32, 4
# Seconds that the first batch size may take; after more a second one is not timed.
PATIENCE = 5.0


@dataclass(frozen=True)
class Pace:
    """Seconds that a training takes: for each batch, for each image in it, and for each image that validates."""

    batch: float
    image: float
    validation_image: float

    def epoch(self, batch_size: int, training: int, validation: int) -> float:
        """Return the seconds of an epoch over this many images."""
        return (
            math.ceil(training / batch_size) * self.batch + training * self.image + validation * self.validation_image
        )


def fit_pace(seconds: Mapping[int, float], validation_image: float) -> Pace:
    """Return the pace at which a batch takes the measured seconds, by batch size; neither part of it is negative."""
    small, large = min(seconds), max(seconds)
    if small == large:
        return Pace(0.0, seconds[small] / small, validation_image)
    image = max(0.0, (seconds[large] - seconds[small]) / (large - small))
    image = min(image, seconds[small] / small)
    return Pace(seconds[small] - image * small, image, validation_image)


def max_total_seconds(trainings: list[Trainings], pace: Pace, training: int, validation: int) -> float:
    """Return the seconds of all trainings one after another, if none of them ends before its last epoch."""
    return sum(each.count * each.max_epochs * pace.epoch(each.batch_size, training, validation) for each in trainings)


def describe_cost(study: Study, inspection: Inspection) -> list[str]:
    """Return lines that say what the trainings of a study cost here, on what that rests, or why it is not known.

    `inspection` is what is known of the study's data before it is prepared. Raises UserError if the network is refused.
    """
    again = "; once `snakemake prepare` has run with this file, `check` measures it"
    try:
        sample, count = _sample(study, inspection)
        if sample is None:
            return [f"time: not known before the data is prepared{again}"]
        pace, device = _measured(study, sample)
    except UserError as error:
        if str(error).startswith("model."):
            raise
        return [f"time: not estimated here ({error})"]
    except Exception as error:  # of a network of the user's own
        return [f"time: not estimated here, for a few steps of training failed: {summarize_error(error)}"]
    sizes = sorted({min(study.grid.batch_sizes), max(study.grid.batch_sizes)})
    basis = f"measured here with a few steps on one {device}, rough"
    if count is None:
        epochs = _listed(pace, sizes, 1000, 0)
        return [f"time ({basis}): 1,000 images take {epochs} an epoch; how many there are is not known yet{again}"]
    total = format_duration(max_total_seconds(study.trainings, pace, *count))
    return [
        f"time ({basis}): an epoch takes {_listed(pace, sizes, *count)}; all trainings one after another at most "
        f"{total}, if none converges before its last epoch; analyses and some seconds to start each job come on top"
    ]


def _listed(pace: Pace, sizes: list[int], training: int, validation: int) -> str:
    return ", ".join(f"{pace.epoch(size, training, validation):.2g} s at batch size {size}" for size in sizes)


def _sample(study: Study, inspection: Inspection) -> tuple[PreparedData | None, tuple[int, int] | None]:
    """Return images like those of the study, and how many train and validate; None for what is not known yet."""
    if Path(study.prepared_data).exists():
        data = read_prepared(Path(study.prepared_data))
        return data, (len(data.train_images), len(data.validation_images))
    if inspection.shape is None:
        return None, None
    *image_size, channels = inspection.shape
    made = SyntheticConfig(
        source="synthetic",
        images=max(20, 2 * inspection.classes),
        image_size=image_size,
        channels=channels,
        classes=inspection.classes,
    )
    return prepare(made).data, inspection.counts


def _measured(study: Study, sample: PreparedData) -> tuple[Pace, str]:
    """Return the pace of a training of the study on this machine, and on which device it was measured."""
    first = min(LARGEST_FIRST, min(study.grid.batch_sizes))
    second = min(RATIO * first, max(study.grid.batch_sizes))
    training = study.training.model_copy(update={"max_epochs": EPOCHS, "patience": EPOCHS, "checkpoints": ()})
    seconds, began = {}, time.monotonic()
    for batch_size in sorted({first, second}):
        if seconds and time.monotonic() - began > PATIENCE:
            break
        spec = RunSpec(
            batch_size=batch_size,
            learning_rate=study.comparison.fixed_learning_rate,
            seed=study.grid.seeds[0],
            model=study.model,
            training=training,
        )
        images = BATCHES * batch_size
        with TemporaryDirectory(prefix="batchscape-check-") as folder:
            data = Path(folder) / "images.safetensors"
            write_prepared(data, _repeated(sample, images))
            run = RunDirectory(train(spec, data, Path(folder) / "run"))
            history = run.history(["train_seconds", "validation_seconds"]).iloc[1:]
            device = run.summary()["environment"]["device"]
        seconds[batch_size] = float(history["train_seconds"].median()) / BATCHES
        validation_image = float(history["validation_seconds"].median()) / images
    return fit_pace(seconds, validation_image), device


def _repeated(data: PreparedData, count: int) -> PreparedData:
    """Return data with this many images on each side, repeated as often as it takes."""
    train, validation = (np.resize(np.arange(len(side)), count) for side in (data.train_labels, data.validation_labels))
    return PreparedData(
        data.train_images[train],
        data.train_labels[train],
        data.validation_images[validation],
        data.validation_labels[validation],
        data.classes,
    )
