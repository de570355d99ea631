//! The named tools, resources and prompts that the suite expects, beside the product's own.
#![expect(deprecated, reason = "logging and resource subscriptions are deprecated, and the suite still tests them")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign::server::{Mcp, tools};
use rmcp::model::{
    AudioContent, CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams,
    ClientCapabilities, CompleteRequestParams, CompleteResult, CompletionInfo, ContentBlock, ErrorData,
    GetPromptRequestParams, GetPromptResponse, GetPromptResult, GetTaskParams, GetTaskResult, ImageContent, JsonObject,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, LoggingLevel,
    LoggingMessageNotificationParam, PaginatedRequestParams, ProgressNotificationParam, Prompt, PromptArgument,
    PromptMessage, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, RequestId, RequestStateCodec,
    Resource, ResourceContents, ResourceTemplate, Role, ServerCapabilities, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{RequestContext, SubscriptionContext, SubscriptionSink};
use rmcp::task_manager::TaskManager;
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Value, json};

use super::questions::{ask, given, require, str_at, text};
use super::{jobs, questions};

/// One red pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
/// No sound.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";
/// Integrity, not secrecy, is tested with it; the product makes its own key.
const STATE_KEY: &[u8] = b"a key of the conformance fixture, 32 bytes and more";
const TTL_MS: u64 = 60_000;

const TOOLS: [&str; 28] = [
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_tool_with_logging",
    "test_error_handling",
    "test_tool_with_progress",
    "test_sampling",
    "test_elicitation",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "json_schema_2020_12_tool",
    "test_reconnection",
    "test_custom_header",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    "test_missing_capability",
    "test_streaming_elicitation",
    "test_logging_tool",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
];

/// The product's server with the suite's fixtures in front of it.
#[derive(Clone)]
pub struct Fixture {
    mcp: Mcp,
    codec: RequestStateCodec,
    tasks: TaskManager,
    listeners: Arc<Mutex<HashMap<RequestId, SubscriptionSink>>>,
}

impl Fixture {
    pub fn new(mcp: Mcp) -> Self {
        Self {
            mcp,
            codec: RequestStateCodec::new_unchecked(STATE_KEY),
            tasks: TaskManager::new(),
            listeners: Arc::default(),
        }
    }

    fn listeners(&self) -> Vec<SubscriptionSink> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    async fn plain(
        &self,
        name: &str,
        arguments: &Value,
        ctx: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let result = match name {
            "test_simple_text" => text("This is a simple text response for testing."),
            "test_image_content" => CallToolResult::success(vec![ContentBlock::image(PNG, "image/png")]),
            "test_audio_content" => {
                CallToolResult::success(vec![ContentBlock::Audio(AudioContent::new(WAV, "audio/wav"))])
            }
            "test_embedded_resource" => CallToolResult::success(vec![embedded("text/plain", "embedded")]),
            "test_multiple_content_types" => CallToolResult::success(vec![
                ContentBlock::text("Several kinds:"),
                ContentBlock::image(PNG, "image/png"),
                embedded("application/json", "{\"test\":\"data\"}"),
            ]),
            "test_error_handling" => CallToolResult::error(vec![ContentBlock::text("This tool always fails.")]),
            "test_tool_with_logging" => {
                for line in ["started", "working", "done"] {
                    log(ctx, LoggingLevel::Info, line).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                text("logged")
            }
            "test_tool_with_progress" => progress(ctx).await,
            "json_schema_2020_12_tool" => text("fits"),
            "test_reconnection" => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                text("reconnected")
            }
            "test_custom_header" => match arguments.get("value").and_then(Value::as_str) {
                Some(value) => text(value),
                None => return Err(ErrorData::invalid_params("value must be a string", None)),
            },
            "test_trigger_tool_change" => {
                for listener in self.listeners() {
                    // One that has gone hears nothing.
                    let _ = listener.notify_tool_list_changed().await;
                }
                text("triggered")
            }
            "test_trigger_prompt_change" => {
                for listener in self.listeners() {
                    let _ = listener.notify_prompt_list_changed().await;
                }
                text("triggered")
            }
            "test_missing_capability" => {
                if ctx.meta.client_capabilities().unwrap_or_default().sampling.is_none() {
                    let needed = ClientCapabilities::builder().enable_sampling().build();
                    return Err(ErrorData::missing_required_client_capability(needed));
                }
                text("declared")
            }
            "test_streaming_elicitation" => {
                return Ok(require([("value", ask("A value, please", "value", "string")?)], None).into());
            }
            "test_logging_tool" => {
                if let Some(level) = ctx.meta.log_level() {
                    log(ctx, level, "as asked for").await;
                }
                text("logged")
            }
            _ => questions::call_legacy(name, arguments, ctx).await?,
        };
        Ok(result.into())
    }
}

