//! The line interface of a conversation: what is shown scrolls away above the line that is typed. It is
//! for terminals of any size, screen readers and pipes; with `--json` it is for programs.

use std::io::{self, IsTerminal};

use common::id::AccountName;
use common::text::{self, inline};
use common::time::UnixTime;
use serde_json::json;

use super::{
    Counter, absent, awaiting, chat_help, connection_change, directory, labelled, moved, nearby,
    node_status, notice, offer, recent, relay_off, rerouted, said, talk, transfer,
};
use crate::client::Notifier;
use crate::config::shown_path;
use crate::conversation::slash::{Slash, in_conversation};
use crate::conversation::{
    Cause, Item, Objection, PromptState, Receipts, Stage, Transfer, Waiting, Which,
};
use crate::failure::{Exit, Failure};
use crate::node::command::{Event, MessageState, OfferView, TransferState};
use crate::shell::names::FileName;
use crate::ui::prompt::{Names, Prompt};
use crate::ui::{Look, OutputClosed, Screen};

/// Says that the process with the node has ended, and its node is this one's now.
pub(crate) const TOOK_OVER: &str =
    "The 'peer' program that kept the connection has ended; this one goes on.";

/// Columns of a message that is quoted to tell it from others.
const QUOTE_COLUMNS: usize = 24;

/// Shows a conversation line by line.
#[derive(Debug)]
pub(crate) struct LineFrontEnd<'a> {
    screen: &'a Screen,
    prompt: Prompt,
    names: Names,
}

impl<'a> LineFrontEnd<'a> {
    /// Starts reading. What is typed arrives through `notifier`.
    ///
    /// # Errors
    /// The terminal cannot be set up.
    pub(crate) fn start(screen: &'a Screen, notifier: Notifier) -> io::Result<Self> {
        let names = Names::default();
        let prompt = if screen.is_json() {
            Prompt::plain(notifier)
        } else {
            Prompt::start(notifier, names.clone())
        };
        Ok(Self {
            screen,
            prompt: prompt?,
            names,
        })
    }

    /// Tells whether somebody types at a terminal.
    pub(crate) const fn is_interactive(&self) -> bool {
        self.prompt.is_interactive()
    }

    /// Tells whether a person reads along, be it where no line editor draws.
    pub(crate) fn is_at_terminal(&self) -> bool {
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        is_terminal && !self.screen.is_json()
    }

    /// Asks for a line, unless that is being done already.
    pub(crate) fn ask(&mut self, state: &PromptState<'_>) {
        self.prompt.ask_with(&prompt(state), state.draft);
    }

    /// Shows how far transfers are, in lines below what is typed that are redrawn. A program, or somebody
    /// without a terminal, sees [`Item::Transfer`] instead.
    pub(crate) fn underway(&self, underway: &[(&Transfer, Stage)]) {
        let columns = self.screen.look.columns();
        let lines = underway.iter();
        let lines = lines.map(|(transfer, stage)| transfer::live(transfer, *stage, columns));
        self.prompt.set_status(lines.collect());
    }

    /// Tells whether the terminal is another job's; then nothing is to be shown or asked for.
    pub(crate) fn is_in_background(&self) -> bool {
        self.prompt.is_in_background()
    }

    /// Takes the terminal up again, in the foreground, after another job may have had it.
    pub(crate) fn resume(&self) {
        self.prompt.resume();
    }

    /// Has to be called with every line that arrives.
    pub(crate) const fn answered(&mut self) {
        self.prompt.answered();
    }

    /// Completes a name from now on.
    pub(crate) fn met(&self, name: &AccountName) {
        self.names.add(name.as_str());
    }

    /// Shows an item to a person, or what a program asked for to a program.
    ///
    /// # Errors
    /// Nobody reads the output any more.
    pub(crate) fn show(&self, item: &Item, today: UnixTime) -> Result<(), OutputClosed> {
        if self.screen.is_json() {
            return self.answer(item);
        }
        let is_redrawn = matches!(
            item,
            Item::Transfer {
                state: TransferState::Moving(_),
                ..
            }
        );
        if is_redrawn && self.is_interactive() {
            return Ok(());
        }
        let look = &self.screen.look;
        for line in lines(item, today, look) {
            let text = match line {
                Line::Prose(text) => text::wrapped(&text, look.columns()),
                Line::Shaped(text) => text,
            };
            self.prompt.print(self.screen, &text)?;
        }
        Ok(())
    }

