//! What it costs the real server, and those who log in to it, when devices change their entries without
//! an end while others watch.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::id::{AccountName, DeviceName};
use common::key::{DeviceSecret, Token};
use common::limits::{
    ANNOUNCE_INTERVAL, ANNOUNCEMENTS_BURST_MAX, CANDIDATES_MAX, CONTROL_FRAME_LEN_MAX,
    DEVICES_PER_ACCOUNT_MAX,
};
use common::time::UnixTime;
use common::wire::frame;
use common::wire::rendezvous::{
    Answer, DirectoryAnswer, DirectoryRequest, LoginAnswer, Request, RequestFrame, RequestId,
    Status,
};
use rendezvous::store::sqlite::SqliteStore;
use rendezvous::store::{
    AccountsAnswer, AccountsRequest, Device, DevicesAnswer, DevicesRequest, LockoutRow, Lookup,
    Store, StoreAnswer, StoreRequest, Subject,
};
use tests::wire_client::{WireClient, name};
use tests::world::World;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");
const PASSWORD: &str = "correct horse battery";

const ANNOUNCERS: u16 = 64;
const WATCHERS: u16 = 200;
/// The device whose log-ins are timed; those with smaller numbers announce and watch.
const NEWCOMER: u16 = ANNOUNCERS + WATCHERS;
/// How often an announcer says something new: whatever comes sooner goes into the same push.
const PACE: Duration = Duration::from_millis(50);
const LOAD: Duration = Duration::from_secs(3);
/// What an entry takes in a push: its candidates, both names, a key and a time, and the push itself.
const ENTRY_LEN_MAX: usize = 21 * CANDIDATES_MAX + 32 + 64 + 32 + 32 + 32;

#[test]
fn t15_t39_entries_that_change_without_an_end_are_not_multiplied_by_those_who_watch() {
    let mut world = World::new(EXECUTABLE);
    enrol_all(&world);
    let announcers: Vec<_> = (0..ANNOUNCERS).map(|n| member(&world, n)).collect();
    let watchers: Vec<_> = (ANNOUNCERS..NEWCOMER).map(|n| watcher(&world, n)).collect();
    let at_rest = time_log_ins(&world, LOAD / 3);

    let is_over = AtomicBool::new(false);
    let begun = now();
    let (under_load, announcements, span, told) = thread::scope(|scope| {
        let is_over = &is_over;
        let announcers: Vec<_> = announcers
            .into_iter()
            .map(|client| scope.spawn(|| announce_until(client, is_over)))
            .collect();
        let watchers: Vec<_> = watchers
            .into_iter()
            .map(|mut client| scope.spawn(move || client.read_to_end().unwrap().len()))
            .collect();
        let under_load = time_log_ins(&world, LOAD);
        is_over.store(true, Ordering::Relaxed);
        let announcements = announcers.into_iter().map(|client| client.join().unwrap());
        let announcements: usize = announcements.sum();
        let span = begun.elapsed();
        world.stop_server();
        let told = watchers.into_iter().map(|client| client.join().unwrap());
        (under_load, announcements, span, told.sum::<usize>())
    });
    let said = announcements * len_of(announcement(0));
    println!(
        "{ANNOUNCERS} announcers said {said} bytes in {span:?}, {WATCHERS} watchers were told {told}; \
         a log-in took {at_rest} at rest and {under_load} under load"
    );
    let changes =
        ANNOUNCEMENTS_BURST_MAX + 1 + span.as_secs() as u32 / ANNOUNCE_INTERVAL.as_secs() as u32;
    let told_max =
        usize::from(ANNOUNCERS) * usize::from(WATCHERS) * changes as usize * ENTRY_LEN_MAX;
    assert!(told > 0 && told <= told_max, "{told} of {told_max}");
}

