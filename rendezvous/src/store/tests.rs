#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use super::memory::MemoryStore;
use super::sqlite::{OpenError, SqliteStore};
use super::*;
use crate::source::SourcePrefix;
use common::key::DeviceSecret;
use common::limits::{
    AUDIT_ROWS_MAX, DEVICES_PER_ACCOUNT_MAX, UNKNOWN_NAMES_KEPT_MAX, UNKNOWN_NAMES_PER_SWEEP_MAX,
};
use common::password::{Password, STRETCH_CURRENT, ServerSetup, make_record};
use std::fmt::Write as _;
use tempfile::TempDir;
use zeroize::Zeroizing;

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn at(millis: u64) -> UnixTime {
    UnixTime::from_millis(millis)
}

fn device(number: u8) -> Device {
    Device {
        key: DeviceSecret::from_seed([number; 32]).public(),
        name: DeviceName::lossy("laptop"),
        token_hash: TokenHash([number; 32]),
        token_before: None,
        token_issued: at(u64::from(number)),
    }
}

fn row(subject: Subject) -> LockoutRow {
    let source = |text: &str| SourcePrefix::of(text.parse().unwrap());
    LockoutRow {
        strangers: LaneRow {
            failures: vec![(source("192.0.2.1"), 2), (source("2001:db8::1"), 3)],
            blocks: 2,
            blocked_until: at(u64::MAX / 4),
            last_failure: at(8),
        },
        known: LaneRow {
            failures: vec![(SourcePrefix::ANY, 7)],
            ..LaneRow::default()
        },
        unreported: 5,
        last_unreported: at(8),
        ..LockoutRow::empty(subject)
    }
}

fn nobody() -> Subject {
    Subject::Unknown(NameHash::from_bytes([0xfe; 16]))
}

fn create(account: &str) -> StoreRequest {
    let password = Password::new(Zeroizing::new("correct horse".to_owned())).unwrap();
    let setup = ServerSetup::generate([1; 32]);
    StoreRequest::Accounts(AccountsRequest::Create {
        account: name(account),
        record: make_record(&setup, &name(account), &password, [2; 32]).unwrap(),
        stretch: STRETCH_CURRENT,
        at: at(1),
    })
}

fn enrol(id: i64, number: u8) -> StoreRequest {
    StoreRequest::Devices(DevicesRequest::Enrol {
        id: AccountId(id),
        device: device(number),
        lockout: row(Subject::Account(name("alice"))),
    })
}

fn load(account: &str, number: u8) -> StoreRequest {
    StoreRequest::Accounts(AccountsRequest::Load {
        account: name(account),
        device_key: Some(device(number).key),
    })
}

