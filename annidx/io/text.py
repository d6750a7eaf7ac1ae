"""Owns text formats of vectors: CSV and the like, lists in a column of CSV, and word vectors.

Which of them a file is, its first lines tell. It must not read JSON Lines.
"""

from __future__ import annotations

import csv
import itertools
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from annidx.io.source import InputError, Source, one_line
from annidx.io.table import Ids, Selection, Table, column_number, ids_from_text

_Record = tuple[int, list[str]]  # the line's number in the file, its fields

_SAMPLE_LINES = 1_000
_SEPARATORS = ",;\t "


def read_text(source: Source, wanted: Selection) -> Table:
    """Read lines of numbers, of words with their vectors, or of fields with a list among them."""
    with source.text() as file:
        sample = list(itertools.islice(file, _SAMPLE_LINES))
        lines = itertools.chain(sample, file)
        separator = _separator(sample)
        try:
            words = _word_file(source.name, sample) if separator == " " else None
            if words is not None and wanted.id_column in (None, "1"):
                return words.read(lines)
            return _Records(source.name, wanted).read(_records(lines, separator))
        except csv.Error as error:
            raise InputError(f"{source.name}: {one_line(error)}") from error


def read_text_ids(source: Source) -> Ids:
    """Read ids, one a line. Lines that are all integers become int64 ids; else all are text."""
    ids: list[str] = []
    with source.text() as file:
        for number, line in enumerate(file, 1):
            text = line.rstrip("\r\n")
            if not text or "\0" in text:
                found = "other bytes" if text else "nothing"
                raise InputError(f"{source.name}, line {number}: expected an id, found {found}")
            if number == 1 and _is_json_record(text):
                raise InputError(
                    f"{source.name}, line 1: expected an id, found JSON: --id-column takes the ids "
                    "of a field"
                )
            ids.append(text)
    return ids_from_text(ids)


def _is_json_record(text: str) -> bool:
    """Tell a line of a file of another kind, which would become an id in silence."""
    try:
        return text[0] in "[{" and isinstance(json.loads(text), (list, dict))
    except (ValueError, RecursionError):
        return False


def read_csv_ids(source: Source) -> Ids:
    """Read ids of a file with one field a line."""
    separator = "\t" if source.ending == ".tsv" else ","
    ids: list[str] = []
    with source.text() as file:
        try:
            for number, fields in _records(file, separator):
                if len(fields) != 1:
                    raise InputError(
                        f"{source.name}, line {number}: expected one id, found {len(fields)} fields"
                    )
                ids.append(fields[0])
        except csv.Error as error:
            raise InputError(f"{source.name}: {one_line(error)}") from error
    return ids_from_text(ids)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers_in(fields: Iterable[str]) -> int:
    """Count fields that are numbers, and numbers in fields that are lists."""
    return sum(
        _numbers_in(_elements(field)) if _is_list(field) else _is_number(field) for field in fields
    )


def _is_list(field: str) -> bool:
    text = field.strip()
    return text.startswith("[") and text.endswith("]")


def _elements(field: str) -> list[str]:
    """Split a list as JSON or NumPy writes it."""
    return field.strip()[1:-1].replace(",", " ").split()


def _separator(sample: Sequence[str]) -> str:
    """Choose what parts the first lines into the most numbers; a token may itself be a comma."""
    head = sample[:2]

    def numbers(separator: str) -> int:
        return sum(_numbers_in(_split(line, separator)) for line in head)

    best = max(_SEPARATORS, key=numbers)
    if numbers(best):
        return best
    return next((s for s in _SEPARATORS if head and s in head[0]), " ")


