#!/usr/bin/env bash
# Looks for what no answer shows: the C++ tests and the extension with sanitizers, memory that leaks,
# the C++ tests under valgrind, the fuzz targets. Any finding is a failure.
#
#   tests/sanitize.sh [cpp] [address] [leaks] [thread] [valgrind] [fuzz]   (all when none is named)
#
# A part whose tools are not installed is left out, and says so. Environment:
#   PYTHON          the interpreter (python3); it needs what setup.py and the tests need
#   QUICK=1         leaves out and shortens the longest tests of the extension with ThreadSanitizer
#   FUZZ_SECONDS    for the three fuzz targets, which run side by side (60)
#   SANITIZE_DIR    where copies, programs and inputs are kept (a temporary folder, removed at the end)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
seconds=${FUZZ_SECONDS:-60}
jobs=$(getconf _NPROCESSORS_ONLN)
work=${SANITIZE_DIR:-$(mktemp -d)}
[ -n "${SANITIZE_DIR:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"

# What is done with a damaged file, a failing system, threads and forks; and the face as a whole.
address_tests="tests/hostile/test_mutations.py tests/hostile/test_errors.py tests/service/test_follow.py
  tests/hostile/test_save_faults.py tests/index/test_api.py"
thread_tests="tests/service/test_threads_fork_pickle.py tests/service/test_follow.py tests/service/test_publish.py"
# Under sanitizers these measure the sanitizer: time, memory, or the compiler.
not_here="not killed and not out_of_memory and not room_for_the_mapping and not typing and not little_memory"

missing() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null && continue
    echo "no $tool on this machine: left out"
    return 0
  done
  return 1
}

# Some machines have a compiler without the libraries of its sanitizers.
cannot_link() {
  echo "$3" | "$1" -x c++ - "$2" -o "$work/probe" 2>/dev/null && return 1
  echo "$1 $2 does not work on this machine: left out"
}
any_program='int main() {}'
any_target='extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'

