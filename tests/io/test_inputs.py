"""Owns the tests of what callers may pass: every row of the table in docs/inputs.md.

The table says what is tested; here is how each row's objects are made. A row may have several.
"""

from __future__ import annotations

import array as stdlib_array
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import annidx
from annidx.io import inputs

Array = npt.NDArray[Any]

TABLE = Path(__file__).resolve().parents[2] / "docs" / "inputs.md"
COUNT, DIM = 30, 6
# Whole numbers below 256, so that bfloat16 holds them exactly.
VECTORS = np.random.default_rng(8).integers(0, 200, size=(COUNT, DIM)).astype(np.float32)
IDS = np.arange(COUNT, dtype=np.int64) * 3 + 100
CELL = re.compile(r"zero copy|one copy|error")


@dataclass(frozen=True)
class Row:
    """A row of the table: what is passed, and what comes of it in each place."""

    what: str
    add_items: str
    query: str
    ids: str


def rows_of_the_table() -> list[Row]:
    rows = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 4 and CELL.fullmatch(cells[1]):
            rows.append(Row(*cells))
    return rows


# ---- how the objects of each row are made --------------------------------------------------
# A maker gets an array, float32 (n, dim) or int64 (n,), and gives what is passed and the memory
# that it lies in (None where nothing could share it).

Made = tuple[Any, Any]
Maker = Callable[[Array], Made]


def module(name: str) -> Any:
    return pytest.importorskip(name)


def same(values: Array) -> Made:
    return values, values


def mapped(values: Array) -> Made:
    np.save("mapped.npy", values)
    memory = np.load("mapped.npy", mmap_mode="r")
    return memory, memory


def of_another_type(values: Array) -> Made:
    other = values.astype(np.float64 if values.dtype.kind == "f" else np.int32)
    return other, other


def of_another_order(values: Array) -> Made:
    other = np.repeat(values, 2, axis=0)[::2] if values.ndim == 1 else np.asfortranarray(values)
    return other, other


def bfloat16(values: Array) -> Made:
    kept = values.astype(module("ml_dtypes").bfloat16)
    return kept, kept.view(np.uint16)


def masked(values: Array) -> Made:
    return np.ma.masked_less(values, 5), values


def lists(values: Array) -> Made:
    return values.tolist(), values


def tuples(values: Array) -> Made:
    return tuple(map(tuple, values.tolist())) if values.ndim == 2 else tuple(values.tolist()), None


def arrays(values: Array) -> Made:
    return list(values), values


def tensors_in_a_list(values: Array) -> Made:
    torch = module("torch")
    if values.ndim == 1:
        return list(values), values
    return [torch.tensor(row, requires_grad=True) for row in values], None


def view(values: Array) -> Made:
    return memoryview(values), values


def standard_array(values: Array) -> Made:
    if values.ndim == 1:
        return stdlib_array.array("q", values.tolist()), values
    flat = stdlib_array.array("f", values.reshape(-1).tolist())
    return memoryview(flat).cast("B").cast("f", values.shape), np.frombuffer(flat, np.float32)


def pandas_frame(values: Array) -> Made:
    pandas = module("pandas")
    if values.ndim == 1:
        return pandas.DataFrame({"a": values, "b": values}), values
    frame = pandas.DataFrame({f"c{i}": column for i, column in enumerate(values.T)})
    return frame, frame.to_numpy()


def pandas_lists(values: Array) -> Made:
    if values.ndim == 1:
        column = module("pandas").Series(values)
        return column, column.to_numpy()
    return module("pandas").Series(values.tolist()), values


def pandas_arrays(values: Array) -> Made:
    return (
        pandas_lists(values)
        if values.ndim == 1
        else (module("pandas").Series(list(values)), values)
    )


def arrow_lists(values: Array) -> Any:
    arrow = module("pyarrow")
    return arrow.array(values if values.ndim == 1 else list(values))


def memory_of(column: Any) -> Array:
    """See the numbers of a pyarrow array where they lie."""
    plain = column.flatten() if hasattr(column, "flatten") else column
    found: Array = plain.to_numpy(zero_copy_only=True)
    return found


