//! Argo CD and Flux: facts, sources, hints.
