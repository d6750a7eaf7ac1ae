#!/usr/bin/env bash
# How the sources look: ruff for Python (pyproject.toml), clang-format for C++ (.clang-format), mypy
# for types. Any finding is a failure. Needs the extra `lint`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ruff format --check .
ruff check .
git ls-files '*.h' '*.cpp' '*.inc' | xargs clang-format --dry-run -Werror
mypy
