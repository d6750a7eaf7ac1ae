"""Owns the titles of items: the file of `--names`. It must not know an index."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

__all__ = ["read_names"]


def read_names(path: str) -> dict[str, str]:
    """Read titles of items from a file.

    Parameters
    ----------
    path : str
        Ends with .json: one object of texts. Ends with .csv: two columns, id and title. Any other
        name: the same, divided by a tab. UTF-8; further columns are left aside.

    Returns
    -------
    dict
        A title for each id, the id as text. Of an id that comes twice the last title counts.

    Raises
    ------
    ValueError
        The content is something else; the message names the line.
    OSError
        The file cannot be read.
    """
    source = Path(path)
    try:
        if source.suffix.lower() == ".json":
            return _from_json(path, source.read_text(encoding="utf-8"))
        return dict(_rows(path, source))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, found {error}") from None


def _from_json(path: str, text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, found {error}") from None
    if not isinstance(found, dict) or not all(isinstance(title, str) for title in found.values()):
        raise ValueError(f'{path}: expected one JSON object of texts, such as {{"7": "Jazz"}}')
    return found


def _rows(path: str, source: Path) -> Iterator[tuple[str, str]]:
    quoted = source.suffix.lower() == ".csv"
    with source.open(encoding="utf-8", newline="") as lines:
        reader = (
            csv.reader(lines)
            if quoted
            else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        )
        try:
            for row in reader:
                if not row:
                    continue
                if len(row) < 2:
                    divider = "a comma" if quoted else "a tab"
                    raise ValueError(
                        f"{path}: line {reader.line_num}: expected an id, {divider} and a title"
                    )
                yield row[0], row[1]
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num}: {error}") from None
