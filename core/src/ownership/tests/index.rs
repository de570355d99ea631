//! The index of what owners list: its updates and its size.

use super::*;

#[test]
fn the_index_touches_only_the_difference_and_forgets() {
    let service = ObjectKey::new("", "Service", "shop", "checkout");
    let mut index = index(&[app("argocd", "a", &[DEPLOYMENT, ("", "Service", "shop", "checkout")])]);
    index.apply(Listing::of(&app("argocd", "b", &[DEPLOYMENT]), &[]).unwrap());
    assert_eq!(index.len(), 2);
    assert_eq!(index.listing(&deployment()).len(), 2);
    index.apply(Listing::of(&app("argocd", "a", &[("", "Service", "shop", "checkout")]), &[]).unwrap());
    assert_eq!(index.listing(&deployment()), [&application("argocd", "b")]);
    assert_eq!(index.listing(&service), [&application("argocd", "a")]);
    index.remove(&application("argocd", "b"));
    assert!(index.listing(&deployment()).is_empty());
    assert!(index.known(&application("argocd", "b")).is_none());
    index.retain("Application", &std::collections::BTreeSet::new());
    assert!(index.is_empty());
}

/// So many applications with a hundred objects each.
fn filled(applications: usize) -> Index {
    let mut index = Index::new();
    for a in 0..applications {
        let objects = (0..100)
            .map(|r| ObjectKey::new("apps", "Deployment", &format!("team-{a}"), &format!("service-{r}")))
            .collect();
        index.apply(Listing {
            owner: application("argocd", &format!("app-{a}")),
            objects: Some(objects),
            remote: None,
            plane: None,
        });
    }
    index
}

#[test]
fn a_hundred_thousand_objects_stay_within_two_hundred_bytes_each() {
    let index = filled(1_000);
    assert_eq!(index.len(), 100_000);
    assert!(index.heap_bytes() / index.len() <= 200, "{}", index.heap_bytes() / index.len());
    for r in 0..100 {
        let key = ObjectKey::new("apps", "Deployment", "team-7", &format!("service-{r}"));
        assert_eq!(index.listing(&key), [&application("argocd", "app-7")]);
    }
}

/// The goal at full size; `cargo test --release -p countersign-core million -- --ignored --nocapture` prints it.
#[test]
#[ignore = "a measurement: a million objects"]
fn a_million_objects_of_ten_thousand_applications() {
    let index = filled(10_000);
    let started = std::time::Instant::now();
    for a in 0..10_000 {
        let key = ObjectKey::new("apps", "Deployment", &format!("team-{a}"), "service-7");
        assert_eq!(index.listing(&key), [&application("argocd", &format!("app-{a}"))]);
    }
    let bytes = index.heap_bytes() / index.len();
    println!("objects={} bytes_per_object={bytes} lookup_ns={}", index.len(), started.elapsed().as_nanos() / 10_000);
    assert!(bytes <= 200);
}

proptest::proptest! {
    #[test]
    fn any_order_of_updates_gives_the_same_index(steps in proptest::collection::vec((0_u8..4, proptest::collection::vec(0_u8..6, 0..5), proptest::bool::ANY), 0..40)) {
        let owner = |o: u8| application("argocd", &format!("a{o}"));
        let key = |k: u8| ObjectKey::new("", "ConfigMap", "shop", &format!("c{k}"));
        let mut index = Index::new();
        let mut model: std::collections::BTreeMap<u8, std::collections::BTreeSet<u8>> = Default::default();
        for (o, keys, remove) in steps {
            if remove {
                index.remove(&owner(o));
                model.remove(&o);
            } else {
                index.apply(Listing { owner: owner(o), objects: Some(keys.iter().map(|k| key(*k)).collect()), remote: None, plane: None });
                model.insert(o, keys.into_iter().collect());
            }
            for k in 0..6 {
                let want: Vec<OwnerRef> = model.iter().filter(|(_, ks)| ks.contains(&k)).map(|(o, _)| owner(*o)).collect();
                let got: Vec<OwnerRef> = index.listing(&key(k)).into_iter().cloned().collect();
                proptest::prop_assert_eq!(got, want);
            }
        }
    }
}
