"""The best learning rate of each batch size."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import GODBOLE, GOYAL, KRIZHEVSKY, LI_SURGE, SHALLUE

CHAPTER = Chapter(
    "rate-search",
    "The best learning rate of each batch size",
    "A fair comparison of batch sizes uses the best learning rate of each. A best rate on the edge of the tried range "
    "is a bound, not an optimum.",
    {
        "lr_effect": Caption(
            "Best validation loss by learning rate",
            "The best validation loss against the learning rate, one line per batch size. Markers are the best "
            "rates. The figure shows the constant learning rates of the grid and the arms, not the tuned ones.",
            "Look for the minimum of each line and for how flat the line is there: in a flat valley the learning rate "
            "hardly matters. A diamond is a best rate on the edge of the grid; extend the grid on that side. The table "
            "scaling has the power of the batch size that the best rate follows, between the tried rates, with its "
            "interval over seeds.",
            "Lines without a minimum, or a best learning rate that falls as the batch size grows, at first or, with "
            "optimizers such as Adam, again after it has risen.",
            (GODBOLE, SHALLUE, LI_SURGE),
            ("best_rate_grows",),
        ),
        "lr_plane": Caption(
            "Best validation loss by batch size and learning rate",
            "The best validation loss of every batch size and constant learning rate, as a map without the tuned "
            "rates. The best rate of each batch size is outlined. Lines scale the best rate of the small batch.",
            "A dark valley along the dashed line is linear scaling, along the dotted line square-root scaling. The "
            "width of the valley shows how precisely the learning rate must be set.",
            "A horizontal valley: one learning rate then suits every batch size.",
            (SHALLUE, GOYAL),
            ("best_rate_grows",),
        ),
        "tolerance": Caption(
            "The range of good learning rates",
            "Left, the range of learning rates whose mean loss is within comparison.margin of the lowest one, around "
            "the best rate that was tried; right, the ratio of its ends. Between tried rates the loss is interpolated.",
            "A wide range is easy to find, and a rule from batch size to learning rate need not be precise. A range "
            "that narrows as the batch size grows makes tuning matter more. A diamond is an end that the tried rates "
            "or a rate that diverged cut: the range extends at least so far.",
            "A range that widens as the batch size grows. But first check how wide the intervals are, and that few "
            "ranges are cut.",
            (SHALLUE, GODBOLE),
        ),
        "lr_search": Caption(
            "Learning rate search",
            "Every trial of the search, before the finalists, by batch size and learning rate. Color is its loss "
            "relative to the lowest loss of its batch size (its difference to it if a loss is negative). Lines scale "
            "the tuned rate of the small batch.",
            "See which line the best trials follow. If many trials are nearly as good, the best one means little. A "
            "diamond is a tuned rate on the edge of the search range.",
            "Best rates that follow neither line. But few and short trials are noisy; see tuning.budget and "
            "tuning.trial_budget.",
            (GOYAL, KRIZHEVSKY, GODBOLE),
        ),
    },
    "retuned at each batch size",
)
