"""What the loss looks like around and between the minima."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, DINH, GOODFELLOW, KESKAR, KWON, LI

CHAPTER = Chapter(
    "loss-surface",
    "The minima at that learning rate",
    "How sharp the training loss is around the weights that each batch size found, what lies between those of the "
    "small and the large batch, and what the surface around them looks like.",
    {
        "sharpness": Caption(
            "Sharpness of the minimum",
            "How much the training loss rises in a small box around the weights (Keskar's φ, in the full space and in "
            "a random subspace, and its adaptive form), and the Hessian's top eigenvalue and trace, by batch size.",
            "Higher is sharper. Keskar's measure and the Hessian change if a layer is scaled up and the next one down, "
            "which leaves the function as it is; the adaptive one does not. Believe an order that all measures share.",
            "Sharper minima with a smaller batch. Sharpness that orders batch sizes one way and validation loss the "
            "other says that sharpness does not explain generalisation here.",
            (KESKAR, KWON, DINH),
            ("sharper_minima",),
        ),
        "interpolation": Caption(
            "On the line between two minima",
            "Loss and accuracy on the straight line through the weights of two runs of one seed: α = 0 is the first "
            "one, α = 1 the second, beyond them the line goes on.",
            "A wide valley around one end and a narrow one around the other says which minimum is flatter in this "
            "direction. A hill between them says that they lie in different basins.",
            "No hill at all: both runs then ended in one basin, and the batch size chose only a place in it.",
            (GOODFELLOW, KESKAR, CHANG),
        ),
        "landscape": Caption(
            "The loss around the minima",
            "Training loss on a plane through each minimum, along two random directions that are scaled filter by "
            "filter to the size of the weights. Directions, colours and contour levels are the same in all panels.",
            "Contours that stand closer are a sharper minimum. The plane is two directions of very many: what it does "
            "not show may still be there, so compare panels, and several pairs of directions.",
            "Ridges or other valleys close by, or a lowest point that is not in the middle, which is where the run's "
            "weights at its best epoch are.",
            (LI,),
        ),
        "trajectory": Caption(
            "The way of a training",
            "The weights that were kept on the way, on the plane of their two principal components through the "
            "minimum, over the training loss on that plane.",
            "Dots are the kept weights, projected; the panel says how much of their variance the plane holds. The loss "
            "is that of the plane, not of the weights beside it.",
            "A way that does not go down, or a plane that holds little of the variance: then look elsewhere.",
            (LI,),
        ),
    },
)
