//! YAML text in, YAML text out: byte-range edits and their proofs.
