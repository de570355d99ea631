//! Over ssh, against a server that the environment names; run by hand and where one is installed.

use super::*;

/// `COUNTERSIGN_TEST_SSH`: `HOST:PORT`, private key file, known_hosts file, separated by spaces.
#[tokio::test]
#[ignore = "needs an ssh server, named by COUNTERSIGN_TEST_SSH"]
async fn a_change_goes_round_over_ssh_with_a_pinned_host_key() {
    let named = std::env::var("COUNTERSIGN_TEST_SSH").unwrap();
    let [address, key, known] = named.split(' ').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let w = World::new();
    let url = format!("ssh://git@{address}{}", w.remote().display());
    let credentials = |known: Option<String>, key: &str| Credentials {
        ssh_key_pem: Some(if key.is_empty() { key_pem(9) } else { std::fs::read_to_string(key).unwrap().into() }),
        known_hosts: known,
        ..Credentials::default()
    };
    let pinned = std::fs::read_to_string(known).unwrap();
    let repo = GitRepo::open("a", &url, credentials(Some(pinned.clone()), key), &w.mirror()).await.unwrap();
    let tip = repo.fetch("main").await.unwrap();
    let made = repo.build_commit(request(&tip, "a.yaml", Some("a: 1\n")), Some(&signer())).await.unwrap();
    assert_eq!(repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap().outcome, PushOutcome::Landed);
    assert_eq!(w.tip("main"), Some(made.clone()));
    let other = repo.build_commit(request(&tip, "b.yaml", Some("a: 1\n")), None).await.unwrap();
    assert_eq!(repo.push_unchecked(Some(&other), MAIN, Some(&tip)).await.unwrap_err().code, "git.lease_lost");

    let name = pinned.split(' ').next().unwrap();
    let wrong = ssh_key::PublicKey::from(ssh_key::private::Ed25519Keypair::from_seed(&[3; 32]).public);
    let changed = format!("{name} {}\n", wrong.to_openssh().unwrap());
    for (known, facts) in [(Some(changed), 2), (Some("other.example.com ssh-ed25519 AAAA\n".to_owned()), 1), (None, 0)]
    {
        repo.set_credentials(credentials(known, key));
        let e = repo.fetch("main").await.unwrap_err();
        assert_eq!((e.code.as_ref(), e.evidence.len()), ("git.host_key", facts), "{e}");
    }
    repo.set_credentials(credentials(Some(pinned), ""));
    assert_eq!(repo.fetch("main").await.unwrap_err().code, "git.auth");
}
