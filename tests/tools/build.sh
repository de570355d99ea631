#!/usr/bin/env bash
# Builds kustomize from its published Go module, pinned by go.mod and go.sum, into the folder named.
set -euo pipefail
into=$1
mkdir -p "$into"
here=$(cd "$(dirname "$0")" && pwd)
[ -x "$into/kustomize" ] && exit 0
(cd "$here/kustomize" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags="-s -w" -o "$into/kustomize" sigs.k8s.io/kustomize/kustomize/v5)