/// One of everything, in an order that meets every answer.
fn script() -> Vec<StoreRequest> {
    let alice = || name("alice");
    let key = |number| device(number).key;
    let admission = |account: &str| Admission {
        account: name(account),
        code: AdmissionCode::from_random(77),
        expires: at(600),
    };
    let save = |subject| {
        StoreRequest::Lockouts(LockoutsRequest::Save {
            row: row(subject),
            is_blocked_now: true,
            at: at(2),
        })
    };
    let mut script = vec![
        load("alice", 1),
        create("alice"),
        create("alice"),
        create("bob"),
        load("alice", 1),
        enrol(1, 1),
        enrol(99, 1),
        load("alice", 1),
        load("bob", 1),
        StoreRequest::Devices(DevicesRequest::FindOwner { device_key: key(1) }),
        StoreRequest::Devices(DevicesRequest::FindOwner { device_key: key(9) }),
        // The key moves to bob, and back.
        enrol(2, 1),
        load("alice", 1),
        StoreRequest::Devices(DevicesRequest::FindOwner { device_key: key(1) }),
        enrol(1, 1),
        save(nobody()),
        save(Subject::Account(name("bob"))),
        StoreRequest::Admissions(AdmissionsRequest::Save {
            admission: admission("alice"),
            at: at(3),
        }),
        StoreRequest::Admissions(AdmissionsRequest::Save {
            admission: admission("nobody"),
            at: at(3),
        }),
        StoreRequest::Devices(DevicesRequest::RenewToken {
            id: AccountId(1),
            device_key: key(1),
            token_hash: TokenHash([42; 32]),
            token_before: TokenHash([1; 32]),
            at: at(4),
        }),
        StoreRequest::Devices(DevicesRequest::RenewToken {
            id: AccountId(2),
            device_key: key(1),
            token_hash: TokenHash([43; 32]),
            token_before: TokenHash([1; 32]),
            at: at(4),
        }),
        load("alice", 1),
        StoreRequest::Devices(DevicesRequest::DropTokenBefore {
            id: AccountId(1),
            device_key: key(1),
        }),
        load("alice", 1),
        StoreRequest::Lockouts(LockoutsRequest::Unblock {
            account: name("bob"),
            at: at(5),
        }),
        StoreRequest::Lockouts(LockoutsRequest::Unblock {
            account: name("nobody"),
            at: at(5),
        }),
        StoreRequest::Accounts(AccountsRequest::List {
            after: None,
            count_max: 1,
        }),
        StoreRequest::Accounts(AccountsRequest::List {
            after: Some(alice()),
            count_max: 9,
        }),
    ];
    script.extend((2..=1 + DEVICES_PER_ACCOUNT_MAX as u8).map(|number| enrol(1, number)));
    script.extend([
        enrol(1, 1),
        StoreRequest::Devices(DevicesRequest::Forget {
            id: AccountId(1),
            device_key: key(2),
            at: at(6),
        }),
        StoreRequest::Devices(DevicesRequest::Forget {
            id: AccountId(2),
            device_key: key(1),
            at: at(6),
        }),
        load("alice", 2),
        load("alice", 1),
        note(1, 1, 3),
        // Neither another account's nor a device that is not there.
        note(2, 1, 4),
        note(1, 99, 4),
        load("alice", 1),
    ]);
    // Devices that come and go; the oldest enrolments are dropped.
    script.extend((100..104).flat_map(|number| [enrol(1, number), forget(1, number)]));
    script.extend([
        load("alice", 1),
        load("alice", 4),
        // What bob's devices are to be told stays with bob.
        enrol(2, 110),
        enrol(2, 111),
        load("bob", 110),
        enrol(1, 110),
        load("alice", 110),
        forget(1, 110),
        // The logs of accounts.
        read_log("nobody", 0, 100),
        read_log("alice", 0, 100),
        append(1, 0, &[]),
        append(1, 0, &[]),
        append(1, 2, &[]),
        append(99, 0, &[]),
        append(1, 1, &[1, 99]),
        append(2, 0, &[]),
        read_log("alice", 0, 100),
        read_log("alice", 0, 5),
        read_log("alice", 1, 0),
        read_log("alice", 2, 100),
        load("alice", 1),
        list(1),
        list(2),
        list(99),
        enrol(2, 1),
        list(1),
        list(2),
    ]);
    script
}

fn read_log(account: &str, after: u32, len_max: usize) -> StoreRequest {
    StoreRequest::Logs(LogsRequest::Read {
        account: name(account),
        after,
        len_max,
    })
}

fn list(id: i64) -> StoreRequest {
    StoreRequest::Devices(DevicesRequest::List { id: AccountId(id) })
}

/// Adds four bytes, and forgets some devices.
fn append(id: i64, after: u32, revoked: &[u8]) -> StoreRequest {
    StoreRequest::Logs(LogsRequest::Append {
        id: AccountId(id),
        after,
        entry: vec![after as u8; 4],
        revoked: revoked.iter().map(|number| device(*number).key).collect(),
        at: at(5),
    })
}

fn forget(id: i64, number: u8) -> StoreRequest {
    StoreRequest::Devices(DevicesRequest::Forget {
        id: AccountId(id),
        device_key: device(number).key,
        at: at(6),
    })
}

fn note(id: i64, number: u8, enrolled: u8) -> StoreRequest {
    StoreRequest::Devices(DevicesRequest::Note {
        id: AccountId(id),
        device_key: device(number).key,
        enrolled: device(enrolled).key,
    })
}

/// The numbers of the devices that one has not been told of.
fn untold(store: &mut dyn Store, account: &str, number: u8) -> Vec<u64> {
    let answer = store.execute(&[load(account, number)]).remove(0);
    let found = answer.unwrap().into_account().unwrap();
    let enrolled = found.untold.iter();
    enrolled.map(|enrolled| enrolled.at.as_millis()).collect()
}

