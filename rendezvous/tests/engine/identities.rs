//! The logs of accounts: who may write into one, who reads it, and what a revocation ends.

use std::collections::{BTreeMap, BTreeSet};

use common::account::{AccountEntry, AccountLog, AccountStatement, Genesis, Revocation};
use common::id::DeviceName;
use common::key::{DeviceKey, DeviceSecret};
use common::limits::{ACCOUNT_APPENDS_BURST_MAX, ACCOUNT_ENTRIES_MAX, ACCOUNT_PAGE_LEN_MAX};
use common::log::{Clock, RunId};
use common::wire::rendezvous::{
    Answer, IdentityAnswer, IdentityPush, IdentityRequest, Push, Refusal, ServerFrame,
};
use rendezvous::server::{CloseReason, Command, ConnectionId, Reply};
use rendezvous::store::{AccountsRequest, LogsAnswer, LogsRequest, Store, StoreAnswer, StoreError};

use super::world::{HOME, World, device, name, refused};

/// An account's log as one of its devices sees it, with the number of its entries.
struct Author {
    log: AccountLog,
    written: u64,
}

impl Author {
    /// Begins an account with this device.
    fn found(first: u8) -> (Self, AccountEntry) {
        let secret = device(first);
        let genesis = Genesis {
            first_device: secret.public(),
            recovery: device(200).public(),
            nonce: [first; 32],
        };
        let log = AccountLog::found(
            genesis,
            RunId::from_bytes([1; 16]),
            Clock::from_bits(1),
            &secret,
        );
        let entry = log.entries().next().unwrap().clone();
        (Self { log, written: 1 }, entry)
    }

    fn write(&mut self, statement: AccountStatement, secret: &DeviceSecret) -> AccountEntry {
        self.written += 1;
        let clock = Clock::from_bits(self.written);
        let run = RunId::from_bytes([1; 16]);
        let entry = self.log.write(statement, run, clock, secret);
        self.log.accept(entry.clone()).unwrap();
        entry
    }

    fn approve(&mut self, key: DeviceKey, by: u8) -> AccountEntry {
        let statement = AccountStatement::Approve {
            device: key,
            name: DeviceName::lossy("phone"),
        };
        self.write(statement, &device(by))
    }

    /// Nothing counts that the device has written.
    fn revoke(&mut self, key: DeviceKey, by: u8) -> AccountEntry {
        let cut = BTreeMap::new();
        let revocation = Revocation { device: key, cut };
        self.write(AccountStatement::Revoke(revocation), &device(by))
    }
}

fn append(world: &mut World, session: ConnectionId, entry: AccountEntry) -> Answer {
    let entry = Box::new(entry);
    world.ask(session, IdentityRequest::Append { entry })
}

fn read(world: &mut World, session: ConnectionId, account: &str, after: u32) -> (usize, u32) {
    let account = name(account);
    let answer = world.ask(session, IdentityRequest::Read { account, after });
    let Answer::Identity(IdentityAnswer::Page { entries, total }) = answer else {
        panic!("{answer:?}");
    };
    (entries.len(), total)
}

const DONE: Answer = Answer::Identity(IdentityAnswer::Appended);

/// Alice's first device, and a second one, which is not approved.
fn world() -> (World, Author, [ConnectionId; 2]) {
    let mut world = World::new();
    let sessions = [1, 2].map(|number| world.member("alice", number, HOME));
    world.inboxes.clear();
    let (author, genesis) = Author::found(1);
    assert_eq!(append(&mut world, sessions[0], genesis), DONE);
    world.inboxes.clear();
    (world, author, sessions)
}

fn pushed(world: &World, session: ConnectionId) -> Vec<AccountEntry> {
    let frames = world.inbox(session).into_iter();
    let pushed = frames.filter_map(|frame| match frame {
        ServerFrame::Push(Push::Identity(IdentityPush::Appended { entry })) => Some(*entry),
        ServerFrame::Push(_) | ServerFrame::Answer { .. } => None,
    });
    pushed.collect()
}

/// Approved or not, online or not, and nobody else's.
#[test]
fn an_account_sees_which_devices_have_logged_in_to_it() {
    let (mut world, _, [first, second]) = world();
    let stranger = world.member("bob", 3, HOME);
    let enrolled = |world: &mut World, session| {
        let Answer::Identity(IdentityAnswer::Enrolled { devices }) =
            world.ask(session, IdentityRequest::Enrolled)
        else {
            panic!("no list");
        };
        let keys = devices.into_iter().map(|device| device.device_key);
        keys.collect::<BTreeSet<_>>()
    };
    let both = BTreeSet::from([1, 2].map(|number| device(number).public()));
    assert_eq!(enrolled(&mut world, first), both);
    assert_eq!(enrolled(&mut world, second), both);
    assert_eq!(enrolled(&mut world, stranger), [device(3).public()].into());
    world.disconnect(second);
    assert_eq!(enrolled(&mut world, first), both);
}