def pandas_arrow(values: Array) -> Made:
    pandas, arrow = module("pandas"), module("pyarrow")
    kept = arrow_lists(values)
    column = pandas.Series(kept, dtype=pandas.ArrowDtype(kept.type))
    return column, memory_of(arrow.chunked_array(column).chunk(0))


def polars_arrays(values: Array) -> Made:
    column = module("polars").Series(values)
    return column, column.to_numpy()


def polars_lists(values: Array) -> Made:
    polars = module("polars")
    if values.ndim == 1:
        return polars_arrays(values)
    column = polars.Series(values.tolist(), dtype=polars.List(polars.Float32))
    return column, memory_of(module("pyarrow").chunked_array(column).chunk(0))


def polars_alone(values: Array) -> Made:
    polars = module("polars")
    if values.ndim == 1:
        return polars_arrays(values)
    column = polars.Series(values.tolist(), dtype=polars.List(polars.Float32))
    return column, column.explode().to_numpy()


def polars_frame(values: Array) -> Made:
    frame = module("polars").DataFrame(values if values.ndim == 2 else {"a": values, "b": values})
    return frame, frame.to_numpy()


def arrow_fixed(values: Array) -> Made:
    arrow = module("pyarrow")
    flat = arrow.array(values.reshape(-1))
    if values.ndim == 1:
        return flat, values
    return arrow.FixedSizeListArray.from_arrays(flat, DIM), values


def arrow_part(values: Array) -> Made:
    whole, memory = arrow_fixed(np.concatenate([values, values]))
    return whole[len(values) :], memory


def arrow_list(values: Array) -> Made:
    column = arrow_lists(values)
    return column, memory_of(column)


def arrow_large_list(values: Array) -> Made:
    column = arrow_lists(values)
    if values.ndim == 2:
        arrow = module("pyarrow")
        column = column.cast(arrow.large_list(arrow.float32()))
    return column, memory_of(column)


def arrow_tensors(values: Array) -> Made:
    if values.ndim == 1:
        return arrow_fixed(values)
    column = module("pyarrow").FixedShapeTensorArray.from_numpy_ndarray(values)
    return column, memory_of(column.storage)


def arrow_chunk(values: Array) -> Made:
    column, memory = arrow_fixed(values)
    return module("pyarrow").chunked_array([column]), memory


def arrow_chunks(values: Array) -> Made:
    column, memory = arrow_fixed(values)
    return module("pyarrow").chunked_array([column[:3], column[3:3], column[3:]]), memory


def arrow_table(values: Array) -> Made:
    columns = values.T if values.ndim == 2 else [values, values]
    table = module("pyarrow").table({f"c{i}": list(column) for i, column in enumerate(columns)})
    return table, None


def frame_of_lists(library: str) -> Maker:
    def make(values: Array) -> Made:
        content = {"v": list(values) if values.ndim == 2 else [[int(i)] for i in values]}
        make_frame = "table" if library == "pyarrow" else "DataFrame"
        return getattr(module(library), make_frame)(content), None

    return make


class Tensor:
    """Behaves towards NumPy as PyTorch's tensors do."""

    def __init__(
        self, values: Array, dtype: str = "torch.float32", grad: bool = False, device: str = "cpu"
    ) -> None:
        self.values, self.dtype, self.requires_grad, self.device = values, dtype, grad, device

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.device != "cpu":
            raise TypeError(f"can't convert {self.device} device type tensor to numpy.\nUse cpu()")
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("Can't export")

    def __len__(self) -> int:
        return len(self.values)

    def detach(self) -> Tensor:
        return Tensor(self.values, self.dtype, False, self.device)

    def float(self) -> Tensor:
        return Tensor(self.values.astype(np.float32), grad=self.requires_grad, device=self.device)


def tensor(grad: bool = False, dtype: str = "", device: str = "cpu") -> dict[str, Maker]:
    """Make what behaves as a tensor, and a tensor where PyTorch is installed."""

    def stand_in(values: Array) -> Made:
        if grad:  # no tensor of integers does
            values = values.astype(np.float32, copy=False)
        return Tensor(values, f"torch.{dtype or values.dtype}", grad, device), values

    def real(values: Array) -> Made:
        torch = module("torch")
        made = torch.from_numpy(values)
        if dtype:
            made = made.to(getattr(torch, dtype))
        if device != "cpu":
            made = made.to("meta")
        if grad:
            made = made.to(torch.float32) if values.dtype.kind == "i" else made
            return made.requires_grad_(), values
        return made, values

    return {"stand-in": stand_in, "real": real}


