//! What an agent can ask for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ObjectKey, ResourceRef};
use crate::error::{Problem, Result};

/// One edit: a target and exactly one operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Live object: cluster/namespace/Kind/name.
    pub target: String,
    /// Set a container's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_image: Option<SetImage>,
    /// Set the replica count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Set a container's resource requests and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_resources: Option<SetResources>,
    /// Set or remove an environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_env: Option<SetEnv>,
    /// Set or remove any field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_field: Option<SetField>,
    /// Annotations to set; null removes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotate: Option<BTreeMap<String, Option<String>>>,
    /// Labels to set; null removes. Selectors are never touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<BTreeMap<String, Option<String>>>,
    /// Restart the pods by a pod-template annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Create the target from a manifest at a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<Create>,
    /// Delete the target from Git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<Delete>,
    /// Bring a live target that nothing owns into Git as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
}

/// Arguments of `set_image`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetImage {
    /// Container name (init containers too).
    pub container: String,
    /// Whole image reference: name:tag or name@digest.
    pub image: String,
}

/// Arguments of `scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Wanted replicas.
    pub replicas: u32,
}

/// Arguments of `set_resources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetResources {
    /// Container name.
    pub container: String,
    /// Requests to set, for example {"memory": "256Mi"}.
    #[serde(default)]
    pub requests: BTreeMap<String, String>,
    /// Limits to set.
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
}

/// Arguments of `set_env`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetEnv {
    /// Container name.
    pub container: String,
    /// Variable name.
    pub name: String,
    /// Value; absent removes the variable. Never a secret.
    #[serde(default)]
    pub value: Option<String>,
}

/// Arguments of `set_field`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetField {
    /// JSON pointer into the object; list items by name: /spec/template/spec/containers/name=app/image.
    pub pointer: String,
    /// Value; absent removes the field.
    #[serde(default)]
    pub value: Option<Value>,
}

/// Arguments of `restart`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restart {}

/// Arguments of `create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// YAML of the object; one document.
    pub manifest: String,
    /// Owner that is to deliver it, as `Application namespace/name` or `Kustomization namespace/name`.
    pub owner: String,
    /// File path in the owner's repository, below the owner's path.
    pub path: String,
}

/// Arguments of `delete`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {}

/// Arguments of `adopt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// Owner that is to deliver it, as in `create`; absent: the one that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// New file below the owner's path; absent: named after the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of a new Application or Kustomization that `owner` declares for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_owner: Option<String>,
}

/// The operation of an [`Edit`], unpacked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Set a container's image.
    SetImage(SetImage),
    /// Set the replica count.
    Scale(Scale),
    /// Set requests and limits.
    SetResources(SetResources),
    /// Set or remove an environment variable.
    SetEnv(SetEnv),
    /// Set or remove any field.
    SetField(SetField),
    /// Set or remove annotations.
    Annotate(BTreeMap<String, Option<String>>),
    /// Set or remove labels.
    Label(BTreeMap<String, Option<String>>),
    /// Restart by pod-template annotation.
    Restart(Restart),
    /// Create from a manifest.
    Create(Create),
    /// Delete.
    Delete(Delete),
    /// Bring what is live into Git.
    Adopt(Adopt),
}

impl Operation {
    /// The name that policies match (`set_image`).
    pub fn name(&self) -> &'static str {
        match self {
            Self::SetImage(_) => "set_image",
            Self::Scale(_) => "scale",
            Self::SetResources(_) => "set_resources",
            Self::SetEnv(_) => "set_env",
            Self::SetField(_) => "set_field",
            Self::Annotate(_) => "annotate",
            Self::Label(_) => "label",
            Self::Restart(_) => "restart",
            Self::Create(_) => "create",
            Self::Delete(_) => "delete",
            Self::Adopt(_) => Self::ADOPT,
        }
    }

    /// The one operation that a policy has to name: a rule about every operation is no word about it.
    pub const ADOPT: &'static str = "adopt";

    /// Every operation name, in the order of the documentation.
    pub const NAMES: [&'static str; 11] = [
        "set_image",
        "scale",
        "set_resources",
        "set_env",
        "set_field",
        "annotate",
        "label",
        "restart",
        "create",
        "delete",
        Self::ADOPT,
    ];
}

impl Edit {
    /// The target, parsed.
    pub fn target(&self) -> Result<ResourceRef> {
        self.target.parse()
    }

    /// The one operation; a problem if there is none or more than one.
    pub fn operation(&self) -> Result<Operation> {
        let e = self.clone();
        let mut found: Vec<Operation> = [
            e.set_image.map(Operation::SetImage),
            e.scale.map(Operation::Scale),
            e.set_resources.map(Operation::SetResources),
            e.set_env.map(Operation::SetEnv),
            e.set_field.map(Operation::SetField),
            e.annotate.map(Operation::Annotate),
            e.label.map(Operation::Label),
            e.restart.map(Operation::Restart),
            e.create.map(Operation::Create),
            e.delete.map(Operation::Delete),
            e.adopt.map(Operation::Adopt),
        ]
        .into_iter()
        .flatten()
        .collect();
        match (found.pop(), found.is_empty()) {
            (Some(op), true) => Ok(op),
            (last, _) => Err(Problem::new(
                "input.operation",
                if last.is_none() {
                    format!("The edit of {} names no operation.", self.target)
                } else {
                    format!("The edit of {} names more than one operation.", self.target)
                },
                format!(
                    "Give exactly one of {}; several edits go side by side in `edits`.",
                    Operation::NAMES.join(", ")
                ),
            )),
        }
    }
}

/// One leaf of an object that a change sets, adds or removes. `before: None` = was absent,
/// `after: None` = is removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeafChange {
    /// The object (as rendered).
    pub object: ObjectKey,
    /// JSON pointer with list items by name where they have one.
    pub pointer: String,
    /// Value before.
    pub before: Option<Value>,
    /// Value after.
    pub after: Option<Value>,
}
