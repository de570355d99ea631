//! Channels that ask and tell people.
