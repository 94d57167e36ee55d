//! The demo's data folder: its own, empty at the start, with a configuration by which other commands find what
//! the demo leaves there.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// Without this file in it a folder is somebody else's and stays as it is.
const MARK: &str = ".tidemill-demo";
pub(super) const CONFIG: &str = "tidemill.toml";

pub(super) fn prepare(folder: &Path) -> Result<PathBuf> {
    let place = || format!("the demo's folder {}", folder.display());
    if folder.exists() {
        let mut entries = std::fs::read_dir(folder).with_context(place)?;
        ensure!(
            folder.join(MARK).is_file() || entries.next().is_none(),
            "{} holds something that is not a demo's. Next: another --keep FOLDER",
            folder.display()
        );
        std::fs::remove_dir_all(folder).with_context(place)?;
    }
    std::fs::create_dir_all(folder).with_context(place)?;
    std::fs::write(folder.join(MARK), "made by `tidemill demo`, which removes this folder at its start\n")
        .with_context(place)?;
    let folder = std::path::absolute(folder).with_context(place)?;
    let text = format!(
        "[lake]\nroot = {:?}\n\n[journal]\npath = {:?}\n",
        folder.join("lake").display().to_string(),
        folder.join("journal.redb").display().to_string()
    );
    std::fs::write(folder.join(CONFIG), text).with_context(place)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clears_its_own_folder_and_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("a/b");
        prepare(&folder).unwrap();
        std::fs::write(folder.join("old"), "").unwrap();
        assert_eq!(prepare(&folder).unwrap(), folder);
        assert!(!folder.join("old").exists());
        let config = tidemill_core::config::Config::load(Some(&folder.join(CONFIG))).unwrap();
        assert_eq!(config.lake.root, folder.join("lake").display().to_string());
        assert_eq!(config.journal.path, folder.join("journal.redb"));

        let somebodys = temp.path().join("c");
        std::fs::create_dir(&somebodys).unwrap();
        prepare(&somebodys).unwrap();
        std::fs::remove_file(folder.join(MARK)).unwrap();
        std::fs::write(folder.join("mine"), "").unwrap();
        let error = prepare(&folder).unwrap_err();
        assert!(error.to_string().contains("--keep"), "{error}");
        assert!(folder.join("mine").exists());
    }
}
