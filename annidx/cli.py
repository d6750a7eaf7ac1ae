"""Owns the command `annidx`: arguments, output and exit codes around the public Python API.

It must not touch the binding: whatever the command line does, a program can do with the API.
Exit codes: 0 done, 1 a file or its content is wrong, 2 the command line is wrong, 130 interrupted.
An error is one line on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

import annidx
from annidx._inputs import require_replaceable
from annidx._readers import Ids, InputError, ids_from_text, read_ids, read_table
from annidx._terminal import ProgressBar, Style, human_bytes, human_seconds, table

METRICS = ("angular", "cosine", "euclidean", "manhattan", "dot", "hamming")
ANNOY_METRICS = ("angular", "euclidean", "manhattan", "dot", "hamming")
DTYPES = ("float32", "float16", "int8", "uint8", "bits")

_OK, _FAILED, _USAGE, _INTERRUPTED, _PIPE_CLOSED = 0, 1, 2, 130, 141
_QUERY_BATCH = 1_024  # vectors of a query file that are answered at a time
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?", re.IGNORECASE)
_INPUTS = ".npy, .npz, .fvecs, .bvecs, .ivecs, .parquet, .hdf5, or text (CSV and the like)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit code.
    """
    try:
        arguments, unknown = _parser().parse_known_args(argv)
        if unknown:
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: --help, --version or a usage error
        return stop.code if isinstance(stop.code, int) else _FAILED
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # Python flushes stdout once more at exit: let it flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyError as error:
        return _fail(f"the index has no item {error}", _FAILED)
    except OSError as error:
        return _fail(_about_file(error), _FAILED)
    except MemoryError as error:
        return _fail(str(error) or "out of memory", _FAILED)
    except (ValueError, IndexError, RuntimeError, ImportError) as error:
        return _fail(str(error), _FAILED)
    return _OK


