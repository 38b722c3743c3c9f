//! JSON that is also safe to look at on a terminal: what [`common::text`] would replace is escaped
//! instead, so that a program still gets every character.

use std::io::{self, Write};

use common::text::inline;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::node::command::{Event, OfferView};
use crate::shell::names::FileName;

/// An offer as it is told. If accepting it under its own name would be in vain, with `refusal`, the
/// reason, and `substitute`, a name under which it can be taken.
pub(super) fn offer(offer: &OfferView) -> Value {
    let told = serde_json::to_value(Event::Offer(offer.clone()));
    let mut told = told.expect("what is printed is always valid JSON");
    if let Err(refusal) = FileName::parse(&offer.name) {
        told["params"]["refusal"] = refusal.to_string().into();
        if let Some(name) = FileName::substitute(&offer.name) {
            told["params"]["substitute"] = name.as_str().into();
        }
    }
    told
}

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
        // One for one: what is replaced is what is escaped.
        let shown = inline(fragment);
        if shown == fragment {
            return CompactFormatter.write_string_fragment(writer, fragment);
        }
        for (c, shown) in fragment.chars().zip(shown.chars()) {
            if c == shown {
                write!(writer, "{c}")?;
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
    fn t04_an_offer_whose_name_is_refused_says_so() {
        let offered = |name: &str| {
            offer(&OfferView {
                transfer: common::id::TransferId::from_bytes([0; 16]),
                from: "bob".parse().unwrap(),
                name: name.to_owned(),
                size: 5,
                executable: false,
            })
        };
        let plain = offered("letter.txt");
        assert_eq!(plain["params"]["name"], "letter.txt");
        assert_eq!(plain["params"].get("refusal"), None);
        let hidden = offered(".bashrc");
        assert_eq!(hidden["method"], "offer");
        let refusal = hidden["params"]["refusal"].as_str().unwrap();
        assert!(refusal.contains("would hide the file"), "{refusal}");
        assert_eq!(hidden["params"]["substitute"], "_bashrc");
        let hostile = offered("../up");
        assert!(hostile["params"]["refusal"].is_string());
        assert_eq!(hostile["params"]["substitute"], "___up");
    }

    #[test]
    fn t05_json_shows_no_control_and_loses_nothing() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{202e}b\u{7f}\u{e0041}\"\\\n äöü 👍";
        let text = line(&hostile);
        assert_eq!(inline(&text), text);
        assert!(text.contains("äöü 👍"));
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
        // Joiners that belong stay, next to others that do not, too.
        let joined = "👩\u{200d}🚀 می\u{200c}خ pay\u{200d}pal";
        let text = line(&joined);
        assert_eq!(text, "\"👩\u{200d}🚀 می\u{200c}خ pay\\u200dpal\"");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), joined);
    }
}
