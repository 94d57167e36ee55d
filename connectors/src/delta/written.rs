//! Which tables this process committed to: whoever looks after tables asks here.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use url::Url;

static WRITTEN: LazyLock<Mutex<BTreeSet<Url>>> = LazyLock::new(Mutex::default);

pub(super) fn note(table: &Url) {
    let mut written = WRITTEN.lock();
    if !written.contains(table) {
        written.insert(table.clone());
    }
}

/// All since the last time.
pub(super) fn take() -> Vec<Url> {
    std::mem::take(&mut *WRITTEN.lock()).into_iter().collect()
}
