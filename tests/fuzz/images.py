"""Takes annidx files apart and puts them together again with other contents and right checksums.

Owns no knowledge of the format beyond what `tests/format_reader.py` has from docs/FORMAT.md. It
makes files that the library itself would not write: small ones with every kind of section, and
damaged ones whose checksums are right.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from typing import Any

import format_reader as reader
import numpy as np
from numpy.typing import NDArray

HEADER_CRC = 124
FILE_BYTES = 32
IDENTITY = 64
MODEL_IDENTITY = 84
TABLE = 128
ENTRY_BYTES = 40


@dataclass
class Draft:
    """The parts of a file. `header` and `params` are tuples as `format_reader` unpacks them."""

    header: list[object]
    params: list[float]
    sections: dict[str, bytes]

    @classmethod
    def of(cls, image: bytes) -> Draft:
        """Take a sound file apart."""
        file = reader.IndexFile(image)
        sections = {name: file.raw(name) for name in file.entries}
        return cls(
            list(reader.HEADER.unpack_from(image)),
            list(reader.PARAMS.unpack(sections["params"])),
            sections,
        )

    @property
    def items(self) -> int:
        """Number of items."""
        count = self.header[9]
        assert isinstance(count, int)
        return count

    @items.setter
    def items(self, count: int) -> None:
        self.header[9] = count

    def param(self, name: str) -> int:
        """One of the whole numbers of params."""
        return int(self.params[reader.PARAM_PLACES[name]])

    def set_param(self, name: str, value: int) -> None:
        """Change one of the whole numbers of params."""
        self.params[reader.PARAM_PLACES[name]] = value

    def array(self, name: str) -> NDArray[np.generic]:
        """A section as a new array of its elements."""
        return np.frombuffer(self.sections[name], reader.TYPES.get(name, "u1")).copy()

    def set_array(self, name: str, values: NDArray[np.generic]) -> None:
        """Replace or add a section."""
        self.sections[name] = np.ascontiguousarray(values).tobytes()

    def image(self, *, summed: bool = True) -> bytes:
        """Put the parts together as FORMAT.md says, whatever they hold.

        summed: whether sections get their checksums; opening looks at that of params only.
        """
        self.sections["params"] = reader.PARAMS.pack(*self.params)
        names = sorted(self.sections, key=reader.NAMES.index)
        end = TABLE + ENTRY_BYTES * len(names)
        table, body = b"", b""
        start = reader.align(end)
        for name in names:
            data = self.sections[name]
            offset = reader.align(end)
            body += bytes(offset - start - len(body)) + data
            kind, flags = reader.NAMES.index(name) + 1, name not in ("metadata", "sets")
            record = self._record_bytes(name)
            crc = reader.crc32c(data) if summed or name == "params" else 0
            table += reader.ENTRY.pack(kind, flags, offset, len(data), record, crc, 0)
            end = offset + len(data)
        self.header[8] = len(names)
        head = reader.HEADER.pack(*self.header) + table
        return with_right_head(head.ljust(start, b"\0") + body)

    def _record_bytes(self, name: str) -> int:
        dim = self.header[7]
        assert isinstance(dim, int)
        rows = {"float32": 4 * dim, "float16": 2 * dim, "bits": (dim + 7) // 8}
        dtype = self.header[6]
        assert isinstance(dtype, int)
        own = {
            "params": 128,
            "vectors": rows.get(reader.DTYPES.get(dtype, ""), dim),
            "leaf_centroids": 16 * self.param("work_dim4"),
            "leaf_regions": 1,
            "group_centroids": 16 * self.param("work_dim4"),
            "codes": 16 * self.param("code_count") + 128,
            "block_centroids": 16 * self.param("code_count") + 128,
            "code_records": self.param("record_bytes"),
            "neighbours": self.param("neighbour_count") * self.param("neighbour_bytes"),
            "codebook": 64,
            "rotation": self.param("rotation_block"),
            "byte_rows": dim,
            "row_scalars": 8,
            "sets": 8,
        }
        if name in own:
            return own[name]
        return np.dtype(reader.TYPES[name]).itemsize if name in reader.TYPES else 1


def section_places(image: bytes) -> list[tuple[int, int, int]]:
    """List (table entry, offset, bytes) of the sections that lie in these bytes."""
    (count,) = struct.unpack_from("<I", image, 52)
    places = []
    for i in range(min(count, 64)):
        if len(image) < TABLE + ENTRY_BYTES * (i + 1):
            break
        _, _, offset, size, _, _, _ = reader.ENTRY.unpack_from(image, TABLE + ENTRY_BYTES * i)
        if offset + size <= len(image):
            places.append((i, offset, size))
    return places


def with_right_head(image: bytes) -> bytes:
    """Put file size, identities and header checksum right; sections' checksums stay."""
    fixed = bytearray(image)
    struct.pack_into("<Q", fixed, FILE_BYTES, len(fixed))
    count = struct.unpack_from("<I", fixed, 52)[0]
    table_end = TABLE + ENTRY_BYTES * count
    if count == 0 or count > 64 or table_end > len(fixed):
        return bytes(fixed)
    fixed[IDENTITY : IDENTITY + 16] = identity_of(fixed, count)
    with contextlib.suppress(reader.FormatProblem, ValueError, IndexError, struct.error):
        fixed[MODEL_IDENTITY : MODEL_IDENTITY + 16] = model_identity_of(fixed)
    head = bytes(fixed[:HEADER_CRC]) + bytes(4) + bytes(fixed[TABLE:table_end])
    struct.pack_into("<I", fixed, HEADER_CRC, reader.crc32c(head))
    return bytes(fixed)


