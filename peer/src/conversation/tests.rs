//! The engine alone: what comes in, and what is wanted for it.

use std::time::Duration;

use common::id::DeviceName;
use common::limits::MESSAGE_LEN_MAX;
use common::time::UnixTime;
use common::wire::rendezvous::{FailedLogins, Status};
use serde_json::{Value, json};

use super::connection::ConnectionChange;
use super::entry::Mistake;
use super::*;
use crate::node::PathRule;
use crate::node::command::{
    EnrolmentView, KeyState, Listed, Moved, NodeStatus, PresenceView, TransferView,
};
use crate::port_mapping::PortMappingState;

// How it ends.
mod end;
// Offers and transfers.
mod files;
// Messages.
mod messages;
// Who is there.
mod people;

/// A conversation, the time around it, and a node that answers when it is told to.
struct Stage {
    conversation: Conversation,
    now: Now,
}

/// What a conversation wanted, by kind.
#[derive(Debug, Default)]
struct Wanted {
    asks: Vec<(RequestId, String, Value)>,
    items: Vec<Item>,
    events: Vec<Event>,
    met: Vec<String>,
    ending: Option<Ending>,
    deadline: Option<Instant>,
}

impl Stage {
    /// At a terminal, talking to bob, all that is asked at the start answered with nothing.
    fn with_bob() -> Self {
        Self::settled(setup(true, Some("bob")))
    }

    fn settled(setup: Setup) -> Self {
        Self::settled_with(setup, |_| None).0
    }

    /// Answers what is asked at the start, by the method, with `known` or nothing.
    fn settled_with(setup: Setup, known: impl Fn(&str) -> Option<Reply>) -> (Self, Vec<Item>) {
        let mut stage = Self::new(setup);
        for (request, _, command) in stage.wanted().asks {
            let reply = known(command["method"].as_str().unwrap());
            stage.answer(request, Ok(reply.unwrap_or_else(|| nothing(&command))));
        }
        let items = stage.wanted().items;
        (stage, items)
    }

    /// At a terminal, talking to bob, who is online.
    fn with_bob_online() -> Self {
        let online =
            |method: &str| (method == "list").then(|| Reply::Directory(vec![listed("bob", false)]));
        Self::settled_with(setup(true, Some("bob")), online).0
    }

    /// Types a line that ends the conversation, and has the node list what waits.
    fn leave(&mut self, typed: Typed, waiting: Vec<HistoryItem>) -> Wanted {
        let wanted = self.typed(typed);
        assert_eq!((wanted.methods(), &wanted.ending), (vec!["outbox"], &None));
        self.answer(wanted.asks[0].0, Ok(Reply::Messages(waiting)));
        self.wanted()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new(setup: Setup) -> Self {
        Self {
            conversation: Conversation::new(setup),
            now: Now {
                instant: Instant::now(),
                wall: UnixTime::from_millis(1_700_000_000_000),
            },
        }
    }

    fn input(&mut self, input: Input) {
        self.conversation.handle_input(input, self.now);
    }

    fn event(&mut self, event: Event) -> Wanted {
        self.input(Input::Event(event));
        self.wanted()
    }

    fn line(&mut self, line: &str) -> Wanted {
        self.typed(Typed::Line(line.to_owned()))
    }

    fn typed(&mut self, typed: Typed) -> Wanted {
        self.input(Input::Typed(typed));
        self.wanted()
    }

    fn answer(&mut self, request: RequestId, result: Result<Reply, RequestError>) {
        self.input(Input::Answered { request, result });
    }

    /// Types a line that is one request, and answers it.
    fn exchange(&mut self, line: &str, result: Result<Reply, RequestError>) -> Wanted {
        let request = only(self.line(line).asks).0;
        self.answer(request, result);
        self.wanted()
    }

    fn pass(&mut self, span: Duration) -> Wanted {
        self.now.instant += span;
        self.conversation.handle_timeout(self.now.instant);
        self.wanted()
    }

    fn wanted(&mut self) -> Wanted {
        let mut wanted = Wanted::default();
        loop {
            match self.conversation.poll_output() {
                Output::Ask {
                    request,
                    doing,
                    command,
                } => {
                    let command = serde_json::to_value(command).unwrap();
                    wanted.asks.push((request, doing, command));
                }
                Output::Show(item) => wanted.items.push(item),
                Output::Tell(event) => wanted.events.push(event),
                Output::Met(name) => wanted.met.push(name.to_string()),
                Output::End(ending) => {
                    wanted.ending = Some(ending);
                    return wanted;
                }
                Output::Wait(deadline) => {
                    wanted.deadline = deadline;
                    return wanted;
                }
            }
        }
    }
}

impl Wanted {
    fn methods(&self) -> Vec<&str> {
        let asks = self.asks.iter();
        let methods = asks.map(|(_, _, command)| command["method"].as_str().unwrap());
        methods.collect()
    }

