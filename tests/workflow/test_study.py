"""The smoke study from its config to its figures, and studies that fail or are rejected."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchscape.io.frames import read_frame
from batchscape.study.registry import FIGURES, TABLES
from batchscape.study.study import Study
from tests.helpers.checkout import PROJECT, Checkout

pytestmark = pytest.mark.slow

SMOKE = Study.from_file(PROJECT / "config" / "smoke.yaml")


def table(checkout: Checkout, name: str, study: str = "smoke") -> pd.DataFrame:
    return read_frame(checkout.path / "results" / study / f"{name}.csv")


def test_every_table_and_figure_is_written(finished: Checkout):
    folder = finished.path / "results" / "smoke"
    assert {path.stem for path in (folder / "tables").iterdir()} == {
        *("runs", "trial_runs", "landscape", "trajectory"),
        *TABLES,
    }
    for kind, head in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        drawn = {path.stem: path for path in (folder / "figures").glob(f"*.{kind}")}
        assert set(drawn) == set(FIGURES)
        for path in drawn.values():
            content = path.read_bytes()
            assert content.startswith(head)
            assert len(content) > 5_000


def test_runs_table_agrees_with_the_files_of_each_run(finished: Checkout):
    runs = table(finished, "tables/runs").set_index("run")
    assert set(runs.index) == set(SMOKE.runs)
    for name, run in SMOKE.runs.items():
        folder = finished.path / "results" / "smoke" / "runs" / name
        summary = json.loads((folder / "run.json").read_text())
        history = read_frame(folder / "history.csv")
        row = runs.loc[name]
        assert (row["batch_size"], row["seed"]) == (run.batch_size, run.seed)
        assert row["learning_rate"] == (
            run.learning_rate or summary["spec"]["learning_rate"]
        )  # a tuned run's is in its summary
        assert summary["spec"]["batch_size"] == run.batch_size
        assert row["best_validation_loss"] == history["validation_loss"].min()
        assert row["best_epoch"] == history["epoch"][history["validation_loss"].idxmin()]
        assert row["epoch_seconds"] == history["train_seconds"].median()
        assert {path.stem for path in (folder / "weights").iterdir()} >= {"init", "best", "last", "epoch00001"}


def test_fixed_lr_has_mean_and_sd_over_seeds(finished: Checkout):
    runs, fixed = table(finished, "tables/runs"), table(finished, "tables/fixed_lr")
    assert list(fixed["batch_size"]) == [64, 128, 256]
    for _, row in fixed.iterrows():
        losses = runs.query("setting == @row.setting")["best_validation_loss"]
        assert row["n_seeds"] == len(losses) == 2
        assert np.isclose(row["best_validation_loss_mean"], losses.mean(), rtol=1e-12)
        assert np.isclose(row["best_validation_loss_sd"], np.std(losses, ddof=1), rtol=1e-12)


def test_distance_table_agrees_with_the_weights_on_disk(finished: Checkout):
    from safetensors.numpy import load_file

    distances = table(finished, "tables/distance").set_index(["batch_size", "learning_rate", "layer"])
    for batch_size in (64, 256):
        total, conv = [], []
        for seed in (0, 1):
            weights = finished.path / "results/smoke/runs" / f"bs{batch_size}-lr0.08-seed{seed}" / "weights"
            init, best = load_file(weights / "init.safetensors"), load_file(weights / "best.safetensors")
            squares = {name: np.sum((best[name].astype(float) - init[name].astype(float)) ** 2) for name in init}
            total.append(np.sqrt(sum(squares.values())))
            conv.append(np.sqrt(squares["conv1.weight"] + squares["conv1.bias"]))
        assert np.isclose(distances.loc[(batch_size, 0.08, "all layers"), "distance_mean"], np.mean(total), rtol=1e-9)
        assert np.isclose(distances.loc[(batch_size, 0.08, "conv1"), "distance_mean"], np.mean(conv), rtol=1e-9)


def test_epoch_distance_ratio_is_paired_by_seed(finished: Checkout):
    ratios = table(finished, "tables/epoch_distance").set_index(["setting", "epoch"])
    moves = table(finished, "analysis/epoch_distance").set_index(["setting", "epoch", "seed"])["epoch_distance"]
    expected = [moves["bs64-lr0.02", 1, seed] / moves["bs256-lr0.02", 1, seed] for seed in (0, 1)]
    assert np.isclose(ratios.loc[("bs64-lr0.02", 1), "ratio_to_large_mean"], np.mean(expected), rtol=1e-12)
    assert ratios.loc[("bs256-lr0.02", 1), "ratio_to_large_mean"] == 1
    assert ratios.loc[("bs64-lr0.02", 1), "n_ratios"] == 2


def test_update_norm_medians_agree_with_the_recorded_norms(finished: Checkout):
    medians = table(finished, "tables/update_norms").set_index(["batch_size", "learning_rate"])
    norms = [
        np.load(finished.path / f"results/smoke/runs/bs128-lr0.02-seed{seed}/update_norms.npy", allow_pickle=False)
        for seed in (0, 1)
    ]
    assert np.isclose(
        medians.loc[(128, 0.02), "update_norm_p50_mean"], np.mean([np.median(n) for n in norms]), rtol=1e-12
    )
    assert all(len(n) % 3 == 0 for n in norms)  # 359 training images: two batches of 128 and one of 103


def test_landscapes_share_their_grid_and_their_center_is_the_run(finished: Checkout):
    cells = table(finished, "tables/landscape")
    assert cells.groupby(["run", "direction_seed"]).size().tolist() == [35] * 4
    grids = [rows[["x", "y"]].to_numpy().tolist() for _, rows in cells.groupby(["run", "direction_seed"])]
    assert all(grid == grids[0] for grid in grids)
    centers = cells.query("x == 0 and y == 0").set_index(["run", "direction_seed"])["loss"]
    lines = table(finished, "analysis/interpolation").query("second == 'bs256-lr0.02' and seed == 0").set_index("alpha")
    for alpha, run in ((0.0, "bs64-lr0.02-seed0"), (1.0, "bs256-lr0.02-seed0")):
        assert centers[run, 0] == centers[run, 1] == lines.loc[alpha, "train_loss"]
        best = json.loads((finished.path / f"results/smoke/runs/{run}/run.json").read_text())["best_validation_loss"]
        assert np.isclose(lines.loc[alpha, "validation_loss"], best, rtol=1e-6)


def test_init_is_identical_for_all_batch_sizes_of_a_seed(finished: Checkout):
    for name, values, settings in (
        ("sharpness", ["measure", "radius", "value"], len(SMOKE.plan.arm_settings)),
        ("gradient_alignment", ["gradient_batch", "gradient_norm"], 3),
    ):
        rows = table(finished, f"analysis/{name}").query("checkpoint == 'init' and seed == 1")
        frames = [group[values].reset_index(drop=True) for _, group in rows.groupby("setting")]
        assert len(frames) == settings
        assert all(frame.equals(frames[0]) for frame in frames)
    kinds = table(finished, "analysis/gradient_alignment").groupby("checkpoint").size()
    assert kinds.to_dict() == {"init": 6 * 5, "best": 6 * 5, "epoch00001": 6 * 5}


def test_lost_part_of_a_landscape_is_recomputed_alone_with_identical_bits(finished: Checkout):
    folder = finished.path / "results/smoke"
    parts = sorted((folder / "analysis/landscape/bs64-lr0.02-seed0").iterdir())
    assert [part.name for part in parts][:2] == ["directions0-part1of2.csv", "directions0-part2of2.csv"]
    lost, before = parts[1], (folder / "tables/landscape.csv").read_bytes()
    content, others = lost.read_bytes(), {part: part.stat().st_mtime_ns for part in parts if part != parts[1]}
    lost.unlink()
    (folder / "tables/landscape.csv").unlink()
    expected = {"analyze bs64-lr0.02-seed0: landscape 0, part 2 of 2"}
    assert finished.stale_jobs("config/smoke.yaml") == expected | {
        "gather tables/landscape",
        "figure landscape",
        "report",
    }
    assert "\nReport: results/smoke/report.html\n" in finished.run("config/smoke.yaml")
    assert lost.read_bytes() == content
    assert (folder / "tables/landscape.csv").read_bytes() == before
    assert {part: part.stat().st_mtime_ns for part in others} == others


def test_landscape_is_identical_in_one_job_and_in_parts(finished: Checkout):
    config = finished.path / "config/one-job.yaml"
    text = (finished.path / "config/smoke.yaml").read_text()
    config.write_text(text.replace("points_per_job: 20", "points_per_job: 1000"))
    target = "results/smoke/analysis/landscape/bs64-lr0.02-seed0/directions1-part1of1.csv"
    done = finished.snakemake("--cores", "2", target, "--configfile", str(config))
    assert done.returncode == 0, done.stdout[-2000:]
    complete = read_frame(finished.path / target)
    parts = [read_frame(finished.path / target.replace("part1of1", f"part{part}of2")) for part in (1, 2)]
    config.unlink()
    assert complete.equals(pd.concat(parts, ignore_index=True))


def test_landscape_log_starts_with_the_amount_of_work(finished: Checkout):
    log = (finished.path / "results/smoke/logs/landscape/bs64-lr0.02-seed0/directions0-part1of2.log").read_text()
    assert "18 evaluations of the loss over 359 examples, about" in log.splitlines()[0]


def test_analysis_of_any_setting_can_be_requested(finished: Checkout):
    target = "results/smoke/analysis/gradient_alignment/bs64-lr0.08.csv"
    done = finished.snakemake("--cores", "1", target, "--configfile", "config/smoke.yaml")
    assert done.returncode == 0, done.stdout[-2000:]
    assert set(read_frame(finished.path / target)["run"]) == {"bs64-lr0.08-seed0", "bs64-lr0.08-seed1"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("results/smoke/analysis/sharpness/bs64-lr0.5.csv", "the study smoke has no runs bs64-lr0.5"),
        ("results/smoke/runs/bs64-lr0.02-seed7/run.json", "the study smoke has no runs bs64-lr0.02-seed7"),
        ("results/other/report.html", "does not belong to the study smoke; give its study file: --configfile FILE"),
        (
            "results/smoke/tuning/bs7/tuned.json",
            "batch size 7 is not in grid.batch_sizes of the study smoke; it has 64",
        ),
        ("results/smoke/tables/none.csv", "the study smoke does not make it, such as because its section is not enab"),
    ],
)
def test_target_of_an_unknown_run_or_another_study_is_rejected_in_one_line(
    finished: Checkout, target: str, expected: str
):
    done = finished.snakemake("--cores", "1", target, "--configfile", "config/smoke.yaml")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow specific profile")]
    assert done.returncode == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"{target}: {expected}")


def test_tuned_run_trains_at_the_rate_that_its_search_found(finished: Checkout):
    trials, tuned = table(finished, "tables/trials"), table(finished, "tables/tuned_lr").set_index("batch_size")
    assert trials.groupby("batch_size")["stage"].apply(lambda stages: (stages == "finalist").sum()).tolist() == [
        2,
        2,
        2,
    ]
    assert (tuned[["spent_grid", "spent_search", "spent_extension", "spent_finalist"]].sum(axis=1) <= 3.6 + 1e-9).all()
    runs = table(finished, "tables/runs").set_index("run")
    for batch_size, rows in trials.groupby("batch_size"):
        best = tuned.loc[batch_size, "tuned_learning_rate"]
        assert rows.loc[rows["is_best"] == 1, ["stage", "learning_rate"]].to_numpy().tolist() == [["finalist", best]]
        for seed in (0, 1):
            name = f"bs{batch_size}-lrtuned-seed{seed}"
            summary = json.loads((finished.path / f"results/smoke/runs/{name}/run.json").read_text())
            assert runs.loc[name, "learning_rate"] == summary["spec"]["learning_rate"] == best


def test_run_of_a_batch_warmup_trains_with_the_measured_stages(finished: Checkout):
    folder = finished.path / "results" / "smoke"
    measured = json.loads((folder / "branches/bs64-lr0.02-batchwarmup/stages.json").read_text())
    (critical,) = table(finished, "tables/branching")["critical_batch"]
    steps = {}
    for name in ("bs64-lr0.02", "bs64-lr0.02-batchwarmup"):
        runs = [folder / "runs" / f"{name}-seed{seed}" for seed in (0, 1)]
        summaries = [json.loads((run / "run.json").read_text()) for run in runs]
        steps[name] = [summary["steps"] for summary in summaries]
        stages = measured["stages"] if "batchwarmup" in name else []
        assert [summary["spec"]["stages"] for summary in summaries] == [stages] * 2
        # The stage begins after the second epoch.
        weights = [(run / "weights/epoch00001.safetensors").read_bytes() for run in runs]
        assert weights == [
            (folder / f"runs/bs64-lr0.02-seed{seed}/weights/epoch00001.safetensors").read_bytes() for seed in (0, 1)
        ]
    (row,) = table(finished, "tables/batch_schedule").to_dict("records")
    assert [row["base_steps_mean"], row["steps_mean"]] == [np.mean(each) for each in steps.values()]
    assert row["stages"] == ("none" if critical == 64 else f"{critical:.0f} from 718 examples")


def test_every_claim_has_verdict_and_interval(finished: Checkout):
    claims = table(finished, "tables/claims")
    assert len(claims) == 21
    verdicts = {"supported", "refuted", "no relevant difference", "undecided", "not tested"}
    assert set(claims["verdict"]) <= verdicts
    is_tested = claims["verdict"] != "not tested"
    assert claims.loc[~is_tested, "reading"].str.startswith("Not tested").all()
    assert is_tested.sum() >= 10
    has_two_seeds = is_tested & claims["claim"].ne("noise_scale_predicts")  # a run of one seed branches
    # The best epoch of each run is the last one of its budget, a bound that is the same for both seeds.
    has_interval = has_two_seeds & ~claims["claim"].isin(["more_epochs", "linear_restores_epochs"])
    assert np.isfinite(claims.loc[has_interval, ["ci95_low", "ci95_high"]]).all(axis=None)
    assert (claims.loc[has_two_seeds, "n_seeds"] == 2).all()
    assert has_two_seeds[claims["claim"].isin(["edge_of_stability", "logarithmic_distance"])].all()


def test_log_reports_each_epoch_once(finished: Checkout):
    log = (finished.path / "results/smoke/logs/train/bs64-lr0.02-seed0.log").read_text()
    epochs = read_frame(finished.path / "results/smoke/runs/bs64-lr0.02-seed0/history.csv")
    assert log.count("training loss") == len(epochs)
    assert "Traceback" not in log


def test_snakefile_for_catalogs_is_the_same_workflow(finished: Checkout):
    done = finished.snakemake(
        "--snakefile", "workflow/Snakefile", "--dry-run", "--cores", "1", "--configfile", "config/smoke.yaml",
        "--workflow-profile", "profiles/default",
    )  # fmt: skip
    assert "Nothing to be done" in done.stdout, done.stdout[-2000:]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name: x\ntraining: {patience: 0}\n", "training.patience: must be at least 1, got 0"),
        ("name: x\ngrd: {seeds: [1]}\n", "grd: is not a known key; did you mean `grid`?"),
        ("grid: {seeds: [1]}\n", "name: is missing"),
        ("name: x\nname: y\n", "line 2: duplicate key `name`"),
    ],
)
def test_invalid_study_file_is_rejected_in_one_line_without_traceback(
    finished: Checkout, tmp_path: Path, content: str, expected: str
):
    config = tmp_path / "bad.yaml"
    config.write_text(content)
    done = finished.snakemake("--cores", "1", "all", "--configfile", str(config))
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow specific profile")]
    assert done.returncode == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"{config}: {expected}")
    assert not (finished.path / "results" / "x").exists()


def test_failed_job_prints_its_error_in_one_line_and_others_continue(finished: Checkout, tmp_path: Path):
    config = tmp_path / "failing.yaml"
    config.write_text(
        "name: failing\n"
        "grid: {batch_sizes: [128, 256], learning_rates: [0.02], seeds: [0]}\n"
        "model: {channels: [4], dense: [8]}\n"
        "training: {budget: {epochs: 1}}\n"
        "comparison: {fixed_learning_rate: 0.02, high_learning_rate: 0.02}\n"
        "arms: {linear: {enabled: false}, sqrt: {enabled: false}}\n"
        "tuning: {enabled: false}\n"
        + "".join(f"{section}: {{enabled: false}}\n" for section in ("sharpness", "landscape", "gradient_alignment"))
        + "interpolation: {enabled: false}\n"
        "device_timing: {enabled: false}\n"
        "confirmation: {enabled: false}\n"
    )
    target = "results/failing/tables/fixed_lr.csv"
    runs = finished.path / "results" / "failing" / "runs"
    broken = runs / "bs128-lr0.02-seed0"
    broken.mkdir(parents=True)
    (broken / "weights").write_text("a file where the folder of the weights must be")
    done = finished.snakemake("--cores", "2", target, "--configfile", str(config))
    assert done.returncode == 1
    assert "results/failing/logs/train/bs128-lr0.02-seed0.log: FileExistsError" in done.stdout
    assert "Traceback" not in done.stdout
    assert "Traceback" in (finished.path / "results/failing/logs/train/bs128-lr0.02-seed0.log").read_text()
    assert "Fix the errors above and rerun the same command to resume." in done.stdout
    assert (runs / "bs256-lr0.02-seed0" / "run.json").exists()
    assert not (broken / "run.json").exists()

    (broken / "weights").unlink()
    expected = {"train bs128-lr0.02-seed0", "analyze runs", "table fixed_lr"}
    assert finished.stale_jobs(config, target=target) == expected
    done = finished.snakemake("--cores", "2", target, "--configfile", str(config))
    assert done.returncode == 0, done.stdout[-2000:]


def test_config_option_sets_keys(finished: Checkout):
    plan = ["--dry-run", "--cores", "1", "all", "--configfile", "config/smoke.yaml"]
    seeds = "grid={seeds: [7]}", "branching={seeds: [7]}"
    done = finished.snakemake(*plan, "--config", "training={patience: 50, checkpoints: [1, 2]}", *seeds)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Training bs64-lr0.02-seed7" in done.stdout
    assert "seed0" not in done.stdout
    bad = finished.snakemake(*plan, "--config", "training={patience: -1}")
    assert "config/smoke.yaml with --config: training.patience: must be at least 1, got -1" in bad.stdout


def test_docs_state_the_number_of_slurm_jobs_of_ten_thousand_runs(finished: Checkout, tmp_path: Path):
    text = (PROJECT / "docs" / "cluster.md").read_text()
    config = tmp_path / "many.yaml"
    config.write_text(re.search(r"```yaml\n(name: many\n.*?)```", text, re.DOTALL)[1])
    study = Study.from_file(config)
    assert len(study.runs) == 10_000

    # Planned with one and two seeds, because all take a minute: a seed adds its runs, and no other job.
    def count_jobs(seeds: list[int], seeds_per_job: int = 1) -> dict[str, int]:
        done = finished.snakemake(
            *("--dry-run", "--workflow-profile", "profiles/slurm", "all", "--configfile", str(config)),
            *("--config", f"grid={{seeds: {seeds}}}", f"resources={{seeds_per_job: {seeds_per_job}}}"),
        )
        assert done.returncode == 0, done.stdout[-2000:]
        return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}

    counts, more = count_jobs([0]), count_jobs([0, 1])
    assert (counts.pop("train"), more.pop("train")) == (200, 400)
    assert (counts.pop("total") - 200, more.pop("total") - 400) == (sum(counts.values()), sum(more.values()))
    assert counts == more
    local = sum(counts[rule] for rule in ("all", "finalists", "table", "figure", "gather", "report"))
    assert f"{10_000 + sum(counts.values()) - local:,} jobs" in text
    grouped = count_jobs([0, 1], 5)
    assert (grouped["train_2_from_seed0"], counts["confirm"], grouped["confirm_3_from_seed1000"]) == (200, 9, 3)
    assert f"{10_000 // 10 + sum(counts.values()) - 9 + 3 - local:,} with `resources: {{seeds_per_job: 10}}`" in text
