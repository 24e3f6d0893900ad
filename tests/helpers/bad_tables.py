"""Data files with one mistake each, and the one line that reports it."""

import gzip
import io
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Content = bytes | Callable[[Path], object]


@dataclass(frozen=True)
class BadInput:
    """A mistake in files or in the section `data`.

    Attributes:
        name: What is wrong.
        files: Content of each file by its name, or a function that writes it to a path.
        keys: The section `data`; `{}` in text is the folder of the files.
        expected: Parts of the message, in order; the first one is its start.
        task: Name of the task.
    """

    name: str
    files: dict[str, Content]
    keys: dict[str, Any]
    expected: tuple[str, ...]
    task: str = "classification"

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the files to a folder; return the section `data`."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            else:
                path.write_bytes(content)
        return {key: _fill(value, folder) for key, value in self.keys.items()}


def _fill(value: Any, folder: Path) -> Any:
    return value.replace("{}", str(folder)) if isinstance(value, str) else value


GOOD = ("x,n,kind,y", *(f"{i % 7}.5,{i},{'ab'[i % 2]},{i % 3}" for i in range(1, 31)))


def csv(separator: str = ",") -> bytes:
    """Return CSV with a header and 30 rows."""
    return "".join(row.replace(",", separator) + "\n" for row in GOOD).encode()


def replaced(line: int, text: str) -> bytes:
    """Return the good CSV with another text in a line, counted from 1."""
    rows = list(GOOD)
    rows[line - 1] = text
    return ("\n".join(rows) + "\n").encode()


def table(
    name: str, content: Content, *expected: str, task: str = "classification", file: str = "t.csv", **keys: Any
) -> BadInput:
    """Return a mistake in a table `t.csv`, whose target is `y` unless `keys` name another."""
    return BadInput(
        name, {file: content}, {"source": "table", "path": "{}/" + file, "target": "y"} | keys, expected, task
    )


def parquet(frame: pd.DataFrame) -> Callable[[Path], object]:
    """Return what writes a data frame as Parquet."""
    return lambda path: frame.to_parquet(path)


FRAME = pd.DataFrame({"x": np.arange(30.0), "kind": ["a", "b"] * 15, "y": [0, 1, 2] * 10})

