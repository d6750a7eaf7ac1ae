#!/bin/sh
# Builds the extension with sanitizers, in copies of the tree, and runs tests with it; runs the C++
# tests under valgrind and the fuzz targets for a minute. Any finding is a failure.
#
#   tests/sanitize.sh [address] [thread] [leaks] [valgrind] [fuzz]      (all of them when none is named)
#
# PYTHON names the interpreter (default python3); FUZZ_SECONDS (60) is for each fuzz target. Needs GCC
# with its sanitizers, valgrind, and for fuzz clang. Copies and inputs are kept in SANITIZE_DIR
# (default: a temporary folder, removed at the end).
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
seconds=${FUZZ_SECONDS:-60}
work=${SANITIZE_DIR:-$(mktemp -d)}
[ -n "${SANITIZE_DIR:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"

# What is done with a damaged file, a failing system, threads and forks; and the face as a whole.
address_tests="tests/test_mutations.py tests/test_errors.py tests/test_follow.py
  tests/test_save_faults.py tests/test_api.py"
thread_tests="tests/test_threads_fork_pickle.py tests/test_follow.py tests/test_publish.py"
# Under sanitizers these measure the sanitizer: time, memory, or the compiler.
not_here="not killed and not out_of_memory and not room_for_the_mapping and not typing and not little_memory"

# A copy of the tree with the extension built so, in $work/$1.
build() {
  copy=$work/$1
  mkdir -p "$copy"
  (cd "$root" && tar cf - --exclude=./.git --exclude=./build --exclude='*.so' \
    --exclude=./annidx/_core.cpp --exclude=./bench/data --exclude=./tests/fuzz/build .) |
    (cd "$copy" && tar xf -)
  (cd "$copy" && ANNIDX_SANITIZE=$2 "$python" setup.py -q build_ext --inplace >build.log 2>&1) ||
    { tail -20 "$copy/build.log"; exit 1; }
}

# The C++ runtime comes along: a sanitizer must find the function that throws when it starts.
runtime() { printf '%s %s' "$(gcc -print-file-name="$1")" "$(gcc -print-file-name=libstdc++.so)"; }

run_address() {
  build address address,undefined
  cd "$work/address"
  LD_PRELOAD=$(runtime libasan.so) \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_abort=0 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONPATH=. PYTHONMALLOC=malloc \
    "$python" -m pytest -q -p no:cacheprovider -x -k "$not_here" $address_tests
}

run_thread() {
  build thread thread
  cd "$work/thread"
  LD_PRELOAD=$(runtime libtsan.so) TSAN_OPTIONS=halt_on_error=1:exitcode=66 PYTHONPATH=. \
    setarch -R "$python" -m pytest -q -p no:cacheprovider -x -k "$not_here" $thread_tests
}

# Python keeps memory to the end; what counts is memory that the core asked for.
run_leaks() {
  [ -d "$work/address" ] || build address address,undefined
  cd "$work/address"
  LD_PRELOAD=$(runtime libasan.so) ASAN_OPTIONS=detect_leaks=1:exitcode=0 PYTHONMALLOC=malloc \
    LSAN_OPTIONS=max_leaks=0:report_objects=0 PYTHONPATH=. "$python" - >leaks.log 2>&1 <<'END'
import sys, threading
sys.path[:0] = ["tests", "tests/fuzz"]
from pathlib import Path
import numpy as np
import annidx, mutants
from interview import interview

path = Path("leaks.annidx")
for metric in mutants.make_seeds.STORAGE:
    sources = mutants.sound_images(metric)
    for number in range(60):
        path.write_bytes(mutants.mutant(metric, number, sources).image)
        thread = threading.Thread(target=interview, args=(path,))
        thread.start()
        thread.join()
    for image in sources:
        path.write_bytes(image)
        interview(path)
print("asked all")
END
  grep -q "asked all" leaks.log || { tail -30 leaks.log; exit 1; }
  if grep -E "src_c/|annidx::|_core\.cpp" leaks.log; then
    echo "memory of the core leaks: see $PWD/leaks.log"
    exit 1
  fi
  echo "no memory of the core leaks"
}

run_valgrind() {
  cd "$root"
  mkdir -p "$work/cpp"
  for source in tests/cpp/test_*.cpp; do
    program=$work/cpp/$(basename "$source" .cpp)
    g++ -std=c++17 -g -O1 -ffp-contract=off -DANNIDX_VERSION='"test"' -Isrc_c -pthread "$source" \
      src_c/*.cpp src_c/simd/*.cpp -o "$program"
    echo "valgrind $(basename "$program")"
    valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,possible \
      "$program" | tail -1
  done
}

run_fuzz() {
  make -s -C "$root/tests/fuzz" OUT="$work/fuzz"
  PYTHONPATH=$root "$python" "$root/tests/fuzz/make_seeds.py" "$work/seeds" >/dev/null
  for target in index annoy ids; do
    mkdir -p "$work/seeds/$target" "$work/found-$target"
    cp "$root"/tests/crashers/"$(echo $target | sed s/index/annidx/)"/* "$work/seeds/$target" \
      2>/dev/null || true
    echo "fuzz_$target, $seconds seconds"
    "$work/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
      -malloc_limit_mb=256 -max_len=40000 -print_final_stats=1 -verbosity=1 \
      -artifact_prefix="$work/found-$target/" "$work/seeds/$target" >"$work/$target.log" 2>&1 ||
      { tail -40 "$work/$target.log"; exit 1; }
    grep stat::number_of_executed_units "$work/$target.log"
  done
}

for part in ${*:-address leaks thread valgrind fuzz}; do
  echo "== $part"
  (run_"$part")
done
