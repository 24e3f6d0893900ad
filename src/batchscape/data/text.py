"""Text as blocks of tokens."""

import codecs
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from batchscape.config.data.section import held_out_count
from batchscape.config.data.text import PythonDocsConfig, TextConfig
from batchscape.data.listing import is_clutter, list_files
from batchscape.data.prepared import INPUTS, WEIGHTS, token_dtype
from batchscape.data.scratch import Scratch
from batchscape.data.source import (
    DEFAULT_OPTIONS,
    LoadOptions,
    ManifestEntry,
    RawDataset,
    join_names,
    reject_split_keys,
)
from batchscape.data.spec import SIDE_OF_WORD, SIDES, TEST, TRAIN, VALIDATION, DataSpec
from batchscape.errors import UserError

# Bytes of a file, or tokens, that are in memory at once.
CHUNK_BYTES = 2**22

NUM_BYTES = 256
NUM_CODE_POINTS = 0x110000
UNKNOWN = 0  # the token of all characters that the training text does not have

# First bytes of files that are no text, or no UTF-8.
OTHER_FORMATS = {
    b"\x1f\x8b": "is compressed; unpack it",
    b"PK\x03\x04": "is a zip or Office file; save the text in it as UTF-8",
    b"%PDF": "is a PDF; extract its text",
    codecs.BOM_UTF16_LE: "is UTF-16; convert it: iconv -f utf-16 -t utf-8",
    codecs.BOM_UTF16_BE: "is UTF-16; convert it: iconv -f utf-16 -t utf-8",
}


@dataclass(frozen=True)
class MappedPart:
    """A part of an array in a file, mapped only while it is read: a process can hold only so many files open."""

    read: Callable[[], np.ndarray]
    start: int
    stop: int

    def __len__(self) -> int:
        """Return the number of elements."""
        return self.stop - self.start

    def __getitem__(self, part: slice) -> np.ndarray:
        """Return the elements of a slice, which has a start and a stop."""
        return self.read()[self.start + part.start : self.start + part.stop]


class Text(NamedTuple):
    """A text as tokens that are not numbered yet."""

    name: str

    symbols: np.ndarray | MappedPart
    """(n,), bytes as uint8 or characters as their code points, uint32."""

    sha256: str
    """Hash of its bytes."""

    side: str = ""
    """The side that its folder gives, one of SIDES; empty if it gives none."""


@dataclass(frozen=True)
class Segment:
    """Consecutive symbols of a text on one side."""

    text: Text
    start: int
    stop: int
    side: str

    def __len__(self) -> int:
        """Return the number of symbols."""
        return self.stop - self.start

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield its symbols."""
        for start in range(self.start, self.stop, CHUNK_BYTES):
            yield self.text.symbols[start : min(self.stop, start + CHUNK_BYTES)]


def load(config: TextConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return the blocks of the files, in order of their names.

    Raises UserError if a file is no text, or a side of the split has no block.
    """
    names = list_texts(config)
    decoded = Scratch((), np.uint32, options.folder) if config.tokens == "characters" else None
    texts = [read_text(path, name, side, decoded) for path, name, side in names]
    empty = [text for text in texts if not len(text.symbols)]
    texts = [text for text in texts if len(text.symbols)]
    if not texts:
        raise UserError(f"data.path: {config.path} has no text; name a file or folder that has")
    segments = split_text(texts, config)
    dataset = cut_blocks(segments, config, config.last_block == "pad", options)
    dropped = [ManifestEntry(text.name, text.sha256, "", "empty file: 0 bytes", text.side) for text in empty]
    return replace(dataset, entries=[*dataset.entries, *dropped])


