//! The one binary: `tidemill local | scheduler | executor | sql | submit | jobs | generate | demo`.

mod demo;
mod generate;
mod jobs;
mod node;
mod shell;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use tidemill_core::config::Config;
use tracing_subscriber::EnvFilter;

// Queries allocate and free many buffers on many threads, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Batch and micro-batch SQL over Kafka, Delta and ClickHouse.
#[derive(Parser, Debug)]
#[command(name = "tidemill", version, propagate_version = true)]
struct Cli {
    /// Configuration file; by default `tidemill.toml` in the working directory, if there is one.
    #[arg(long, global = true, env = "TIDEMILL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs everything in one process: engine, journal, Flight SQL, web page.
    Local,
    /// Plans and schedules; the work is done by the executors that register.
    Scheduler,
    /// Works for a scheduler.
    Executor,
    /// Runs SQL statements, from the prompt, from -c or from a file.
    Sql(shell::ShellArgs),
    /// Gives a file of statements to a server, which runs them whether anybody waits or not.
    Submit(jobs::SubmitArgs),
    /// Lists, shows and cancels a server's jobs.
    Jobs(jobs::JobsArgs),
    /// Produces synthetic e-commerce events into Kafka.
    Generate(generate::GenerateArgs),
    /// Runs the main job from end to end and proves that nothing was lost.
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let quiet = !matches!(cli.command, Command::Local | Command::Scheduler | Command::Executor);
    log(quiet);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli));
    // Threads that block on a broker must not hold the end of the process up.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let config = Config::load(cli.config.as_deref())?;
    match cli.command {
        Command::Local => node::serve_local(config, shutdown()).await?,
        Command::Scheduler => node::serve_scheduler(config, shutdown()).await?,
        Command::Executor => node::serve_executor(config, shutdown()).await?,
        Command::Sql(args) => {
            return shell::run(args, async || Ok(node::start_local(config).await?.frontend as _)).await;
        }
        Command::Submit(args) => return jobs::submit(args).await,
        Command::Jobs(args) => return jobs::jobs(args).await,
        Command::Generate(args) => generate::run(args).await?,
        Command::Demo(args) => {
            if let Some(server) = args.server.clone() {
                return demo::run(args, demo::Place::Server(server)).await;
            }
            let folder = args.prepare_folder()?;
            let config = demo_config(config, &folder);
            let node = node::start_local(config).await?;
            let code = demo::run(args, demo::Place::Here(node.frontend.clone())).await;
            node.stop().await;
            return code;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything of the demo is in its own folder.
fn demo_config(mut config: Config, folder: &std::path::Path) -> Config {
    config.lake.root = folder.join("lake").display().to_string();
    config.lake.checkpoints = None;
    config.journal.path = folder.join("journal.redb");
    config
}

/// Resolves with Ctrl-C or SIGTERM.
async fn shutdown() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// Log lines go to standard error; `TIDEMILL_LOG` sets what is logged, as in `tidemill=debug`.
fn log(quiet: bool) {
    let default = if quiet {
        "off"
    } else {
        "warn,deltalake_core::writer=error,tidemill=info,tidemill_scheduler=info,tidemill_executor=info"
    };
    let filter = EnvFilter::try_from_env("TIDEMILL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
