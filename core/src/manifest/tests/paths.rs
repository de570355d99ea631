//! Which paths may be written.

use super::*;

#[test]
fn sixty_paths_are_judged() {
    let long = "a/".repeat(600);
    let refused = [
        "",
        "/etc/passwd",
        "C:/x",
        "../x.yaml",
        "a/../b.yaml",
        "a/./b.yaml",
        "./a.yaml",
        "a//b.yaml",
        "a/",
        "a\0b",
        "a\\b",
        "..\\x",
        ".git/config",
        ".GIT/config",
        ".Git/hooks/x",
        "a/.git/config",
        "git~1/config",
        "GIT~1/x",
        "git~2/x",
        ".git./x",
        ".git /x",
        ".g\u{200c}it/config",
        ".gi\u{feff}t/x",
        ".git::$INDEX_ALLOCATION/x",
        ".gitmodules",
        "a/.gitmodules",
        ".GITMODULES",
        ".gitmodules.",
        "gitmod~1",
        ".gitattributes",
        "a/.gitattributes",
        ".gitignore",
        "a. ",
        "a./b",
        "a /b",
        " a/b",
        "a\nb",
        "a\u{7f}b",
        "a\u{202e}b",
        "a\u{2066}b",
        "con.yaml",
        "a/NUL",
        "com1.yaml",
        "a:b",
        "a*b",
        "a?b",
        long.as_str(),
    ];
    let privileged = [
        ".github/workflows/ci.yml",
        ".github/CODEOWNERS",
        "CODEOWNERS",
        "docs/CODEOWNERS",
        ".gitlab-ci.yml",
        "ci/x.gitlab-ci.yml",
        ".gitea/workflows/a.yaml",
        ".forgejo/workflows/a.yaml",
        "Jenkinsfile",
        "ci/Jenkinsfile.prod",
        "Makefile",
        "sub/makefile",
        ".sops.yaml",
        "clusters/prod/flux-system/gotk-sync.yaml",
        "clusters/prod/flux-system/kustomization.yaml",
        "apps/.argocd-source.yaml",
        "apps/.argocd-source-shop.yaml",
        "policies/prod.yaml",
        ".circleci/config.yml",
        "run.sh",
    ];
    let plain = [
        "a.yaml",
        "apps/shop/deployment.yaml",
        "kustomization.yaml",
        "overlays/prod/kustomization.yaml",
        "clusters/prod/flux-system/apps.yaml",
        "console.yaml",
        "a.b/c-d_e+f@1.yaml",
        "übung/a.yaml",
        "git/a.yaml",
        "a..b/c.yaml",
        "policies2/a.yaml",
        ".config/a.yaml",
    ];
    let own = ["policies/".to_owned()];
    for p in refused {
        assert!(matches!(path_check(p, 0o100_644, &own), PathClass::Refused(_)), "{p:?}");
    }
    for p in privileged {
        assert!(matches!(path_check(p, 0o100_644, &own), PathClass::Privileged(_)), "{p:?}");
    }
    for p in plain {
        assert_eq!(path_check(p, 0o100_644, &own), PathClass::Plain, "{p:?}");
    }
    for mode in [0o120_000, 0o160_000, 0o040_000, 0] {
        assert!(matches!(path_check("a.yaml", mode, &own), PathClass::Refused(_)));
    }
    assert_eq!(path_check("a.yaml", 0o100_755, &own), PathClass::Plain);
}
