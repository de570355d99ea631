//! The one place that makes an authorization.

/// Proof that a change may act on the world.
#[derive(Debug)]
pub struct Authorization {
    _private: (),
}
