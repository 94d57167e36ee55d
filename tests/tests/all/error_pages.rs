//! Holds `docs/errors.md` against the codes: one row each, with the same number, blame and retry.

use crate::architecture::ROOT;
use std::collections::BTreeMap;
use tidemill_core::{Blame, Code, Retry};

/// Cells of every row that begins with a code.
fn rows() -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/errors.md")).expect("docs/errors.md");
    let rows = page.lines().filter(|line| line.starts_with("| TM-"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn every_code_has_its_row() {
    let mut by_number: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows() {
        assert_eq!(row.len(), 6, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        let twice = by_number.insert(row[0].clone(), row);
        assert_eq!(twice, None, "two rows of one code");
    }
    for code in Code::ALL {
        let row = by_number.remove(&code.to_string()).unwrap_or_else(|| panic!("no row for {code} {code:?}"));
        let fault = match code.blame() {
            Blame::User => "yours",
            Blame::External => "another system's",
            Blame::Internal => "ours",
        };
        let retried = match code.retry() {
            Retry::Never => "no",
            Retry::WithBackoff => "yes",
        };
        assert_eq!(row[1], format!("{code:?}"));
        assert_eq!((row[3].as_str(), row[4].as_str()), (fault, retried), "{code} {code:?}");
    }
    assert_eq!(by_number.into_keys().collect::<Vec<_>>(), Vec::<String>::new(), "rows without a code");
}
