//! JSON that is also safe to look at on a terminal: what [`common::text`] would replace is escaped
//! instead, so that a program still gets every character.

use std::io::{self, Write};

use common::text::inline;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// One object on one line, without the line's end.
pub(super) fn line(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, Harmless);
    value
        .serialize(&mut serializer)
        .expect("what is printed is always valid JSON");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if inline(fragment) == fragment {
            return CompactFormatter.write_string_fragment(writer, fragment);
        }
        for c in fragment.chars() {
            let mut buffer = [0; 4];
            let text = &*c.encode_utf8(&mut buffer);
            if inline(text) == text {
                writer.write_all(text.as_bytes())?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t05_json_shows_no_control_and_loses_nothing() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{202e}b\u{7f}\u{e0041}\"\\\n äöü 👍";
        let text = line(&hostile);
        assert_eq!(inline(&text), text);
        assert!(text.contains("äöü 👍"));
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
    }
}
