//! Git without a work tree.
