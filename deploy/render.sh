#!/usr/bin/env bash
# Renders deploy/kubernetes from the chart, with the real helm (on PATH, else tests/tools/build.sh builds it).
# With --check nothing is written: it fails where the files differ.
set -euo pipefail
cd "$(dirname "$0")"
helm=$(command -v helm || true)
if [ -z "$helm" ]; then
    tools=${COUNTERSIGN_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign-tools}
    ../tests/tools/build.sh "$tools" helm
    helm=$tools/helm
fi
into=kubernetes
if [ "${1:-}" = --check ]; then
    into=$(mktemp -d)
    trap 'rm -rf "$into"' EXIT
fi
"$helm" lint --strict chart/countersign >&2
render() { # render TEMPLATE
    # What Helm alone needs is left out, and so is the restart when the text changes.
    "$helm" template countersign chart/countersign --namespace countersign --kube-version 1.30.0 \
        --set rbac.hints=true --set configuration.restartOnChange=false --set state.keep=false \
        --show-only "templates/$1.yaml" |
        sed -e '/^# Source: /d' -e '/helm\.sh\/chart:/d' -e '/app\.kubernetes\.io\/managed-by:/d' \
            -e 's/[[:space:]]*$//' | sed -e '/^$/d' | sed -e '1{/^---$/d}'
}

for name in rbac argocd hints configuration state deployment service networkpolicy; do
    {
        echo "# Rendered from deploy/chart/countersign by deploy/render.sh: change the chart, or patch this in an overlay."
        if [ "$name" = hints ]; then
            render hints-policies
            echo ---
        fi
        render "$name"
    } >"$into/$name.yaml"
    [ "$into" = kubernetes ] || diff -u "kubernetes/$name.yaml" "$into/$name.yaml"
done
