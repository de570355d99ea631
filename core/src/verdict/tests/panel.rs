//! A commit that two releases deliver.

use serde_json::{Value, json};

use super::bench::{id, rev};
use super::flux::{ks, source};
use crate::verdict::{Act, Code, Deliverer, JudgeConfig, Line, Panel, Verdict, VerdictChange};

const OK: (&str, &str) = ("True", "UpgradeSucceeded");
const FAILED: (&str, &str) = ("False", "UpgradeFailed");

fn brings(applied: char) -> Value {
    let words = format!("Applied revision: {}", rev(applied));
    let mut k = ks(applied, applied, ("True", "ReconciliationSucceeded", &words), None);
    k["status"]["inventory"] = json!({"entries": [
        {"id": "flux-system_a_helm.toolkit.fluxcd.io_HelmRelease", "v": "v2"},
        {"id": "flux-system_b_helm.toolkit.fluxcd.io_HelmRelease", "v": "v2"},
    ]});
    k
}

fn release(name: &str, value: &str, generation: i64, ready: (&str, &str)) -> Value {
    json!({
        "apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
        "metadata": {"namespace": "flux-system", "name": name, "generation": generation},
        "spec": {"values": {"image": value}},
        "status": {
            "observedGeneration": generation, "lastAttemptedGeneration": generation, "lastAttemptedRevision": "1.0.0",
            "conditions": [{"type": "Ready", "status": ready.0, "reason": ready.1, "message": format!("of {name}")}],
        },
    })
}

struct Two {
    panel: Panel,
    out: Vec<VerdictChange>,
}

impl Two {
    /// Both releases are asked for by one commit, and the Kustomization has brought it.
    fn delivered() -> Self {
        let of =
            |name: &str| Deliverer { kind: "HelmRelease".into(), namespace: "flux-system".into(), name: name.into() };
        let mut two = Self { panel: Panel::new(JudgeConfig::default(), [of("a"), of("b")]), out: Vec::new() };
        for object in [source('a'), brings('a'), release("a", "old", 1, OK), release("b", "old", 1, OK)] {
            two.see(0, object);
        }
        let want = |name: &str| {
            json!({"group": "helm.toolkit.fluxcd.io", "kind": "HelmRelease", "namespace": "flux-system", "name": name,
                "path": "/spec/values/image", "value": "new"})
        };
        let act = Act {
            commit: Some(id('b')),
            parent: Some(id('a')),
            owner: Some(of("a")),
            want: serde_json::from_value(json!([want("a"), want("b")])).unwrap(),
            ..Act::default()
        };
        two.feed(1_000, Line::Act(act));
        two.see(2_000, source('b'));
        two.see(3_000, brings('b'));
        two
    }

    fn feed(&mut self, t_ms: i64, line: Line) {
        self.out.extend(self.panel.feed(t_ms, &line));
    }

    fn see(&mut self, t_ms: i64, object: Value) {
        self.feed(t_ms, Line::Modified { object });
    }

    fn wait(&mut self, t_ms: i64) {
        self.out.extend(self.panel.advance(t_ms));
    }

    fn now(&self) -> (Verdict, Code) {
        self.out.iter().rfind(|c| c.commit == id('b')).map(|c| (c.verdict, c.code)).unwrap()
    }
}

#[test]
fn both_have_to_be_healthy() {
    let mut two = Two::delivered();
    two.see(4_000, release("a", "new", 2, OK));
    two.see(4_000, release("b", "new", 2, ("Unknown", "Progressing")));
    two.wait(60_000);
    assert_eq!(two.now().0, Verdict::Waiting, "{:#?}", two.out);
    two.see(61_000, release("b", "new", 2, OK));
    two.wait(70_900);
    assert_eq!(two.now().0, Verdict::Waiting, "its window is not over");
    two.wait(71_000);
    assert_eq!(two.now().0, Verdict::Healthy);
    assert_eq!(two.out.iter().filter(|c| c.verdict == Verdict::Healthy).count(), 1, "said once");
}

#[test]
fn the_failure_of_the_second_is_the_commits() {
    let mut two = Two::delivered();
    two.see(4_000, release("a", "new", 2, OK));
    two.see(4_000, release("b", "new", 2, FAILED));
    two.wait(60_000);
    assert_eq!(two.now(), (Verdict::Failed, Code::ReleaseFailed));
    assert!(two.out.last().unwrap().say.contains("flux-system/b"), "{:#?}", two.out.last());
    assert!(!two.out.iter().any(|c| c.verdict == Verdict::Healthy), "never called healthy meanwhile");
    // It heals: then the commit does.
    two.see(61_000, release("b", "new", 2, OK));
    two.wait(75_000);
    assert_eq!(two.now().0, Verdict::Healthy);
}
