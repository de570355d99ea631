//! Structural secret detection and redaction.
