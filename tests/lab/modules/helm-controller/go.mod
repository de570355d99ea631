// Builds helm-controller from its published module; versions and replacements are its authors' where they can be had.
module countersign.test/lab/helm-controller

go 1.26.0

require github.com/fluxcd/helm-controller v1.6.4

replace (
	github.com/opencontainers/go-digest => github.com/opencontainers/go-digest v1.0.1-0.20231025023718-d50d2fec9c98
	sigs.k8s.io/kustomize/api => sigs.k8s.io/kustomize/api v0.21.1
	sigs.k8s.io/kustomize/kyaml => sigs.k8s.io/kustomize/kyaml v0.21.1
)
