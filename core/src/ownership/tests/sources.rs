//! Where an owner comes from in Git, what it follows, and which files it reads.

use super::*;
use crate::model::{Source, SourceKind};

fn sources_of(object: &Value) -> Vec<Source> {
    sources(SourceBasis { owner: &application("argocd", "shop"), object, source: None }).unwrap()
}

#[test]
fn a_recorded_application_gives_its_source() {
    let recorded = json!({"spec": {"source": {"path": "./a1/", "repoURL": "http://127.0.0.1:18080/app.git", "targetRevision": "main"}},
        "status": {"sourceType": "Directory", "sourceHydrator": {}, "sync": {"revision": "1fef95232e981755052e4155ef30e22a1ef48954"}}});
    let got = sources_of(&recorded);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].path, "a1");
    assert_eq!(got[0].kind, Some(SourceKind::Plain));
    assert_eq!(got[0].deployed.as_deref(), Some("1fef95232e981755052e4155ef30e22a1ef48954"));
    assert_eq!(follow(&got[0]).unwrap(), Follow::BranchOrTag("main".into()));
}

#[test]
fn with_sources_the_single_source_is_ignored_and_revisions_keep_their_places() {
    let (a, b) = ("a".repeat(40), "b".repeat(40));
    let many = json!({"spec": {"source": {"repoURL": "https://x/old.git"}, "sources": [
            {"repoURL": "https://x/values.git", "ref": "values", "targetRevision": "main"},
            {"repoURL": "https://x/app.git", "path": "app", "kustomize": {"images": ["nginx:1.27"], "version": "v5"}}]},
        "status": {"sync": {"revisions": [a, b]}, "sourceTypes": ["", "Kustomize"]}});
    let got = sources_of(&many);
    assert_eq!(got.iter().map(|s| s.url.as_str()).collect::<Vec<_>>(), ["https://x/values.git", "https://x/app.git"]);
    assert_eq!(got[0].kind, Some(SourceKind::Other));
    assert_eq!(got[1].deployed.as_deref(), Some(b.as_str()));
    assert_eq!(got[1].overrides, ["spec.sources[1].kustomize.images=[\"nginx:1.27\"]"]);
    assert_eq!(follow(&got[1]).unwrap(), Follow::Default);
}

#[test]
fn an_unresolved_revision_is_no_deployed_commit() {
    let broken = json!({"spec": {"source": {"repoURL": "https://x/app.git", "path": "a"}}, "status": {"sync": {"revision": "main"}}});
    assert_eq!(sources_of(&broken)[0].deployed, None);
}

#[test]
fn tags_commits_and_ranges_are_pins() {
    let at = |revision: &str| {
        let app = json!({"spec": {"source": {"repoURL": "https://x/a.git", "path": "a", "targetRevision": revision}}});
        follow(&sources_of(&app)[0])
    };
    for pin in
        ["1.2.*", "^1.0.0", ">=1 <2", "v1.x", "1fef95232e981755052e4155ef30e22a1ef48954", "1fef952", "refs/tags/v1"]
    {
        assert_eq!(at(pin).unwrap_err().code, "source.pinned", "{pin}");
    }
    assert_eq!(at("HEAD").unwrap(), Follow::Default);
    assert_eq!(at("refs/heads/prod").unwrap(), Follow::Branch("prod".into()));
    // Letters alone may be a branch.
    for branch in ["main", "release/1.2", "deadbeef", "feature-x"] {
        assert_eq!(at(branch).unwrap(), Follow::BranchOrTag(branch.into()));
    }
}

fn flux_sources(spec: Value, source: Value) -> crate::error::Result<Vec<Source>> {
    let object =
        json!({"spec": spec, "status": {"lastAppliedRevision": "main@sha1:fd2802059a4d35e528f65d36775c38eb32c4a37b"}});
    sources(SourceBasis { owner: &kustomization("k1"), object: &object, source: Some(&source) })
}

#[test]
fn a_recorded_kustomization_gives_its_source() {
    let got = flux_sources(
        json!({"path": "./k1", "sourceRef": {"kind": "GitRepository", "name": "fl"}, "images": [{"name": "nginx", "newTag": "2"}]}),
        json!({"spec": {"ref": {"branch": "main"}, "url": "http://127.0.0.1:18080/flux.git"}}),
    )
    .unwrap();
    assert_eq!(got[0].path, "k1");
    assert_eq!(got[0].target_revision, "main");
    assert_eq!(got[0].deployed.as_deref(), Some("fd2802059a4d35e528f65d36775c38eb32c4a37b"));
    assert!(got[0].overrides[0].starts_with("spec.images="), "{:?}", got[0].overrides);
}

#[test]
fn the_ref_of_a_git_repository_has_an_order_of_precedence() {
    let at = |reference: Value| {
        flux_sources(
            json!({"sourceRef": {"kind": "GitRepository", "name": "fl"}}),
            json!({"spec": {"url": "u", "ref": reference}}),
        )
        .unwrap()
        .remove(0)
    };
    let sha = "fd2802059a4d35e528f65d36775c38eb32c4a37b";
    assert_eq!(
        at(json!({"branch": "main", "tag": "v1", "semver": "1.x", "name": "refs/heads/n", "commit": sha}))
            .target_revision,
        sha
    );
    assert_eq!(
        follow(&at(json!({"branch": "main", "tag": "v1", "semver": "1.x", "name": "refs/heads/n"}))).unwrap(),
        Follow::Branch("n".into())
    );
    assert_eq!(
        follow(&at(json!({"branch": "main", "tag": "v1", "semver": "1.2.3"}))).unwrap_err().code,
        "source.pinned"
    );
    assert_eq!(follow(&at(json!({"branch": "main", "tag": "v1"}))).unwrap_err().code, "source.pinned");
    assert_eq!(at(json!({})).target_revision, "master");
}

