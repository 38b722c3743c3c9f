//! `history`: earlier messages.

use common::os::clock::unix_time;
use common::text::{self, TimeRangeError};
use common::time::UnixTime;

use super::Place;
use crate::args::{History, TypedTime};
use crate::failure::{Exit, Failure};
use crate::node::command::{Command, HistoryQuery, Reply};
use crate::ui::{Look, Screen, line};

/// What the command does, in the infinitive.
const DOING: &str = "show the history";

/// Shows earlier messages, with a line for each day. Needs no server.
pub(super) fn history(place: &Place, args: History, screen: &Screen) -> Result<Exit, Failure> {
    let look = &screen.look;
    let now = unix_time();
    let read = |typed: Option<TypedTime>| typed.map(|it| it.range(look.zone(), now)).transpose();
    let since = read(args.since).map_err(no_such_time)?;
    let until = read(args.until).map_err(no_such_time)?;
    let mut session = place.open(DOING)?;
    let query = HistoryQuery {
        with: args.with,
        since: since.map(|range| range.start),
        until: until.map(|range| range.end),
        limit: args.limit,
    };
    let is_whole = query == HistoryQuery::latest(query.with.clone(), query.limit);
    let Reply::Messages(messages) = session.call(DOING, &Command::History(query))? else {
        return Err(Failure::unexpected_reply(DOING));
    };
    if messages.is_empty() {
        screen.note(if is_whole {
            "No messages yet."
        } else {
            "No messages of that time."
        });
    }
    let mut day = None;
    for item in &messages {
        screen.data(item)?;
        if let Some(begun) = new_day(&mut day, item.sent, look) {
            screen.say(look.dim(&format!("--- {begun} ---")))?;
        }
        screen.say(line::message(item, look))?;
    }
    if messages.len() == args.limit as usize {
        let count = args.limit;
        screen.note(look.dim(&format!("The latest {count}; --limit shows more.")));
    }
    Ok(Exit::Done)
}

/// The day that a message begins in the order of the history, if it is another than that of the one before.
fn new_day(day: &mut Option<String>, sent: UnixTime, look: &Look) -> Option<String> {
    let of_message = text::date(sent, look.zone());
    let before = day.replace(of_message.clone());
    (before.as_ref() != Some(&of_message)).then_some(of_message)
}

/// A time that is one, and none of this zone.
fn no_such_time(error: TimeRangeError) -> Failure {
    Failure::new(Exit::Usage, format!("could not {DOING}"))
        .because(error)
        .next("give another time to --since or --until")
}
