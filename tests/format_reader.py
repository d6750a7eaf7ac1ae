"""A second reader of annidx files, in Python and NumPy, written from docs/FORMAT.md alone.

Owns nothing of the library and imports nothing of it: that is its use. `read(path)` checks header,
table and params and gives access to what a file holds; `read(path, strict=True)` checks all that
FORMAT.md promises. As a program it describes files: `python tests/format_reader.py FILE...`
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x89ANNIDX\n"
VERSION = 2
METRICS = {1: "angular", 2: "cosine", 3: "euclidean", 4: "manhattan", 5: "dot", 6: "hamming"}
DTYPES = {1: "float32", 2: "float16", 3: "int8", 4: "uint8", 5: "bits"}
SCANS = {1: "codes", 2: "byte_rows", 3: "bits", 4: "vectors"}
REAL = {"float32", "float16", "int8"}
STORAGE = {
    "angular": REAL,
    "cosine": REAL,
    "dot": REAL,
    "euclidean": REAL | {"uint8"},
    "manhattan": REAL | {"uint8"},
    "hamming": {"bits"},
}
# Kinds 1 to 41.
NAMES = (
    "params vectors slot_rows row_slots ids_int64 id_order id_text_offsets id_text mean trees "
    "leaf_ranges leaf_centroids leaf_scales leaf_regions norm_bounds leaf_mults leaf_biases "
    "leaf_scan_factors leaf_radii group_ranges group_centroids group_mults group_biases tree_slots "
    "codes block_centroids code_records neighbours codebook code_first_dims rotation "
    "rotation_scales rotation_order byte_rows row_scalars removed_ids removed_text_offsets "
    "removed_text curve metadata sets"
).split()
KINDS = {1: "index", 2: "model", 3: "part", 4: "changes"}
UINT_PARAMS = (
    "id_kind scan_kind tree_count work_dim4 leaf_entries group_entries block_count code_count "
    "rotation_block byte_row_bytes curve_points given_bytes"
).split()
FLOAT_PARAMS = "value_scale byte_scale byte_offset default_recall residual_weight".split()

LIST_PARAMS = (
    "centroid_blocks centroid_scale record_bytes neighbour_count neighbour_bytes has_blocks"
).split()
MODEL_PARAMS = "region_count norm_unit radius_weight removed_count".split()
# Where each stands among the fields of PARAMS.
PARAM_PLACES = {
    "work_scale": 20,
    **{name: place for place, name in enumerate(UINT_PARAMS)},
    **{name: place for place, name in enumerate(LIST_PARAMS + MODEL_PARAMS, 21)},
}

HEADER = struct.Struct("<8sII16sQIIIIQ16sI16s16s8sI")
ENTRY = struct.Struct("<IIQQQII")
PARAMS = struct.Struct("<12I5f3IfIf5I2fII")
SET = struct.Struct("<QQII")
TREE = np.dtype([(name, "<u4") for name in ("leaf", "leaves", "group", "groups")])
LEAF = np.dtype(
    [("first", "<u8")]
    + [(name, "<u4") for name in ("count", "block", "centroid_block", "reserved")]
)
GROUP = np.dtype([("block", "<u4"), ("blocks", "<u4")])
POINT = np.dtype(
    [("k", "<u4"), ("recall", "<f4")]
    + [(name, "<u4") for name in ("opened", "candidates", "expanded", "rerank", "exact")]
    + [("far_ratio", "<f4")]
)
TYPES: dict[str, Any] = {
    **dict.fromkeys(["slot_rows", "row_slots", "id_order", "tree_slots", "rotation_order"], "<u4"),
    **dict.fromkeys(
        "mean leaf_scales norm_bounds leaf_mults leaf_biases leaf_scan_factors leaf_radii "
        "group_mults group_biases codebook rotation_scales row_scalars".split(),
        "<f4",
    ),
    "ids_int64": "<i8",
    "removed_ids": "<i8",
    "id_text_offsets": "<u8",
    "removed_text_offsets": "<u8",
    "code_first_dims": "<u2",
    "rotation": "i1",
    "trees": TREE,
    "leaf_ranges": LEAF,
    "group_ranges": GROUP,
    "curve": POINT,
}
NORMAL = float(np.finfo(np.float32).tiny)


class FormatProblem(ValueError):
    """The bytes break a rule of docs/FORMAT.md; the message says which."""


def require(holds: Any, rule: str) -> None:
    """Raise FormatProblem with this rule unless it holds."""
    if not holds:
        raise FormatProblem(rule)


def make_crc_table() -> list[int]:
    """Return the 256 remainders of CRC-32C, bits reflected."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # 0x1EDC6F41 reflected
        table.append(value)
    return table


CRC_TABLE = make_crc_table()


