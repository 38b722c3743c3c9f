//! The history and the store in memory are asked the same, in scripts drawn from seeds, and have to
//! answer the same. Simulation, engine tests and fuzzing use the one in memory.

use std::collections::BTreeSet;

use common::account::{AccountLog, Genesis};
use common::id::{AccountName, MessageId};
use common::key::{DeviceSecret, Token};
use common::limits::HISTORY_ITEMS_LEN_MAX;
use common::log::{Clock, RunId};
use common::time::UnixTime;
use common::wire::peer::{Conversation, Message};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::node::command::{Cursor, HistoryQuery, MessageState};
use crate::node::io::{AccountRequest, ContactRequest, LogRequest};
use crate::store::{self, MemoryStore};

/// Scripts, each with a history of its own.
const SCRIPTS: u64 = 2_000;
/// Requests of each.
const REQUESTS: u32 = 40;
/// Requests of the long script, in which look-ups meet their bounds.
const REQUESTS_OF_LONG: u32 = 1200;

#[test]
fn the_store_in_memory_answers_as_the_history_does() {
    let mut twins = Twins::new();
    for seed in 0..SCRIPTS {
        twins.clear();
        Script::new(seed, REQUESTS, 40).run(&mut twins);
    }
    let asked: Vec<u8> = twins.asked.into_iter().collect();
    let all: Vec<u8> = (0..KINDS).collect();
    assert_eq!(asked, all, "a kind of request was not asked");
}

#[test]
fn the_store_in_memory_has_the_bounds_of_the_history() {
    let mut twins = Twins::new();
    let text_len_max = common::limits::MESSAGE_LEN_MAX;
    Script::new(0, REQUESTS_OF_LONG, text_len_max).run(&mut twins);
    let rows = twins.memory.rows().iter();
    let kept: usize = rows.map(|row| row.message.body.as_str().len()).sum();
    assert!(kept > HISTORY_ITEMS_LEN_MAX, "the bound is not met: {kept}");
}

/// Both stores.
struct Twins {
    history: History,
    memory: MemoryStore,
    /// Kinds of requests so far.
    asked: BTreeSet<u8>,
}

/// Kinds of requests.
const KINDS: u8 = 16;

/// Numbers the kinds, so that none is forgotten.
const fn kind(request: &StoreRequest) -> u8 {
    match request {
        StoreRequest::Account(AccountRequest::SaveSession { .. }) => 0,
        StoreRequest::Contact(ContactRequest::PinKey { .. }) => 1,
        StoreRequest::Contact(ContactRequest::UnpinKey { .. }) => 2,
        StoreRequest::Chat(ChatRequest::Queue { .. }) => 3,
        StoreRequest::Chat(ChatRequest::Receive { .. }) => 4,
        StoreRequest::Chat(ChatRequest::Advance { .. }) => 5,
        StoreRequest::Chat(ChatRequest::MarkRead { .. }) => 6,
        StoreRequest::Chat(ChatRequest::History(_)) => 7,
        StoreRequest::Chat(ChatRequest::Unread) => 8,
        StoreRequest::Chat(ChatRequest::Withdraw { .. }) => 9,
        StoreRequest::Contact(ContactRequest::SaveEndpoint { .. }) => 10,
        StoreRequest::Log(LogRequest::Add { .. }) => 11,
        StoreRequest::Log(LogRequest::Forget { .. }) => 12,
        StoreRequest::Log(LogRequest::SetVerified { .. }) => 13,
        // Asked by the tests of entries.
        StoreRequest::Entries(_) => KINDS,
        StoreRequest::Chat(ChatRequest::Recorded { .. }) => 14,
        StoreRequest::Chat(ChatRequest::Outbox) => KINDS - 1,
    }
}

