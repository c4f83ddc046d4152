#!/usr/bin/env bash
# Runs the fuzzer on a build with an address sanitizer, in which no exchange is used twice: a pointer that outlives what
# it points to ends the run with both places. Usage: tools/sanitize.sh [INPUTS [FIRST]], from a tree with its .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="$PWD/.venv/bin/python"
tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
cp -r fastgate tests setup.py pyproject.toml README.md "$tree"
cd "$tree"
rm -f fastgate/_core.c fastgate/_core.*.so
FASTGATE_CFLAGS="-O1 -g1 -fsanitize=address -fno-omit-frame-pointer -DFASTGATE_FREE_EXCHANGES=0" \
    LDFLAGS="-fsanitize=address" "$python" setup.py -q build_ext --inplace
# Python frees what it has for good only at its end, which is no leak; its own pools would hide what is freed.
LD_PRELOAD="$(gcc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH="$tree" \
    "$python" -m tests.fuzz --inputs "${1:-20000}" --first "${2:-0}"
