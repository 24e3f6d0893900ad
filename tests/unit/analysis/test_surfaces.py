"""Which examples the analyses of the loss surface look at."""

import json

import numpy as np
import pytest

from batchscape.analysis.surfaces import draw_examples, draw_indices, parse_spec
from batchscape.config.analysis import AnalysisConfig
from batchscape.config.gradient_alignment import GradientAlignmentConfig
from batchscape.config.landscape import LandscapeConfig
from batchscape.config.study import StudyConfig
from batchscape.study.plan import Plan
from batchscape.study.specs import Specs
from tests.helpers.objectives import image_data, images_of, labels_of


def test_drawn_indices_are_sorted_distinct_and_depend_on_the_seed():
    indices = draw_indices(60_000, 4096, seed=0)
    assert len(indices) == 4096
    assert (np.diff(indices) > 0).all()
    assert 0 <= indices[0] < 200
    assert 59_800 < indices[-1] < 60_000
    # The mean of a sample without replacement has a standard error of 17,320/64·√(1 − 4096/60000) = 261.
    assert indices.mean() == pytest.approx(29_999.5, abs=4 * 261)
    assert np.array_equal(indices, draw_indices(60_000, 4096, seed=0))
    assert not np.array_equal(indices, draw_indices(60_000, 4096, seed=1))


@pytest.mark.parametrize("limit", [10, 11, 4096])
def test_a_side_with_no_more_examples_than_the_limit_is_used_as_it_is(limit: int):
    assert draw_indices(10, limit, seed=0) == slice(None)


def test_each_side_is_limited_by_itself_and_inputs_stay_with_their_targets():
    labels = np.arange(50)
    images = np.broadcast_to(labels[:, None, None, None], (50, 1, 2, 2)).astype(np.uint8)
    data = image_data(images, labels, images[:7], labels[:7], ("odd", "even"))
    drawn = draw_examples(data, AnalysisConfig(examples=12, seed=3))
    assert len(drawn.train) == 12
    assert np.array_equal(images_of(drawn.train)[:, 0, 0, 0], labels_of(drawn.train))
    assert np.array_equal(labels_of(drawn.validation), labels[:7])
    assert len(data.train) == 50


def test_spec_of_a_job_has_its_section_and_the_examples():
    config = StudyConfig(
        name="s",
        analysis=AnalysisConfig(examples=99, seed=5),
        landscape=LandscapeConfig(points=(5, 7), settings=("bs32-lr0.01",), checkpoint="last"),
    )
    specs = Specs(config, Plan(config))
    section, examples = parse_spec(specs.analysis("landscape"), LandscapeConfig)
    assert examples == config.analysis
    # Keys that only select jobs are in no job's spec.
    assert section == LandscapeConfig(points=(5, 7), checkpoint="last")
    assert parse_spec(specs.analysis("gradient_alignment"), GradientAlignmentConfig)[0] == GradientAlignmentConfig()
    assert json.loads(specs.analysis("an analysis without a section"))["section"] == {}
