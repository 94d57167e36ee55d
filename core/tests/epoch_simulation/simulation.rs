//! The random hand, and the tests.

use crate::driver::{Leader, Progress};
use crate::oracle::{self, Fault};
use crate::world::{Flaw, World};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_core::Code;

/// Moves of the hand before the end without faults.
const MOVES: usize = 150;
/// Far more steps than a world of this size needs to come to rest.
const PATIENCE: usize = 2_000;

/// How often what happened.
type Seen = BTreeMap<&'static str, u64>;

fn run(seed: u64, flaw: Flaw) -> Result<Seen, Fault> {
    let mut world = World::new(ChaCha8Rng::seed_from_u64(seed), flaw);
    let mut leader = Leader::new(&mut world);
    let mut zombies: Vec<Leader> = Vec::new();
    for _ in 0..MOVES {
        match world.rng.random_range(0..100) {
            0..65 => lead(&mut leader, &mut world)?,
            65..80 => {
                for _ in 0..world.rng.random_range(1..6) {
                    haunt(&mut zombies, &mut world);
                }
            }
            80..90 => world.grow(),
            90..95 => {
                world.note("a leader crashed");
                leader = Leader::new(&mut world);
            }
            _ => {
                world.note("a leader was deposed");
                let successor = Leader::new(&mut world);
                zombies.push(std::mem::replace(&mut leader, successor));
            }
        }
    }
    world.faults = false;
    leader.drain = true;
    for step in 0.. {
        if step == PATIENCE {
            return Err(format!("does not come to rest: {leader:?}"));
        }
        match leader.step(&mut world) {
            Progress::Idle => break,
            Progress::Working => {}
            Progress::Stopped(error) => return Err(format!("the leader stopped: {error}")),
        }
        haunt(&mut zombies, &mut world);
    }
    // What a zombie does after the end must change nothing either.
    for _ in 0..PATIENCE {
        haunt(&mut zombies, &mut world);
    }
    oracle::check(&world)?;
    Ok(world.seen)
}

fn lead(leader: &mut Leader, world: &mut World) -> Result<(), Fault> {
    match leader.step(world) {
        Progress::Stopped(error) => Err(format!("the leader stopped: {error}")),
        Progress::Working | Progress::Idle => Ok(()),
    }
}

/// One step of some zombie. One that is fenced, or that reads what its successors wrote and cannot make sense
/// of it, is gone.
fn haunt(zombies: &mut Vec<Leader>, world: &mut World) {
    if zombies.is_empty() {
        return;
    }
    let chosen = world.rng.random_range(0..zombies.len());
    if let Progress::Stopped(error) = zombies[chosen].step(world) {
        if error.code == Code::Fenced {
            world.note("a zombie learned that it is one");
        }
        zombies.swap_remove(chosen);
    }
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number of seeds"))
}

/// Runs seeds on all cores. Returns the seeds that failed, in order, and what was seen.
fn run_all(first: u64, count: u64, flaw: Flaw) -> (Vec<(u64, Fault)>, Seen) {
    let next = AtomicU64::new(first);
    let work = || {
        let (mut failed, mut all_seen) = (Vec::new(), Seen::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return (failed, all_seen);
            }
            match run(seed, flaw) {
                Ok(seen) => seen.into_iter().for_each(|(what, n)| *all_seen.entry(what).or_default() += n),
                Err(fault) => failed.push((seed, fault)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic in a seed")).collect()
    });
    let (mut failed, mut all_seen) = (Vec::new(), Seen::new());
    for (faults, seen) in results {
        failed.extend(faults);
        seen.into_iter().for_each(|(what, n)| *all_seen.entry(what).or_default() += n);
    }
    failed.sort();
    (failed, all_seen)
}

#[test]
fn every_seed_ends_with_each_record_exactly_once() {
    let (first, count) = (from_env("TIDEMILL_SIM_FIRST", 0), from_env("TIDEMILL_SIM_SEEDS", 10_000));
    let (failed, seen) = run_all(first, count, Flaw::None);
    let shown: Vec<String> =
        failed.iter().take(5).map(|(seed, fault)| format!("seed {seed}: {fault}")).collect();
    assert!(failed.is_empty(), "{} of {count} seeds failed:\n{}", failed.len(), shown.join("\n"));
    if count < 1_000 {
        return;
    }
    // A simulation that never comes to the hard places proves nothing.
    for what in [
        "a leader crashed",
        "a leader was deposed",
        "an epoch was run again",
        "a row was late",
        "a report was lost",
        "a report came twice",
        "a manifest landed and reported an error",
        "a manifest of another leader was taken up",
        "a commit landed and reported an error",
        "a repeated commit changed nothing",
        "a zombie decided the epoch",
        "a zombie committed what is decided",
        "a zombie was fenced by the journal",
        "a zombie learned that it is one",
    ] {
        let times = seen.get(what).copied().unwrap_or(0);
        assert!(times > count / 100, "{what}: only {times} times in {count} seeds; seen: {seen:#?}");
    }
}

/// How many seeds of 300 show a flaw. Without the flaw it is none.
fn caught(flaw: Flaw) -> usize {
    run_all(0, 300, flaw).0.len()
}

#[test]
fn a_driver_that_forgets_the_transaction_is_caught() {
    assert!(caught(Flaw::ForgetsTheTransaction) > 0);
}

#[test]
fn a_driver_that_forgets_the_intent_is_caught() {
    assert!(caught(Flaw::ForgetsTheIntent) > 0);
}

#[test]
fn a_driver_that_advances_before_the_commit_is_caught() {
    assert!(caught(Flaw::AdvancesBeforeTheCommit) > 0);
}

#[test]
fn a_driver_that_gathers_facts_backwards_is_caught() {
    assert!(caught(Flaw::GathersFactsBackwards) > 0);
}

#[test]
fn a_driver_that_trusts_its_tasks_is_caught() {
    assert!(caught(Flaw::TrustsTheTasks) > 0);
}
