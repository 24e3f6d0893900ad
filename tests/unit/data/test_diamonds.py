"""The prices of diamonds."""

from importlib.resources import files

import numpy as np
import pandas as pd

from batchscape.config.data.tables import DiamondsConfig
from batchscape.data.prepare import prepare


def test_diamonds_are_those_of_plotnine():
    result = prepare(DiamondsConfig(source="diamonds", split="first"), task="regression")
    frame = pd.read_csv(str(files("plotnine.data") / "diamonds.csv"))
    assert len(result.data.train) == 43_152
    assert len(result.data.validation) == 10_788
    assert result.data.spec.target_name == "log(price)"
    assert result.data.spec.shape == (6 + 5 + 7 + 8,)
    targets = result.data.validation.arrays["targets"].numpy()
    log = np.log(frame["price"])
    np.testing.assert_allclose(targets, (log - log[:43_152].mean())[43_152:], rtol=1e-5, atol=1e-6)
    carat = result.data.train.arrays["inputs"].numpy()[:, 0]
    expected = (frame["carat"] - frame["carat"][:43_152].mean()) / frame["carat"][:43_152].std(ddof=0)
    np.testing.assert_allclose(carat, expected[:43_152], rtol=1e-4, atol=1e-6)
    assert set(result.manifest["file"]) == {"diamonds.csv"}


def test_a_category_can_be_the_target():
    result = prepare(DiamondsConfig(source="diamonds", target="cut", features=["depth", "table"]))
    assert result.data.spec.classes == ("Fair", "Good", "Ideal", "Premium", "Very Good")
