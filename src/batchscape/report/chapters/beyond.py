"""Up to which batch size a larger batch saves steps."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import MCCANDLISH, MERRILL, SHALLUE, ZHANG

CHAPTER = Chapter(
    "beyond",
    "How large a batch is worthwhile",
    "Larger batches are expected to save steps up to the critical batch size; beyond it they mostly process more "
    "examples. Do the batch sizes of this study reach that point?",
    {
        "steps_to_target": Caption(
            "Steps and epochs to a target",
            "The number of updates and epochs that each batch size needs to reach the target, a validation loss or "
            "metric, at the learning rate that needs the fewest updates. Labels are these learning rates. If there "
            "are several targets, this is the first one; the tables have all. The table regimes says which regime "
            "each batch size and the next one are in.",
            "The dashed line is perfect scaling: twice the batch size, half the steps. Where the points leave it, "
            "returns diminish; where they are level, a larger batch saves no steps. The solid line is the fit, if "
            "there is one. At its critical batch size, training takes twice the minimum number of steps and twice the "
            "minimum number of examples. The table critical_batch also has the batch size that needs a fifth more "
            "steps than perfect scaling.",
            "Points below the dashed line: the learning rate of the smallest batch is then probably not its best one.",
            (SHALLUE, MCCANDLISH, ZHANG),
        ),
        "frontier": Caption(
            "Time and steps against examples to a target",
            "What each batch size takes to reach the first target at its best setting: training time and steps against "
            "examples. Time is CPU time if all runs trained on a CPU. The table frontier also has what each doubling "
            "of the batch size does to steps, examples and time.",
            "The line connects the batch sizes on the Pareto front: no other one takes at most their time and at most "
            "their examples. Where a larger batch takes more examples, look at how much time it saves for them.",
            "A small batch that is not on the front although it takes the fewest examples. But a time holds only for "
            "the machine and the number of devices on which it was measured.",
            (MCCANDLISH, SHALLUE),
        ),
        "noise_scale": Caption(
            "Gradient noise scale",
            "Left, the noise scale during training: the number of examples at which the noise and the signal in the "
            "gradient of a batch are equal. Right, the norm of the full gradient. Dashed lines are the batch sizes.",
            "A batch far below the noise scale averages too few examples; one far above it computes more than it "
            "gains. The noise scale predicts the critical batch size without training at each batch size. It is "
            "expected to grow as the loss falls.",
            "A noise scale that falls during training, or that is far from the batch size at which the steps to the "
            "target level off.",
            (MCCANDLISH,),
        ),
        "branching": Caption(
            "The critical batch size during training",
            "At points in the training, branches continue the run with multiples of its batch size and a learning rate "
            "that follows, over equally many examples. The largest batch size whose training loss is within the "
            "tolerance of that of the batch size of the run is the critical one there.",
            "Where the points rise, a batch that grows during training would save steps for the same loss. The dashed "
            "line, if there is one, is the batch size of the arm batch_warmup, which follows the points; the table "
            "batch_schedule says what it saves. The noise scale is what predicts the critical batch size without "
            "branches; compare the shape of both lines, not only their height.",
            "A critical batch size that falls during training, or that does not follow the noise scale at all.",
            (MERRILL, MCCANDLISH),
            ("critical_batch_grows", "noise_scale_predicts"),
        ),
    },
)
