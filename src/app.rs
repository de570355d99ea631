//! Wiring: names the concrete adapters.
