//! The API server: kubeconfigs, and objects of any kind.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::{Problem, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use serde_json::{Value, json};

use super::{Lab, off, problem};

/// How long an object is tried again while its kind is not there yet.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kubeconfig, as JSON. `authority` is `{"certificate-authority": PATH}` or `{"certificate-authority-data": …}`.
pub(super) fn kubeconfig(port: u16, mut authority: Value, user: &str, token: &str) -> String {
    authority["server"] = json!(format!("https://127.0.0.1:{port}"));
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": authority}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
    });
    format!("{config:#}\n")
}

pub(super) async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let parsed = Kubeconfig::read_from(kubeconfig).map_err(|e| off("the kubeconfig")(&e))?;
    let config = kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.map_err(|e| off("the kubeconfig")(&e))?).map_err(|e| off("the client")(&e))
}

fn text<'v>(object: &'v Value, path: &str) -> &'v str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub(super) async fn api(
    client: &kube::Client,
    api: &str,
    kind: &str,
    namespace: &str,
) -> kube::Result<Api<DynamicObject>> {
    let (group, version) = api.rsplit_once('/').unwrap_or(("", api));
    let (resource, about) = pinned_kind(client, &GroupVersionKind::gvk(group, version, kind)).await?;
    Ok(match about.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = if namespace.is_empty() { "default" } else { namespace };
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    })
}

async fn apply_once(client: &kube::Client, object: &Value) -> kube::Result<Value> {
    let at = api(client, text(object, "/apiVersion"), text(object, "/kind"), text(object, "/metadata/namespace"));
    let params = PatchParams::apply("lab").force();
    let made = at.await?.patch(text(object, "/metadata/name"), &params, &Patch::Apply(object)).await?;
    Ok(serde_json::to_value(made).unwrap_or_default())
}

fn named(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

fn refused(what: &str, e: &kube::Error) -> Problem {
    off(what)(e)
}

pub(super) async fn apply(client: &kube::Client, object: &Value) -> Result<Value> {
    apply_once(client, object).await.map_err(|e| refused(&format!("{} was not applied", named(object)), &e))
}

/// The same, tried again while the API server does not know the kind or the namespace yet.
pub(super) async fn apply_patiently(client: &kube::Client, object: &Value) -> Result<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        match apply_once(client, object).await {
            Ok(made) => return Ok(made),
            Err(e) if Instant::now() > end => return Err(refused(&format!("{} was not applied", named(object)), &e)),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Lays the object's fields over what is there, as `kubectl patch --type merge` does.
pub(super) async fn merge(client: &kube::Client, object: &Value) -> Result<()> {
    let failed = |e: kube::Error| refused(&format!("{} was not patched", named(object)), &e);
    let at = api(client, text(object, "/apiVersion"), text(object, "/kind"), text(object, "/metadata/namespace"));
    let params = PatchParams { field_manager: Some("lab-person".into()), ..PatchParams::default() };
    let at = at.await.map_err(failed)?;
    at.patch(text(object, "/metadata/name"), &params, &Patch::Merge(object)).await.map(drop).map_err(failed)
}

/// Waits until the API server serves what a CustomResourceDefinition defines. A controller that starts before
/// sees nothing of it for ten seconds.
pub(super) async fn served(client: &kube::Client, definition: &Value) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    for version in versions.into_iter().flatten().filter(|v| v["served"] == true) {
        let at = format!("{}/{}", text(definition, "/spec/group"), text(version, "/name"));
        let kind = text(definition, "/spec/names/kind");
        while let Err(e) = api(client, &at, kind, "").await {
            if Instant::now() > end {
                return Err(refused(&format!("{at} {kind} is not served"), &e));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

pub(super) async fn get(
    client: &kube::Client,
    version: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>> {
    let failed = |e: kube::Error| refused(&format!("{kind} {namespace}/{name} cannot be read"), &e);
    let found = api(client, version, kind, namespace).await.map_err(failed)?.get_opt(name).await.map_err(failed)?;
    Ok(found.and_then(|o| serde_json::to_value(o).ok()))
}

pub(super) async fn delete(
    client: &kube::Client,
    version: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<()> {
    let failed = |e: kube::Error| refused(&format!("{kind} {namespace}/{name} was not deleted"), &e);
    let at = api(client, version, kind, namespace).await.map_err(failed)?;
    match at.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => done.map(drop).map_err(failed),
    }
}

pub(super) async fn service_account(lab: &Lab, namespace: &str, name: &str, rules: &[Value]) -> Result<String> {
    let rbac = "rbac.authorization.k8s.io/v1";
    let role = lab.guest().map_or_else(|| format!("lab:{namespace}:{name}"), |_| name.to_owned());
    let subject = json!([{"kind": "ServiceAccount", "namespace": namespace, "name": name}]);
    let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}),
        json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": role}, "rules": rules}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": role}, "roleRef": role_ref, "subjects": subject}),
    ] {
        lab.apply(&object).await?;
    }
    token_kubeconfig(lab, namespace, name).await
}

/// The cluster of another kubeconfig, for somebody else.
fn at_the_same_address(kubeconfig: &Path, user: &str, token: &str) -> Result<String> {
    let whole = Kubeconfig::read_from(kubeconfig).map_err(|e| off("the kubeconfig")(&e))?;
    let context = whole.contexts.iter().find(|c| Some(&c.name) == whole.current_context.as_ref());
    let cluster = context.and_then(|c| c.context.as_ref()).map(|c| c.cluster.clone()).unwrap_or_default();
    let found = whole.clusters.iter().find(|c| c.name == cluster).and_then(|c| c.cluster.as_ref());
    let found = found.ok_or_else(|| problem("The kubeconfig's current context names no cluster.", "Correct it."))?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": found}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
    });
    Ok(format!("{config:#}\n"))
}

pub(super) async fn token_kubeconfig(lab: &Lab, namespace: &str, name: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(lab.client().await?, namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(86_400), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .map_err(|e| refused(&format!("no token for ServiceAccount {namespace}/{name}"), &e))?;
    let token = made.status.map(|s| s.token).unwrap_or_default();
    if token.is_empty() {
        return Err(problem(format!("The token of ServiceAccount {namespace}/{name} is empty."), "Report it."));
    }
    if lab.guest().is_some() {
        return at_the_same_address(&lab.admin_kubeconfig(), name, &token);
    }
    let pem = std::fs::read(lab.dir.join("pki/apiserver.crt")).map_err(|e| off("the API server's certificate")(&e))?;
    let authority = json!({"certificate-authority-data": STANDARD.encode(pem)});
    Ok(kubeconfig(lab.state.port("kube-apiserver"), authority, name, &token))
}
