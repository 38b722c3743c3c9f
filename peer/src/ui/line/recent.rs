//! Messages of before, where they only remind of what was talked about: long ones are shortened.

use common::text;
use common::time::UnixTime;

use super::{state, talk, with_state};
use crate::node::command::HistoryItem;
use crate::ui::Look;

/// Bytes of a message that are shown: several rows of a terminal.
const SHOWN_LEN_MAX: usize = 400;
/// Lines of a message that are shown.
const SHOWN_LINES_MAX: usize = 6;

/// The same as [`talk`], with the beginning of a long message alone.
pub(super) fn recent(item: &HistoryItem, today: UnixTime, look: &Look) -> String {
    let whole = item.body.as_str();
    let shown = beginning(whole);
    let is_whole = shown.len() == whole.len();
    let Some(body) = (!is_whole).then(|| format!("{shown}…").try_into().ok()) else {
        return talk(item, today, look);
    };
    let item = HistoryItem {
        body: body.expect("a short text fits a message"),
        ..item.clone()
    };
    let hint = look.dim(" (shortened; /history shows all of it)");
    let stamp = text::stamp_on(today, item.sent, look.zone());
    with_state(&item, &stamp, &(state(&item, look) + &hint), look)
}

fn beginning(whole: &str) -> &str {
    let lines = whole.split_inclusive('\n').take(SHOWN_LINES_MAX);
    let len = lines.map(str::len).sum();
    let lines = whole.get(..len).unwrap_or(whole);
    // The end of the text is no further line.
    let lines = if whole.trim_end_matches('\n').len() <= len {
        whole
    } else {
        lines.trim_end_matches('\n')
    };
    text::beginning(lines, SHOWN_LEN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shortened_where_it_has_too_many_bytes_or_lines() {
        for (whole, shown) in [
            ("short".to_owned(), "short".to_owned()),
            ("x".repeat(400), "x".repeat(400)),
            ("x".repeat(401), "x".repeat(400)),
            ("ä".repeat(300), "ä".repeat(200)),
            ("a\n".repeat(6), "a\n".repeat(6)),
            ("a\n".repeat(7), "a\na\na\na\na\na".to_owned()),
            (
                "a\nb\nc\nd\ne\nf\n\n\n".to_owned(),
                "a\nb\nc\nd\ne\nf\n\n\n".to_owned(),
            ),
            (
                format!("a\n{}", "x".repeat(60_000)),
                format!("a\n{}", "x".repeat(398)),
            ),
        ] {
            assert_eq!(beginning(&whole), shown);
        }
    }
}
