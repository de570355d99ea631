//! A shop of a few applications, each delivered in another way, and Countersign in front of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use countersign::config::API_VERSION;
use countersign::sandbox::bot::{self, BotOptions};
use countersign::sandbox::world::{ANNA, EVE, JON, MAX, application, deployment, flux, policy};
use countersign_core::{Problem, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use crate::lab::{Account, Lab};

/// Who owns the repository, and its name.
const OWNER: &str = "acme";
const REPO: &str = "shop";
/// The cluster's name in the configuration.
pub const CLUSTER: &str = "lab";
/// Token of the bot; good for this lab's own server of the Bot API.
const BOT: &str = "7000000001:lab";

fn off(what: &str, e: &dyn std::fmt::Display) -> Problem {
    Problem::new("lab.shop", format!("{what}: {e}."), "Look at the logs of the lab.")
}

fn put(path: &Path, text: &str) -> Result<()> {
    let failed = |e: std::io::Error| off(&path.display().to_string(), &e);
    std::fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    std::fs::write(path, text).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)
}

fn key(path: &Path) -> Result<String> {
    let key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519);
    let key = key.map_err(|e| off("a key", &e))?;
    put(path, &key.to_openssh(LineEnding::LF).map_err(|e| off("a key", &e))?)?;
    key.public_key().to_openssh().map_err(|e| off("a key", &e))
}

/// The Bot API of this lab, until it is killed.
pub async fn bot(lab: &Lab) -> Result<()> {
    let options = BotOptions { token: BOT.into(), port: lab.port("bot"), ..BotOptions::default() };
    let server = bot::start(options).await.map_err(|e| off("the Bot API", &e))?;
    for (id, name) in [(JON, "Jon"), (ANNA, "Anna"), (MAX, "Max"), (EVE, "Eve")] {
        server.add_user(id, name, None, true);
    }
    std::future::pending::<()>().await;
    Ok(())
}

/// Base of the chats' control API.
pub fn chats(lab: &Lab) -> String {
    format!("http://127.0.0.1:{}/sandbox", lab.port("bot"))
}

/// The address of the MCP server.
pub fn url(lab: &Lab) -> String {
    format!("http://127.0.0.1:{}/mcp", lab.port("countersign"))
}

/// Where the configuration and its keys are.
fn home(lab: &Lab) -> PathBuf {
    lab.dir().join("countersign")
}

/// The agent's bearer token.
pub fn token(lab: &Lab) -> Result<String> {
    std::fs::read_to_string(home(lab).join("keys/agent-token")).map_err(|e| off("the agent's token", &e))
}

fn files() -> Vec<(String, Option<String>)> {
    let kustomization = |resources: &str| {
        format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - {resources}\n")
    };
    let overlay = kustomization("../../base")
        + "images:\n  - name: reg.example/catalog\n    newTag: \"3.1\" # set by release\nreplicas:\n  - name: catalog\n    count: 2\n";
    let release = "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n  name: search\n  namespace: flux-system\nspec:\n  interval: 10m\n  timeout: 30s\n  targetNamespace: shop\n  releaseName: search\n  chart:\n    spec:\n      chart: ./charts/web\n      sourceRef:\n        kind: GitRepository\n        name: shop\n  values:\n    image: reg.example/search:1.4\n    replicas: 2\n";
    let template = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {{ .Release.Name }}\nspec:\n  replicas: {{ .Values.replicas }}\n  progressDeadlineSeconds: 15\n  selector:\n    matchLabels:\n      app: {{ .Release.Name }}\n  template:\n    metadata:\n      labels:\n        app: {{ .Release.Name }}\n    spec:\n      containers:\n        - name: app\n          image: {{ .Values.image }}\n";
    let child = |name: &str| {
        let url = "REPOSITORY";
        format!("# {name} belongs to the platform\n{:#}\n", application(name, url, &format!("apps/{name}")))
    };
    let all = [
        ("apps/checkout/deploy.yaml", deployment("checkout", "reg.example/checkout:1.9.0", 2)),
        ("apps/payments/deploy.yaml", deployment("payments", "reg.example/payments:2.0.0", 2)),
        ("apps/mailer/deploy.yaml", deployment("mailer", "reg.example/mailer:0.7", 1)),
        ("catalog/base/kustomization.yaml", kustomization("deploy.yaml")),
        ("catalog/base/deploy.yaml", deployment("catalog", "reg.example/catalog:0.0", 1)),
        ("catalog/overlays/prod/kustomization.yaml", overlay),
        ("regions/eu/deploy.yaml", deployment("region-eu", "reg.example/region:5.0", 1)),
        ("regions/us/deploy.yaml", deployment("region-us", "reg.example/region:5.0", 1)),
        ("platform/mailer.yaml", child("mailer")),
        ("releases/search.yaml", release.into()),
        ("charts/web/Chart.yaml", "apiVersion: v2\nname: web\nversion: 0.1.0\n".into()),
        ("charts/web/values.yaml", "image: reg.example/web:0\nreplicas: 1\n".into()),
        ("charts/web/templates/deploy.yaml", template.into()),
    ];
    all.into_iter().map(|(p, t)| (p.to_owned(), Some(t))).collect()
}