TABLES = [
    # The file
    table("no file", csv(), "data.path: {}/u.csv does not exist", path="{}/u.csv"),
    table("a folder", csv(), "data.path: {} is a folder", path="{}"),
    table("an empty file", b"", "data.path: {}/t.csv is empty"),
    table("only a header", b"x,y\n", "data.path: {}/t.csv has no rows"),
    table("an Excel file", b"PK\x03\x04" + bytes(50), "data.path: {}/t.csv is a zip or Excel file"),
    table("a web page", b"<!DOCTYPE html>\n<html>,</html>\n", "data.path: {}/t.csv, line 1: is a web page"),
    table("UTF-16", "x,y\n1,2\n".encode("utf-16"), "data.path: {}/t.csv is not UTF-8 text"),
    table(
        "Latin-1",
        "\n".join([*GOOD[:8], "1,2,caf\xe9,1"]).encode("latin-1"),
        "data.path: {}/t.csv, line 9: byte 8 of the line is not UTF-8",
        "iconv",
    ),
    table("truncated gzip", gzip.compress(csv())[:-20], "data.path: {}/t.csv is corrupt or incomplete"),
    table(
        "damaged gzip",
        gzip.compress(csv())[:40] + b"\xff" * 9 + gzip.compress(csv())[49:],
        "data.path: {}/t.csv is corrupt or incomplete",
    ),
    # Its form
    table("one column", b"y\n1\n0\n", "data.path: {}/t.csv, line 1: has a single column (separator: comma)"),
    table(
        "another separator",
        csv(),
        "data.path: {}/t.csv, line 1: has a single column (separator: semicolon)",
        separator=";",
    ),
    table("no header", b"1,2,0\n3,4,1\n", "data.path: {}/t.csv, line 1: has numbers instead of the names of columns"),
    table("repeated names", b"x,x,y\n1,2,0\n", "data.path: {}/t.csv has several columns with the name `x`"),
    table(
        "a field too few", replaced(17, "1,2,a"), "data.path: {}/t.csv, line 17: has 3 fields where the header has 4"
    ),
    table("a field too many", replaced(31, "1,2,a,0,9"), "data.path: {}/t.csv, line 31: has 5 fields"),
    table("an open quote", replaced(12, '1,2,"a,0'), "data.path: {}/t.csv, line 12: a quote is never closed"),
    table("text after a quote", replaced(12, '1,2,"a"b,0'), "data.path: {}/t.csv, line 12: cannot be parsed"),
    table(
        "a ragged row after a quoted line break",
        replaced(12, '1,2,"a\nb",0\n1,2'),
        "data.path: {}/t.csv, line 14: has 2 fields",
    ),
    # Columns
    table("no target", csv(), "data.target: {}/t.csv has no column `z`; its columns are kind, n, x, y", target="z"),
    table("no feature", csv(), "data.features: {}/t.csv has no column `z`", features=["x", "z"]),
    table("no excluded column", csv(), "data.exclude: {}/t.csv has no column `z`", exclude=["z"]),
    table("no categorical column", csv(), "data.categorical: {}/t.csv has no column `z`", categorical=["z"]),
    table("no weight", csv(), "data.weight: {}/t.csv has no column `w`", weight="w"),
    table("no group", csv(), "data.group_column: {}/t.csv has no column `g`", group_column="g"),
    table("no split", csv(), "data.split_column: {}/t.csv has no column `s`", split_column="s"),
    table(
        "all excluded", csv(), "data.features: {}/t.csv has no columns besides the target", exclude=["x", "n", "kind"]
    ),
    table("constant features", b"x,y\n" + b"1,0\n1,1\n" * 9, "data.features: all features are constant"),
    table("an empty column", b"x,z,y\n" + b"1,,0\n2,,1\n" * 9, "data.path: {}/t.csv has no values in column `z`"),
    # Values
    table(
        "a missing number",
        replaced(7, ",6,a,0"),
        "data.missing: {}/t.csv, line 7: the column `x` has no value, as in 1 of 30 rows",
        "missing: impute",
    ),
    table("a missing target", replaced(7, "1,6,a,NA"), "data.missing: {}/t.csv, line 7: the column `y` has no value"),
    table(
        "text among numbers",
        replaced(19, "1,abc,a,0"),
        "data.path: {}/t.csv, line 19: 'abc' in column `n` is not a number, as 29 of 30 values are",
    ),
    table(
        "a thousands separator",
        replaced(19, '1,"1,234",a,0'),
        "data.path: {}/t.csv, line 19: '1,234' in column `n` is not a number",
    ),
    table(
        "an underscore",
        replaced(19, "1,1_000,a,0"),
        "data.path: {}/t.csv, line 19: '1_000' in column `n` is not a number",
    ),
    table(
        "decimal commas",
        csv(separator=";").replace(b".5", b",5"),
        "data.path: {}/t.csv, line 2: '1,5' in column `x` has a comma, as decimal separator or between thousands; "
        "write a point or remove it",
    ),
    table("JSON", b'{"x": 1, "y": 0}\n{"x": 2, "y": 1}\n', "data.path: {}/t.csv is JSON; convert it to CSV"),
    table("infinity", replaced(11, "inf,1,a,0"), "data.path: {}/t.csv, line 11: 'inf' in column `x` is not a finite"),
    table("an overflow", replaced(11, "1e999,1,a,0"), "data.path: {}/t.csv, line 11: '1e999' in column `x`"),
    table(
        "a date that does not exist",
        b"d,y\n" + b"2024-01-31,0\n2024-02-28,1\n" * 9 + b"2024-02-30,1\n",
        "data.path: {}/t.csv, line 20: '2024-02-30' in column `d` is not a date",
    ),
    table("numbers too large", replaced(11, "1e200,1,a,0"), "data.features: the numbers of column `x` are too large"),
    table(
        "names as feature",
        b"name,y\n" + b"".join(b"n%d,%d\n" % (i, i % 2) for i in range(60)),
        "data.path: {}/t.csv has 60 different texts in 60 rows of the feature `name`, such as 'n0'",
    ),
    table(
        "a number too large for float32",
        replaced(11, "1,1,a,1e300"),
        "data.path: {}/t.csv, line 11: the target",
        task="regression",
    ),
    table(
        "too many one-hot columns",
        b"a,b,y\n" + b"".join(b"p%d,q%d,%d\n" % (i // 3, i // 3, i % 2) for i in range(3000)),
        "data.encoding: the categories make ",
        "encoding: embedded",
    ),
    # The target
    table(
        "measured classes",
        csv(),
        "data.target: {}/t.csv, line 2: '1.5' in column `x` is a measured value",
        "regression",
        target="x",
    ),
    table("many integers as classes", csv(), "data.target: column `n` has 30 different integers from", target="n"),
    table(
        "names as classes",
        b"x,y\n" + b"".join(b"%d,n%d\n" % (i, i) for i in range(60)),
        "data.path: {}/t.csv has 60 different texts in 60 rows of the target `y`",
    ),
    table("one class", b"x,y\n" + b"1,a\n2,a\n" * 9, "data: only one class (a)"),
    table("two class columns", csv(), "data.target: 2 columns, but classification has one", target=["y", "n"]),
    table(
        "regression of text",
        csv(),
        "data.target: {}/t.csv, line 2: 'b' in column `kind` is not a number",
        "classification",
        task="regression",
        target="kind",
    ),
    table(
        "the logarithm of 0",
        csv(),
        "data.target_transform: {}/t.csv, line 4: 0 in column `y` has no logarithm",
        task="regression",
        target_transform="log",
    ),
    table("the logarithm of a class", csv(), "data.target_transform: log is for numbers", target_transform="log"),
    table(
        "a constant target",
        b"x,y\n" + b"1,5\n2,5\n" * 9,
        "data.target: `y` is constant in the training rows",
        task="regression",
        target_transform="standardize",
    ),
    table(
        "a language model of a table",
        csv(),
        "task.name: language_model is not possible with data.source table",
        task="language_model",
    ),
    # Weights, groups and sides
    table(
        "a negative weight",
        replaced(5, "1,-2,a,0"),
        "data.weight: {}/t.csv, line 5: -2 in column `n` is no weight",
        weight="n",
    ),
    table("a weight of 0", replaced(5, "1,0,a,0"), "data.weight: {}/t.csv, line 5: 0 in column `n`", weight="n"),
    table(
        "a weight that is text",
        csv(),
        "data.weight: {}/t.csv, line 2: 'b' in column `kind` is not a number",
        weight="kind",
    ),
    table(
        "an unknown side",
        csv(),
        "data.split_column: {}/t.csv, line 2: 'b' in column `kind` is no side",
        split_column="kind",
    ),
    table(
        "no training side",
        b"x,s,y\n" + b"1,val,0\n2,test,1\n" * 9,
        "data.path: the split given by data.split_column has no training examples",
        split_column="s",
    ),
    table(
        "a fraction beside a given split",
        b"x,s,y\n" + b"1,val,0\n2,train,1\n3,train,0\n" * 9,
        "data.validation_fraction: cannot be set, because the split is given by data.split_column",
        split_column="s",
        validation_fraction=0.3,
    ),
    table(
        "a group on two sides",
        b"x,s,g,y\n1,val,p,0\n" + b"2,train,q,1\n3,train,p,0\n" * 9,
        "data.path: {}/t.csv, line 2 and {}/t.csv, line 4 are of one group, but on the sides validation and train of",
        split_column="s",
        group_column="g",
    ),
    BadInput(
        "a validation file without the target",
        {"t.csv": csv(), "v.csv": b"x,n,kind\n1,2,a\n"},
        {"source": "table", "path": "{}/t.csv", "target": "y", "validation_path": "{}/v.csv"},
        ("data.target: {}/v.csv has no column `y`",),
    ),
    BadInput(
        "a validation file with text among numbers",
        {"t.csv": csv(), "v.csv": b"n,x,y,kind\n1,2,0,a\no,2,0,a\n"},
        {"source": "table", "path": "{}/t.csv", "target": "y", "validation_path": "{}/v.csv"},
        ("data.validation_path: {}/v.csv, line 3: 'o' in column `n` is not a number",),
    ),
    # Parquet
    table(
        "no Parquet after all",
        b"PAR1" + bytes(40),
        "data.path: {}/t.parquet cannot be read as Parquet",
        file="t.parquet",
    ),
    table(
        "a truncated Parquet file",
        lambda path: (FRAME.to_parquet(path), path.write_bytes(path.read_bytes()[:-9])),
        "data.path: {}/t.parquet cannot be read as Parquet",
        file="t.parquet",
    ),
    table(
        "lists",
        parquet(FRAME.assign(z=[[1, 2]] * 30)),
        "data.path: {}/t.parquet has the column `z` of type list",
        file="t.parquet",
    ),
    table(
        "a missing value in Parquet",
        parquet(FRAME.assign(x=[1.0] * 7 + [np.nan] + [2.0] * 22)),
        "data.missing: {}/t.parquet, row 8: the column `x` has no value",
        file="t.parquet",
    ),
    table(
        "infinity in Parquet",
        parquet(FRAME.assign(x=[1.0] * 7 + [np.inf] + [2.0] * 22)),
        "data.path: {}/t.parquet, row 8: 'inf' in column `x` is not a finite number",
        file="t.parquet",
    ),
    table(
        "a separator for Parquet",
        parquet(FRAME),
        "data.separator: {}/t.parquet is a Parquet file",
        separator=";",
        file="t.parquet",
    ),
]

LONG = b"to be or not to be, that is the question. " * 40


def text(name: str, files: dict[str, Content], *expected: str, **keys: Any) -> BadInput:
    """Return a mistake in text files."""
    return BadInput(name, files, {"source": "text", "path": "{}"} | keys, expected, "language_model")


TEXTS = [
    text("no file", {}, "data.path: {}/a.txt does not exist", path="{}/a.txt"),
    text("an empty folder", {}, "data.path: {} has no files to read"),
    text("only empty files", {"a.txt": b""}, "data.path: {} has no text"),
    text(
        "no file of the pattern",
        {"a.txt": LONG},
        "data.path: {} has no files to read; data.pattern is *.md",
        pattern="*.md",
    ),
    text("a pattern for a file", {"a.txt": LONG}, "data.pattern: {}/a.txt is a file", path="{}/a.txt", pattern="*.txt"),
    text(
        "Latin-1",
        {"a.txt": LONG + "caf\xe9!".encode("latin-1")},
        f"data.path: {{}}/a.txt is not UTF-8 at byte offset {len(LONG) + 3}",
        tokens="characters",
    ),
    text(
        "a cut character",
        {"a.txt": LONG + "\u20ac".encode()[:2]},
        f"data.path: {{}}/a.txt is not UTF-8 at byte offset {len(LONG)}",
        tokens="characters",
    ),
    text("a zero byte", {"a.txt": LONG + b"\0"}, f"data.path: {{}}/a.txt has a zero byte at offset {len(LONG)}"),
    text("UTF-16", {"a.txt": LONG.decode().encode("utf-16")}, "data.path: {}/a.txt is UTF-16"),
    text("a compressed file", {"a.txt.gz": gzip.compress(LONG)}, "data.path: {}/a.txt.gz is compressed"),
    text("a PDF", {"a.pdf": b"%PDF-1.7 " + LONG}, "data.path: {}/a.pdf is a PDF"),
    text(
        "blocks longer than a side",
        {"a.txt": LONG},
        "data.validation_fraction: the side validation has 336 tokens",
        block_length=400,
        last_block="drop",
    ),
    text(
        "a side of one token",
        {"a.txt": LONG},
        "data.validation_fraction: the side validation has 1 tokens",
        validation_fraction=0.0005,
    ),
    text("one file drawn", {"a.txt": LONG}, "data.split: random draws files, but there is 1", split="random"),
    text(
        "no file left to train",
        {"a.txt": LONG, "b.txt": LONG},
        "data.validation_fraction: leaves no file",
        split="random",
        validation_fraction=0.9,
    ),
    text(
        "a file outside the folders",
        {"train/a.txt": LONG, "val/b.txt": LONG, "c.txt": LONG},
        "data.path: {} has the folders train, val, which give the split, but c.txt is in none",
    ),
    text("no folder train", {"test/a.txt": LONG, "val/b.txt": LONG}, "data.path: {} has no folder `train`"),
    text(
        "a fraction beside folders",
        {"train/a.txt": LONG, "val/b.txt": LONG},
        "data.validation_fraction: cannot be set, because the split is given by the folders of {}",
        validation_fraction=0.5,
    ),
    BadInput(
        "classification of text",
        {"a.txt": LONG},
        {"source": "text", "path": "{}"},
        ("task.name: classification is not possible with data.source text",),
    ),
]


def idx(values: np.ndarray, code: int = 8) -> bytes:
    """Return an array of uint8 as an IDX file."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, code, values.ndim, *values.shape) + values.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 5, 4), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3
GOOD_IMAGES, GOOD_LABELS = idx(IMAGES), idx(LABELS)
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def mnist(
    name: str,
    *expected: str,
    images: Content = GOOD_IMAGES,
    labels: Content | None = GOOD_LABELS,
    others: dict[str, Content] | None = None,
    **keys: Any,
) -> BadInput:
    """Return a mistake in a folder of IDX files."""
    files = {TRAIN_IMAGES: images, TRAIN_LABELS: labels} | (others or {})
    return BadInput(
        name,
        {name: content for name, content in files.items() if content is not None},
        {"source": "idx", "path": "{}"} | keys,
        expected,
    )


IDX = [
    mnist("no folder", "data.path: {}/m does not exist", path="{}/m"),
    BadInput(
        "no such names", {"images.bin": b"1"}, {"source": "idx", "path": "{}"}, ("data.path: {} has no file with",)
    ),
    mnist("no labels", "data.path: {} has no train labels beside train-images-idx3-ubyte", labels=None),
    mnist(
        "a wrong magic number",
        f"data.path: {{}}/{TRAIN_IMAGES} is not an IDX file (it begins with 89504e47)",
        images=b"\x89PNG" + bytes(50),
    ),
    mnist("an empty file", f"data.path: {{}}/{TRAIN_LABELS} is not an IDX file (it is empty)", labels=b""),
    mnist("floats", f"data.path: {{}}/{TRAIN_IMAGES} has values of float32", images=idx(IMAGES, 0x0D)),
    mnist(
        "labels as images", f"data.path: {{}}/{TRAIN_IMAGES} has 1 dimensions, and images have 3", images=idx(LABELS)
    ),
    mnist("truncated images", f"data.path: {{}}/{TRAIN_IMAGES} ends after 11 of the 12 items", images=idx(IMAGES)[:-7]),
    mnist("a truncated header", f"data.path: {{}}/{TRAIN_IMAGES} ends within its header", images=idx(IMAGES)[:9]),
    mnist(
        "bytes after the end", f"data.path: {{}}/{TRAIN_LABELS} is longer than its header", labels=idx(LABELS) + b"1"
    ),
    mnist(
        "truncated images in gzip",
        f"data.path: {{}}/{TRAIN_IMAGES} is corrupt or incomplete",
        images=gzip.compress(idx(IMAGES))[:-12],
    ),
    mnist(
        "fewer labels",
        f"data.path: {TRAIN_IMAGES} has 12 images, but {TRAIN_LABELS} has 11 labels",
        labels=idx(LABELS[:11]),
    ),
    mnist(
        "test images of another size",
        "data.path: {}/t10k-images-idx3-ubyte has images of 4 × 4 pixels",
        others={"t10k-images-idx3-ubyte": idx(IMAGES[:, :4]), "t10k-labels-idx1-ubyte": idx(LABELS)},
    ),
    mnist("no test labels", "data.path: {} has no test labels beside", others={"t10k-images-idx3-ubyte": idx(IMAGES)}),
    mnist(
        "two sets",
        "data.path: {} has several data sets (MNIST, emnist-digits)",
        others={"emnist-digits-train-images-idx3-ubyte": idx(IMAGES)},
    ),
    BadInput(
        "labels beside a folder",
        {TRAIN_IMAGES: idx(IMAGES), TRAIN_LABELS: idx(LABELS)},
        {"source": "idx", "path": "{}", "labels": "{}/" + TRAIN_LABELS},
        ("data.labels: {} is a folder",),
    ),
    BadInput(
        "no labels beside a file",
        {"images": idx(IMAGES)},
        {"source": "idx", "path": "{}/images"},
        ("data.labels: there is no file of labels beside {}/images",),
    ),
]


def records(count: int, labels: int = 1, label: int = 3) -> bytes:
    """Return records of CIFAR."""
    return b"".join(bytes([label] * labels) + bytes(3072) for _ in range(count))


BATCHES = {f"data_batch_{number}.bin": records(2, label=number) for number in range(1, 6)}


def tar(files: dict[str, bytes]) -> bytes:
    """Return a compressed tar file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def cifar(name: str, files: dict[str, Content], *expected: str, **keys: Any) -> BadInput:
    """Return a mistake in the files of CIFAR."""
    return BadInput(name, files, {"source": "cifar", "path": "{}"} | keys, expected)


CIFAR = [
    cifar("no folder", {}, "data.path: {}/c does not exist", path="{}/c"),
    cifar("another folder", {"a.bin": b"1"}, "data.path: {} has neither data_batch_1.bin (CIFAR-10) nor train.bin"),
    cifar("the version for Python", {"data_batch_1": b"\x80\x02"}, "data.path: {} is the version for Python"),
    cifar(
        "a batch is missing",
        {name: content for name, content in BATCHES.items() if "4" not in name},
        "data.path: {} lacks data_batch_4.bin of CIFAR-10",
    ),
    cifar(
        "a truncated batch",
        BATCHES | {"data_batch_2.bin": records(2)[:-5]},
        "data.path: {}: data_batch_2.bin ends within record 2 of 3,073 bytes",
    ),
    cifar("an empty batch", BATCHES | {"data_batch_2.bin": b""}, "data.path: {}: data_batch_2.bin is empty"),
    cifar(
        "a label too large",
        BATCHES | {"data_batch_3.bin": records(1) + records(1, label=10)},
        "data.path: {}: data_batch_3.bin, record 2: the label 10 is not below 10",
    ),
    cifar(
        "coarse labels of CIFAR-10",
        BATCHES,
        "data.labels: {} is CIFAR-10, which has one kind of labels",
        labels="coarse",
    ),
    cifar(
        "too few names",
        BATCHES | {"batches.meta.txt": b"cat\ndog\n"},
        "data.path: {}: batches.meta.txt has 2 names, not 10",
    ),
    cifar(
        "a truncated tar file",
        {"c.tar.gz": tar(BATCHES)[:-40]},
        "data.path: {}/c.tar.gz is no folder, and no complete",
        path="{}/c.tar.gz",
    ),
    cifar(
        "a tar file of other files",
        {"c.tar.gz": tar({"a.bin": b"1"})},
        "data.path: {}/c.tar.gz has neither data_batch_1.bin",
        path="{}/c.tar.gz",
    ),
]

BAD_INPUTS = [*TABLES, *TEXTS, *IDX, *CIFAR]

# What only reading pixels shows, or storing the rows.
SEEN_BY_PREPARE_ONLY = {
    "truncated images",
    "truncated images in gzip",
    "test images of another size",
    "a label too large",
}