def _split(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _records(lines: Iterable[str], separator: str) -> Iterator[_Record]:
    """Split lines into fields, with the number of each line; blank lines left out."""
    if separator == " ":
        yield from ((number, line.split()) for number, line in enumerate(lines, 1) if line.strip())
    else:
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        yield from ((reader.line_num, fields) for fields in reader if fields)


# ---- words with their vectors --------------------------------------------------------------


def _word_file(name: str, sample: Sequence[str]) -> _WordFile | None:
    """Tell a file of word vectors: word2vec's with a line of sizes, or GloVe's without one.

    Most of the first lines end with as many numbers as there are dimensions: a word may hold
    blanks, or be a number itself.
    """
    lines = [line.split() for line in sample if line.strip()]
    if len(lines) > 1 and _is_size_line(lines[0], lines[1]):
        return _WordFile(name, int(lines[0][1]), int(lines[0][0]))
    if not lines:
        return None
    ends = [(len(fields), _numbers_at_end(fields)) for fields in lines]
    ((dim, _),) = Counter(numbers for _, numbers in ends).most_common(1)
    has_words = dim > 0 and any(numbers == dim < fields for fields, numbers in ends)
    return _WordFile(name, dim, None) if has_words else None


def _numbers_at_end(fields: Sequence[str]) -> int:
    return sum(1 for _ in itertools.takewhile(_is_number, reversed(fields)))


def _is_size_line(first: Sequence[str], second: Sequence[str]) -> bool:
    if len(first) != 2 or not all(field.isdecimal() for field in first):
        return False
    return len(second) > int(first[1]) > 0


class _WordFile:
    """Lines of a word, which may hold blanks, and its numbers; the words are the ids."""

    def __init__(self, name: str, dim: int, count: int | None) -> None:
        self._name = name
        self._dim = dim
        self._count = count  # as a first line of sizes says

    def read(self, lines: Iterator[str]) -> Table:
        values = array("f")
        words: list[str] = []
        first = 1 if self._count is None else 2
        for number, line in enumerate(itertools.islice(lines, first - 1, None), first):
            if line.strip():
                words.append(self._add(line, number, values))
        if self._count is not None and len(words) != self._count:
            raise InputError(
                f"{self._name}: expected {self._count:,} words, as its first line says, "
                f"found {len(words):,}"
            )
        vectors = np.frombuffer(values, dtype=np.float32).reshape(-1, self._dim)
        return Table(vectors, ids_from_text(words))

    def _add(self, line: str, number: int, values: array[float]) -> str:
        word, *fields = line.rstrip(" \r\n").rsplit(" ", self._dim)
        if len(fields) != self._dim:
            raise InputError(
                f"{self._name}, line {number}: expected a word and {self._dim} numbers, "
                f"found {len(fields)} numbers"
            )
        _extend(values, fields, f"{self._name}, line {number}", "")
        return word


# ---- records -------------------------------------------------------------------------------


class _Records:
    """Records of fields being turned into vectors and ids."""

    def __init__(self, name: str, wanted: Selection) -> None:
        self._name = name
        self._wanted = wanted
        self._id_at: int | None = None
        self._list_at: int | None = None
        self._values = array("f")
        self._ids: list[str] = []
        self._dim = 0

    def read(self, records: Iterator[_Record]) -> Table:
        """Read all, past a first record that only describes the others."""
        head = list(itertools.islice(records, 2))
        if not head:
            raise InputError(f"{self._name}: expected lines of numbers, found none")
        names = head[0][1]
        if self._wanted.id_column is not None:
            self._id_at = column_number(self._name, names, self._wanted.id_column)
        self._list_at = self._place_of_lists(names, head[-1][1])
        if self._is_header(names):
            head.pop(0)
        for line, fields in itertools.chain(head, records):
            self._add(line, fields)
        vectors = np.frombuffer(self._values, dtype=np.float32).reshape(-1, max(self._dim, 1))
        return Table(vectors, None if self._id_at is None else ids_from_text(self._ids))

    def _place_of_lists(self, names: Sequence[str], fields: Sequence[str]) -> int | None:
        """Find the column whose fields are lists, such as "[0.5, 1]"."""
        if self._wanted.vector_column is not None:
            return column_number(self._name, names, self._wanted.vector_column)
        lists = [at for at, field in enumerate(fields) if _is_list(field)]
        return lists[0] if len(lists) == 1 else None

    def _is_header(self, names: Sequence[str]) -> bool:
        if self._list_at is not None:
            return not _is_list(names[self._list_at])
        return not any(_is_number(field) for at, field in enumerate(names) if at != self._id_at)

    def _add(self, line: int, fields: list[str]) -> None:
        where = f"{self._name}, line {line}"
        if self._id_at is not None:
            self._ids.append(fields[self._id_at] if self._id_at < len(fields) else "")
        hint = "" if self._id_at is not None else "; does a column hold ids? --id-column names it"
        if self._list_at is not None:
            cell = fields[self._list_at] if self._list_at < len(fields) else ""
            if not _is_list(cell):
                raise InputError(f"{where}: expected a list of numbers, found {_shown(cell)}")
            fields, hint = _elements(cell), ""
        elif self._id_at is not None and self._id_at < len(fields):
            del fields[self._id_at]
        self._dim = self._dim or len(fields)
        if len(fields) != self._dim:
            raise InputError(f"{where}: expected {self._dim} numbers, found {len(fields)}")
        _extend(self._values, fields, where, hint)


def _extend(values: array[float], fields: Sequence[str], where: str, hint: str) -> None:
    try:
        values.extend(map(float, fields))
    except ValueError:
        wrong = next(field for field in fields if not _is_number(field))
        raise InputError(f"{where}: {_shown(wrong)} is not a number{hint}") from None


def _shown(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
