//! Lines of text for people: the one place where words from outside become part of a screen.

use std::net::SocketAddr;
use std::time::Duration;

use common::id::{AccountName, DeviceName};
use common::text::{self, Align, inline};
use common::time::UnixTime;
use common::wire::peer::DeclineReason;

use super::Look;
use crate::config::shown_path;
use crate::conversation::connection::ConnectionChange;
use crate::conversation::presence::Absence;
use crate::conversation::slash::Slash;
use crate::node::command::{
    Direction, HistoryItem, KeyState, Listed, MessageState, OfferView, PresenceView, TransferState,
};
use crate::shell::names::FileName;

/// Devices of one's own account.
mod devices;
/// The line interface of a conversation.
mod front_end;
/// Messages that stay in the outbox.
mod left_behind;
/// Links, and how their packets go.
mod link;
/// A message in the rows of a terminal.
mod message;
/// What an account's owner has to know.
mod notices;
/// Long messages, shortened.
mod recent;
/// What a node says of itself.
mod status;
/// Files on their way.
mod transfer;

pub(crate) use devices::devices;
pub(crate) use front_end::{LineFrontEnd, TOOK_OVER};
pub(crate) use left_behind::left_behind;
pub(crate) use link::{Rates, rerouted, table as links};
use message::with_state;
pub(crate) use notices::{approval_of, failed_logins, new_key, notice, relay_off, warning};
use recent::recent;
pub(crate) use status::node_status;
pub(crate) use transfer::{
    cancelled, carried, cut_off_for_others, offer_ended, unanswered, unfinished,
};

/// Columns of the name of a value.
const LABEL_COLUMNS: usize = 9;
/// Columns of a screen on which two columns of help have room.
const HELP_COLUMNS_MIN: usize = 60;
/// Columns of the longest of what can be typed in a conversation.
const HELP_USAGE_COLUMNS: usize = 22;
/// Time that a transfer takes at least before it is told how fast it was.
const RATED_FROM: Duration = Duration::from_millis(50);
/// What stands for a tab in a message, as in pasted code.
const TAB: &str = "    ";
/// Endpoints that are shown in a list, which is to fit 80 columns; JSON has all.
const ENDPOINTS_SHOWN: usize = 1;

/// A message. Further lines of its text are indented behind a bar, so that none of them looks like a
/// message of its own.
pub(crate) fn message(item: &HistoryItem, look: &Look) -> String {
    stamped(item, &text::stamp(item.sent, &look.zone), look)
}

/// The same for a conversation that is looked at `today`: what is of this day has no date.
pub(crate) fn talk(item: &HistoryItem, today: UnixTime, look: &Look) -> String {
    let stamp = text::stamp_on(today, item.sent, &look.zone);
    stamped(item, &stamp, look)
}

/// The same without what is about to change: nothing is said of how far it gets then.
pub(crate) fn said(item: &HistoryItem, today: UnixTime, look: &Look) -> String {
    if item.direction == Direction::Sent && item.state < MessageState::Delivered {
        let stamp = text::stamp_on(today, item.sent, &look.zone);
        return with_state(item, &stamp, "", look);
    }
    talk(item, today, look)
}

/// A message that was taken back before it was sent.
pub(crate) fn withdrawn(item: &HistoryItem, look: &Look) -> String {
    let stamp = text::stamp(item.sent, &look.zone);
    with_state(item, &stamp, &look.yellow(" (cancelled)"), look)
}

fn stamped(item: &HistoryItem, stamp: &str, look: &Look) -> String {
    with_state(item, stamp, &state(item, look), look)
}

/// How far a message that was sent has got, behind its text.
fn state(item: &HistoryItem, look: &Look) -> String {
    match (item.direction, item.state) {
        (Direction::Sent, MessageState::Queued) => look.yellow(" (waits in the outbox)"),
        (Direction::Sent, MessageState::Sent) => look.yellow(" (on its way)"),
        (Direction::Sent, MessageState::Delivered) => look.dim(" ✓"),
        (Direction::Sent, MessageState::Read) => look.dim(" ✓✓"),
        (Direction::Received, _) => String::new(),
    }
}

