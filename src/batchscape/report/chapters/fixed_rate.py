"""What the batch size does if the learning rate does not follow it."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, GOYAL, HOFFER, KESKAR

CHAPTER = Chapter(
    "fixed-rate",
    "One learning rate for all batch sizes",
    "All batch sizes train at the same learning rate, comparison.fixed_learning_rate. A larger batch then takes fewer "
    "steps in an epoch. The figures measure what else it changes: the size of a step, how far the weights move, where "
    "training ends.",
    {
        "curves_fixed_lr": Caption(
            "Loss by epoch",
            "Training and validation loss after each epoch, one line a batch size, on logarithmic axes.",
            "The further left a line falls, the fewer epochs it needs. A validation loss that turns up again while the "
            "training loss falls is overfitting. Lines end when the first seed stops.",
            "A larger batch that falls faster per epoch would be surprising at one learning rate, for it makes fewer "
            "steps.",
            (CHANG, KESKAR),
            ("slower_descent",),
        ),
        "convergence": Caption(
            "Where training ends and what it costs",
            "Least losses, accuracy, time of an epoch, and epochs and time to the best epoch, by batch size.",
            "Small points are seeds, large ones their mean with one standard deviation. Where the bars overlap, so few "
            "seeds do not order the batch sizes. Time to the best epoch is what an answer costs.",
            "The literature expects a larger batch to take less time an epoch, more epochs, and to end at a higher "
            "validation loss. An epoch that does not get faster says that the machine is the limit.",
            (CHANG, KESKAR),
            ("higher_validation_loss", "shorter_epochs", "more_epochs"),
        ),
        "devices": Caption(
            "Time of an epoch on several devices",
            "Left, the time of an epoch by the number of devices that share each batch, one line a batch size; right, "
            "how many times faster than one device that is.",
            "The further a line stays below the dashed one, the more of the devices' time goes into waiting for one "
            "another: they do so once a step, so that small batches are expected to gain least. The subtitle says what "
            "the devices were; processes on fewer cores than there are processes cannot be faster.",
            "A small batch that gains as much as a large one, or a line above the dashed one: then something else than "
            "the devices made the difference.",
            (CHANG, GOYAL),
        ),
        "distance": Caption(
            "Distance of the minimiser from the start",
            "Euclidean distance between the weights at the best epoch and the initial ones, by batch size; one panel a "
            "learning rate.",
            "Compare batch sizes within a panel, then the panels: a distance that falls with the batch size but is the "
            "same at the same ratio of learning rate to batch size comes from the steps, not from the batch.",
            "Large batches are expected to stay nearer to where they began. The opposite at one learning rate would be "
            "surprising, unless the small batch stopped early.",
            (CHANG, HOFFER, KESKAR),
            ("nearer_to_init",),
        ),
        "distance_by_layer": Caption(
            "Distance by layer",
            "The same distance for each layer, its weight and bias together.",
            "All panels have one scale, so that they show which layers move at all. Layers have different numbers of "
            "weights; compare batch sizes within a layer.",
            "A layer in which the order of the batch sizes is another one than in the whole model.",
            (CHANG,),
        ),
        "distance_over_time": Caption(
            "Distance from the start over time",
            "Distance of the weights from the initial ones against the number of steps, one line a batch size; dashed "
            "is the logarithm fitted to each.",
            "On this logarithmic axis a straight line is growth with the logarithm of time, as of a random walk on a "
            "random potential. Lines that lie on one another differ by their number of steps alone.",
            "A power law that fits better than the logarithm (the subtitle compares both), or a large batch that is "
            "ahead at the same number of steps.",
            (HOFFER,),
        ),
        "epoch_distance": Caption(
            "How far the weights move in an epoch",
            "Left, the distance between the weights before and after an epoch; right, that of the small batch over "
            "that of the large one, paired by seed.",
            "The dashed line is no difference: above it the small batch moves further in the epoch. A ratio as large "
            "as that of the batch sizes would be the number of steps alone.",
            "A ratio below 1 early in training, at one learning rate.",
            (CHANG,),
            ("shorter_moves",),
        ),
        "update_norms": Caption(
            "Size of a batch update",
            "The distribution of the norms of all updates of a run, on a logarithmic axis; the labels are medians.",
            "Width is how often a norm occurs. If gradients of single examples had nothing in common, the norm would "
            "fall with the square root of the batch size; if they all agreed, it would not fall.",
            "Larger updates with a larger batch at one learning rate: at equal weights the mean gradient of more "
            "examples is shorter on average, by the triangle inequality. But a larger batch takes another way, and its "
            "gradients may stay large for longer.",
            (CHANG,),
            ("smaller_updates",),
        ),
        "gradient_alignment": Caption(
            "How far the gradients of examples agree",
            "Norm of the mean gradient of B examples at fixed weights, against B. Dashed is its bound, the mean norm "
            "of the gradients of single examples.",
            "The gap to the dashed line is what the examples' gradients cancel. A slope of −1/2 on these logarithmic "
            "axes is no alignment at all, a flat line perfect alignment.",
            "A norm that hardly falls with B late in training: gradients then point one way, and larger batches would "
            "gain little by averaging.",
            (CHANG,),
        ),
    },
)
