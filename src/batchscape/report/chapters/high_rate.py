"""The effect of the batch size at one learning rate that is high for the small batch."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, GOYAL

CHAPTER = Chapter(
    "high-rate",
    "One high learning rate",
    "All batch sizes train at comparison.high_learning_rate. Is the order of the batch sizes the same as at the fixed "
    "learning rate?",
    {
        "curves_high_lr": Caption(
            "Loss by epoch at the high learning rate",
            "Training and validation loss after each epoch, one line per batch size, on logarithmic axes (that of "
            "a loss with negative values is linear around 0).",
            "Compare with the curves at the fixed learning rate. If the order of the batch sizes is reversed, the "
            "fixed rate was too low for the large batch. Noisy lines can result from steps that are too large for a "
            "noisy gradient.",
            "A small batch that is still the best one here: its learning rate could be even higher.",
            (CHANG, GOYAL),
            ("smallest_not_best",),
        ),
    },
    "fixed rate",
)