    /// Says to a person that the server has not answered for a moment.
    ///
    /// # Errors
    /// Nobody reads the output any more.
    pub(crate) fn awaiting(&self, server: &str) -> Result<(), OutputClosed> {
        if self.screen.is_json() || self.is_in_background() {
            return Ok(());
        }
        let text = self.screen.look.dim(&awaiting(server));
        self.prompt.print(self.screen, &text)
    }

    /// Tells a program of an event.
    ///
    /// # Errors
    /// Nobody reads the output any more.
    pub(crate) fn tell(&self, event: &Event) -> Result<(), OutputClosed> {
        match event {
            Event::Offer(offer) => self.screen.offer(offer),
            Event::Connection(_)
            | Event::Presence(_)
            | Event::Nearby { .. }
            | Event::Path(_)
            | Event::RelayOff
            | Event::Message(_)
            | Event::Recorded(_)
            | Event::Addressed { .. }
            | Event::MessageState { .. }
            | Event::Withdrawn { .. }
            | Event::Transfer { .. }
            | Event::FailedLogins(_)
            | Event::Enrolled(_)
            | Event::NewKey { .. }
            | Event::NotApproved { .. }
            | Event::OtherAccount { .. }
            | Event::Approval { .. }
            | Event::DeviceApproved { .. } => self.screen.data(event),
        }
    }

    /// Gives the terminal back as it was.
    pub(crate) fn end(self) {
        self.prompt.end();
    }

    /// Events are told to a program as they are; what else it gets are answers.
    fn answer(&self, item: &Item) -> Result<(), OutputClosed> {
        match item {
            Item::Directory(devices) => devices
                .iter()
                .try_for_each(|device| self.screen.data(device)),
            Item::History(items) | Item::Recent(items) => {
                items.iter().try_for_each(|item| self.screen.data(item))
            }
            Item::Outbox(items) => items.iter().try_for_each(|item| self.screen.data(item)),
            Item::Status { node, .. } => self.screen.data(node),
            Item::Problem(failure) => self.screen.data(&json!({ "error": failure })),
            Item::Objection(objection) => {
                let failure = Failure::new(Exit::Usage, objected(objection));
                self.screen.data(&json!({ "error": failure }))
            }
            Item::Help => {
                let command =
                    |slash: Slash| json!({ "usage": slash.usage(), "help": slash.help() });
                let commands = Slash::ALL.map(command);
                self.screen.data(&json!({ "commands": commands }))
            }
            Item::Hello { .. }
            | Item::TurnedTo(_)
            | Item::Message(_)
            | Item::Receipts(_)
            | Item::Waiting { .. }
            | Item::Withdrawn(_)
            | Item::Absent { .. }
            | Item::Offer { .. }
            | Item::OfferEnded { .. }
            | Item::OfferTaken { .. }
            | Item::Offered(_)
            | Item::OfferedAgain(_)
            | Item::Accepted { .. }
            | Item::Declined { .. }
            | Item::Transfer { .. }
            | Item::Cancelled(_)
            | Item::Connection(_)
            | Item::Presence { .. }
            | Item::Nearby { .. }
            | Item::Path(_)
            | Item::RelayOff
            | Item::Notice(_)
            | Item::TookOver => Ok(()),
        }
    }
}

/// A text for a terminal, harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    /// May be broken at its blanks.
    Prose(String),
    /// Has a form of its own.
    Shaped(String),
}

fn prompt(state: &PromptState<'_>) -> String {
    let with = state.with.map_or("", AccountName::as_str);
    match state.unread {
        0 => format!("{with}> "),
        unread => format!("{with} ({unread})> "),
    }
}