#[test]
fn helm_oci_and_missing_sources_are_answered_as_such() {
    let release = OwnerRef::new(Engine::Flux, "HelmRelease", "flux-system", "web");
    let got = sources(SourceBasis { owner: &release, object: &json!({}), source: None });
    assert_eq!(got.unwrap_err().code, "source.helm");
    let oci = flux_sources(
        json!({"sourceRef": {"kind": "OCIRepository", "name": "o"}}),
        json!({"spec": {"url": "oci://x/y"}}),
    )
    .unwrap();
    assert_eq!(editable(&kustomization("k1"), &oci[0]).unwrap_err().code, "source.opaque");
    let chart = sources_of(
        &json!({"spec": {"source": {"repoURL": "https://charts", "chart": "redis", "targetRevision": "1.2.3"}}}),
    );
    assert_eq!(editable(&application("argocd", "shop"), &chart[0]).unwrap_err().code, "source.helm");
    let none = sources(SourceBasis {
        owner: &kustomization("k1"),
        object: &json!({"spec": {"sourceRef": {"kind": "GitRepository", "name": "fl"}}}),
        source: None,
    });
    assert_eq!(none.unwrap_err().evidence, ["GitRepository flux-system/fl"]);
    let hydrated = json!({"spec": {"sourceHydrator": {"drySource": {"repoURL": "x"}}}});
    let got = sources(SourceBasis { owner: &application("argocd", "shop"), object: &hydrated, source: None });
    assert_eq!(got.unwrap_err().code, "source.hydrated");
}

#[test]
fn secrets_in_overrides_are_not_repeated() {
    let app = json!({"spec": {"source": {"repoURL": "https://x/a.git", "path": "c", "helm": {"parameters": [{"name": "password", "value": "hunter2"}]}}}});
    assert_eq!(sources_of(&app)[0].overrides, ["spec.source.helm.parameters"]);
}

#[test]
fn every_spelling_of_a_repository_is_one_key() {
    for url in [
        "https://GitHub.com/Acme/Shop.git",
        "ssh://git@github.com:22/acme/shop",
        "git@github.com:acme/shop.git",
        "https://user@github.com/acme/shop/",
    ] {
        assert_eq!(repo_key(url), "github.com/acme/shop", "{url}");
    }
    assert_ne!(repo_key("https://github.com/acme/shop"), repo_key("https://gitlab.com/acme/shop"));
}

#[test]
fn what_cannot_be_resolved_counts_as_shared() {
    let source = |kind, path: &str, recurse| Source {
        url: String::new(),
        target_revision: String::new(),
        path: path.into(),
        kind,
        index: 0,
        deployed: None,
        recurse,
        overrides: vec![],
    };
    let plain = source(Some(SourceKind::Plain), "apps/shop", false);
    assert_eq!(reach(&plain, "apps/shop/deploy.yaml"), Reach::Reads);
    assert_eq!(reach(&plain, "apps/shop/sub/deploy.yaml"), Reach::Never);
    assert_eq!(reach(&plain, "apps/shop-2/deploy.yaml"), Reach::Never);
    assert_eq!(reach(&source(Some(SourceKind::Kustomize), "overlays/prod", false), "base/deploy.yaml"), Reach::Maybe);
    assert_eq!(reach(&source(None, "", true), "anything.yaml"), Reach::Reads);
    assert_eq!(reach(&source(None, "x", true), "y/a.yaml"), Reach::Maybe);
}

#[test]
fn value_files_belong_to_the_source_that_they_come_from() {
    let many = json!({"spec": {"sources": [
        {"repoURL": "https://x/values.git", "ref": "values", "targetRevision": "main"},
        {"repoURL": "https://x/app.git", "path": "charts/app", "helm": {"valueFiles": ["values-prod.yaml", "/common.yaml", "$values/prod/app.yaml", "https://y/z.yaml"]}},
        {"repoURL": "https://x/more.git", "path": "c", "helm": {"valueFiles": ["env/*.yaml"]}}]}});
    let got = feeds(SourceBasis { owner: &application("argocd", "shop"), object: &many, source: None });
    assert_eq!(
        (got[0].files.as_slice(), got[0].lends, got[0].unclear),
        (["prod/app.yaml".to_owned()].as_slice(), true, false)
    );
    assert_eq!(got[1].files, ["charts/app/values-prod.yaml", "common.yaml"]);
    assert!(got[2].unclear && !got[1].unclear);
}

#[test]
fn a_helm_release_reads_its_chart_and_value_files_from_its_source() {
    let release = OwnerRef::new(Engine::Flux, "HelmRelease", "flux-system", "web");
    let object = json!({"spec": {"chart": {"spec": {"chart": "./charts/web", "valuesFiles": ["./values/prod.yaml"], "sourceRef": {"kind": "GitRepository", "name": "fl"}}}}});
    let source = json!({"spec": {"url": "https://x/y.git", "ref": {"branch": "main"}}});
    let got = feeds(SourceBasis { owner: &release, object: &object, source: Some(&source) });
    assert_eq!(
        (got[0].source.path.as_str(), got[0].files.as_slice()),
        ("charts/web", ["values/prod.yaml".to_owned()].as_slice())
    );
}
