"""Owns the version of annidx. setup.py and pyproject.toml read it, the C++ side gets it there."""

__version__ = "0.1.0"
