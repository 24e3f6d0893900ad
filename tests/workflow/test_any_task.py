"""Complete studies of a table, a text and a loss of the user's own, from the data to the page of the report."""

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from tests.helpers.in_process import InProcessStudy
from tests.helpers.page import ParsedPage

pytestmark = pytest.mark.slow

SMALL = """
grid: {batch_sizes: [16, 64], learning_rates: [0.02, 0.05], seeds: [0, 1]}
training: {budget: {epochs: 2}, patience: 2}
comparison: {fixed_learning_rate: 0.02, high_learning_rate: 0.05}
tuning: {enabled: false}
sharpness: {epsilons: [0.5], adaptive_radii: [0.9], subspace_dimension: 4, iterations: 2, random_starts: 0,
            trace_matvecs: 3}
interpolation: {points: 3}
landscape: {points: [3, 3]}
gradient_alignment: {max_batch_size: 4}
device_timing: {enabled: false}
confirmation: {enabled: false}
"""
TABLE = "{source: table, path: table.csv, target: price, target_transform: standardize, test_fraction: 0.2}"
STUDIES = {
    "table": f"data: {TABLE}\ntask: {{name: regression}}\nmodel: {{name: mlp, dense: [8]}}\n"
    "arms: {sqrt: {enabled: false}, jump: {rule: constant, stages: [{start: {epochs: 1}, batch_size_factor: 2}]}}",
    "text": "data: {source: text, path: text.txt, block_length: 16, test_fraction: 0.2}\n"
    "model: {name: transformer, depth: 1, width: 8, heads: 2}\n"
    "optimizer: {name: AdamW}\nschedule: {decay: linear}\naveraging: {half_life: 50}\n"
    "arms: {linear: {enabled: false}, sqrt: {enabled: false}, sde: {},\n"
    "       grow: {rule: constant, growth: {max_batch_size: 64}}}",
    "density": f"data: {TABLE}\ntask: {{name: regression, loss: 'densities:gaussian_nll', outputs: 2}}\n"
    "model: {name: mlp, dense: [8]}\narms: {sqrt: {enabled: false}}",
}
LOSS = """
import torch


def gaussian_nll(outputs, targets, *, reduction="mean"):
    mean, log_variance = outputs[:, 0], outputs[:, 1].clamp(-8, 8)
    values = 0.5 * ((targets - mean) ** 2 * torch.exp(-log_variance) + log_variance) - 3
    return values.mean() if reduction == "mean" else values
"""


@pytest.fixture(scope="module", params=STUDIES)
def study(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, InProcessStudy]]:
    folder = tmp_path_factory.mktemp(request.param)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(240, 3))
    price = 1000 + 50 * features @ [1.0, 2.0, -1.0] + generator.normal(size=240)
    pd.DataFrame(features, columns=list("abc")).assign(price=price).to_csv(folder / "table.csv", index=False)
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog; " * 60)
    (folder / "densities.py").write_text(LOSS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield request.param, InProcessStudy(folder, f"name: {request.param}\n{STUDIES[request.param]}{SMALL}")
    sys.modules.pop("densities", None)


def test_metrics_follow_from_the_loss_as_defined(study: tuple[str, InProcessStudy]):
    name, computed = study
    runs = computed.read("tables/runs")
    losses = {"validation": runs["best_validation_loss"], "test": runs["test_loss"]}
    for side, loss in losses.items():
        suffix = "_at_best" if side == "validation" else ""
        if name == "text":
            assert np.allclose(runs[f"{side}_perplexity{suffix}"], np.exp(loss))
            assert np.allclose(runs[f"{side}_bits_per_byte{suffix}"], loss / np.log(2))
        elif name == "table":
            spec = computed.data.spec
            assert np.allclose(runs[f"{side}_rmse{suffix}"], np.sqrt(loss) * spec.target_scale)
            assert np.allclose(runs[f"{side}_r2{suffix}"], 1 - loss / spec.target_variance[side])
            assert (runs[f"{side}_mae{suffix}"] < runs[f"{side}_rmse{suffix}"]).all()
        else:
            assert (loss < 0).any()
            assert not [column for column in runs if "rmse" in column or "accuracy" in column]
    # In the original unit: of prices around 1000 with a standard deviation of about 120.
    if name == "table":
        assert runs["validation_rmse_at_best"].between(1, 300).all()


def test_tables_have_the_metrics_of_the_task_alone(study: tuple[str, InProcessStudy]):
    name, computed = study
    metrics = {"table": ["rmse", "mae", "r2"], "text": ["perplexity", "bits_per_byte"], "density": []}[name]
    assert [metric.name for metric in computed.words.metrics] == metrics
    for table in ("curves", "interpolation", "lr_grid", "landscape", "recommendation"):
        columns = set(computed.read(f"tables/{table}"))
        for metric in ("accuracy", "rmse", "mae", "r2", "perplexity", "bits_per_byte"):
            found = [column for column in columns if metric in column.split("_mean")[0]]
            assert bool(found) == (metric in metrics), (table, metric)


def test_page_and_figures_are_in_the_units_of_the_data(study: tuple[str, InProcessStudy]):
    name, computed = study
    text = " ".join(ParsedPage(computed.page()).text.split())
    unit, metric, rows = {
        "table": ("sd²", "RMSE", "rows"),
        "text": ("nats per byte", "perplexity", "blocks"),
        "density": ("", "", "rows"),
    }[name]
    assert f"Training {rows}" in text
    assert f"On the test {rows}, which had no part in any choice" in text
    assert "accuracy" not in text.partition("Config of the study")[0]
    assert f"best validation loss ({unit})" in text if unit else "(nats" not in text
    assert not metric or f", {metric} " in text
    for figure in ("convergence", "curves_fixed_lr", "interpolation", "landscape", "sharpness", "lr_effect"):
        assert computed.plot(figure).draw().axes


def test_arms_with_other_hyperparameters_and_stages_are_in_tables_and_page(study: tuple[str, InProcessStudy]):
    name, computed = study
    if name == "density":
        return
    last = computed.read("analysis/history").groupby(["setting", "seed"])[["step", "examples"]].max()
    arm, changed = {"table": ("jump", "-x2at1"), "text": ("grow", "-grow2max64")}[name]
    arms = computed.read("tables/arm_runs")
    settings = arms.loc[arms["arm"] == arm, "setting"].unique()
    assert list(settings) == [f"bs{size}-lr0.02{changed}" for size in (16, 64)]
    constant, changing = last.loc["bs16-lr0.02"], last.loc[settings[0]]
    assert (changing["examples"] == constant["examples"]).all() and (changing["step"] < constant["step"]).all()
    text = " ".join(ParsedPage(computed.page()).text.split())
    words = {"table": "2 times the batch size from 1 epoch on", "text": "β₁ 0.6"}[name]
    assert words in text or settings[0] in text


def test_claims_about_ratios_depend_on_the_sign_of_the_loss(study: tuple[str, InProcessStudy]):
    name, computed = study
    claims = computed.read("tables/claims").set_index("claim")
    tested = claims.loc["higher_validation_loss", "n_seeds"] > 0
    assert tested == (name != "density")
    assert claims.loc["nearer_to_init", "n_seeds"] == 2
