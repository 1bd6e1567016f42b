#!/bin/sh
# Make the environment that every target of the Makefile runs in: tools/setup.sh VENV
# With a Rust toolchain the native core is built; without one the same tree runs on the pure-Python fallback.
set -eu
venv=${1:?usage: tools/setup.sh VENV}
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)

find_python() {
  for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "NeuralCore needs Python 3.10 or newer; tried: ${PYTHON:-python3, python3.10 to python3.13}. Say which: make PYTHON=/path/to/python3" >&2
  exit 1
}

has_rust() {
  command -v cargo >/dev/null 2>&1 || return 1
  found=$(rustc --version 2>/dev/null | cut -d' ' -f2)
  [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$rust_needed" "$found" | sort -t. -k1,1n -k2,2n | head -n1)" = "$rust_needed" ]
}

if [ ! -x "$venv/bin/python" ]; then
  python=$(find_python)
  echo "Setting up $venv: some minutes, once."
  "$python" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

if has_rust; then
  core=.
else
  echo "No Rust toolchain (Rust $rust_needed or newer, with cargo): running on the pure-Python fallback."
  core=$venv/pure
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'tomli; python_version < "3.11"'
  "$venv/bin/python" tools/pure.py "$core"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --group dev \
  --editable "$core" --editable "transports[sqlite]" --editable observability
