#!/usr/bin/env bash
# Runs the scenarios on the cluster of COUNTERSIGN_LAB_KUBECONFIG, waits until what they made there is gone, and tells
# what became of everything else. Arguments: the cache folder, then filters as for `cargo test`; none: all scenarios.
# With COUNTERSIGN_LAB_STRICT it fails if an object of others has changed, is gone or is new: for a cluster on which
# nobody else is at work.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { echo "usage: $0 CACHE_DIR [FILTER...]" >&2; exit 2; }
mkdir -p "$1"
cache=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- both::
tests/lab/build.sh "$cache" gitea
dir=$(mktemp -d "${COUNTERSIGN_LAB_DIR:-${TMPDIR:-/tmp}}/countersign-guest-XXXXXX")
code=0
COUNTERSIGN_LAB_DIR=$dir COUNTERSIGN_LAB_CACHE=$cache PATH="$cache/bin:$PATH" \
    cargo test --quiet --test all -- "$@" || code=$?
# The suite's watch is a process of its own: it deletes what is left once the suite has ended.
run=$(find "$dir" -mindepth 1 -maxdepth 1 -name 'cs-lab-*' | head -n 1)
[ -n "$run" ] || { echo "No scenario came as far as the cluster." >&2; exit $((code ? code : 1)); }
for _ in $(seq 600); do
    [ -e "$run/report.txt" ] && break
    sleep 0.5
done
[ -e "$run/report.txt" ] || { echo "Its watch has not reported: $run/logs/watch.log." >&2; exit 1; }
cat "$run/report.txt"
if grep -q '^NOT TIDIED UP' "$run/report.txt"; then exit 1; fi
if [ -n "${COUNTERSIGN_LAB_STRICT:-}" ] && ! tail -n 1 "$run/report.txt" | grep -q ' changed=0 gone=0 new=0$'; then
    echo "Objects of others were touched." >&2
    exit 1
fi
exit "$code"
