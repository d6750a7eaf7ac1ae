#!/usr/bin/env bash
# Compiles the core and its tests for Windows, with zig's compiler from PyPI, which is the one of the
# wheels for Windows, and runs the tests under wine. Without zig (pip install ziglang) or wine it says
# what is left out. Environment: PYTHON, the interpreter that has ziglang (python3).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
jobs=$(getconf _NPROCESSORS_ONLN)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Those of the others that need fork or guarded pages stay on POSIX systems.
readonly TESTS="blocks file_everywhere format ids neighbours tiles"

"$python" -c "import ziglang" 2>/dev/null || { echo "no ziglang for $python: left out"; exit 0; }
compiler="$python -m ziglang c++ -target x86_64-windows-gnu -std=c++17 -O1 -ffp-contract=off -Wall"
compiler+=' -Wno-unused-command-line-argument -DANNIDX_VERSION="\"test\"" -Isrc_c'
cd "$root"
# The C++ library is made once, before many ask for it.
echo 'int main() {}' >"$work/main.cpp"
$compiler "$work/main.cpp" -o "$work/main.exe"
mkdir "$work/core"
printf '%s\n' src_c/*/*.cpp | xargs -P "$jobs" -I{} bash -c \
  "$compiler -c {} -o $work/core/\$(basename {} .cpp).o"
"$python" -m ziglang ar rcs "$work/core.a" "$work"/core/*.o
printf '%s\n' $TESTS | xargs -P "$jobs" -I{} bash -c \
  "$compiler tests/cpp/test_{}.cpp $work/core.a -o $work/test_{}.exe"
echo "compiled for Windows: the core and the tests of $TESTS"

wine=$(command -v wine64 wine /usr/lib/wine/wine64 | head -1) || true
[ -n "$wine" ] || { echo "no wine on this machine: not run"; exit 0; }
export WINEPREFIX=$work/wine WINEDEBUG=-all
status=0
cd "$work"
for name in $TESTS; do
  "$wine" "test_$name.exe" >"$name.log" 2>&1 || { tail -20 "$name.log"; status=1; }
  echo "test_$name under wine: $(tail -1 "$name.log")"
done
"${wine%wine*}wineserver" -k 2>/dev/null || true
exit "$status"