#[test]
fn a_log_begins_with_the_device_that_is_logged_in() {
    let mut world = World::new();
    let session = world.member("alice", 1, HOME);
    assert_eq!(read(&mut world, session, "alice", 0), (0, 0));
    assert_eq!(read(&mut world, session, "nobody", 0), (0, 0));
    let (mut author, genesis) = Author::found(1);
    let (_, of_another) = Author::found(3);
    let approval = author.approve(device(2).public(), 1);
    for (entry, refusal) in [
        (of_another, Refusal::EntryRefused),
        (approval.clone(), Refusal::NotApproved),
    ] {
        let answer = append(&mut world, session, entry);
        assert_eq!(answer, Answer::Refused(refusal));
    }
    for _ in 0..2 {
        assert_eq!(append(&mut world, session, genesis.clone()), DONE);
        assert_eq!(read(&mut world, session, "alice", 0), (1, 1));
    }
    let mut other = Author::found(1).0.log;
    other.accept(genesis).unwrap();
    let nonce = [9; 32];
    let AccountStatement::Genesis(genesis) = other.entries().next().unwrap().statement.clone()
    else {
        panic!("a log begins with its genesis");
    };
    let run = RunId::from_bytes([2; 16]);
    let second = AccountLog::found(
        Genesis { nonce, ..genesis },
        run,
        Clock::from_bits(9),
        &device(1),
    );
    let second = second.entries().next().unwrap().clone();
    let answer = append(&mut world, session, second);
    assert_eq!(answer, refused(Refusal::EntryRefused));
}

#[test]
fn only_devices_of_the_account_and_its_recovery_key_write_into_its_log() {
    let (mut world, mut author, [first, second]) = world();
    let before = author.log.clone();
    // Whoever knows the password has a device, and no more.
    let run = RunId::from_bytes([2; 16]);
    let statement = AccountStatement::Approve {
        device: device(2).public(),
        name: DeviceName::lossy("mine"),
    };
    let entry = before.write(statement, run, Clock::from_bits(5), &device(2));
    let answer = append(&mut world, second, entry);
    assert_eq!(answer, refused(Refusal::NotApproved));
    // It may bring what the recovery key has signed.
    let entry = author.approve(device(2).public(), 200);
    assert_eq!(append(&mut world, second, entry.clone()), DONE);
    assert_eq!(pushed(&world, first), [entry]);
    assert_eq!(pushed(&world, second), []);
    // Anybody may read it.
    let bob = world.member("bob", 3, HOME);
    assert_eq!(read(&mut world, bob, "alice", 0), (2, 2));
    assert_eq!(read(&mut world, bob, "alice", 1), (1, 2));
    assert_eq!(read(&mut world, bob, "alice", u32::MAX), (0, 2));
    // Nobody adds to that of another.
    let entry = author.approve(device(4).public(), 1);
    let answer = append(&mut world, bob, entry);
    assert_eq!(answer, refused(Refusal::NotApproved));
}

#[test]
fn t47_a_device_that_is_revoked_is_out_at_once() {
    let (mut world, mut author, [first, second]) = world();
    let entry = author.approve(device(2).public(), 1);
    assert_eq!(append(&mut world, first, entry), DONE);
    let token = world.token("alice", 3).1;
    let third = author.approve(device(3).public(), 2);
    assert_eq!(append(&mut world, second, third), DONE);
    // With the second goes the third, which it should not have approved.
    let entry = author.revoke(device(2).public(), 1);
    assert_eq!(append(&mut world, first, entry), DONE);
    assert_eq!(world.closed.get(&second), Some(&CloseReason::LoggedOut));
    assert!(!world.closed.contains_key(&first));
    let session = world.connect(HOME);
    let answer = world.token_login(session, "alice", &device(3), token);
    assert_eq!(answer, refused(Refusal::TokenRefused));
    // It can log in again, which makes it nobody's device.
    let session = world.connect(HOME);
    world.log_in(session, "alice", &device(2));
    let entry = author.log.write(
        AccountStatement::Approve {
            device: device(5).public(),
            name: DeviceName::lossy("mine"),
        },
        RunId::from_bytes([7; 16]),
        Clock::from_bits(50),
        &device(2),
    );
    assert_eq!(
        append(&mut world, session, entry),
        DONE,
        "it is kept, and void"
    );
    let entries = read(&mut world, session, "alice", 0);
    assert_eq!(entries, (5, 5));
}

