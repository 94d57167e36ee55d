//! Waits for the end of a job, and shows how far it is.

use super::client::{Client, Job};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(250);
const BAR: u64 = 1_000;

/// Ctrl-C cancels the job.
pub(super) async fn follow(client: &Client, mut job: Job) -> Result<Job> {
    let bar = ProgressBar::new(BAR);
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {percent:>3} %  {elapsed}  {msg}") {
        bar.set_style(style);
    }
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    while !job.ended() {
        tokio::select! {
            _ = &mut interrupt => {
                client.cancel(&job.id).await?;
                bar.finish_and_clear();
                bail!("cancelled by Ctrl-C");
            }
            _ = looks.tick() => job = client.show(&job.id).await?,
        }
        bar.set_position((job.progress * BAR as f64) as u64);
        bar.set_message(words(&job));
    }
    bar.finish_and_clear();
    Ok(job)
}

fn words(job: &Job) -> String {
    let done = job.statements.iter().filter(|one| one.status == "done").count();
    let all = job.statements.len();
    let of = if all > 1 { format!(", statement {} of {all}", (done + 1).min(all)) } else { String::new() };
    let left = job.seconds_left.map(|left| format!(", about {left:.0} s left")).unwrap_or_default();
    format!("{}{of}{left}", job.status)
}