# The core and the C++ tests compiled with these flags: $work/$1/test_*.
compile_cpp() {
  local into=$work/$1 compiler="g++ -std=c++17 -g -O1 -ffp-contract=off -pthread $2"
  compiler+=' -DANNIDX_VERSION="\"test\"" -Isrc_c'
  mkdir -p "$into/core"
  cd "$root"
  printf '%s\n' src_c/*/*.cpp | xargs -P "$jobs" -I{} bash -c \
    "$compiler -c {} -o $into/core/\$(basename {} .cpp).o"
  ar rcs "$into/core.a" "$into"/core/*.o
  printf '%s\n' tests/cpp/test_*.cpp | xargs -P "$jobs" -I{} bash -c \
    "$compiler {} $into/core.a -o $into/\$(basename {} .cpp)"
}

# Runs the compiled tests side by side, each under a command, and tells the last line of each.
run_cpp_tests() {
  local into=$work/$1
  cd "$root"
  printf '%s\n' "$into"/test_* | xargs -P "$jobs" -I{} bash -c "set -o pipefail
    if $2 {} >{}.log 2>&1; then echo \"\$(basename {}): \$(tail -1 {}.log)\"
    else echo \"\$(basename {}) failed\"; tail -40 {}.log; exit 1; fi"
}

run_cpp() {
  missing g++ && return
  cannot_link g++ -fsanitize=address,undefined "$any_program" && return
  compile_cpp cpp "-fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
  run_cpp_tests cpp ""
}

run_valgrind() {
  missing g++ valgrind && return
  compile_cpp valgrind ""
  run_cpp_tests valgrind "valgrind -q --error-exitcode=9 --leak-check=full \
    --errors-for-leak-kinds=definite,possible"
}

# A copy of the tree with the extension built so, in $work/$1.
build() {
  local copy=$work/$1
  mkdir -p "$copy"
  (cd "$root" && tar cf - --exclude=./.git --exclude=./build --exclude='*.so' \
    --exclude=./annidx/_core/binding.cpp --exclude=./bench/data --exclude=./tests/fuzz/build .) |
    (cd "$copy" && tar xf -)
  (cd "$copy" && ANNIDX_SANITIZE=$2 "$python" setup.py -q build_ext --inplace >build.log 2>&1) ||
    { tail -20 "$copy/build.log"; exit 1; }
}

# The C++ runtime comes along: a sanitizer must find the function that throws when it starts.
runtime() { printf '%s %s' "$(gcc -print-file-name="$1")" "$(gcc -print-file-name=libstdc++.so)"; }

# Tests of the copy $1 with the sanitizer's library $2.
run_tests() {
  local copy=$work/$1 library=$2
  shift 2
  cd "$copy"
  LD_PRELOAD=$(runtime "$library") PYTHONPATH=$copy PYTHONMALLOC=malloc \
    "$@" -m pytest -q -p no:cacheprovider -k "$not_here" $tests
}

run_address() {
  missing gcc g++ && return
  cannot_link g++ -fsanitize=address,undefined "$any_program" && return
  build address address,undefined
  local tests=$address_tests
  "$python" -c "import xdist" 2>/dev/null && tests+=" -n $jobs --dist worksteal"
  export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_abort=0
  export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
  run_tests address libasan.so "$python"
}

run_thread() {
  missing gcc g++ setarch && return
  cannot_link g++ -fsanitize=thread "$any_program" && return
  build thread thread
  # In one process: workers of pytest-xdist have threads of their own when a test forks.
  local tests=$thread_tests
  if [ -n "${QUICK:-}" ]; then
    not_here+=" and not copies and not nothing_leaks and not spawned"
    export ANNIDX_SWAPS=40
  fi
  # The C library frees the storage of threads that ended under a lock that the sanitizer does not see.
  echo "race:dl_deallocate_tls" >"$work/suppressions"
  export TSAN_OPTIONS=halt_on_error=1:exitcode=66:suppressions=$work/suppressions
  run_tests thread libtsan.so setarch -R "$python"
}

# Python keeps memory to the end; what counts is memory that the core asked for.
run_leaks() {
  missing gcc g++ && return
  cannot_link g++ -fsanitize=address,undefined "$any_program" && return
  [ -d "$work/address" ] || build address address,undefined
  cd "$work/address"
  LD_PRELOAD=$(runtime libasan.so) ASAN_OPTIONS=detect_leaks=1:exitcode=0 PYTHONMALLOC=malloc \
    LSAN_OPTIONS=max_leaks=0:report_objects=0 PYTHONPATH=. "$python" - >leaks.log 2>&1 <<'END' ||
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
    { tail -30 leaks.log; exit 1; }
  grep -q "asked all" leaks.log || { tail -30 leaks.log; exit 1; }
  if grep -E "src_c/|annidx::|binding\.cpp" leaks.log; then
    echo "memory of the core leaks: see $PWD/leaks.log"
    exit 1
  fi
  echo "no memory of the core leaks"
}

fuzz_target() {
  local target=$1
  mkdir -p "$work/seeds/$target" "$work/found-$target"
  "$work/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -malloc_limit_mb=256 -max_len=40000 -print_final_stats=1 -verbosity=1 \
    -artifact_prefix="$work/found-$target/" "$work/seeds/$target" >"$work/$target.log" 2>&1 ||
    { tail -40 "$work/$target.log"; return 1; }
  echo "fuzz_$target, $seconds seconds:" \
    "$(grep -o 'number_of_executed_units.*' "$work/$target.log")"
}

run_fuzz() {
  missing clang++ make && return
  cannot_link clang++ -fsanitize=fuzzer,address,undefined "$any_target" && return
  make -s -j "$jobs" -C "$root/tests/fuzz" OUT="$work/fuzz"
  # Where annidx is not installed it was built in place.
  [ -z "$(ls "$root"/annidx/_core/binding.*.so 2>/dev/null)" ] || export PYTHONPATH=$root
  (cd "$work" && "$python" "$root/tests/fuzz/make_seeds.py" "$work/seeds" >/dev/null)
  local target process running=() status=0
  for target in index annoy ids; do
    fuzz_target "$target" &
    running+=($!)
  done
  for process in "${running[@]}"; do wait "$process" || status=1; done
  return "$status"
}

for part in ${*:-cpp address leaks thread valgrind fuzz}; do
  echo "== $part"
  began=$SECONDS
  (run_"$part")
  echo "== $part took $((SECONDS - began)) s"
done
