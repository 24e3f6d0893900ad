"""What the batch size does if the learning rate follows it by a rule."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, GOYAL, KRIZHEVSKY, SMITH

CHAPTER = Chapter(
    "scaled-rate",
    "The learning rate scaled with the batch size",
    "The same comparison again with a learning rate for each batch size, arm by arm. In the arm fixed all batch sizes "
    "have one rate, in high another one, comparison.high_learning_rate; linear and sqrt, where they are on, multiply "
    "it with the batch size or its square root, tuned takes what a search found. Arms of other names are the study's "
    "own. The rates of every arm stand in tables/scaled_lr.csv.",
    {
        "curves_scaled_lr": Caption(
            "Loss by epoch, before and after scaling",
            "Training and validation loss after each epoch, one line a batch size, one row of panels an arm.",
            "If a rule is right, its lines lie on one another: every batch size then needs the same number of epochs.",
            "Linear scaling that makes the large batch diverge or stall: beyond some batch size the rule is known to "
            "fail.",
            (GOYAL, KRIZHEVSKY, CHANG),
        ),
        "convergence_before_after": Caption(
            "Convergence, before and after scaling",
            "Least losses, accuracy, epochs and time by batch size, arm beside arm.",
            "Follow one arm through the batch sizes: level is a rule that keeps the quantity. The fixed arm is what "
            "happens without any rule.",
            "A large batch that stays worse in every arm: then the learning rate is not what holds it back.",
            (GOYAL, CHANG),
            ("linear_closes_gap", "linear_restores_epochs"),
        ),
        "distance_before_after": Caption(
            "Distances, before and after scaling",
            "Distance of the minimiser from the start, and the median norm of an update, by batch size, arm beside "
            "arm.",
            "With linear scaling a larger batch takes fewer steps, each at a higher rate; a distance that is level "
            "shows that both cancel.",
            "A large batch that stays near its start although its rate is scaled.",
            (CHANG, SMITH),
            ("linear_goes_further",),
        ),
        "sharpness_before_after": Caption(
            "Sharpness, before and after scaling",
            "Keskar's φ in the full space at the greatest ε, by batch size, arm beside arm.",
            "If the ratio of learning rate to batch size decides how sharp a minimum is, the linear arm is level and "
            "the fixed one rises.",
            "No difference between the arms, or sharper minima at higher rates.",
            (CHANG, SMITH),
            ("linear_flattens",),
        ),
    },
)
