#!/usr/bin/env bash
# Tries deploy/ on the real API server of KUBECONFIG: the objects by server-side dry run, then the chart as a real
# release, whose rights and admission policies of hints are tried with objects of its own. All of it goes again.
# Needs kubectl, helm (or Go) and a cluster with the CRDs of Argo CD or Flux. Last line: `checks=N failed=N`.
set -uo pipefail
cd "$(dirname "$0")/../.."
namespace=${COUNTERSIGN_LAB_NAMESPACE:-countersign-deploy}
control_plane=$namespace-argocd
account=system:serviceaccount:$namespace:$namespace
work=$(mktemp -d)
checks=0 failed=0

if ! command -v helm >/dev/null; then
    tools=${COUNTERSIGN_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign-tools}
    tests/tools/build.sh "$tools" helm && export PATH="$tools:$PATH"
fi

for name in "$namespace" "$control_plane"; do
    if kubectl get namespace "$name" >/dev/null 2>&1; then
        echo "the namespace $name exists already: choose another with COUNTERSIGN_LAB_NAMESPACE" >&2
        exit 2
    fi
done
clean() {
    helm uninstall "$namespace" --namespace "$namespace" --ignore-not-found >/dev/null 2>&1
    kubectl delete namespace "$namespace" "$control_plane" --ignore-not-found --wait=false >/dev/null 2>&1
    rm -rf "$work"
}
trap clean EXIT

check() { # check NAME yes|no COMMAND...: whether the command succeeds, or is refused
    local name=$1 want=$2 got=no
    shift 2
    "$@" >"$work/out" 2>&1 && got=yes
    checks=$((checks + 1))
    if [ "$got" = "$want" ]; then
        echo "ok    $name"
    else
        failed=$((failed + 1))
        echo "WRONG $name: $(tail -n 1 "$work/out")"
    fi
}
denied() { # denied COMMAND...: refused by one of our policies, not by something else
    ! "$@" >"$work/out" 2>&1 && grep -q "ValidatingAdmissionPolicy '$namespace-hints-" "$work/out"
}
can() { [ "$(kubectl auth can-i "$@" --as="$account" 2>/dev/null)" = yes ]; }
serves() { kubectl api-resources --api-group="$1" -o name 2>/dev/null | grep -qx "$2"; }
as() { kubectl --as="$account" "$@"; }

kubectl create namespace "$namespace" && kubectl create namespace "$control_plane" || exit 1
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null

release() { # release VERB [FLAG...]
    helm "$@" "$namespace" deploy/chart/countersign --namespace "$namespace" \
        --set "rbac.argocdNamespaces={$control_plane}" --set rbac.hints=true
}
release template >"$work/all.yaml" || exit 1
check "the whole chart, dry run" yes kubectl apply --dry-run=server -f "$work/all.yaml"
check "a release, dry run" yes release install --dry-run=server
for file in rbac configuration state deployment service networkpolicy hints; do
    sed -e "s/^\( *namespace: \)countersign$/\1$namespace/" "deploy/kubernetes/$file.yaml" >"$work/$file.yaml"
    check "deploy/kubernetes/$file.yaml, dry run" yes kubectl apply --dry-run=server -f "$work/$file.yaml"
done
check "with a port for metrics, dry run" yes release install --dry-run=server --set metrics.enabled=true
# A pod that breaks the restricted level is only warned about at the Deployment.
kubectl apply --dry-run=server -f "$work/deployment.yaml" >"$work/out" 2>&1
check "the Deployment's pod is restricted" no grep -qi "would violate PodSecurity" "$work/out"

check "a release" yes release install
pods() { kubectl -n "$namespace" get pods -o name | grep -q .; }
for _ in {1..20}; do pods && break || sleep 0.5; done
check "its pod is admitted" yes pods
sleep 5 # the policies and the aggregated role take a moment

check "pods may be listed" yes can list pods -A
check "deployments may be watched" yes can watch deployments.apps -A
check "Secrets may not be read" no can get secrets -A
check "Secrets may not be listed" no can list secrets -n "$namespace"
check "nothing may be created" no can create deployments.apps -n "$namespace"
check "deployments may not be patched" no can patch deployments.apps -n "$namespace"
check "nothing may be deleted" no can delete pods -n "$namespace"
check "no exec" no can create pods/exec -n "$namespace"
check "/openapi/v3" yes can get /openapi/v3

