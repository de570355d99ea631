#!/usr/bin/env bash
# Builds the lab, starts it, runs the scenarios on it, ends it. Argument: the cache folder.
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
lab() { cargo run --quiet --example lab -- --dir "$cache/lab-run" "$@"; }
trap 'lab down' EXIT
lab up --bare --cache "$cache/lab"
# As a cluster that is not ours: a few scenarios as a guest, and nothing else is touched.
COUNTERSIGN_LAB_KUBECONFIG="$cache/lab-run/admin.kubeconfig" COUNTERSIGN_LAB_GIT_HOST=127.0.0.1 COUNTERSIGN_LAB_STRICT=1 \
    tests/lab/guest.sh "$cache/lab" both::through::{argocd,flux}::a_new_image both::through::flux::a_missing_image \
    both::through::argocd::an_api_server both::argocd::run::a both::flux::run::a_helm both::plain::argocd::a_push \
    both::rights::flux::without_hints
# Each kind of load takes the lab for itself: once here, on one engine or the other; `just lab-test` has both.
COUNTERSIGN_LAB="$cache/lab-run/lab.json" COUNTERSIGN_LAB_CACHE="$cache/lab" PATH="$cache/lab/bin:$PATH" \
    cargo test --quiet --test all -- both:: components:: --include-ignored \
    --skip load::argocd::many_on_one_branch_pushed --skip load::argocd::many_branches_by_pull_requests \
    --skip load::argocd::many_for_the_same_field --skip load::flux::many_on_one_branch_by_pull_requests \
    --skip load::flux::many_branches_pushed
lab status
