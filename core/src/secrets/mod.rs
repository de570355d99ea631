//! Which leaves of manifests are secrets, and text without them.
//!
//! Structure first: a Secret's data, name and value side by side, generators, embedded files.
//! Then names, then the shapes of known tokens, and entropy last, on what is still unexplained.
//! References to secrets, sealed and encrypted ones, digests and checksums are not secrets.

mod decode;
mod names;
mod object;
mod redact;
mod shapes;
#[cfg(test)]
mod tests;
mod text;

pub use object::{Finding, scan_leaves, scan_object, secret_values};
pub use redact::Redactor;
pub use text::{Span, scan_text};