impl Twins {
    /// The history's file is in memory as well: thousands of scripts would wait for the disk.
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        for migration in SCHEMA.migrations {
            connection.execute_batch(migration).unwrap();
        }
        Self {
            history: History {
                connection,
                durability: Durability::PowerLoss,
                gap: 0,
            },
            memory: MemoryStore::default(),
            asked: BTreeSet::new(),
        }
    }

    fn clear(&mut self) {
        let tables = "DELETE FROM session; DELETE FROM contacts; DELETE FROM messages;
            DELETE FROM account_entries; DELETE FROM verified;
            UPDATE taken_back SET number = 0;";
        self.history.connection.execute_batch(tables).unwrap();
        self.history.gap = 0;
        self.memory = MemoryStore::default();
    }

    /// A request that both carry out, or that both cannot.
    #[track_caller]
    fn ask(&mut self, request: &StoreRequest, fails: bool, what: &str) {
        self.asked.insert(kind(request));
        let (expected, found) = if fails {
            let answer = self.fail(request);
            let StoreAnswer::Failed(reason) = &answer else {
                panic!("{what}: {answer:?}");
            };
            let found = self.memory.fail(request, reason);
            (answer, found)
        } else {
            let answer = self.history.execute_alone(request);
            (answer, self.memory.execute(request))
        };
        assert_eq!(found, expected, "{what}: {request:?}");
    }

    /// Has the history carry out a request while nothing may be written.
    fn fail(&mut self, request: &StoreRequest) -> StoreAnswer {
        let set = |history: &History, value| {
            let pragma = history.connection.pragma_update(None, "query_only", value);
            pragma.unwrap();
        };
        set(&self.history, true);
        let answer = self.history.execute_alone(request);
        set(&self.history, false);
        answer
    }

    #[track_caller]
    fn compare_restored(&self, what: &str) {
        let (expected, found) = (self.history.restore().unwrap(), self.memory.restore());
        assert_eq!(found.session, expected.session, "{what}");
        assert_eq!(found.contacts, expected.contacts, "{what}");
        assert_eq!(found.last_endpoints, expected.last_endpoints, "{what}");
        assert_eq!(found.outbox, expected.outbox, "{what}");
        assert_eq!(found.sent, expected.sent, "{what}");
        assert_eq!(found.logs, expected.logs, "{what}");
        assert_eq!(found.verified, expected.verified, "{what}");
    }
}

/// Requests about few messages of few people, so that they meet.
struct Script {
    rng: StdRng,
    seed: u64,
    requests: u32,
    text_len_max: usize,
}

