//! What comes into a conversation and what goes out of it, as values.

use std::path::PathBuf;
use std::time::Instant;

use common::id::{AccountName, MessageId};
use common::time::UnixTime;

use super::connection::ConnectionChange;
use super::entry::Mistake;
use super::presence::Absence;
use super::sent::{Cause, Receipts, Waiting, Which};
use super::transfers::{Stage, Transfer};
use crate::client::Typed;
use crate::failure::Failure;
use crate::node::command::{
    Command, Event, HistoryItem, Listed, NodeStatus, OfferView, PathChanged, Reply, TransferState,
};
use crate::shell::names::FileName;

/// What a conversation begins with.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The account of this device.
    pub(crate) me: Option<AccountName>,
    /// The server's address.
    pub(crate) server: String,
    /// Whom to talk to at first.
    pub(crate) with: Option<AccountName>,
    /// Where accepted files go, an absolute path.
    pub(crate) folder: PathBuf,
    /// What `~/` stands for in a path that is typed.
    pub(crate) home: Option<PathBuf>,
    /// Somebody types at a terminal. What comes from a program instead is never asked back about, and
    /// its end waits for what was sent.
    pub(crate) is_interactive: bool,
    /// A person reads along, also at a terminal without a prompt.
    pub(crate) is_at_terminal: bool,
    /// Why there is no connection to the server at the start, if there is none.
    pub(crate) offline: Option<String>,
}

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The monotonic clock, for deadlines.
    pub(crate) instant: Instant,
    /// This machine's wall clock, for what is sent.
    pub(crate) wall: UnixTime,
}

/// Pairs an answer with its request. Given by the engine, from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(super) u64);

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestError {
    /// There is no such transfer, or it has ended.
    NoSuchTransfer,
    /// Anything else, told as it is.
    Failed(Failure),
}

/// What happens to a conversation.
#[derive(Debug)]
pub(crate) enum Input {
    /// The node tells something.
    Event(Event),
    /// The node answered an [`Output::Ask`].
    Answered {
        request: RequestId,
        result: Result<Reply, RequestError>,
    },
    /// Something was typed.
    Typed(Typed),
    /// The person has seen a message that [`Item::Message`] had shown.
    Seen(MessageId),
    /// Another node has taken the place of the one that was talked to.
    Revived {
        /// It is this program's own.
        is_own: bool,
    },
}

/// What a conversation wants of whoever drives it.
#[derive(Debug)]
pub(crate) enum Output {
    /// Ask the node, and hand in the answer as [`Input::Answered`].
    Ask {
        request: RequestId,
        /// What for, in the infinitive: "list who is online".
        doing: String,
        /// The path of a [`Command::SendFile`] is as it was typed, perhaps relative.
        command: Command,
    },
    /// Show something to a person.
    Show(Item),
    /// Tell a program at the other end of an event of this conversation, as it is.
    Tell(Event),
    /// An account name that may be completed from now on.
    Met(AccountName),
    /// The conversation is over. Nothing follows.
    End(Ending),
    /// There is nothing else to do now. Call [`handle_timeout`](super::Conversation::handle_timeout) at
    /// that moment.
    Wait(Option<Instant>),
}

/// Why a conversation is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The person left, or the input ended and everything is delivered.
    Left {
        /// What is in the outbox.
        waiting: Vec<Waiting>,
        /// Transfers that end with it.
        cancelled: Vec<Transfer>,
    },
    /// The input ended, and these messages and transfers of this conversation had not in time.
    Unfinished {
        waiting: Vec<Waiting>,
        transfers: Vec<Transfer>,
    },
    /// It cannot go on.
    Failed(Failure),
}

