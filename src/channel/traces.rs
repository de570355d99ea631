//! Traces of ended changes to an OpenTelemetry collector, by OTLP over HTTP. Feature `otel`.
//!
//! Configured as every OpenTelemetry exporter is: `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`), `…_HEADERS`,
//! `…_TIMEOUT`, `OTEL_RESOURCE_ATTRIBUTES`. What a trace says is decided in `countersign_core::trace`.

use std::time::{Duration, SystemTime};

use countersign_core::error::{Problem, Result};
use countersign_core::model::Event;
use countersign_core::trace::{Span, spans, trace_id};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _};

/// Either of them says where to.
const ENDPOINTS: [&str; 2] =
    [opentelemetry_otlp::OTEL_EXPORTER_OTLP_ENDPOINT, opentelemetry_otlp::OTEL_EXPORTER_OTLP_TRACES_ENDPOINT];
/// Most bytes of a collector's answer that are read.
const ANSWER: usize = 1024 * 1024;

/// A collector.
#[derive(Debug)]
pub struct Traces {
    exporter: SpanExporter,
    scope: InstrumentationScope,
}

impl Traces {
    /// The collector that the environment names; `None` = it names none.
    ///
    /// # Errors
    /// `otel.bad_endpoint`.
    pub fn from_env() -> Result<Option<Self>> {
        let named = |name: &&str| std::env::var(name).is_ok_and(|v| !v.is_empty());
        if ENDPOINTS.iter().any(named) { Self::new().map(Some) } else { Ok(None) }
    }

    fn new() -> Result<Self> {
        let bad = |e: String| {
            Problem::new(
                "otel.bad_endpoint",
                "The exporter of traces cannot be made.",
                "Look at the OTEL_EXPORTER_OTLP_* variables: an http or https address of a collector's OTLP/HTTP port.",
            )
            .with(e)
        };
        let client = crate::https::client()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|e| bad(e.without_url().to_string()))?;
        let built = SpanExporter::builder().with_http().with_http_client(Client(client)).build();
        let mut exporter = built.map_err(|e| bad(e.to_string()))?;
        exporter.set_resource(&Resource::builder().with_service_name("countersign").build());
        let scope = InstrumentationScope::builder("countersign").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { exporter, scope })
    }

    /// Sends the trace of a change, where it has ended.
    ///
    /// # Errors
    /// `otel.refused` (the collector cannot be reached, or did not take it); it may be sent again.
    pub async fn send(&self, story: &[Event]) -> Result<()> {
        let Some(change) = story.first().and_then(|e| e.change) else { return Ok(()) };
        let id = TraceId::from_bytes(trace_id(change));
        let batch: Vec<SpanData> = spans(story).into_iter().map(|s| self.data(id, s)).collect();
        if batch.is_empty() {
            return Ok(());
        }
        self.exporter.export(batch).await.map_err(|e| {
            Problem::new(
                "otel.refused",
                "The collector did not take a trace.",
                "Look at the collector and at OTEL_EXPORTER_OTLP_ENDPOINT; the trace is sent again until it is taken.",
            )
            .later()
            .with(e.to_string())
        })
    }

    fn data(&self, trace: TraceId, s: Span) -> SpanData {
        let id = SpanId::from_bytes(s.id.to_be_bytes());
        let mut events = SpanEvents::default();
        events.events = s
            .moments
            .into_iter()
            .map(|m| opentelemetry::trace::Event::new(m.name, moment(m.at), pairs(m.attributes), 0))
            .collect();
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: s.parent.map_or(SpanId::INVALID, |p| SpanId::from_bytes(p.to_be_bytes())),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: s.name.into(),
            start_time: moment(s.start),
            end_time: moment(s.end),
            attributes: pairs(s.attributes),
            dropped_attributes_count: 0,
            events,
            links: Default::default(),
            status: s.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        }
    }
}

fn moment(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn pairs(attributes: Vec<(&'static str, String)>) -> Vec<KeyValue> {
    attributes.into_iter().map(|(k, v)| KeyValue::new(k, v)).collect()
}

/// The daemon's own HTTP client for the exporter: its TLS, no redirects.
#[derive(Debug)]
struct Client(reqwest::Client);

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> std::result::Result<Response<Bytes>, HttpError> {
        let mut answer = self.0.execute(request.try_into()?).await.map_err(reqwest::Error::without_url)?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            *headers = std::mem::take(answer.headers_mut());
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len() + part.len() > ANSWER {
                return Err("the collector's answer is too large".into());
            }
            body.extend_from_slice(&part);
        }
        Ok(response.body(body.into())?)
    }
}