/// What can be typed in a conversation, one line each, or two where these are `columns` and few.
pub(crate) fn chat_help(columns: Option<usize>) -> String {
    let is_narrow = columns.is_some_and(|columns| columns < HELP_COLUMNS_MIN);
    let own = |usage: &str, help: &str| (usage.to_owned(), help.to_owned());
    let commands = Slash::ALL.map(|slash| own(&slash.usage(), slash.help()));
    let rows = [own(
        "NAME: text",
        "send to somebody else; NAME,NAME: text to several",
    )]
    .into_iter()
    .chain(commands)
    .chain([own("//text", "send a text that starts with a slash")]);
    let rows = rows.map(|(usage, help)| {
        if is_narrow {
            return format!("  {usage}\n      {help}\n");
        }
        let usage = text::padded(&usage, HELP_USAGE_COLUMNS, Align::Left);
        format!("  {usage}  {help}\n")
    });
    format!(
        "What you type goes to the person in front of the '>'. Also:\n{}… waits, ✓ is delivered, ✓✓ is read. Tab completes commands, names and paths.",
        String::from_iter(rows)
    )
}

/// Where an offer is shown, and how a file with an odd name can be taken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// In a chat, under this number.
    Chat(usize),
    /// Where the person is asked about it.
    Asks,
    /// Where all odd names are replaced.
    Renames,
    /// Where the file is refused.
    Refuses,
}

/// An offer. Says what is odd about its name, and how it can be taken.
pub(crate) fn offer(offer: &OfferView, counter: Counter, look: &Look) -> String {
    let program = if offer.executable {
        look.yellow(", a program")
    } else {
        String::new()
    };
    let numbered = match counter {
        Counter::Chat(number) => format!(" (offer {number})"),
        Counter::Asks | Counter::Renames | Counter::Refuses => String::new(),
    };
    let refusal = FileName::parse(&offer.name).err();
    let oddity = refusal.map_or(String::new(), |refusal| {
        format!(", {} {refusal}", look.yellow("an odd name:"))
    });
    let otherwise = |how: &str| {
        let substitute = FileName::substitute(&offer.name);
        substitute.map_or(String::new(), |name| format!("; {how} {}", name.as_str()))
    };
    let way = match counter {
        Counter::Chat(number) => accept_or_decline(&offer.name, number),
        Counter::Asks => otherwise("it can be taken as"),
        Counter::Renames => otherwise("it is called"),
        Counter::Refuses => otherwise("'peer receive --rename' takes it as"),
    };
    format!(
        "{} offers {} ({}{program}){numbered}{oddity}{way}",
        look.cyan(offer.from.as_str()),
        look.bold(&inline(&offer.name)),
        text::size(offer.size)
    )
}

/// How an offer is answered in a chat.
fn accept_or_decline(name: &str, number: usize) -> String {
    let (before, under) = match FileName::substitute(name) {
        None => (":", String::new()),
        Some(name) => (".", format!(" as {}", name.as_str())),
    };
    format!("{before} /accept {number}{under} or /decline {number}")
}

/// Why the recipient did not take the file `name`: `reason`, and where that is the name, what is wrong
/// with it. The gate for names is the same at both sides, so the recipient need not say.
pub(crate) fn declined(reason: &str, name: &str) -> String {
    match FileName::parse(name) {
        Err(refusal) if is_about_name(reason) => format!("{}: {refusal}", inline(reason)),
        Ok(_) | Err(_) => inline(reason).into_owned(),
    }
}

/// Tells whether a file was declined because of its name.
pub(crate) fn is_about_name(reason: &str) -> bool {
    reason == DeclineReason::Name.to_string()
}

/// The directory as a table that is at most `columns` wide, its heads first. Where it does not fit,
/// what is too much of each row, the endpoints first, stands on a line of its own.
pub(crate) fn directory(
    devices: &[Listed],
    has_fingerprints: bool,
    columns: Option<usize>,
    look: &Look,
) -> Vec<String> {
    let heads = [
        "ACCOUNT",
        "DEVICE",
        "STATUS",
        "SINCE",
        "FINGERPRINT",
        "ENDPOINTS",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(devices.iter().map(|device| {
        let mut account = device.account.to_string();
        if device.is_self {
            account.push_str(" (you)");
        }
        if device.is_verified {
            account.push_str(" (verified)");
        }
        [
            account,
            format!("{}{}", inline(device.device.as_str()), key_mark(device.key)),
            device.status.to_string(),
            text::stamp(device.since, &look.zone),
            device.fingerprint.clone(),
            endpoints(&device.endpoints, ENDPOINTS_SHOWN),
        ]
    }));
    let mut lines = if has_fingerprints {
        text::table(&rows, [Align::Left; 6], columns)
    } else {
        let rows = rows.into_iter();
        let rows: Vec<_> = rows.map(|[a, b, c, d, _, e]| [a, b, c, d, e]).collect();
        text::table(&rows, [Align::Left; 5], columns)
    };
    if let Some(heads) = lines.first_mut() {
        *heads = look.dim(heads);
    }
    lines
}

/// What stands behind the name of a device whose key is not the one that is to be expected.
const fn key_mark(key: KeyState) -> &'static str {
    match key {
        KeyState::Known | KeyState::Unmet => "",
        KeyState::New => " (new key)",
        KeyState::OtherAccount => " (key of another account)",
        KeyState::NotApproved => " (not approved)",
        KeyState::OtherIdentity => " (ANOTHER ACCOUNT)",
    }
}