def _fail(message: str, code: int) -> int:
    print(f"annidx: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _about_file(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{os.fspath(error.filename)}: {reason}" if error.filename else reason


class _Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error with the command that explains more, and leave with code 2."""
        _fail(f"{message} (see {self.prog} --help)", _USAGE)
        raise SystemExit(_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="annidx",
        description="Approximate nearest neighbours from one file that every process maps.",
        epilog="New here? Try: annidx demo",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"annidx {annidx.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name, help=command.summary, description=command.summary, allow_abbrev=False
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run, parser=sub)
    return parser


# ---- types of arguments ------------------------------------------------------------------


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, found {text!r}")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more, found {text!r}")
    return int(text)


def _jobs(text: str) -> int:
    return -1 if text == "-1" else _positive(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1], found {text!r}")
    return value


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size such as 800M or 4GiB, found {text!r}")
    number, unit, binary = match.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** " kmgt".index(unit.lower() or " "))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected key=value, found {text!r}")
    return key, value


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=_jobs, default=-1, metavar="N", help="threads (all cores)")


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--n-trees", type=_positive, metavar="N", help="trees (chosen by the library)")
    add("--recall", type=_share, default=0.95, metavar="R", help="what queries aim at (0.95)")
    add(
        "--neighbours",
        type=_not_negative,
        metavar="N",
        help="near items kept for each item, 0 to 128 (16)",
    )
    add("--seed", type=_not_negative, default=0, metavar="N", help="same seed, same file (0)")
    _add_jobs(parser)


def _build_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "n_trees": arguments.n_trees,
        "recall": arguments.recall,
        "neighbours": arguments.neighbours,
        "seed": arguments.seed,
        "n_jobs": arguments.jobs,
    }


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", metavar="INDEX", help="an index file")


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", metavar="NAME", help="the array of an .npz or .hdf5, the column of a .parquet"
    )


# ---- demo --------------------------------------------------------------------------------


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="WORD", help="words to find neighbours of")
    parser.add_argument("-k", type=_positive, default=10, help="neighbours of a word (10)")
    parser.add_argument("--save", metavar="FILE", help="keep the index that the demo builds")
    _add_force(parser)


def _demo(arguments: argparse.Namespace) -> None:
    from annidx import demo

    force = arguments.force
    if arguments.save is not None:
        require_replaceable(arguments.save, force=force)
    if arguments.words:
        demo.answer(sys.stdout, arguments.words, arguments.k, arguments.save, force=force)
    else:
        demo.tour(sys.stdout, arguments.save, force=force)


# ---- build -------------------------------------------------------------------------------


def _add_build(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="INPUT", help=f"vectors: {_INPUTS}")
    add("-o", "--output", required=True, metavar="FILE", help="the index file to write")
    add("--metric", required=True, choices=METRICS, help="what near means")
    add("--dtype", choices=DTYPES, help="how vectors are kept (as the input has them)")
    add("--packed", action="store_true", help="hamming: each byte of the input is eight bits")
    _add_key(parser)
    ids = parser.add_mutually_exclusive_group()
    ids.add_argument("--ids", metavar="FILE", help="ids: text, one a line, or .npy")
    ids.add_argument(
        "--id-column", metavar="NAME", help="column of ids in a text or .parquet input, or number"
    )
    add("--queries", metavar="FILE", help="typical queries, to measure recall with")
    _add_build_options(parser)
    add(
        "--metadata",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="text to keep in the file; may be given several times",
    )
    add("--memory-limit", type=_size, metavar="SIZE", help="memory to stay below, such as 2G")
    _add_force(parser)


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="replace a file of another kind than annidx's own"
    )


def _build(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    require_replaceable(arguments.output, force=arguments.force)
    index = _filled(arguments)
    queries = None
    if arguments.queries is not None:
        queries = _read_queries(index, arguments.queries)
    options = _build_options(arguments)
    if arguments.memory_limit is not None:
        options.update(
            out=arguments.output, memory_limit=arguments.memory_limit, force=arguments.force
        )
    with _progress() as progress:
        index.build(queries=queries, progress=progress, **options)
        if arguments.metadata or "out" not in options:
            metadata = dict(arguments.metadata) or None
            index.save(arguments.output, metadata, progress=progress, force=arguments.force)
    _report_built(arguments.output, len(index), start)


def _report_built(path: str, count: int, start: float) -> None:
    size = human_bytes(os.path.getsize(path))
    print(f"{path}: {count:,} vectors, {size}, in {human_seconds(time.monotonic() - start)}")


def _filled(arguments: argparse.Namespace) -> annidx.Index:
    """Make an index of the input's form and put the input in."""
    table = read_table(arguments.input, arguments.key, arguments.id_column)
    ids: Ids | None = table.ids
    if arguments.ids is not None:
        ids = read_ids(arguments.ids)
        if len(ids) != len(table.vectors):
            raise InputError(
                f"{arguments.ids}: {len(ids):,} ids for {len(table.vectors):,} vectors"
            )
    columns = table.vectors.shape[1]
    index = annidx.Index(
        dim=columns * 8 if arguments.packed else columns,
        metric=arguments.metric,
        dtype=arguments.dtype or _natural_dtype(arguments.metric, table.vectors.dtype),
    )
    index.add_items(table.vectors, ids, packed=arguments.packed)
    return index


def _natural_dtype(metric: str, given: np.dtype[Any]) -> str | None:
    """Keep small numbers small where the metric can; for everything else the API's default."""
    if metric == "hamming":
        return None
    if given == np.uint8:
        return "uint8" if metric in ("euclidean", "manhattan") else None
    return str(given) if given in (np.int8, np.float16) else None


def _read_queries(index: annidx.Index, path: str, key: str | None = None) -> npt.NDArray[Any]:
    """Read vectors that fit an index; packed bits are recognised by their number."""
    vectors = read_table(path, key).vectors
    columns = vectors.shape[1]
    if index.metric == "hamming" and columns == (index.dim + 7) // 8 < index.dim:
        if vectors.dtype != np.uint8:
            raise InputError(f"{path}: packed bits are uint8, found {vectors.dtype}")
        return np.unpackbits(vectors, axis=1, count=index.dim)
    if columns != index.dim:
        raise InputError(f"{path}: {columns} dimensions, the index has {index.dim}")
    return vectors


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a callable that shows progress on a terminal, and wipe the bar away at the end."""
    bar = ProgressBar(sys.stderr)
    try:
        yield bar.update
    finally:
        bar.clear()


# ---- query -------------------------------------------------------------------------------

_Answer = tuple[int | str, list[Any], list[float]]  # what was asked, ids, distances


def _add_query(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_index(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--item", nargs="+", metavar="ID", help="neighbours of these items")
    what.add_argument("--vectors", metavar="FILE", help=f"neighbours of vectors: {_INPUTS}")
    _add_key(parser)
    add("-k", type=_positive, default=10, help="neighbours of each (10)")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--recall", type=_share, metavar="R", help="target (that of the build)")
    effort.add_argument("--search-k", type=_positive, metavar="N", help="candidates to inspect")
    add("--radius", type=float, metavar="D", help="only items at this distance or nearer")
    add("--allow", metavar="FILE", help="ids that may be returned: text or .npy")
    add("--deny", metavar="FILE", help="ids that may not be returned")
    _add_jobs(parser)
    add("--json", action="store_true", help="a line of JSON for each query")


def _query(arguments: argparse.Namespace) -> None:
    style = Style(sys.stdout)
    with annidx.load(arguments.index) as index:
        for number, (asked, ids, distances) in enumerate(_answers(index, arguments)):
            if arguments.json:
                print(json.dumps({"query": asked, "ids": ids, "distances": distances}))
                continue
            if number:
                print()
            print(style(f"nearest to {asked}", "bold"))
            rows = [
                [str(rank), str(item), f"{distance:.6g}"]
                for rank, (item, distance) in enumerate(zip(ids, distances, strict=True), 1)
            ]
            print("\n".join(table(("rank", "id", "distance"), rows, "><>", style)))


def _answers(index: annidx.Index, arguments: argparse.Namespace) -> Iterator[_Answer]:
    options = _search_options(index, arguments)
    asked: Sequence[int | str]
    if arguments.item is not None:
        asked = _ids_of(index, arguments.item, "--item")
        ask: Callable[..., Any] = index.query_items
        queries: Any = asked
    else:
        queries = _read_queries(index, arguments.vectors, arguments.key)
        asked = range(len(queries))
        ask = index.query
    for start in range(0, len(asked), _QUERY_BATCH):
        part = slice(start, start + _QUERY_BATCH)
        ids, distances = ask(queries[part], **options)
        yield from _unpacked(asked[part], ids, distances)


def _search_options(index: annidx.Index, arguments: argparse.Namespace) -> dict[str, Any]:
    """Collect what all kinds of queries take; what was not given stays the API's default."""
    options: dict[str, Any] = {"k": arguments.k, "n_jobs": arguments.jobs}
    for name in ("recall", "search_k", "radius"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    for name in ("allow", "deny"):
        path = getattr(arguments, name)
        if path is not None:
            options[name] = annidx.IdSet(index, _ids_of(index, read_ids(path), path))
    return options


def _ids_of(index: annidx.Index, ids: Ids, where: str) -> list[Any]:
    """Bring ids as they were read to the kind that the index has."""
    texts = [str(item) for item in ids]
    if index.info()["ids"] == "str":
        return texts
    numbers = ids_from_text(texts)
    if isinstance(numbers, np.ndarray):
        return [int(number) for number in numbers]
    wrong = next(text for text in texts if isinstance(ids_from_text([text]), list))
    raise InputError(f"{where}: {wrong!r} is no id of this index, whose ids are integers")


def _unpacked(
    asked: Iterable[int | str], ids: npt.NDArray[Any], distances: npt.NDArray[np.float64]
) -> Iterator[_Answer]:
    """Split a batch into answers, without the empty places of its rows."""
    for one, row, far in zip(asked, ids, distances, strict=True):
        found = ~np.isnan(far)
        yield one, row[found].tolist(), far[found].tolist()


# ---- ids and export ----------------------------------------------------------------------


def _add_ids(parser: argparse.ArgumentParser) -> None:
    _add_index(parser)
    parser.add_argument("--json", action="store_true", help="each id as JSON, one a line")


def _ids(arguments: argparse.Namespace) -> None:
    with annidx.load(arguments.index) as index:
        for item in index:
            print(json.dumps(item, ensure_ascii=False) if arguments.json else item)


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_index(parser)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="FILE", help="a .npy or .parquet file to write")
    add("--packed", action="store_true", help="hamming, .npy: each byte eight bits")
    add("--force", action="store_true", help="replace a file that exists")


def _export(arguments: argparse.Namespace) -> None:
    with annidx.load(arguments.index) as index:
        index.export(arguments.output, packed=arguments.packed, force=arguments.force)
        count = len(index)
    print(
        f"{arguments.output}: {count:,} vectors, {human_bytes(os.path.getsize(arguments.output))}"
    )


# ---- info and verify ---------------------------------------------------------------------


def _add_info(parser: argparse.ArgumentParser) -> None:
    _add_index(parser)
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _info(arguments: argparse.Namespace) -> None:
    with annidx.load(arguments.index) as index:
        info = index.info()
    if arguments.json:
        print(json.dumps(info, indent=2))
        return
    style = Style(sys.stdout)
    print(style(arguments.index, "bold"))
    for name, value in _facts(info):
        print(f"  {style(f'{name:<10}', 'dim')} {value}")
    print("\n  recall as measured, and points inspected for it")
    for line in _curve_table(_steps_of(info["curve"]), style):
        print(f"  {line}")


def _facts(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Put what a person wants to know first into a few lines."""
    yield "vectors", f"{info['items']:,} of {info['dim']} dimensions, kept as {info['dtype']}"
    yield "metric", info["metric"]
    yield "ids", {"int": "integers", "str": "text"}[info["ids"]]
    rest = human_bytes(info["file_bytes"] - info["vector_bytes"])
    yield "file", f"{human_bytes(info['file_bytes'])}, of which the vectors leave {rest}"
    trees = "1 tree" if info["n_trees"] == 1 else f"{info['n_trees']} trees"
    yield "index", f"{trees}, {info['leaves']:,} leaves"
    yield "target", f"recall {info['default_recall']:g}"
    yield "format", f"{info['format_version']}, written by annidx {info['library_version']}"
    yield "identity", info["identity"]
    for key, value in (info["metadata"] or {}).items():
        yield "metadata", f"{key} = {value if isinstance(value, str) else json.dumps(value)}"


def _steps_of(curve: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose, for each k, the first point of a curve that reaches each of some round recalls."""
    steps: list[dict[str, Any]] = []
    for k in sorted({point["k"] for point in curve}):
        points = [point for point in curve if point["k"] == k]
        for target in (0.8, 0.9, 0.95, 0.99, 0.999):
            reached = next((point for point in points if point["recall"] >= target), None)
            if reached is not None and reached not in steps:
                steps.append(reached)
    return steps


def _curve_table(curve: Sequence[dict[str, Any]], style: Style) -> list[str]:
    rows = [
        [str(point["k"]), f"{point['recall']:.4f}"]
        + [f"{point[stage]:,}" for stage in ("candidates", "rerank", "exact")]
        for point in curve
    ]
    return table(("k", "recall", "candidates", "re-ranked", "exact"), rows, ">>>>>", style)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", nargs="+", metavar="INDEX", help="index files")


def _verify(arguments: argparse.Namespace) -> None:
    for path in arguments.index:
        annidx.verify(path)
        print(f"{path}: sound")


# ---- tune and convert --------------------------------------------------------------------


def _add_tune(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_index(parser)
    add("--queries", required=True, metavar="FILE", help=f"typical queries: {_INPUTS}")
    _add_key(parser)
    add("-k", type=_positive, default=10, help="neighbours that recall counts (10)")
    add("-o", "--output", metavar="FILE", help="keep the measured curve: save the index there")
    _add_force(parser)
    _add_jobs(parser)
    add("--json", action="store_true", help="a line of JSON for each point")


def _tune(arguments: argparse.Namespace) -> None:
    if arguments.output is not None:
        require_replaceable(arguments.output, force=arguments.force)
    with annidx.load(arguments.index) as index:
        queries = _read_queries(index, arguments.queries, arguments.key)
        with _progress() as progress:
            curve = index.tune(queries, arguments.k, n_jobs=arguments.jobs, progress=progress)
            if arguments.output is not None:
                index.save(arguments.output, force=arguments.force)
    if arguments.json:
        lines = [json.dumps(point) for point in curve]
    else:
        lines = _curve_table(curve, Style(sys.stdout))
    print("\n".join(lines))


def _add_convert(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="OLD", help="a file that Annoy wrote")
    add("output", metavar="NEW", help="the index file to write")
    add("--dim", type=_positive, required=True, metavar="N", help="dimension of its vectors")
    add("--metric", choices=ANNOY_METRICS, required=True, help="the metric it was built with")
    _add_build_options(parser)
    _add_force(parser)


def _convert(arguments: argparse.Namespace) -> None:
    from annidx import annoy

    start = time.monotonic()
    with _progress() as progress:
        count = annoy.convert(
            arguments.input,
            arguments.output,
            arguments.dim,
            arguments.metric,
            progress=progress,
            force=arguments.force,
            **_build_options(arguments),
        )
    _report_built(arguments.output, count, start)


# ---- the commands ------------------------------------------------------------------------


class Command(NamedTuple):
    """One subcommand: what it is for, its arguments, and the function that does it."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


COMMANDS = {
    "demo": Command("Show what annidx does, on 30,000 words that come with it.", _add_demo, _demo),
    "build": Command("Build an index file from a file of vectors.", _add_build, _build),
    "query": Command("Find nearest neighbours in an index file.", _add_query, _query),
    "info": Command("Tell what an index file holds.", _add_info, _info),
    "verify": Command("Check every checksum and every rule of a file.", _add_verify, _verify),
    "ids": Command("Print the ids of all items, in the order they were added.", _add_ids, _ids),
    "export": Command("Write an index's vectors to a .npy or .parquet file.", _add_export, _export),
    "tune": Command("Measure recall with your own queries.", _add_tune, _tune),
    "convert": Command("Turn a file of Annoy into an annidx index.", _add_convert, _convert),
}
