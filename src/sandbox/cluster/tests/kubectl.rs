//! kubectl, which nobody here wrote, against the API server. Skipped where it is not installed.

use std::process::Output;
use std::time::Duration;

use super::world::{deployment, sandbox, until};
use crate::sandbox::cluster::ClusterSandbox;
use crate::sandbox::cluster::json::number;

struct Kubectl {
    home: tempfile::TempDir,
}

impl Kubectl {
    async fn new(sandbox: &ClusterSandbox) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config"), sandbox.kubeconfig_yaml()).unwrap();
        let version = tokio::process::Command::new("kubectl").args(["version", "--client"]).output().await;
        version.is_ok().then_some(Self { home })
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("kubectl");
        command
            .env("KUBECONFIG", self.home.path().join("config"))
            .env("HOME", self.home.path())
            .env("KUBECACHEDIR", self.home.path().join("cache"));
        command.args(arguments).kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_lists_watches_applies_patches_and_deletes() {
    let sandbox = sandbox(20.0).await;
    let Some(kubectl) = Kubectl::new(&sandbox).await else {
        return;
    };
    let file = kubectl.home.path().join("web.yaml");
    std::fs::write(&file, deployment("web", "nginx:1.27", 2)).unwrap();
    let path = file.to_str().unwrap();
    assert!(kubectl.ok(&["apply", "-f", path]).await.contains("deployment.apps/web created"));
    assert!(kubectl.ok(&["apply", "-f", path]).await.contains("deployment.apps/web unchanged"));
    std::fs::write(&file, deployment("web", "nginx:1.28", 2)).unwrap();
    assert!(kubectl.ok(&["apply", "-f", path]).await.contains("configured"));
    assert!(
        kubectl
            .ok(&["apply", "--server-side", "--field-manager=me", "--force-conflicts", "-f", path])
            .await
            .contains("serverside-applied")
    );
    assert!(
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=20s"]).await.contains("successfully rolled out")
    );
    let table = kubectl.ok(&["get", "deploy"]).await;
    assert!(table.contains("READY") && table.contains("2/2"), "{table}");
    assert_eq!(
        kubectl.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]).await,
        "nginx:1.28"
    );
    let listed: serde_json::Value =
        serde_json::from_str(&kubectl.ok(&["get", "pods", "-l", "app=web", "-A", "-o", "json"]).await).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    kubectl.ok(&["scale", "deploy/web", "--replicas=3"]).await;
    kubectl.ok(&["set", "image", "deploy/web", "web=nginx:1.29"]).await;
    until(&sandbox, ("apps", "Deployment", "default", "web"), "three of 1.29", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1.29"
            && number(d, &["status", "updatedReplicas"], 0) == 3
    })
    .await;
    let bad = kubectl
        .run(&[
            "patch",
            "deploy",
            "web",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/spec/replicas","value":-1}]"#,
        ])
        .await;
    assert!(String::from_utf8_lossy(&bad.stderr).contains("must be greater than or equal to 0"));
    assert!(kubectl.ok(&["get", "applications.argoproj.io,ks", "-A", "--ignore-not-found"]).await.is_empty());
    assert!(kubectl.ok(&["explain", "deployment.spec.replicas"]).await.contains("replicas"));
    assert!(kubectl.ok(&["auth", "can-i", "patch", "applications.argoproj.io"]).await.contains("yes"));
    kubectl.ok(&["delete", "deploy", "web"]).await;
    assert!(sandbox.get("apps", "Deployment", "default", "web").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_watches() {
    let sandbox = sandbox(20.0).await;
    let Some(kubectl) = Kubectl::new(&sandbox).await else {
        return;
    };
    let watching = kubectl
        .command(&["get", "configmap", "--watch", "-o", "name", "--request-timeout=3s"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let file = kubectl.home.path().join("seen.yaml");
    std::fs::write(&file, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: seen\n").unwrap();
    kubectl.ok(&["create", "-f", file.to_str().unwrap()]).await;
    let output = watching.wait_with_output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("configmap/seen"), "{output:?}");
}
