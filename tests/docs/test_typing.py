"""Owns the test of the types that annidx ships: mypy accepts good code and refuses bad."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

import annidx
from annidx import _core

EXAMPLES = Path(__file__).with_name("typing_examples.py")
Check = Callable[[Path], tuple[str, int]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name a folder where mypy keeps what it has read of NumPy."""
    return tmp_path_factory.mktemp("mypy")


@pytest.fixture
def check(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run mypy --strict on a file, against the annidx that is imported here."""
    api = pytest.importorskip("mypy.api")
    monkeypatch.chdir(tmp_path)
    parent = Path(annidx.__file__).parents[1]
    if parent.name != "site-packages":  # built in place: mypy does not find it by itself
        monkeypatch.setenv("MYPYPATH", str(parent))
    options = ["--strict", "--config-file=", f"--cache-dir={cache}"]

    def run(path: Path) -> tuple[str, int]:
        output, errors, status = api.run([*options, str(path)])
        return output + errors, status

    return run


def test_types_are_shipped() -> None:
    folder = Path(annidx.__file__).parent
    assert (folder / "py.typed").exists() and (folder / "_core" / "binding.pyi").exists()


def test_good_code_is_accepted(check: Check) -> None:
    output, status = check(EXAMPLES)
    assert status == 0, output


BAD = """
import annidx
annidx.Index("128", "euclidean")  # [arg-type]
annidx.Index(128, "euclidean").query([1.0], k="ten")  # [arg-type]
annidx.Index(128, "euclidean").add_items([[1.0]], id=[1])  # [call-arg]
annidx.load(5)  # [call-overload]
annidx.load("x").build(progress="bar")  # [arg-type]
annidx.load("x").query_exact([1.0], recall=1)  # [call-arg]
annidx.load("x").dim = 3  # [misc]
annidx.IdSet([1], [2])  # [arg-type]
"""


def test_bad_code_is_refused(check: Check, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    output, status = check(tmp_path / "bad.py")
    assert status == 1
    lines = BAD.splitlines()
    for number, line in enumerate(lines, start=1):
        if "#" in line:
            code = line.split("# ")[1]
            assert any(
                text.startswith(f"bad.py:{number}:") and code in text
                for text in output.splitlines()
            ), (line, output)


def test_signatures_agree_with_the_stub() -> None:
    """The stub of the binding tells the parameters that the compiled module has."""
    stub = Path(_core.__file__).with_name("binding.pyi")
    classes = {
        node.name: node
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    for node in (classes["SlotBits"], classes["CoreIndex"]):
        real = getattr(_core, node.name)
        for member in node.body:
            assert isinstance(member, ast.FunctionDef)
            assert hasattr(real, member.name), member.name
            if member.name.startswith("__") or member.decorator_list:
                continue
            expected = [a.arg for a in (*member.args.args, *member.args.kwonlyargs)]
            found = list(inspect.signature(getattr(real, member.name)).parameters)
            assert found == expected, member.name
        public = {name for name in vars(real) if not name.startswith("_")}
        assert public <= {member.name for member in node.body if hasattr(member, "name")}
