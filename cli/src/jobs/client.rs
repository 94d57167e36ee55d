//! The calls of `/v1/jobs`.

use anyhow::{Context, Result, anyhow};
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::Write;

pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    login: Option<(String, Option<String>)>,
}

/// A job as the server shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) status: String,
    pub(super) progress: f64,
    pub(super) seconds_left: Option<f64>,
    pub(super) statements: Vec<Statement>,
    pub(super) submitted_at: String,
    pub(super) started_at: Option<String>,
    pub(super) finished_at: Option<String>,
    pub(super) error: Option<Fault>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) job: Option<String>,
    pub(super) status: String,
    pub(super) rows: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Fault {
    code: String,
    message: String,
    hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A single job's error is its whole text.
        if !self.message.starts_with(&self.code) {
            write!(f, "{}: ", self.code)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error: Fault,
}

#[derive(Debug, Deserialize)]
struct Listing {
    jobs: Vec<Row>,
}

/// A row of `tidemill.jobs`.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) status: String,
    pub(super) engine: String,
    pub(super) queued_at: Option<String>,
    pub(super) rows: u64,
    pub(super) sql: String,
}

impl Job {
    pub(super) fn ended(&self) -> bool {
        self.finished_at.is_some()
    }
}

impl Client {
    pub(super) fn new(url: &str, user: Option<String>, password: Option<String>) -> Self {
        let login = user.map(|user| (user, password));
        Self { http: reqwest::Client::new(), url: url.trim_end_matches('/').to_owned(), login }
    }

    pub(super) async fn submit(&self, body: &serde_json::Value) -> Result<Job> {
        json(self.send(self.request(Method::POST, "").json(body)).await?).await
    }

    pub(super) async fn show(&self, id: &str) -> Result<Job> {
        json(self.send(self.request(Method::GET, &format!("/{id}"))).await?).await
    }

    pub(super) async fn list(&self, status: Option<String>, limit: usize) -> Result<Vec<Row>> {
        let mut request = self.request(Method::GET, "").query(&[("limit", limit)]);
        if let Some(status) = status {
            request = request.query(&[("status", status)]);
        }
        Ok(json::<Listing>(self.send(request).await?).await?.jobs)
    }

    pub(super) async fn cancel(&self, id: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/{id}"))).await.map(|_| ())
    }

    /// Copies the result to `out`.
    pub(super) async fn result(&self, id: &str, accept: &str, out: &mut impl Write) -> Result<()> {
        let request = self.request(Method::GET, &format!("/{id}/result")).header("accept", accept);
        let mut response = self.send(request).await?;
        while let Some(part) = response.chunk().await.context("the result breaks off")? {
            out.write_all(&part)?;
        }
        Ok(out.flush()?)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/v1/jobs{path}", self.url));
        match &self.login {
            Some((user, password)) => request.basic_auth(user, password.as_ref()),
            None => request,
        }
    }

    /// Sends it; what the server refuses is an error with its words.
    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.with_context(|| {
            format!(
                "no server answers at {}; start one with `tidemill local`, or name another with --url",
                self.url
            )
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        match serde_json::from_str::<Refusal>(&text) {
            Ok(refusal) => Err(anyhow!("{}", refusal.error)),
            Err(_) => Err(anyhow!("{} answered {status}: {text}", self.url)),
        }
    }
}

async fn json<T: DeserializeOwned>(response: Response) -> Result<T> {
    response.json().await.context("the answer is not that of a Tidemill server of this version")
}
