//! Whether a change that was worked out on one snapshot still holds after what others committed since.
//!
//! The rules are those of Delta's own optimistic protocol ("Concurrency control" in its documentation), for the
//! table's isolation level: `WriteSerializable`, its default, or `Serializable`.
//!
//! | they                                       | we read nothing | we rewrite the same rows | we read rows      |
//! |--------------------------------------------|-----------------|--------------------------|-------------------|
//! | changed the table's definition             | conflict        | conflict                 | conflict          |
//! | removed a file that we remove              |                 | conflict                 | conflict          |
//! | removed rows of a file that we read        |                 |                          | conflict          |
//! | added rows that we would have read         |                 |                          | conflict (\*)     |
//! | rewrote rows of other files, unchanged     |                 |                          |                   |
//!
//! (\*) A blind append counts as having come after us, unless the table is `Serializable` or we change what the
//! table is. delta-rs' own checker is not used: it overlooks that a compaction removed a file which is to be
//! rewritten, and would leave its rows in the table twice.

use deltalake_core::kernel::Action;
use std::collections::HashSet;

/// What a change depends on.
#[derive(Debug, Default)]
pub(super) struct Intent {
    /// Paths of the files that it removes.
    pub(super) removes: HashSet<String>,
    /// Paths of the files that it read; `None` stands for all of them, whichever they are.
    pub(super) reads: Option<HashSet<String>>,
    /// Whether blind appends of others count as well.
    pub(super) serializable: bool,
}

/// Looks at one commit of somebody else: fails with what contradicts us, and else returns the paths of added
/// files that contradict us *if* they may hold rows that we would have read.
pub(super) fn check(intent: &Intent, theirs: &[Action]) -> Result<Vec<String>, String> {
    let blind = theirs.iter().any(|action| match action {
        Action::CommitInfo(info) => info.is_blind_append == Some(true),
        _ => false,
    });
    let mut added = Vec::new();
    for action in theirs {
        match action {
            Action::Metadata(_) | Action::Protocol(_) => {
                return Err("the table's definition was changed".to_owned());
            }
            Action::Remove(remove) if intent.removes.contains(&remove.path) => {
                return Err(format!("the file `{}`, which is to be rewritten, was removed", remove.path));
            }
            Action::Remove(remove) if remove.data_change => match &intent.reads {
                None => return Err("rows were changed or removed".to_owned()),
                Some(read) if read.contains(&remove.path) => {
                    return Err(format!("rows of the file `{}`, which was read, were changed", remove.path));
                }
                Some(_) => {}
            },
            Action::Add(add) if add.data_change && (!blind || intent.serializable) => {
                added.push(add.path.clone());
            }
            _ => {}
        }
    }
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltalake_core::kernel::{Add, CommitInfo, Remove};

    fn add(path: &str, data_change: bool) -> Action {
        Action::Add(Add { path: path.to_owned(), data_change, ..Add::default() })
    }

    fn remove(path: &str, data_change: bool) -> Action {
        Action::Remove(Remove { path: path.to_owned(), data_change, ..Remove::default() })
    }

    fn blind() -> Action {
        Action::CommitInfo(CommitInfo { is_blind_append: Some(true), ..CommitInfo::default() })
    }

    fn paths(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_append_conflicts_with_neither_append_nor_rewrite() {
        let append = Intent { reads: Some(paths(&[])), ..Intent::default() };
        assert_eq!(check(&append, &[blind(), add("a", true)]).unwrap(), Vec::<String>::new());
        assert!(check(&append, &[remove("a", true), add("b", true)]).is_ok());
    }

    #[test]
    fn a_compaction_conflicts_only_with_who_removes_its_inputs() {
        let compaction = Intent { removes: paths(&["a", "b"]), reads: Some(paths(&[])), ..Intent::default() };
        assert!(check(&compaction, &[add("new", true), remove("c", true)]).is_ok());
        assert!(check(&compaction, &[remove("b", true)]).is_err());
        assert!(check(&compaction, &[remove("b", false)]).is_err(), "another compaction");
    }

    #[test]
    fn who_reads_rows_minds_changed_files_and_names_the_added_ones() {
        let delete = Intent { removes: paths(&["a"]), reads: Some(paths(&["a", "b"])), serializable: false };
        assert!(check(&delete, &[remove("b", true), add("b2", true)]).is_err());
        assert_eq!(check(&delete, &[remove("b", false), add("b2", false)]).unwrap(), Vec::<String>::new());
        assert!(
            check(&delete, &[remove("a", false), add("a2", false)]).is_err(),
            "rows would be there twice"
        );
        assert_eq!(check(&delete, &[remove("z", true), add("z2", true)]).unwrap(), ["z2"]);
        assert_eq!(check(&delete, &[blind(), add("n", true)]).unwrap(), Vec::<String>::new());
        let strict = Intent { serializable: true, ..delete };
        assert_eq!(check(&strict, &[blind(), add("n", true)]).unwrap(), ["n"]);
        let whole = Intent::default();
        assert!(check(&whole, &[remove("z", true)]).is_err());
        assert!(check(&whole, &[remove("z", false), add("z2", false)]).is_ok());
    }
}
