"""Names of settings in words."""

import pytest

from batchscape.config.budget import Warmup
from batchscape.config.scaling import HYPERPARAMETERS
from batchscape.config.study import Run
from batchscape.report.figures.style import run_panel_title
from batchscape.report.settings import setting_details

ALL = "bs8-lr0.01-beta1_0.8-beta2_0.99996875-eps2e-08-wd0.0234567-momentum0.8-warmup10pct"


@pytest.mark.parametrize(
    ("setting", "is_tuned", "phrases"),
    [
        ("bs32-lr0.01", False, []),
        ("bs32-lrtuned", True, []),
        (
            "bs256-lr0.012-beta2_0.996-wd0.02-warmup5",
            False,
            ["β₂ 0.996", "weight decay 0.02", "with a warm-up of 5 epochs"],
        ),
        ("bs32-lr0.01-warmup1", False, ["with a warm-up of 1 epoch"]),
        ("bs32-lr0.01-batchwarmup", False, ["with a batch size that grows to the measured critical one"]),
        (
            "bs32-lrtuned-warmup1-batchwarmup",
            True,
            ["with a warm-up of 1 epoch", "with a batch size that grows to the measured critical one"],
        ),
        ("bs32-lr0.01-warmup20000examples", False, ["with a warm-up of 20,000 examples"]),
        ("bs32-lr0.01-warmup1steps", False, ["with a warm-up of 1 step"]),
        ("bs32-lr0.01-warmup12.5pct", False, ["with a warm-up of 12.5 % of the budget"]),
        (
            ALL,
            False,
            [
                "β₁ 0.8",
                "β₂ 0.99996875",
                "ε 2 × 10⁻⁸",
                "weight decay 0.0235",
                "momentum 0.8",
                "with a warm-up of 10 % of the budget",
            ],
        ),
    ],
)
def test_setting_in_words(setting: str, is_tuned: bool, phrases: list[str]):
    details = setting_details(setting)
    assert details.is_tuned == is_tuned
    assert details.phrases == phrases


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_each_change_of_a_run_is_in_words(name: str):
    assert len(setting_details(Run(8, 0.1, 0, ((name, 1e-9),)).setting).changes) == 1


@pytest.mark.parametrize("unit", Warmup.model_fields)
def test_each_warmup_of_a_run_is_in_words(unit: str):
    warmup = Warmup(**{unit: 1})
    words = "100 % of the budget" if unit == "fraction" else str(warmup)
    assert setting_details(Run(8, 0.1, 0, (), warmup).setting).warmup == words


def test_panels_of_settings_name_what_differs():
    assert run_panel_title(32, 0.01, "bs32-lr0.01-warmup5", "ok") == "Batch size 32, learning rate 0.01\nwarm-up 5"
    title = run_panel_title(32, 0.01, "bs32-lr0.01-wd0.1-warmup9steps", "ok")
    assert title == "Batch size 32, learning rate 0.01\nweight decay 0.1, warm-up 9 steps"
