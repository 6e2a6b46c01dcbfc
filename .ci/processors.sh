#!/bin/sh
# Runs the tests as other processors would: with XLA held to older instruction sets, with one and with two threads, and
# on each Python. One combination at a time, and in each one file of tests after the other.
#
#   .ci/processors.sh                                every combination, every file
#   .ci/processors.sh tests/train -k exact           some of the tests; the arguments go to pytest
#
#   SETS="SSE4_2 AVX2 native"   instruction sets (--xla_cpu_max_isa); native is whatever the processor has
#   THREADS="1 2"               processors the tests may use
#   PYTHONS="3.12 3.13"         a version is looked for on PATH and among pyenv's, and gets a .venv-3.12 where .venv is
#                               of another; a path is a Python that has everything installed
#   XLA_FLAGS                   further flags for XLA, beside those that this script and the Makefile set
#   PROCESSORS_CACHE            folder for compiled programs, .jax_cache/processors by default; each set has its own in it
#
# A combination whose Python is missing is skipped and said so; the exit code is 1 if any failed or none ran. The summary
# at the end has one line a combination. Another instruction set rounds otherwise: what fails here is a tolerance that one
# machine's rounding happens to meet. Programs are compiled anew for each set, so the first time takes an hour or two.
set -u
cd "$(dirname "$0")/.." || exit 1

SETS=${SETS:-SSE4_2 AVX2 native}
THREADS=${THREADS:-1 2}
PYTHONS=${PYTHONS:-3.12 3.13}
CACHE=${PROCESSORS_CACHE:-$PWD/.jax_cache/processors}
FLAGS="--xla_llvm_disable_expensive_passes=true ${XLA_FLAGS:-}"
unset XLA_FLAGS
[ $# -gt 0 ] || set -- tests
summary=$(mktemp) && log=$(mktemp) || exit 1
trap 'rm -f "$summary" "$log"' EXIT
say() { echo "processors: $*"; }

# What is named may be a shim that does not run, so it is run.
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
find_python() {
    case $1 in */*) echo "$1"; return ;; esac
    root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")}
    for python in .venv/bin/python "python$1" $(ls -d "$root/versions/$1"*/bin/python 2>/dev/null | sort -rV); do
        [ "$(version "$python")" = "$1" ] && { echo "$python"; return; }
    done
}

# The venv of make where it is of this version, else one of its own.
venv_of() {
    case $3 in */*) echo "${1%/bin/python*}"; return ;; esac
    [ "$(version .venv/bin/python)" = "$2" ] && sh .ci/venv.sh check && { echo .venv; return; }
    folder=.venv-$2
    [ "$(version "$folder/bin/python")" = "$2" ] || rm -rf "$folder"
    [ -x "$folder/bin/python" ] || "$1" -m venv "$folder" || return
    "$folder/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]" >&2 || return
    echo "$folder"
}

# Words in front of a command that may use so many processors: `taskset` takes the others away. Where there is none, the
# libraries are asked to use no more, below.
limited() {
    command -v taskset >/dev/null 2>&1 || return
    allowed=$(taskset -cp $$ | sed 's/.*: *//' | tr ',' '\n' |
        awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print i }' | head -n "$1" | paste -sd, -)
    echo "taskset -c $allowed"
}

run() {
    python=$1 isa=$2 threads=$3 name="Python $4, $2, threads $3"
    shift 4
    flags=$FLAGS
    [ "$isa" = native ] || flags="$flags --xla_cpu_max_isa=$isa"
    [ "$threads" -gt 1 ] || flags="$flags --xla_cpu_multi_thread_eigen=false"
    say "$name: XLA_FLAGS=$flags"
    begin=$(date +%s)
    # Not in a pipe, whose exit code would be that of its end.
    # shellcheck disable=SC2046
    env XLA_FLAGS="$flags" OMP_NUM_THREADS="$threads" OPENBLAS_NUM_THREADS="$threads" \
        JAX_COMPILATION_CACHE_DIR="$CACHE/$isa" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.5 \
        $(limited "$threads") "$python" -m pytest -q -n 0 -m "not slow" "$@" >"$log" 2>&1
    code=$?
    cat "$log"
    seconds=$(($(date +%s) - begin))
    if [ $code -eq 0 ]; then verdict=passed; else verdict="FAILED ($code)"; fi
    echo "$name: $verdict after $seconds s, $(tail -n 1 "$log")" >>"$summary"
}

for wanted in $PYTHONS; do
    python=$(find_python "$wanted")
    if [ -z "$python" ]; then
        echo "Python $wanted: skipped, none was found" >>"$summary"
        continue
    fi
    number=$(version "$python")
    if ! venv=$(venv_of "$python" "$number" "$wanted"); then
        echo "Python $wanted: FAILED, the installation failed" >>"$summary"
        continue
    fi
    for isa in $SETS; do
        for threads in $THREADS; do run "$venv/bin/python" "$isa" "$threads" "$number" "$@"; done
    done
done

say summary
cat "$summary"
grep -q ": passed" "$summary" && ! grep -q ": FAILED" "$summary"
