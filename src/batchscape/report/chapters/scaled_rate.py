"""The effect of the batch size if the learning rate is scaled with it."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, GOYAL, KRIZHEVSKY, SMITH

CHAPTER = Chapter(
    "scaled-rate",
    "The learning rate scaled with the batch size",
    "The same comparison with one learning rate per batch size. An arm is a rule that assigns them: fixed uses one "
    "rate for all batch sizes and high another one, comparison.high_learning_rate; linear and sqrt, if enabled, "
    "multiply the rate by the batch size or its square root; tuned uses the result of the search. Arms with other "
    "names are defined in the study file. The table scaled_lr lists the learning rates of every arm.",
    {
        "curves_scaled_lr": Caption(
            "Loss by epoch, before and after scaling",
            "Training and validation loss after each epoch, one line per batch size, one row of panels per arm.",
            "If a scaling rule is right, its lines coincide: every batch size then needs the same number of epochs.",
            "Linear scaling at which the large batch diverges or stalls. The rule is known to fail beyond some batch "
            "size.",
            (GOYAL, KRIZHEVSKY, CHANG),
        ),
        "convergence_before_after": Caption(
            "Convergence, before and after scaling",
            "Lowest losses, {metric_item}epochs and time by batch size, arms side by side.",
            "Follow one arm across the batch sizes: if it is level, its rule preserves the quantity. The fixed arm is "
            "the baseline without a rule.",
            "A large batch that is worse in every arm: the learning rate is then not the reason.",
            (GOYAL, CHANG),
            ("linear_closes_gap", "linear_restores_epochs"),
        ),
        "distance_before_after": Caption(
            "Distances, before and after scaling",
            "Distance of the best weights from the initial weights, and the median norm of an update, by batch size, "
            "arms side by side.",
            "With linear scaling a larger batch takes fewer steps at a higher learning rate. If the distance is "
            "level, both effects cancel.",
            "A large batch that stays close to its initial weights although its learning rate is scaled.",
            (CHANG, SMITH),
            ("linear_goes_further",),
        ),
        "sharpness_before_after": Caption(
            "Sharpness, before and after scaling",
            "Keskar's φ in the full space at the largest ε, by batch size, arms side by side.",
            "If the ratio of learning rate to batch size determines the sharpness, the linear arm is level and the "
            "fixed arm rises.",
            "No difference between the arms, or sharper minima at higher learning rates.",
            (CHANG, SMITH),
            ("linear_flattens",),
        ),
    },
)