def crc32c(data: bytes) -> int:
    """Return the checksum of some bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def fnv1a_128(data: bytes) -> int:
    """Return the 128-bit FNV-1a hash of some bytes."""
    value = 0x6C62272E07BB014262B821756295C58D
    for byte in data:
        value = (value ^ byte) * (2**88 + 0x13B) % 2**128
    return value


def align(offset: int) -> int:
    """Return the first multiple of 64 from `offset` on."""
    return -(-offset // 64) * 64


def fill(offset: int) -> int:
    """Return the first multiple of 8 from `offset` on."""
    return -(-offset // 8) * 8


@dataclass(frozen=True)
class SetPlace:
    """Where a named set stands in its section."""

    name_at: int
    name_end: int
    rows_at: int
    rows_end: int
    count: int
    storage: int


@dataclass(frozen=True)
class Entry:
    """One line of the section table."""

    kind: int
    flags: int
    offset: int
    size: int
    record: int
    crc: int

    @property
    def name(self) -> str:
        """Name of the section, or its number if this version does not know it."""
        return NAMES[self.kind - 1] if 1 <= self.kind <= len(NAMES) else str(self.kind)


class IndexFile:
    """What an annidx file holds. `header`, `params` and `entries` are checked; values are not."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.header = self._read_header()
        self.metric = METRICS[self.header["metric"]]
        self.dtype = DTYPES[self.header["dtype"]]
        self.dim: int = self.header["dim"]
        self.items: int = self.header["item_count"]
        self.entries = self._read_table()
        self.params = self._read_params()
        self._check_params()
        self._check_sections()

    # ---- opening ---------------------------------------------------------------------------

    def _read_header(self) -> dict[str, Any]:
        data = self.data
        require(data[:8] == MAGIC[: len(data)] and data, "not an annidx file: another magic")
        require(len(data) >= 128, "damaged: shorter than a header")
        fields = HEADER.unpack_from(data)
        names = (
            "magic version endian_mark library_version file_bytes metric dtype dim section_count "
            "item_count identity kind model_identity base_identity reserved header_crc"
        ).split()
        header = dict(zip(names, fields, strict=True))
        require(header["version"] <= VERSION, "too new: written in a later format version")
        require(header["version"] == VERSION, "damaged: no such version")
        require(header["endian_mark"] == 0x01020304, "damaged: endian mark")
        count = header["section_count"]
        require(1 <= count <= 64, "damaged: section count")
        require(len(data) >= 128 + 40 * count, "damaged: shorter than its table")
        head = data[:124] + bytes(4) + data[128 : 128 + 40 * count]
        require(crc32c(head) == header["header_crc"], "damaged: header checksum")
        require(header["file_bytes"] == len(data), "damaged: file size")
        require(header["metric"] in METRICS and header["dtype"] in DTYPES, "damaged: metric, dtype")
        metric, dtype = METRICS[header["metric"]], DTYPES[header["dtype"]]
        require(dtype in STORAGE[metric], "damaged: metric with this dtype")
        require(1 <= header["dim"] <= 65535, "damaged: dim")
        require(header["item_count"] <= 2**32 - 2, "damaged: item count")
        require(header["kind"] in KINDS, "damaged: kind of the file")
        is_model = header["kind"] == 2
        require(not (is_model and header["item_count"]), "damaged: items of a model")
        has_base = any(header["base_identity"])
        require(header["kind"] == 4 or not has_base, "damaged: base identity")
        require(not any(header["reserved"]), "damaged: reserved header bytes")
        version: bytes = header["library_version"].rstrip(b"\0")
        require(len(version) <= 15 and b"\0" not in version, "damaged: library version")
        header["library_version"] = version.decode("ascii", "replace")
        return header

    def _read_table(self) -> dict[str, Entry]:
        count = self.header["section_count"]
        end, previous, entries = 128 + 40 * count, 0, {}
        for i in range(count):
            *fields, reserved = ENTRY.unpack_from(self.data, 128 + 40 * i)
            entry = Entry(*fields)
            known = entry.kind <= len(NAMES)
            require(known or not entry.flags & 1, f"too new: needs section kind {entry.kind}")
            require(entry.kind > previous, "damaged: kinds do not ascend")
            require(entry.flags in (0, 1) and reserved == 0, f"damaged: flags of {entry.name}")
            require(entry.offset == align(end), f"damaged: offset of {entry.name}")
            require(entry.record >= 1 and entry.size % entry.record == 0, "damaged: records")
            end, previous = entry.offset + entry.size, entry.kind
            require(end <= len(self.data), f"damaged: {entry.name} ends behind the file")
            entries[entry.name] = entry
        require(end == len(self.data), "damaged: bytes after the last section")
        return entries

    def _read_params(self) -> dict[str, Any]:
        entry = self.entries.get("params")
        require(entry is not None and entry.size == 128, "damaged: no params of 128 bytes")
        require(self.crc_of("params"), "damaged: checksum of params")
        fields = PARAMS.unpack(self.raw("params"))
        params: dict[str, Any] = dict(zip(UINT_PARAMS, fields[:12], strict=True))
        params |= dict(zip(FLOAT_PARAMS, fields[12:17], strict=True))
        params |= {"seed": fields[17] | fields[18] << 32, "leaf_points": fields[19]}
        params["work_scale"] = fields[PARAM_PLACES["work_scale"]]
        params |= dict(zip(LIST_PARAMS + MODEL_PARAMS, fields[21:31], strict=True))
        require(not any(fields[31:]), "damaged: reserved params")
        return params

    def _check_params(self) -> None:
        p, n = self.params, self.items

        def expect(holds: bool, field: str) -> None:
            require(holds, f"damaged: params field {field}")

        scans = {"hamming": {3}, "manhattan": {2, 4}}.get(self.metric, {1, 4})
        expect(p["id_kind"] <= 2, "id_kind")
        expect(p["scan_kind"] in scans, "scan_kind")
        expect(1 <= p["tree_count"] <= 65535, "tree_count")
        expect(p["curve_points"] <= 65536, "curve_points")
        expect(p["work_dim4"] == -(-self.dim // 4) * 4, "work_dim4")
        expect(p["leaf_entries"] % 16 == 0, "leaf_entries")
        expect(n == 0 or p["leaf_entries"] >= 16 * p["tree_count"], "leaf_entries")
        expect(p["group_entries"] % 16 == 0, "group_entries")
        if p["scan_kind"] == 1:
            expect(self.dim <= 65535, "scan_kind")
            expect(p["block_count"] * 32 >= n, "block_count")
            expect(4 <= p["code_count"] <= 256 and p["code_count"] % 4 == 0, "code_count")
            expect(1 <= p["rotation_block"] <= self.dim, "rotation_block")
        else:
            expect(p["block_count"] == p["code_count"] == p["rotation_block"] == 0, "code_count")
        self._check_list_params(expect)
        self._check_model_params(expect)
        bytes_stored = self.dtype in ("int8", "uint8")
        copies = p["scan_kind"] in (1, 2) and not bytes_stored
        allowed = {self.dim if copies else 0} | ({0} if p["scan_kind"] == 1 else set())
        expect(p["byte_row_bytes"] in allowed, "byte_row_bytes")
        expect(p["given_bytes"] <= bytes_stored, "given_bytes")
        expect(all(np.isfinite(p[name]) for name in FLOAT_PARAMS), "floats")
        expect(p["value_scale"] >= NORMAL, "value_scale")
        expect(p["byte_scale"] >= NORMAL, "byte_scale")
        expect(0 <= p["default_recall"] <= 1, "default_recall")
        expect(np.isfinite(p["work_scale"]), "work_scale")
        expect(bool(np.frexp(p["work_scale"])[0] == 0.5), "work_scale")

    def _check_list_params(self, expect: Callable[[bool, str], None]) -> None:
        p = self.params
        blocks = p["centroid_blocks"]
        expect(p["has_blocks"] <= (p["scan_kind"] == 1), "has_blocks")
        expect((blocks > 0) == (p["has_blocks"] == 1 and self.items > 0), "centroid_blocks")
        expect(blocks <= (p["block_count"] if p["scan_kind"] == 1 else 0), "centroid_blocks")
        scale = p["centroid_scale"]
        expect(NORMAL <= scale < np.inf if p["has_blocks"] else scale == 1, "centroid_scale")
        record = -(-(p["code_count"] // 2 + 8) // 8) * 8 if p["scan_kind"] == 1 else 0
        expect(p["record_bytes"] in (0, record), "record_bytes")
        most = 256 if p["record_bytes"] else 0
        expect(p["neighbour_count"] <= most, "neighbour_count")
        entry = 3 if self.items < 2**24 else 4
        expect(p["neighbour_bytes"] == (entry if p["neighbour_count"] else 0), "neighbour_bytes")

    def _check_model_params(self, expect: Callable[[bool, str], None]) -> None:
        p = self.params
        most = {"dot": 255, "angular": 2, "cosine": 2}.get(self.metric, 1)
        expect(1 <= p["region_count"] <= most, "region_count")
        unit = p["norm_unit"]
        expect(0 <= unit < np.inf if self.metric == "dot" else unit == 0, "norm_unit")
        expect(bool(np.isfinite(p["radius_weight"])), "radius_weight")
        expect(p["removed_count"] == 0 or self.header["kind"] == 4, "removed_count")

    def expected_sections(self) -> dict[str, tuple[int, int]]:
        """Return count and size of the records of each section that params ask for."""
        p, n, d = self.params, self.items, self.dim
        leaves, groups, centroids = p["leaf_entries"], p["group_entries"], 16 * p["work_dim4"]
        row = {"float32": 4 * d, "float16": 2 * d, "bits": (d + 7) // 8}.get(self.dtype, d)
        text = self.entries["id_text"].size if "id_text" in self.entries else 0
        found = {"params": (1, 128), "vectors": (n, row), "slot_rows": (n, 4), "row_slots": (n, 4)}
        if p["id_kind"] == 1:
            found["ids_int64"] = (n, 8)
        if p["id_kind"] != 0:
            found["id_order"] = (n, 4)
        if p["id_kind"] == 2:
            found |= {"id_text_offsets": (n + 1, 8), "id_text": (text, 1)}
        found |= {"mean": (d, 4), "trees": (p["tree_count"], 16), "leaf_ranges": (leaves, 24)}
        found |= {"leaf_centroids": (leaves // 16, centroids), "leaf_scales": (leaves, 4)}
        if p["region_count"] > 1:
            found["leaf_regions"] = (leaves, 1)
        if p["region_count"] > 1 and p["norm_unit"] > 0:
            found["norm_bounds"] = (p["region_count"] - 1, 4)
        for name in ("leaf_mults", "leaf_biases", "leaf_scan_factors", "leaf_radii"):
            found[name] = (leaves, 4)
        if groups:
            found |= {"group_ranges": (groups, 8), "group_centroids": (groups // 16, centroids)}
            found |= {"group_mults": (groups, 4), "group_biases": (groups, 4)}
        if p["tree_count"] > 1:
            found["tree_slots"] = ((p["tree_count"] - 1) * n, 4)
        if p["scan_kind"] == 1:
            block = 16 * p["code_count"] + 128
            found["codes"] = (p["block_count"], block)
            if p["centroid_blocks"]:
                found["block_centroids"] = (p["centroid_blocks"], block)
            if p["record_bytes"]:
                found["code_records"] = (n, p["record_bytes"])
            if p["neighbour_count"]:
                found["neighbours"] = (n, p["neighbour_count"] * p["neighbour_bytes"])
            found["codebook"] = (d, 64)
            found["code_first_dims"] = (p["code_count"] + 1, 2)
            found["rotation"] = (d, p["rotation_block"])
            found |= {"rotation_scales": (d, 4), "rotation_order": (d, 4)}
        if p["byte_row_bytes"]:
            found["byte_rows"] = (n, p["byte_row_bytes"])
        if p["scan_kind"] == 1 and (p["byte_row_bytes"] or self.dtype in ("int8", "uint8")):
            found["row_scalars"] = (n, 8)
        removed = p["removed_count"]
        if removed and p["id_kind"] == 2:
            size = self.entries["removed_text"].size if "removed_text" in self.entries else 0
            found |= {"removed_text_offsets": (removed + 1, 8), "removed_text": (size, 1)}
        elif removed:
            found["removed_ids"] = (removed, 8)
        if p["curve_points"]:
            found["curve"] = (p["curve_points"], 32)
        return found

    def _check_sections(self) -> None:
        expected = self.expected_sections()
        known = [e for e in self.entries.values() if e.kind <= len(NAMES)]
        if known and known[-1].name == "sets":
            require((known[-1].flags, known[-1].record) == (0, 8), "damaged: sets")
            known.pop()
        require([e.name for e in known] == [*expected, "metadata"], "damaged: other sections")
        for entry in known[:-1]:
            count, record = expected[entry.name]
            require(entry.flags == 1, f"damaged: {entry.name} is not flagged required")
            sizes = (entry.record, entry.size) == (record, count * record)
            require(sizes, f"damaged: size of {entry.name}")
        require((known[-1].flags, known[-1].record) == (0, 1), "damaged: metadata")

    # ---- what is in it ---------------------------------------------------------------------

    def raw(self, name: str) -> bytes:
        """Return the bytes of a section; none if it is absent."""
        entry = self.entries.get(name)
        return b"" if entry is None else self.data[entry.offset : entry.offset + entry.size]

    def crc_of(self, name: str) -> bool:
        """Tell whether a section's bytes have the checksum of the table."""
        return crc32c(self.raw(name)) == self.entries[name].crc

    def array(self, name: str) -> NDArray[Any]:
        """Return a section as a flat array of its elements; empty if it is absent."""
        return np.frombuffer(self.raw(name), TYPES.get(name, "u1"))

    @property
    def identity(self) -> str:
        """Identity as 32 hexadecimal digits, in the order of the bytes."""
        return str(self.header["identity"].hex())

    def _set_places(self) -> list[SetPlace]:
        (count, reserved) = struct.unpack_from("<II", self.raw("sets"))
        require(reserved == 0, "damaged: reserved field of sets")
        places = []
        for i in range(count):
            at, rows, name, storage = SET.unpack_from(self.raw("sets"), 8 + 24 * i)
            require(storage in (1, 2), "damaged: storage of a set")
            size = 8 * -(-self.items // 64) if storage == 1 else 4 * rows
            begin = fill(at + name)
            places.append(SetPlace(at, at + name, begin, begin + size, rows, storage))
        return places

    @property
    def sets(self) -> dict[str, NDArray[np.int64]]:
        """Rows of each named set."""
        found = {}
        for place in self._set_places() if "sets" in self.entries else []:
            data = self.raw("sets")[place.rows_at : place.rows_end]
            if place.storage == 1:
                rows = np.flatnonzero(np.unpackbits(np.frombuffer(data, "u1"), bitorder="little"))
            else:
                rows = np.frombuffer(data, "<u4")
            name = self.raw("sets")[place.name_at : place.name_end]
            found[name.decode()] = rows.astype(np.int64)
        return found

    @property
    def metadata(self) -> str:
        """User's JSON text, or an empty one."""
        return self.raw("metadata").decode()

    @property
    def stored(self) -> NDArray[Any]:
        """Vectors as stored, (n, dim), in row order; of bits 0 and 1."""
        kind = {"float32": "<f4", "float16": "<f2", "int8": "i1"}.get(self.dtype, "u1")
        by_slot = np.frombuffer(self.raw("vectors"), kind)
        if self.dtype == "bits":
            rows = by_slot.reshape(self.items, (self.dim + 7) // 8)
            by_slot = np.unpackbits(rows, axis=1)[:, : self.dim]
        return by_slot.reshape(self.items, self.dim)[self.array("row_slots")]

    @property
    def rows(self) -> NDArray[np.float32]:
        """Vectors as the user sees them, (n, dim) float32, in row order."""
        return self.stored.astype(np.float32) * np.float32(self.params["value_scale"])

    @property
    def ids(self) -> list[int] | list[str]:
        """Ids in row order."""
        if self.params["id_kind"] == 0:
            return list(range(self.items))
        if self.params["id_kind"] == 1:
            return [int(i) for i in self.array("ids_int64")]
        offsets, text = self.array("id_text_offsets"), self.raw("id_text")
        bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        return [text[begin:end].decode() for begin, end in bounds]

    @property
    def leaves(self) -> list[list[NDArray[np.uint32]]]:
        """Rows of each leaf, for each tree, without padding."""
        slots = [np.arange(self.items, dtype=np.uint32), self.array("tree_slots")]
        trees = []
        for number, tree in enumerate(self.array("trees")):
            here = slots[min(number, 1)]
            ranges = self.array("leaf_ranges")[tree["leaf"] :][: tree["leaves"]]
            bounds = [(int(r["first"]), int(r["first"]) + int(r["count"])) for r in ranges]
            rows = self.array("slot_rows")
            trees.append([rows[here[begin:end]] for begin, end in bounds if end > begin])
        return trees

    def centroids(self, what: str = "leaf") -> NDArray[np.float32]:
        """Return all entries' centroids ("leaf" or "group"), (entries, dim), as byte - 128."""
        blocks = self.array(f"{what}_centroids").reshape(-1, self.params["work_dim4"] // 4, 16, 4)
        values = blocks.transpose(0, 2, 1, 3).reshape(-1, self.params["work_dim4"])
        return values[:, : self.dim].astype(np.float32) - 128

    def code_blocks(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return codes, (blocks, 32, code_count), and scalars, (blocks, 32), of a section."""
        count = self.params["code_count"]
        blocks = self.array(name).reshape(-1, 16 * count + 128)
        halves = blocks[:, : 16 * count].reshape(-1, count, 16)
        codes = np.concatenate([halves & 15, halves >> 4], axis=2).transpose(0, 2, 1)
        scalars = np.frombuffer(blocks[:, 16 * count :].tobytes(), "<f4").reshape(-1, 32)
        return codes, scalars

    def leaf_ranges(self) -> list[tuple[int, int, int, int, int]]:
        """Return entry, first, count, block and centroid block of each leaf of the first tree."""
        tree = self.array("trees")[0]
        ranges = self.array("leaf_ranges")[: tree["leaves"]].tolist()
        return [(entry, *fields[:4]) for entry, fields in enumerate(ranges) if fields[1]]

    @property
    def codes(self) -> NDArray[np.uint8]:
        """Codes of each item, (n, code_count), in row order."""
        points, _ = self.code_blocks("codes")
        found = np.zeros((self.items, self.params["code_count"]), np.uint8)
        for _, first, size, block, _ in self.leaf_ranges():
            blocks = points[block : block + -(-size // 32)]
            found[first : first + size] = blocks.reshape(-1, found.shape[1])[:size]
        return found[self.array("row_slots")]

    @property
    def neighbours(self) -> NDArray[np.int64]:
        """Slots of each slot's list, (n, neighbour_count); -1 where there is none."""
        width = self.params["neighbour_bytes"]
        entries = np.zeros((self.items * self.params["neighbour_count"], 4), np.uint8)
        entries[:, :width] = self.array("neighbours").reshape(-1, width)
        found = entries.view("<u4").reshape(self.items, -1).astype(np.int64)
        return np.where(found == 256**width - 1, -1, found)

    @property
    def coded_residuals(self) -> NDArray[np.float32]:
        """What the codes stand for, (n, dim) in rotated dimensions, in row order."""
        first = self.array("code_first_dims").astype(int)
        code_of_dim = np.repeat(np.arange(len(first) - 1), np.diff(first))
        book = self.array("codebook").reshape(self.dim, 16)
        return book[np.arange(self.dim), self.codes[:, code_of_dim]]

    def rotate(self, work: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate vectors of the working space, (m, dim)."""
        block = self.params["rotation_block"]
        rotation = self.array("rotation").reshape(self.dim, block).astype(np.float32)
        rotated = np.empty_like(work)
        for i, (place, scale) in enumerate(
            zip(self.array("rotation_order"), self.array("rotation_scales"), strict=True)
        ):
            begin = i // block * block
            inputs = work[:, begin : begin + block]
            rotated[:, place] = inputs @ rotation[i, : inputs.shape[1]] * scale
        return rotated

    @property
    def work(self) -> NDArray[np.float32]:
        """Vectors of the working space, (n, dim), in row order."""
        values = self.stored.astype(np.float32)
        if self.metric in ("angular", "cosine", "dot"):
            norms = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
            values = (values / np.where(norms > 0, norms, 1)).astype(np.float32)
        else:
            values = values * np.float32(self.params["work_scale"])
        return values - self.array("mean")

    @property
    def curve(self) -> list[dict[str, float]]:
        """Measured points: k, recall, opened, candidates, expanded, rerank, exact."""
        fields = POINT.names or ()
        return [{f: point[f].item() for f in fields[:-1]} for point in self.array("curve")]

    # ---- every promise of FORMAT.md --------------------------------------------------------

    def check(self) -> None:
        """Check the checksums and every stated property; raise FormatProblem at the first fault."""
        for name in self.entries:
            require(self.crc_of(name), f"damaged: checksum of {name}")
        end = 128 + 40 * self.header["section_count"]
        for entry in self.entries.values():
            require(not any(self.data[end : entry.offset]), f"damaged: padding before {entry.name}")
            end = entry.offset + entry.size
        self._check_identity()
        self._check_vectors()
        self._check_ids()
        self._check_trees()
        self._check_model()
        self._check_removed()
        if self.params["scan_kind"] == 1:
            self._check_codes()
        self._check_curve()
        if "sets" in self.entries:
            self._check_sets()

    def _check_identity(self) -> None:
        h = self.header
        hashed = struct.pack("<IIIQ", h["metric"], h["dtype"], h["dim"], h["item_count"])
        hashed += struct.pack("<I", h["kind"]) + h["base_identity"] + self.raw("params")
        for entry in self.entries.values():
            if entry.flags & 1:
                hashed += struct.pack("<IQI", entry.kind, entry.size, entry.crc)
        require(fnv1a_128(hashed).to_bytes(16, "little") == h["identity"], "damaged: identity")

    def _check_vectors(self) -> None:
        slot_rows, row_slots = self.array("slot_rows"), self.array("row_slots")
        require(is_permutation(slot_rows, self.items), "damaged: slot_rows")
        require(is_permutation(row_slots, self.items), "damaged: row_slots")
        inverse = row_slots[slot_rows] == np.arange(self.items)
        require(inverse.all(), "damaged: slot_rows and row_slots are not inverse")
        for name, kind in TYPES.items():
            if kind == "<f4" and not name.endswith("_biases"):
                require(np.isfinite(self.array(name)).all(), f"damaged: numbers of {name}")
        if self.dtype == "bits":
            rows = self.array("vectors").reshape(self.items, (self.dim + 7) // 8)
            require(not np.unpackbits(rows, axis=1)[:, self.dim :].any(), "damaged: unused bits")
        else:
            require(np.isfinite(self.stored).all(), "damaged: numbers of vectors")

    def _check_ids(self) -> None:
        if self.params["id_kind"] == 0:
            return
        order = self.array("id_order")
        require(is_permutation(order, self.items), "damaged: id_order")
        if self.params["id_kind"] == 2:
            offsets = self.array("id_text_offsets")
            ends = offsets[0] == 0 and offsets[-1] == len(self.raw("id_text"))
            require(ends and (offsets[1:] >= offsets[:-1]).all(), "damaged: id_text_offsets")
        try:
            ids: list[Any] = self.ids
        except UnicodeDecodeError as error:
            raise FormatProblem("damaged: id_text is not UTF-8") from error
        keys = [i.encode() if isinstance(i, str) else i for i in ids]
        ordered = [keys[row] for row in order]
        ascend = all(a < b for a, b in itertools.pairwise(ordered))
        require(ascend, "damaged: ids do not ascend along id_order")

    def _check_trees(self) -> None:
        p, leaf_end, group_end = self.params, 0, 0
        for number, tree in enumerate(self.array("trees").tolist()):
            leaf, leaves, group, groups = tree
            require((leaf, group) == (leaf_end, group_end), "damaged: trees do not follow")
            require(leaves % 16 == groups % 16 == 0, "damaged: entries of a tree")
            leaf_end, group_end = leaf + leaves, group + groups
            require(leaf_end <= p["leaf_entries"], "damaged: leaves of a tree")
            require(group_end <= p["group_entries"], "damaged: groups of a tree")
            self._check_leaves(number, leaf, leaf_end)
            if groups:
                self._check_groups(group, group_end, leaf // 16, leaf_end // 16)
            if number > 0:
                slots = self.array("tree_slots")[(number - 1) * self.items :][: self.items]
                require(is_permutation(slots, self.items), "damaged: tree_slots")
        ends = (leaf_end, group_end) == (p["leaf_entries"], p["group_entries"])
        require(ends, "damaged: entries beyond the trees")

    def _check_leaves(self, number: int, begin: int, end: int) -> None:
        coded = number == 0 and self.params["scan_kind"] == 1
        centred = coded and self.params["centroid_blocks"] > 0
        start = max(0, number - 1) * self.items
        point, block, centroids = start, 0, 0
        for *found, reserved in self.array("leaf_ranges")[begin:end].tolist():
            first, count, first_block, first_centroids = found
            expected = (point, block, centroids) if count else (0, 0, 0)
            follows = (first, first_block, first_centroids) == expected
            require(follows and reserved == 0, "damaged: leaves do not follow")
            point += count
            block += -(-count // 32) if coded else 0
            centroids += -(-count // 1024) if centred else 0
        require(point == start + self.items, "damaged: leaves do not hold all points")
        require(number > 0 or block == self.params["block_count"], "damaged: block_count")
        counted = number > 0 or centroids == self.params["centroid_blocks"]
        require(counted, "damaged: centroid_blocks")
        self._check_biases("leaf", begin, self.array("leaf_ranges")[begin:end]["count"])

    def _check_groups(self, begin: int, end: int, block: int, last: int) -> None:
        ranges = self.array("group_ranges")[begin:end]
        for first, blocks in ranges.tolist():
            require(first == (block if blocks else 0), "damaged: groups do not follow")
            block += blocks
        require(block == last, "damaged: groups do not hold all leaves")
        self._check_biases("group", begin, ranges["blocks"])

    def _check_biases(self, what: str, begin: int, counts: NDArray[Any]) -> None:
        biases = self.array(f"{what}_biases")[begin : begin + len(counts)]
        padded = (biases == np.inf) == (counts == 0)
        good = padded & (np.isfinite(biases) | (counts == 0))
        require(good.all(), f"damaged: {what}_biases")

    def _check_codes(self) -> None:
        first = self.array("code_first_dims").astype(int)
        ends = first[0] == 0 and first[-1] == self.dim
        require(ends and (np.diff(first) >= 0).all(), "damaged: code_first_dims")
        for _, _, count, block, centroids in self.leaf_ranges():
            self._check_blocks("codes", block, count)
            if self.params["centroid_blocks"]:
                self._check_blocks("block_centroids", centroids, -(-count // 32))
        self._check_records()
        self._check_neighbours()
        order, width = self.array("rotation_order"), self.params["rotation_block"]
        require(is_permutation(order, self.dim), "damaged: rotation_order")
        short = self.dim % width
        last = self.array("rotation").reshape(self.dim, width)[self.dim - short :, short:]
        require(short == 0 or not last.any(), "damaged: unused bytes of rotation")

    def _check_blocks(self, name: str, first: int, points: int) -> None:
        codes, scalars = self.code_blocks(name)
        end = first + -(-points // 32)
        own = scalars[first:end].reshape(-1)
        require(np.isfinite(own[:points]).all(), f"damaged: scalars of {name}")
        unused = codes[first:end].reshape(-1, codes.shape[2])[points:]
        require(
            not unused.any() and not own[points:].any(), f"damaged: {name} after the last point"
        )

    def _check_records(self) -> None:
        if not self.params["record_bytes"]:
            return
        pairs = self.params["code_count"] // 2
        records = self.array("code_records").reshape(self.items, -1)
        codes = self.codes[self.array("slot_rows")]
        require((records[:, :pairs] == codes[:, ::2] + 16 * codes[:, 1::2]).all(), "damaged: codes")
        scalars = np.frombuffer(records[:, pairs : pairs + 4].tobytes(), "<f4")
        entries = np.frombuffer(records[:, pairs + 4 : pairs + 8].tobytes(), "<u4")
        require(not records[:, pairs + 8 :].any(), "damaged: padding of records")
        _, in_blocks = self.code_blocks("codes")
        for entry, first, count, block, _ in self.leaf_ranges():
            own = slice(first, first + count)
            require((entries[own] == entry).all(), "damaged: leaf of a record")
            expected = in_blocks[block : block + -(-count // 32)].reshape(-1)[:count]
            require((scalars[own] == expected).all(), "damaged: scalar of a record")

    def _check_neighbours(self) -> None:
        if not self.params["neighbour_count"]:
            return
        lists = self.neighbours
        require((lists < self.items).all(), "damaged: neighbours")
        require((lists != np.arange(self.items)[:, None]).all(), "damaged: its own neighbour")
        ended = np.maximum.accumulate(lists < 0, axis=1)
        require((ended == (lists < 0)).all(), "damaged: neighbours after the end of a list")

    def _check_sets(self) -> None:
        places = self._set_places()
        require(1 <= len(places) <= 4096, "damaged: number of sets")
        end = 8 + 24 * len(places)
        for place in places:
            require(place.name_at == end, "damaged: sets do not follow")
            require(1 <= place.name_end - place.name_at <= 255, "damaged: name of a set")
            end = fill(place.rows_end)
            padding = self.raw("sets")[place.name_end : place.rows_at]
            padding += self.raw("sets")[place.rows_end : end]
            require(not any(padding), "damaged: padding of a set")
        require(end == len(self.raw("sets")), "damaged: bytes after the last set")
        names = [name.encode() for name in self.sets]
        require(names == sorted(set(names)), "damaged: names of sets do not ascend")
        for place, rows in zip(places, self.sets.values(), strict=True):
            require(len(rows) == place.count and (rows < self.items).all(), "damaged: set")
            require((np.diff(rows) > 0).all(), "damaged: rows of a set do not ascend")

    def _check_model(self) -> None:
        p = self.params
        scales, counts = self.array("leaf_scales"), self.array("leaf_ranges")["count"]
        sound = np.isfinite(scales) & ((scales > 0) | ((scales == 0) & (counts == 0)))
        require(sound.all(), "damaged: leaf_scales")
        require((self.array("leaf_regions") < p["region_count"]).all(), "damaged: leaf_regions")
        bounds = self.array("norm_bounds")
        require(np.isfinite(bounds).all(), "damaged: norm_bounds")
        require((np.diff(bounds, prepend=0) > 0).all(), "damaged: norm_bounds do not ascend")
        require(self.model_identity() == self.header["model_identity"], "damaged: model identity")

    def model_identity(self) -> bytes:
        """Return the hash of what divides and codes rows: leaves of the first tree only."""
        p, h = self.params, self.header
        hashed = struct.pack("<III", h["metric"], h["dtype"], h["dim"])
        whole = "scan_kind code_count rotation_block byte_row_bytes given_bytes leaf_points "
        whole += "has_blocks region_count"
        hashed += struct.pack("<8I", *(p[name] for name in whole.split()))
        real = "value_scale byte_scale byte_offset residual_weight work_scale centroid_scale "
        hashed += struct.pack("<7f", *(p[name] for name in (real + "norm_unit").split()))
        leaves = int(self.array("trees")[0]["leaves"])
        parts = {"leaf_centroids": leaves * p["work_dim4"], "leaf_scales": 4 * leaves}
        parts["leaf_regions"] = leaves
        others = "mean norm_bounds codebook code_first_dims rotation rotation_scales "
        parts |= dict.fromkeys((others + "rotation_order").split(), len(self.data))
        for name, most in parts.items():
            if name in self.entries:
                data = self.raw(name)[:most]
                hashed += struct.pack("<IQI", self.entries[name].kind, len(data), crc32c(data))
        return fnv1a_128(hashed).to_bytes(16, "little")

    def _check_removed(self) -> None:
        removed = self.removed
        texts = [text.encode() if isinstance(text, str) else text for text in removed]
        require(all(a < b for a, b in itertools.pairwise(texts)), "damaged: removed ids")
        if "removed_text" in self.entries:
            offsets = self.array("removed_text_offsets")
            ends = (offsets[0], offsets[-1]) == (0, len(self.raw("removed_text")))
            require(
                ends and (np.diff(offsets.astype(np.int64)) >= 0).all(), "damaged: removed_text"
            )

    @property
    def removed(self) -> list[Any]:
        """Ids that changes remove."""
        if "removed_text" not in self.entries:
            return list(self.array("removed_ids").tolist())
        offsets, text = self.array("removed_text_offsets").tolist(), self.raw("removed_text")
        try:
            return [text[begin:end].decode() for begin, end in itertools.pairwise(offsets)]
        except UnicodeDecodeError as error:
            raise FormatProblem("damaged: removed_text is not UTF-8") from error

    def _check_curve(self) -> None:
        curve = self.array("curve")
        require(
            (curve["k"] >= 1).all()
            and (np.isfinite(curve["far_ratio"]) & (curve["far_ratio"] >= 0)).all(),
            "damaged: curve",
        )
        require(((curve["recall"] >= 0) & (curve["recall"] <= 1)).all(), "damaged: recall")
        pairs = [(int(point["k"]), float(point["recall"])) for point in curve]
        require(pairs == sorted(pairs), "damaged: the curve does not ascend")
        try:
            self.raw("metadata").decode()
        except UnicodeDecodeError as error:
            raise FormatProblem("damaged: metadata are not UTF-8") from error


def is_permutation(values: NDArray[Any], count: int) -> bool:
    """Tell whether the values are 0 to count - 1 in any order."""
    return len(values) == count and bool((np.sort(values) == np.arange(count)).all())


def read(path: str | Path, *, strict: bool = False) -> IndexFile:
    """Open a file; with `strict`, check every promise of FORMAT.md."""
    found = IndexFile(Path(path).read_bytes())
    if strict:
        found.check()
    return found


def describe(path: str) -> str:
    """Return a few lines on a file, after checking it."""
    found = read(path, strict=True)
    scan = SCANS[found.params["scan_kind"]]
    lines = [
        f"{path}: {found.items} items, {found.metric}, {found.dtype} x {found.dim}, {scan}, "
        f"identity {found.identity}"
    ]
    lines += [
        f"  {entry.name:18} at {entry.offset:10} {entry.size:12} bytes"
        for entry in found.entries.values()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(describe(argument))
