//! The recordings of real engines, and small ones made up for what they do not show.

mod recordings;
