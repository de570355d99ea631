//! The faces through their real transports, over a service that records what reaches it.

mod bridge;
mod fake;
mod http;
