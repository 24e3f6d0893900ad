"""The papers that captions cite."""

from batchscape.report.chapters.chapter import Paper

ARXIV = "https://arxiv.org/abs/"
ANDREYEV = Paper("Andreyev & Beneventano 2024, Edge of Stochastic Stability", f"{ARXIV}2412.20553")
ANDRIUSHCHENKO = Paper(
    "Andriushchenko et al. 2023, A Modern Look at the Relationship between Sharpness and Generalization",
    f"{ARXIV}2302.07011",
)
CHANG = Paper("Chang & Pathak 2020, Effect of Batch Size on Neural Net Training")
COHEN = Paper(
    "Cohen et al. 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability",
    f"{ARXIV}2103.00065",
)
COHEN_ADAPTIVE = Paper("Cohen et al. 2022, Adaptive Gradient Methods at the Edge of Stability", f"{ARXIV}2207.14484")
DINH = Paper("Dinh et al. 2017, Sharp Minima Can Generalize for Deep Nets", f"{ARXIV}1703.04933")
GHORBANI = Paper(
    "Ghorbani et al. 2019, An Investigation into Neural Net Optimization via Hessian Eigenvalue Density",
    f"{ARXIV}1901.10159",
)
GODBOLE = Paper(
    "Godbole et al. 2023, Deep Learning Tuning Playbook", "https://github.com/google-research/tuning_playbook"
)
GOODFELLOW = Paper(
    "Goodfellow et al. 2015, Qualitatively Characterizing Neural Network Optimization Problems", f"{ARXIV}1412.6544"
)
GOYAL = Paper("Goyal et al. 2017, Accurate, Large Minibatch SGD", f"{ARXIV}1706.02677")
HOFFER = Paper("Hoffer et al. 2017, Train Longer, Generalize Better", f"{ARXIV}1705.08741")
KESKAR = Paper("Keskar et al. 2017, On Large-Batch Training for Deep Learning", f"{ARXIV}1609.04836")
KRIZHEVSKY = Paper("Krizhevsky 2014, One Weird Trick for Parallelizing Networks", f"{ARXIV}1404.5997")
KWON = Paper("Kwon et al. 2021, Adaptive Sharpness-Aware Minimization", f"{ARXIV}2102.11600")
LI = Paper("Li et al. 2018, Visualizing the Loss Landscape of Neural Nets", f"{ARXIV}1712.09913")
LI_SURGE = Paper(
    "Li et al. 2024, Surge Phenomenon in Optimal Learning Rate and Batch Size Scaling", f"{ARXIV}2405.14578"
)
MCCANDLISH = Paper("McCandlish et al. 2018, An Empirical Model of Large-Batch Training", f"{ARXIV}1812.06162")
MERRILL = Paper("Merrill et al. 2025, Critical Batch Size Revisited", f"{ARXIV}2505.23971")
SHALLUE = Paper(
    "Shallue et al. 2019, Measuring the Effects of Data Parallelism on Neural Network Training", f"{ARXIV}1811.03600"
)
SMITH = Paper(
    "Smith & Le 2018, A Bayesian Perspective on Generalization and Stochastic Gradient Descent", f"{ARXIV}1710.06451"
)
ZHANG = Paper("Zhang et al. 2024, How Does Critical Batch Size Scale in Pre-training?", f"{ARXIV}2410.21676")
