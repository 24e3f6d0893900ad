"""Which learning rate each batch size wants."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import GODBOLE, GOYAL, KRIZHEVSKY, SHALLUE

CHAPTER = Chapter(
    "rate-search",
    "The best learning rate of each batch size",
    "Batch sizes are compared fairly only at the best learning rate of each. A best rate on the edge of what was tried "
    "is a bound, not an optimum.",
    {
        "lr_effect": Caption(
            "Least validation loss by learning rate",
            "The least validation loss against the learning rate, one line a batch size; the mark is the best rate of "
            "each. Shown are the constant rates of the grid and the arms, not the tuned ones.",
            "Look where each line is lowest, and how flat it is there: in a flat valley the rate hardly matters. A "
            "diamond is a best rate on the edge; extend the grid on that side.",
            "Lines without a minimum, or a best rate that falls as the batch grows.",
            (GODBOLE, SHALLUE),
            ("best_rate_grows",),
        ),
        "lr_plane": Caption(
            "Batch size and learning rate at once",
            "The least validation loss of every batch size and constant learning rate, as a map; tuned rates are not "
            "in it. The best rate of each batch size is outlined; lines scale that of the small batch.",
            "A dark valley along the dashed line is linear scaling, along the dotted one square-root scaling. Its "
            "width says how exactly the rate must be met.",
            "A valley that runs level: then one learning rate suits every batch size.",
            (SHALLUE, GOYAL),
            ("best_rate_grows",),
        ),
        "lr_search": Caption(
            "The search for the learning rate",
            "Every trial of the search by batch size and learning rate, coloured by its loss over the least one of its "
            "batch size. Lines scale the rate that was found for the small batch.",
            "See which line the best trials follow. Where many trials are nearly as good, the best one says little; a "
            "diamond is a best rate on the edge of the range.",
            "Best rates that follow neither line. But few and short trials are noisy; see tuning.trials and "
            "tuning.epochs.",
            (GOYAL, KRIZHEVSKY, GODBOLE),
        ),
    },
)
