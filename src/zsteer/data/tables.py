"""A table of images' attributes: a file's name and a column for each attribute, as labels or numbers."""

import csv
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zsteer.data.attributes import canonical, colliding
from zsteer.data.store import SPLITS
from zsteer.settings import existing_file

MAX_COLUMNS = 1000
MAX_HEADER = 1_000_000  # characters, so that a line without end is not read
FILE_COLUMNS = ("file", "filename", "image", "image_id")
SPLIT_COLUMN = "split"
SPLIT_WORDS = {word: split for split, name in enumerate(SPLITS) for word in (name, str(split))}
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>")  # as pandas has them
MISSING += ("#N/A", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN")
LABEL_WORDS = {"true": "1", "yes": "1", "false": "0", "no": "0"}


@dataclass(frozen=True)
class Table:
    """For each row its file as written, its targets float32 `[n, K]`, NaN where missing, and its line in the file.

    `splits` uint8 `[n]` are None where the table has no column `split`.
    """

    path: Path
    files: tuple[str, ...]
    names: tuple[str, ...]
    targets: np.ndarray
    splits: np.ndarray | None = None
    lines: Sequence[int] = ()


def read_table(path: Path) -> Table:
    """Read a CSV, or the text form of CelebA's annotations.

    The column `file`, `filename`, `image` or `image_id` names the files, or else the first one. Of the other columns,
    those of 0 and 1, of −1 and 1, of true and false or of yes and no are labels, all others numbers. A column without
    a name, such as an index that pandas wrote, is left out.

    Raises:
        FileNotFoundError, ValueError: no such table, or one that cannot be understood; the message says where.
    """
    where = f"data.table={existing_file(path, 'data.table')}"
    columns, separator, num_before = _header(path, where)
    lowered = [column.casefold() for column in columns]
    if not columns[0] and not set(FILE_COLUMNS) & set(lowered):  # the index of a pandas table
        columns[0] = lowered[0] = FILE_COLUMNS[0]
    file_column = next((columns[lowered.index(name)] for name in FILE_COLUMNS if name in lowered), columns[0])
    split_column = columns[lowered.index(SPLIT_COLUMN)] if SPLIT_COLUMN in lowered else None
    attributes = [column for column in columns if column and column not in (file_column, split_column)]
    if twins := colliding([column for column in columns if column]):
        raise ValueError(f"{where}: the columns {twins[0]!r} and {twins[1]!r} have one spelling; rename one of them")
    names = [column or f"\0{place}" for place, column in enumerate(columns)]
    text = {column: str for column in (file_column, split_column) if column is not None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows that are longer than the header
            frame = pd.read_csv(
                path,
                sep=separator,
                names=names,
                skiprows=num_before,
                index_col=False,
                dtype=text,
                keep_default_na=False,  # a file may be called NA
                na_values={column: [""] if column in text else MISSING for column in names},
                skipinitialspace=True,
                skip_blank_lines=False,
                low_memory=False,
            )
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' own errors and undecodable text are ValueErrors
        raise ValueError(f"{where} is not a CSV that can be read ({_first_line(error)}); write it anew") from error
    frame.index += num_before + 1  # lines of the file
    frame = frame.dropna(how="all")
    files = frame[file_column]
    if files.isna().any():
        line = files.isna().idxmax()
        raise ValueError(f"{where} names no file in column {file_column!r}, line {line}; fill it in or delete the line")
    targets = [_numbers(frame[column], where) for column in attributes]
    return Table(
        path,
        tuple(files),
        tuple(map(canonical, attributes)),
        np.stack(targets, axis=1) if targets else np.empty((len(frame), 0), np.float32),
        None if split_column is None else _splits(frame[split_column], where),
        frame.index.tolist(),
    )


def _header(path: Path, where: str) -> tuple[list[str], str, int]:
    """The names of the columns, what separates them, and how many lines stand before the rows."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = file.readline(MAX_HEADER)
            if first.strip().isdigit():  # CelebA's: the number of rows, then the attributes' names
                columns, separator, num_before = ["file", *file.readline(MAX_HEADER).split()], r"\s+", 2
            else:
                columns, separator, num_before = next(csv.reader([first], skipinitialspace=True), []), ",", 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{where} is not a CSV that can be read ({_first_line(error)}); write it anew") from error
    if len(first) == MAX_HEADER or len(columns) > MAX_COLUMNS:
        found = "a header without end" if len(first) == MAX_HEADER else f"{len(columns):,} columns"
        raise ValueError(f"{where} has {found}; at most {MAX_COLUMNS:,} columns are taken, so leave some out")
    if not columns:
        raise ValueError(f"{where} is empty; its first line should name the columns")
    return [column.strip() for column in columns], separator, num_before


def _numbers(column: pd.Series, where: str) -> np.ndarray:
    """A column as float32 `[n]`, labels as 0 and 1, NaN where it is missing."""
    values = column
    if not pd.api.types.is_numeric_dtype(column):
        text = column.astype(str).str.strip().str.casefold().replace(LABEL_WORDS)
        values = pd.to_numeric(text.where(column.notna()), errors="coerce")
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    missing = column.isna().to_numpy()
    wrong = ~missing & ~(np.abs(numbers) <= np.finfo(np.float32).max)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{where}: column {column.name!r} has {str(column.iloc[row])!r} in line {column.index[row]}, which is no "
            "finite number and none of true, false, yes, no; mend it, empty it, or leave out the column"
        )
    if np.isin(numbers[~missing], (-1, 1)).all():
        numbers = np.where(missing, np.nan, numbers > 0)
    return numbers.astype(np.float32)


def _splits(column: pd.Series, where: str) -> np.ndarray:
    splits = column.str.strip().str.casefold().map(SPLIT_WORDS)
    if splits.isna().any():
        row = int(splits.isna().to_numpy().argmax())
        raise ValueError(
            f"{where}: column {column.name!r} has {str(column.iloc[row])!r} in line {column.index[row]}; it must be "
            f"{', '.join(SPLITS)} or 0, 1, 2"
        )
    return splits.to_numpy(np.uint8)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def files_of_rows(table: Table, images: Path, files: Sequence[str]) -> list[str | None]:
    """Which of the files below `images` each row means: by its path there or beside the table, its name or its stem.

    Raises:
        ValueError: a row means several, or two rows the same.
    """
    known, short = set(files), dict[str, list[str]]()
    for file in files:
        for key in {Path(file).name, Path(file).stem}:
            short.setdefault(key, []).append(file)
    meant: list[str | None] = []
    row_of: dict[str, int] = {}
    for row, written in enumerate(table.files):
        if written not in known:
            written = written.strip().replace("\\", "/").removeprefix("./")
        found = [written] if written in known else short.get(written, [])
        if not found:
            found = [name for name in [_below(table.path.parent / written, images)] if name in known]
        if len(found) > 1:
            raise ValueError(
                f"data.table={table.path}: line {table.lines[row]} names {written!r}, which may be {found[0]} or "
                f"{found[1]}; give its path below data.images"
            )
        file = found[0] if found else None
        if file is not None and row_of.setdefault(file, row) != row:
            lines = f"{table.lines[row_of[file]]} and {table.lines[row]}"
            raise ValueError(f"data.table={table.path}: lines {lines} both name {file}; keep one of them")
        meant.append(file)
    return meant


def _below(path: Path, folder: Path) -> str | None:
    path, folder = (Path(os.path.abspath(place)) for place in (path, folder))  # without the .. in it
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None
