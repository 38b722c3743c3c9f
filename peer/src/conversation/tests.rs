//! The engine alone: what comes in, and what is wanted for it.

use common::id::DeviceName;
use common::limits::MESSAGE_LEN_MAX;
use common::time::UnixTime;
use common::wire::rendezvous::{FailedLogins, Status};
use serde_json::{Value, json};

use super::connection::ConnectionChange;
use super::entry::Mistake;
use super::*;
use crate::node::command::{EnrolmentView, KeyState, Listed, NodeStatus};

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

fn setup(is_interactive: bool, with: Option<&str>) -> Setup {
    Setup {
        me: Some(name("alice")),
        with: with.map(name),
        folder: "/files".into(),
        home: Some("/home/alice".into()),
        is_interactive,
        is_owner: true,
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

fn listed(account: &str, is_self: bool) -> Listed {
    Listed {
        account: name(account),
        device: DeviceName::lossy("laptop"),
        fingerprint: String::new(),
        key: KeyState::Known,
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
    TransferState::Moving { done, total: 100 }
}

fn status() -> NodeStatus {
    NodeStatus {
        account: Some(name("alice")),
        fingerprint: "fp".to_owned(),
        connection: ConnectionState::Online,
        endpoints: Vec::new(),
        linked: Vec::new(),
        outbox: 0,
    }
}

fn failed() -> TransferState {
    TransferState::Failed {
        reason: "gone".to_owned(),
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

// ---- messages ------------------------------------------------------------------------------

#[test]
fn a_text_goes_to_whom_one_talks_to() {
    let mut stage = Stage::with_bob();
    let (_, doing, command) = only(stage.line("see you").asks);
    assert_eq!(doing, "send to bob");
    let params = json!({"to": ["bob"], "body": "see you", "sent": 1_700_000_000_000_u64});
    assert_eq!(command, json!({"method": "send", "params": params}));
}

#[test]
fn a_name_in_front_chooses_whom_one_talks_to_unless_one_does() {
    let mut stage = Stage::settled(setup(true, None));
    assert_eq!(stage.line("hello").items, objection(Objection::NoRecipient));
    assert_eq!(
        stage.line("bob,carol: hi").asks[0].2["params"]["to"],
        json!(["bob", "carol"])
    );
    assert_eq!(stage.conversation.prompt().unwrap().with, None);
    assert_eq!(
        stage.line("dave: hi").asks[0].2["params"]["to"],
        json!(["dave"])
    );
    assert_eq!(
        stage.conversation.prompt().unwrap().with,
        Some(&name("dave"))
    );
    assert_eq!(
        stage.line("hello").asks[0].2["params"]["to"],
        json!(["dave"])
    );
    stage.line("/to carol");
    stage.line("dave: hi");
    assert_eq!(
        stage.conversation.prompt().unwrap().with,
        Some(&name("carol"))
    );
}

#[test]
fn a_name_given_twice_gets_one_message() {
    let mut stage = Stage::settled(setup(true, None));
    let ask = only(stage.line("zed,bob,zed: hi").asks);
    assert_eq!(ask.2["params"]["to"], json!(["zed", "bob"]));
    stage.answer(ask.0, Ok(Reply::Queued(vec![id(1), id(2)])));
    assert_eq!(stage.wanted().met, ["zed", "bob"]);
}

#[test]
fn a_line_that_may_be_for_a_stranger_is_sent_the_second_time() {
    let mut stage = Stage::with_bob();
    let line = "Remember: call mum";
    let ambiguous = Objection::Ambiguous {
        name: name("remember"),
        with: Some(name("bob")),
    };
    assert_eq!(stage.line(line).items, objection(ambiguous.clone()));
    stage.line("/list");
    assert_eq!(
        stage.line(line).items,
        objection(ambiguous),
        "only the very next line counts"
    );
    assert_eq!(stage.line(line).asks[0].2["params"]["body"], line);
    let mut program = Stage::settled(setup(false, Some("bob")));
    assert_eq!(program.line(line).asks[0].2["params"]["body"], line);
}

#[test]
fn whoever_was_met_is_no_stranger() {
    let mut stage = Stage::with_bob();
    stage.event(Event::Message(message(1, "carol")));
    stage.event(Event::Presence(PresenceView::Online(listed("dave", false))));
    for who in ["carol", "dave"] {
        let wanted = stage.line(&format!("{who}: hi"));
        assert_eq!(wanted.asks[0].2["params"]["to"], json!([who]));
    }
}

#[test]
fn a_text_that_is_too_long_is_not_sent() {
    let mut stage = Stage::with_bob();
    let wanted = stage.line(&"x".repeat(MESSAGE_LEN_MAX + 1));
    assert!(wanted.asks.is_empty());
    let [Item::Problem(failure)] = wanted.items.as_slice() else {
        panic!("{:?}", wanted.items);
    };
    assert_eq!(
        (failure.exit(), failure.what()),
        (Exit::Usage, "could not send to bob")
    );
    assert!(failure.why().is_some() && failure.what_next().is_some());
}

#[test]
fn what_the_node_refuses_or_does_not_understand_is_told() {
    let mut stage = Stage::with_bob();
    let refused = stage.exchange("hi", Err(broken("could not send to bob")));
    let failure = Failure::new(Exit::Profile, "could not send to bob");
    assert_eq!(refused.items, [Item::Problem(failure)]);
    for reply in [
        Reply::Done,
        Reply::Queued(Vec::new()),
        Reply::Queued(vec![id(1), id(2)]),
    ] {
        let strange = stage.exchange("hi", Ok(reply));
        let failure = Failure::unexpected_reply("send to bob");
        assert_eq!(strange.items, [Item::Problem(failure)]);
    }
    stage.answer(RequestId(u64::MAX), Ok(Reply::Done));
    assert_eq!(stage.wanted().items, [], "an answer to nothing");
}

#[test]
fn receipts_that_follow_each_other_are_told_once() {
    let mut stage = Stage::with_bob();
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    stage.exchange("two", Ok(Reply::Queued(vec![id(2)])));
    assert_eq!(
        stage.event(state_of(1, "bob", MessageState::Sent)).events,
        []
    );
    let delivered = state_of(1, "bob", MessageState::Delivered);
    let wanted = stage.event(delivered.clone());
    assert_eq!((wanted.items, wanted.events), (Vec::new(), vec![delivered]));
    assert!(wanted.deadline.is_some());
    stage.event(state_of(1, "bob", MessageState::Read));
    stage.event(state_of(2, "bob", MessageState::Read));
    assert_eq!(stage.pass(Duration::from_millis(399)).items, []);
    let wanted = stage.pass(Duration::from_millis(1));
    assert_eq!(wanted.items, [receipts("bob", MessageState::Read, 2)]);
    assert_eq!(wanted.deadline, None);
}

#[test]
fn a_message_that_is_read_later_is_told_again() {
    let mut stage = Stage::with_bob();
    let pause = Duration::from_secs(1);
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    for state in [MessageState::Delivered, MessageState::Read] {
        stage.event(state_of(1, "bob", state));
        assert_eq!(stage.pass(pause).items, [receipts("bob", state, 1)]);
    }
}

#[test]
fn receipts_of_other_programs_are_not_told() {
    let mut stage = Stage::with_bob();
    let wanted = stage.event(state_of(9, "bob", MessageState::Read));
    assert_eq!((wanted.events, wanted.deadline), (Vec::new(), None));
    assert_eq!(stage.pass(Duration::from_secs(1)).items, []);
}

#[test]
fn a_message_to_several_says_of_each_how_far_it_is() {
    let mut stage = Stage::settled(setup(true, None));
    stage.event(came("bob"));
    stage.event(came("dave"));
    stage.event(left("dave"));
    let ids = vec![id(1), id(2), id(3)];
    stage.exchange("bob,carol,dave: hi", Ok(Reply::Queued(ids)));
    stage.event(state_of(1, "bob", MessageState::Delivered));
    let expected = [
        receipts("bob", MessageState::Delivered, 1),
        waits("carol", 1, Cause::Absent(Absence::Unheard)),
        waits("dave", 1, Cause::Absent(Absence::Offline)),
    ];
    let wanted = stage.pass(Duration::from_millis(400));
    assert_eq!(wanted.items, expected);
    assert_eq!(wanted.deadline, None, "it is told once");
    assert_eq!(stage.event(came("carol")).items, [presence("carol", true)]);
    stage.event(state_of(2, "carol", MessageState::Delivered));
    let wanted = stage.pass(Duration::from_millis(400));
    assert_eq!(
        wanted.items,
        [receipts("carol", MessageState::Delivered, 1)]
    );
    assert_eq!(
        stage.event(left("carol")).items,
        [],
        "nothing waits for her"
    );
}

#[test]
fn what_waits_for_the_same_person_is_told_together() {
    let mut stage = Stage::with_bob();
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    assert_eq!(stage.pass(Duration::from_millis(399)).items, []);
    stage.exchange("two", Ok(Reply::Queued(vec![id(2)])));
    stage.pass(Duration::from_millis(1));
    let told = stage.pass(Duration::from_millis(399)).items;
    assert_eq!(told, [waits("bob", 1, Cause::Absent(Absence::Unheard))]);

    let mut stage = Stage::with_bob();
    for number in [1, 2] {
        stage.exchange("hi", Ok(Reply::Queued(vec![id(number)])));
    }
    let told = stage.pass(Duration::from_millis(400)).items;
    assert_eq!(told, [waits("bob", 2, Cause::Absent(Absence::Unheard))]);
}

#[test]
fn a_message_that_does_not_arrive_though_its_recipient_is_there_is_told() {
    for (state, cause) in [
        (None, Cause::NotReached),
        (Some(MessageState::Sent), Cause::NoReceipt),
    ] {
        let mut stage = Stage::with_bob_online();
        stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
        if let Some(state) = state {
            stage.event(state_of(1, "bob", state));
        }
        assert_eq!(stage.pass(Duration::from_millis(4_999)).items, []);
        let wanted = stage.pass(Duration::from_millis(1));
        assert_eq!(wanted.items, [waits("bob", 1, cause)]);
        assert_eq!(wanted.deadline, None);
        // It is told again when he comes back and is not reached either.
        stage.event(left("bob"));
        stage.event(came("bob"));
        let told = stage.pass(Duration::from_secs(5)).items;
        assert_eq!(told, [waits("bob", 1, cause)]);
    }
}

#[test]
fn what_waits_is_told_as_soon_as_it_is_known_who_is_online() {
    let mut stage = Stage::new(setup(true, Some("bob")));
    let list = stage.wanted().request("list");
    stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
    assert_eq!(stage.pass(Duration::from_millis(400)).items, []);
    stage.answer(list, Ok(Reply::Directory(Vec::new())));
    let told = stage.wanted().items;
    assert_eq!(told, [absent("bob", Absence::Unheard, 1)]);
    let told = stage.pass(Duration::from_millis(400)).items;
    assert_eq!(told, [waits("bob", 1, Cause::Absent(Absence::Unheard))]);
}

#[test]
fn a_note_to_oneself_waits_for_nobody() {
    let mut stage = Stage::with_bob_online();
    stage.line("/to alice");
    stage.exchange("remember", Ok(Reply::Queued(vec![id(1)])));
    stage.event(state_of(1, "alice", MessageState::Delivered));
    let told = stage.pass(Duration::from_secs(5)).items;
    assert_eq!(told, [receipts("alice", MessageState::Delivered, 1)]);
}

#[test]
fn what_an_earlier_run_sent_is_shown_with_how_far_it_is_and_followed() {
    let mut unread = message(4, "bob");
    unread.state = MessageState::Delivered;
    let mut read = message(5, "bob");
    read.state = MessageState::Read;
    let shown = vec![
        sent(1, "bob", MessageState::Read),
        sent(2, "bob", MessageState::Delivered),
        sent(3, "bob", MessageState::Queued),
        read,
    ];
    let latest = [shown.clone(), vec![unread.clone()]].concat();
    let (mut stage, items) = Stage::settled_with(setup(true, Some("bob")), |method| match method {
        "outbox" => Some(Reply::Messages(vec![sent(3, "bob", MessageState::Queued)])),
        "history" => Some(Reply::Messages(latest.clone())),
        "unread" => Some(Reply::Messages(vec![unread.clone()])),
        _ => None,
    });
    let expected = [
        Item::History(shown),
        absent("bob", Absence::Unheard, 1),
        Item::Message(unread),
    ];
    assert_eq!(items, expected);
    stage.event(state_of(2, "bob", MessageState::Read));
    stage.event(state_of(3, "bob", MessageState::Delivered));
    let told = stage.pass(Duration::from_secs(1)).items;
    let expected = [MessageState::Delivered, MessageState::Read];
    assert_eq!(told, expected.map(|state| receipts("bob", state, 1)));
}

#[test]
fn what_history_shows_is_followed() {
    let mut stage = Stage::with_bob();
    let items = vec![sent(7, "bob", MessageState::Queued)];
    stage.exchange("/history", Ok(Reply::Messages(items)));
    assert_eq!(
        stage.pass(Duration::from_secs(1)).items,
        [],
        "it says so itself"
    );
    stage.event(state_of(7, "bob", MessageState::Delivered));
    let told = stage.pass(Duration::from_secs(1)).items;
    assert_eq!(told, [receipts("bob", MessageState::Delivered, 1)]);
}

#[test]
fn the_end_of_piped_input_does_not_wait_for_earlier_messages() {
    let (mut stage, _) = Stage::settled_with(setup(false, Some("bob")), |method| {
        let items = vec![sent(1, "bob", MessageState::Queued)];
        (method == "outbox").then_some(Reply::Messages(items))
    });
    let ending = stage.typed(Typed::End).ending;
    assert_eq!(ending, Some(Ending::Left(Vec::new())));
}

#[test]
fn a_message_is_shown_once_and_marked_when_it_was_seen() {
    let mut stage = Stage::with_bob();
    let wanted = stage.event(Event::Message(message(1, "carol")));
    assert_eq!(wanted.items, [Item::Message(message(1, "carol"))]);
    assert_eq!(wanted.events, [Event::Message(message(1, "carol"))]);
    assert!(wanted.asks.is_empty());
    assert_eq!(stage.conversation.prompt().unwrap().unread, 1);
    assert_eq!(stage.event(Event::Message(message(1, "carol"))).items, []);
    for _ in 0..2 {
        stage.input(Input::Seen(id(1)));
    }
    let ask = only(stage.wanted().asks);
    assert_eq!(ask.2["method"], "mark_read");
    assert_eq!(ask.2["params"]["ids"].as_array().unwrap().len(), 1);
    assert_eq!(stage.conversation.prompt().unwrap().unread, 0);
    stage.answer(ask.0, Err(broken("no history")));
    assert_eq!(stage.wanted().items, [], "it is only shown again next time");
}

#[test]
fn many_messages_are_marked_together() {
    let mut stage = Stage::with_bob();
    let number = |index: usize| MessageId::from_bytes((index as u128).to_be_bytes());
    for index in 0..=MARK_READ_MAX {
        let mut message = message(0, "bob");
        message.id = number(index);
        stage.input(Input::Event(Event::Message(message)));
        stage.input(Input::Seen(number(index)));
    }
    let asks = stage.wanted().asks;
    let counts = asks
        .iter()
        .map(|ask| ask.2["params"]["ids"].as_array().unwrap().len());
    assert_eq!(counts.collect::<Vec<_>>(), [MARK_READ_MAX, 1]);
}

#[test]
fn what_was_sent_from_elsewhere_is_not_shown() {
    let mut stage = Stage::with_bob();
    let mut sent = message(1, "bob");
    sent.direction = Direction::Sent;
    let wanted = stage.event(Event::Message(sent));
    assert_eq!((wanted.items, wanted.events), (Vec::new(), Vec::new()));
}

#[test]
fn earlier_messages_are_those_of_this_conversation() {
    let mut stage = Stage::with_bob();
    let (request, _, command) = only(stage.line("/history 5").asks);
    assert_eq!(command["params"], json!({"with": "bob", "limit": 5}));
    let items = vec![message(1, "bob")];
    stage.answer(request, Ok(Reply::Messages(items.clone())));
    let wanted = stage.wanted();
    assert_eq!(wanted.items, [Item::History(items)]);
    assert_eq!(wanted.events, [], "they are an answer, not news");
}

// ---- people and connection -----------------------------------------------------------------

#[test]
fn who_is_online_is_listed() {
    let mut stage = Stage::with_bob();
    let devices = vec![listed("carol", false)];
    let wanted = stage.exchange("/list", Ok(Reply::Directory(devices.clone())));
    assert_eq!(wanted.items, [Item::Directory(devices)]);
}

#[test]
fn only_whom_one_talks_to_comes_and_leaves() {
    let mut stage = Stage::with_bob();
    assert_eq!(stage.event(came("bob")).items, [presence("bob", true)]);
    assert_eq!(stage.event(came("bob")).items, [], "no news");
    assert_eq!(stage.event(left("bob")).items, [presence("bob", false)]);
    let own = Event::Presence(PresenceView::Online(listed("alice", true)));
    for event in [came("carol"), left("carol"), own] {
        assert_eq!(stage.event(event).items, []);
    }
}

#[test]
fn turning_to_somebody_who_is_not_there_is_told_at_once() {
    let (mut stage, items) = Stage::settled_with(setup(true, Some("bob")), |method| match method {
        "outbox" => Some(Reply::Messages(vec![
            sent(1, "bob", MessageState::Queued),
            sent(2, "dave", MessageState::Queued),
            sent(3, "bob", MessageState::Sent),
        ])),
        "contacts" => Some(Reply::Contacts(vec![name("bob")])),
        "list" => Some(Reply::Directory(vec![
            listed("alice", true),
            listed("erin", false),
        ])),
        _ => None,
    });
    assert_eq!(items, [absent("bob", Absence::Offline, 2)]);
    for (to, items) in [
        ("carol", vec![absent("carol", Absence::Unheard, 0)]),
        ("dave", vec![absent("dave", Absence::Unheard, 1)]),
        ("erin", vec![]),
        ("alice", vec![]),
    ] {
        assert_eq!(stage.line(&format!("/to {to}")).items, items);
    }
    stage.event(left("erin"));
    let wanted = stage.line("/to erin");
    assert_eq!(wanted.items, [absent("erin", Absence::Offline, 0)]);
}

#[test]
fn without_a_server_nobody_is_called_absent_before_it_is_back() {
    let mut stage = Stage::with_bob_online();
    stage.event(Event::Connection(ConnectionState::Offline {
        reason: "gone".to_owned(),
        is_other_server: false,
        retry_in_s: Some(1),
    }));
    assert_eq!(stage.line("/to carol").items, []);
    let request = only(stage.line("hi").asks).0;
    stage.answer(request, Ok(Reply::Queued(vec![id(1)])));
    stage.wanted();
    let told = stage.pass(Duration::from_millis(400)).items;
    assert_eq!(told, [waits("carol", 1, Cause::NoServer)]);
    stage.line("/to bob");
    let wanted = stage.event(Event::Connection(ConnectionState::Online));
    stage.answer(wanted.request("list"), Ok(Reply::Directory(Vec::new())));
    let wanted = stage.wanted();
    assert_eq!(wanted.items, [absent("bob", Absence::Offline, 0)]);
    let later = wanted.deadline.unwrap() - stage.now.instant;
    assert_eq!(stage.pass(later).items, [presence("bob", false)]);
}

#[test]
fn a_lost_connection_is_told_once_and_so_is_its_return() {
    let mut stage = Stage::with_bob();
    let offline = ConnectionState::Offline {
        reason: "gone".to_owned(),
        is_other_server: false,
        retry_in_s: None,
    };
    let lost = ConnectionChange::Lost {
        reason: "gone".to_owned(),
        is_retried: false,
    };
    for (state, change) in [
        (ConnectionState::Online, None),
        (offline.clone(), Some(lost)),
        (offline, None),
        (ConnectionState::Connecting, None),
        (ConnectionState::Online, Some(ConnectionChange::Restored)),
    ] {
        let wanted = stage.event(Event::Connection(state.clone()));
        let told = change.is_some().then_some(Event::Connection(state));
        assert_eq!(wanted.items, Vec::from_iter(change.map(Item::Connection)));
        assert_eq!(wanted.events, Vec::from_iter(told));
    }
}

#[test]
fn what_an_owner_must_know_is_shown() {
    let mut stage = Stage::with_bob();
    let failed = FailedLogins {
        count: 3,
        last: UnixTime::default(),
        blocked_for_s: 0,
    };
    let wanted = stage.event(Event::FailedLogins(failed.clone()));
    assert_eq!(wanted.items, [Item::FailedLogins(failed.clone())]);
    assert_eq!(wanted.events, [Event::FailedLogins(failed)]);
    let enrolment = EnrolmentView {
        device: DeviceName::lossy("laptop"),
        fingerprint: "SHA256:x".to_owned(),
        at: UnixTime::default(),
    };
    let wanted = stage.event(Event::Enrolled(enrolment.clone()));
    assert_eq!(wanted.items, [Item::Enrolled(enrolment.clone())]);
    assert_eq!(wanted.events, [Event::Enrolled(enrolment)]);
    for known in [0, 2] {
        let (account, fingerprint) = (name("bob"), "SHA256:x".to_owned());
        let event = Event::NewKey {
            account: account.clone(),
            fingerprint: fingerprint.clone(),
            known,
        };
        let wanted = stage.event(event.clone());
        assert_eq!(wanted.events, [event]);
        let item = Item::NewKey {
            account,
            fingerprint,
            known,
        };
        assert_eq!(wanted.items, [item]);
    }
}

#[test]
fn people_are_remembered_up_to_a_bound() {
    let mut stage = Stage::new(setup(true, Some("bob")));
    let list = stage.wanted().request("list");
    let devices = (0..KNOWN_NAMES_MAX).map(|number| listed(&format!("user{number}"), false));
    stage.answer(list, Ok(Reply::Directory(devices.collect())));
    let met = stage.wanted().met;
    assert_eq!(met.len(), KNOWN_NAMES_MAX - 1, "bob is one of them");
    let last = format!("user{}: hi", KNOWN_NAMES_MAX - 1);
    assert!(matches!(
        stage.line(&last).items.as_slice(),
        [Item::Objection(Objection::Ambiguous { .. })]
    ));
}

// ---- files ---------------------------------------------------------------------------------

#[test]
fn offers_have_numbers_and_are_told_once() {
    let mut stage = Stage::with_bob();
    for number in [1, 2] {
        let wanted = stage.event(Event::Offer(offer(number)));
        let item = Item::Offer {
            number: number.into(),
            offer: offer(number),
        };
        assert_eq!(wanted.items, [item]);
        assert_eq!(wanted.events, [Event::Offer(offer(number))]);
    }
    assert_eq!(stage.event(Event::Offer(offer(1))).items, []);
}

#[test]
fn a_file_with_an_odd_name_is_taken_under_another() {
    let mut stage = Stage::with_bob();
    let hidden = OfferView {
        name: ".hidden".to_owned(),
        ..offer(1)
    };
    stage.event(Event::Offer(hidden));
    // The offer stays open until it is clear what the file will be called.
    let substitute = FileName::parse("_hidden").ok();
    for line in ["/accept", "/accept 1"] {
        let number = 1;
        let substitute = substitute.clone();
        let odd = objection(Objection::OddName { number, substitute });
        assert_eq!(stage.line(line).items, odd);
    }
    let (request, _, command) = only(stage.line("/accept 1 as seen.txt").asks);
    let params = json!({"transfer": transfer_id(1), "folder": "/files", "name": "seen.txt"});
    assert_eq!(command["params"], params);
    stage.answer(request, Ok(Reply::Done));
    let accepted = Item::Accepted {
        name: "seen.txt".to_owned(),
        folder: "/files".into(),
    };
    assert_eq!(stage.wanted().items, [accepted]);

    // What has no substitute needs a name from the person; what is not odd may get one, too.
    let hostile = OfferView {
        name: "../up".to_owned(),
        ..offer(2)
    };
    stage.event(Event::Offer(hostile));
    let odd = Objection::OddName {
        number: 2,
        substitute: None,
    };
    assert_eq!(stage.line("/accept 2").items, objection(odd));
    let (_, _, command) = only(stage.line("/accept 2 as up").asks);
    assert_eq!(command["params"]["name"], "up");
    stage.event(Event::Offer(offer(3)));
    let (_, _, command) = only(stage.line("/accept as plain").asks);
    assert_eq!(command["params"]["name"], "plain");
}

#[test]
fn an_offer_is_accepted_or_declined_once() {
    let mut stage = Stage::with_bob();
    assert_eq!(
        stage.line("/accept").items,
        objection(Objection::NoSuchOffer)
    );
    for number in [1, 2, 3] {
        stage.event(Event::Offer(offer(number)));
    }
    let (request, _, command) = only(stage.line("/accept").asks);
    let params = json!({"transfer": transfer_id(3), "folder": "/files"});
    assert_eq!(command["params"], params, "the latest");
    stage.answer(request, Ok(Reply::Done));
    let accepted = Item::Accepted {
        name: "3.txt".to_owned(),
        folder: "/files".into(),
    };
    assert_eq!(stage.wanted().items, [accepted]);

    let (request, _, command) = only(stage.line("/decline 1").asks);
    assert_eq!(command["params"]["folder"], Value::Null);
    stage.answer(request, Ok(Reply::Done));
    let declined = Item::Declined {
        name: "1.txt".to_owned(),
    };
    assert_eq!(stage.wanted().items, [declined]);
    for line in ["/accept 1", "/accept 3", "/decline 4"] {
        assert_eq!(stage.line(line).items, objection(Objection::NoSuchOffer));
    }
}

#[test]
fn an_offer_that_cannot_be_answered_stays_open_unless_it_has_ended() {
    let mut stage = Stage::with_bob();
    stage.event(Event::Offer(offer(1)));
    let wanted = stage.exchange("/accept 1", Err(broken("could not answer the offer")));
    let failure = Failure::new(Exit::Profile, "could not answer the offer");
    assert_eq!(wanted.items, [Item::Problem(failure)]);
    let wanted = stage.exchange("/accept 1", Err(RequestError::NoSuchTransfer));
    assert_eq!(wanted.items, objection(Objection::OfferEnded));
    assert_eq!(
        stage.line("/accept 1").items,
        objection(Objection::NoSuchOffer)
    );
}

#[test]
fn an_offer_that_ends_unanswered_is_told() {
    let mut stage = Stage::with_bob();
    stage.event(Event::Offer(offer(1)));
    let wanted = stage.event(transfer(1, failed()));
    let ended = Item::OfferEnded {
        number: 1,
        name: "1.txt".to_owned(),
    };
    assert_eq!((wanted.items, wanted.events), (vec![ended], Vec::new()));
    assert_eq!(
        stage.line("/accept").items,
        objection(Objection::NoSuchOffer)
    );
}

#[test]
fn a_file_is_offered_and_followed_to_its_end() {
    let mut stage = Stage::with_bob();
    let (request, doing, command) = only(stage.line("/send-file carol ~/a.txt").asks);
    assert_eq!(doing, "send a.txt to carol");
    assert_eq!(
        command["params"],
        json!({"to": "carol", "path": "/home/alice/a.txt"})
    );
    stage.answer(request, Ok(Reply::Offered(transfer_id(1))));
    let wanted = stage.wanted();
    let file = Transfer {
        number: 1,
        name: "a.txt".to_owned(),
        way: Way::To(name("carol")),
    };
    assert_eq!(
        (wanted.items, wanted.met),
        (vec![Item::Offered(file.clone())], vec!["carol".to_owned()])
    );

    let shown = |state| Item::Transfer {
        transfer: file.clone(),
        state,
    };
    let second = Duration::from_secs(1);
    for (state, is_shown) in [
        (TransferState::Waiting, false),
        (moving(1), false),
        (moving(2), false),
        (moving(3), false),
        (moving(4), true),
        (moving(5), false),
        (failed(), true),
    ] {
        stage.pass(second);
        let wanted = stage.event(transfer(1, state.clone()));
        assert_eq!(
            wanted.events,
            [transfer(1, state.clone())],
            "programs get every step"
        );
        let item = is_shown.then(|| shown(state));
        assert_eq!(wanted.items, Vec::from_iter(item));
    }
    assert_eq!(
        stage.event(transfer(1, failed())).events,
        [],
        "it has ended"
    );
}

/// Talking to bob, with this many files on their way to him: a, b and so on.
fn sending(count: u8) -> Stage {
    let mut stage = Stage::with_bob();
    for (number, name) in (1..=count).zip('a'..) {
        let line = format!("/send-file bob {name}");
        stage.exchange(&line, Ok(Reply::Offered(transfer_id(number))));
    }
    stage
}

fn file(number: usize, name: &str) -> Transfer {
    Transfer {
        number,
        name: name.to_owned(),
        way: Way::To("bob".parse().unwrap()),
    }
}

#[test]
fn a_transfer_is_cancelled_by_its_number_or_as_the_only_one() {
    for line in ["/cancel", "/cancel 1"] {
        let mut stage = sending(1);
        let (request, doing, command) = only(stage.line(line).asks);
        assert_eq!(doing, "cancel a");
        assert_eq!(command["method"], "cancel");
        stage.answer(request, Ok(Reply::Done));
        let wanted = stage.event(transfer(1, failed()));
        assert_eq!(wanted.items, [Item::Cancelled(file(1, "a"))]);
        assert_eq!(stage.line(line).items, objection(Objection::NoSuchTransfer));
    }
    let mut stage = sending(2);
    let which = Objection::WhichTransfer(vec![file(1, "a"), file(2, "b")]);
    assert_eq!(stage.line("/cancel").items, objection(which));
    assert_eq!(
        stage.line("/cancel 3").items,
        objection(Objection::NoSuchTransfer)
    );
    stage.event(Event::Offer(offer(9)));
    assert_eq!(
        stage.line("/cancel 3").items,
        objection(Objection::NotAccepted { number: 3 })
    );
    // It ends by itself meanwhile.
    let gone = Err(RequestError::NoSuchTransfer);
    assert_eq!(stage.exchange("/cancel 2", gone).items, []);
}

#[test]
fn how_far_files_are_can_be_looked_at() {
    let mut stage = sending(2);
    let underway = |stage: &Stage| {
        let underway = stage.conversation.underway().into_iter();
        Vec::from_iter(underway.map(|(transfer, stage)| (transfer.clone(), stage)))
    };
    let offered = transfers::Stage::Offered;
    assert_eq!(
        underway(&stage),
        [(file(1, "a"), offered), (file(2, "b"), offered)]
    );
    for done in 0..=5 {
        stage.event(transfer(2, moving(done)));
        stage.pass(Duration::from_secs(1));
    }
    let at = |done, rate| transfers::Stage::Moving {
        done,
        total: 100,
        rate: Some(rate),
    };
    assert_eq!(underway(&stage)[1], (file(2, "b"), at(5, 1)));
    let deadline = stage.wanted().deadline.unwrap();
    stage.pass(deadline - stage.now.instant);
    assert_eq!(underway(&stage)[1], (file(2, "b"), at(5, 0)));
    let node = status();
    let shown = stage.exchange("/status", Ok(Reply::Status(node.clone())));
    let expected = Item::Status {
        node,
        offers: Vec::new(),
        underway: vec![(file(1, "a"), offered), (file(2, "b"), at(5, 0))],
    };
    assert_eq!(shown.items, [expected]);
}

#[test]
fn what_waits_is_listed() {
    let mut stage = Stage::with_bob();
    let waits = vec![sent(1, "carol", MessageState::Queued)];
    let shown = stage.exchange("/outbox", Ok(Reply::Messages(waits.clone())));
    assert_eq!(shown.items, [Item::Outbox(waits)]);
}

#[test]
fn whoever_leaves_while_a_file_moves_is_warned_once() {
    let quit = || Typed::Line("/quit".to_owned());
    let warning = || {
        let offered = transfers::Stage::Offered;
        objection(Objection::UnderWay(vec![(file(1, "a"), offered)]))
    };
    for again in [quit(), Typed::End, Typed::Interrupt] {
        for once in [quit(), Typed::End] {
            let mut stage = sending(1);
            assert_eq!(stage.typed(once.clone()).items, warning());
            stage.line("hi");
            assert_eq!(stage.typed(once).items, warning(), "anything between");
            let left = stage.leave(again.clone(), Vec::new());
            assert_eq!(left.ending, Some(Ending::Left(Vec::new())));
        }
    }
    let mut stage = sending(1);
    stage.typed(Typed::Interrupt);
    assert_eq!(stage.typed(Typed::Interrupt).items, warning());
    stage.leave(Typed::Interrupt, Vec::new());

    // Another program carries it on.
    let mut stage = sending(1);
    stage.conversation.is_owner = false;
    stage.leave(quit(), Vec::new());
}

#[test]
fn files_end_with_the_node_that_carries_them() {
    let mut stage = sending(1);
    stage.event(Event::Offer(offer(9)));
    stage.input(Input::Revived { is_own: false });
    let wanted = stage.wanted();
    let [
        Item::Transfer { transfer, state },
        Item::OfferEnded { number: 2, .. },
    ] = wanted.items.as_slice()
    else {
        panic!("{:?}", wanted.items);
    };
    assert_eq!(transfer, &file(1, "a"));
    assert!(matches!(state, TransferState::Failed { .. }));
    assert!(matches!(
        wanted.events.as_slice(),
        [Event::Transfer {
            state: TransferState::Failed { .. },
            ..
        }]
    ));
    assert!(stage.conversation.underway().is_empty());
    stage.leave(Typed::End, Vec::new());
}

#[test]
fn transfers_of_other_programs_are_not_told() {
    let mut stage = Stage::with_bob();
    let wanted = stage.event(transfer(7, moving(1)));
    assert_eq!((wanted.items, wanted.events), (Vec::new(), Vec::new()));
}

// ---- the line and the end ------------------------------------------------------------------

#[test]
fn mistakes_and_help_are_shown() {
    let mut stage = Stage::with_bob();
    assert_eq!(stage.line("/help").items, [Item::Help]);
    let mistake = Mistake::Unknown("nonsense".to_owned());
    assert_eq!(
        stage.line("/nonsense").items,
        objection(Objection::Mistake(mistake))
    );
    assert_eq!(stage.line("  ").items, []);
}

#[test]
fn whoever_leaves_is_told_what_waits() {
    for typed in [
        Typed::Line("/quit".to_owned()),
        Typed::Line("quit".to_owned()),
        Typed::End,
    ] {
        let mut stage = Stage::with_bob();
        stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
        let outbox = [(1, "bob"), (2, "carol"), (3, "bob")];
        let outbox = outbox.map(|(number, to)| sent(number, to, MessageState::Queued));
        let left = stage.leave(typed.clone(), outbox.into());
        let expected = vec![waiting("bob", 2), waiting("carol", 1)];
        assert_eq!(left.ending, Some(Ending::Left(expected)));

        let left = Stage::with_bob().leave(typed, Vec::new());
        assert_eq!(left.ending, Some(Ending::Left(Vec::new())));
    }
}

#[test]
fn leaving_does_not_depend_on_the_node() {
    let mut stage = Stage::with_bob();
    stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
    let request = stage.line("/quit").request("outbox");
    stage.answer(request, Err(broken("no history")));
    let left = Ending::Left(vec![waiting("bob", 1)]);
    assert_eq!(stage.wanted().ending, Some(left.clone()));

    let mut stage = Stage::with_bob();
    stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
    stage.line("/quit");
    assert_eq!(stage.line("/quit").ending, Some(left), "the second time");
}

#[test]
fn two_interrupts_end_it_and_one_does_not() {
    let mut stage = Stage::with_bob();
    let once = objection(Objection::InterruptOnce);
    assert_eq!(stage.typed(Typed::Interrupt).items, once);
    stage.line("still here");
    assert_eq!(stage.typed(Typed::Interrupt).items, once);
    let left = stage.leave(Typed::Interrupt, Vec::new());
    assert_eq!(left.ending, Some(Ending::Left(Vec::new())));
}

#[test]
fn the_end_of_piped_input_waits_for_what_was_sent() {
    let mut stage = Stage::settled(setup(false, Some("bob")));
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    let wanted = stage.typed(Typed::End);
    assert_eq!(wanted.ending, None);
    assert!(wanted.deadline.is_some());
    assert_eq!(stage.conversation.prompt(), None);
    let wanted = stage.event(state_of(1, "bob", MessageState::Delivered));
    assert_eq!(wanted.items, [receipts("bob", MessageState::Delivered, 1)]);
    assert_eq!(wanted.ending, Some(Ending::Left(Vec::new())));
}

#[test]
fn the_end_of_piped_input_waits_for_transfers_but_not_for_ever() {
    let mut stage = Stage::settled(setup(false, Some("bob")));
    stage.exchange("/send-file bob a", Ok(Reply::Offered(transfer_id(1))));
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    assert_eq!(stage.typed(Typed::End).ending, None);
    stage.event(state_of(1, "bob", MessageState::Delivered));
    assert_eq!(stage.pass(Duration::from_secs(9)).ending, None);
    assert_eq!(
        stage.event(transfer(1, failed())).ending,
        Some(Ending::Left(Vec::new()))
    );

    let mut stage = Stage::settled(setup(false, Some("bob")));
    for number in [1, 2] {
        stage.exchange("hi", Ok(Reply::Queued(vec![id(number)])));
    }
    stage.typed(Typed::End);
    assert_eq!(
        stage.pass(DELIVERY_TIMEOUT).ending,
        Some(Ending::Unfinished {
            waiting: vec![waiting("bob", 2)],
            transfers: Vec::new()
        })
    );
}

#[test]
fn the_end_of_piped_input_waits_while_a_file_moves() {
    let mut stage = Stage::settled(setup(false, Some("bob")));
    stage.exchange("/send-file bob a", Ok(Reply::Offered(transfer_id(1))));
    stage.typed(Typed::End);
    for second in 1..60 {
        assert_eq!(stage.pass(Duration::from_secs(9)).ending, None);
        stage.event(transfer(1, moving(second)));
    }
    assert_eq!(
        stage.pass(DELIVERY_TIMEOUT).ending,
        Some(Ending::Unfinished {
            waiting: Vec::new(),
            transfers: vec![file(1, "a")]
        })
    );
}

#[test]
fn nothing_sent_is_nothing_to_wait_for() {
    let mut stage = Stage::settled(setup(false, None));
    assert_eq!(
        stage.typed(Typed::End).ending,
        Some(Ending::Left(Vec::new()))
    );
}