/// The owners that are made by hand; the others come from Git.
fn owners(url: &str) -> Vec<Value> {
    let mut platform = application("platform", url, "platform");
    platform["spec"]["destination"]["namespace"] = json!("argocd");
    let mut region = application("region-{{path.basename}}", url, "{{path}}");
    region["metadata"] = json!({"name": "region-{{path.basename}}"});
    let regions = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet",
        "metadata": {"name": "regions", "namespace": "argocd"},
        "spec": {
            "generators": [{"git": {"repoURL": url, "revision": "main", "directories": [{"path": "regions/*"}]}}],
            "template": {"metadata": region["metadata"], "spec": region["spec"]},
        },
    });
    let [source, payments] = flux("payments", url, "apps/payments");
    let [_, releases] = flux("releases", url, "releases");
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        application("checkout", url, "apps/checkout"),
        application("catalog", url, "catalog/overlays/prod"),
        platform,
        regions,
        source,
        payments,
        releases,
    ]
}

/// The shop's Deployments, each with how it is delivered.
const DEPLOYMENTS: [(&str, &str); 7] = [
    ("checkout", "an Argo CD Application of plain manifests"),
    ("catalog", "an Argo CD Application of a Kustomize overlay"),
    ("mailer", "an Application that another Application delivers"),
    ("region-eu", "an Application that an ApplicationSet made"),
    ("region-us", "another one of it"),
    ("payments", "a Flux Kustomization"),
    ("search", "a HelmRelease that a Kustomization delivers"),
];

async fn settled(lab: &Lab) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(90);
    for (name, how) in DEPLOYMENTS {
        loop {
            let found = lab.get("apps/v1", "Deployment", "shop", name).await?.unwrap_or_default();
            if found["status"]["availableReplicas"].as_u64() == found["spec"]["replicas"].as_u64() && !found.is_null() {
                break;
            }
            if Instant::now() > end {
                return Err(off(&format!("{name} ({how}) did not become available within 90 s"), &found["status"]));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// The rights of `deploy/`, and a kubeconfig with them.
async fn rights(lab: &Lab) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes");
    lab.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "countersign"}})).await?;
    for file in ["rbac.yaml", "argocd.yaml", "hints.yaml"] {
        let text = std::fs::read_to_string(folder.join(file)).map_err(|e| off(file, &e))?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|e| off(file, &e))?;
        for object in objects.iter().filter(|o| o.is_object()) {
            lab.apply(object).await?;
        }
    }
    lab.token_kubeconfig("countersign", "countersign").await
}

