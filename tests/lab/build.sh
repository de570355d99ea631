#!/usr/bin/env bash
# Builds the components of the lab from their published Go modules into CACHE_DIR/bin, and copies what else the
# modules hold (custom resource definitions, roles, KWOK's stages, the forge's static files) to CACHE_DIR/share.
# What is there already, from the same go.mod and go.sum, is left alone. Prints the seconds of each build.
# Arguments: CACHE_DIR, then the names of modules (folders of modules/); none: all of them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: $0 CACHE_DIR [MODULE...]" >&2; exit 2; }
mkdir -p "$1"
cache=$(cd "$1" && pwd)
shift
if ! command -v go >/dev/null 2>&1; then
    echo "lab.go: Go is not here, so the lab cannot be built; the other tests need none of it." >&2
    exit 3
fi
mkdir -p "$cache/bin" "$cache/share" "$cache/key"
export GOFLAGS="-mod=readonly -buildvcs=false ${GOFLAGS:-}" GOWORK=off

kubernetes=k8s.io/component-base/version
stamp="-X $kubernetes.gitVersion=v1.36.3 -X $kubernetes.gitMajor=1 -X $kubernetes.gitMinor=36"

# Smallest first: what fails, fails early.
all=(etcd kwok kubernetes source-controller kustomize-controller helm-controller argocd gitea)
[ $# -gt 0 ] || set -- "${all[@]}"

# Of programs: what they are built from. Of what is copied beside them: this script too.
key() { cat "$here/modules/$1/go.mod" "$here/modules/$1/go.sum" | sha256sum | cut -c1-16; }
copied() { { key "$1"; cat "$here/build.sh"; } | sha256sum | cut -c1-16; }
module() { (cd "$here/modules/$1" && go mod download "$2" && go list -m -f '{{.Dir}}' "$2"); }

program() { # program MODULE PACKAGE NAME [LDFLAGS]
    local from=$SECONDS
    (cd "$here/modules/$1" && go build -trimpath -ldflags="-s -w ${4:-}" -o "$cache/bin/$3" "$2")
    echo "built $3 $((SECONDS - from)) s"
}

share() { # share NAME FILE...: what is copied takes the place of what was there
    local to="$cache/share/$1"
    shift
    rm -rf "$to"
    mkdir -p "$to"
    cp -rL "$@" "$to/"
    chmod -R u+w "$to"
}

programs() {
    export CGO_ENABLED=0
    case $1 in
        etcd) program etcd go.etcd.io/etcd/server/v3 etcd ;;
        kwok) program kwok sigs.k8s.io/kwok/cmd/kwok kwok ;;
        kubernetes)
            program kubernetes k8s.io/kubernetes/cmd/kube-apiserver kube-apiserver "$stamp"
            program kubernetes k8s.io/kubernetes/cmd/kube-controller-manager kube-controller-manager "$stamp"
            program kubernetes k8s.io/kubernetes/cmd/kube-scheduler kube-scheduler "$stamp"
            ;;
        # All its servers and its command line are one program, chosen by a variable (parts.rs).
        argocd) program argocd github.com/argoproj/argo-cd/v3/cmd argocd "-X github.com/argoproj/argo-cd/v3/common.version=3.5.7" ;;
        source-controller | kustomize-controller | helm-controller) program "$1" "github.com/fluxcd/$1" "$1" ;;
        gitea)
            export CGO_ENABLED=1
            GOFLAGS="$GOFLAGS -tags=sqlite,sqlite_unlock_notify" program gitea code.gitea.io/gitea gitea
            ;;
        *)
            echo "lab.module: $1 is no module of the lab." >&2
            exit 2
            ;;
    esac
}

shares() {
    local dir
    case $1 in
        kwok)
            dir=$(module kwok sigs.k8s.io/kwok)
            share kwok-stages "$dir"/kustomize/stage/node/{fast,heartbeat-with-lease}/node-*.yaml "$dir"/kustomize/stage/pod/fast/pod-*.yaml
            ;;
        argocd)
            dir=$(module argocd github.com/argoproj/argo-cd/v3)
            share argocd-crds "$dir"/manifests/crds/*-crd.yaml
            share argocd-config "$dir"/manifests/base/config/*.yaml
            share argocd-path "$dir"/hack/git-verify-wrapper.sh
            share argocd-roles "$dir"/manifests/base/{application-controller-roles,applicationset-controller,repo-server,server} \
                "$dir"/manifests/cluster-rbac
            ;;
        source-controller | kustomize-controller | helm-controller)
            dir=$(module "$1" "github.com/fluxcd/$1")
            share "$1-crds" "$dir"/config/crd/bases/*.yaml
            share "$1-roles" "$dir"/config/rbac/role.yaml
            ;;
        gitea)
            dir=$(module gitea code.gitea.io/gitea)
            share gitea "$dir"/{options,templates,public}
            ;;
    esac
}

current() { [ "$(cat "$cache/key/$1" 2>/dev/null || true)" = "$2" ]; }

for name in "$@"; do
    want=$(key "$name")
    if ! current "$name" "$want"; then
        rm -f "$cache/key/$name"
        programs "$name"
        echo "$want" >"$cache/key/$name"
    fi
    want=$(copied "$name")
    if ! current "$name-share" "$want"; then
        rm -f "$cache/key/$name-share"
        shares "$name"
        echo "$want" >"$cache/key/$name-share"
    fi
done

# These are tools of other tests too.
for tool in kustomize kubectl helm; do
    GOFLAGS=-buildvcs=false "$here/../tools/build.sh" "$cache/bin" "$tool"
done
