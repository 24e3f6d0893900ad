"""The worked example of docs/custom-code.md: custom network and data in the real workflow, and what an edit reruns."""

import json

import pytest

from tests.helpers.checkout import PROJECT, Checkout

pytestmark = pytest.mark.slow

CONFIG = "docs/example/shapes.yaml"
SETTING = "bs64-lr0.05"
SHORT = (
    *("--config", "training={budget: {epochs: 3}}", "grid={seeds: [0]}", "tuning={enabled: false}"),
    "sharpness={subspace_dimension: 4, iterations: 2, random_starts: 0, trace_matvecs: 3}",
)
JOBS_OF_RUN = {f"train {SETTING}-seed0", f"analyze {SETTING}: sharpness"}
TARGET = f"results/shapes/analysis/sharpness/{SETTING}.csv"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The example in a new checkout, with one finished run and its sharpness."""
    checkout = Checkout.at(tmp_path_factory.mktemp("example") / "checkout")
    for name in ("shapes.py", "net.py", "shapes.yaml"):
        (checkout.path / "docs" / "example").mkdir(parents=True, exist_ok=True)
        (checkout.path / "docs" / "example" / name).write_bytes((PROJECT / "docs" / "example" / name).read_bytes())
    done = checkout.snakemake("--cores", "2", TARGET, "--configfile", CONFIG, *SHORT)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "data: 900 of 900 examples are used: 720 for training, 180 for validation" in done.stdout
    return checkout


@pytest.mark.parametrize(
    ("file", "edit", "expected"),
    [
        ("shapes.py", ('"""Return images, (count', '"""Give images, (count'), set()),
        ("net.py", ("nn.Dropout(0.2)", "nn.Dropout(0.3)"), {"network", *JOBS_OF_RUN}),
        ("shapes.py", ("rng.normal(0, 30", "rng.normal(0, 31"), {"prepare", "network", *JOBS_OF_RUN}),
    ],
    ids=["docstring", "network", "data"],
)
def test_edit_of_a_custom_module_reruns_what_depends_on_it(
    example: Checkout, file: str, edit: tuple[str, str], expected: set
):
    module = example.path / "docs" / "example" / file
    before = module.read_text()
    try:
        module.write_text(before.replace(*edit))
        assert example.stale_jobs(CONFIG, *SHORT, target=TARGET) == expected
    finally:
        module.write_text(before)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "nn.Linear(2 * width, outputs)",
            "nn.Linear(2 * width, 7)",
            "returns shape (4, 7) for 4 examples; for 3 classes",
        ),
        ("class Net(nn.Module):", "class Net(nn.Module:", "docs.example.net cannot be imported: SyntaxError: "),
    ],
    ids=["wrong number of outputs", "syntax error"],
)
def test_unsuitable_network_fails_in_one_line_before_training(example: Checkout, old: str, new: str, expected: str):
    module = example.path / "docs" / "example" / "net.py"
    before = module.read_text()
    try:
        module.write_text(before.replace(old, new))
        done = example.snakemake("--cores", "2", "all", "--configfile", CONFIG, *SHORT)
    finally:
        module.write_text(before)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert "Training" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("model.name: ")]
    assert len(lines) == 1
    assert expected in lines[0]


WITHOUT_SECOND_DERIVATIVE = """class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        return values * 1.5

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        return gradient * 1.5


class Net(nn.Module):"""


def test_network_without_second_derivatives_is_reported_before_training(example: Checkout):
    module = example.path / "docs" / "example" / "net.py"
    before = module.read_text()
    edited = before.replace("class Net(nn.Module):", WITHOUT_SECOND_DERIVATIVE).replace(
        "self.features(images)", "Scaled.apply(self.features(images))"
    )
    try:
        module.write_text(edited)
        done = example.snakemake("--cores", "2", "results/shapes/network.json", "--configfile", CONFIG, *SHORT)
        hessian = json.loads((example.path / "results" / "shapes" / "network.json").read_text())["hessian"]
    finally:
        module.write_text(before)
    assert done.returncode == 0, done.stdout[-3000:]
    assert hessian.startswith("not computed: an operation of the network has no second derivative")
    line = f"model.name: docs.example.net:Net: eigenvalue and trace of the Hessian are {hessian}"
    assert line in done.stdout.splitlines()
