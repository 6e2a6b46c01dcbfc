#!/bin/sh
# Makes .venv with a Python that really runs, installs the package into it and stamps it.
#
#   .ci/venv.sh          make or repair .venv, install, write .venv/.stamp
#   .ci/venv.sh check    succeed if the stamped .venv can be used as it is
#
# A Python of your choice: PYTHON=/path/to/python make test
set -u
cd "$(dirname "$0")/.." || exit 1

VENV=.venv
STAMP=$VENV/.stamp
say() { echo "venv: $*" >&2; }

# On PATH may stand a shim that exists and does not run, so every candidate is run, never only looked up. Above 3.14
# there may be no wheels yet; $PYTHON is taken at its word.
is_recent() { "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 12))' >/dev/null 2>&1; }
is_known() {
    "$1" -c 'import sys; v = sys.version_info
raise SystemExit(not ((3, 12) <= v < (3, 15) and v.releaselevel == "final"))' >/dev/null 2>&1
}
can_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

candidates() {
    printf '%s\n' python3.14 python3.13 python3.12 python3 python
    root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")}
    ls -d "$root"/versions/*/bin/python 2>/dev/null | sort -rV
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_recent "$PYTHON" && can_venv "$PYTHON" && { echo "$PYTHON"; return 0; }
        say "PYTHON=$PYTHON is not a working Python >= 3.12 with the venv module; looking for another"
    fi
    candidates | while IFS= read -r python; do
        is_known "$python" && can_venv "$python" && { echo "$python"; break; }
    done
}

# uv brings a Python of its own. Where it is missing, any old Python can install it.
find_uv() {
    if uv --version >/dev/null 2>&1; then echo uv; return; fi
    if ! .venv-uv/bin/uv --version >/dev/null 2>&1; then
        rm -rf .venv-uv
        { python3 -m venv .venv-uv && .venv-uv/bin/python -m pip install -q uv; } >/dev/null 2>&1 || {
            rm -rf .venv-uv
            return 1
        }
    fi
    echo .venv-uv/bin/uv
}

explain() {
    say "no usable Python >= 3.12 was found, and none could be downloaded with uv. What was tried:"
    { if [ -n "${PYTHON:-}" ]; then echo "$PYTHON"; fi; candidates; } | while IFS= read -r python; do
        if ! found=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null); then
            command -v "$python" >/dev/null 2>&1 && say "  $python: exists, but does not run"
        elif ! is_known "$python"; then say "  $python: version $found"
        else say "  $python: version $found, but without ensurepip (on Debian or Ubuntu install python3-venv)"; fi
    done
    say "Install Python 3.12 or newer with its venv module, or name one: PYTHON=/path/to/python make test"
}

# Without a stamp a .venv made by hand or left half-made is completed; one that came from another folder is not, as its
# scripts name the old place.
is_at_home() { [ ! -e $STAMP ] || [ "$(cat $STAMP)" = "$PWD" ]; }
is_whole() { is_at_home && is_recent $VENV/bin/python && $VENV/bin/python -m pip --version >/dev/null 2>&1; }

if [ "${1:-}" = check ]; then
    [ "$(cat $STAMP 2>/dev/null)" = "$PWD" ] && is_recent $VENV/bin/python
    exit
fi

if ! is_whole; then
    rm -rf $VENV
    python=$(find_python)
    if [ -n "$python" ]; then
        say "making $VENV with $python"
        "$python" -m venv $VENV || { say "$python -m venv failed, see above"; exit 1; }
    elif uv=$(find_uv) && "$uv" venv --quiet --seed --managed-python --python 3.12 $VENV; then
        say "made $VENV with a Python 3.12 from uv"
    else
        explain
        exit 1
    fi
fi

rm -f $STAMP
say "installing (the first time takes minutes)"
# Compiling all that is installed takes longer than the rest of it; Python compiles what it imports.
if ! $VENV/bin/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev]"; then
    say "the installation failed, see above. It needs a package index within reach; when in doubt remove $VENV and repeat"
    exit 1
fi
echo "$PWD" >$STAMP
