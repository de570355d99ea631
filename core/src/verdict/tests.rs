//! The recordings of real engines, and small worlds made up for what they do not show.

mod argo;
mod bench;
mod flux;
mod helm;
mod nonsense;
mod panel;
mod recordings;
