"""Which claims of the literature hold in this study."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, KESKAR

CHAPTER = Chapter(
    "claims",
    "The claims",
    "Claims of the original study and its sources about the batch size, tested on the runs of this study. The runs of "
    "one seed share their initial weights, so each seed gives one ratio. A claim is supported or refuted if the 95 % "
    "interval of the ratio over seeds lies on one side of 1, undecided otherwise, and not tested if no seed has a "
    "ratio. With this many claims, one verdict by chance is not unusual; the column p_value_holm of the table claims "
    "is adjusted for their number.",
    {
        "claims": Caption(
            "Which claims hold here",
            "The ratio that each claim is about: the geometric mean over seeds with its 95 % interval, on a "
            "logarithmic axis.",
            "A ratio of 1 is no difference; the shaded side is the claimed one. If the interval contains 1, the claim "
            "is undecided, and its text estimates how many seeds would decide it. One seed gives no interval, "
            "and a claim that is not tested has no ratio.",
            "A refuted claim is not an error: other models and data give other results. But first check that the runs "
            "had time to converge and that the learning rates suit them.",
            (CHANG, KESKAR),
        ),
    },
)
