"""The claims of the original study, and of the papers that it builds on, about batch size and learning rate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from batchscape.report.claims.ratios import (
    Evidence,
    LogRatios,
    best_rate_per_doubling,
    large_over_small,
    large_over_small_by_epoch,
    linear_over_fixed,
    linear_over_midpoint,
    smallest_over_best_other,
)
from batchscape.report.claims.verdict import Direction


@dataclass(frozen=True)
class Claim:
    """A claim that a ratio is greater or less than 1.

    Attributes:
        name: Short name, the key in `claims.csv`.
        statement: The claim in one sentence.
        source: Where it is claimed.
        measure: The quantity of the ratio, with its unit; `{loss_unit}` is replaced by that of the loss.
        claimed: On which side of 1 the ratio is claimed to be.
        finding: Template of a sentence about the measured ratio, which replaces `{}`.
        log_ratios: Computes the log ratio of each seed.
    """

    name: str
    statement: str
    source: str
    measure: str
    claimed: Direction
    finding: str
    log_ratios: Callable[[Evidence], LogRatios]


# The article has no numbered sections; these are its parts.
PERFORMANCE = "Chang & Pathak 2020, how small and large batches perform"
REASONS = "Chang & Pathak 2020, why large batches perform worse"
REMEDY = "Chang & Pathak 2020, how to close the gap"
KESKAR = "Keskar et al. 2017, section 2.2"
GOYAL = "Goyal et al. 2017, section 2.1"

CLAIMS = (
    Claim(
        "slower_descent",
        "Larger batches lower the training loss more slowly per epoch.",
        PERFORMANCE,
        "mean training loss over the epochs that both runs have{loss_unit}",
        "greater",
        "Over the epochs that both runs have, the mean training loss is {} times as high",
        partial(large_over_small_by_epoch, column="train_loss"),
    ),
    Claim(
        "higher_validation_loss",
        "Larger batches have a higher best validation loss at the same learning rate.",
        f"{PERFORMANCE}; {KESKAR}",
        "best validation loss{loss_unit}",
        "greater",
        "The best validation loss is {} times as high",
        partial(large_over_small, quantity="best_validation_loss"),
    ),
    Claim(
        "shorter_epochs",
        "Larger batches take less time per epoch.",
        PERFORMANCE,
        "median time of an epoch (CPU seconds)",
        "less",
        "An epoch takes {} times as long",
        partial(large_over_small, quantity="epoch_cpu_seconds"),
    ),
    Claim(
        "more_epochs",
        "Larger batches need more epochs to reach the best validation loss.",
        PERFORMANCE,
        "epochs to the best validation loss",
        "greater",
        "The best validation loss comes after {} times as many epochs",
        partial(large_over_small, quantity="best_epoch"),
    ),
    Claim(
        "nearer_to_init",
        "Larger batches end closer to the initial weights.",
        REASONS,
        "distance of the best weights from the initial weights (Euclidean)",
        "less",
        "The best weights are {} times as far from the initial weights",
        partial(large_over_small, quantity="distance"),
    ),
    Claim(
        "shorter_moves",
        "Larger batches move the weights less in an epoch.",
        REASONS,
        "mean epoch distance over the epochs that both runs have (Euclidean)",
        "less",
        "Over the epochs that both runs have, an epoch moves the weights {} times as far",
        partial(large_over_small_by_epoch, column="epoch_distance"),
    ),
    Claim(
        "smaller_updates",
        "Larger batches make smaller updates.",
        REASONS,
        "median norm of a batch update (Euclidean)",
        "less",
        "The median update is {} times as long",
        partial(large_over_small, quantity="update_norm"),
    ),
    Claim(
        "sharper_minima",
        "Larger batches converge to sharper minima.",
        f"{REASONS}; {KESKAR}",
        "Keskar's φ in the full space, at the largest ε (percent of 1 + loss)",
        "greater",
        "The minimum is {} times as sharp by Keskar's φ",
        partial(large_over_small, quantity="sharpness"),
    ),
    Claim(
        "linear_closes_gap",
        "Linear scaling closes most of the gap in validation loss.",
        f"{REMEDY}; {GOYAL}",
        "best validation loss{loss_unit}",
        "less",
        "With linear scaling, the best validation loss of the large batch is {} times the midpoint between both batch "
        "sizes without it",
        partial(linear_over_midpoint, quantity="best_validation_loss"),
    ),
    Claim(
        "linear_restores_epochs",
        "Linear scaling removes most of the increase in epochs to the best validation loss.",
        REMEDY,
        "epochs to the best validation loss",
        "less",
        "With linear scaling, the large batch needs {} times as many epochs as the midpoint between both batch sizes "
        "without it",
        partial(linear_over_midpoint, quantity="best_epoch"),
    ),
    Claim(
        "linear_flattens",
        "Linear scaling flattens the minima of large batches.",
        REMEDY,
        "Keskar's φ in the full space, at the largest ε (percent of 1 + loss)",
        "less",
        "With linear scaling, the minimum is {} times as sharp by Keskar's φ",
        partial(linear_over_fixed, quantity="sharpness"),
    ),
    Claim(
        "linear_goes_further",
        "Linear scaling takes large batches further from the initial weights.",
        REMEDY,
        "distance of the best weights from the initial weights (Euclidean)",
        "greater",
        "With linear scaling, the best weights are {} times as far from the initial weights",
        partial(linear_over_fixed, quantity="distance"),
    ),
    Claim(
        "smallest_not_best",
        "At a high learning rate the smallest batch is not the best.",
        REMEDY,
        "best validation loss{loss_unit}",
        "greater",
        "The best validation loss of the smallest batch is {} times that of the best other batch size",
        smallest_over_best_other,
    ),
    Claim(
        "best_rate_grows",
        "The best learning rate grows with the batch size.",
        f"{REMEDY}; {GOYAL}",
        "best learning rate, for a doubling of the batch size",
        "greater",
        "For twice the batch size the best learning rate is {} times as high",
        best_rate_per_doubling,
    ),
)
