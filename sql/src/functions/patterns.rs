//! Small languages within Spark's functions: Java's patterns for dates and times, and paths into JSON.

use tidemill_core::{Code, Error, Result};

/// Letters of Java's patterns, and what strftime has for them.
const LETTERS: &[(&str, &str)] = &[
    ("y", "%Y"),
    ("yy", "%y"),
    ("yyyy", "%Y"),
    ("u", "%Y"),
    ("uuuu", "%Y"),
    ("M", "%-m"),
    ("MM", "%m"),
    ("MMM", "%b"),
    ("MMMM", "%B"),
    ("d", "%-d"),
    ("dd", "%d"),
    ("D", "%-j"),
    ("DDD", "%j"),
    ("E", "%a"),
    ("EE", "%a"),
    ("EEE", "%a"),
    ("EEEE", "%A"),
    ("a", "%p"),
    ("H", "%-H"),
    ("HH", "%H"),
    ("h", "%-I"),
    ("hh", "%I"),
    ("m", "%-M"),
    ("mm", "%M"),
    ("s", "%-S"),
    ("ss", "%S"),
    ("SSS", "%3f"),
    ("SSSSSS", "%6f"),
    ("SSSSSSSSS", "%9f"),
    ("XX", "%z"),
    ("XXX", "%:z"),
    ("xx", "%z"),
    ("xxx", "%:z"),
    ("Z", "%z"),
];

/// A pattern of Java's in strftime's words. Text in quotes stands for itself, and so does what is no letter.
pub(super) fn as_chrono(pattern: &str) -> Result<String> {
    let mut translated = String::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            rest = text_in_quotes(&rest[1..], &mut translated).ok_or_else(|| {
                let message = format!("the pattern `{pattern}` has a quote that is not closed");
                Error::new(Code::InvalidStatement, message)
            })?;
            continue;
        }
        let run = &rest[..rest.find(|other| other != first).unwrap_or(rest.len())];
        match LETTERS.iter().find(|(letters, _)| *letters == run) {
            Some((_, ours)) => translated.push_str(ours),
            None if first.is_ascii_alphabetic() => {
                let message = format!("`{run}` in the pattern `{pattern}`");
                return Err(Error::new(Code::Unsupported, message)
                    .hint("the same in the letters of strftime, such as '%Y-%m-%d', may be there"));
            }
            None => translated.push_str(run),
        }
        rest = &rest[run.len()..];
    }
    Ok(translated)
}

/// Copies what stands in quotes, and gives what is behind them. Two quotes are one, also alone.
fn text_in_quotes<'a>(mut rest: &'a str, to: &mut String) -> Option<&'a str> {
    if let Some(behind) = rest.strip_prefix('\'') {
        to.push('\'');
        return Some(behind);
    }
    loop {
        let (text, behind) = rest.split_once('\'')?;
        to.push_str(text);
        let Some(more) = behind.strip_prefix('\'') else { return Some(behind) };
        to.push('\'');
        rest = more;
    }
}

/// The names of a path such as `$.a.b`; `None` where it is another one.
pub(super) fn json_path(path: &str) -> Option<Vec<&str>> {
    let is_name = |name: &&str| {
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || ['_', '-', ' '].contains(&c))
    };
    let names: Vec<&str> = path.strip_prefix("$.")?.split('.').collect();
    names.iter().all(is_name).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_strftimes() {
        assert_eq!(as_chrono("yyyy-MM-dd'T'HH:mm:ss.SSSXXX").unwrap(), "%Y-%m-%dT%H:%M:%S.%3f%:z");
        assert_eq!(as_chrono("d. MMMM yy, h 'o''clock' a").unwrap(), "%-d. %B %y, %-I o'clock %p");
        assert_eq!(as_chrono("yyyyMMdd").unwrap(), "%Y%m%d");
        assert_eq!(as_chrono("''yyyy''''MM'x'''").unwrap(), "'%Y''%mx'");
        assert_eq!(as_chrono("yyyy'").unwrap_err().code, Code::InvalidStatement);
        assert_eq!(as_chrono("yyyy-ww").unwrap_err().code, Code::Unsupported);
    }

    #[test]
    fn paths_are_names() {
        assert_eq!(json_path("$.a.b_c"), Some(vec!["a", "b_c"]));
        for other in ["$", "$.", "$.a[0]", "$.a.*", "a.b", "$..a", "$.it's"] {
            assert_eq!(json_path(other), None, "{other}");
        }
    }
}
