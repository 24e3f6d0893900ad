"""The plane of a trajectory."""

import numpy as np
import pytest

from batchscape.analysis.trajectory import padded_range, principal_plane


def test_principal_plane_of_a_planar_trajectory_is_its_plane():
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.normal(size=(50, 2)))[0].T
    points = np.array([[-4.0, 0.0], [-3.0, 1.0], [-1.0, 1.5], [0.0, 0.0], [0.5, -0.5]])
    minimum = generator.normal(size=50)
    plane = principal_plane(minimum + points @ axes, minimum)
    assert plane.explained_variance.sum() == pytest.approx(1)
    assert plane.explained_variance[0] > plane.explained_variance[1]
    assert plane.directions @ plane.directions.T == pytest.approx(np.eye(2), abs=1e-12)
    assert plane.coordinates @ plane.directions == pytest.approx(points @ axes, abs=1e-12)
    assert plane.coordinates[3] == pytest.approx([0, 0], abs=1e-12)
    assert np.ptp(plane.coordinates[:, 0]) > np.ptp(plane.coordinates[:, 1])


def test_range_is_padded_on_both_sides():
    assert padded_range(np.array([3.0, -1.0, 0.0]), 0.25) == (-2.0, 4.0)
