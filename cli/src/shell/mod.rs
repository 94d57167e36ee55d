//! `tidemill sql`: statements from the prompt, from `-c`, from a file or from standard input.
//!
//! ```text
//! prompt ┐
//! -c     ├─ split ─▶ run one ─▶ Backend ─┬─ Remote: Flight SQL ─▶ a server
//! -f     │             │                 └─ Local: Frontend in this process
//! stdin  ┘             └─▶ stdout: table, csv, json lines or an Arrow stream; stderr: progress and errors
//! ```

mod backend;
mod local;
mod output;
mod prompt;
mod remote;
mod report;
mod run;
mod split;

use anyhow::Context;
pub(crate) use backend::Backend;
pub(crate) use local::Local;
pub(crate) use remote::{Access, Remote};
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tidemill_core::connector::resolve_secret;
use tidemill_scheduler::frontend::api::Frontend;

const DEFAULT_SERVER: &str = "http://127.0.0.1:32010";

#[derive(clap::Args, Debug)]
pub(crate) struct ShellArgs {
    /// Flight SQL address of a server. Without it: http://127.0.0.1:32010 if a server answers there, otherwise
    /// the statements run in this process.
    #[arg(long, env = "TIDEMILL_SERVER", value_name = "URL")]
    server: Option<String>,

    /// Runs these statements, separated by `;`, and exits.
    #[arg(short = 'c', long, value_name = "SQL", conflicts_with = "file")]
    command: Option<String>,

    /// Runs the statements of this file (`-` for standard input), stops at the first error, and exits.
    #[arg(short = 'f', long, value_name = "PATH")]
    file: Option<PathBuf>,

    /// How results are written to standard output.
    #[arg(long, value_enum, default_value_t = output::Format::Table)]
    format: output::Format,

    /// Most rows that a table shows; 0 for all.
    #[arg(long, default_value_t = 1_000, value_name = "ROWS")]
    max_rows: usize,

    /// User name; its password is taken from TIDEMILL_PASSWORD or --password-file.
    #[arg(long, env = "TIDEMILL_USER")]
    user: Option<String>,

    /// File that holds the password.
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,

    /// File that holds a bearer token; TIDEMILL_TOKEN holds one itself.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["user", "password_file"])]
    token_file: Option<PathBuf>,

    /// Certificate of the authority that signed the server's, in PEM; the system's authorities without it.
    #[arg(long, env = "TIDEMILL_TLS_CA", value_name = "PATH")]
    tls_ca: Option<PathBuf>,

    /// Certificate that this client shows, in PEM.
    #[arg(long, env = "TIDEMILL_TLS_CERT", value_name = "PATH", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Key of that certificate, in PEM.
    #[arg(long, env = "TIDEMILL_TLS_KEY", value_name = "PATH", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// A text of statements and the name under which errors point into it.
struct Script {
    name: String,
    text: String,
}

impl ShellArgs {
    fn login(&self) -> anyhow::Result<Option<remote::Login>> {
        let password = match &self.password_file {
            Some(path) => Some(resolve_secret(&format!("file:{}", path.display()))?),
            None => std::env::var("TIDEMILL_PASSWORD").ok(),
        };
        let token = match &self.token_file {
            Some(path) => Some(resolve_secret(&format!("file:{}", path.display()))?),
            None if self.user.is_none() => std::env::var("TIDEMILL_TOKEN").ok(),
            None => None,
        };
        if let Some(token) = token {
            return Ok(Some(remote::Login::Token(token)));
        }
        Ok(match (&self.user, password) {
            (None, None) => None,
            (user, password) => Some(remote::Login::Password {
                user: user.clone().unwrap_or_else(|| "tidemill".to_owned()),
                password: password.unwrap_or_default(),
            }),
        })
    }

    fn access(&self) -> anyhow::Result<remote::Access> {
        let read =
            |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        Ok(remote::Access { login: self.login()?, ca: self.tls_ca.as_ref().map(read).transpose()?, identity })
    }

    /// What to run without asking; `None` for the prompt.
    fn script(&self) -> anyhow::Result<Option<Script>> {
        if let Some(text) = &self.command {
            return Ok(Some(Script { name: "-c".to_owned(), text: text.clone() }));
        }
        match &self.file {
            Some(path) if path.as_os_str() != "-" => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
                Ok(Some(Script { name, text }))
            }
            None if std::io::stdin().is_terminal() => Ok(None),
            _ => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
                Ok(Some(Script { name: "stdin".to_owned(), text }))
            }
        }
    }
}

/// Runs the shell. `local` builds the engine of this process; it is called only when no server is used.
/// Needs the multi-threaded runtime: the prompt blocks a thread.
pub(crate) async fn run<F, Made>(args: ShellArgs, local: F) -> anyhow::Result<ExitCode>
where
    F: FnOnce() -> Made,
    Made: Future<Output = anyhow::Result<Arc<dyn Frontend>>>,
{
    let script = args.script()?;
    let backend: Arc<dyn Backend> = match (connect(&args).await, args.server.is_some()) {
        (Ok(remote), _) => Arc::new(remote),
        (Err(error), true) => {
            report::error(&error, None);
            return Ok(ExitCode::FAILURE);
        }
        // A server is there and refuses: to go on without it would show other tables than were asked for.
        (Err(error), false) if error.code == tidemill_core::Code::Unauthenticated => {
            report::error(&error, None);
            return Ok(ExitCode::FAILURE);
        }
        (Err(_), false) => Arc::new(Local::open(local().await?).await?),
    };
    let mut runner = run::Runner::new(backend, args.format, args.max_rows);
    match script {
        Some(script) => Ok(runner.script(&script.name, &script.text).await),
        None => prompt::converse(runner).await,
    }
}

async fn connect(args: &ShellArgs) -> tidemill_core::Result<Remote> {
    let access = args.access().map_err(|error| {
        tidemill_core::Error::new(tidemill_core::Code::BadOption, format!("no access: {error:#}"))
    })?;
    let server = args.server.as_deref().unwrap_or(DEFAULT_SERVER);
    Remote::connect(server, access).await
}
