//! Finding messages by their words: an index of the full text (SQLite's FTS5) that follows the history at a distance.
//!
//! Nothing waits for the index while messages come and go. It is brought up when the history has been idle for a
//! moment, a piece at a time, and by whoever searches. A trigger takes out what is taken back.

use common::limits::{SEARCH_WORDS_LEN_MAX, SEARCH_WORDS_MAX};
use rusqlite::{Connection, params};

/// The migration that adds the index. `upto` is the number of the last message that it has. A number may be given again
/// once nothing follows it.
pub(super) const MIGRATION: &str = "
    CREATE VIRTUAL TABLE words USING fts5(
        body, content = 'messages', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 2'
    );
    CREATE TABLE words_of (
        only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
        upto INTEGER NOT NULL
    ) STRICT;
    INSERT INTO words_of VALUES (1, 0);
    CREATE TRIGGER messages_deleted AFTER DELETE ON messages BEGIN
        INSERT INTO words (words, rowid, body)
            SELECT 'delete', old.number, old.body WHERE old.number <= (SELECT upto FROM words_of);
        UPDATE words_of SET upto = min(upto, (SELECT coalesce(max(number), 0) FROM messages));
    END;
";

/// Adds the next messages to the index, at most `count`. Returns whether there are more.
pub(super) fn add(connection: &Connection, count: u32) -> rusqlite::Result<bool> {
    let added = connection
        .prepare_cached(
            "INSERT INTO words (rowid, body) SELECT number, body FROM messages
             WHERE number > (SELECT upto FROM words_of) ORDER BY number LIMIT ?1",
        )?
        .execute(params![count])?;
    if added > 0 {
        connection
            .prepare_cached(
                "UPDATE words_of SET upto = (SELECT max(number) FROM (
                     SELECT number FROM messages WHERE number > upto ORDER BY number LIMIT ?1))",
            )?
            .execute(params![count])?;
    }
    Ok(added >= count as usize)
}

/// What FTS5 is asked for: each word, or what begins with it. `None` if there is none.
pub(super) fn expression(words: &[String]) -> Option<String> {
    let mut len = 0;
    let words = words.iter().take(SEARCH_WORDS_MAX).filter(|word| {
        len += word.len();
        len <= SEARCH_WORDS_LEN_MAX && word.chars().any(char::is_alphanumeric)
    });
    let phrases: Vec<String> = words
        .map(|word| format!("\"{}\"*", word.replace('"', "\"\"").replace('\0', " ")))
        .collect();
    (!phrases.is_empty()).then(|| phrases.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_words_and_never_syntax() {
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            expression(&words)
        };
        assert_eq!(of(&["hello"]).as_deref(), Some("\"hello\"*"));
        let odd = of(&["OR", "\"x\" NEAR", "!!!", "a\0b"]);
        assert_eq!(odd.as_deref(), Some("\"OR\"* \"\"\"x\"\" NEAR\"* \"a b\"*"));
        assert_eq!(of(&["…", ""]), None);
        let many = vec!["word"; SEARCH_WORDS_MAX + 9];
        assert_eq!(of(&many).unwrap().matches("word").count(), SEARCH_WORDS_MAX);
        assert_eq!(of(&["x".repeat(SEARCH_WORDS_LEN_MAX + 1).as_str()]), None);
    }
}
