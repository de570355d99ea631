//! The scenarios that run from this one source on the sandbox and on the real components.
//!
//! `COUNTERSIGN_LAB` unset: on the sandbox. Set: on the lab that it names (see `lab`). Every scenario gets a
//! [`place::Place`]: a namespace, a repository and a daemon of its own. What Countersign said is compared with
//! what the API server showed to a watcher of our own (`truth`), and goes into a table (`table`);
//! with `COUNTERSIGN_TRUTH=FILE` it is written there as Markdown.

mod apps;
mod argocd;
mod first;
mod flux;
mod forge;
mod gate;
mod kube;
pub mod lab;
mod load;
mod others;
mod people;
mod place;
mod plain;
mod rights;
mod sandbox;
mod ssh;
mod table;
mod through;
mod truth;

pub use place::Part;

/// One test for each scenario; the table knows how many there are.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        #[cfg(test)]
        mod run {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name().await; })+
        }
        /// How many scenarios this file has.
        pub const COUNT: usize = [$(stringify!($name)),+].len();
    };
}
/// The same for scenarios that take an engine.
macro_rules! scenarios_of_both {
    ($($name:ident),+ $(,)?) => {
        #[cfg(test)]
        mod argocd {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name($crate::both::apps::Engine::Argocd).await; })+
        }
        #[cfg(test)]
        mod flux {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name($crate::both::apps::Engine::Flux).await; })+
        }
        /// How many scenarios this file has.
        pub const COUNT: usize = 2 * [$(stringify!($name)),+].len();
    };
}
pub(crate) use {scenarios, scenarios_of_both};

/// All scenarios of the suite.
pub const COUNT: usize =
    through::COUNT + argocd::COUNT + flux::COUNT + load::COUNT + rights::COUNT + first::COUNT + plain::COUNT;