class OnlyDlpack:
    """Shows its memory by DLPack and by nothing else."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class OnlyArray:
    """Shows its memory by `__array__` and by nothing else."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.values


class Sparse:
    """Has what tells SciPy's sparse matrices."""

    nnz = 3

    def toarray(self) -> Array:
        return VECTORS


def spoiled(spoil: Callable[[list[Any]], None], wrap: Callable[[Any], Any] = list) -> Maker:
    """Make a container of lists in which something is wrong."""

    def make(values: Array) -> Made:
        rows = values.tolist()
        spoil(rows)
        return wrap(rows), None

    return make


def without_row(rows: list[Any]) -> None:
    rows[4] = None


def without_value(rows: list[Any]) -> None:
    if isinstance(rows[4], list):
        rows[4][2] = None
    else:
        rows[4] = None


def shorter_row(rows: list[Any]) -> None:
    if not isinstance(rows[4], list):
        rows[:] = [[row, row] for row in rows]
    rows[4] = rows[4][:-1]


def shorter_rows(rows: list[Any]) -> None:
    rows[:] = [row[:-1] if isinstance(row, list) else [row] for row in rows]


def in_columns(spoil: Callable[[list[Any]], None]) -> dict[str, Maker]:
    """Spoil lists, and columns of pandas, Polars and pyarrow."""
    return {
        "list": spoiled(spoil),
        "pandas": spoiled(spoil, lambda rows: module("pandas").Series(rows)),
        "polars": spoiled(spoil, lambda rows: module("polars").Series(rows, strict=False)),
        "pyarrow": spoiled(spoil, lambda rows: module("pyarrow").array(rows)),
    }


def not_finite(value: float) -> Maker:
    def make(values: Array) -> Made:
        wrong = values.astype(np.float32)
        wrong[4] = value
        return wrong, wrong

    return make


MAKERS: dict[str, dict[str, Maker]] = {
    "NumPy array of the index's type, row after row": {"": same},
    "`numpy.memmap`": {"": mapped},
    "NumPy array of another type or order": {"type": of_another_type, "order": of_another_order},
    "NumPy array of bfloat16 (ml_dtypes)": {"": bfloat16},
    "NumPy masked array": {"": masked},
    "list or tuple of lists": {"list": lists, "tuple": tuples},
    "list of arrays or tensors": {"arrays": arrays, "tensors": tensors_in_a_list},
    "`memoryview`, `array.array`": {"memoryview": view, "array": standard_array},
    "pandas DataFrame of numbers": {"": pandas_frame},
    "pandas Series of lists or arrays": {"lists": pandas_lists, "arrays": pandas_arrays},
    "pandas Series of Arrow lists": {"": pandas_arrow},
    "Polars Series of arrays or lists": {"arrays": polars_arrays, "lists": polars_lists},
    "Polars Series of lists, without pyarrow": {"": polars_alone},
    "Polars DataFrame of numbers": {"": polars_frame},
    "pyarrow FixedSizeListArray": {"whole": arrow_fixed, "part": arrow_part},
    "pyarrow ListArray, LargeListArray": {"list": arrow_list, "large": arrow_large_list},
    "pyarrow FixedShapeTensorArray": {"": arrow_tensors},
    "pyarrow ChunkedArray of one chunk": {"": arrow_chunk},
    "pyarrow ChunkedArray of several chunks": {"": arrow_chunks},
    "pyarrow Table of numbers": {"": arrow_table},
    "a frame or table with a column of lists": {
        name: frame_of_lists(name) for name in ("pandas", "polars", "pyarrow")
    },
    "PyTorch tensor": tensor(),
    "PyTorch tensor that requires grad": tensor(grad=True),
    "PyTorch tensor of bfloat16": tensor(dtype="bfloat16"),
    "PyTorch tensor on another device": tensor(device="cuda:0"),
    "anything with `__dlpack__`": {"": lambda values: (OnlyDlpack(values), values)},
    "anything with `__array__`": {"": lambda values: (OnlyArray(values), values)},
    "sparse matrix": {"": lambda values: (Sparse(), None)},
    "a missing row, a missing value": {
        **{f"row-{name}": make for name, make in in_columns(without_row).items()},
        **{f"value-{name}": make for name, make in in_columns(without_value).items()},
    },
    "rows of different lengths": in_columns(shorter_row),
    "rows of another length than the index's": in_columns(shorter_rows),
    "NaN or infinity": {"nan": not_finite(np.nan), "inf": not_finite(np.inf)},
    "a generator": {"": lambda values: ((row for row in values.tolist()), None)},
    "text, bytes": {"str": lambda values: ("1 2", None), "bytes": lambda values: (b"12", None)},
}  # fmt: skip
NAMES_ITS_ROW = {"a missing row, a missing value", "rows of different lengths", "NaN or infinity"}

