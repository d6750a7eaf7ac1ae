"""Tests that all of the public interface is documented, parameter by parameter."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest

import annidx

SKIPPED = {"annidx.__main__"}  # runs the command line


def public_modules() -> list[str]:
    """Name the modules of the package that no underscore hides."""
    found = ["annidx"]
    for module in pkgutil.walk_packages(annidx.__path__, "annidx."):
        parts = module.name.split(".")[1:]
        if not any(part.startswith("_") for part in parts) and module.name not in SKIPPED:
            found.append(module.name)
    return found


def members(owner: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Go through what a class offers, inherited from annidx or its own."""
    for member in dir(owner):
        if member.startswith("_"):
            continue
        value = inspect.getattr_static(owner, member)
        defined = next(base for base in owner.__mro__ if member in vars(base))
        if defined.__module__.partition(".")[0] == "annidx":
            yield f"{name}.{member}", value


def interface() -> dict[str, Any]:
    """All public modules, their public names, and the members of classes."""
    found: dict[str, Any] = {}
    for module_name in public_modules():
        try:
            module = importlib.import_module(module_name)
        except ImportError:  # an extra that is not installed
            continue
        found[module_name] = module
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if name.startswith("__") or getattr(value, "__module__", module_name) == "typing":
                continue
            if inspect.isclass(value) or callable(value):
                found[f"{module_name}.{name}"] = value
            if inspect.isclass(value):
                found.update(members(value, f"{module_name}.{name}"))
    return found


INTERFACE = interface()


def documented(value: Any) -> str:
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    return inspect.getdoc(value) or ""


@pytest.mark.parametrize("name", INTERFACE)
def test_every_public_thing_is_documented(name: str) -> None:
    assert len(documented(INTERFACE[name]).split()) >= 2, name


def test_the_interface_was_found() -> None:
    wanted = {"annidx.Index", "annidx.Index.query", "annidx.load", "annidx.IdSet"}
    assert wanted <= INTERFACE.keys()
    assert len(INTERFACE) > 100


@pytest.mark.parametrize(
    "name", ["annidx.load"] + [name for name in INTERFACE if name.startswith("annidx.Index.")]
)
def test_every_parameter_is_documented(name: str) -> None:
    value = INTERFACE[name]
    if isinstance(value, property) or not callable(value):
        return
    try:
        parameters = list(inspect.signature(value).parameters)
    except ValueError:  # compiled, without a signature
        parameters = []
    text = documented(value)
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", text, re.M | re.S)
    told = section[1] if section else text
    for parameter in parameters:
        if parameter != "self":
            assert re.search(rf"\b{parameter}\b", told), f"{name}: {parameter}"