/// Addresses, the first few of them; those that only this machine itself can use come last.
pub(crate) fn endpoints(all: &[SocketAddr], shown: usize) -> String {
    let mut sorted = all.to_vec();
    sorted.sort_by_key(|endpoint| endpoint.ip().is_loopback());
    let mut words: Vec<_> = sorted.iter().take(shown).map(ToString::to_string).collect();
    if all.len() > shown {
        words.push(format!("+{}", all.len() - shown));
    }
    if words.is_empty() {
        "through the relay".to_owned()
    } else {
        words.join(" ")
    }
}

/// A presence change with its time stamp, for `list --watch`. `left` is the name of a device that went
/// offline, if it is known.
pub(crate) fn presence(
    change: &PresenceView,
    left: Option<&DeviceName>,
    at: UnixTime,
    look: &Look,
) -> String {
    let time = look.dim(&text::stamp(at, &look.zone));
    match change {
        PresenceView::Online(device) => format!(
            "{time} {} is {} with {}, {}",
            look.cyan(device.account.as_str()),
            look.green(&device.status.to_string()),
            inline(device.device.as_str()),
            endpoints(&device.endpoints, ENDPOINTS_SHOWN)
        ),
        PresenceView::Offline { account, .. } => {
            let account = look.cyan(account.as_str());
            match left {
                Some(device) => format!("{time} {account} left with {}", inline(device.as_str())),
                None => format!("{time} {account} left"),
            }
        }
    }
}

/// Somebody whom one waits for came online or left.
pub(crate) fn moved(account: &AccountName, is_online: bool, look: &Look) -> String {
    let word = if is_online { "is online" } else { "left" };
    look.dim(&format!("{account} {word}"))
}

/// Somebody is heard on the local network, or not any more, while the server is away.
pub(crate) fn nearby(account: &AccountName, is_here: bool, look: &Look) -> String {
    let words = if is_here {
        "is heard on this network: messages go straight there, without the server"
    } else {
        "is not heard on this network any more"
    };
    look.dim(&format!("{account} {words}"))
}

/// The server has not answered for a moment.
pub(crate) fn awaiting(server: &str) -> String {
    format!("Waiting for an answer from {server}…")
}

/// A value with its name in front, in rows as wide as the terminal.
pub(crate) fn labelled(name: &str, value: &str, look: &Look) -> String {
    let room = look.columns();
    let room = room.map(|columns| columns.saturating_sub(LABEL_COLUMNS + 1));
    let value = text::wrapped(value, room).replace('\n', &format!("\n{:LABEL_COLUMNS$} ", ""));
    format!("{} {value}", look.dim(&format!("{name:LABEL_COLUMNS$}")))
}

/// How far a message to one of its recipients is; `online` tells whether they are there, if that is known.
pub(crate) fn delivery(
    to: &AccountName,
    state: MessageState,
    online: Option<bool>,
    look: &Look,
) -> String {
    let state = match (state, online) {
        (MessageState::Queued, None) => look.yellow("queued, waits in the outbox"),
        (MessageState::Queued, Some(true)) => {
            look.yellow("queued, waits in the outbox; online, but not reached yet")
        }
        (MessageState::Queued, Some(false)) => {
            look.yellow("queued, waits in the outbox until both are online")
        }
        (MessageState::Sent, _) => look.yellow("sent, no receipt yet"),
        (MessageState::Delivered | MessageState::Read, _) => look.green("delivered"),
    };
    format!("{}: {state}", look.bold(to.as_str()))
}