#[test]
fn what_a_device_has_not_been_told_lasts_until_it_is_noted() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rendezvous.db");
    let mut store = SqliteStore::open(&path).unwrap();
    let batch = [create("alice"), enrol(1, 1), enrol(1, 2), enrol(1, 3)];
    assert!(store.execute(&batch).iter().all(Result::is_ok));
    // Without closing: as a killed process leaves it.
    std::mem::forget(store);
    let mut store = SqliteStore::open(&path).unwrap();
    assert_eq!(untold(&mut store, "alice", 1), [2, 3]);
    assert_eq!(untold(&mut store, "alice", 2), [3]);
    assert_eq!(untold(&mut store, "alice", 3), [] as [u64; 0]);
    assert!(store.execute(&[enrol(1, 2), note(1, 1, 2)])[0].is_ok());
    assert_eq!(untold(&mut store, "alice", 1), [3], "2 was no news");
    // What goes, goes whole.
    let remove = StoreRequest::Accounts(AccountsRequest::Remove {
        account: name("alice"),
        at: at(9),
    });
    assert!(store.execute(&[remove])[0].is_ok());
    drop(store);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let rows = connection.query_row("SELECT count(*) FROM untold", [], |row| row.get(0));
    assert_eq!(rows, Ok(0));
}

#[test]
fn devices_from_before_enrolments_were_told_hear_of_the_next() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rendezvous.db");
    let mut store = SqliteStore::open(&path).unwrap();
    let batch = [create("alice"), enrol(1, 1), enrol(1, 2)];
    assert!(store.execute(&batch).iter().all(Result::is_ok));
    drop(store);
    // As the version before left it.
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch("DROP TABLE untold; DROP TABLE account_entries")
        .unwrap();
    connection.pragma_update(None, "user_version", 4).unwrap();
    drop(connection);
    let mut store = SqliteStore::open(&path).unwrap();
    assert_eq!(untold(&mut store, "alice", 1), [] as [u64; 0]);
    assert!(store.execute(&[enrol(1, 3)])[0].is_ok());
    assert_eq!(untold(&mut store, "alice", 1), [3]);
}

/// The end of the script, apart so that what was kept can be looked at before.
fn script_end() -> Vec<StoreRequest> {
    vec![
        StoreRequest::Admissions(AdmissionsRequest::Drop {
            admission: Admission {
                account: name("alice"),
                code: AdmissionCode::from_random(77),
                expires: at(600),
            },
        }),
        StoreRequest::Lockouts(LockoutsRequest::Save {
            row: LockoutRow::empty(nobody()),
            is_blocked_now: false,
            at: at(7),
        }),
        StoreRequest::Accounts(AccountsRequest::Remove {
            account: name("alice"),
            at: at(8),
        }),
        StoreRequest::Accounts(AccountsRequest::Remove {
            account: name("alice"),
            at: at(8),
        }),
        load("alice", 1),
        StoreRequest::Devices(DevicesRequest::FindOwner {
            device_key: device(1).key,
        }),
        read_log("alice", 0, 100),
        create("alice"),
        enrol(1, 1),
        enrol(3, 1),
        load("alice", 1),
        read_log("alice", 0, 100),
        append(1, 0, &[]),
    ]
}

fn transcript(store: &mut dyn Store, one_by_one: bool) -> String {
    let mut said = String::new();
    for script in [script(), script_end()] {
        let size = if one_by_one { 1 } else { script.len() };
        for batch in script.chunks(size) {
            for answer in store.execute(batch) {
                writeln!(said, "{:?}", answer.unwrap()).unwrap();
            }
        }
        let Restored {
            mut lockouts,
            admissions,
            named_credentials,
        } = store.restore().unwrap();
        lockouts.sort_by_key(|row| row.subject.clone());
        writeln!(said, "{lockouts:?} {admissions:?} {named_credentials}").unwrap();
    }
    said
}

