#!/usr/bin/env bash
# kubectl lists, reads and watches the sandbox's cluster. Arguments: kubectl, kubeconfig, a scratch folder.
set -euo pipefail
k() { "$kubectl" --kubeconfig "$kubeconfig" --cache-dir "$scratch/kube-cache" --request-timeout 20s "$@"; }
kubectl=$1 kubeconfig=$2 scratch=$3
is() { [ "$2" = "$3" ] || { echo "kubectl: $1 is \"$2\", not \"$3\"" >&2; exit 1; }; }
has() { grep -q -- "$2" <<<"$3" || { echo "kubectl: $1 lacks \"$2\": $3" >&2; exit 1; }; }

resources=$(k api-resources --no-headers)
for kind in Deployment Pod Application Kustomization GitRepository HelmRelease; do has api-resources "$kind" "$resources"; done
has deployments checkout "$(k get deployments -n shop)"
has "deployments -A" payments "$(k get deployments -A -o wide)"
is "checkout's image" "$(k get deployment checkout -n shop -o jsonpath='{.spec.template.spec.containers[0].name}')" app
is "application" "$(k get applications.argoproj.io -n argocd -o jsonpath='{.items[*].metadata.name}')" shop-prod
is "kustomization" "$(k get kustomizations.kustomize.toolkit.fluxcd.io -n flux-system -o name)" kustomization.kustomize.toolkit.fluxcd.io/payments
has "describe" "shop-prod" "$(k describe applications.argoproj.io shop-prod -n argocd)"
has "pods by label" checkout "$(k get pods -n shop -l app=checkout -o name)"
missing=$(k get deployment nowhere -n shop 2>&1) && { echo "kubectl: a Deployment that is not there is found" >&2; exit 1; }
has "a missing object" NotFound "$missing"

# The watch must tell of a change that is made while it is open.
: >"$scratch/watched"
timeout 20 "$kubectl" --kubeconfig "$kubeconfig" --cache-dir "$scratch/kube-cache" get deployments -n shop --watch \
    -o jsonpath='{.metadata.name} {.metadata.annotations.watched}{"\n"}' >"$scratch/watched" 2>"$scratch/watch.err" &
watch=$!
trap 'kill "$watch" 2>/dev/null || true' EXIT
for _ in $(seq 100); do grep -q checkout "$scratch/watched" && break; sleep 0.1; done
k annotate deployment payments -n shop watched=yes --overwrite >/dev/null
seen=no
for _ in $(seq 100); do grep -q '^payments yes' "$scratch/watched" && { seen=yes; break; }; sleep 0.1; done
is "the watch's news" "$seen" yes
k annotate deployment payments -n shop watched- >/dev/null
echo "{\"kubectl\": {\"kinds\": $(wc -l <<<"$resources"), \"watched\": \"$seen\"}}"