fn lines(item: &Item, today: UnixTime, look: &Look) -> Vec<Line> {
    let prose = |text: String| vec![Line::Prose(text)];
    match item {
        Item::Hello { me, with } => prose(look.dim(&hello(me.as_ref(), with.as_ref()))),
        Item::TurnedTo(with) => prose(look.dim(&format!("What you type goes to {with}."))),
        Item::Help => prose(chat_help(look.columns())),
        Item::Message(message) => vec![Line::Shaped(said(message, today, look))],
        Item::History(items) if items.is_empty() => prose(look.dim("No messages yet.")),
        Item::History(items) => {
            let items = items.iter();
            let lines = items.map(|item| Line::Shaped(talk(item, today, look)));
            lines.collect()
        }
        Item::Recent(items) => {
            let items = items.iter();
            let lines = items.map(|item| Line::Shaped(recent(item, today, look)));
            lines.collect()
        }
        Item::Directory(devices) => {
            let rows = directory(devices, false, look.columns(), look);
            rows.into_iter().map(Line::Shaped).collect()
        }
        Item::Receipts(receipts) => prose(look.dim(&format!("  {}", told(receipts)))),
        Item::Waiting {
            waiting,
            cause,
            which,
        } => {
            let waits = waits(waiting, *cause, which);
            prose(look.yellow(&format!("  {waits}")))
        }
        Item::Withdrawn(withdrawn) => prose(look.dim(&format!("  {}", taken_back(withdrawn)))),
        Item::Absent {
            account,
            absence,
            waiting,
        } => {
            let what = match waiting {
                0 => "what you write goes out".to_owned(),
                1 => "1 message waits and goes out".to_owned(),
                count => format!("{count} messages wait and go out"),
            };
            let who = absent(account, *absence);
            prose(look.dim(&format!("  {who}; {what} when both are online")))
        }
        Item::Offer {
            number,
            offer: view,
        } => prose(offer(view, Counter::Chat(*number), look)),
        Item::OfferEnded { number, name, why } => prose(look.dim(&format!(
            "  Offer {number}, {}, {}.",
            inline(name),
            transfer::offer_ended(why.as_deref())
        ))),
        Item::OfferTaken { number, name } => prose(look.dim(&format!(
            "  Offer {number}, {}, was answered elsewhere.",
            inline(name)
        ))),
        Item::Offered(transfer) => prose(look.dim(&format!(
            "  Offered as transfer {}.",
            transfer::in_full(transfer, Stage::Offered)
        ))),
        Item::OfferedAgain(transfer) => prose(look.dim(&transfer::offered_again(transfer))),
        Item::Accepted { name, folder } => prose(look.dim(&format!(
            "  Taking {} into {}.",
            inline(name),
            shown_path(folder)
        ))),
        Item::Declined { name } => prose(look.dim(&format!("  Declined {}.", inline(name)))),
        Item::Transfer { transfer, state } => prose(transfer::progress(transfer, state, look)),
        Item::Cancelled(transfer) => {
            prose(look.yellow(&format!("  Cancelled {}.", transfer::numbered(transfer))))
        }
        Item::Outbox(items) if items.is_empty() => prose(look.dim("Nothing waits.")),
        Item::Outbox(items) => {
            let lines = items.iter();
            let lines = lines.map(|item| Line::Shaped(talk(item, today, look)));
            let hint = look.dim("'peer outbox cancel NAME' in another terminal takes back.");
            lines.chain([Line::Prose(hint)]).collect()
        }
        Item::Status {
            node,
            owner,
            server,
            offers,
            underway,
        } => {
            let rows = node_status(node, owner.as_ref(), server, look);
            status(rows, offers, underway, look)
        }
        Item::Connection(change) => prose(connection_change(change, look)),
        Item::Presence { account, is_online } => {
            prose(format!("  {}", moved(account, *is_online, look)))
        }
        Item::Nearby { account, is_here } => {
            prose(format!("  {}", nearby(account, *is_here, look)))
        }
        Item::Path(view) => prose(look.dim(&rerouted(view))),
        Item::RelayOff => prose(relay_off(look)),
        Item::Notice(event) => prose(notice(event, look).unwrap_or_default()),
        Item::TookOver => prose(look.dim(TOOK_OVER)),
        Item::Objection(Objection::InterruptOnce) => {
            prose(look.dim(&objected(&Objection::InterruptOnce)))
        }
        Item::Objection(objection) => prose(look.yellow(&objected(objection))),
        Item::Problem(failure) => prose(problem(failure, look)),
    }
}