def with_right_checksums(image: bytes, damaged: range | None = None) -> bytes:
    """Put everything right that follows from other bytes.

    `damaged` names the bytes that differ from a file whose checksums were right: only sections that
    overlap it are summed up again. None: all of them.
    """
    fixed = bytearray(image)
    for index, offset, size in section_places(image):
        if damaged is None or (offset < damaged.stop and damaged.start < offset + size):
            crc = reader.crc32c(image[offset : offset + size])
            struct.pack_into("<I", fixed, TABLE + ENTRY_BYTES * index + 32, crc)
    return with_right_head(bytes(fixed))


def identity_of(image: bytes | bytearray, count: int) -> bytes:
    """Compute the identity that header, params and table ask for."""
    metric, dtype, dim, _, items = struct.unpack_from("<IIIIQ", image, 40)
    content = struct.pack("<IIIQ", metric, dtype, dim, items) + bytes(image[80:84])
    content += bytes(image[100:116])
    entries = [reader.ENTRY.unpack_from(image, TABLE + ENTRY_BYTES * i) for i in range(count)]
    content += bytes(image[entries[0][2] : entries[0][2] + 128])
    for kind, flags, _, size, _, crc, _ in entries:
        if flags & 1:
            content += struct.pack("<IQI", kind, size, crc)
    return reader.fnv1a_128(content).to_bytes(16, "little")


def model_identity_of(image: bytes | bytearray) -> bytes:
    """Compute the identity of the model, of a file that can be read but for its head's checksum."""
    fixed = bytearray(image)
    end = TABLE + ENTRY_BYTES * struct.unpack_from("<I", fixed, 52)[0]
    head = bytes(fixed[:HEADER_CRC]) + bytes(4) + bytes(fixed[TABLE:end])
    struct.pack_into("<I", fixed, HEADER_CRC, reader.crc32c(head))
    return reader.IndexFile(bytes(fixed)).model_identity()


# ---- small files with everything in them ------------------------------------------------------


LEAVES_KEPT = 2


