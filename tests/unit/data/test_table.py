"""Tables."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchscape.config.data.tables import TableConfig
from batchscape.data.prepare import PrepareResult, prepare
from batchscape.data.split import split

RNG = np.random.default_rng(0)
COUNT = 80
FRAME = pd.DataFrame(
    {
        "size": RNG.normal(50, 10, COUNT).round(2),
        "town": RNG.choice(["Oslo", "Bergen", "Tromsø", 'a "quoted", name'], COUNT),
        "year": RNG.integers(1990, 2020, COUNT),
        "price": RNG.lognormal(5, 1, COUNT).round(3),
        "kind": RNG.choice(["flat", "house"], COUNT),
    }
)


def prepare_table(path: Path, task: str = "regression", **keys) -> PrepareResult:
    return prepare(TableConfig(source="table", path=str(path), **keys), task=task)


def write(path: Path, frame: pd.DataFrame, **options) -> Path:
    frame.to_csv(path, index=False, **options)
    return path


def arrays(result: PrepareResult, side: str) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in result.data.sides[side].arrays.items()}


def test_columns_equal_those_of_pandas(tmp_path: Path):
    path = write(tmp_path / "houses.csv", FRAME)
    result = prepare_table(path, target="price", split="first", validation_fraction=0.25)
    train, validation = FRAME[:60], FRAME[60:]
    numbers = FRAME[["size", "year"]]
    scaled = (numbers - train[["size", "year"]].mean()) / train[["size", "year"]].std(ddof=0)
    expected = pd.concat([scaled, pd.get_dummies(FRAME[["town", "kind"]])], axis=1).to_numpy(np.float64)
    assert result.data.spec.shape == (expected.shape[1],) == (8,)
    for side, rows in (("train", slice(60)), ("validation", slice(60, None))):
        np.testing.assert_allclose(arrays(result, side)["inputs"], expected[rows], rtol=1e-6, atol=1e-6)
    assert np.array_equal(arrays(result, "train")["targets"], train["price"].to_numpy(np.float32))
    assert np.array_equal(arrays(result, "validation")["targets"], validation["price"].to_numpy(np.float32))
    assert result.data.spec.target_name == "price"
    assert result.data.spec.target_variance["train"] == pytest.approx(train["price"].astype(np.float32).var(ddof=0))


@pytest.mark.parametrize("kind", ["gzip", "tsv", "semicolon", "parquet", "windows", "bom"])
def test_formats_of_the_same_table_are_equivalent(tmp_path: Path, kind: str):
    path = tmp_path / "table"
    match kind:
        case "gzip":
            path.write_bytes(gzip.compress(FRAME.to_csv(index=False).encode()))
        case "tsv":
            write(path, FRAME, sep="\t")
        case "semicolon":
            write(path, FRAME, sep=";")
        case "parquet":
            FRAME.astype({"kind": "category"}).to_parquet(path)
        case "windows":
            write(path, FRAME, lineterminator="\r\n")
        case "bom":
            write(path, FRAME, encoding="utf-8-sig")
    same = prepare_table(write(tmp_path / "plain.csv", FRAME), target="price")
    other = prepare_table(path, target="price")
    for side in ("train", "validation"):
        for name, array in arrays(same, side).items():
            assert np.array_equal(array, arrays(other, side)[name])
    assert other.data.spec == same.data.spec


def test_embedded_categories_are_numbered_from_1_in_the_training_rows(tmp_path: Path):
    frame = FRAME.assign(town=["b", "c", "a", "b"] * 15 + ["d", "a", "c", "b"] * 5)
    result = prepare_table(
        write(tmp_path / "t.csv", frame), target="price", split="first", validation_fraction=0.25, encoding="embedded"
    )
    assert result.data.spec.inputs == "columns"
    assert result.data.spec.categories == (4, 3)
    assert arrays(result, "train")["categories"][:4, 0].tolist() == [2, 3, 1, 2]
    assert arrays(result, "validation")["categories"][:4, 0].tolist() == [0, 1, 3, 2]
    assert any("unknown categories" in line and "town (5 rows)" in line for line in result.summary)


def test_unknown_categories_are_all_zeros_in_one_hot_columns(tmp_path: Path):
    frame = FRAME.assign(town=["b", "c", "a", "b"] * 15 + ["d", "a", "c", "b"] * 5)
    result = prepare_table(
        write(tmp_path / "t.csv", frame), target="price", split="first", validation_fraction=0.25, features=["town"]
    )
    assert arrays(result, "validation")["inputs"][:4].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_imputed_numbers_are_the_mean_of_the_training_rows_and_categories_unknown(tmp_path: Path):
    frame = FRAME.copy()
    frame.loc[[3, 70], "size"] = np.nan
    frame.loc[[5, 71], "town"] = np.nan
    path = write(tmp_path / "t.csv", frame)
    result = prepare_table(path, target="price", split="first", validation_fraction=0.25, missing="impute")
    known = frame["size"][:60].dropna()
    expected = (frame["size"].fillna(known.mean()) - known.mean()) / known.std(ddof=0)
    np.testing.assert_allclose(arrays(result, "train")["inputs"][:, 0], expected[:60], rtol=1e-6)
    np.testing.assert_allclose(arrays(result, "validation")["inputs"][:, 0], expected[60:], rtol=1e-6)
    assert arrays(result, "train")["inputs"][5, 2:6].sum() == 0
    assert arrays(result, "train")["inputs"][6, 2:6].sum() == 1
    assert "missing values are imputed: size (2), town (2)" in result.summary


@pytest.mark.parametrize("has_empty", [False, True], ids=["only numbers", "and an empty field"])
def test_a_number_can_mean_a_missing_value(tmp_path: Path, refusal: Callable, has_empty: bool):
    frame = FRAME[["size", "price"]].copy()
    frame.loc[[3, 40], "size"] = -999
    frame["size"] = frame["size"].map("{:g}".format)
    frame.loc[[5] * has_empty, "size"] = ""
    path, keys = write(tmp_path / "t.csv", frame), {"target": "price", "missing_values": ["-999"], "split": "first"}
    assert f"line 5: the column `size` has no value, as in {2 + has_empty} of" in refusal(prepare_table, path, **keys)
    result = prepare_table(path, missing="impute", **keys)
    rows = arrays(result, "train")["inputs"][:, 0]
    assert rows[[3, 40]].tolist() == [0, 0]
    assert np.abs(rows).max() < 5
    assert f"missing values are imputed: size ({2 + has_empty})" in result.summary


@pytest.mark.parametrize(("spelling", "missing_values"), [("NAN", ["NA"]), ("nan", ["?"]), ("+nan", ["NA"])])
def test_nan_that_is_not_listed_is_no_number(
    tmp_path: Path, refusal: Callable, spelling: str, missing_values: list[str]
):
    frame = FRAME[["size", "price"]].astype(object)
    frame.loc[3, "size"] = spelling
    path = write(tmp_path / "t.csv", frame)
    message = refusal(prepare_table, path, target="price", missing_values=missing_values)
    assert f"line 5: '{spelling}' in column `size` is not a number" in message


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_integers_that_float64_cannot_tell_apart_are_no_classes(tmp_path: Path, refusal: Callable, kind: str):
    frame = pd.DataFrame({"x": np.arange(60.0), "y": 12_345_678_901_234_560 + np.arange(60) % 6})
    path = tmp_path / f"t.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    message = refusal(prepare_table, path, "classification", target="y", categorical=["y"])
    assert "in column `y` is beyond 2^53, where different integers are one number; write text" in message


def test_rows_with_missing_values_are_dropped_and_listed(tmp_path: Path):
    frame = FRAME.copy()
    frame.loc[3, "size"] = np.nan
    frame.loc[40, "price"] = np.nan
    path = write(tmp_path / "t.csv", frame)
    dropped = prepare_table(path, target="price", missing="drop")
    rest = prepare_table(write(tmp_path / "rest.csv", frame.dropna()), target="price")
    for side in ("train", "validation"):
        assert np.array_equal(arrays(dropped, side)["inputs"], arrays(rest, side)["inputs"])
    reasons = dropped.manifest[dropped.manifest["reason"] != ""]
    assert reasons["file"].tolist() == [f"{path}, line 5", f"{path}, line 42"]
    assert reasons["reason"].tolist() == ["missing value: size", "missing value: price"]
    imputed = prepare_table(path, target="price", missing="impute")
    assert len(imputed.data.train) + len(imputed.data.validation) == COUNT - 1


def test_a_line_number_counts_line_breaks_in_quotes_and_empty_lines(tmp_path: Path, refusal: Callable):
    path = tmp_path / "t.csv"
    path.write_bytes(b'x,t,y\n1,"a\nb",2\n\n\n2,c,3\n3,c,oops\n' + b"4,c,5\n" * 20)
    assert refusal(prepare_table, path, target="y").startswith(f"data.path: {path}, line 7: 'oops' in column `y`")


def test_constant_columns_are_left_out(tmp_path: Path):
    frame = FRAME.assign(constant=3.5, country="NO", late=[1.0] * 60 + [2.0] * 20)
    result = prepare_table(write(tmp_path / "t.csv", frame), target="price", split="first", validation_fraction=0.25)
    assert result.data.spec.shape == (8,)
    assert "left out because they are constant in the training rows: constant, country, late" in result.summary


@pytest.mark.parametrize("transform", ["none", "log", "standardize"])
def test_targets_are_transformed_with_the_training_rows(tmp_path: Path, transform: str):
    result = prepare_table(
        write(tmp_path / "t.csv", FRAME),
        target="price",
        split="first",
        validation_fraction=0.25,
        target_transform=transform,
    )
    price, train = FRAME["price"], FRAME["price"][:60]
    expected, name, scale = {
        "none": (price, "price", 1),
        "log": (np.log(price) - np.log(train).mean(), "log(price)", 1),
        "standardize": ((price - train.mean()) / train.std(ddof=0), "price", train.std(ddof=0)),
    }[transform]
    np.testing.assert_allclose(arrays(result, "validation")["targets"], expected[60:], rtol=1e-6)
    assert result.data.spec.target_name == name
    assert result.data.spec.target_scale == pytest.approx(scale)


def test_several_targets(tmp_path: Path):
    result = prepare_table(write(tmp_path / "t.csv", FRAME), target=["price", "size"], split="first")
    assert result.data.spec.target_shape == (2,)
    assert np.array_equal(arrays(result, "train")["targets"], FRAME[["price", "size"]][:64].to_numpy(np.float32))


def test_classes_are_sorted_as_numbers_or_text(tmp_path: Path):
    frame = FRAME.assign(rank=RNG.choice([9, 10, 100], COUNT))
    path = write(tmp_path / "t.csv", frame)
    ranks = prepare_table(path, "classification", target="rank", split="first")
    assert ranks.data.spec.classes == ("9", "10", "100")
    assert arrays(ranks, "train")["targets"].tolist() == [{9: 0, 10: 1, 100: 2}[rank] for rank in frame["rank"][:64]]
    kinds = prepare_table(path, "classification", target="kind", split="first", exclude=["rank"])
    assert kinds.data.spec.classes == ("flat", "house")
    assert arrays(kinds, "train")["targets"].tolist() == [["flat", "house"].index(kind) for kind in FRAME["kind"][:64]]


def test_many_integers_are_classes_only_if_the_study_file_says_so(tmp_path: Path, refusal: Callable):
    path = tmp_path / "ages.csv"
    path.write_text("x,age\n" + "".join(f"{i % 7},{20 + i % 11}\n" for i in range(110)))
    message = refusal(prepare_table, path, "classification", target="age")
    assert message == (
        "data.target: column `age` has 11 different integers from 20 to 30; predict them with "
        "`task: {name: regression}`, or if they are classes, add `age` to data.categorical"
    )
    confirmed = prepare_table(path, "classification", target="age", categorical=["age"])
    assert confirmed.data.spec.classes == tuple(map(str, range(20, 31)))
    message = refusal(prepare_table, path, "regression", target="age", categorical=["age"])
    assert message.startswith("data.categorical: `age` is the target of a regression")


def test_integers_with_and_without_a_decimal_point_are_the_same_class_and_category(tmp_path: Path):
    rows = [f"{index},{index % 3}{'.0' * (index % 2)},{index % 2}{'.0' * (index % 3 == 0)}" for index in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,code,y", *rows]))
    result = prepare_table(
        tmp_path / "t.csv", "classification", target="y", categorical=["code"], features=["code"], split="first"
    )
    assert result.data.spec.classes == ("0", "1")
    assert result.data.spec.shape == (3,)
    assert arrays(result, "train")["inputs"].argmax(axis=1).tolist() == [index % 3 for index in range(48)]


def test_categories_of_digits_keep_leading_zeros(tmp_path: Path):
    rows = [f"{index},{'007' if index % 2 else '7'},{index % 2}" for index in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["x,code,y", *rows]))
    result = prepare_table(tmp_path / "t.csv", "classification", target="y", categorical=["code"], features=["code"])
    assert result.data.spec.shape == (2,)


def test_dates_are_days_and_booleans_0_and_1(tmp_path: Path):
    frame = pd.DataFrame(
        {"date": pd.date_range("2023-12-30", periods=40, freq="36h"), "new": [True, False] * 20, "y": np.arange(40) % 4}
    )
    expected = frame["date"].to_numpy("datetime64[ns]").astype(np.int64) / 86400e9
    train = expected[:32]
    for path in (write(tmp_path / "t.csv", frame), tmp_path / "t.parquet"):
        if path.suffix == ".parquet":
            frame.to_parquet(path)
        result = prepare_table(path, "classification", target="y", split="first")
        inputs = arrays(result, "train")["inputs"]
        np.testing.assert_allclose(inputs[:, 0], (train - train.mean()) / train.std(), rtol=1e-5)
        assert inputs[:, 1].tolist() == [1, -1] * 16
        assert any(
            "dates, as days since 1970-01-01: date; booleans, as 0 and 1: new" in line for line in result.summary
        )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_booleans_are_the_same_class_and_category_however_they_are_spelled(tmp_path: Path, suffix: str):
    frame = pd.DataFrame({"flag": [True, False, False, True] * 5, "y": [True, False] * 10, "x": np.arange(20)})
    # As R, pandas and Parquet write them.
    path = write(tmp_path / "r.csv", frame.replace({True: "TRUE", False: "FALSE"}))
    validation = tmp_path / f"pandas.{suffix}"
    frame.to_csv(validation, index=False) if suffix == "csv" else frame.to_parquet(validation)
    for features in (["flag"], ["x"]):
        keys = {"features": features, "categorical": ["flag"] * (features == ["flag"])}
        result = prepare_table(path, "classification", target="y", validation_path=str(validation), **keys)
        assert result.data.spec.classes == ("False", "True")
        train, held_out = arrays(result, "train"), arrays(result, "validation")
        assert np.array_equal(train["targets"], held_out["targets"])
        assert np.array_equal(train["inputs"], held_out["inputs"])
        assert train["targets"].tolist() == [1, 0] * 10


@pytest.mark.parametrize("names", [("FALSE", "TRUE"), ("false", "true"), ("FALSE", "true")])
def test_booleans_of_one_spelling_keep_it_as_names_of_classes(tmp_path: Path, names: tuple[str, str]):
    frame = pd.DataFrame({"x": np.arange(20), "y": [*names, ""] * 6 + [*names]})
    result = prepare_table(write(tmp_path / "t.csv", frame), "classification", target="y", missing="drop")
    assert result.data.spec.classes == names


def test_weights_are_stored_and_are_no_feature(tmp_path: Path):
    frame = FRAME.assign(importance=RNG.uniform(0.5, 2, COUNT))
    path = write(tmp_path / "t.csv", frame)
    result = prepare_table(path, target="price", weight="importance", split="first")
    assert np.array_equal(arrays(result, "train")["weights"], frame["importance"][:64].to_numpy(np.float32))
    assert result.data.spec.shape == (8,)


def test_a_column_gives_the_split(tmp_path: Path):
    frame = FRAME.assign(part=["train"] * 40 + ["VAL"] * 20 + ["test"] * 20)
    result = prepare_table(write(tmp_path / "t.csv", frame), target="price", split_column="part")
    for side, rows in (("train", slice(40)), ("validation", slice(40, 60)), ("test", slice(60, None))):
        assert np.array_equal(arrays(result, side)["targets"], frame["price"][rows].to_numpy(np.float32))
    scaled = (frame["size"] - frame["size"][:40].mean()) / frame["size"][:40].std(ddof=0)
    np.testing.assert_allclose(arrays(result, "test")["inputs"][:, 0], scaled[60:], rtol=1e-5)


def test_files_give_the_split_with_columns_in_any_order(tmp_path: Path):
    path = write(tmp_path / "train.csv", FRAME[:50])
    validation = write(tmp_path / "validation.csv", FRAME[50:70][[*reversed(FRAME.columns)]].assign(extra=1))
    test = write(tmp_path / "test.csv", FRAME[70:])
    result = prepare_table(path, target="price", validation_path=str(validation), test_path=str(test))
    for side, rows in (("train", slice(50)), ("validation", slice(50, 70)), ("test", slice(70, None))):
        assert np.array_equal(arrays(result, side)["targets"], FRAME["price"][rows].to_numpy(np.float32))
    assert f"{validation}: columns that {path} lacks are not used: extra" in result.summary


def test_split_by_group_is_that_of_groups_numbered_by_their_first_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscape.data.table_fit.MAX_LEVELS", 5)  # any number of groups is possible
    monkeypatch.setattr("batchscape.data.table_files.CSV_CHUNK_ROWS", 7)
    owners = RNG.integers(0, 30, COUNT)
    frame = FRAME[["size", "price"]].assign(owner=[f"owner {owner}" for owner in owners])
    result = prepare_table(write(tmp_path / "t.csv", frame), target="price", group_column="owner", test_fraction=0.2)
    numbers = pd.factorize(owners)[0]  # in order of appearance
    parts = split(COUNT, 0.2, "random", 0, 0.2, groups=numbers)
    for side, rows in zip(("train", "validation", "test"), parts, strict=True):
        assert np.array_equal(arrays(result, side)["targets"], frame["price"][rows].to_numpy(np.float32))


def test_groups_stay_on_one_side(tmp_path: Path):
    frame = FRAME.assign(owner=[f"owner {index // 4}" for index in range(COUNT)])
    result = prepare_table(write(tmp_path / "t.csv", frame), target="price", group_column="owner", test_fraction=0.2)
    owners = {
        side: {
            frame["owner"][index]
            for index in range(COUNT)
            if np.float32(frame["price"][index]) in arrays(result, side)["targets"]
        }
        for side in ("train", "validation", "test")
    }
    assert sum(map(len, owners.values())) == len(set.union(*owners.values())) == 20
    assert result.data.spec.shape == (8,)


def test_an_unnamed_index_column_is_not_used(tmp_path: Path):
    path = tmp_path / "t.csv"
    FRAME.to_csv(path)
    result = prepare_table(path, target="price")
    assert result.data.spec.shape == (8,)
    assert f"{path}: column 1 has no name, like the index of a data frame, and is not used" in result.summary


def test_chunks_give_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "t.csv", FRAME)
    at_once = prepare_table(path, target="price", target_transform="standardize")
    monkeypatch.setattr("batchscape.data.table_files.CSV_CHUNK_ROWS", 7)
    monkeypatch.setattr("batchscape.data.prepared.CHUNK_BYTES", 300)
    in_parts = prepare_table(path, target="price", target_transform="standardize")
    for side in ("train", "validation"):
        for name, array in arrays(at_once, side).items():
            np.testing.assert_allclose(array, arrays(in_parts, side)[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "target", "task", "keys", "shape"),
    [
        ("penguins", "species", "classification", {"missing": "impute"}, (10,)),
        ("penguins", "sex", "classification", {"missing": "drop"}, (11,)),
        ("mpg", "hwy", "regression", {}, (82,)),
        ("txhousing", "median", "regression", {"missing": "drop", "group_column": "city"}, (7,)),
        ("midwest", "percollege", "regression", {"exclude": ["county", "PID"]}, None),
        ("msleep", "sleep_total", "regression", {"missing": "impute", "exclude": ["name", "genus"]}, None),
        ("economics", "unemploy", "regression", {"split": "first"}, (5,)),
    ],
)
def test_public_tables(name: str, target: str, task: str, keys: dict, shape: tuple | None):
    from importlib.resources import files

    result = prepare_table(Path(str(files("plotnine.data") / f"{name}.csv")), task, target=target, **keys)
    frame = pd.read_csv(str(files("plotnine.data") / f"{name}.csv"))
    used = frame.dropna() if keys.get("missing") == "drop" else frame.dropna(subset=[target])
    assert len(result.data.train) + len(result.data.validation) == len(used)
    assert shape is None or result.data.spec.shape == shape
    if task == "classification":
        assert result.data.spec.classes == tuple(sorted(used[target].unique()))


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscape.data.table_files.CSV_CHUNK_ROWS", 100)
    monkeypatch.setattr("batchscape.data.prepared.CHUNK_BYTES", 2**14)
    monkeypatch.setattr("batchscape.data.manifest.MAX_EXAMPLES_LISTED", 10)
    columns = 40
    peaks = []
    for count in (500, 4_500):
        path = tmp_path / f"{count}.csv"
        numbers = RNG.normal(size=(count, columns)).round(3)
        write(path, pd.DataFrame(numbers, columns=[f"x{index}" for index in range(columns)]))
        del numbers
        tracemalloc.start()
        prepare_table(path, target="x0")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A row is 320 bytes as float64; the split, the sides and the places of rows take some bytes each.
    assert peaks[1] - peaks[0] < 4_000 * 100
