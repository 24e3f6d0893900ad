"""The training loss around and between the minima."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import (
    ANDREYEV,
    ANDRIUSHCHENKO,
    CHANG,
    COHEN,
    COHEN_ADAPTIVE,
    DINH,
    GHORBANI,
    GOODFELLOW,
    KESKAR,
    KWON,
    LI,
)

CHAPTER = Chapter(
    "loss-surface",
    "The minima at the fixed learning rate",
    "The sharpness of the minimum that each batch size finds, and the training loss around it and between the minima "
    "of the small and the large batch.",
    {
        "sharpness": Caption(
            "Sharpness of the minimum",
            "How much the training loss rises in a small box around the weights (Keskar's φ, in the full space and in "
            "a random subspace, and its adaptive form), and the largest eigenvalue and the trace of the Hessian, by "
            "batch size.",
            "Higher is sharper. Keskar's measure and the Hessian change if one layer is scaled up and the next one "
            "down, although the network computes the same function; the adaptive measure does not. Rely on an order "
            "that all measures share.",
            "Sharper minima with a smaller batch. If sharpness orders the batch sizes one way and validation loss the "
            "other way, or follows the learning rate more than the loss, it does not explain generalization here.",
            (KESKAR, KWON, DINH, ANDRIUSHCHENKO),
            ("sharper_minima", "sharpness_follows_rate"),
        ),
        "interpolation": Caption(
            "Between two minima",
            "Loss{and_metric} on the straight line through the weights of two runs with the same seed: α = 0 is the "
            "first run, α = 1 the second, and the line extends beyond both.",
            "A wide valley around one end and a narrow one around the other show which minimum is flatter in this "
            "direction. A barrier between them means that they are in different basins.",
            "No barrier: both runs then ended in the same basin, and the batch size determined only the position in "
            "it.",
            (GOODFELLOW, KESKAR, CHANG),
        ),
        "landscape": Caption(
            "Loss around the minima",
            "Training loss on a plane through each minimum, along two random directions that are normalized filter by "
            "filter to the norm of the weights. Directions, colors and contour levels are the same in all panels.",
            "The closer the contours, the sharper the minimum. The plane shows two of very many directions, so "
            "compare panels, and several pairs of directions.",
            "Ridges or other valleys nearby, or a lowest point that is not at the center, which is where the weights "
            "of the run at its best epoch are.",
            (LI,),
        ),
        "trajectory": Caption(
            "Training trajectory",
            "The checkpoints of a run on the plane of their two principal components through the minimum, over the "
            "training loss on that plane.",
            "Dots are the checkpoints, projected onto the plane; the title of the panel gives the share of their "
            "variance that the plane explains. The loss is that of points on the plane, not of the checkpoints.",
            "A trajectory that does not descend, or a plane that explains little of the variance and therefore shows "
            "little of the trajectory.",
            (LI,),
        ),
        "curvature": Caption(
            "Curvature during training",
            "The largest eigenvalue of the Hessian of the training loss, and the batch sharpness, which is the mean "
            "curvature of the loss of a batch along its own gradient, both times the learning rate, at the saved "
            "weights of each run. For Adam also the largest eigenvalue of the preconditioned Hessian.",
            "The dashed line is the edge beyond which full-batch steps are unstable: 2 for gradient descent. "
            "Full-batch training raises the eigenvalue up to it. With small batches it is the batch sharpness that "
            "rises to 2, and the eigenvalue remains below, the further the smaller the batch.",
            "An eigenvalue that remains above the edge, or a batch sharpness far below it in a run whose loss falls at "
            "a constant rate for long: the step size does not limit the curvature there.",
            (COHEN, ANDREYEV, COHEN_ADAPTIVE),
            ("edge_of_stability",),
        ),
        "spectral_density": Caption(
            "Spectrum of the Hessian",
            "The density of the eigenvalues of the Hessian of the training loss, estimated by stochastic Lanczos "
            "quadrature, by batch size. The table has the trace of each layer.",
            "Nearly all eigenvalues are close to 0; the few far from it, outside of the bulk, are the sharp "
            "directions. The axis of the density is logarithmic: a peak far from 0 may be a single eigenvalue. Where a "
            "line is level at the bottom, there is none.",
            "Large negative eigenvalues at weights where training has converged, or a bulk that is as wide as the "
            "largest eigenvalue.",
            (GHORBANI,),
        ),
    },
)