/// Something to be shown to a person, below what was shown before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// The first words: who one is, and whom one talks to.
    Hello {
        me: Option<AccountName>,
        with: Option<AccountName>,
    },
    /// Whom one talks to from now on, where no prompt shows it.
    TurnedTo(AccountName),
    /// What can be typed.
    Help,
    /// A message arrived. To be handed back as [`Input::Seen`] when it was looked at.
    Message(HistoryItem),
    /// Earlier messages, oldest first; there may be none.
    History(Vec<HistoryItem>),
    /// The latest messages, oldest first, before one begins to talk.
    Recent(Vec<HistoryItem>),
    /// Who is online.
    Directory(Vec<Listed>),
    /// Messages that were sent here were delivered, or read.
    Receipts(Receipts),
    /// Messages that were sent here are not delivered, and why.
    Waiting {
        waiting: Waiting,
        cause: Cause,
        /// Which of them.
        which: Which,
    },
    /// Messages that waited were taken back, perhaps by another program: they do not wait any more.
    Withdrawn(Waiting),
    /// The person turned to somebody who is not there.
    Absent {
        account: AccountName,
        absence: Absence,
        /// Number of messages that wait for them.
        waiting: usize,
    },
    /// A file is offered.
    Offer { number: usize, offer: OfferView },
    /// An offer ended before it was answered here.
    OfferEnded {
        number: usize,
        name: String,
        /// Why, for a person; `None` where its sender withdrew it.
        why: Option<String>,
    },
    /// An offer that was open here was accepted in another program.
    OfferTaken { number: usize, name: String },
    /// The node offers a file for this person.
    Offered(Transfer),
    /// The offer ended with its node, and another one has made it again.
    OfferedAgain(Transfer),
    /// An offer was accepted here; the file will be called `name`.
    Accepted { name: String, folder: PathBuf },
    /// An offer was declined here.
    Declined { name: String },
    /// A transfer made progress, or ended.
    Transfer {
        transfer: Transfer,
        state: TransferState,
    },
    /// A transfer was cancelled here.
    Cancelled(Transfer),
    /// The messages that wait.
    Outbox(Vec<HistoryItem>),
    /// How one is connected, the offers that are open, and what is under way.
    Status {
        node: Box<NodeStatus>,
        /// Whose profile it is, logged in or not.
        owner: Option<AccountName>,
        /// The server's address.
        server: String,
        offers: Vec<(usize, OfferView)>,
        underway: Vec<(Transfer, Stage)>,
    },
    /// The connection to the server is lost, or back.
    Connection(ConnectionChange),
    /// Whom one talks to, or somebody whom messages wait for, came or left.
    Presence {
        account: AccountName,
        is_online: bool,
    },
    /// The same is heard on the local network, or not any more, while the connection to the server is lost.
    Nearby { account: AccountName, is_here: bool },
    /// The packets of a link to one of those, or to somebody with a file under way, go another way now.
    Path(PathChanged),
    /// Nobody can be reached: all is to go through a relay that the server has not.
    RelayOff,
    /// What the account's owner has to know of devices and keys.
    Notice(Event),
    /// The node of this profile is in this program from now on.
    TookOver,
    /// What was typed has not been done.
    Objection(Objection),
    /// A request failed.
    Problem(Failure),
}

/// Why what was typed has not been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// The line cannot be understood.
    Mistake(Mistake),
    /// It does not say for whom the text is.
    NoRecipient {
        /// It comes back into the line.
        is_kept: bool,
    },
    /// The text may be for somebody else than `with`. The same line once more is sent to `with`.
    Ambiguous {
        name: AccountName,
        with: Option<AccountName>,
    },
    /// No offer has that number, or none is open.
    NoSuchOffer,
    /// The offer has ended meanwhile.
    OfferEnded,
    /// The file of the offer can only be taken under another name, such as `substitute` if there is one.
    OddName {
        number: usize,
        substitute: Option<FileName>,
    },
    /// No transfer has that number, or none is under way.
    NoSuchTransfer,
    /// The number is that of an offer that nobody has answered.
    NotAccepted { number: usize },
    /// It could be any of these.
    WhichTransfer(Vec<Transfer>),
    /// These end with the conversation. It only ends the second time.
    UnderWay(Vec<(Transfer, Stage)>),
    /// Ctrl-C only ends the conversation the second time. Nothing ends with it.
    InterruptOnce,
}

/// What a front end puts in front of the line that is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PromptState<'a> {
    /// Where a text goes that names nobody.
    pub(crate) with: Option<&'a AccountName>,
    /// Messages that were shown and not seen.
    pub(crate) unread: usize,
    /// What the line begins with: a text that was typed and went nowhere.
    pub(crate) draft: &'a str,
}