/// Says that a message was taken back while a command waited for its receipt.
pub(crate) fn taken_back(to: &AccountName, look: &Look) -> String {
    let state = look.yellow("cancelled, it was taken back");
    format!("{}: {state}", look.bold(to.as_str()))
}

/// Says that a message is in the outbox, for a command that waits for nothing.
pub(crate) fn unawaited(to: &AccountName, look: &Look) -> String {
    let to = look.bold(to.as_str());
    format!(
        "{to}: queued in the outbox of this device; goes out while a 'peer' program of this profile runs"
    )
}

/// Says that the recipient of a message is not there, for a command that waits for at most `span`.
pub(crate) fn awaited(to: &AccountName, absence: Absence, span: Duration) -> String {
    let absent = absent(to, absence);
    format!("{absent}; waiting for at most {}.", whole_seconds(span))
}

/// Says that the server is away and that the node tries again by itself, for a command that waits for at
/// most `span`.
pub(crate) fn offline_awaited(reason: &str, span: Duration, look: &Look) -> String {
    let reason = inline(reason);
    let stop = if reason.ends_with('?') { "" } else { "." };
    let seconds = whole_seconds(span);
    look.yellow(&format!(
        "Offline: {reason}{stop} Waiting for at most {seconds}."
    ))
}

/// Says that there is no connection to the server yet, for a command that waits for at most `span`.
pub(crate) fn connecting_awaited(server: &str, span: Duration) -> String {
    let seconds = whole_seconds(span);
    format!("Connecting to {server}; waiting for at most {seconds}.")
}

fn whole_seconds(span: Duration) -> String {
    text::seconds(span.as_secs() + u64::from(span.subsec_nanos() > 0))
}

/// Says that somebody is not there, the beginning of a sentence.
pub(crate) fn absent(account: &AccountName, absence: Absence) -> String {
    match absence {
        Absence::Offline => format!("{account} is offline"),
        Absence::Unheard => format!("{account} is not online (or there is no such account)"),
    }
}

/// Says once that the control connection is lost, and once that it is back.
pub(crate) fn connection_change(change: &ConnectionChange, look: &Look) -> String {
    match change {
        ConnectionChange::Lost { reason, is_retried } => {
            let reason = inline(reason);
            let stop = if reason.ends_with('?') { "" } else { "." };
            let then = if *is_retried {
                format!("{stop} Trying again; messages wait, direct links stay.")
            } else {
                String::new()
            };
            look.yellow(&format!("Offline: {reason}{then}"))
        }
        ConnectionChange::OtherServer { reason } => {
            let what = look.red(&inline(reason));
            format!("{what}.\nNothing was sent to it. Trying again until the trusted key is back.")
        }
        ConnectionChange::Restored => look.green("Online again."),
    }
}

