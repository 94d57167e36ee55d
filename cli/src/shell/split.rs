//! Cuts a text into statements at `;`, outside of strings, quoted names and comments.

/// One statement, without its `;`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Line of its first word, from 1.
    pub(super) line: usize,
    pub(super) text: String,
}

/// The statements of a text and, when its last one has no `;`, what is left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) statements: Vec<Statement>,
    pub(super) rest: Option<Statement>,
}

pub(super) fn split(text: &str) -> Split {
    let mut split = Split::default();
    let mut begin: Option<usize> = None;
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        let step = match character {
            ';' => {
                if let Some(begin) = begin.take() {
                    split.statements.push(statement(text, begin, at));
                }
                at += 1;
                continue;
            }
            '-' if text[at..].starts_with("--") => {
                at += text[at..].find('\n').unwrap_or(text.len() - at);
                continue;
            }
            '/' if text[at..].starts_with("/*") => {
                at += comment(&text[at..]);
                continue;
            }
            '\'' | '"' | '`' => quoted(&text[at..], character),
            '$' => dollar_quoted(&text[at..]).unwrap_or(1),
            other => other.len_utf8(),
        };
        if !character.is_whitespace() {
            begin.get_or_insert(at);
        }
        at += step;
    }
    split.rest = begin.map(|begin| statement(text, begin, text.len()));
    split
}

fn statement(text: &str, begin: usize, end: usize) -> Statement {
    let line = text[..begin].matches('\n').count() + 1;
    Statement { line, text: text[begin..end].trim_end().to_owned() }
}

/// Length of the quoted part; a doubled quote stands for itself.
fn quoted(text: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(found) = text[at..].find(quote) {
        at += found + 1;
        if !text[at..].starts_with(quote) {
            return at;
        }
        at += 1;
    }
    text.len()
}

/// Length of a comment, which may hold comments.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (1, 2);
    while depth > 0 {
        let Some(found) = text[at..].find(['/', '*']) else { return text.len() };
        at += found;
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
    }
    at
}

/// Length of `$tag$ … $tag$`; `None` for a parameter such as `$1`.
fn dollar_quoted(text: &str) -> Option<usize> {
    let end = text[1..].find('$')? + 2;
    let name = &text[1..end - 1];
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_name || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some(text[end..].find(&text[..end]).map_or(text.len(), |close| end + close + end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let split = split(text);
        split.statements.into_iter().chain(split.rest).map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_count_only_outside_of_quotes_and_comments() {
        assert_eq!(texts("SELECT 1; SELECT ';' ; "), ["SELECT 1", "SELECT ';'"]);
        assert_eq!(texts("SELECT 'it''s; ok', \"a;b\""), ["SELECT 'it''s; ok', \"a;b\""]);
        assert_eq!(texts("SELECT 1 -- no; end\n + 2; x"), ["SELECT 1 -- no; end\n + 2", "x"]);
        assert_eq!(texts("/* a; /* b; */ c; */ SELECT 'ü'; -- end;"), ["SELECT 'ü'"]);
        assert_eq!(texts("SELECT $$a;b$$, $1; SELECT $2"), ["SELECT $$a;b$$, $1", "SELECT $2"]);
        assert_eq!(texts(";;  ;"), [""; 0]);
        assert_eq!(texts("SELECT 'open; "), ["SELECT 'open;"]);
    }

    #[test]
    fn statements_know_their_lines() {
        let split = split("-- first\n\nSELECT 1;\nSELECT\n 2; /* x\n */ SELECT 3");
        let lines: Vec<usize> = split.statements.iter().map(|statement| statement.line).collect();
        assert_eq!(lines, [3, 4]);
        assert_eq!(split.rest, Some(Statement { line: 6, text: "SELECT 3".to_owned() }));
    }
}
