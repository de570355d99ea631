//! How container images behave.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What becomes of a container with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Ready after the usual time.
    #[default]
    Ready,
    /// Never pulled: `ImagePullBackOff`.
    Missing,
    /// Starts and exits with this code again and again: `CrashLoopBackOff`.
    Crash(i32),
    /// Runs, but its readiness probe fails.
    Unready,
    /// Ready after this many milliseconds (divided by the speed).
    Slow(u64),
}

/// The behaviours that were set; cheap to clone.
#[derive(Debug, Clone)]
pub struct Images(Arc<watch::Sender<HashMap<String, Behaviour>>>);

impl Default for Images {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(HashMap::new())))
    }
}

impl Images {
    /// Sets how an image behaves.
    pub fn set(&self, image: &str, behaviour: Behaviour) {
        self.0.send_modify(|images| {
            images.insert(image.to_owned(), behaviour);
        });
    }

    /// How an image behaves: what was set, else by its tag (`missing` and `crash` speak for themselves).
    pub fn of(&self, image: &str) -> Behaviour {
        if let Some(set) = self.0.borrow().get(image) {
            return *set;
        }
        match image.rsplit_once(':').map(|(_, tag)| tag) {
            Some("missing") => Behaviour::Missing,
            Some("crash") => Behaviour::Crash(1),
            _ => Behaviour::Ready,
        }
    }

    /// Wakes when a behaviour is set.
    pub fn subscribe(&self) -> watch::Receiver<HashMap<String, Behaviour>> {
        self.0.subscribe()
    }
}