/// Repository, owners, configuration, chat and daemon.
pub async fn open(lab: &Lab) -> Result<()> {
    let gitea = lab.gitea();
    gitea.create_repo(OWNER, REPO, false).await?;
    let mut accounts = Vec::new();
    for login in ["countersign-bot", "jon", "anna"] {
        let account = gitea.account(login).await?;
        gitea.let_in(OWNER, REPO, &account, "write").await?;
        accounts.push(account);
    }
    let clone = gitea.clone_url(OWNER, REPO);
    let mut first = files();
    for (_, text) in &mut first {
        *text = text.as_ref().map(|t| t.replace("REPOSITORY", &clone));
    }
    gitea.commit(OWNER, REPO, "main", "The shop", &first).await?;
    for owner in owners(&clone) {
        lab.apply(&owner).await?;
    }
    let bot = accounts.into_iter().next().ok_or_else(|| off("the bot's account", &"none"))?;
    configure(lab, &bot).await?;
    serve(lab).await?;
    settled(lab).await
}

async fn configure(lab: &Lab, bot: &Account) -> Result<()> {
    let home = home(lab);
    let gitea = lab.gitea();
    let file = |name: &str| home.join(name);
    key(&file("keys/signing"))?;
    let anna = key(&file("keys/anna"))?;
    let agent = countersign_core::model::hex(&rand::random::<[u8; 24]>());
    put(&file("keys/agent-token"), &agent)?;
    put(&file("keys/forge-token"), &bot.token)?;
    put(&file("keys/bot-token"), BOT)?;
    put(&file("kubeconfig.yaml"), &rights(lab).await?)?;
    put(&file("policies/policy.yaml"), &policy("prompted", "merge_after_approval", 1))?;
    let kustomize = lab.programs().join("kustomize");
    put(
        &file("countersign.yaml"),
        &format!(
            "state_dir: state\nresources: [resources]\npolicies: policies\nsigning_key: {{file: keys/signing}}\nstdio_agent: sre-bot\nkustomize: {}\ntimes: {{observe_s: 300, stable_s: 5, failed_grace_s: 10, deliver_s: 120, poll_s: 2}}\n",
            kustomize.display()
        ),
    )?;
    let hash = countersign_core::model::hex(&Sha256::digest(agent.as_bytes()));
    let forge = json!({"kind": "gitea", "api_url": gitea.api_url(), "owner": OWNER, "repo": REPO, "token": {"file": "keys/forge-token"}, "merge_method": "merge"});
    let of = |kind: &str, name: &str, spec: Value| json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec});
    let resources = [
        of(
            "Repository",
            "shop",
            json!({"url": gitea.clone_url(OWNER, REPO), "auth": {"username": bot.login, "token": {"file": "keys/forge-token"}}, "forge": forge}),
        ),
        of("Cluster", CLUSTER, json!({"kubeconfig": "kubeconfig.yaml", "hints": true, "labels": {"env": "prod"}})),
        of("Agent", "sre-bot", json!({"sponsor": "jon", "token_sha256": hash})),
        of("Person", "jon", json!({"telegram": JON, "forge": "jon", "groups": ["dev"]})),
        of("Person", "anna", json!({"telegram": ANNA, "forge": "anna", "ssh_keys": [anna], "groups": ["sre"]})),
        of("Person", "max", json!({"telegram": MAX, "groups": ["sre"]})),
        of(
            "Channel",
            "telegram",
            json!({"kind": "telegram", "token": {"file": "keys/bot-token"}, "api_url": format!("http://127.0.0.1:{}", lab.port("bot"))}),
        ),
    ];
    // JSON is YAML.
    let text: String = resources.iter().map(|r| format!("---\n{r:#}\n")).collect();
    put(&file("resources/all.yaml"), &text)
}

