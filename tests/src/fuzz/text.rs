//! What reaches a terminal or a disk, and names that people see.

use std::fmt::{Debug, Display};
use std::path::{Component, Path};
use std::str::FromStr;

use common::id::{AccountName, DeviceName, MessageId, TransferId};
use common::key::Fingerprint;
use common::lan::LanName;
use common::limits::{DEVICE_NAME_LEN_MAX, FILE_NAME_LEN_MAX, MESSAGE_LEN_MAX, REASON_LEN_MAX};
use common::text::{block, inline};
use common::wire::peer::{MessageBody, Reason};
use common::wire::rendezvous::AdmissionCode;
use peer::shell::names::FileName;

// ---- texts -------------------------------------------------------------------------------------

pub(super) fn texts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    gate(&text);
    same_when_shown::<AccountName>(&text);
    same_when_shown::<MessageId>(&text);
    same_when_shown::<TransferId>(&text);
    same_when_shown::<LanName>(&text);
    same_when_shown::<Fingerprint>(&text);
    same_when_shown::<AdmissionCode>(&text);
    device_name(&text);
    reason(&text);
    let body = MessageBody::try_from(text.clone().into_owned());
    assert_eq!(body.is_ok(), (1..=MESSAGE_LEN_MAX).contains(&text.len()));
}

fn gate(text: &str) {
    let line = inline(text);
    assert!(!line.contains(misleads), "{line:?}");
    assert!(!hides_joiner(&line), "{line:?}");
    assert_eq!(inline(&line), line, "cleaned twice");
    assert_eq!(line.chars().count(), text.chars().count(), "one for one");
    let lines = block(text);
    assert!(!lines.contains(|c| c != '\n' && misleads(c)), "{lines:?}");
    assert_eq!(block(&lines), lines, "cleaned twice");
    // A block is its lines, each of them cleaned.
    let cleaned: Vec<_> = text.split('\n').map(inline).collect();
    assert_eq!(cleaned.join("\n"), lines);
}

/// What no terminal may get, written down from Unicode's own lists and not from the gate's: controls
/// (`Cc`), line and paragraph separators (`Zl`, `Zp`), all of `Bidi_Control`, and what is
/// `Default_Ignorable_Code_Point` without being a mark that is drawn. For joiners see [`hides_joiner`].
fn misleads(c: char) -> bool {
    let is_bidi = matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_separator = matches!(c, '\u{2028}' | '\u{2029}');
    let is_invisible = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}');
    c.is_control() || is_bidi || is_separator || is_invisible
}

/// Tells whether a joiner is where none can be needed: at the start, or behind ASCII, a blank, a
/// replacement character or another joiner.
fn hides_joiner(text: &str) -> bool {
    let is_joiner = |c: char| matches!(c, '\u{200c}' | '\u{200d}');
    let never_joins = |c: char| c.is_ascii() || c.is_whitespace() || c == '\u{fffd}';
    let mut before = None;
    text.chars().any(|c| {
        let is_hidden =
            is_joiner(c) && before.is_none_or(|before| is_joiner(before) || never_joins(before));
        before = Some(c);
        is_hidden
    })
}

/// What parses is shown as a text that parses to the same, and can be shown anywhere.
fn same_when_shown<T: FromStr + Display + Debug + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else {
        return;
    };
    let shown = value.to_string();
    assert_eq!(inline(&shown), shown);
    match shown.parse::<T>() {
        Ok(again) => assert_eq!((&again, again.to_string()), (&value, shown)),
        Err(_) => panic!("{shown:?} is shown and does not parse"),
    }
}

/// Any text makes a device name, and a device name is one to everybody else, too.
fn device_name(text: &str) {
    let name = DeviceName::lossy(text);
    assert!((1..=DEVICE_NAME_LEN_MAX).contains(&name.as_str().len()));
    assert!(!name.as_str().contains(char::is_control));
    let again = DeviceName::try_from(name.to_string());
    assert_eq!(again.as_ref(), Ok(&name), "made of {text:?}");
    if let Ok(taken) = DeviceName::try_from(text.to_owned()) {
        assert_eq!(taken.as_str(), text, "taken as it is or not at all");
    }
}

fn reason(text: &str) {
    let reason = Reason::lossy(text);
    let shown = reason.to_string();
    assert!(!shown.contains(misleads) && !hides_joiner(&shown));
    let kept = String::from(reason.clone());
    assert!(kept.len() <= REASON_LEN_MAX && text.starts_with(&kept));
    assert!(Reason::try_from(kept) == Ok(reason));
}

// ---- file names --------------------------------------------------------------------------------

pub(super) fn file_names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let substitute = FileName::substitute(&text);
    if let Some(name) = &substitute {
        is_plain(name.as_str());
        assert_eq!(FileName::parse(name.as_str()).as_ref(), Ok(name));
    }
    let Ok(name) = FileName::parse(&text) else {
        assert!(substitute.is_some(), "{text:?} can be taken under no name");
        return;
    };
    assert!(
        !text.contains(['/', '\0']) && !text.contains(misleads),
        "{text:?}"
    );
    assert_eq!(substitute, None, "nothing is odd about {text:?}");
    assert_eq!(name.as_str(), text, "never repaired");
    for attempt in [0, 1, 2, 10, 999] {
        let numbered = name.numbered(attempt);
        is_plain(numbered.as_str());
        let again = FileName::parse(numbered.as_str());
        assert_eq!(again.as_ref(), Ok(&numbered), "numbered {attempt}");
        is_plain(&name.part(attempt));
    }
    assert_ne!(name.numbered(1), name.numbered(2));
}

/// One component that stays in its folder and shows as it is, on every system.
fn is_plain(name: &str) {
    let components: Vec<_> = Path::new(name).components().collect();
    assert!(
        matches!(components[..], [Component::Normal(only)] if only == name),
        "{name:?} is not one component"
    );
    assert!((1..=FILE_NAME_LEN_MAX).contains(&name.len()), "{name:?}");
    assert!(!name.contains(['/', '\\', '\0']), "{name:?}");
    assert!(!name.starts_with('.'), "{name:?} hides");
    assert!(!name.ends_with(['.', ' ']), "{name:?} would be cut");
    assert!(!name.contains(misleads), "{name:?} misleads");
    assert!(!hides_joiner(name), "{name:?} hides a joiner");
    let is_drive = name.as_bytes()[0].is_ascii_alphabetic() && name[1..].starts_with(':');
    assert!(!is_drive, "{name:?} is on a drive");
}
