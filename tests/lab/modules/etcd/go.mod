// Builds etcd from its published module; versions and replacements are its authors' where they can be had.
module countersign.test/lab/etcd

go 1.26

require go.etcd.io/etcd/server/v3 v3.6.5