fn status(
    node: Vec<(&'static str, String)>,
    offers: &[(usize, OfferView)],
    underway: &[(Transfer, Stage)],
    look: &Look,
) -> Vec<Line> {
    let offers = offers.iter().map(|(number, view)| {
        let name = inline(&view.name);
        let size = text::size(view.size);
        (
            "offer",
            format!("{number}: {name} from {} ({size})", view.from),
        )
    });
    let files = underway.iter();
    let files = files.map(|(transfer, stage)| ("file", transfer::in_full(transfer, *stage)));
    let rows = node.into_iter().chain(offers).chain(files);
    rows.map(|(name, value)| Line::Prose(labelled(name, &value, look)))
        .collect()
}

fn hello(me: Option<&AccountName>, with: Option<&AccountName>) -> String {
    let me = me.map_or("nobody", AccountName::as_str);
    let hint = match with {
        Some(with) => format!("What you type goes to {with}."),
        None => "Type 'NAME: text', or /to NAME.".to_owned(),
    };
    format!("You are {me}. {hint} /help tells more, /quit ends.")
}

fn told(receipts: &Receipts) -> String {
    let Receipts {
        to,
        state,
        count,
        last,
    } = receipts;
    let word = if *state == MessageState::Read {
        "✓✓ read by"
    } else {
        "✓ delivered to"
    };
    let last = last.as_deref().map(quoted);
    match (count, last) {
        (1, None) => format!("{word} {to}"),
        (1, Some(last)) => format!("{word} {to}: {last}"),
        (count, None) => format!("{word} {to} ({count} messages)"),
        (count, Some(last)) => format!("{word} {to} ({count} messages up to {last})"),
    }
}

/// How a message begins, to tell it from others.
fn quoted(text: &str) -> String {
    format!("“{}”", text::shortened(&inline(text), QUOTE_COLUMNS))
}

/// Stands in the place of the tick.
fn waits(waiting: &Waiting, cause: Cause, which: &Which) -> String {
    let Waiting { to, count } = waiting;
    let they = if *count == 1 { "it goes" } else { "they go" };
    let wait = match (count, which) {
        (1, Which::Last) => "waits".to_owned(),
        (1, Which::UpTo(last)) => format!("{} waits", quoted(last)),
        (1, Which::Earlier) => "an earlier message waits".to_owned(),
        (count, Which::Last) => format!("{count} messages wait"),
        (count, Which::UpTo(last)) => format!("{count} messages up to {} wait", quoted(last)),
        (count, Which::Earlier) => format!("{count} earlier messages wait"),
    };
    match cause {
        Cause::Absent(absence) => {
            let who = absent(to, absence);
            format!("… {wait}: {who}; {they} out when both are online")
        }
        Cause::NoServer => {
            format!("… {wait} for {to}: there is no connection to the server")
        }
        Cause::NotReached => {
            format!("… {wait}: {to} cannot be reached so far; 'peer doctor {to}' says why")
        }
        Cause::NoReceipt => format!("… {wait}: sent to {to}, no receipt so far"),
    }
}

fn taken_back(withdrawn: &Waiting) -> String {
    match withdrawn {
        Waiting { to, count: 1 } => format!("1 message to {to} was taken back"),
        Waiting { to, count } => format!("{count} messages to {to} were taken back"),
    }
}

fn objected(objection: &Objection) -> String {
    match objection {
        Objection::Mistake(mistake) => mistake.to_string(),
        Objection::NoRecipient { is_kept: false } => {
            "To whom? Type 'NAME: text', or /to NAME first.".to_owned()
        }
        Objection::NoRecipient { is_kept: true } => "To whom? Put 'NAME: ' in front of it; or press Ctrl-U and type /to NAME, and the text comes back.".to_owned(),
        Objection::Ambiguous { name, with } => {
            let with = with.as_ref().map_or("here", AccountName::as_str);
            format!(
                "Not sent: is this for {name}, who has not been seen here? '/to {name}' talks to {name}; the same line once more (Up, Enter) sends it to {with}."
            )
        }
        Objection::NoSuchOffer => "There is no such offer.".to_owned(),
        Objection::OfferEnded => {
            "That offer has been answered elsewhere, or was withdrawn.".to_owned()
        }
        Objection::OddName { number, substitute } => {
            let name = substitute.as_ref().map_or("NAME", FileName::as_str);
            format!("Not under that name. To take it: /accept {number} as {name}")
        }
        Objection::NoSuchTransfer => {
            "There is no such transfer in this chat; those of other 'peer' programs are cancelled there."
                .to_owned()
        }
        Objection::NotAccepted { number } => {
            format!("Offer {number} was not accepted. /decline {number} declines it.")
        }
        Objection::WhichTransfer(transfers) => {
            let transfers: Vec<_> = transfers.iter().map(transfer::numbered).collect();
            format!("Which? Give its number: {}.", text::joined(&transfers))
        }
        Objection::UnderWay(underway) => transfer::cut_off(underway),
        Objection::InterruptOnce => "Ctrl-C again ends, and so do Ctrl-D and /quit.".to_owned(),
    }
}

fn problem(failure: &Failure, look: &Look) -> String {
    let mut text = format!("{} {}", look.red("error:"), failure.what());
    let why = failure.why().map(str::to_owned);
    let next = failure.what_next().map(in_conversation);
    for (head, line) in [("  why:", why), (" next:", next)] {
        if let Some(line) = line {
            text.push_str(&format!("\n{} {line}", look.dim(head)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Way;
    use crate::conversation::connection::ConnectionChange;
    use crate::conversation::presence::Absence;
    use crate::node::PathRule;
    use crate::node::command::{
        Carrier, ConnectionState, Direction, EnrolmentView, FailureKind, HistoryItem, Moved,
        NodeStatus, PathChanged, Way as LinkWay,
    };
    use crate::port_mapping::PortMappingState;
    use common::id::{DeviceName, MessageId, TransferId};

    const HOSTILE: &str = "a\u{1b}]52;c;eA==\u{7}\r\u{202e}b\u{9b}2J";

    fn bob() -> AccountName {
        "bob".parse().unwrap()
    }

    fn message(text: &str) -> HistoryItem {
        HistoryItem {
            id: MessageId::from_bytes([0; 16]),
            with: bob(),
            direction: Direction::Received,
            sent: UnixTime::from_millis(1_700_000_000_000),
            body: text.to_owned().try_into().unwrap(),
            state: MessageState::Delivered,
        }
    }

    fn offered(name: &str) -> OfferView {
        OfferView {
            transfer: TransferId::from_bytes([0; 16]),
            from: bob(),
            name: name.to_owned(),
            size: 5,
            executable: false,
        }
    }

    fn file(name: &str) -> Transfer {
        Transfer {
            number: 1,
            name: name.to_owned(),
            way: Way::From(bob()),
        }
    }

    fn transfer(name: &str, state: TransferState) -> Item {
        let transfer = file(name);
        Item::Transfer { transfer, state }
    }

    fn rerouted_to(way: LinkWay) -> Item {
        Item::Path(PathChanged {
            account: bob(),
            fingerprint: String::new(),
            way,
            round_trip_us: 23_000,
        })
    }

    fn node() -> NodeStatus {
        NodeStatus {
            approval: None,
            has_relay: None,
            account: Some(bob()),
            fingerprint: String::new(),
            connection: ConnectionState::Online,
            endpoints: Vec::new(),
            rule: PathRule::Any,
            lan: true,
            port_mapping: PortMappingState::default(),
            links: Vec::new(),
            nearby: Vec::new(),
            outbox: 0,
            transfers: Vec::new(),
        }
    }

    fn shown(item: &Item) -> String {
        let lines = lines(
            item,
            UnixTime::from_millis(1_700_000_000_000),
            &Look::plain(),
        );
        let texts = lines.into_iter().map(|line| match line {
            Line::Prose(text) | Line::Shaped(text) => text,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_item_has_its_words() {
        let receipts_for = |state, count, last: Option<&str>| {
            Item::Receipts(Receipts {
                to: bob(),
                state,
                count,
                last: last.map(str::to_owned),
            })
        };
        let receipts = |state, count| receipts_for(state, count, None);
        let waits_for = |count, cause, which| Item::Waiting {
            waiting: Waiting { to: bob(), count },
            cause,
            which,
        };
        let waits = |count, cause| waits_for(count, cause, Which::Last);
        let up_to = |beginning: &str| Which::UpTo(beginning.to_owned());
        let absent = |absence, waiting| Item::Absent {
            account: bob(),
            absence,
            waiting,
        };
        let moving = TransferState::Moving(Moved {
            done: 500,
            total: 2000,
            is_behind: false,
        });
        let declined = TransferState::Declined {
            reason: "no".to_owned(),
        };
        let failed = TransferState::Failed {
            reason: "the link broke".to_owned(),
            kind: FailureKind::Broken,
        };
        let done = TransferState::Done {
            digest: "00".to_owned(),
            total: 2000,
            elapsed_ms: 4,
            path: Some("/tmp/a.txt".into()),
        };
        for (item, words) in [
            (
                Item::Hello {
                    me: Some("alice".parse().unwrap()),
                    with: Some(bob()),
                },
                "You are alice. What you type goes to bob. /help tells more, /quit ends.",
            ),
            (
                Item::Hello {
                    me: None,
                    with: None,
                },
                "You are nobody. Type 'NAME: text', or /to NAME. /help tells more, /quit ends.",
            ),
            (Item::Message(message("漢字 👍")), "22:13:20 bob: 漢字 👍"),
            (Item::History(Vec::new()), "No messages yet."),
            (
                Item::History(vec![message("a"), message("b")]),
                "22:13:20 bob: a\n22:13:20 bob: b",
            ),
            (receipts(MessageState::Delivered, 1), "  ✓ delivered to bob"),
            (
                receipts(MessageState::Read, 3),
                "  ✓✓ read by bob (3 messages)",
            ),
            (
                receipts_for(MessageState::Read, 1, Some("b9\u{1b}[2J")),
                "  ✓✓ read by bob: “b9␛[2J”",
            ),
            (
                receipts_for(
                    MessageState::Delivered,
                    3,
                    Some("the first of many words and more of them"),
                ),
                "  ✓ delivered to bob (3 messages up to “the first of…ore of them”)",
            ),
            (
                Item::Withdrawn(Waiting {
                    to: bob(),
                    count: 1,
                }),
                "  1 message to bob was taken back",
            ),
            (
                Item::Withdrawn(Waiting {
                    to: bob(),
                    count: 2,
                }),
                "  2 messages to bob were taken back",
            ),
            (
                waits(1, Cause::Absent(Absence::Offline)),
                "  … waits: bob is offline; it goes out when both are online",
            ),
            (
                waits(2, Cause::Absent(Absence::Unheard)),
                "  … 2 messages wait: bob is not online (or there is no such account); they go out when both are online",
            ),
            (
                waits(1, Cause::NoServer),
                "  … waits for bob: there is no connection to the server",
            ),
            (
                waits(3, Cause::NotReached),
                "  … 3 messages wait: bob cannot be reached so far; 'peer doctor bob' says why",
            ),
            (
                waits(1, Cause::NoReceipt),
                "  … waits: sent to bob, no receipt so far",
            ),
            (
                waits_for(1, Cause::NoReceipt, up_to("hi\u{1b}")),
                "  … “hi␛” waits: sent to bob, no receipt so far",
            ),
            (
                waits_for(2, Cause::NotReached, up_to("hi")),
                "  … 2 messages up to “hi” wait: bob cannot be reached so far; 'peer doctor bob' says why",
            ),
            (
                waits_for(1, Cause::NotReached, Which::Earlier),
                "  … an earlier message waits: bob cannot be reached so far; 'peer doctor bob' says why",
            ),
            (
                waits_for(2, Cause::NoReceipt, Which::Earlier),
                "  … 2 earlier messages wait: sent to bob, no receipt so far",
            ),
            (
                absent(Absence::Offline, 0),
                "  bob is offline; what you write goes out when both are online",
            ),
            (
                absent(Absence::Offline, 1),
                "  bob is offline; 1 message waits and goes out when both are online",
            ),
            (
                absent(Absence::Unheard, 2),
                "  bob is not online (or there is no such account); 2 messages wait and go out when both are online",
            ),
            (
                Item::Offer {
                    number: 2,
                    offer: offered("a.txt"),
                },
                "bob offers a.txt (5 B) (offer 2): /accept 2 or /decline 2",
            ),
            (
                Item::OfferTaken {
                    number: 2,
                    name: "a.txt".to_owned(),
                },
                "  Offer 2, a.txt, was answered elsewhere.",
            ),
            (
                Item::OfferEnded {
                    number: 2,
                    name: "a.txt".to_owned(),
                    why: None,
                },
                "  Offer 2, a.txt, was withdrawn.",
            ),
            (
                Item::OfferEnded {
                    number: 2,
                    name: "a.txt".to_owned(),
                    why: Some("bob went away (no answer)".to_owned()),
                },
                "  Offer 2, a.txt, ended: bob went away (no answer).",
            ),
            (
                Item::Accepted {
                    name: "a.txt".to_owned(),
                    folder: "/tmp".into(),
                },
                "  Taking a.txt into /tmp.",
            ),
            (
                transfer("a.txt", moving),
                "  1: a.txt from bob: 25 %, 500 B of 2.0 kB",
            ),
            (
                transfer("a.txt", declined),
                "  1: a.txt from bob was declined: no",
            ),
            (
                transfer("a.txt", failed),
                "  1: a.txt from bob failed: the link broke; bob has to send it again, from the beginning",
            ),
            (
                transfer("a.txt", done),
                "  1: Received a.txt from bob: 2.0 kB in 4 ms\n    saved as /tmp/a.txt\n    BLAKE3 00",
            ),
            (
                Item::Connection(ConnectionChange::Lost {
                    reason: "gone".to_owned(),
                    is_retried: true,
                }),
                "Offline: gone. Trying again; messages wait, direct links stay.",
            ),
            (
                Item::Presence {
                    account: bob(),
                    is_online: false,
                },
                "  bob left",
            ),
            (
                Item::Nearby {
                    account: bob(),
                    is_here: true,
                },
                "  bob is heard on this network: messages go straight there, without the server",
            ),
            (
                rerouted_to(LinkWay::Direct {
                    remote: ([192, 0, 2, 7], 4000).into(),
                }),
                "  bob: direct now, 192.0.2.7:4000, 23 ms",
            ),
            (
                rerouted_to(LinkWay::Relayed {
                    over: Carrier::Udp,
                    per_s_max: 1,
                }),
                "  bob: through the relay of the server now, 23 ms",
            ),
            (
                Item::RelayOff,
                "Nobody can be reached: this server relays nothing, and --path relay permits no other way. What helps: leave out --path relay, or unset PEER_PATH, which shows this device's addresses to others; or ask the server's operator for its relay.",
            ),
            (
                Item::Objection(Objection::NoRecipient { is_kept: false }),
                "To whom? Type 'NAME: text', or /to NAME first.",
            ),
            (
                Item::Objection(Objection::Ambiguous {
                    name: "remember".parse().unwrap(),
                    with: Some(bob()),
                }),
                "Not sent: is this for remember, who has not been seen here? '/to remember' talks to remember; the same line once more (Up, Enter) sends it to bob.",
            ),
            (
                Item::Problem(
                    Failure::new(Exit::Other, "could not do it")
                        .because("x")
                        .next("look at 'peer list'"),
                ),
                "error: could not do it\n  why: x\n next: look at /list",
            ),
        ] {
            assert_eq!(shown(&item), words);
        }
    }

    #[test]
    fn t05_nothing_from_outside_reaches_the_terminal_as_it_is() {
        let name = || HOSTILE.to_owned();
        for item in [
            Item::Message(message(HOSTILE)),
            Item::History(vec![message(HOSTILE)]),
            Item::Recent(vec![message(HOSTILE), message(&HOSTILE.repeat(99))]),
            Item::Receipts(Receipts {
                to: bob(),
                state: MessageState::Read,
                count: 1,
                last: Some(HOSTILE.to_owned()),
            }),
            Item::Offer {
                number: 1,
                offer: offered(HOSTILE),
            },
            Item::OfferTaken {
                number: 1,
                name: HOSTILE.to_owned(),
            },
            Item::OfferEnded {
                number: 1,
                name: name(),
                why: None,
            },
            Item::OfferEnded {
                number: 1,
                name: "a.txt".to_owned(),
                why: Some(name()),
            },
            Item::OfferedAgain(file(HOSTILE)),
            Item::Offered(file(HOSTILE)),
            Item::Cancelled(file(HOSTILE)),
            Item::Objection(Objection::WhichTransfer(vec![file(HOSTILE)])),
            Item::Objection(Objection::UnderWay(vec![(file(HOSTILE), Stage::Offered)])),
            Item::Status {
                node: Box::new(node()),
                owner: None,
                server: HOSTILE.to_owned(),
                offers: vec![(1, offered(HOSTILE))],
                underway: Vec::new(),
            },
            Item::Status {
                node: Box::new(node()),
                owner: None,
                server: HOSTILE.to_owned(),
                offers: Vec::new(),
                underway: vec![(file(HOSTILE), Stage::Offered)],
            },
            Item::Accepted {
                name: name(),
                folder: HOSTILE.into(),
            },
            Item::Declined { name: name() },
            transfer(HOSTILE, TransferState::Waiting),
            transfer(
                HOSTILE,
                TransferState::Moving(Moved {
                    done: 1,
                    total: 2,
                    is_behind: false,
                }),
            ),
            transfer(
                HOSTILE,
                TransferState::Failed {
                    reason: name(),
                    kind: FailureKind::Broken,
                },
            ),
            transfer(HOSTILE, TransferState::Declined { reason: name() }),
            transfer(
                HOSTILE,
                TransferState::Done {
                    digest: name(),
                    total: 1,
                    elapsed_ms: 1,
                    path: Some(HOSTILE.into()),
                },
            ),
            Item::Connection(ConnectionChange::Lost {
                reason: name(),
                is_retried: false,
            }),
            Item::Notice(Event::Enrolled(EnrolmentView {
                device: DeviceName::lossy("laptop"),
                fingerprint: name(),
                at: UnixTime::default(),
            })),
            Item::Notice(Event::NewKey {
                account: bob(),
                fingerprint: name(),
                known: 1,
                is_approved: false,
            }),
            Item::Notice(Event::NotApproved {
                account: bob(),
                fingerprint: name(),
            }),
            Item::Problem(
                Failure::new(Exit::Other, HOSTILE)
                    .because(HOSTILE)
                    .next(HOSTILE),
            ),
        ] {
            let text = shown(&item);
            assert_eq!(text::block(&text), text, "{item:?}");
            assert!(text.contains('␛'), "{text}");
        }
    }

    #[test]
    fn the_prompt_names_the_other_side_and_what_is_unread() {
        let bob = bob();
        for (with, unread, text) in [
            (None, 0, "> "),
            (Some(&bob), 0, "bob> "),
            (Some(&bob), 12, "bob (12)> "),
        ] {
            assert_eq!(
                prompt(&PromptState {
                    with,
                    unread,
                    draft: ""
                }),
                text
            );
        }
    }
}
