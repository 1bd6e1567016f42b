#!/bin/sh
# Build the wheels of the three distributions, and the one without the native core, into dist/; then use them as a stranger
# would, outside the repository: tools/wheels.sh VENV
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
venv=${1:?usage: tools/wheels.sh VENV}
case $venv in /*) ;; *) venv=$root/$venv ;; esac
python=${PYTHON:-$root/.venv/bin/python}
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT

fresh() {
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
}

build() {
  rm -rf "$root/dist"
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$root/dist/native" "$root" "$root/transports" "$root/observability"
  "$python" "$root/tools/pure.py" "$away/pure"
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$root/dist/pure" "$away/pure"
  ls -l "$root"/dist/*/*.whl
}

as_a_user_of_everything() {
  fresh
  native=$(echo "$root"/dist/native/neuralcore_runtime-*.whl)
  transports=$(echo "$root"/dist/native/neuralcore_transports-*.whl)
  "$venv/bin/python" -m pip install --quiet "$native[cli,testing]" "$transports[kafka,redis,sqlite]" \
    "$root"/dist/native/neuralcore_observability-*.whl
  cd "$away"
  "$venv/bin/python" "$root/tools/installed.py" native
  "$venv/bin/neuralcore" demo --seconds 2 --json >demo.json
  "$venv/bin/neuralcore" conformance native://
  "$venv/bin/neuralcore" conformance memory:// --json >conformance.json
  "$venv/bin/neuralcore" conformance "sqlite://$away/bus.db?lease=1" --only store --only crash.killed_publisher
  "$venv/bin/neuralcore" store check "$away/bus.db"
  echo "The native wheel works: import, entry points, demo, conformance."
}

as_a_user_of_the_core_alone() {
  fresh
  "$venv/bin/python" -m pip install --quiet "$root"/dist/pure/neuralcore_runtime-*.whl
  cd "$away"
  "$venv/bin/python" "$root/tools/installed.py" fallback
  if "$venv/bin/neuralcore" --help 2>said.txt; then
    echo "without its extra, the command line should have said what to install" >&2
    exit 1
  fi
  grep -q "pip install 'neuralcore-runtime\[cli\]'" said.txt
  echo "The pure wheel works: import, bus, and the extra it names for the command line."
}

build
as_a_user_of_everything
as_a_user_of_the_core_alone
