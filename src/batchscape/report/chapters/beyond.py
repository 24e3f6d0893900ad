"""How large a batch can be before it stops paying."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import MCCANDLISH, SHALLUE

CHAPTER = Chapter(
    "beyond",
    "How large a batch pays",
    "Larger batches are expected to save steps up to a point, the critical batch size, and beyond it only to cost more "
    "examples. Do the batch sizes of this study reach that point?",
    {
        "steps_to_target": Caption(
            "Steps and epochs to a target loss",
            "How many updates, and how many epochs, each batch size needs until its validation loss is at the target, "
            "each at the learning rate that needs the fewest; the labels are these rates.",
            "On the dashed line, perfect scaling, twice the batch halves the steps. Where the points leave it returns "
            "diminish; where they are level a larger batch saves nothing. A solid line is the fit, where there is one, "
            "and its bend the critical batch size: there training takes twice the least steps and twice the least "
            "examples.",
            "Points below the dashed line: the rate of the smallest batch is then probably not its best one.",
            (SHALLUE, MCCANDLISH),
        ),
        "noise_scale": Caption(
            "The gradient noise scale",
            "Left, the noise scale, the number of examples at which noise and signal of a batch's gradient are equal, "
            "as training goes on; right, the norm of the full gradient. Dashed are the batch sizes.",
            "A batch far below the noise scale averages too little, one far above it computes more than it gains. It "
            "is a prediction of the critical batch size without training at each, and is expected to grow as the loss "
            "falls.",
            "A noise scale that falls during training, or that is far from where the steps to a target level off.",
            (MCCANDLISH,),
        ),
    },
)
