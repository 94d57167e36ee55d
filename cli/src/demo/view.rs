//! What the demo shows while it runs: a block that is redrawn on a terminal, else a line now and then.

use super::observe::{Status, WindowTotal};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The rate is that of so much time.
const RATE_OVER: Duration = Duration::from_secs(5);

pub(super) struct View {
    terminal: bool,
    begun: Instant,
    drawn: Mutex<Drawn>,
}

#[derive(Default)]
struct Drawn {
    /// Lines of the block on the terminal.
    lines: usize,
    last_line: Option<Instant>,
    /// When how many events had been read.
    read: VecDeque<(Instant, u64)>,
}

impl View {
    pub(super) fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            begun: Instant::now(),
            drawn: Mutex::new(Drawn::default()),
        }
    }

    /// A step that stays to be read.
    pub(super) fn step(&self, text: &str) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("[{:>5.1} s] {text}\n", self.begun.elapsed().as_secs_f64());
        // The block stays above as it was.
        drawn.lines = 0;
        put(&line);
    }

    pub(super) fn show(&self, status: &Status, windows: &[WindowTotal]) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let rate = drawn.rate(now, status.read);
        if self.terminal {
            let block = block(status, windows, rate);
            // Up to the block's first line, and everything from there away.
            let up = if drawn.lines > 0 { format!("\x1b[{}A\x1b[0J", drawn.lines) } else { String::new() };
            drawn.lines = block.lines().count();
            put(&format!("{up}{block}"));
        } else if drawn.last_line.is_none_or(|last| now - last >= LINE_EVERY) {
            drawn.last_line = Some(now);
            put(&format!(
                "[{:>5.1} s] {}\n",
                self.begun.elapsed().as_secs_f64(),
                line(status, windows, rate)
            ));
        }
    }
}

fn put(text: &str) {
    // A closed terminal is no reason to end.
    std::io::stderr().write_all(text.as_bytes()).ok();
}

impl Drawn {
    /// Between the steps in which epochs count, because between two of them nothing seems to happen.
    fn rate(&mut self, now: Instant, read: u64) -> f64 {
        if self.read.back().is_none_or(|(_, last)| *last != read) {
            self.read.push_back((now, read));
        }
        while self.read.len() > 1 && now - self.read[0].0 > RATE_OVER {
            self.read.pop_front();
        }
        let ((then, before), (last, after)) = match (self.read.front(), self.read.back()) {
            (Some(first), Some(last)) => (*first, *last),
            _ => return 0.0,
        };
        let seconds = (last - then).as_secs_f64();
        if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}

fn lag(status: &Status) -> String {
    status.lag.map_or_else(|| "?".to_owned(), |lag| lag.to_string())
}

fn latency(status: &Status) -> String {
    status.epoch_ms.map_or_else(|| "?".to_owned(), |ms| format!("{ms:.0} ms"))
}

fn line(status: &Status, windows: &[WindowTotal], rate: f64) -> String {
    let latest = windows.first().map_or_else(
        || "no window closed yet".to_owned(),
        |window| format!("window {}: {} events", window.start.format("%H:%M:%S"), window.events),
    );
    format!(
        "{rate:.0} events/s, lag {}, epoch {} in {}, duplicates {}, late {}, dead letters {}; {latest}",
        lag(status),
        status.epoch,
        latency(status),
        status.duplicates,
        status.late,
        status.dead_letters,
    )
}

fn block(status: &Status, windows: &[WindowTotal], rate: f64) -> String {
    let mut text = format!(
        "  {:<9} {rate:>9.0} events/s   lag {:>7}   epoch {} in {}\n  \
         read {:>9}   duplicates {}   late {}   dead letters {}\n",
        status.status,
        lag(status),
        status.epoch,
        latency(status),
        status.read,
        status.duplicates,
        status.late,
        status.dead_letters,
    );
    if windows.is_empty() {
        text.push_str("  no window has closed yet\n");
    }
    for window in windows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  window {}   {:>8} events   {:>14.2} revenue",
            window.start.format("%H:%M:%S"),
            window.events,
            window.revenue
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn status() -> Status {
        Status { status: "running".to_owned(), epoch: 12, read: 4_000, lag: Some(17), ..Status::default() }
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut drawn = Drawn::default();
        let begun = Instant::now();
        // Four looks a second at a number that grows once a second.
        let mut rate_at = |quarter: u64, read| drawn.rate(begun + Duration::from_millis(250 * quarter), read);
        let rates: Vec<f64> = (0..80).map(|quarter| rate_at(quarter, (quarter / 4).min(10) * 100)).collect();
        assert_eq!(rates[3], 0.0);
        assert!(rates[4..=40].iter().all(|rate| *rate == 100.0), "{rates:?}");
        assert_eq!(rates[79], 0.0);
        assert!(drawn.read.len() < 7);
    }

    #[test]
    fn says_what_is_not_known_yet() {
        let text = line(&status(), &[], 2_000.4);
        assert_eq!(
            text,
            "2000 events/s, lag 17, epoch 12 in ?, duplicates 0, late 0, dead letters 0; no window closed yet"
        );
    }

    #[test]
    fn shows_the_latest_windows() {
        let start = DateTime::from_timestamp(3_610, 0).unwrap();
        let window = WindowTotal { start, events: 42, revenue: 1_234.5 };
        let text = block(&status(), std::slice::from_ref(&window), 5.0);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("window 01:00:10") && text.contains("1234.50 revenue"), "{text}");
        assert!(line(&status(), &[window], 5.0).ends_with("window 01:00:10: 42 events"));
    }
}
