"""What happens at one learning rate that is high for the small batch."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, GOYAL

CHAPTER = Chapter(
    "high-rate",
    "One high learning rate",
    "All batch sizes at comparison.high_learning_rate. Is the order of the batch sizes the one of the fixed rate?",
    {
        "curves_high_lr": Caption(
            "Loss by epoch at the high rate",
            "Training and validation loss after each epoch, one line a batch size, on logarithmic axes.",
            "Compare with the curves at the fixed rate: if the order of the batch sizes turns round, the fixed rate "
            "was too low for the large batch. Ragged lines can come from steps too large for so noisy a gradient.",
            "A small batch that is still the best one here: its rate could then go higher still.",
            (CHANG, GOYAL),
            ("smallest_not_best",),
        ),
    },
)