CASES = [
    pytest.param(row, make, id=f"{row.what}-{variant}" if variant else row.what)
    for row in rows_of_the_table()
    for variant, make in MAKERS.get(row.what, {}).items()
]
each_case = pytest.mark.parametrize(("row", "make"), CASES)


def test_each_row_of_the_table_is_tested() -> None:
    assert [row.what for row in rows_of_the_table()] == list(MAKERS)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def row_s_world(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    if "without pyarrow" in row.what:
        monkeypatch.setitem(sys.modules, "pyarrow", None)


@pytest.fixture(scope="module")
def built() -> annidx.Index:
    index = annidx.Index(DIM, "euclidean")
    index.add_items(VECTORS, IDS)
    index.build()
    return index


def shares(found: Array | None, memory: Array | None) -> bool:
    return found is not None and memory is not None and np.shares_memory(found, memory)


def check_refused(row: Row, name: str, ask: Callable[[], object]) -> None:
    with pytest.raises(ValueError) as caught:
        ask()
    message = str(caught.value)
    # The core looks at the numbers of queries, and calls them that.
    assert message.removeprefix("queries: ").removeprefix(f"{name}: ") != message
    assert "\n" not in message
    assert len(message) < 200
    if row.what in NAMES_ITS_ROW and name == "vectors":
        assert re.search(r"\brow 4\b", message)


@each_case
@pytest.mark.usefixtures("row_s_world")
def test_added(row: Row, make: Maker) -> None:
    given, memory = make(VECTORS)
    index = annidx.Index(DIM, "euclidean")
    if row.add_items == "error":
        check_refused(row, "vectors", lambda: index.add_items(given))
        assert len(index) == 0
        return
    rows = inputs.Rows(given, DIM, "float32", packed=False)
    assert shares(rows.as_they_are(), memory) == (row.add_items == "zero copy")
    index.add_items(given)
    index.build()
    np.testing.assert_array_equal(index.get_vectors(range(COUNT)), VECTORS)


@each_case
@pytest.mark.usefixtures("row_s_world")
def test_queried(built: annidx.Index, row: Row, make: Maker) -> None:
    given, memory = make(VECTORS)
    if row.query == "error":
        check_refused(row, "vectors", lambda: built.query(given))
        return
    read, single = inputs.as_queries(given, "vectors", DIM, bits=False, packed=False)
    assert not single and shares(read, memory) == (row.query == "zero copy")
    for got, want in zip(built.query(given, k=4), built.query(VECTORS, k=4), strict=True):
        np.testing.assert_array_equal(got, want)


@each_case
@pytest.mark.usefixtures("row_s_world")
def test_as_ids(built: annidx.Index, row: Row, make: Maker) -> None:
    given, memory = make(IDS)
    if row.ids == "error":
        check_refused(row, "ids", lambda: annidx.Index(DIM, "euclidean").add_items(VECTORS, given))
        check_refused(row, "allow", lambda: built.query(VECTORS[0], allow=given))
        check_refused(row, "deny", lambda: built.query(VECTORS[:2], deny=given))
        return
    if row.what != "a generator":
        assert shares(inputs.read_ids(given, "ids").ints, memory) == (row.ids == "zero copy")
    index = annidx.Index(DIM, "euclidean")
    index.add_items(VECTORS, given)
    index.build()
    np.testing.assert_array_equal(index.ids, IDS)
    some = IDS[::4].copy()
    want, _ = built.query(VECTORS[0], allow=some)
    assert len(want) and np.isin(want, some).all()
    assert built.query(VECTORS[0], allow=make(some)[0])[0].tolist() == want.tolist()
    left, _ = built.query(VECTORS[0], k=COUNT, deny=make(some)[0])
    assert sorted(left.tolist()) == sorted(set(IDS.tolist()) - set(some.tolist()))


@pytest.mark.parametrize(
    "make",
    [arrow_fixed, polars_arrays, pandas_lists, tensor()["stand-in"], tensor()["real"], view,
     lambda values: (OnlyDlpack(values), values)],
)  # fmt: skip
def test_one_query(built: annidx.Index, make: Maker) -> None:
    """A column, a tensor or a view of one vector is one query, read where it lies."""
    given, memory = make(VECTORS[5].copy())
    read, single = inputs.as_queries(given, "vectors", DIM, bits=False, packed=False)
    assert single and shares(read, memory)
    assert built.query(given, k=3)[0].tolist() == built.query(VECTORS[5], k=3)[0].tolist()


@pytest.mark.parametrize("make", [pandas_arrays, polars_lists, arrow_fixed, arrow_chunks, lists])
@pytest.mark.parametrize("metric", ["hamming", "dot"])
def test_other_types_of_rows(make: Maker, metric: str) -> None:
    """Bits and bytes come from columns as they do from arrays."""
    bits = (VECTORS > 100).astype(np.float32)
    index = annidx.Index(DIM, metric, None if metric == "hamming" else "int8")
    want = annidx.Index(DIM, metric, None if metric == "hamming" else "int8")
    index.add_items(make(bits)[0])
    want.add_items(bits)
    for one in (index, want):
        one.build()
    np.testing.assert_array_equal(index.get_vectors(range(COUNT)), want.get_vectors(range(COUNT)))


@pytest.mark.parametrize(
    "make",
    [same, pandas_lists, polars_arrays, arrow_fixed, arrow_part, arrow_chunks,
     tensor()["stand-in"], tensor()["real"], lists,
     lambda values: (OnlyDlpack(values), values), lambda values: (OnlyArray(values), values)],
)  # fmt: skip
def test_masks(built: annidx.Index, make: Maker) -> None:
    """Columns, tensors and lists of booleans are masks over the rows."""
    mask = np.arange(COUNT) % 4 == 1
    want, _ = built.query(VECTORS[0], k=COUNT, allow=mask)
    assert sorted(want.tolist()) == IDS[mask].tolist()
    given = make(mask)[0]
    assert built.query(VECTORS[0], k=COUNT, allow=given)[0].tolist() == want.tolist()
    assert list(annidx.IdSet(built, given)) == IDS[mask].tolist()
    left, _ = built.query(VECTORS[0], k=COUNT, deny=given)
    assert sorted(left.tolist()) == IDS[~mask].tolist()


def test_words_as_ids() -> None:
    words = [f"käse {i}" for i in range(COUNT)]
    columns = [words, np.array(words), np.array(words, dtype=object)]
    for library, make in (("pandas", "Series"), ("polars", "Series"), ("pyarrow", "array")):
        columns.append(getattr(module(library), make)(words))
    columns.append(module("pandas").Series(words, dtype="category"))
    for column in columns:
        index = annidx.Index(DIM, "euclidean")
        index.add_items(VECTORS, column)
        index.build()
        assert list(index.ids) == words
        assert index.query(VECTORS[0], k=1, allow=column[3:5])[0][0] in words[3:5]
    for column in (module("pandas").Series(["a", None]), module("pyarrow").array(["a", None])):
        with pytest.raises(ValueError, match=r"^ids: expected only strings.* at place 1$"):
            annidx.Index(DIM, "euclidean").add_items(VECTORS[:2], column)


def test_nothing_is_imported_for_an_input(run_python: Callable[..., Any]) -> None:
    done = run_python(
        "import sys, numpy as np, annidx\n"
        "index = annidx.Index(2, 'euclidean')\n"
        "index.add_items([[1, 2], [3, 4]], ids=['a', 'b'])\n"
        "index.build()\n"
        "index.query(memoryview(np.ones(2)), allow=np.array(['a']))\n"
        "print([name for name in ('pandas', 'polars', 'pyarrow', 'torch') if name in sys.modules])"
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
