//! kustomize and helm as subprocesses.
