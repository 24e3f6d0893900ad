"""Which claims of the literature hold in this study."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, KESKAR

CHAPTER = Chapter(
    "claims",
    "The claims",
    "Claims of the original study, of its sources and of later papers, tested on the runs of this study. The runs of "
    "one seed share their initial weights, so each seed gives one ratio. There is no relevant difference if a test of "
    "equivalence shows that the ratio is within comparison.margin; else a claim is supported or refuted if the 95 % "
    "interval of the ratio over seeds lies on one side of 1, undecided otherwise, and not tested if no seed has a "
    "ratio. A claim that a ratio is 1, or that larger batches are not worse, is supported by equivalence, and its text "
    "names the margin. One claim is about a difference of correlations, 0 if there is none. With this many claims, one "
    "verdict by chance is not unusual: each says whether it holds after Holm's adjustment for their number. The "
    "protocol says at which learning rates batch sizes are compared, and up to where.",
    {
        "claims": Caption(
            "Which claims hold here",
            "The ratio that each claim is about: the geometric mean over seeds with its 95 % interval, on a "
            "logarithmic axis.",
            "A ratio of 1 is no difference, and ratios within the margin of the claim do not matter; what is claimed "
            "is shaded. If the interval contains 1 and is wider than the margin, the claim is undecided, and its "
            "text estimates how many seeds would decide it. One seed gives no interval, and a claim that is not tested "
            "has no ratio.",
            "A refuted claim is not an error: other models and data give other results. But first check that the runs "
            "had time to converge and that the learning rates suit them.",
            (CHANG, KESKAR),
        ),
    },
)
