"""The spectrum of the Hessian: closed forms on matrices and a quadratic, and the rows of a run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.analysis.spectral_density import analyze, lanczos_quadrature, measure_spectrum
from batchscape.config.spectral_density import SpectralDensityConfig
from batchscape.data.prepared import write_prepared
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import Layers
from batchscape.report.figures.spectral_density import smooth_density
from batchscape.report.tables.spectral_density import tabulate
from batchscape.training.train import train
from tests.helpers.quadratic import noise_data, quadratic_spec

LAYERS = Layers(("first", "second"), (0, 30))


def random_symmetric(size: int, seed: int = 0) -> np.ndarray:
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return (matrix + matrix.T) / 2


def test_quadrature_of_all_steps_has_the_eigenvalues_and_the_squares_of_the_coordinates():
    matrix = random_symmetric(12)
    probe = np.random.default_rng(1).normal(size=12)
    probe /= np.linalg.norm(probe)
    eigenvalues, vectors = np.linalg.eigh(matrix)
    found = lanczos_quadrature(lambda vector: matrix @ vector, probe, 40)
    assert found.eigenvalues == pytest.approx(eigenvalues, abs=1e-10)
    assert found.weights == pytest.approx((vectors.T @ probe) ** 2, abs=1e-10)
    assert found.product == pytest.approx(matrix @ probe)


def test_few_steps_have_the_exact_moments_up_to_twice_their_number():
    matrix = random_symmetric(60)
    probe = np.random.default_rng(2).normal(size=60)
    probe /= np.linalg.norm(probe)
    found = lanczos_quadrature(lambda vector: matrix @ vector, probe, 5)
    assert len(found.eigenvalues) == 5
    for degree in range(10):
        moment = probe @ np.linalg.matrix_power(matrix, degree) @ probe
        assert found.weights @ found.eigenvalues**degree == pytest.approx(moment, rel=1e-9)


def test_repeated_eigenvalues_are_found_once_and_without_copies():
    diagonal = np.repeat([-1.0, 0.0, 5.0], 20)
    probe = np.ones(60) / np.sqrt(60)
    found = lanczos_quadrature(lambda vector: diagonal * vector, probe, 40)
    assert found.eigenvalues == pytest.approx([-1, 0, 5], abs=1e-9)
    assert found.weights == pytest.approx([1 / 3] * 3)


def test_zero_matrix_and_products_that_are_not_finite():
    probe = np.ones(4) / 2
    found = lanczos_quadrature(np.zeros_like, probe, 3)
    assert (found.eigenvalues.tolist(), found.weights.tolist()) == ([0], [1])
    overflow = lanczos_quadrature(lambda vector: np.full_like(vector, np.inf), probe, 3)
    assert np.isnan(overflow.eigenvalues).all()
    assert np.isnan(overflow.product).all()


def test_density_and_layer_traces_of_many_probes_are_those_of_the_matrix():
    matrix = random_symmetric(50)
    rows = measure_spectrum(lambda vector: matrix @ vector, LAYERS, 50, steps=50, probes=100, seed=0)
    nodes, traces = rows.dropna(subset=["eigenvalue"]), rows.dropna(subset=["trace"])
    assert nodes.groupby("probe")["weight"].sum().to_numpy() == pytest.approx(np.ones(100))
    # The share of eigenvalues below a value is the mean weight below it.
    eigenvalues = np.linalg.eigvalsh(matrix)
    for limit in (-3.0, 0.0, 3.0):
        share = nodes[nodes["eigenvalue"] < limit].groupby("probe")["weight"].sum().mean()
        assert share == pytest.approx(np.mean(eigenvalues < limit), abs=0.04)
    by_layer = traces.groupby("layer")["trace"]
    expected = {"first": np.trace(matrix[:30, :30]), "second": np.trace(matrix[30:, 30:]), ALL_LAYERS: np.trace(matrix)}
    for layer, trace in expected.items():
        assert by_layer.mean()[layer] == pytest.approx(trace, abs=4 * by_layer.std()[layer] / 10)
    # Of a diagonal matrix, each probe has the traces exactly, and they are the first moments of the density.
    diagonal = np.arange(50.0)
    rows = measure_spectrum(lambda vector: diagonal * vector, LAYERS, 50, steps=4, probes=2, seed=1)
    traces = rows.dropna(subset=["trace"]).set_index(["probe", "layer"])["trace"]
    for probe in (1, 2):
        assert traces[probe].to_dict() == pytest.approx(
            {"first": diagonal[:30].sum(), "second": diagonal[30:].sum(), ALL_LAYERS: diagonal.sum()}
        )
        nodes = rows[(rows["probe"] == probe) & rows["eigenvalue"].notna()]
        assert 50 * (nodes["weight"] @ nodes["eigenvalue"]) == pytest.approx(diagonal.sum())


def test_basis_that_does_not_fit_in_memory_is_a_user_error():
    with pytest.raises(UserError, match=r"^spectral_density.steps: 1000000 vectors of 10000000 parameters need .* GiB"):
        measure_spectrum(lambda vector: vector, LAYERS, 10**7, steps=10**6, probes=1, seed=0)


def test_rows_of_a_run_have_the_spectrum_of_its_quadratic_loss(tmp_path: Path):
    eigenvalues = [5.0, 1.0, 0.2]
    noise = np.random.default_rng(2).normal(size=(24, 3))
    data = noise_data(noise - noise.mean(0))
    write_prepared(tmp_path / "data", data)
    training = {"budget": {"epochs": 2}, "patience": None, "accelerator": "cpu"}
    spec = quadratic_spec(eigenvalues, [0.3, -1.0, 2.0], training=training)
    run = RunDirectory(train(spec, tmp_path / "data", tmp_path / "run"))
    config = SpectralDensityConfig(checkpoints=("init", "last"), steps=10, probes=2)
    rows = analyze(run, data, config)
    assert set(rows["checkpoint"]) == {"init", "last"}
    for _, part in rows.groupby(["checkpoint", "probe"]):
        nodes = part.dropna(subset=["eigenvalue"])
        assert nodes["eigenvalue"].tolist() == pytest.approx(sorted(eigenvalues), rel=1e-5)
        assert nodes["weight"].tolist() == pytest.approx([1 / 3] * 3, rel=1e-5)
        traces = part.dropna(subset=["trace"])
        assert traces["trace"].tolist() == pytest.approx([6.2, 6.2], rel=1e-5)
        assert traces["layer"].tolist() == ["weights", ALL_LAYERS]
    assert (rows["examples"] == 24).all()
    pd.testing.assert_frame_equal(rows, analyze(run, data, config))


def test_smoothed_density_has_the_mass_mean_and_variance_of_its_nodes():
    eigenvalues, weights, width = np.array([-1.0, 0.0, 4.0]), np.array([0.25, 0.5, 0.25]), 0.3
    points = np.linspace(-4, 7, 20001)
    density = smooth_density(eigenvalues, weights, points, width)
    moments = [np.trapezoid(density * points**degree, points) for degree in range(3)]
    assert moments == pytest.approx([1, 0.75, weights @ eigenvalues**2 + width**2], rel=1e-6)


def test_table_has_the_traces_of_layers_and_the_share_of_negative_eigenvalues():
    diagonal = np.array([-1.0, -2.0, 3.0, 0.5, 0.0])
    layers, lead = Layers(("first", "second"), (0, 2)), {"setting": "bs8-lr0.1", "batch_size": 8, "learning_rate": 0.1}
    frames = [
        measure_spectrum(lambda vector, scale=scale: scale * diagonal * vector, layers, 5, steps=5, probes=3, seed=0)
        .assign(**lead, run=f"seed{seed}", seed=seed, status="converged")
        .assign(checkpoint="best", batch_norm="none", examples=10, not_computed="none")
        for seed, scale in enumerate((1.0, 3.0))
    ]
    diverged = frames[0].assign(run="seed2", seed=2, status="diverged", eigenvalue=np.nan, weight=np.nan, trace=np.nan)
    table = tabulate(pd.concat([*frames, diverged])).set_index("layer")
    assert table.loc["first", ["trace_mean", "trace_sd"]].tolist() == pytest.approx([-6, 3 * 2**0.5])
    assert table.loc[ALL_LAYERS, "trace_mean"] == pytest.approx(1)
    assert table["trace_se_mean"].tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    everything = table.loc[ALL_LAYERS]
    assert everything[["smallest_eigenvalue_mean", "largest_eigenvalue_mean"]].tolist() == pytest.approx([-4, 6])
    assert everything["negative_share_mean"] == pytest.approx(0.4)
    assert table.loc["second", ["negative_share_mean", "largest_eigenvalue_mean"]].isna().all()
    assert (table["n_seeds"] == 2).all()
    assert (table["n_diverged"] == 1).all()
