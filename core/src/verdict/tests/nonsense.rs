//! Anything at all may be fed: no panic, no endless loop, and never a healthy without a want.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::bench::{id, rev};
use crate::verdict::{Act, Deliverer, Judge, JudgeConfig, Line, Verdict};

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9/:@. ]{0,12}".prop_map(Value::from),
        Just(json!(id('b'))),
        Just(json!(rev('b'))),
        Just(json!(format!("Running health checks for revision {}", rev('b')))),
        Just(json!("True")),
        Just(json!("Running")),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let key = prop::sample::select(vec![
            "kind",
            "metadata",
            "name",
            "namespace",
            "status",
            "spec",
            "conditions",
            "type",
            "message",
            "reason",
            "sync",
            "revision",
            "revisions",
            "operationState",
            "phase",
            "operation",
            "generation",
            "observedGeneration",
            "lastAppliedRevision",
            "inventory",
            "entries",
            "id",
            "resources",
            "annotations",
            "replicas",
            "updatedReplicas",
            "history",
            "x",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|kv| Value::Object(kv.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// An object of a kind that matters, with nonsense inside.
fn object() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec![
        "Application",
        "Kustomization",
        "HelmRelease",
        "HelmChart",
        "GitRepository",
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "Rollout",
        "Pod",
        "AppProject",
        "ReplicaSet",
    ]);
    (kind, json_value(), json_value(), any::<i64>()).prop_map(|(kind, spec, status, generation)| {
        json!({"kind": kind, "metadata": {"namespace": "n", "name": "a", "generation": generation}, "spec": spec, "status": status})
    })
}

fn line() -> impl Strategy<Value = Line> {
    let push = (
        prop::sample::select(vec!['a', 'b', 'c']),
        prop::sample::select(vec!['a', 'b', 'c']),
        prop::sample::select(vec!["Application", "Kustomization", "HelmRelease", "ApplicationSet", "?"]),
        any::<bool>(),
    )
        .prop_map(|(c, p, kind, absent)| {
            Line::Act(Act {
                commit: Some(id(c)),
                parent: Some(id(p)),
                owner: Some(Deliverer { kind: kind.into(), namespace: "n".into(), name: "a".into() }),
                want: (!absent).then(Vec::new),
                ..Act::default()
            })
        });
    prop_oneof![
        4 => object().prop_map(|object| Line::Modified { object }),
        1 => object().prop_map(|object| Line::Deleted { object }),
        1 => json_value().prop_map(|object| Line::Added { object }),
        2 => push,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_neither_panics_nor_becomes_healthy(lines in prop::collection::vec((any::<i64>(), line()), 1..24)) {
        let mut judge = Judge::new(JudgeConfig::default());
        let mut out = Vec::new();
        for (t, l) in &lines {
            out.extend(judge.feed(*t, l));
        }
        out.extend(judge.advance(i64::MAX));
        prop_assert!(out.iter().all(|c| c.verdict != Verdict::Healthy));
        prop_assert!(out.windows(2).all(|w| w[0].t <= w[1].t));
    }

    #[test]
    fn any_line_of_json_is_read_or_refused(v in json_value()) {
        let _ = serde_json::from_value::<crate::verdict::Recorded>(v);
    }
}
