//! Events to state to next step.
