//! `history` and `search`: earlier messages.

use common::id::AccountName;
use common::os::clock::unix_time;
use common::text::{self, TimeRangeError};
use common::time::UnixTime;

use super::Place;
use crate::args::{History, Part, Search, TypedTime};
use crate::failure::{Exit, Failure};
use crate::node::command::{Command, HistoryQuery, Reply};
use crate::ui::{Look, Screen, line};

/// Shows earlier messages. Needs no server.
pub(super) fn history(place: &Place, args: History, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "show the history";
    let query = query(args.with, Vec::new(), args.part, DOING, screen)?;
    let nothing = if query == HistoryQuery::latest(query.with.clone(), query.limit) {
        "No messages yet."
    } else {
        "No messages of that time."
    };
    show(place, query, (DOING, nothing), screen)
}

/// Shows earlier messages that have these words. Needs no server.
pub(super) fn search(place: &Place, args: Search, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "search the history";
    // One that was quoted may be several.
    let words = args.words.iter().flat_map(|typed| typed.split_whitespace());
    let words: Vec<String> = words.map(str::to_owned).collect();
    if words.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("could not {DOING}"))
            .because("there is no word to look for")
            .next("give a word that the message has"));
    }
    let query = query(args.with, words, args.part, DOING, screen)?;
    show(
        place,
        query,
        (DOING, "No message has all of these words."),
        screen,
    )
}

/// What the options mean now, in this zone.
fn query(
    with: Option<AccountName>,
    words: Vec<String>,
    part: Part,
    doing: &str,
    screen: &Screen,
) -> Result<HistoryQuery, Failure> {
    let (zone, now) = (screen.look.zone(), unix_time());
    let read = |typed: Option<TypedTime>| typed.map(|it| it.range(zone, now)).transpose();
    // It was a time in another zone.
    let refusal = |error: TimeRangeError| {
        Failure::new(Exit::Usage, format!("could not {doing}"))
            .because(error)
            .next("give another time to --since or --until")
    };
    let since = read(part.since).map_err(refusal)?.map(|range| range.start);
    let until = read(part.until).map_err(refusal)?.map(|range| range.end);
    if since
        .zip(until)
        .is_some_and(|(since, until)| since >= until)
    {
        return Err(Failure::new(Exit::Usage, format!("could not {doing}"))
            .because("--since is not before --until")
            .next("swap the two"));
    }
    Ok(HistoryQuery {
        with,
        since,
        until,
        words,
        limit: part.limit,
    })
}

/// Shows messages, with a line for each day.
fn show(
    place: &Place,
    query: HistoryQuery,
    (doing, nothing): (&str, &str),
    screen: &Screen,
) -> Result<Exit, Failure> {
    let look = &screen.look;
    let limit = query.limit;
    let mut session = place.open(doing)?;
    let Reply::Messages(messages) = session.call(doing, &Command::History(query))? else {
        return Err(Failure::unexpected_reply(doing));
    };
    if messages.is_empty() {
        screen.note(nothing);
    }
    let mut day = None;
    for item in &messages {
        screen.data(item)?;
        if let Some(begun) = new_day(&mut day, item.sent, look) {
            screen.say(look.dim(&format!("--- {begun} ---")))?;
        }
        screen.say(line::message(item, look))?;
    }
    if messages.len() == limit as usize {
        screen.note(look.dim(&format!("The latest {limit}; --limit shows more.")));
    }
    Ok(Exit::Done)
}

/// The day that a message begins in the order of the history, if it is another than that of the one before.
pub(super) fn new_day(day: &mut Option<String>, sent: UnixTime, look: &Look) -> Option<String> {
    let of_message = text::date(sent, look.zone());
    let before = day.replace(of_message.clone());
    (before.as_ref() != Some(&of_message)).then_some(of_message)
}
