"""The claims: what the original study and the papers that it uses say of batch size and learning rate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from batchscape.report.claims.effects import (
    Effects,
    Evidence,
    best_rate_by_doubling,
    large_against_small,
    large_against_small_by_epoch,
    linear_against_fixed,
    linear_against_halfway,
    smallest_against_best_at_high_rate,
)
from batchscape.report.claims.verdict import Direction


@dataclass(frozen=True)
class Claim:
    """A statement about a ratio, which it claims to be greater or less than 1."""

    name: str
    statement: str
    source: str
    measure: str
    """The number of which the ratio is, with its unit."""
    claimed: Direction
    finding: str
    """A sentence about the ratio, which stands at `{}`."""
    effects: Callable[[Evidence], Effects]
    """The ratio in each seed."""


# The article has no numbered sections; these are the questions by which it is ordered.
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
        "mean training loss over the epochs that both train (nats)",
        "greater",
        "Over the epochs that both train, the mean training loss is {} times as high",
        partial(large_against_small_by_epoch, table="history", column="train_loss"),
    ),
    Claim(
        "higher_validation_loss",
        "Larger batches have a higher least validation loss at the same learning rate.",
        f"{PERFORMANCE}; {KESKAR}",
        "least validation loss (nats)",
        "greater",
        "The least validation loss is {} times as high",
        partial(large_against_small, quantity="best_validation_loss"),
    ),
    Claim(
        "shorter_epochs",
        "Larger batches take less time an epoch.",
        PERFORMANCE,
        "median time of an epoch (CPU seconds)",
        "less",
        "An epoch takes {} times as long",
        partial(large_against_small, quantity="epoch_cpu_seconds"),
    ),
    Claim(
        "more_epochs",
        "Larger batches need more epochs to the least validation loss.",
        PERFORMANCE,
        "epochs to the least validation loss",
        "greater",
        "The least validation loss comes after {} times as many epochs",
        partial(large_against_small, quantity="best_epoch"),
    ),
    Claim(
        "nearer_to_init",
        "Larger batches end nearer to the initial weights.",
        REASONS,
        "distance of the minimizer from the initial weights (Euclidean)",
        "less",
        "The minimizer is {} times as far from the initial weights",
        partial(large_against_small, quantity="distance"),
    ),
    Claim(
        "shorter_moves",
        "Larger batches move the weights less in an epoch.",
        REASONS,
        "mean epoch distance over the epochs that both train (Euclidean)",
        "less",
        "Over the epochs that both train, an epoch moves the weights {} times as far",
        partial(large_against_small_by_epoch, table="epoch_distance", column="epoch_distance"),
    ),
    Claim(
        "smaller_updates",
        "Larger batches make smaller updates.",
        REASONS,
        "median norm of a batch update (Euclidean)",
        "less",
        "The median update is {} times as long",
        partial(large_against_small, quantity="update_norm"),
    ),
    Claim(
        "sharper_minima",
        "Larger batches end in sharper minima.",
        f"{REASONS}; {KESKAR}",
        "Keskar's φ in the full space, at the greatest ε (percent of 1 + loss)",
        "greater",
        "The minimum is {} times as sharp by Keskar's φ",
        partial(large_against_small, quantity="sharpness"),
    ),
    Claim(
        "linear_closes_gap",
        "Linear scaling closes most of the gap in validation loss.",
        f"{REMEDY}; {GOYAL}",
        "least validation loss (nats)",
        "less",
        "With linear scaling the large batch's least validation loss is {} times the middle between both batch sizes "
        "without it",
        partial(linear_against_halfway, quantity="best_validation_loss"),
    ),
    Claim(
        "linear_restores_epochs",
        "Linear scaling brings the epochs to the least validation loss most of the way back.",
        REMEDY,
        "epochs to the least validation loss",
        "less",
        "With linear scaling the large batch needs {} times as many epochs as the middle between both batch sizes "
        "without it",
        partial(linear_against_halfway, quantity="best_epoch"),
    ),
    Claim(
        "linear_flattens",
        "Linear scaling flattens the minima of large batches.",
        REMEDY,
        "Keskar's φ in the full space, at the greatest ε (percent of 1 + loss)",
        "less",
        "With linear scaling the minimum is {} times as sharp by Keskar's φ",
        partial(linear_against_fixed, quantity="sharpness"),
    ),
    Claim(
        "linear_goes_further",
        "Linear scaling takes large batches further from the initial weights.",
        REMEDY,
        "distance of the minimizer from the initial weights (Euclidean)",
        "greater",
        "With linear scaling the minimizer is {} times as far from the initial weights",
        partial(linear_against_fixed, quantity="distance"),
    ),
    Claim(
        "smallest_not_best",
        "At a high learning rate the smallest batch is not the best.",
        REMEDY,
        "least validation loss (nats)",
        "greater",
        "The least validation loss of the smallest batch is {} times that of the best other one",
        smallest_against_best_at_high_rate,
    ),
    Claim(
        "best_rate_grows",
        "The best learning rate grows with the batch size.",
        f"{REMEDY}; {GOYAL}",
        "best learning rate, for a doubling of the batch size",
        "greater",
        "For twice the batch size the best learning rate is {} times as high",
        best_rate_by_doubling,
    ),
)
