//! Which files are written anew together: a pure function of what the log says about them.

use datafusion::common::ScalarValue;
use std::collections::BTreeMap;
use tidemill_engine::LakeFile;

/// Files from this share of the target size on stay as they are: to write them again costs more than it gives.
const LARGE: f64 = 0.75;

/// Files of one partition that become one file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bin {
    /// Numbers of the snapshot's files, in their order.
    pub(crate) files: Vec<usize>,
    pub(crate) bytes: u64,
    /// `None` where the log does not say, or where some rows are deleted.
    pub(crate) rows: Option<u64>,
    pub(crate) partition: Vec<ScalarValue>,
}

/// Whether a file is worth to be put together with others.
pub(super) fn is_small(file: &LakeFile, target: u64) -> bool {
    (file.bytes as f64) < target as f64 * LARGE
}

/// Packs the small files of each partition into bins of at most `target` bytes, keeping neighbours together: they
/// were written at about the same time, and their rows are mostly asked for together. A bin has at least two
/// files, or one with deleted rows.
pub(crate) fn bins(files: &[LakeFile], target: u64) -> Vec<Bin> {
    // Keyed by text, since values have no order; two that read alike within one column are alike.
    let mut partitions: BTreeMap<String, Vec<&LakeFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| is_small(file, target) || file.has_deleted_rows) {
        partitions.entry(format!("{:?}", file.partition)).or_default().push(file);
    }
    partitions.into_values().flat_map(|files| pack(&files, target)).collect()
}

fn pack(files: &[&LakeFile], target: u64) -> Vec<Bin> {
    let mut bins: Vec<(Bin, bool)> = Vec::new();
    for file in files {
        let open = bins.iter_mut().find(|(bin, _)| bin.bytes + file.bytes <= target);
        let rows = if file.has_deleted_rows { None } else { file.rows };
        match open {
            Some((bin, purge)) => {
                bin.files.push(file.number);
                bin.bytes += file.bytes;
                bin.rows = bin.rows.zip(rows).map(|(sum, rows)| sum + rows);
                *purge |= file.has_deleted_rows;
            }
            None => {
                let bin = Bin {
                    files: vec![file.number],
                    bytes: file.bytes,
                    rows,
                    partition: file.partition.clone(),
                };
                bins.push((bin, file.has_deleted_rows));
            }
        }
    }
    bins.into_iter().filter(|(bin, purge)| bin.files.len() > 1 || *purge).map(|(bin, _)| bin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: usize, bytes: u64, day: &str) -> LakeFile {
        let partition = vec![ScalarValue::from(day)];
        LakeFile { number, bytes, rows: Some(bytes), partition, has_deleted_rows: false }
    }

    fn numbers(bins: &[Bin]) -> Vec<Vec<usize>> {
        bins.iter().map(|bin| bin.files.clone()).collect()
    }

    #[test]
    fn neighbours_share_a_bin_up_to_the_target() {
        let files: Vec<LakeFile> = (0..7).map(|number| file(number, 40, "a")).collect();
        let packed = bins(&files, 100);
        assert_eq!(numbers(&packed), [vec![0, 1], vec![2, 3], vec![4, 5]]);
        assert_eq!((packed[0].bytes, packed[0].rows), (80, Some(80)));
    }

    #[test]
    fn partitions_do_not_mix_and_single_files_stay() {
        let files = [file(0, 10, "a"), file(1, 10, "b"), file(2, 10, "a"), file(3, 10, "c")];
        assert_eq!(numbers(&bins(&files, 100)), [vec![0, 2]]);
    }

    #[test]
    fn large_files_stay_and_what_was_packed_is_not_packed_again() {
        let files = [file(0, 90, "a"), file(1, 80, "a"), file(2, 9, "a")];
        assert!(bins(&files, 100).is_empty());
        // Each pass leaves fewer files, so passes come to an end.
        let mut files: Vec<LakeFile> = (0..50).map(|n| file(n, 1 + (n as u64 * 7) % 60, "a")).collect();
        loop {
            let packed = bins(&files, 100);
            if packed.is_empty() {
                break;
            }
            let gone: Vec<usize> = packed.iter().flat_map(|bin| bin.files.clone()).collect();
            let before = files.len();
            files.retain(|file| !gone.contains(&file.number));
            files.extend(packed.iter().map(|bin| file(1000 + before + bin.files[0], bin.bytes, "a")));
            assert!(files.len() < before);
        }
    }

    #[test]
    fn a_file_with_deleted_rows_is_written_anew_alone_and_whatever_its_size() {
        let marked = LakeFile { has_deleted_rows: true, ..file(0, 500, "a") };
        let packed = bins(&[marked, file(1, 90, "a")], 100);
        assert_eq!(numbers(&packed), [vec![0]]);
        assert_eq!(packed[0].rows, None);
    }
}
