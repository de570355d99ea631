#!/bin/sh
# Runs the MCP conformance suite over HTTP against the fixture (examples/conformance), for both revisions that are
# served. Prints one line of figures per revision; any failing check, scored or not, ends with exit code 1.
# Needs cargo and npm; Node itself comes with the pinned packages, because the suite needs a newer one than many
# systems have. Details of the last run are in results/.
set -eu
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)

if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --no-audit --no-fund --loglevel=error >&2
    cp package-lock.json node_modules/.installed
fi
(cd "$root" && cargo build --locked --quiet --example conformance)
fixture=${CARGO_TARGET_DIR:-$root/target}/debug/examples/conformance

rm -rf results
mkdir -p results
"$fixture" 0 >results/address 2>results/fixture.log &
pid=$!
trap 'kill "$pid" 2>/dev/null || true' EXIT INT TERM
tries=0
until [ -s results/address ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
        echo "The fixture did not start:" >&2
        cat results/fixture.log >&2
        exit 1
    fi
    sleep 0.1
done
url=$(head -n 1 results/address)

failed=0
# revision:checks, so that a suite which skips scenarios does not pass.
for want in 2025-11-25:83 2026-07-28:197; do
    revision=${want%:*}
    checks=${want#*:}
    log=results/$revision.log
    status=0
    node_modules/.bin/node node_modules/.bin/conformance server --url "$url" --requirements "$revision" \
        --output-dir "results/$revision" >"$log" 2>&1 || status=$?
    scenarios=$(grep -c '^✓ ' "$log" || true)
    total=$(sed -n 's/^Total: //p' "$log")
    passed=${total%% *}
    echo "conformance $revision: $scenarios scenarios, ${total:-no result}"
    if [ "$status" -ne 0 ] || [ "${total##*, }" != "0 failed" ] || [ "${passed:-0}" -lt "$checks" ]; then
        grep -E '^(✗|  ✗)' "$log" >&2 || tail -n 20 "$log" >&2
        failed=1
    fi
done
exit "$failed"
