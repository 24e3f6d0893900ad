"""The effect of the batch size at one learning rate for all batch sizes."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, GOYAL, HOFFER, KESKAR

CHAPTER = Chapter(
    "fixed-rate",
    "One learning rate for all batch sizes",
    "All batch sizes train at the same learning rate, comparison.fixed_learning_rate, so a larger batch takes fewer "
    "steps per epoch. The figures show what else changes: the size of an update, how far the weights move, and where "
    "training ends.",
    {
        "curves_fixed_lr": Caption(
            "Loss by epoch",
            "Training and validation loss after each epoch, one line per batch size, on logarithmic axes (that of "
            "a loss with negative values is linear around 0).",
            "The further left a line falls, the fewer epochs that batch size needs. A validation loss that rises "
            "while the training loss falls is overfitting. A line ends when the first seed stops.",
            "A larger batch whose loss falls faster per epoch: at one learning rate, it takes fewer steps per epoch.",
            (CHANG, KESKAR),
            ("slower_descent",),
        ),
        "convergence": Caption(
            "Where training ends and what it costs",
            "Lowest losses, {metric_item}time per epoch, and epochs and time to the best epoch, by batch size.",
            "Small points are seeds, large points their means with one standard deviation. If the bars of two batch "
            "sizes overlap, these seeds do not rank them. The time to the best epoch is the cost of a trained network.",
            "The literature expects a larger batch to take less time per epoch and more epochs, and to end at a "
            "higher validation loss. If the epochs do not get faster, the hardware is the bottleneck.",
            (CHANG, KESKAR),
            ("higher_validation_loss", "shorter_epochs", "more_epochs"),
        ),
        "devices": Caption(
            "Time per epoch on several devices",
            "Left, the time per epoch by the number of devices that share each batch, one line per batch size. Right, "
            "the speedup over one device.",
            "The further a line is below the dashed one, the more time the devices spend waiting for each other. They "
            "synchronize once per step, so small batches are expected to gain least. The subtitle names the devices. "
            "With more processes than cores there is no speedup.",
            "A small batch that gains as much as a large one, or a line above the dashed one: then something other "
            "than the number of devices made the difference.",
            (CHANG, GOYAL),
        ),
        "distance": Caption(
            "Distance of the best weights from the initial weights",
            "Euclidean distance between the weights at the best epoch and the initial weights, by batch size, one "
            "panel per learning rate.",
            "Compare batch sizes within a panel, then compare panels. If the distance falls with the batch size but "
            "is equal at equal ratios of learning rate to batch size, the number of steps explains it, not the batch.",
            "Large batches are expected to stay closer to the initial weights. The opposite at one learning rate "
            "would be surprising, unless the small batch stopped early.",
            (CHANG, HOFFER, KESKAR),
            ("nearer_to_init",),
        ),
        "distance_by_layer": Caption(
            "Distance by layer",
            "The same distance for each layer, weight and bias together.",
            "All panels share one scale, so they show which layers move at all. Layers differ in their number of "
            "weights, so compare batch sizes within a layer.",
            "A layer in which the order of the batch sizes differs from that of the full network.",
            (CHANG,),
        ),
        "distance_over_time": Caption(
            "Distance from the initial weights over time",
            "Distance of the weights from the initial weights against the number of steps, one line per batch size. "
            "Dashed lines are logarithmic fits.",
            "On this logarithmic axis a straight line is growth with the logarithm of time, as in a random walk on a "
            "random potential. Lines that coincide differ only in their number of steps.",
            "A power law that fits better than the logarithm (the subtitle compares both), or a large batch that is "
            "further away after the same number of steps.",
            (HOFFER,),
            ("logarithmic_distance",),
        ),
        "epoch_distance": Caption(
            "How far the weights move in an epoch",
            "Left, the distance between the weights before and after an epoch. Right, the ratio of the small batch to "
            "the large batch, paired by seed.",
            "The dashed line is no difference; above it the small batch moves further. A ratio equal to that of the "
            "batch sizes would be explained by the number of steps alone.",
            "A ratio below 1 early in training, at one learning rate.",
            (CHANG,),
            ("shorter_moves",),
        ),
        "update_norms": Caption(
            "Norm of a batch update",
            "The distribution of the norms of all updates of a run, on a logarithmic axis. Labels are medians.",
            "The width shows how often a norm occurs. If the gradients of single examples were unrelated, the norm "
            "would fall with the square root of the batch size; if they all agreed, it would not fall.",
            "Larger updates with a larger batch at one learning rate: at equal weights, the mean gradient of more "
            "examples is shorter on average, by the triangle inequality. However, a larger batch follows another "
            "trajectory, and its gradients may stay large for longer.",
            (CHANG,),
            ("smaller_updates",),
        ),
        "gradient_alignment": Caption(
            "Alignment of the gradients of examples",
            "Norm of the mean gradient of B examples at fixed weights, against B. The dashed line is its upper bound, "
            "the mean norm of the gradients of single examples.",
            "The gap to the dashed line is the part of the gradients that cancels. On these logarithmic axes, a slope "
            "of −1/2 is no alignment and a flat line is perfect alignment.",
            "A norm that hardly falls with B late in training: the gradients then point in one direction, and larger "
            "batches would gain little from averaging.",
            (CHANG,),
        ),
    },
    "fixed rate",
)