def list_texts(config: TextConfig) -> list[tuple[Path, str, str]]:
    """Return the path, the name and the side, or "", of each file.

    Raises UserError if there are none, or only some of them are in folders of sides.
    """
    root = Path(config.path)
    if not root.exists():
        raise UserError(f"data.path: {config.path} does not exist; paths are relative to the working folder")
    if not root.is_dir():
        if config.pattern != "*":
            raise UserError(f"data.pattern: {config.path} is a file, not a folder; remove the key")
        return [(root, root.name, "")]
    names = sorted((name for name in list_files(root) if not is_clutter(name)), key=lambda name: name.split("/"))
    matching = [name for name in names if fnmatchcase(name.rpartition("/")[2], config.pattern)]
    if not matching:
        hint = f"; data.pattern is {config.pattern}" if names else ""
        raise UserError(f"data.path: {config.path} has no files to read{hint}")
    sides = {name: _side(name) for name in matching}
    without = [name for name, side in sides.items() if not side]
    if len(without) == len(matching):
        return [(root / name, name, "") for name in matching]
    if without:
        given = join_names({name.partition("/")[0] for name, side in sides.items() if side})
        raise UserError(
            f"data.path: {config.path} has the folders {given}, which give the split, but {without[0]} is in none of "
            "them; move it, or set data.pattern"
        )
    if TRAIN not in sides.values():
        raise UserError(f"data.path: {config.path} has no folder `train`; add it, or name a folder of files")
    reject_split_keys(set(sides.values()), config, f"the folders of {config.path}")
    return [(root / name, name, side) for name, side in sides.items()]


def _side(name: str) -> str:
    """Return the side that the first folder of a path gives, or ""."""
    folder, _, file = name.partition("/")
    return SIDE_OF_WORD.get(folder.lower(), "") if file else ""


def read_text(path: Path, name: str, side: str, scratch: Scratch | None) -> Text:
    """Return the text of a file.

    Args:
        path: The file.
        name: Its name in the manifest.
        side: The side that its folder gives, or "".
        scratch: Where its code points are added, of which texts are parts; None: tokens are bytes.

    Raises:
        UserError: It cannot be read or is no text.
    """
    digest = hashlib.sha256()
    first = 0 if scratch is None else len(scratch)
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        if not path.is_file():
            raise UserError(f"data.path: {path} is not a regular file; remove it, or set data.pattern")
        with path.open("rb") as stream:
            while True:
                content = stream.read(CHUNK_BYTES)
                digest.update(content)
                if offset == 0:
                    _require_text(path, content)
                if (position := content.find(b"\0")) >= 0:
                    raise UserError(
                        f"data.path: {path} has a zero byte at offset {offset + position}, so that it is no text; "
                        "remove it, or set data.pattern"
                    )
                if scratch is not None:
                    pending = len(decoder.getstate()[0])
                    try:
                        decoded = decoder.decode(content, not content)
                    except UnicodeDecodeError as error:
                        raise UserError(
                            f"data.path: {path} is not UTF-8 at byte offset {offset - pending + error.start}; convert "
                            "it: iconv -f latin1 -t utf-8, or write `tokens: bytes`"
                        )
                    if offset == 0:
                        decoded = decoded.removeprefix("\ufeff")
                    scratch.append(code_points(decoded))
                offset += len(content)
                if not content:
                    break
    except OSError as error:
        raise UserError(f"data.path: {path} cannot be read ({error.strerror or error})")
    if scratch is not None:
        symbols = MappedPart(scratch.read, first, len(scratch))
    else:
        symbols = MappedPart(lambda: np.asarray(np.memmap(path, np.uint8, "r")), 0, offset)
    return Text(name, symbols, digest.hexdigest(), side)


