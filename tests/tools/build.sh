#!/usr/bin/env bash
# Builds tools from their published Go modules, pinned by go.mod and go.sum, into the folder named.
# Arguments: folder, then kustomize (the default), kubectl or helm.
set -euo pipefail
into=$1
tool=${2:-kustomize}
mkdir -p "$into"
here=$(cd "$(dirname "$0")" && pwd)
case $tool in
    kustomize) package=sigs.k8s.io/kustomize/kustomize/v5 ;;
    kubectl) package=. ;;
    helm) package=helm.sh/helm/v4/cmd/helm ;;
    *) echo "$tool is no tool of this folder" >&2; exit 2 ;;
esac
into=$(cd "$into" && pwd)
[ -x "$into/$tool" ] && exit 0
(cd "$here/$tool" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags="-s -w" -o "$into/$tool" "$package")
