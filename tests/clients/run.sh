#!/usr/bin/env bash
# Clients that nobody here wrote, against the built program and the sandbox: the Python MCP SDK (stdio, HTTP), a task
# across SIGKILL, kubectl, aiogram, octokit. One line each, last the count; exit code 1 when one fails.
# Argument: a folder for what is installed (kept between runs). Needs python3 (3.10 or later) with venv, npm, and kubectl or Go.
# The program is COUNTERSIGN_BIN, or the debug build of this repository.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign-ci}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
COUNTERSIGN_BIN=${COUNTERSIGN_BIN:-${CARGO_TARGET_DIR:-$root/target}/debug/countersign}
export COUNTERSIGN_BIN PYTHONDONTWRITEBYTECODE=1
unset COUNTERSIGN_CONFIG COUNTERSIGN_SSH_KEY

die() {
    echo "clients: $*" >&2
    exit 1
}

install() {
    if ! cmp -s "$here/requirements.txt" "$cache/clients-python/.installed"; then
        python3 -m venv --clear "$cache/clients-python" &&
            "$cache/clients-python/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt" &&
            cp "$here/requirements.txt" "$cache/clients-python/.installed" || die "the Python packages did not install"
    fi
    if ! cmp -s "$here/package-lock.json" "$cache/clients-npm/.installed"; then
        mkdir -p "$cache/clients-npm" && cp "$here/package.json" "$here/package-lock.json" "$cache/clients-npm/" &&
            (cd "$cache/clients-npm" && npm ci --no-audit --no-fund --loglevel=error >&2) &&
            cp "$here/package-lock.json" "$cache/clients-npm/.installed" || die "the npm packages did not install"
    fi
    # kubectl of the system where there is one, else from its own Go module, else from the distribution.
    kubectl=$(command -v kubectl || true)
    if [ -z "$kubectl" ] && command -v go >/dev/null; then
        "$root/tests/tools/build.sh" "$cache/bin" kubectl || die "kubectl was not built"
        kubectl=$cache/bin/kubectl
    elif [ -z "$kubectl" ]; then
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends kubernetes-client; } >/dev/null || die "kubectl is not here"
        kubectl=$(command -v kubectl)
    fi
}

# Ends every process of a folder's world: the sandbox, and a daemon that a bridge left behind.
scratch=$(mktemp -d)
worlds=()
# shellcheck disable=SC2329
clean() {
    for sock in "$scratch"/*/state/control.sock; do
        [ -S "$sock" ] && "$cache/clients-python/bin/python" - "$sock" <<'PY' 2>/dev/null
import socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1]); s.sendall(b'{"do":"shutdown"}\n'); s.recv(4096)
PY
    done
    for pid in "${worlds[@]}"; do kill "$pid" 2>/dev/null; done
    wait
    if [ -n "${COUNTERSIGN_KEEP:-}" ]; then echo "kept: $scratch" >&2; else rm -rf "$scratch"; fi
}
trap clean EXIT
trap 'exit 130' INT TERM

world() { # world NAME: starts a sandbox of its own; its line of JSON is NAME.json
    "$COUNTERSIGN_BIN" sandbox --json --dir "$scratch/$1" >"$scratch/$1.json" 2>"$scratch/$1.log" &
    worlds+=($!)
    for _ in $(seq 300); do
        [ -s "$scratch/$1.json" ] && return
        kill -0 "${worlds[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    cat "$scratch/$1.log" >&2
    die "the sandbox did not start"
}

field() { "$python" -c 'import json,sys; v=json.load(open(sys.argv[1]))
for k in sys.argv[2].split("/"): v=v[k]
print(v)' "$scratch/$1.json" "$2"; }

passed=0 failed=0
part() { # part NAME COMMAND...
    local name=$1 from=$SECONDS said
    shift
    if said=$(timeout 120 "$@" 2>"$scratch/error"); then
        passed=$((passed + 1))
        echo "passed $name ($((SECONDS - from)) s) $said"
    else
        failed=$((failed + 1))
        echo "FAILED $name ($((SECONDS - from)) s) $said"
        tail -n 25 "$scratch/error" >&2
    fi
}

[ -x "$COUNTERSIGN_BIN" ] || die "$COUNTERSIGN_BIN is not built: cargo build"
install
python=$cache/clients-python/bin/python
world shop
world chat
export COUNTERSIGN_SANDBOX=$scratch/shop.json

part "mcp SDK over stdio" "$python" "$here/mcp_sdk.py" stdio
part "mcp SDK over HTTP" "$python" "$here/mcp_sdk.py" http
part "tasks across SIGKILL" "$python" "$here/tasks_survive.py"
part kubectl "$here/kubectl.sh" "$kubectl" "$(field shop kubeconfig)" "$scratch"
part "aiogram reads ours" "$python" "$here/aiogram_messages.py"
control=$(field chat control/bot)
part "aiogram drives" "$python" "$here/aiogram_bot.py" "$(field chat bot_api_url)" "$(cat "$(field chat bot_token_file)")" "${control%/sandbox}"
part octokit "$python" "$here/octokit.py" "$cache/clients-npm/node_modules/.bin/node" "$cache/clients-npm"
echo "clients: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
