#!/usr/bin/env bash
# Runs the scenarios on the real components, on two labs at the same time: one is shared by scenarios, on the other
# each has the lab for itself. Argument: the cache folder.
# Where Go is missing it says so and is content: everything else is tested without.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -eq 1 ] || { echo "usage: $0 CACHE_DIR" >&2; exit 2; }
if ! command -v go >/dev/null 2>&1; then
    echo "Go is not here: the scenarios on the real components are skipped."
    exit 0
fi
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$2" >/dev/null; }
}
need redis-server redis-server
need ssh-keygen openssh-client
need git git
cache=$1
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
tests/lab/build.sh "$cache/lab"

lab() { # lab FOLDER ARGUMENT...
    local dir=$1
    shift
    cargo run --quiet --example lab -- --dir "$cache/$dir" "$@"
}

suite() { # suite FOLDER ARGUMENT...: as for `cargo test`; ends with what the waits were worth
    local dir=$1 from=$SECONDS code=0
    shift
    rm -f "$cache/$dir.md"
    COUNTERSIGN_LAB="$cache/$dir/lab.json" COUNTERSIGN_LAB_CACHE="$cache/lab" COUNTERSIGN_TRUTH="$cache/$dir.md" \
        PATH="$cache/lab/bin:$PATH" cargo test --quiet --test all -- "$@" --include-ignored || code=$?
    sed -n '/^On the lab/,$p' "$cache/$dir.md" || code=1
    echo "$dir: $((SECONDS - from)) s"
    return "$code"
}

labs=(lab-run lab-alone)
ended() {
    for dir in "${labs[@]}"; do lab "$dir" down || true; done
}
trap ended EXIT
# A scenario that waits for its turn holds a thread.
export RUST_TEST_THREADS=32
# A seventh less work for the processors, for more memory: 2.5 to 3.7 GB for each lab at the end, instead of 2.
export GOGC=400
# Half of the load that `just lab-test` makes.
export COUNTERSIGN_LAB_MANY=10
for dir in "${labs[@]}"; do lab "$dir" up --bare --cache "$cache/lab"; done

# What has a lab for itself waits more than it computes, so it goes beside the others. Each kind of load runs once, on
# one engine or the other; `just lab-test` has both, and figures that nothing disturbs.
alone=(both::load:: is_restarted)
skipped() { for name in "$@"; do printf -- '--skip\n%s\n' "$name"; done; }
mapfile -t not_alone < <(skipped "${alone[@]}")
mapfile -t not_twice < <(skipped load::argocd::many_on_one_branch_pushed load::argocd::many_branches_by_pull_requests \
    load::argocd::many_for_the_same_field load::flux::many_on_one_branch_by_pull_requests \
    load::flux::many_branches_pushed)
suite lab-alone "${alone[@]}" "${not_twice[@]}" >"$cache/lab-alone.log" 2>&1 &
beside=$!
code=0
suite lab-run both:: components:: "${not_alone[@]}" || code=$?
# What the last scenarios had is gone before somebody else looks.
for _ in $(seq 90); do
    going=$("$cache/lab/bin/kubectl" --kubeconfig "$cache/lab-run/admin.kubeconfig" get namespaces --no-headers | grep -c Terminating || true)
    [ "$going" = 0 ] && break
    sleep 1
done
# As a cluster that is not ours: a few scenarios as a guest, and nothing else is touched.
COUNTERSIGN_LAB_KUBECONFIG="$cache/lab-run/admin.kubeconfig" COUNTERSIGN_LAB_GIT_HOST=127.0.0.1 COUNTERSIGN_LAB_STRICT=1 \
    tests/lab/guest.sh "$cache/lab" both::through::{argocd,flux}::a_new_image both::through::flux::a_missing_image \
    both::through::argocd::an_api_server both::argocd::run::a both::flux::run::a_helm both::plain::argocd::a_push || code=$?
wait "$beside" || code=$?
cat "$cache/lab-alone.log"
for dir in "${labs[@]}"; do lab "$dir" status; done
exit "$code"