def code_points(text: str) -> np.ndarray:
    """Return the code points of text, (n,) uint32."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint32)


def _require_text(path: Path, content: bytes) -> None:
    for magic, problem in OTHER_FORMATS.items():
        if content.startswith(magic):
            raise UserError(f"data.path: {path} {problem}")


def split_text(texts: Sequence[Text], config: TextConfig | PythonDocsConfig) -> list[Segment]:
    """Return the texts, in order, cut where the side changes.

    With `split: first`, the symbols of all texts in a row are divided; with `random`, files are drawn until a side has
    its fraction of the symbols. Sides that folders give stay.

    Raises UserError if a side would be empty.
    """
    given = {text.side for text in texts}
    validation = 0.0 if VALIDATION in given else config.validation_fraction
    test = 0.0 if TEST in given else config.test_fraction
    pool = [text for text in texts if text.side in ("", TRAIN)]
    total = sum(len(text.symbols) for text in pool)
    sizes = {VALIDATION: held_out_count(total, validation), TEST: held_out_count(total, test)}
    drawn: dict[str, str] = {}
    if config.split == "random" and (validation or test):
        drawn = _draw_files(pool, sizes, config)
    segments: list[Segment] = []
    train_stop = total - sum(sizes.values())
    bounds = {TRAIN: (0, train_stop), VALIDATION: (train_stop, total - sizes[TEST]), TEST: (total - sizes[TEST], total)}
    start = 0
    for text in texts:
        length = len(text.symbols)
        if text.side not in ("", TRAIN):
            segments.append(Segment(text, 0, length, text.side))
        elif drawn:
            segments.append(Segment(text, 0, length, drawn[text.name]))
        else:
            for side, (low, high) in bounds.items():
                first, last = max(low - start, 0), min(high - start, length)
                if first < last:
                    segments.append(Segment(text, first, last, side))
            start += length
    return segments


def _draw_files(texts: Sequence[Text], sizes: dict[str, int], config: TextConfig | PythonDocsConfig) -> dict[str, str]:
    """Return the side of each text, by name."""
    needed = 1 + sum(size > 0 for size in sizes.values())
    if len(texts) < needed:
        raise UserError(
            f"data.split: random draws files, but there {'is' if len(texts) == 1 else 'are'} {len(texts)} for "
            f"{needed} sides; write `split: first`, which cuts the text"
        )
    order = iter(np.random.default_rng(config.split_seed).permutation(len(texts)))
    drawn: dict[str, str] = {}
    for side, size in sizes.items():
        count = 0
        while count < size and len(drawn) < len(texts):
            text = texts[next(order)]
            drawn[text.name] = side
            count += len(text.symbols)
    if len(drawn) == len(texts):
        raise UserError("data.validation_fraction: leaves no file for training; lower it, or write `split: first`")
    return {text.name: drawn.get(text.name, TRAIN) for text in texts}


def cut_blocks(
    segments: Sequence[Segment], config: TextConfig | PythonDocsConfig, pad: bool, options: LoadOptions
) -> RawDataset:
    """Return the blocks of segments, each cut on its own.

    Block i of a segment has its symbols i·L to (i + 1)·L, so that each symbol but the first is a target once.

    Args:
        segments: What the text is cut into.
        config: Section `data` of the study file.
        pad: Whether a last block with fewer symbols is filled up; otherwise it is dropped.
        options: Where scratch files are.

    Raises:
        UserError: A side has no block.
    """
    length = config.block_length
    notes: list[str] = []
    if config.tokens == "bytes":
        table, vocabulary = None, NUM_BYTES
    else:
        table, vocabulary, notes = number_characters(segments)
    dtype = token_dtype(vocabulary)
    blocks = Scratch((length + 1,), dtype, options.folder)
    longest = max((len(segment) - 1 for segment in segments), default=0)
    if pad and length > longest:
        raise UserError(
            f"data.block_length: {length:,} is longer than every file of every side, of which the longest has "
            f"{max(longest, 0):,} predictions; lower it, so that blocks are not mostly padding"
        )
    counts, num_padding, num_dropped = [], 0, 0
    paddings: list[tuple[int, int]] = []  # index of the block, number of targets that are no padding
    for segment in segments:
        before = len(blocks)
        num_full, rest = divmod(max(len(segment) - 1, 0), length)
        per_chunk = max(1, CHUNK_BYTES // length)
        for first in range(0, num_full, per_chunk):
            number = min(per_chunk, num_full - first)
            start = segment.start + first * length
            part = segment.text.symbols[start : start + number * length + 1]
            rows = np.lib.stride_tricks.sliding_window_view(part, length + 1)[::length]
            blocks.append((table[rows] if table is not None else rows).astype(dtype, copy=False))
        if rest and pad:
            part = segment.text.symbols[segment.stop - rest - 1 : segment.stop]
            row = np.zeros((1, length + 1), dtype)
            row[0, : rest + 1] = table[part] if table is not None else part
            paddings.append((len(blocks), rest))
            num_padding += length - rest
            blocks.append(row)
        else:
            num_dropped += rest
        counts.append(len(blocks) - before)
    sides = np.repeat([SIDES.index(segment.side) for segment in segments], counts).astype(np.int8)
    _require_blocks(segments, sides, config)
    arrays = {INPUTS: blocks.read()}
    if paddings:
        arrays[WEIGHTS] = _weights(len(blocks), length, paddings, options)
        notes.append(f"padding: {num_padding:,} targets of {len(paddings):,} last blocks, of weight 0")
    if num_dropped:
        notes.append(f"dropped: {num_dropped:,} symbols of last blocks of fewer than {length:,}")
    unit = "byte" if config.tokens == "bytes" else "character"
    return RawDataset(
        DataSpec("tokens", (length,), "next_token", vocabulary=vocabulary, token_unit=unit),
        arrays,
        _entries(segments, counts),
        (_describe(segments, sides, unit, length), *notes),
        sides,
        key="data.path" if isinstance(config, TextConfig) else "data.source",
        is_split=True,
    )


def _weights(count: int, length: int, paddings: Sequence[tuple[int, int]], options: LoadOptions) -> np.ndarray:
    weights = Scratch((length,), np.float32, options.folder)
    per_chunk = max(1, CHUNK_BYTES // length)
    for start in range(0, count, per_chunk):
        weights.append(np.ones((min(per_chunk, count - start), length), np.float32))
    for index, used in paddings:
        weights.replace(index, (np.arange(length) < used).astype(np.float32))
    return weights.read()


def number_characters(segments: Sequence[Segment]) -> tuple[np.ndarray, int, list[str]]:
    """Return the token of each code point, the size of the vocabulary, and lines for the log.

    The characters of the training text are numbered from 1 in order of their code points; all others are UNKNOWN.
    """
    counts = {side: np.zeros(NUM_CODE_POINTS, np.int64) for side in (TRAIN, "")}
    for segment in segments:
        for chunk in segment.chunks():
            counts[TRAIN if segment.side == TRAIN else ""] += np.bincount(chunk, minlength=NUM_CODE_POINTS)
    known = np.flatnonzero(counts[TRAIN])
    table = np.zeros(NUM_CODE_POINTS, np.int32)
    table[known] = np.arange(1, len(known) + 1)
    unknown = np.flatnonzero(np.where(counts[TRAIN] > 0, 0, counts[""]))
    notes = [f"vocabulary: the {len(known):,} characters of the training text, and one token for all others"]
    if len(unknown):
        names = join_names(ascii(chr(code)) for code in unknown)
        places = counts[""][unknown].sum()
        notes.append(f"unknown characters, because the training text lacks them: {names} ({places:,} places)")
    return table, len(known) + 1, notes


def _require_blocks(segments: Sequence[Segment], sides: np.ndarray, config: TextConfig | PythonDocsConfig) -> None:
    expected = {TRAIN, VALIDATION, *([TEST] if config.test_fraction else [])} | {segment.side for segment in segments}
    for side in SIDES:
        if side in expected and not (sides == SIDES.index(side)).any():
            count = sum(len(segment) for segment in segments if segment.side == side)
            key = {TRAIN: "block_length", VALIDATION: "validation_fraction", TEST: "test_fraction"}[side]
            raise UserError(
                f"data.{key}: the side {side} has {count:,} tokens and no block of {config.block_length:,}; lower "
                "data.block_length, change the fractions, or give more text"
            )


def _entries(segments: Sequence[Segment], counts: Sequence[int]) -> list[ManifestEntry]:
    """Return an entry for each text, for all of its blocks."""
    entries: dict[str, ManifestEntry] = {}
    for segment, count in zip(segments, counts, strict=True):
        text = segment.text
        entry = entries.get(text.name, ManifestEntry(text.name, text.sha256, side=text.side, examples=0))
        entries[text.name] = entry._replace(examples=entry.examples + count)
    return [
        entry if entry.examples else entry._replace(reason="too short: no block", examples=1)
        for entry in entries.values()
    ]


def _describe(segments: Sequence[Segment], sides: np.ndarray, unit: str, length: int) -> str:
    parts = []
    for index, side in enumerate(SIDES):
        tokens = sum(len(segment) for segment in segments if segment.side == side)
        if tokens:
            parts.append(f"{side}: {np.count_nonzero(sides == index):,} blocks of {length:,} from {tokens:,} {unit}s")
    return f"text: {'; '.join(parts)}"
