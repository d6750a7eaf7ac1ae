#!/usr/bin/env bash
# Compiles the core for ARM, with Debian's cross compiler (g++-aarch64-linux-gnu) or zig's from PyPI,
# and runs it on an emulated processor (qemu-user), with the dot product instructions and without: the
# tests of the kernels against naive code, those of the format, and whether indexes, golden files and
# answers are the same to the bit as those of the annidx that is installed here. What lacks a tool is
# left out with a line that says so. Environment: PYTHON, the interpreter that has annidx (python3).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
jobs=$(getconf _NPROCESSORS_ONLN)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"

qemu=$(command -v qemu-aarch64-static qemu-aarch64 | head -1) || true
[ -n "$qemu" ] || { echo "no qemu-aarch64 on this machine: left out"; exit 0; }
if command -v aarch64-linux-gnu-g++ >/dev/null; then
  compiler="aarch64-linux-gnu-g++ -static"
elif "$python" -c "import ziglang" 2>/dev/null; then
  compiler="$python -m ziglang c++ -target aarch64-linux-musl"
else
  echo "no aarch64-linux-gnu-g++ and no ziglang for $python: left out"
  exit 0
fi
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' annidx/_version.py)
compile="$compiler -std=c++17 -O2 -ffp-contract=off -pthread -Isrc_c"
compile+=" -DANNIDX_VERSION='\"$version\"'"
echo 'int main() {}' >"$work/main.cpp"
$compiler "$work/main.cpp" -o "$work/main"  # zig makes its C++ library once, before many ask
mkdir "$work/core"
printf '%s\n' src_c/*/*.cpp | xargs -P "$jobs" -I{} bash -c \
  "$compile -c {} -o $work/core/\$(basename {} .cpp).o"
ar rcs "$work/core.a" "$work"/core/*.o
printf '%s\n' test_kernels test_format test_tiles same_bytes | xargs -P "$jobs" -I{} bash -c \
  "$compile tests/cpp/{}.cpp $work/core.a -o $work/{}"
echo "compiled for ARM by $compiler"

status=0
run() {
  local cpu=$1 name=$2
  "$qemu" -cpu "$cpu" "$work/$name" >"$work/$name.log" 2>&1 ||
    { tail -20 "$work/$name.log"; status=1; }
  echo "$name on $cpu: $(tail -1 "$work/$name.log")"
}
for name in test_kernels test_tiles; do
  for cpu in cortex-a53 max; do run "$cpu" "$name"; done
done
run max test_format

golden=(tests/golden/v2/*.annidx)
if ! "$python" -c "import annidx" 2>/dev/null; then
  echo "no annidx for $python: bytes not compared"
  exit "$status"
fi
"$python" tests/same_bytes.py "${golden[@]}" >"$work/here"
for cpu in cortex-a53 max; do
  "$qemu" -cpu "$cpu" "$work/same_bytes" "${golden[@]}" >"$work/there" || status=1
  if diff "$work/here" "$work/there" >"$work/difference"; then
    echo "$(wc -l <"$work/there") built and golden files on $cpu: same bytes, same answers"
  else
    cut -c 1-150 "$work/difference" | head -20
    status=1
  fi
done
exit "$status"