# try RESOURCE ANNOTATION: what the policies let through and what they do not.
try() {
    local resource=$1 annotation=$2 good=$3
    local patch=(as -n "$namespace" patch "$resource" tried --type merge -p)
    check "$resource: the annotation" yes "${patch[@]}" "{\"metadata\":{\"annotations\":{\"$annotation\":\"$good\"}}}"
    check "$resource: its own annotation taken away" yes denied "${patch[@]}" "{\"metadata\":{\"annotations\":{\"$annotation\":null}}}"
    check "$resource: another annotation" yes denied "${patch[@]}" '{"metadata":{"annotations":{"x":"y"}}}'
    check "$resource: an annotation changed" yes denied "${patch[@]}" '{"metadata":{"annotations":{"kept":"no"}}}'
    check "$resource: an annotation taken away" yes denied "${patch[@]}" '{"metadata":{"annotations":{"kept":null}}}'
    check "$resource: all annotations taken away" yes denied "${patch[@]}" '{"metadata":{"annotations":null}}'
    check "$resource: a label" yes denied "${patch[@]}" '{"metadata":{"labels":{"x":"y"}}}'
    check "$resource: a finalizer" yes denied "${patch[@]}" '{"metadata":{"finalizers":["x.example/y"]}}'
    check "$resource: an owner" yes denied "${patch[@]}" '{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"00000000-0000-0000-0000-000000000000"}]}}'
    check "$resource: spec" yes denied "${patch[@]}" "$4"
    check "$resource: spec with the annotation" yes denied "${patch[@]}" "$(printf %s "$4" | sed "s#}\$#,\"metadata\":{\"annotations\":{\"$annotation\":\"$good\"}}}#")"
    check "$resource: the status subresource" no as -n "$namespace" patch "$resource" tried --subresource=status --type merge -p '{"status":{}}'
    check "$resource: deletion" no as -n "$namespace" delete "$resource" tried
    check "$resource: others are not held" yes kubectl -n "$namespace" annotate "$resource" tried x=y
}

if serves argoproj.io applications.argoproj.io; then
    kubectl apply -f - >/dev/null <<END
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: tried, namespace: $namespace, annotations: {kept: "yes"}}
spec:
  project: none
  destination: {server: https://tried.invalid, namespace: none}
  source: {repoURL: https://tried.invalid/x.git, path: ., targetRevision: main}
END
    app=(as -n "$namespace" patch applications.argoproj.io tried --type merge -p)
    try applications.argoproj.io argocd.argoproj.io/refresh normal '{"spec":{"source":{"path":"other"}}}'
    check "applications: an unknown refresh" yes denied "${app[@]}" '{"metadata":{"annotations":{"argocd.argoproj.io/refresh":"x"}}}'
    check "applications: an operation" yes denied "${app[@]}" '{"operation":{"sync":{"revision":"main"}}}'
    check "applications: status" yes denied "${app[@]}" '{"status":{"sync":{"status":"Synced"}}}'
fi
if serves source.toolkit.fluxcd.io gitrepositories.source.toolkit.fluxcd.io; then
    kubectl apply -f - >/dev/null <<END
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: tried, namespace: $namespace, annotations: {kept: "yes"}}
spec: {url: https://tried.invalid/x.git, interval: 24h, suspend: true, ref: {branch: main}}
END
    try gitrepositories.source.toolkit.fluxcd.io reconcile.fluxcd.io/requestedAt cs-1 '{"spec":{"suspend":false}}'
    check "gitrepositories: a long request" yes denied as -n "$namespace" patch gitrepositories.source.toolkit.fluxcd.io tried --type merge \
        -p "{\"metadata\":{\"annotations\":{\"reconcile.fluxcd.io/requestedAt\":\"$(printf 'x%.0s' {1..65})\"}}}"
fi
if serves helm.toolkit.fluxcd.io helmreleases.helm.toolkit.fluxcd.io; then
    kubectl apply -f - >/dev/null <<END
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: tried, namespace: $namespace, annotations: {kept: "yes"}}
spec: {interval: 24h, suspend: true, chart: {spec: {chart: x, sourceRef: {kind: HelmRepository, name: x}}}}
END
    try helmreleases.helm.toolkit.fluxcd.io reconcile.fluxcd.io/requestedAt cs-1 '{"spec":{"suspend":false}}'
fi

check "an upgrade to the same" yes release upgrade
check "the release is taken away" yes helm uninstall "$namespace" --namespace "$namespace"
check "the journal's claim stays" yes kubectl -n "$namespace" get persistentvolumeclaim "$namespace"
for kind in clusterroles clusterrolebindings validatingadmissionpolicies validatingadmissionpolicybindings; do
    check "no $kind stay" no eval "kubectl get $kind -o name | grep -q '/$namespace-'"
done
check "no right stays" no can list pods -A

echo "checks=$checks failed=$failed"
[ "$failed" -eq 0 ]