/// The last line of a transfer that is done: size, time, rate and digest, and at the receiver where the
/// file is. `verb` is "Sent" or "Received"; all other texts pass the gate here.
pub(crate) fn transfer_done(verb: &str, name: &str, whom: &str, state: &TransferState) -> String {
    let name = inline(name);
    let TransferState::Done {
        digest,
        total,
        elapsed_ms,
        path,
    } = state
    else {
        return format!("{verb} {name} {whom}");
    };
    let span = Duration::from_millis(*elapsed_ms);
    let place = match path {
        Some(path) => format!("\n  saved as {}", shown_path(path)),
        None => String::new(),
    };
    // A span that is too short tells nothing of a rate.
    let rate = (span >= RATED_FROM).then(|| format!(", {}", text::rate(*total, span)));
    let figures = match total {
        0 => "an empty file".to_owned(),
        total => format!(
            "{} in {}{}",
            text::size(*total),
            text::elapsed(span),
            rate.unwrap_or_default()
        ),
    };
    format!(
        "{verb} {name} {whom}: {figures}{place}\n  BLAKE3 {}",
        inline(digest)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::{ConnectionState, EnrolmentView, Event};
    use common::id::{DeviceName, MessageId, TransferId};
    use common::wire::rendezvous::Status;

    const HOSTILE: &str = "a\u{1b}]52;c;eA==\u{7}\r\u{202e}b\u{9b}2J";

    fn item(text: &str, direction: Direction) -> HistoryItem {
        HistoryItem {
            id: MessageId::from_bytes([0; 16]),
            with: "bob".parse().unwrap(),
            direction,
            sent: UnixTime::from_millis(1_700_000_000_000),
            body: text.to_owned().try_into().unwrap(),
            state: MessageState::Delivered,
        }
    }

    fn is_harmless(text: &str) -> bool {
        text::block(text) == text
    }

    #[test]
    fn a_message_has_a_time_stamp_and_its_author() {
        let look = Look::plain();
        assert_eq!(
            message(&item("hello", Direction::Received), &look),
            "2023-11-14 22:13:20 bob: hello"
        );
        assert_eq!(
            message(&item("hello", Direction::Sent), &look),
            "2023-11-14 22:13:20 you to bob: hello ✓"
        );
    }

    #[test]
    fn a_message_on_its_way_says_what_it_waits_for() {
        let bob = "bob".parse().unwrap();
        for (state, online, words) in [
            (MessageState::Queued, None, "queued, waits in the outbox"),
            (
                MessageState::Queued,
                Some(true),
                "queued, waits in the outbox; online, but not reached yet",
            ),
            (
                MessageState::Queued,
                Some(false),
                "queued, waits in the outbox until both are online",
            ),
            (MessageState::Sent, Some(true), "sent, no receipt yet"),
            (MessageState::Delivered, None, "delivered"),
            (MessageState::Read, None, "delivered"),
        ] {
            let shown = delivery(&bob, state, online, &Look::plain());
            assert_eq!(shown, format!("bob: {words}"));
        }
        for (absence, millis, words) in [
            (
                Absence::Offline,
                9_600,
                "bob is offline; waiting for at most 10 s.",
            ),
            (
                Absence::Unheard,
                90_000,
                "bob is not online (or there is no such account); waiting for at most 1 min 30 s.",
            ),
        ] {
            assert_eq!(awaited(&bob, absence, Duration::from_millis(millis)), words);
        }
    }

    #[test]
    fn a_tab_is_blanks_and_what_was_taken_back_says_so() {
        let code = item("if x {\n\treturn;\n}", Direction::Sent);
        let margin = "\n                    │ ";
        assert_eq!(
            withdrawn(&code, &Look::plain()),
            format!(
                "2023-11-14 22:13:20 you to bob: if x {{{margin}    return;{margin}}} (cancelled)"
            )
        );
    }

    #[test]
    fn t05_a_message_cannot_look_like_two() {
        let forged = "hi\n2023-11-14 22:13:21 carol: I owe bob 100";
        let shown = message(&item(forged, Direction::Received), &Look::plain());
        assert_eq!(
            shown,
            "2023-11-14 22:13:20 bob: hi\n                    │ 2023-11-14 22:13:21 carol: I owe bob 100"
        );
    }

    #[test]
    fn t05_nothing_from_outside_reaches_the_terminal_as_it_is() {
        let look = Look::plain();
        let device = Listed {
            account: "bob".parse().unwrap(),
            device: serde_json::from_str("\"x\u{202e}y\u{200b}\"").unwrap(),
            fingerprint: HOSTILE.to_owned(),
            key: KeyState::Known,
            is_verified: false,
            status: Status::Available,
            since: UnixTime::from_millis(u64::MAX),
            endpoints: vec!["192.0.2.1:1".parse().unwrap(); 3],
            is_self: true,
        };
        let offered = OfferView {
            transfer: TransferId::from_bytes([0; 16]),
            from: "bob".parse().unwrap(),
            name: HOSTILE.to_owned(),
            size: 1,
            executable: true,
        };
        let offline = ConnectionState::Offline {
            reason: HOSTILE.to_owned(),
            is_other_server: true,
            retry_in_s: Some(1),
        };
        let mut lines = directory(std::slice::from_ref(&device), false, None, &look);
        lines.push(message(&item(HOSTILE, Direction::Received), &look));
        lines.push(offer(&offered, Counter::Chat(1), &look));
        lines.push(status::connection(&offline));
        let lost = ConnectionChange::Lost {
            reason: HOSTILE.to_owned(),
            is_retried: true,
        };
        lines.push(connection_change(&lost, &look));
        let reason = HOSTILE.to_owned();
        let other = ConnectionChange::OtherServer { reason };
        lines.push(connection_change(&other, &look));
        lines.push(transfer_done(
            "Sent",
            HOSTILE,
            "to bob",
            &TransferState::Waiting,
        ));
        lines.push(new_key(&device.account, HOSTILE, 1, false, &look));
        let new = EnrolmentView {
            device: DeviceName::lossy(HOSTILE),
            fingerprint: HOSTILE.to_owned(),
            at: UnixTime::default(),
        };
        lines.extend(notice(&Event::Enrolled(new), &look));
        lines.push(presence(
            &PresenceView::Online(device),
            None,
            UnixTime::default(),
            &look,
        ));
        for line in lines {
            assert!(is_harmless(&line), "{line:?}");
        }
    }

    #[test]
    fn t04_an_offer_says_before_it_is_accepted_that_its_name_is_refused() {
        let numbered = |name: &str, number| {
            let offered = OfferView {
                transfer: TransferId::from_bytes([0; 16]),
                from: "bob".parse().unwrap(),
                name: name.to_owned(),
                size: 5,
                executable: false,
            };
            offer(&offered, number, &Look::plain())
        };
        let shown = |name: &str| numbered(name, Counter::Asks);
        let in_chat = numbered("back\\slash", Counter::Chat(4));
        assert!(
            in_chat.ends_with(". /accept 4 as back_slash or /decline 4"),
            "{in_chat}"
        );
        let in_chat = numbered("a\u{1b}b", Counter::Chat(4));
        assert!(
            in_chat.ends_with(". /accept 4 as a_b or /decline 4"),
            "{in_chat}"
        );
        assert_eq!(shown("letter.txt"), "bob offers letter.txt (5 B)");
        for (name, words, why) in [
            (
                ".bashrc",
                "can be taken as _bashrc",
                "starts with a dot, which would hide the file",
            ),
            (
                ".ssh/authorized_keys",
                "can be taken as _ssh_authorized_keys",
                "path separator",
            ),
            ("../up", "can be taken as ___up", "path separator"),
            ("CON.txt", "can be taken as _CON.txt", "device"),
            (
                "gnp.\u{202e}exe",
                "can be taken as gnp._exe",
                "invisible characters",
            ),
            (
                "trailing ",
                "can be taken as trailing",
                "ends with a dot or a blank",
            ),
        ] {
            let line = shown(name);
            assert!(line.contains(words), "{line}");
            assert!(line.contains(why), "{line}");
            assert!(is_harmless(&line), "{line}");
        }
    }

    #[test]
    fn a_sender_learns_what_is_wrong_with_a_name() {
        let reason = DeclineReason::Name.to_string();
        assert!(is_about_name(&reason));
        let told = declined(&reason, ".bashrc");
        assert!(told.starts_with(&reason), "{told}");
        assert!(
            told.ends_with("starts with a dot, which would hide the file"),
            "{told}"
        );
        // Their gate may be another one than ours.
        assert_eq!(declined(&reason, "letter.txt"), reason);
        let other = DeclineReason::NoAnswer.to_string();
        assert!(!is_about_name(&other));
        assert_eq!(declined(&other, ".bashrc"), other);
        assert!(is_harmless(&declined("\u{1b}[2J", "\u{1b}[2J")));
    }

    #[test]
    fn a_list_is_a_table() {
        let device = |account: &str, is_self| Listed {
            account: account.parse().unwrap(),
            device: DeviceName::lossy("laptop"),
            fingerprint: String::new(),
            key: KeyState::Known,
            is_verified: false,
            status: Status::Available,
            since: UnixTime::from_millis(1_700_000_000_000),
            endpoints: vec!["192.0.2.1:1".parse().unwrap()],
            is_self,
        };
        let devices = [device("alice", true), device("bob", false)];
        assert_eq!(
            directory(&devices, false, Some(80), &Look::plain()),
            [
                "ACCOUNT      DEVICE  STATUS     SINCE                ENDPOINTS",
                "alice (you)  laptop  available  2023-11-14 22:13:20  192.0.2.1:1",
                "bob          laptop  available  2023-11-14 22:13:20  192.0.2.1:1",
            ]
        );
    }

    #[test]
    fn a_list_fits_a_narrow_terminal() {
        let device = Listed {
            account: "alice".parse().unwrap(),
            device: DeviceName::lossy("laptop"),
            fingerprint: String::new(),
            key: KeyState::Known,
            is_verified: false,
            status: Status::Available,
            since: UnixTime::from_millis(1_700_000_000_000),
            endpoints: vec!["[2001:db8:1:2:3:4:5:6]:54321".parse().unwrap()],
            is_self: true,
        };
        assert_eq!(
            directory(&[device], false, Some(60), &Look::plain()),
            [
                "ACCOUNT      DEVICE  STATUS     SINCE\n  ENDPOINTS",
                "alice (you)  laptop  available  2023-11-14 22:13:20\n  [2001:db8:1:2:3:4:5:6]:54321",
            ]
        );
    }

    #[test]
    fn a_list_lines_up_whatever_devices_are_called() {
        let device = |account: &str, name: &str| Listed {
            account: account.parse().unwrap(),
            device: DeviceName::lossy(name),
            fingerprint: String::new(),
            key: KeyState::Known,
            is_verified: false,
            status: Status::Available,
            since: UnixTime::from_millis(1_700_000_000_000),
            endpoints: vec!["192.0.2.1:1".parse().unwrap()],
            is_self: false,
        };
        let devices = [
            device("bob", "携帯電話"),
            device("carol", "📱"),
            device("dave", &"長い名前".repeat(5)),
        ];
        assert_eq!(
            directory(&devices[..2], false, Some(80), &Look::plain()),
            [
                "ACCOUNT  DEVICE    STATUS     SINCE                ENDPOINTS",
                "bob      携帯電話  available  2023-11-14 22:13:20  192.0.2.1:1",
                "carol    📱        available  2023-11-14 22:13:20  192.0.2.1:1",
            ]
        );
        let mut keys = devices.clone();
        keys[0].fingerprint = "SHA256:abc".to_owned();
        keys[0].key = KeyState::New;
        keys[1].key = KeyState::OtherAccount;
        let rows = directory(&keys[..2], true, None, &Look::plain());
        assert!(rows[1].contains("携帯電話 (new key)") && rows[1].contains("SHA256:abc"));
        assert!(rows[2].contains("📱 (key of another account)"));
        for width in [10, 20, 40, 60, 80] {
            for row in directory(&devices, false, Some(width), &Look::plain()) {
                for line in row.split('\n') {
                    assert!(text::columns(line) <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn help_explains_every_command_in_80_columns() {
        let help = chat_help(Some(80));
        for slash in Slash::ALL {
            let usage = text::padded(&slash.usage(), HELP_USAGE_COLUMNS, Align::Left);
            assert!(
                help.contains(&format!("\n  {usage}  {}\n", slash.help())),
                "{help}"
            );
        }
        assert!(help.lines().all(|line| text::columns(line) <= 80), "{help}");
        let narrow = text::wrapped(&chat_help(Some(40)), Some(40));
        assert!(
            narrow.contains("\n  /to NAME\n      talk to NAME from now on\n"),
            "{narrow}"
        );
        assert!(
            narrow.lines().all(|line| text::columns(line) <= 40),
            "{narrow}"
        );
    }

    #[test]
    fn a_long_value_goes_on_below_itself() {
        let look = Look {
            columns: || Some(40),
            ..Look::plain()
        };
        assert_eq!(
            labelled("state", "offline: nobody answers there at this time", &look),
            "state     offline: nobody answers there\n          at this time"
        );
        assert_eq!(
            labelled("state", "online", &Look::plain()),
            "state     online"
        );
    }

    #[test]
    fn a_conversation_shows_the_date_of_other_days_only() {
        let look = Look::plain();
        let item = item("a\nb", Direction::Received);
        let later = |hours: u64| UnixTime::from_millis(1_700_000_000_000 + hours * 3_600_000);
        let shown = "22:13:20 bob: a\n         │ b";
        assert_eq!(talk(&item, later(1), &look), shown);
        assert_eq!(talk(&item, later(2), &look), message(&item, &look));
    }

    #[test]
    fn endpoints_that_others_can_use_come_first() {
        let all =
            ["127.0.0.1:5", "192.0.2.1:5", "[2001:db8::1]:5"].map(|text| text.parse().unwrap());
        assert_eq!(endpoints(&all, 1), "192.0.2.1:5 +2");
        assert_eq!(
            endpoints(&all, 9),
            "192.0.2.1:5 [2001:db8::1]:5 127.0.0.1:5"
        );
        assert_eq!(endpoints(&[], 1), "through the relay");
    }

    #[test]
    fn the_last_line_has_size_rate_and_digest() {
        let state = TransferState::Done {
            digest: "ab12".to_owned(),
            total: 10_000_000,
            elapsed_ms: 2000,
            path: None,
        };
        assert_eq!(
            transfer_done("Sent", "a.bin", "to bob", &state),
            "Sent a.bin to bob: 10.0 MB in 2.0 s, 5.0 MB/s\n  BLAKE3 ab12"
        );
    }
}