#[test]
fn both_stores_answer_alike_in_batches_or_one_by_one() {
    let folder = TempDir::new().unwrap();
    let mut transcripts = Vec::new();
    for one_by_one in [true, false] {
        transcripts.push(transcript(&mut MemoryStore::new(), one_by_one));
        let path = folder.path().join(format!("{one_by_one}.db"));
        transcripts.push(transcript(
            &mut SqliteStore::open(&path).unwrap(),
            one_by_one,
        ));
    }
    for transcript in &transcripts {
        for (said, first) in transcript.lines().zip(transcripts[0].lines()) {
            assert_eq!(said, first);
        }
        assert_eq!(transcript.len(), transcripts[0].len());
    }
    let page = |entries: &str, total| format!("Page {{ entries: {entries}, total: {total} }}");
    let two = page("[[0, 0, 0, 0], [1, 1, 1, 1]]", 2);
    for answer in [
        "Exists",
        "NotFound",
        "Full",
        "Loaded(None)",
        "Owner(Some",
        &two,
        &page("[[0, 0, 0, 0]]", 2),
        &page("[[1, 1, 1, 1]]", 2),
        &page("[]", 2),
        &page("[]", 0),
    ] {
        assert!(transcripts[0].contains(answer), "{answer}");
    }
}

#[test]
fn t38_the_next_account_is_read_in_place_of_none() {
    let folder = TempDir::new().unwrap();
    let mut store = SqliteStore::open(&folder.path().join("rendezvous.db")).unwrap();
    assert!(store.execute(&[create("bob"), create("dora")])[1].is_ok());
    let mut read = |account: &str| {
        let answer = store.execute(&[load(account, 1)]).remove(0);
        let Ok(StoreAnswer::Accounts(AccountsAnswer::Loaded(Lookup { account, stand_in }))) =
            answer
        else {
            panic!("{answer:?}");
        };
        let id = |account: Option<Box<Account>>| account.map(|account| account.id.0);
        (id(account), id(stand_in))
    };
    assert_eq!(read("bob"), (Some(1), None));
    assert_eq!(read("alice"), (None, Some(1)));
    assert_eq!(read("carol"), (None, Some(2)));
    assert_eq!(read("zoe"), (None, Some(0)), "what is behind all names");
}

#[test]
fn what_failed_while_an_account_was_removed_is_not_held_against_a_new_one() {
    let folder = TempDir::new().unwrap();
    let mut sqlite = SqliteStore::open(&folder.path().join("rendezvous.db")).unwrap();
    let stores: [&mut dyn Store; 2] = [&mut MemoryStore::new(), &mut sqlite];
    for store in stores {
        let remove = StoreRequest::Accounts(AccountsRequest::Remove {
            account: name("alice"),
            at: at(2),
        });
        let save = StoreRequest::Lockouts(LockoutsRequest::Save {
            row: row(Subject::Account(name("alice"))),
            is_blocked_now: false,
            at: at(3),
        });
        let kept = |store: &mut dyn Store| store.restore().unwrap().lockouts.len();
        for (requests, expected) in [
            (vec![create("alice"), save.clone()], 1),
            (vec![remove, save], 0),
            (vec![create("alice")], 0),
        ] {
            assert!(store.execute(&requests).iter().all(Result::is_ok));
            assert_eq!(kept(store), expected);
        }
    }
}

