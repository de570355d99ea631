// Builds kwok from its published module; versions and replacements are its authors' where they can be had.
module countersign.test/lab/kwok

go 1.26.0

require sigs.k8s.io/kwok v0.8.0