    /// The only request of that method.
    fn request(&self, method: &str) -> RequestId {
        let mut asks = self.asks.iter();
        let ask = asks.find(|(_, _, command)| command["method"] == method);
        ask.unwrap().0
    }
}

/// The person left, with these messages in the outbox and no file on its way.
fn left_with(waiting: Vec<Waiting>) -> Ending {
    let cancelled = Vec::new();
    Ending::Left { waiting, cancelled }
}

fn setup(is_interactive: bool, with: Option<&str>) -> Setup {
    Setup {
        me: Some(name("alice")),
        server: "192.0.2.7:7400".to_owned(),
        with: with.map(name),
        folder: "/files".into(),
        home: Some("/home/alice".into()),
        is_interactive,
        is_at_terminal: is_interactive,
        offline: None,
    }
}

/// What a node answers that knows of nothing.
fn nothing(command: &Value) -> Reply {
    match command["method"].as_str().unwrap() {
        "list" => Reply::Directory(Vec::new()),
        "contacts" => Reply::Contacts(Vec::new()),
        "outbox" | "history" | "unread" => Reply::Messages(Vec::new()),
        "offers" => Reply::Offers(Vec::new()),
        _ => Reply::Done,
    }
}

fn only<T>(mut all: Vec<T>) -> T {
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn id(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

fn transfer_id(number: u8) -> TransferId {
    TransferId::from_bytes([number; 16])
}

fn message(number: u8, from: &str) -> HistoryItem {
    HistoryItem {
        id: id(number),
        with: name(from),
        direction: Direction::Received,
        sent: UnixTime::from_millis(1),
        body: "hello".to_owned().try_into().unwrap(),
        state: MessageState::Delivered,
    }
}

fn offer(number: u8) -> OfferView {
    OfferView {
        transfer: transfer_id(number),
        from: name("carol"),
        name: format!("{number}.txt"),
        size: 5,
        executable: false,
    }
}

fn file(number: usize, name: &str) -> Transfer {
    Transfer {
        number,
        name: name.to_owned(),
        way: Way::To("bob".parse().unwrap()),
    }
}

fn listed(account: &str, is_self: bool) -> Listed {
    Listed {
        account: name(account),
        device: DeviceName::lossy("laptop"),
        fingerprint: String::new(),
        key: KeyState::Known,
        is_verified: false,
        status: Status::Available,
        since: UnixTime::default(),
        endpoints: Vec::new(),
        is_self,
    }
}

fn state_of(number: u8, to: &str, state: MessageState) -> Event {
    Event::MessageState {
        id: id(number),
        to: name(to),
        state,
    }
}

fn transfer(number: u8, state: TransferState) -> Event {
    Event::Transfer {
        transfer: transfer_id(number),
        state,
    }
}

fn moving(done: u64) -> TransferState {
    TransferState::Moving(Moved {
        done,
        total: 100,
        is_behind: false,
    })
}

fn status() -> NodeStatus {
    NodeStatus {
        approval: None,
        has_relay: None,
        account: Some(name("alice")),
        fingerprint: "fp".to_owned(),
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

/// A transfer as the node lists it.
fn of_node(number: u8) -> TransferView {
    TransferView {
        transfer: transfer_id(number),
        direction: Direction::Sent,
        with: name("bob"),
        name: "a".to_owned(),
        state: moving(5),
    }
}

fn failed() -> TransferState {
    TransferState::Failed {
        reason: "gone".to_owned(),
        kind: FailureKind::Broken,
    }
}

fn broken(what: &str) -> RequestError {
    RequestError::Failed(Failure::new(Exit::Profile, what))
}

fn receipts(to: &str, state: MessageState, count: usize) -> Item {
    Item::Receipts(Receipts {
        to: name(to),
        state,
        count,
        last: None,
    })
}

fn waiting(to: &str, count: usize) -> Waiting {
    Waiting {
        to: name(to),
        count,
    }
}

fn waits(to: &str, count: usize, cause: Cause) -> Item {
    Item::Waiting {
        waiting: waiting(to, count),
        cause,
        which: Which::Last,
    }
}

fn absent(account: &str, absence: Absence, waiting: usize) -> Item {
    Item::Absent {
        account: name(account),
        absence,
        waiting,
    }
}

fn presence(account: &str, is_online: bool) -> Item {
    Item::Presence {
        account: name(account),
        is_online,
    }
}

/// A message that alice sent.
fn sent(number: u8, to: &str, state: MessageState) -> HistoryItem {
    HistoryItem {
        direction: Direction::Sent,
        state,
        ..message(number, to)
    }
}

fn came(account: &str) -> Event {
    Event::Presence(PresenceView::Online(listed(account, false)))
}

fn left(account: &str) -> Event {
    Event::Presence(PresenceView::Offline {
        account: name(account),
        fingerprint: String::new(),
    })
}

fn objection(objection: Objection) -> Vec<Item> {
    vec![Item::Objection(objection)]
}

// ---- beginning -----------------------------------------------------------------------------

#[test]
fn it_looks_around_greets_and_asks_for_what_came_before() {
    let mut stage = Stage::new(setup(true, Some("bob")));
    let wanted = stage.wanted();
    let methods = [
        "history", "outbox", "contacts", "watch", "list", "unread", "offers",
    ];
    assert_eq!(wanted.methods(), methods);
    assert_eq!(wanted.met, ["bob"]);
    let hello = Item::Hello {
        me: Some(name("alice")),
        with: Some(name("bob")),
    };
    assert_eq!(wanted.items, [hello]);
    assert_eq!(wanted.deadline, None);

    let devices = vec![
        listed("alice", true),
        listed("bob", false),
        listed("carol", false),
    ];
    let erin = vec![name("erin")];
    for (method, result) in [
        ("outbox", Err(broken("no history"))),
        ("contacts", Ok(Reply::Contacts(erin))),
        ("list", Ok(Reply::Directory(devices))),
        ("watch", Err(broken("no server"))),
        ("history", Err(broken("no history"))),
        ("unread", Ok(Reply::Messages(vec![message(1, "dave")]))),
        ("offers", Ok(Reply::Offers(vec![offer(1)]))),
    ] {
        stage.answer(wanted.request(method), result);
    }
    let wanted = stage.wanted();
    assert_eq!(wanted.met, ["erin", "carol", "dave"]);
    let expected = [
        Item::Message(message(1, "dave")),
        Item::Offer {
            number: 1,
            offer: offer(1),
        },
    ];
    assert_eq!(wanted.items, expected);
}

#[test]
fn a_program_is_not_greeted() {
    assert_eq!(Stage::new(setup(false, None)).wanted().items, []);
}

#[test]
fn it_begins_without_a_server() {
    let mut stage = Stage::new(Setup {
        offline: Some("no route".to_owned()),
        ..setup(false, None)
    });
    let wanted = stage.wanted();
    let lost = ConnectionChange::Lost {
        reason: "no route".to_owned(),
        is_retried: true,
    };
    assert_eq!(wanted.items, [Item::Connection(lost)]);
    stage.answer(wanted.request("list"), Err(broken("no server")));
    assert_eq!(stage.wanted().items, [], "what is not needed is not told");
    let wanted = stage.event(Event::Connection(ConnectionState::Online));
    assert_eq!(wanted.items, [Item::Connection(ConnectionChange::Restored)]);
    assert!(wanted.methods().contains(&"list"), "it is asked again");
}

#[test]
fn it_ends_where_it_cannot_learn_what_came_before() {
    for method in ["unread", "offers"] {
        let mut stage = Stage::new(setup(true, None));
        let request = stage.wanted().request(method);
        stage.answer(request, Err(broken("no history")));
        let failure = Failure::new(Exit::Profile, "no history");
        assert_eq!(stage.wanted().ending, Some(Ending::Failed(failure)));
    }
}

#[test]
fn another_node_is_asked_everything_anew() {
    let mut stage = Stage::with_bob();
    stage.input(Input::Revived { is_own: true });
    let wanted = stage.wanted();
    let methods = ["outbox", "contacts", "watch", "list", "unread", "offers"];
    assert_eq!(wanted.methods(), methods);
    assert_eq!(wanted.items, [Item::TookOver]);
    stage.input(Input::Revived { is_own: false });
    assert_eq!(stage.wanted().items, []);
}
