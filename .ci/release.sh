#!/bin/sh
# What a machine can check of a release: build, metadata, size, and a first hour in a fresh venv without extras.
#
#   PYTHON=python3.12 .ci/release.sh
#
# Writes dist/, and works in a folder of its own that is removed again. Exit code 1 at the first thing that is wrong.
set -eu
cd "$(dirname "$0")/.."
ROOT=$PWD PYTHON=${PYTHON:-python3}
case $PYTHON in */*) PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON") ;; esac
MOST=8000000
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
say() { echo "release: $*"; }

say "build"
rm -rf dist
"$PYTHON" -m venv "$folder/tools"
"$folder/tools/bin/python" -m pip install -q --disable-pip-version-check build twine
"$folder/tools/bin/python" -m build --outdir dist . >"$folder/log" 2>&1 || { tail -n 20 "$folder/log"; exit 1; }
"$folder/tools/bin/python" -m twine check --strict dist/*

wheel=$(ls dist/*.whl)
bytes=$(wc -c <"$wheel")
say "$wheel: $bytes bytes, at most $MOST"
[ "$bytes" -le "$MOST" ]

say "a fresh venv without extras"
"$PYTHON" -m venv "$folder/fresh"
"$folder/fresh/bin/python" -m pip install -q --disable-pip-version-check "$wheel"
mkdir "$folder/empty"
cd "$folder/empty"
"$folder/fresh/bin/numpyro-diffusion" doctor
"$folder/fresh/bin/python" "$ROOT/.ci/first_hour.py" "$ROOT/README.md"
say "all of it passed"