fn embedded(mime: &str, text: &str) -> ContentBlock {
    ContentBlock::resource(ResourceContents::TextResourceContents {
        uri: "test://embedded-resource".into(),
        mime_type: Some(mime.into()),
        text: text.into(),
        meta: None,
    })
}

async fn log(ctx: &RequestContext<RoleServer>, level: LoggingLevel, line: &str) {
    let message = LoggingMessageNotificationParam::new(level, json!(line)).with_logger("conformance");
    // A client that has gone reads no log.
    let _ = ctx.peer.notify_logging_message(message).await;
}

async fn progress(ctx: &RequestContext<RoleServer>) -> CallToolResult {
    for done in [0.0, 50.0, 100.0] {
        if let Some(token) = ctx.meta.get_progress_token() {
            let _ = ctx.peer.notify_progress(ProgressNotificationParam::new(token, done).with_total(100.0)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    text("done")
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(map) => map,
        _ => JsonObject::new(),
    }
}

fn definition(name: &'static str) -> Tool {
    let schema = match name {
        "test_custom_header" => {
            json!({"type": "object", "properties": {"value": {"type": "string", "x-mcp-header": "Value"}}, "required": ["value"]})
        }
        "test_sampling" => {
            json!({"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]})
        }
        "test_elicitation" => {
            json!({"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]})
        }
        "greet" => json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}),
        "slow_compute" => {
            json!({"type": "object", "properties": {"seconds": {"type": "number"}, "label": {"type": "string"}}})
        }
        "confirm_delete" => json!({"type": "object", "properties": {"filename": {"type": "string"}}}),
        "json_schema_2020_12_tool" => json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {"address": {"$anchor": "address", "type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
            "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
            "allOf": [{"anyOf": [{"required": ["name"]}, {"required": ["address"]}]}],
            "if": {"required": ["address"]},
            "then": {"properties": {"address": {"required": ["street"]}}},
            "else": {"required": ["name"]},
            "additionalProperties": false,
        }),
        _ => json!({"type": "object", "properties": {}}),
    };
    Tool::new(name, "A fixture of the conformance suite", object(schema))
}

fn contents(uri: &str) -> Option<ResourceContents> {
    let text = |mime: &str, text: String| ResourceContents::TextResourceContents {
        uri: uri.into(),
        mime_type: Some(mime.into()),
        text,
        meta: None,
    };
    match uri {
        "test://static-text" => Some(text("text/plain", "This is the content of the static text resource.".into())),
        "test://static-binary" => Some(ResourceContents::BlobResourceContents {
            uri: uri.into(),
            mime_type: Some("image/png".into()),
            blob: PNG.into(),
            meta: None,
        }),
        _ => {
            let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
            Some(text(
                "application/json",
                json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")}).to_string(),
            ))
        }
    }
}

fn prompts() -> Vec<Prompt> {
    let argument = |name: &str| PromptArgument::new(name).with_description("An argument").with_required(true);
    let described = |name: &str, arguments| Prompt::new(name, Some("A fixture of the conformance suite"), arguments);
    vec![
        described("test_simple_prompt", None),
        described("test_prompt_with_arguments", Some(vec![argument("arg1"), argument("arg2")])),
        described("test_prompt_with_embedded_resource", None),
        described("test_prompt_with_image", None),
        described("test_input_required_result_prompt", None),
    ]
}

fn prompt(request: &GetPromptRequestParams) -> Result<Option<GetPromptResponse>, ErrorData> {
    let said = |text: String| PromptMessage::new_text(Role::User, text);
    let argument =
        |key: &str| request.arguments.as_ref().and_then(|a| a.get(key)).and_then(Value::as_str).unwrap_or_default();
    let messages = match request.name.as_str() {
        "test_simple_prompt" => vec![said("This is a simple test prompt.".into())],
        "test_prompt_with_arguments" => {
            vec![said(format!("Prompt with arguments: arg1='{}', arg2='{}'", argument("arg1"), argument("arg2")))]
        }
        "test_prompt_with_embedded_resource" => {
            let resource = PromptMessage::new_resource(
                Role::User,
                "test://static-text".into(),
                Some("text/plain".into()),
                Some("embedded".into()),
                None,
                None,
                None,
            );
            vec![resource, said("Look at it.".into())]
        }
        "test_prompt_with_image" => {
            vec![
                PromptMessage::new(Role::User, ContentBlock::Image(ImageContent::new(PNG, "image/png"))),
                said("Look at it.".into()),
            ]
        }
        "test_input_required_result_prompt" => match given(request.input_responses.as_ref(), "user_context") {
            Some(r) => vec![said(str_at(r, "/content/context").into())],
            None => {
                return Ok(Some(require([("user_context", ask("Which context?", "context", "string")?)], None).into()));
            }
        },
        _ => return Ok(None),
    };
    Ok(Some(GetPromptResult::new(messages).into()))
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let mut info = self.mcp.get_info();
        info.capabilities = ServerCapabilities::builder()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_resources_list_changed()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_completions()
            .enable_logging()
            .enable_tasks()
            .build();
        info
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        ctx: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut listed = self.mcp.list_tools(request, ctx).await?;
        listed.tools.extend(TOOLS.into_iter().chain(jobs::NAMES).map(definition));
        Ok(listed)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let fixture = TOOLS.into_iter().chain(jobs::NAMES).find(|t| *t == name).map(definition);
        fixture.or_else(|| self.mcp.get_tool(name))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = request.name.clone();
        if jobs::NAMES.contains(&name.as_ref()) {
            return jobs::call(&self.tasks, &request, &ctx).await;
        }
        if name.starts_with("test_input_required_result_") {
            return questions::call(&self.codec, &request, &ctx);
        }
        if tools::NAMES.contains(&name.as_ref()) || !TOOLS.contains(&name.as_ref()) {
            return self.mcp.call_tool(request, ctx).await;
        }
        self.plain(&name, &Value::Object(request.arguments.unwrap_or_default()), &ctx).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resource =
            |uri: &str, mime: &str| Resource::new(uri, uri).with_description("A fixture").with_mime_type(mime);
        let resources =
            vec![resource("test://static-text", "text/plain"), resource("test://static-binary", "image/png")];
        let result = ListResourcesResult { resources, ..Default::default() };
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template =
            ResourceTemplate::new("test://template/{id}/data", "template").with_mime_type("application/json");
        let result = ListResourceTemplatesResult { resource_templates: vec![template], ..Default::default() };
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let Some(contents) = contents(&request.uri) else {
            return Err(ErrorData::resource_not_found("no such resource", Some(json!({"uri": request.uri}))));
        };
        Ok(ReadResourceResult::new(vec![contents]).with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public).into())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let id = context.request_context().id.clone();
        let all = || self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        all().insert(id.clone(), context.sink().clone());
        context.cancelled().await;
        all().remove(&id);
        Ok(())
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        ctx: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let mut listed = self.mcp.list_prompts(request, ctx).await?;
        listed.prompts.extend(prompts());
        Ok(listed)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        match prompt(&request)? {
            Some(response) => Ok(response),
            None => self.mcp.get_prompt(request, ctx).await,
        }
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let values = vec![request.argument.value];
        CompletionInfo::new(values).map(CompleteResult::new).map_err(|e| ErrorData::internal_error(e, None))
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        match self.tasks.get_task(&request.task_id) {
            Ok(task) => Ok(GetTaskResult::new(task)),
            Err(_) => self.mcp.get_task(request, ctx).await,
        }
    }

    async fn update_task(&self, request: UpdateTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }
}
