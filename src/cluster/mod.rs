//! Reads of a cluster, and the ownership index.
