//! Words for small worlds: times in seconds, commits by letter.

use serde_json::{Value, json};

use crate::verdict::{Act, Code, Deliverer, Judge, JudgeConfig, Line, Verdict, VerdictChange};

/// A commit id from a letter.
pub fn id(c: char) -> String {
    std::iter::repeat_n(c, 40).collect()
}

/// A Flux revision.
pub fn rev(c: char) -> String {
    format!("main@sha1:{}", id(c))
}

pub struct Bench {
    pub judge: Judge,
    pub out: Vec<VerdictChange>,
    owner: Deliverer,
}

impl Bench {
    pub fn new(kind: &str) -> Self {
        let namespace = if kind == "Application" { "argocd" } else { "flux-system" };
        let owner = Deliverer { kind: kind.into(), namespace: namespace.into(), name: "a".into() };
        Self { judge: Judge::new(JudgeConfig::default()), out: Vec::new(), owner }
    }

    pub fn line(&mut self, t: f64, line: Line) {
        self.out.extend(self.judge.feed((t * 1000.0).round() as i64, &line));
    }

    /// A push of `c` on `parent` by us.
    pub fn push(&mut self, t: f64, c: char, parent: char, want: Value) {
        let act = Act {
            commit: Some(id(c)),
            parent: Some(id(parent)),
            owner: Some(self.owner.clone()),
            want: serde_json::from_value(want).unwrap(),
            ..Act::default()
        };
        self.line(t, Line::Act(act));
    }

    /// A push by somebody else.
    pub fn foreign(&mut self, t: f64, c: char, parent: char) {
        self.line(t, Line::Act(Act { commit: Some(id(c)), parents: vec![id(parent)], ..Act::default() }));
    }

    pub fn see(&mut self, t: f64, object: Value) {
        self.line(t, Line::Modified { object });
    }

    pub fn gone(&mut self, t: f64, object: Value) {
        self.line(t, Line::Deleted { object });
    }

    pub fn wait(&mut self, t: f64) {
        self.out.extend(self.judge.advance((t * 1000.0).round() as i64));
    }

    pub fn now(&self, c: char) -> (Verdict, Code) {
        self.judge.verdict(&id(c)).unwrap()
    }

    pub fn say(&self, c: char) -> &str {
        &self.out.iter().rev().find(|o| o.commit == id(c)).unwrap().say
    }

    /// When the commit first had this verdict, in seconds.
    pub fn first(&self, c: char, verdict: Verdict) -> Option<f64> {
        self.out.iter().find(|o| o.commit == id(c) && o.verdict == verdict).map(|o| o.t as f64 / 1000.0)
    }

    pub fn codes(&self, c: char) -> Vec<Code> {
        self.out.iter().filter(|o| o.commit == id(c)).map(|o| o.code).collect()
    }
}

pub fn want_image(image: &str) -> Value {
    json!([{"kind": "Deployment", "namespace": "x", "name": "web", "path": "/spec/template/spec/containers/name=web/image", "value": image}])
}

/// A Deployment with two replicas of which `new` are of the newest template.
pub fn deployment(image: &str, generation: i64, observed: i64, new: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "x", "name": "web", "generation": generation},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "proxy", "image": "p"}, {"name": "web", "image": image}]}}},
        "status": {"observedGeneration": observed, "replicas": 2, "updatedReplicas": new, "availableReplicas": 2, "readyReplicas": 2},
    })
}

pub fn stuck(image: &str, generation: i64) -> Value {
    let mut d = deployment(image, generation, generation, 1);
    d["status"]["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]);
    d
}
