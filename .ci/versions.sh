#!/bin/sh
# Runs the tests with the lowest and with the latest versions of what the package stands on, each in a venv of its own.
#
#   .ci/versions.sh                  both
#   .ci/versions.sh lowest -k mesh   one of them; the rest goes to pytest
#
# lowest: constraints-lowest.txt; latest: whatever is newest within pyproject.toml. A Python of your choice: PYTHON=...
set -eu
cd "$(dirname "$0")/.."

sh .ci/venv.sh check || sh .ci/venv.sh
PYTHON=${PYTHON:-$(readlink -f .venv/bin/python)}

run() {
    name=$1
    shift
    folder=.venv-$name
    [ -x "$folder/bin/python" ] || "$PYTHON" -m venv "$folder"
    if [ "$name" = lowest ]; then
        "$folder/bin/python" -m pip install -q -c constraints-lowest.txt -e ".[dev]"
    else
        "$folder/bin/python" -m pip install -q --upgrade --upgrade-strategy eager -e ".[dev]"
    fi
    echo "versions: $name"
    "$folder/bin/python" -m pip list | grep -E -i '^(jax|jaxlib|flax|numpyro|blackjax|optax|numpy|arviz|xarray|zarr) '
    "$folder/bin/python" -m pytest -q -m "not slow" "$@" tests
}

case ${1:-both} in
lowest | latest)
    run "$@"
    ;;
*)
    run lowest "$@"
    run latest "$@"
    ;;
esac
