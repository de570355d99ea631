//! A proxy in front of a Git server, so that others can be faster than a push, on whatever server it is.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::place::Place;

type Errand = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

#[derive(Clone)]
struct Shared {
    base: String,
    http: reqwest::Client,
    errand: Arc<Mutex<Option<Errand>>>,
    answers: Arc<Mutex<Vec<String>>>,
}

/// The proxy; it goes with the runtime.
pub struct Gate {
    /// Address of the repository through the proxy.
    pub url: String,
    shared: Shared,
}

const HOP: [header::HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

fn passed(headers: &HeaderMap) -> HeaderMap {
    headers.iter().filter(|(k, _)| !HOP.contains(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

async fn pass(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let push = parts.method == axum::http::Method::POST && path.ends_with("/git-receive-pack");
    if push {
        let errand = shared.errand.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(errand) = errand {
            errand().await;
        }
    }
    let body = to_bytes(body, 64 * 1024 * 1024).await.unwrap_or_default();
    let url = format!("{}{path}", shared.base);
    let sent = shared.http.request(parts.method, &url).headers(passed(&parts.headers)).body(body).send().await;
    match sent {
        Ok(answer) => {
            let (status, headers) = (answer.status(), passed(answer.headers()));
            let bytes = answer.bytes().await.unwrap_or_default();
            if push {
                let words = String::from_utf8_lossy(&bytes).into_owned();
                shared.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(words);
            }
            (status, headers, Body::from(bytes)).into_response()
        }
        Err(e) => (StatusCode::BAD_GATEWAY, e.to_string()).into_response(),
    }
}

impl Gate {
    /// A proxy in front of this repository, at this address of this machine.
    pub async fn start(url: &str, host: &str) -> Self {
        let parsed = url::Url::parse(url).unwrap();
        let base = parsed.origin().ascii_serialization();
        let http = reqwest::Client::builder().no_gzip().build().unwrap();
        let shared = Shared { base, http, errand: Arc::default(), answers: Arc::default() };
        let listener = tokio::net::TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(pass).with_state(shared.clone());
        tokio::spawn(async move { drop(axum::serve(listener, app).await) });
        Self { url: format!("http://{address}{}", parsed.path()), shared }
    }

    /// Done right before the next push reaches the server.
    pub fn before_next_push(&self, errand: impl FnOnce() -> BoxFuture<'static, ()> + Send + 'static) {
        let mut slot = self.shared.errand.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *slot = Some(Box::new(errand));
    }

    /// What the server answered to each push, in order.
    pub fn all_answers(&self) -> Vec<String> {
        self.shared.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// What it answered to the last one.
    pub fn answered(&self) -> String {
        self.all_answers().pop().unwrap_or_default()
    }

    /// Whether what was to be done is done.
    pub fn done(&self) -> bool {
        self.shared.errand.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_none()
    }
}

impl Place {
    /// Somebody else pushes these files right before the next push through the gate.
    pub fn overtaken(&self, files: &'static [(&'static str, &'static str)]) {
        let people = self.people.clone();
        let errand = move || {
            let work = move || people.commit(&files.iter().map(|(f, c)| (*f, Some(*c))).collect::<Vec<_>>());
            async move { drop(tokio::task::spawn_blocking(work).await) }.boxed()
        };
        self.gate.as_ref().unwrap().before_next_push(errand);
    }
}
