//! `tidemill submit` and `tidemill jobs`: a server's REST interface from the shell.

mod client;
mod follow;
mod show;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use client::Client;
use serde_json::json;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the server is, and as whom to speak to it.
#[derive(Args, Debug)]
struct Server {
    /// HTTP address of the server.
    #[arg(long, global = true, env = "TIDEMILL_URL", default_value = "http://127.0.0.1:8080")]
    url: String,

    /// User name; its password is taken from TIDEMILL_PASSWORD or --password-file.
    #[arg(long, global = true, env = "TIDEMILL_USER")]
    user: Option<String>,

    /// File that holds the password.
    #[arg(long, global = true, value_name = "PATH")]
    password_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct SubmitArgs {
    /// File of statements, separated by `;`; `-` for standard input.
    file: PathBuf,

    /// Waits for the end, with a progress bar, and writes the result of the last statement to standard output.
    #[arg(long)]
    wait: bool,

    /// How the result is written.
    #[arg(long, value_enum, default_value_t, requires = "wait")]
    format: Format,

    /// auto, in_process, pipelined or staged.
    #[arg(long)]
    engine: Option<String>,

    /// low, normal or high.
    #[arg(long)]
    priority: Option<String>,

    /// Schema of names that are written without one.
    #[arg(long)]
    schema: Option<String>,

    /// Most time for each statement, such as `5min`.
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,

    /// Memory for each statement, such as `2GiB`.
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,

    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Csv,
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists jobs, the newest first.
    List {
        /// queued, running, done, failed or cancelled.
        #[arg(long)]
        status: Option<String>,
        /// Most jobs that are listed.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Shows one job.
    Show { id: String },
    /// Cancels a job that waits or runs.
    Cancel { id: String },
}

impl Server {
    fn client(self) -> Result<Client> {
        let password = match &self.password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("the password in {} cannot be read", path.display()))?;
                Some(text.trim_end().to_owned())
            }
            None => std::env::var("TIDEMILL_PASSWORD").ok(),
        };
        Ok(Client::new(&self.url, self.user, password))
    }
}

pub(crate) async fn submit(args: SubmitArgs) -> Result<ExitCode> {
    let sql = match args.file.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
            text
        }
        _ => std::fs::read_to_string(&args.file)
            .with_context(|| format!("{} cannot be read", args.file.display()))?,
    };
    let client = args.server.client()?;
    let job = client
        .submit(&json!({
            "sql": sql,
            "engine": args.engine,
            "priority": args.priority,
            "schema": args.schema,
            "timeout": args.timeout,
            "memory_limit": args.memory_limit,
        }))
        .await?;
    if !args.wait {
        println!("{}", job.id);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("job {}", job.id);
    let job = follow::follow(&client, job).await?;
    if let Some(error) = job.error {
        bail!("{error}");
    }
    let accept = match args.format {
        Format::Csv => "text/csv",
        Format::Json => "application/json",
    };
    client.result(&job.id, accept, &mut std::io::stdout().lock()).await?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn jobs(args: JobsArgs) -> Result<ExitCode> {
    let client = args.server.client()?;
    match args.command.unwrap_or(Command::List { status: None, limit: 20 }) {
        Command::List { status, limit } => println!("{}", show::list(&client.list(status, limit).await?)),
        Command::Show { id } => println!("{}", show::one(&client.show(&id).await?)),
        Command::Cancel { id } => client.cancel(&id).await?,
    }
    Ok(ExitCode::SUCCESS)
}