/// The chat and the daemon, as processes that stay.
async fn serve(lab: &Lab) -> Result<()> {
    let me = std::env::current_exe().map_err(|e| off("this program", &e))?;
    let words = |w: &str| -> Vec<String> { w.split(' ').map(str::to_owned).collect() };
    let dir = lab.dir().display();
    let probe = format!("{}/chats/{ANNA}", chats(lab));
    lab.start_beside("bot", &me, &words(&format!("--dir {dir} bot")), &probe).await?;
    let program = me.parent().and_then(Path::parent).unwrap_or(Path::new(".")).join("countersign");
    let config = home(lab).join("countersign.yaml");
    let at = format!("127.0.0.1:{}", lab.port("countersign"));
    let args = words(&format!("--config {} serve --http {at}", config.display()));
    lab.start_beside("countersign", &program, &args, &format!("http://{at}/healthz")).await
}

/// What there is, and what to try.
pub async fn tell(lab: &Lab) -> Result<()> {
    let mcp = json!({"mcpServers": {"countersign": {
        "type": "http", "url": url(lab), "headers": {"Authorization": format!("Bearer {}", token(lab)?)},
    }}});
    let bin = lab.programs();
    let config = home(lab).join("countersign.yaml");
    println!("The shop, in namespace shop of {}:", lab.gitea().clone_url(OWNER, REPO));
    for (name, how) in DEPLOYMENTS {
        println!("  {CLUSTER}/shop/Deployment/{name:<10} {how}");
    }
    println!("\nexport KUBECONFIG={}", lab.admin_kubeconfig().display());
    println!("{}/kubectl get deployments,pods -n shop; {0}/kubectl get applications -n argocd", bin.display());
    let (server, password) = lab.argocd_login().await?;
    println!(
        "{0}/argocd login {server} --plaintext --username admin --password {password}; {0}/argocd app wait checkout --sync --health",
        bin.display()
    );
    println!("\nConfiguration of an MCP client:\n{mcp:#}");
    println!("\nTry, from the repository's root, or with your own agent:");
    let edit = json!({"edits": [{"target": format!("{CLUSTER}/shop/Deployment/checkout"), "set_image": {"container": "app", "image": "reg.example/checkout:1.9.1"}}], "reason": "1.9.1 is out"});
    println!("  just lab call operate '{edit}'");
    println!("  just lab chat                # what Anna sees");
    println!("  just lab press Approve       # as Anna");
    println!("  just lab call change '{{\"change\":\"…\",\"wait_s\":60}}'");
    println!("  countersign --config {} pending", config.display());
    println!("Images that end badly: reg.example/checkout:missing, :crash, :oom, :notready, :slow, :flap.");
    println!("The forge: {} (just lab accounts); everything: just lab-status, just lab-down.", lab.gitea().url());
    Ok(())
}

/// What a person's chat shows.
pub async fn chat(lab: &Lab, person: i64) -> Result<()> {
    let got = reqwest::get(format!("{}/chats/{person}", chats(lab))).await.map_err(|e| off("the chat", &e))?;
    let shown: Value = got.json().await.map_err(|e| off("the chat", &e))?;
    let messages = shown.as_array().or_else(|| shown["messages"].as_array()).cloned().unwrap_or_default();
    for m in messages {
        let buttons: Vec<&str> = m["buttons"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(|b| b["text"].as_str())
            .collect();
        println!(
            "{}\n{}\n",
            m["text"].as_str().unwrap_or_default(),
            buttons.iter().map(|b| format!("[{b}] ")).collect::<String>()
        );
    }
    Ok(())
}

/// Presses a button of a person's newest card that has it.
pub async fn press(lab: &Lab, person: i64, button: &str) -> Result<()> {
    let body = json!({"chat_id": person, "button": button});
    let sent = reqwest::Client::new().post(format!("{}/press", chats(lab))).json(&body).send().await;
    let answer = sent.map_err(|e| off("the chat", &e))?;
    let good = answer.status().is_success();
    let words = answer.text().await.map_err(|e| off("the chat", &e))?;
    println!("{words}");
    if good { Ok(()) } else { Err(off("nothing was pressed", &words)) }
}