#[test]
fn names_without_an_account_share_slots_and_are_dropped_by_their_age() {
    let hash = |slot: u32, other: u8| {
        let mut bytes = [other; 16];
        bytes[..4].copy_from_slice(&slot.to_le_bytes());
        NameHash::from_bytes(bytes)
    };
    let save = |name: NameHash, last_failure: u64| {
        StoreRequest::Lockouts(LockoutsRequest::Save {
            row: LockoutRow {
                strangers: LaneRow {
                    failures: vec![(SourcePrefix::ANY, 1)],
                    last_failure: at(last_failure),
                    ..LaneRow::default()
                },
                ..LockoutRow::empty(Subject::Unknown(name))
            },
            is_blocked_now: false,
            at: at(1),
        })
    };
    let folder = TempDir::new().unwrap();
    let mut sqlite = SqliteStore::open(&folder.path().join("rendezvous.db")).unwrap();
    let stores: [&mut dyn Store; 2] = [&mut MemoryStore::new(), &mut sqlite];
    for store in stores {
        let slots = UNKNOWN_NAMES_KEPT_MAX as u32;
        let saved = [
            save(hash(1, 0), 10),
            save(hash(slots + 1, 7), 11),
            save(hash(2, 0), 20),
            save(hash(3, 0), 30),
        ];
        assert!(store.execute(&saved).iter().all(Result::is_ok));
        let kept = |store: &mut dyn Store| {
            let mut kept: Vec<_> = store.restore().unwrap().lockouts;
            kept.sort_by_key(|row| row.strangers.last_failure);
            kept.into_iter().map(|row| row.subject).collect::<Vec<_>>()
        };
        let names = [hash(slots + 1, 7), hash(2, 0), hash(3, 0)].map(Subject::Unknown);
        assert_eq!(kept(store), names);
        // An empty row drops its own name's, not another's that is in the slot.
        let drop_row = |name: NameHash| {
            StoreRequest::Lockouts(LockoutsRequest::Save {
                row: LockoutRow::empty(Subject::Unknown(name)),
                is_blocked_now: false,
                at: at(1),
            })
        };
        assert!(store.execute(&[drop_row(hash(1, 0))])[0].is_ok());
        assert_eq!(kept(store), names);
        assert!(store.execute(&[drop_row(hash(slots + 1, 7))])[0].is_ok());
        assert_eq!(kept(store), names[1..]);
        let before = at(30);
        let forgotten = store.execute(&[StoreRequest::Lockouts(LockoutsRequest::ForgetUnknown {
            before,
        })]);
        assert!(matches!(
            forgotten[0],
            Ok(StoreAnswer::Lockouts(LockoutsAnswer::Done))
        ));
        assert_eq!(kept(store), names[2..]);
        // So many at a time and no more: the store has other things to do.
        let many: Vec<_> = (0..=UNKNOWN_NAMES_PER_SWEEP_MAX as u32)
            .map(|slot| save(hash(100 + slot, 0), 1))
            .collect();
        assert!(store.execute(&many).iter().all(Result::is_ok));
        for left in [2, 1] {
            let forgotten =
                store.execute(&[StoreRequest::Lockouts(LockoutsRequest::ForgetUnknown {
                    before,
                })]);
            assert!(matches!(
                forgotten[0],
                Ok(StoreAnswer::Lockouts(LockoutsAnswer::Done))
            ));
            assert_eq!(kept(store).len(), left);
        }
    }
}

#[test]
fn what_was_answered_is_there_after_opening_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rendezvous.db");
    let mut store = SqliteStore::open(&path).unwrap();
    for answer in store.execute(&script()) {
        assert!(answer.is_ok());
    }
    let before = format!("{:?}", store.restore());
    let log = format!("{:?}", store.execute(&[read_log("alice", 0, 100)]));
    // Without closing: as a killed process leaves it.
    std::mem::forget(store);
    let mut again = SqliteStore::open(&path).unwrap();
    assert_eq!(format!("{:?}", again.restore()), before);
    assert_eq!(
        format!("{:?}", again.execute(&[read_log("alice", 0, 100)])),
        log
    );
}

#[test]
fn t31_an_enrolled_key_that_anybody_can_sign_for_is_dropped_at_the_start() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rendezvous.db");
    let mut store = SqliteStore::open(&path).unwrap();
    for answer in store.execute(&[create("alice"), enrol(1, 1)]) {
        assert!(answer.is_ok());
    }
    drop(store);
    // As an earlier version left it: the neutral point and one above the prime.
    let connection = rusqlite::Connection::open(&path).unwrap();
    for weak in ["01", "ee"] {
        let rest = ["00", "ff"][usize::from(weak == "ee")].repeat(31);
        let row = format!("INSERT INTO devices VALUES (x'{weak}{rest}', 1, '', x'', NULL, 0, 0)");
        connection.execute_batch(&row).unwrap();
    }
    drop(connection);
    let mut store = SqliteStore::open(&path).unwrap();
    let list = StoreRequest::Accounts(AccountsRequest::List {
        after: None,
        count_max: 1,
    });
    let answers = store.execute(&[list, load("alice", 1)]);
    assert!(
        matches!(&answers[0], Ok(StoreAnswer::Accounts(AccountsAnswer::Listed(accounts))) if accounts[0].devices == 1),
        "{answers:?}"
    );
    assert!(
        matches!(&answers[1], Ok(StoreAnswer::Accounts(AccountsAnswer::Loaded(Lookup { account: Some(account), .. }))) if account.device.is_some()),
        "{answers:?}"
    );
}