impl Script {
    fn new(seed: u64, requests: u32, text_len_max: usize) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            seed,
            requests,
            text_len_max,
        }
    }

    fn run(mut self, twins: &mut Twins) {
        for n in 0..self.requests {
            let what = format!("script {}, request {n}", self.seed);
            let request = self.request();
            let fails = store::is_write(&request) && self.rng.random_ratio(1, 12);
            twins.ask(&request, fails, &what);
            if self.rng.random_ratio(1, 20) {
                twins.history.gap = 0;
                twins.memory.reopen();
            }
            if self.rng.random_ratio(1, 8) {
                twins.compare_restored(&what);
            }
        }
        twins.compare_restored(&format!("script {}", self.seed));
    }

    fn request(&mut self) -> StoreRequest {
        match self.rng.random_range(0..11) {
            0 => self.account_request().into(),
            1 => self.contact_request().into(),
            2 => self.log_request().into(),
            _ => self.chat_request().into(),
        }
    }

    fn account_request(&mut self) -> AccountRequest {
        AccountRequest::SaveSession {
            account: self.account(),
            token: self.rng.random_bool(0.7).then(|| self.token()),
        }
    }

    fn contact_request(&mut self) -> ContactRequest {
        let device_key = DeviceSecret::from_seed([self.rng.random_range(0..6); 32]).public();
        match self.rng.random_range(0..6) {
            0 => ContactRequest::UnpinKey { device_key },
            1 | 2 => ContactRequest::SaveEndpoint {
                device_key,
                endpoint: ([192, 0, 2, 1], self.rng.random()).into(),
            },
            _ => ContactRequest::PinKey {
                account: self.account(),
                device_key,
                at: self.time(),
            },
        }
    }

    fn log_request(&mut self) -> LogRequest {
        let account = self.account();
        match self.rng.random_range(0..6) {
            0 => LogRequest::Forget { account },
            1 | 2 => LogRequest::SetVerified {
                account,
                is_verified: self.rng.random(),
            },
            _ => LogRequest::Add {
                account,
                entry: self.entry(),
            },
        }
    }

    /// The first entry of some log.
    fn entry(&mut self) -> Vec<u8> {
        let secret = DeviceSecret::from_seed([1; 32]);
        let genesis = Genesis {
            first_device: secret.public(),
            recovery: DeviceSecret::from_seed([2; 32]).public(),
            nonce: [self.rng.random_range(0..3); 32],
        };
        let run = RunId::from_bytes([0; 16]);
        let log = AccountLog::found(genesis, run, Clock::from_bits(1), &secret);
        log.entries().next().unwrap().to_bytes()
    }

    fn chat_request(&mut self) -> ChatRequest {
        match self.rng.random_range(0..17) {
            0..=2 => ChatRequest::Queue {
                messages: (0..self.rng.random_range(0..4))
                    .map(|_| (self.account(), self.message()))
                    .collect(),
                sent: (0..self.rng.random_range(0..4))
                    .map(|_| self.id())
                    .collect(),
            },
            3..=5 => ChatRequest::Receive {
                from: self.account(),
                message: self.message(),
                at: self.time(),
                chain: self.rng.random_range(1..5),
            },
            6..=8 => ChatRequest::Advance {
                id: self.id(),
                to: self.account(),
                state: self.state(),
            },
            9 => ChatRequest::Withdraw {
                messages: (0..self.rng.random_range(0..4))
                    .map(|_| (self.account(), self.id()))
                    .collect(),
            },
            10 | 11 => ChatRequest::MarkRead {
                ids: (0..self.rng.random_range(0..5))
                    .map(|_| self.id())
                    .collect(),
            },
            12 | 13 => ChatRequest::History(HistoryQuery {
                with: self.rng.random_bool(0.5).then(|| self.account()),
                since: self.rng.random_bool(0.3).then(|| self.time()),
                until: self.rng.random_bool(0.3).then(|| self.time()),
                words: match self.rng.random_range(0..6) {
                    0 => vec![self.letter().to_string()],
                    1 => vec![
                        self.letter().to_uppercase().to_string(),
                        self.letter().to_string(),
                    ],
                    2 => vec!["...".to_owned()],
                    _ => Vec::new(),
                },
                limit: self.limit(),
            }),
            14 => ChatRequest::Recorded {
                after: Cursor(match self.rng.random_range(0..4) {
                    0 => self.rng.random(),
                    _ => self.rng.random_range(0..30),
                }),
                limit: self.limit(),
            },
            15 => ChatRequest::Outbox,
            _ => ChatRequest::Unread,
        }
    }

    fn limit(&mut self) -> u32 {
        match self.rng.random_range(0..3) {
            0 => self.rng.random_range(0..6),
            1 => self.rng.random(),
            _ => u32::MAX,
        }
    }

    fn account(&mut self) -> AccountName {
        let names = ["alice", "bob", "carol"];
        names[self.rng.random_range(0..names.len())]
            .parse()
            .unwrap()
    }

    fn token(&mut self) -> Token {
        Token::from_bytes(self.rng.random())
    }

    fn id(&mut self) -> MessageId {
        // The long script is to keep a lot.
        let ids = if self.requests == REQUESTS { 8 } else { 200 };
        MessageId::from_bytes([self.rng.random_range(0..ids); 16])
    }

    fn time(&mut self) -> UnixTime {
        UnixTime::from_millis(match self.rng.random_range(0..3) {
            0 => self.rng.random(),
            1 => u64::MAX,
            _ => self.rng.random_range(0..5),
        })
    }

    fn letter(&mut self) -> char {
        char::from(self.rng.random_range(b'a'..=b'f'))
    }

    fn message(&mut self) -> Message {
        let len = self.rng.random_range(1..=self.text_len_max);
        let letter = self.letter();
        Message {
            id: self.id(),
            conversation: Conversation::Direct,
            sent: self.time(),
            body: letter.to_string().repeat(len).try_into().unwrap(),
        }
    }

    fn state(&mut self) -> MessageState {
        let states = [
            MessageState::Queued,
            MessageState::Sent,
            MessageState::Delivered,
            MessageState::Read,
        ];
        states[self.rng.random_range(0..states.len())]
    }
}
