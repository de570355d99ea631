//! Which Application, Kustomization or HelmRelease owns a live object.
