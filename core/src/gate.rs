//! The one place that makes an authorization.
