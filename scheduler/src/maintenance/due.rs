//! What a table needs: a pure function from what is known of it to what is done.

use super::bins::is_small;
use std::collections::BTreeMap;
use tidemill_engine::LakeFile;
use tidemill_engine::maintenance::Facts;

/// Commits without a checkpoint after which one is written here. A sink writes one far more often by itself;
/// this is for when that failed.
const COMMITS_WITHOUT_CHECKPOINT: u64 = 20;

/// Cleaning lists the whole log.
const CLEAN_LOG_EVERY_SECS: u64 = 3600;

/// What is known of a table besides its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Since this process cleaned its log for the last time.
    pub(crate) cleaned_secs_ago: Option<u64>,
    /// Files that [`due`] would have compacted.
    pub(crate) due_files: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Checkpoint,
    CleanLog,
    Compact,
}

/// In the order in which it is done.
pub(crate) fn decide(facts: &Facts, known: Known) -> Vec<Action> {
    let mut actions = Vec::new();
    let behind = facts.version - facts.checkpoint.unwrap_or(0).min(facts.version);
    if behind >= COMMITS_WITHOUT_CHECKPOINT {
        actions.push(Action::Checkpoint);
    }
    let may_clean = facts.cleans_log && (facts.checkpoint.is_some() || behind >= COMMITS_WITHOUT_CHECKPOINT);
    if may_clean && known.cleaned_secs_ago.is_none_or(|secs| secs >= CLEAN_LOG_EVERY_SECS) {
        actions.push(Action::CleanLog);
    }
    if facts.compacts && known.due_files > 0 {
        actions.push(Action::Compact);
    }
    actions
}

/// The files that are worth to be compacted without being asked: of each partition that has `from` small ones,
/// all up to the largest that is no larger than those before it together. So a row is written anew a number of times that
/// grows with the logarithm of the table and not with every few commits.
pub(crate) fn due(files: Vec<LakeFile>, target: u64, from: usize) -> Vec<LakeFile> {
    let mut partitions: BTreeMap<String, Vec<LakeFile>> = BTreeMap::new();
    for file in files.into_iter().filter(|file| is_small(file, target)) {
        partitions.entry(format!("{:?}", file.partition)).or_default().push(file);
    }
    let mut all = Vec::new();
    for mut files in partitions.into_values().filter(|files| files.len() >= from.max(2)) {
        files.sort_by_key(|file| (file.bytes, file.number));
        let (mut sum, mut worth) = (0, 0);
        for (place, file) in files.iter().enumerate() {
            if file.bytes <= sum {
                worth = place + 1;
            }
            sum += file.bytes;
        }
        files.truncate(worth);
        if files.len() >= from.max(2) {
            files.sort_by_key(|file| file.number);
            all.extend(files);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts { version: 100, checkpoint: Some(100), cleans_log: true, compacts: true }
    }

    fn file(number: usize, bytes: u64) -> LakeFile {
        LakeFile { number, bytes, rows: None, partition: Vec::new(), has_deleted_rows: false }
    }

    #[test]
    fn a_table_in_order_needs_nothing() {
        let known = Known { cleaned_secs_ago: Some(10), due_files: 0 };
        assert!(decide(&facts(), known).is_empty());
    }

    #[test]
    fn what_is_behind_is_made_up_for() {
        let known = Known { cleaned_secs_ago: None, due_files: 60 };
        let late = Facts { checkpoint: Some(70), ..facts() };
        assert_eq!(decide(&late, known), [Action::Checkpoint, Action::CleanLog, Action::Compact]);
        let never = Facts { checkpoint: None, version: 5, ..facts() };
        assert_eq!(decide(&never, known), [Action::Compact], "a log without a checkpoint is never cleaned");
    }

    #[test]
    fn a_table_may_refuse() {
        let known = Known { cleaned_secs_ago: None, due_files: 60 };
        assert!(decide(&Facts { cleans_log: false, compacts: false, ..facts() }, known).is_empty());
    }

    #[test]
    fn few_files_wait_and_large_ones_stay() {
        let few: Vec<LakeFile> = (0..9).map(|number| file(number, 10)).collect();
        assert!(due(few.clone(), 1000, 10).is_empty());
        let mut many = few;
        many.extend([file(9, 10), file(10, 5000), file(11, 400)]);
        let taken: Vec<usize> = due(many, 1000, 10).iter().map(|file| file.number).collect();
        assert_eq!(taken, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn files_of_unequal_size_are_taken_too() {
        let files: Vec<LakeFile> = (0..60).map(|number| file(number, 1000 + 7 * number as u64)).collect();
        assert_eq!(due(files, 1_000_000, 10).len(), 60);
    }

    #[test]
    fn a_row_is_rewritten_a_logarithmic_number_of_times() {
        for spread in [1, 10, 1000] {
            rewritten_little(spread);
        }
    }

    /// With files of 1 to `spread` bytes, as if by chance.
    fn rewritten_little(spread: u64) {
        let (mut files, mut rewritten, mut next, mut all) = (Vec::new(), 0, 0, 0);
        for turn in 0..4096u64 {
            let bytes = 1 + turn.wrapping_mul(2_654_435_761) % spread;
            all += bytes;
            files.push(file(next, bytes));
            next += 1;
            let taken = due(files.clone(), 1_000_000_000, 8);
            if !taken.is_empty() {
                let bytes: u64 = taken.iter().map(|file| file.bytes).sum();
                rewritten += bytes;
                files.retain(|file| !taken.contains(file));
                files.push(file(next, bytes));
                next += 1;
            }
            assert!(files.len() < 40, "{}", files.len());
        }
        assert!(rewritten < all * 12, "{rewritten} of {all}");
    }
}