/// Makes accounts, and all devices with their tokens as log-ins would have made them.
fn enrol_all(world: &World) {
    let store = world.path("server/rendezvous.db");
    let store = SqliteStore::open(&store);
    let mut store = store.expect("the server lets others at it for a moment");
    let devices: Vec<u16> = (0..=NEWCOMER).collect();
    for of_account in devices.chunks(DEVICES_PER_ACCOUNT_MAX) {
        let account = account(of_account[0]);
        let registered = WireClient::connect(world.server()).register(&account, PASSWORD);
        assert_eq!(registered, LoginAnswer::Registered.into());
        let account = name(&account);
        let load = StoreRequest::Accounts(AccountsRequest::Load {
            account: account.clone(),
            device_key: None,
        });
        let Ok(StoreAnswer::Accounts(AccountsAnswer::Loaded(Lookup {
            account: Some(loaded),
            ..
        }))) = store.execute(&[load]).remove(0)
        else {
            panic!("no account");
        };
        let enrol = |number: &u16| {
            StoreRequest::Devices(DevicesRequest::Enrol {
                id: loaded.id,
                device: enrolled(*number),
                lockout: LockoutRow::empty(Subject::Account(AccountName::clone(&account))),
            })
        };
        let batch: Vec<_> = of_account.iter().map(enrol).collect();
        let done = store.execute(&batch);
        assert!(done.iter().all(|done| matches!(
            done,
            Ok(StoreAnswer::Devices(DevicesAnswer::Enrolled { .. }))
        )));
    }
}

fn account(number: u16) -> String {
    format!("user{}", usize::from(number) / DEVICES_PER_ACCOUNT_MAX)
}

fn secret(number: u16) -> DeviceSecret {
    DeviceSecret::from_seed(*token(number).as_bytes())
}

fn token(number: u16) -> Token {
    let mut bytes = [1; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    Token::from_bytes(bytes)
}

fn enrolled(number: u16) -> Device {
    Device {
        key: secret(number).public(),
        name: DeviceName::lossy("laptop"),
        token_hash: token(number).hash(),
        token_before: None,
        token_issued: UnixTime::from_millis(u64::MAX >> 1),
    }
}

fn member(world: &World, number: u16) -> WireClient {
    let mut client = WireClient::connect(world.server());
    let answer = client.token_login(&account(number), &secret(number), &token(number));
    assert!(
        matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{answer:?}"
    );
    client
}

fn watcher(world: &World, number: u16) -> WireClient {
    let mut client = member(world, number);
    let listed = client.ask(DirectoryRequest::List { after: None });
    let Answer::Directory(DirectoryAnswer::Page { version: since, .. }) = listed else {
        panic!("{listed:?}");
    };
    assert_eq!(
        client.ask(DirectoryRequest::Watch { since }),
        DirectoryAnswer::Done.into()
    );
    client
}

/// Says something else again and again; returns how often.
fn announce_until(mut client: WireClient, is_over: &AtomicBool) -> usize {
    let mut round = 0;
    while !is_over.load(Ordering::Relaxed) {
        round += 1;
        assert_eq!(
            client.ask(announcement(round)),
            DirectoryAnswer::Done.into()
        );
        rest();
    }
    usize::from(round)
}

/// As long as one may be, and another one each time.
fn announcement(round: u16) -> Request {
    let candidate = |n| SocketAddr::from(([0x2001, 0xdb8, 1, 2, 3, 4, 5, round], 50_000 + n));
    Request::Directory(DirectoryRequest::Announce {
        status: Status::Busy,
        candidates: (0..CANDIDATES_MAX as u16).map(candidate).collect(),
    })
}

fn len_of(request: Request) -> usize {
    let id = RequestId(0);
    let mut bytes = Vec::new();
    let frame = RequestFrame { id, request };
    frame::encode::<CONTROL_FRAME_LEN_MAX>(&frame, &mut bytes).expect("it fits a frame");
    bytes.len()
}

/// Logs in again and again for so long.
fn time_log_ins(world: &World, span: Duration) -> Latency {
    let begun = now();
    let mut took = Vec::new();
    while begun.elapsed() < span {
        let start = now();
        member(world, NEWCOMER);
        took.push(start.elapsed());
    }
    let all: Duration = took.iter().sum();
    Latency {
        mean: all / took.len() as u32,
        max: took.into_iter().max().unwrap_or_default(),
    }
}

/// What a log-in took.
#[derive(Debug)]
struct Latency {
    mean: Duration,
    max: Duration,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean, max } = self;
        write!(f, "{mean:?} ({max:?} at most)")
    }
}

#[expect(clippy::disallowed_methods, reason = "what takes time is measured")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a load has a pace")]
fn rest() {
    thread::sleep(PACE);
}
