#!/usr/bin/env bash
# AgentAck, an approval checker that nobody here wrote, over traces of random histories (examples/ack): all nine rules
# pass, and each fails where the walk goes around the control that it is about. The last line is
# `rules=9 passed=9 histories=N`; exit code 1 unless all nine pass.
# Arguments: a folder for what is installed (kept between runs), then how many histories (10,000), then how many in
# each of the nine runs without a control (500).
# Needs python3 (3.11 or later) with venv. COUNTERSIGN_KEEP=DIR keeps the traces there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign-ci}
histories=${2:-10000}
holes=${3:-500}

if ! python3 -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "python3 (3.11 or later) is not here: the approval checker is skipped."
    exit 0
fi
mkdir -p "$cache"
python=$cache/ack-python/bin/python
if ! cmp -s "$here/requirements.txt" "$cache/ack-python/.installed"; then
    python3 -m venv --clear "$cache/ack-python"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$cache/ack-python/.installed"
fi

if [ -n "${COUNTERSIGN_KEEP:-}" ]; then
    traces=$COUNTERSIGN_KEEP
    mkdir -p "$traces"
else
    traces=$(mktemp -d)
    trap 'rm -rf "$traces"' EXIT
fi
cd "$root"
cargo build --quiet --example ack
walk=${CARGO_TARGET_DIR:-$root/target}/debug/examples/ack
"$walk" --out "$traces/all-on" --histories "$histories"
for control in policy rejection binding single-use expiry order one-change stop journal; do
    "$walk" --out "$traces/$control" --histories "$holes" --seed 1000001 --off "$control"
done
PYTHONDONTWRITEBYTECODE=1 "$python" "$here/check.py" "$here/policy.toml" "$traces"
