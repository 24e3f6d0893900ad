"""How large a batch can be before it stops paying."""

from batchscape.report.story.chapter import Caption, Chapter
from batchscape.report.story.papers import MCCANDLISH, SHALLUE

CHAPTER = Chapter(
    "beyond",
    "How large a batch pays",
    "Larger batches save steps only up to a point, the critical batch size; beyond it they cost examples for nothing.",
    {
        "steps_to_target": Caption(
            "Steps to a target loss",
            "How many updates each batch size needs until its validation loss is below a target, at the best learning "
            "rate of each, on logarithmic axes.",
            "Along the line of perfect scaling twice the batch halves the steps. Where the points leave it returns "
            "diminish; where they are level a larger batch saves nothing.",
            "Better than perfect scaling, which a learning rate that suits the small batch badly would feign.",
            (SHALLUE, MCCANDLISH),
        ),
        "critical_batch": Caption(
            "The critical batch size",
            "Examples against updates that each batch size needs to reach a target loss, with the fitted trade-off "
            "between them.",
            "The bend of the curve is the critical batch size: below it a larger batch costs few examples more, above "
            "it it saves few updates.",
            "Points far from the curve: the batch sizes were then not trained at learning rates that suit them.",
            (MCCANDLISH,),
        ),
        "noise_scale": Caption(
            "The gradient noise scale",
            "The batch size at which noise and signal of the gradient are equal, estimated from gradients at the kept "
            "weights.",
            "A batch far below it averages too little, one far above it too much. It predicts the critical batch size "
            "without training at each, and is expected to grow as the loss falls.",
            "A noise scale that falls during training, or that is far from where the steps to a target level off.",
            (MCCANDLISH,),
        ),
    },
)