#[test]
fn newer_and_damaged_databases_are_told_apart() {
    let folder = TempDir::new().unwrap();
    let newer = folder.path().join("newer.db");
    let connection = rusqlite::Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let refused = SqliteStore::open(&newer).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }));
    let damaged = folder.path().join("damaged.db");
    std::fs::write(&damaged, [9; 5000]).unwrap();
    let refused = SqliteStore::open(&damaged).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged(_)), "{refused}");
    let refused = SqliteStore::open(folder.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Io(_)), "{refused}");
}

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rendezvous.db");
    let first = rusqlite::Connection::open(&path).unwrap();
    first.execute_batch(sqlite::MIGRATIONS[0]).unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    let insert = "INSERT INTO accounts (name, record, stretch, created_ms) VALUES (?, ?, 1, 7)";
    for (account, byte) in [("alice", 0u8), ("bob", 0xff)] {
        first.execute(insert, (account, vec![byte; 192])).unwrap();
    }
    let mut store = SqliteStore::open(&path).unwrap();
    assert!(store.execute(&[create("carol")])[0].is_ok());
    assert_eq!(store.restore().unwrap().named_credentials, 2);
    let loaded = store.execute(&[load("alice", 1), load("bob", 1)]);
    for (answer, record) in loaded.iter().zip([
        [&[0; 192], &b"alice"[..]].concat(),
        [&[0xff; 192], &b"bob"[..]].concat(),
    ]) {
        let Ok(StoreAnswer::Accounts(AccountsAnswer::Loaded(Lookup {
            account: Some(account),
            ..
        }))) = answer
        else {
            panic!("{answer:?}");
        };
        assert_eq!(account.record.as_bytes(), record);
    }
    // Opened once more, nothing is done twice.
    drop(store);
    let mut store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.restore().unwrap().named_credentials, 2);
}

#[test]
fn the_audit_trail_is_written_and_bounded() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rendezvous.db");
    let mut store = SqliteStore::open(&path).unwrap();
    assert!(store.execute(&[create("alice")])[0].is_ok());
    let other = rusqlite::Connection::open(&path).unwrap();
    let events = |what: &str| -> i64 {
        let sql = format!("SELECT {what} FROM audit");
        other.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(
        events("count(*) FILTER (WHERE event = 'account created')"),
        1
    );
    let unblock = StoreRequest::Lockouts(LockoutsRequest::Unblock {
        account: name("alice"),
        at: at(1),
    });
    let batch = vec![unblock; AUDIT_ROWS_MAX / 10];
    for _ in 0..11 {
        assert!(store.execute(&batch)[0].is_ok());
    }
    assert_eq!(events("max(id)"), 1 + 11 * (AUDIT_ROWS_MAX as i64) / 10);
    assert!(events("count(*)") <= AUDIT_ROWS_MAX as i64 + 1000);
}

#[test]
fn a_request_that_fails_fails_alone_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rendezvous.db");
    let mut store = SqliteStore::open(&path).unwrap();
    assert!(store.execute(&[create("alice")])[0].is_ok());
    // A second connection drops a table under it: an enrolment fails after its first change.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("DROP TABLE devices").unwrap();
    let remove = StoreRequest::Accounts(AccountsRequest::Remove {
        account: name("nobody"),
        at: at(1),
    });
    let answers = store.execute(&[create("bob"), enrol(1, 1), create("carol"), remove]);
    assert!(
        matches!(answers[0], Ok(StoreAnswer::Accounts(AccountsAnswer::Done))),
        "{answers:?}"
    );
    assert!(matches!(answers[1], Err(StoreError::Failed(_))));
    assert!(matches!(
        answers[2],
        Ok(StoreAnswer::Accounts(AccountsAnswer::Done))
    ));
    assert!(matches!(
        answers[3],
        Ok(StoreAnswer::Accounts(AccountsAnswer::NotFound))
    ));
    let restored = store.restore().unwrap();
    assert!(restored.lockouts.is_empty(), "{restored:?}");
    let accounts = other.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0));
    assert_eq!(
        accounts,
        Ok(4),
        "alice, bob, carol and what is behind all names"
    );
}
