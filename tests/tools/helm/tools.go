//go:build tools

// Package tools pins the program that build.sh builds.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