#[test]
fn two_entries_at_once_are_both_added() {
    let (mut world, author, [first, second]) = world();
    world.hold_store = true;
    let requests = [(first, 1), (second, 200)].map(|(session, by)| {
        let mut author = Author {
            log: author.log.clone(),
            written: u64::from(by),
        };
        let entry = Box::new(author.approve(device(by + 2).public(), by));
        (session, IdentityRequest::Append { entry })
    });
    for (session, request) in requests {
        world.send(session, request);
    }
    while let Some(held) = world.held.pop_front() {
        world.answer_store(held);
    }
    world.hold_store = false;
    for (session, other) in [(first, second), (second, first)] {
        let frames = world.inbox(session);
        let is_answer = |frame: &&ServerFrame| matches!(frame, ServerFrame::Answer { .. });
        let answers: Vec<&ServerFrame> = frames.iter().filter(is_answer).collect();
        assert!(
            matches!(answers[..], [ServerFrame::Answer { answer: DONE, .. }]),
            "{frames:?}"
        );
        assert_eq!(pushed(&world, other).len(), 1);
    }
    world.inboxes.clear();
    assert_eq!(read(&mut world, first, "alice", 0), (3, 3));
}

#[test]
fn an_entry_that_the_store_could_not_keep_is_refused() {
    let (mut world, mut author, [first, second]) = world();
    world.store_fails = true;
    let entry = author.approve(device(2).public(), 1);
    let answer = append(&mut world, first, entry.clone());
    assert_eq!(answer, refused(Refusal::StoreFailed));
    assert_eq!(pushed(&world, second), []);
    world.store_fails = false;
    assert_eq!(append(&mut world, first, entry), DONE);
}

#[test]
fn entries_come_at_a_pace_and_up_to_a_number() {
    let (mut world, author, [first, second]) = world();
    let mut answers = Vec::new();
    for _ in 0..=ACCOUNT_APPENDS_BURST_MAX {
        let genesis = author.log.entries().next().unwrap().clone();
        answers.push(append(&mut world, second, genesis));
    }
    let last = answers.pop().unwrap();
    assert!(answers.iter().all(|answer| *answer == DONE));
    assert!(
        matches!(last, Answer::Refused(Refusal::Busy { .. })),
        "{last:?}"
    );

    // As many as there may be, of several devices.
    let mut author = author;
    let mut place = 1;
    let mut keep = |world: &mut World, entry: AccountEntry| {
        let load = AccountsRequest::Load {
            account: name("alice"),
            device_key: None,
        };
        let answer = world.store.execute(&[load.into()]).remove(0);
        let account = answer.unwrap().into_account().unwrap();
        let request = LogsRequest::Append {
            id: account.id,
            after: place,
            entry: entry.to_bytes(),
            revoked: Vec::new(),
            at: world.wall,
        };
        place += 1;
        let answer = world.store.execute(&[request.into()]).remove(0);
        assert!(matches!(
            answer,
            Ok(StoreAnswer::Logs(LogsAnswer::Appended))
        ));
    };
    for number in 0..9 {
        let entry = author.approve(device(100 + number).public(), 1);
        keep(&mut world, entry);
    }
    for count in 10..ACCOUNT_ENTRIES_MAX {
        let by = 100 + (count % 9) as u8;
        let entry = author.approve(device(2).public(), by);
        keep(&mut world, entry);
    }
    let entry = author.approve(device(3).public(), 1);
    let answer = append(&mut world, first, entry);
    assert_eq!(answer, refused(Refusal::LimitExceeded));
    // It is read in pages.
    let mut after = 0;
    let mut pages = 0;
    loop {
        let (count, total) = read(&mut world, first, "alice", after);
        assert_eq!(total as usize, ACCOUNT_ENTRIES_MAX);
        if count == 0 {
            break;
        }
        after += count as u32;
        pages += 1;
    }
    assert_eq!(after as usize, ACCOUNT_ENTRIES_MAX);
    assert!(
        pages > ACCOUNT_ENTRIES_MAX * 200 / ACCOUNT_PAGE_LEN_MAX,
        "{pages}"
    );
}

#[test]
fn a_log_goes_with_its_account() {
    let (mut world, _, _) = world();
    let reply = world.command(Command::RemoveAccount(name("alice")));
    assert!(matches!(reply, Reply::Done), "{reply:?}");
    let bob = world.member("bob", 3, HOME);
    assert_eq!(read(&mut world, bob, "alice", 0), (0, 0));
    let again = world.member("alice", 5, HOME);
    let (_, genesis) = Author::found(5);
    assert_eq!(append(&mut world, again, genesis), DONE);
}

#[test]
fn a_damaged_log_is_told() {
    let (mut world, _, [first, _]) = world();
    let load = AccountsRequest::Load {
        account: name("alice"),
        device_key: None,
    };
    let answer: Result<StoreAnswer, StoreError> = world.store.execute(&[load.into()]).remove(0);
    let id = answer.unwrap().into_account().unwrap().id;
    let request = LogsRequest::Append {
        id,
        after: 1,
        entry: vec![0; 20],
        revoked: Vec::new(),
        at: world.wall,
    };
    world.store.execute(&[request.into()]).remove(0).unwrap();
    let account = name("alice");
    let answer = world.ask(first, IdentityRequest::Read { account, after: 0 });
    assert_eq!(answer, refused(Refusal::StoreFailed));
}