def first_leaves(image: bytes, points: int) -> bytes:
    """Cut an index of one tree and row ids down to the first points of its first two leaves.

    A small file that is scanned by codes: the library makes these from some thousand items on only.
    """
    draft = Draft.of(image)
    ranges = draft.array("leaf_ranges")
    kept = min(LEAVES_KEPT, int((ranges["count"] > 0).sum()))
    counts = np.minimum(ranges["count"][:kept], points // kept + 1).astype(np.int64)
    firsts = ranges["first"][:kept].astype(np.int64)
    slots = np.concatenate([f + np.arange(n) for f, n in zip(firsts, counts, strict=True)])
    cut_rows(draft, slots)
    if "codes" in draft.sections:
        cut_blocks(draft, "codes", ranges["block"][:kept], counts, "block_count")
    if "block_centroids" in draft.sections:
        centroids = ranges["centroid_block"][:kept]
        cut_blocks(draft, "block_centroids", centroids, -(-counts // 32), "centroid_blocks")
    cut_entries(draft, counts)
    draft.items = len(slots)
    return draft.image()


def cut_rows(draft: Draft, slots: NDArray[np.int64]) -> None:
    """Keep these slots, in this order, of all that is stored a slot."""
    rows = draft.array("slot_rows")[slots]
    new_rows = np.argsort(np.argsort(rows)).astype("<u4")
    draft.set_array("slot_rows", new_rows)
    draft.set_array("row_slots", np.argsort(new_rows).astype("<u4"))
    for name in ("vectors", "byte_rows", "row_scalars", "code_records", "neighbours"):
        if name in draft.sections:
            records = np.frombuffer(draft.sections[name], np.uint8).reshape(draft.items, -1)
            draft.sections[name] = records[slots].tobytes()
    if "neighbours" in draft.sections:
        cut_lists(draft, slots)


def cut_lists(draft: Draft, slots: NDArray[np.int64]) -> None:
    """Give neighbours the numbers of the slots kept; those that are gone leave their lists."""
    new_slots = np.full(draft.items, -1)
    new_slots[slots] = np.arange(len(slots))
    width, count = draft.param("neighbour_bytes"), draft.param("neighbour_count")
    entries = np.zeros((len(slots) * count, 4), np.uint8)
    raw = np.frombuffer(draft.sections["neighbours"], np.uint8)
    entries[:, :width] = raw.reshape(-1, width)
    lists = np.full((len(slots), count), 256**width - 1, "<u4")
    for slot, found in enumerate(entries.view("<u4").reshape(len(slots), count)):
        here = new_slots[found[found < draft.items]]
        here = here[here >= 0]
        lists[slot, : len(here)] = here
    kept = lists.view(np.uint8).reshape(-1, 4)[:, :width]
    draft.sections["neighbours"] = kept.tobytes()


def cut_blocks(
    draft: Draft, name: str, firsts: NDArray[Any], counts: NDArray[Any], param: str
) -> None:
    """Keep the blocks of so many points from each first block on; the lanes behind become zero."""
    codes = draft.param("code_count")
    blocks = np.frombuffer(draft.sections[name], np.uint8).reshape(-1, 16 * codes + 128)
    kept = []
    for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
        own = blocks[first : first + -(-count // 32)].copy()
        unused = -count % 32
        if unused:
            halves = own[-1, : 16 * codes].reshape(codes, 16)
            halves[:, 16 - min(16, unused) :] &= 0x0F
            if unused > 16:
                halves[:, 32 - unused :] &= 0xF0
            own[-1, 16 * codes + 4 * (32 - unused) :] = 0
        kept.append(own)
    draft.sections[name] = np.concatenate(kept).tobytes()
    draft.set_param(param, sum(map(len, kept)))


def cut_entries(draft: Draft, counts: NDArray[np.int64]) -> None:
    """Keep the first leaf entries, with so many points each."""
    kept, entries = len(counts), -(-len(counts) // 16) * 16
    ranges = np.zeros(entries, reader.LEAF)
    ranges["count"][:kept] = counts
    ranges["first"][:kept] = np.cumsum(counts) - counts
    if "codes" in draft.sections:
        blocks = -(-counts // 32)
        ranges["block"][:kept] = np.cumsum(blocks) - blocks
    if "block_centroids" in draft.sections:
        blocks = -(-counts // 32)
        ranges["centroid_block"][:kept] = np.cumsum(-(-blocks // 32)) - -(-blocks // 32)
    draft.set_array("leaf_ranges", ranges)
    biases = draft.array("leaf_biases")[:entries].copy()
    biases[kept:] = np.inf
    draft.set_array("leaf_biases", biases)
    for name in ("leaf_scales", "leaf_regions", "leaf_mults", "leaf_scan_factors", "leaf_radii"):
        if name in draft.sections:
            draft.set_array(name, draft.array(name)[:entries])
    centroid_bytes = draft.param("work_dim4")
    draft.sections["leaf_centroids"] = draft.sections["leaf_centroids"][: entries * centroid_bytes]
    trees = draft.array("trees")
    trees["leaves"] = entries
    draft.set_array("trees", trees)
    draft.set_param("leaf_entries", entries)


def with_groups(image: bytes) -> bytes:
    """Put the leaf blocks of an index of one tree into groups of one block each.

    The library makes groups from some thousand leaves on only.
    """
    draft = Draft.of(image)
    add_groups(draft)
    return draft.image()


def add_groups(draft: Draft) -> None:
    """As `with_groups`."""
    blocks = draft.param("leaf_entries") // 16
    entries = -(-blocks // 16) * 16
    ranges = np.zeros(entries, reader.GROUP)
    ranges["block"][:blocks] = np.arange(blocks)
    ranges["blocks"][:blocks] = 1
    draft.set_array("group_ranges", ranges)
    # The first leaf of a block stands for its group.
    dim4 = draft.param("work_dim4")
    leaf_centroids = draft.array("leaf_centroids").reshape(blocks, dim4 // 4, 16, 4)
    centroids = np.full((entries, dim4 // 4, 4), 128, np.uint8)
    centroids[:blocks] = leaf_centroids[:, :, 0]
    blocked = centroids.reshape(entries // 16, 16, dim4 // 4, 4).transpose(0, 2, 1, 3)
    draft.set_array("group_centroids", blocked)
    mults = np.ones(entries, "<f4")
    mults[:blocks] = draft.array("leaf_mults")[::16]
    draft.set_array("group_mults", mults)
    biases = np.full(entries, np.inf, "<f4")
    biases[:blocks] = draft.array("leaf_biases")[::16]
    draft.set_array("group_biases", biases)
    trees = draft.array("trees")
    trees["groups"] = entries
    draft.set_array("trees", trees)
    draft.set_param("group_entries", entries)
