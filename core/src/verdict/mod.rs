//! What was observed in, verdict out.
