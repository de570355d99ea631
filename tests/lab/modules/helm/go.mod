// Builds helm from its published module; versions and replacements are its authors' where they can be had.
module countersign.test/lab/helm

go 1.26.0

require helm.sh/helm/v4 v4.2.4
