//! A message in the rows of a terminal: broken at blanks where it is too long for one, and indented.
//!
//! Neither a line of its text nor the rest of a long one looks like a message of its own: a line begins behind a
//! bar, and what follows in further rows begins below it. Where the output is no terminal, each line stays one.

use common::text::{self, block};

use super::TAB;
use crate::node::command::{Direction, HistoryItem};
use crate::ui::Look;

/// Columns between the time and a further line of the text: the bar, and a blank on each side of it.
const BAR_COLUMNS: usize = 3;

/// A message behind its time and its author, with what became of it.
pub(super) fn with_state(item: &HistoryItem, stamp: &str, state: &str, look: &Look) -> String {
    in_rows(item, stamp, state, (look.columns(), look))
}

/// The same on a screen of so many columns.
fn in_rows(
    item: &HistoryItem,
    stamp: &str,
    state: &str,
    (columns, look): (Option<usize>, &Look),
) -> String {
    let who = match item.direction {
        Direction::Received => look.cyan(item.with.as_str()),
        Direction::Sent => format!("{} {}", look.dim("you to"), look.bold(item.with.as_str())),
    };
    let head = format!("{} {who}: ", look.dim(stamp));
    let margin = stamp.len() + BAR_COLUMNS;
    let rest = format!("\n{:margin$}", "");
    let bar = format!("\n{:1$} {2} ", "", stamp.len(), look.dim("│"));
    let body = item.body.as_str().replace('\t', TAB);
    let body = block(&body);
    let limit = columns.unwrap_or(usize::MAX);
    let mut shown = head.clone();
    let mut used = text::columns(&head);
    for (index, line) in body.trim_end_matches('\n').split('\n').enumerate() {
        if index > 0 {
            shown.push_str(&bar);
            used = margin;
        }
        let rows = text::folded(line, used, margin, limit);
        if rows.len() > 1 {
            used = margin;
        }
        used += rows.last().map_or(0, |row| text::columns(row));
        shown.push_str(&rows.join(&rest));
    }
    let is_wrapped = limit >= margin + text::columns(state);
    // What a terminal breaks by itself ends somewhere in its row.
    let used = used.saturating_sub(1) % limit + 1;
    if is_wrapped && used + text::columns(state) > limit {
        shown.push_str(&rest);
    }
    shown.push_str(state);
    shown
}

#[cfg(test)]
mod tests {
    use common::id::MessageId;
    use common::text::columns;
    use common::time::UnixTime;

    use super::*;
    use crate::node::command::MessageState;

    const STAMP: &str = "15:08:53";

    fn shown(body: &str, direction: Direction, state: &str, limit: Option<usize>) -> String {
        let item = HistoryItem {
            id: MessageId::from_bytes([1; 16]),
            with: "bob".parse().unwrap(),
            direction,
            sent: UnixTime::default(),
            body: body.to_owned().try_into().unwrap(),
            state: MessageState::Delivered,
        };
        in_rows(&item, STAMP, state, (limit, &Look::plain()))
    }

    #[test]
    fn a_long_line_is_broken_at_blanks_where_there_is_a_terminal() {
        let body = "There is nothing that is broken inside of a word.\nNor here, behind the bar of a line.";
        let received = Direction::Received;
        assert_eq!(
            shown(body, received, "", Some(40)),
            "15:08:53 bob: There is nothing that is\n           broken inside of a word.\n         │ Nor here, behind the bar of a\n           line."
        );
        let whole = "15:08:53 bob: There is nothing that is broken inside of a word.\n         │ Nor here, behind the bar of a line.";
        assert_eq!(shown(body, received, "", None), whole);
    }

    #[test]
    fn what_became_of_a_message_stands_in_a_row_with_room_for_it() {
        for (body, state, expected) in [
            ("One row. ", " ✓✓", "15:08:53 you to bob: One row.  ✓✓"),
            (
                "It has sixteen..",
                " ✓✓",
                "15:08:53 you to bob: It has sixteen.. ✓✓",
            ),
            (
                "It has seventeen.",
                " ✓✓",
                "15:08:53 you to bob: It has seventeen.\n            ✓✓",
            ),
        ] {
            assert_eq!(shown(body, Direction::Sent, state, Some(40)), expected);
        }
    }

    #[test]
    fn t05_no_row_of_a_message_begins_like_another_message() {
        let forged = "x\u{a0}".repeat(60) + "15:08:54\u{a0}carol:\u{a0}yes";
        for limit in 31..90 {
            let text = shown(&forged, Direction::Received, "", Some(limit));
            let mut rows = text.split('\n');
            assert!(rows.all(|row| columns(row) <= limit), "{limit}: {text}");
            let mut rest = text.split('\n').skip(1);
            assert!(rest.all(|row| row.starts_with("           ")), "{text}");
        }
    }
}
