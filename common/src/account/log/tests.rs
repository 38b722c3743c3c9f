//! Logs of accounts with honest owners, thieves and forgers.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::*;
use crate::account::{Revocation, State};
use crate::id::DeviceName;
use crate::key::Signature;
use crate::limits::ACCOUNT_DEVICES_MAX;

/// Of the recovery key and devices; those from 2 on have to be approved.
const RECOVERY: u8 = 0;
const LAPTOP: u8 = 1;
const PHONE: u8 = 2;
const TABLET: u8 = 3;
const WATCH: u8 = 4;

fn secret(n: u8) -> DeviceSecret {
    DeviceSecret::from_seed([n + 1; 32])
}

fn key(n: u8) -> DeviceKey {
    secret(n).public()
}

fn run(n: u8) -> RunId {
    RunId::from_bytes([n; 16])
}

fn genesis() -> Genesis {
    Genesis {
        first_device: key(LAPTOP),
        recovery: key(RECOVERY),
        nonce: [7; 32],
    }
}

fn founded() -> AccountLog {
    AccountLog::found(genesis(), run(0), Clock::from_bits(1), &secret(LAPTOP))
}

fn approval(device: u8) -> AccountStatement {
    AccountStatement::Approve {
        device: key(device),
        name: DeviceName::lossy(&format!("device {device}")),
    }
}

fn revocation(device: u8, cut: BTreeMap<RunId, Sequence>) -> AccountStatement {
    let device = key(device);
    AccountStatement::Revoke(Revocation { device, cut })
}

impl AccountLog {
    /// An entry of a device in its first run, dated in the order in which entries are written.
    fn entry(&self, author: u8, statement: AccountStatement) -> AccountEntry {
        let count = self.entries().count() as u64;
        let clock = Clock::from_bits(count + 1);
        self.write(statement, run(0), clock, &secret(author))
    }

    #[track_caller]
    fn say(&mut self, author: u8, statement: AccountStatement) {
        let entry = self.entry(author, statement);
        assert_eq!(self.accept(entry), Ok(Accepted::New));
    }

    fn approved(&self) -> Vec<u8> {
        let keys = 0..=40;
        keys.filter(|n| self.standing().is_approved(&key(*n)))
            .collect()
    }
}

/// The laptop has approved the phone, and that the tablet.
fn family() -> AccountLog {
    let mut log = founded();
    log.say(LAPTOP, approval(PHONE));
    log.say(PHONE, approval(TABLET));
    assert_eq!(log.approved(), [LAPTOP, PHONE, TABLET]);
    log
}

#[test]
fn t47_a_stolen_phone_cannot_revoke_the_laptop_that_approved_it() {
    let mut log = family();
    for thief in [PHONE, TABLET] {
        let everything = log.cut(&key(LAPTOP));
        log.say(thief, revocation(LAPTOP, everything));
    }
    log.say(TABLET, revocation(PHONE, BTreeMap::new()));
    assert_eq!(log.approved(), [LAPTOP, PHONE, TABLET]);
    // Nor what others have approved.
    log.say(LAPTOP, approval(WATCH));
    log.say(WATCH, revocation(TABLET, BTreeMap::new()));
    assert_eq!(log.approved(), [LAPTOP, PHONE, TABLET, WATCH]);
    log.say(LAPTOP, revocation(WATCH, BTreeMap::new()));
    let cut = log.cut(&key(PHONE));
    log.say(LAPTOP, revocation(PHONE, cut));
    assert_eq!(log.approved(), [LAPTOP, TABLET]);
}

#[test]
fn what_a_revoked_device_approves_later_is_none_of_the_accounts() {
    let mut log = family();
    let cut = log.cut(&key(PHONE));
    let mut of_thief = log.clone();
    of_thief.say(PHONE, approval(WATCH));
    log.say(LAPTOP, revocation(PHONE, cut));
    // Whichever came first.
    for entry in of_thief.entries() {
        log.accept(entry.clone()).unwrap();
    }
    assert_eq!(log.approved(), [LAPTOP, TABLET]);
    // In another run it is not even in the cut.
    let elsewhere = log.write(approval(WATCH), run(9), Clock::default(), &secret(PHONE));
    log.accept(elsewhere).unwrap();
    assert_eq!(log.approved(), [LAPTOP, TABLET]);
}

#[test]
fn a_cut_takes_back_what_a_thief_had_approved_before() {
    let mut log = family();
    log.say(LAPTOP, revocation(PHONE, BTreeMap::new()));
    assert_eq!(log.approved(), [LAPTOP]);
    assert!(!log.standing().is_author(&key(TABLET)));
    // The last word of one signer counts.
    let cut = log.cut(&key(PHONE));
    log.say(LAPTOP, revocation(PHONE, cut));
    assert_eq!(log.approved(), [LAPTOP, TABLET]);
    // And that of the most senior one more, whenever it was said.
    let recovery = revocation(PHONE, BTreeMap::new());
    let early = log.write(recovery, run(0), Clock::default(), &secret(RECOVERY));
    log.accept(early).unwrap();
    assert_eq!(log.approved(), [LAPTOP]);
}

#[test]
fn a_device_belongs_to_the_most_senior_one_that_approved_it_and_of_two_to_the_first() {
    let mut log = founded();
    log.say(LAPTOP, approval(PHONE));
    log.say(LAPTOP, approval(TABLET));
    log.say(TABLET, approval(WATCH));
    let parent = |log: &AccountLog| {
        let mut devices = log.standing().devices();
        let (_, device) = devices.find(|(device, _)| **device == key(WATCH)).unwrap();
        (device.approved_by, device.depth)
    };
    log.say(PHONE, approval(WATCH));
    assert_eq!(parent(&log), (key(TABLET), 3));
    log.say(LAPTOP, approval(WATCH));
    assert_eq!(parent(&log), (key(LAPTOP), 2));
}

#[test]
fn the_recovery_key_brings_an_account_back_without_any_device() {
    let mut log = family();
    let cut = log.cut(&key(LAPTOP));
    log.say(RECOVERY, revocation(LAPTOP, cut));
    log.say(RECOVERY, revocation(PHONE, BTreeMap::new()));
    assert_eq!(log.approved(), [0; 0]);
    log.say(RECOVERY, approval(WATCH));
    assert_eq!(log.approved(), [WATCH]);
    let standing = log.standing();
    assert!(!standing.may_revoke(&key(WATCH), &key(LAPTOP)));
    assert!(standing.may_revoke(&key(RECOVERY), &key(WATCH)));
}

#[test]
fn a_device_ends_itself_and_nobody_who_has_its_key_brings_anything_back() {
    let mut log = founded();
    log.say(LAPTOP, approval(PHONE));
    let cut = log.cut(&key(LAPTOP));
    log.say(LAPTOP, revocation(LAPTOP, cut));
    let by_itself = |log: &AccountLog| {
        let mut devices = log.standing().devices();
        let (_, laptop) = devices.find(|(device, _)| **device == key(LAPTOP)).unwrap();
        matches!(&laptop.state, State::Revoked { by, .. } if *by == key(LAPTOP))
    };
    assert!(by_itself(&log));
    assert_eq!(log.approved(), [PHONE]);
    log.say(LAPTOP, approval(TABLET));
    assert_eq!(log.approved(), [PHONE]);
    // A later end with a larger cut, and one in another run with an earlier date.
    let cut = log.cut(&key(LAPTOP));
    log.say(LAPTOP, revocation(LAPTOP, cut));
    let approve = log.write(approval(WATCH), run(5), Clock::default(), &secret(LAPTOP));
    log.accept(approve).unwrap();
    let cut = log.cut(&key(LAPTOP));
    let end = log.write(
        revocation(LAPTOP, cut),
        run(5),
        Clock::default(),
        &secret(LAPTOP),
    );
    log.accept(end).unwrap();
    assert_eq!(log.approved(), [PHONE]);
}

#[test]
fn t42_a_device_that_contradicts_itself_says_nothing_from_there_on() {
    let mut log = family();
    let mut other = family();
    log.say(PHONE, approval(WATCH));
    log.say(PHONE, approval(5));
    other.say(PHONE, approval(6));
    let fork = other.entry(PHONE, approval(7));
    let first = other.entries().last().cloned();
    let entries: Vec<_> = other.entries().cloned().collect();
    assert!(first.is_some());
    for entry in entries {
        log.accept(entry).unwrap();
    }
    assert_eq!(
        log.accept(fork),
        Err(LogError::Signature),
        "it follows another one"
    );
    assert_eq!(log.approved(), [LAPTOP, PHONE, TABLET]);
    let next = log.entry(PHONE, approval(8));
    assert_eq!(log.accept(next), Err(LogError::Forked));
    // Whoever hears of both sides comes to the same.
    for entry in log.entries() {
        let _ = other.accept(entry.clone());
    }
    assert_eq!(other.approved(), log.approved());
    assert_eq!(other.head(), log.head());
}

#[test]
fn what_is_not_signed_by_a_device_in_its_place_is_refused() {
    let mut log = family();
    let forged = log.write(approval(WATCH), run(0), Clock::from_bits(9), &secret(PHONE));
    let mut by_other = forged.clone();
    by_other.signature = Signature::from_bytes([1; 64]);
    assert_eq!(log.accept(by_other), Err(LogError::Signature));
    let stranger = log.entry(WATCH, approval(5));
    assert_eq!(log.accept(stranger), Err(LogError::Stranger));
    let mut ahead = forged.clone();
    ahead.id.sequence = ahead.id.sequence.next();
    assert_eq!(log.accept(ahead), Err(LogError::Gap));
    let nonce = [8; 32];
    let other = Genesis { nonce, ..genesis() };
    let second = log.entry(LAPTOP, AccountStatement::Genesis(other));
    assert_eq!(log.accept(second), Err(LogError::Genesis));
    // Entries are of one account.
    let mut elsewhere = AccountLog::found(other, run(0), Clock::from_bits(1), &secret(LAPTOP));
    let entry = elsewhere.entry(LAPTOP, approval(WATCH));
    elsewhere.say(LAPTOP, approval(PHONE));
    assert_eq!(log.accept(entry), Err(LogError::Signature));
    assert_eq!(log.accept(forged), Ok(Accepted::New));
}

#[test]
fn a_log_opens_with_its_own_beginning_alone() {
    let log = family();
    let entries: Vec<_> = log.entries().cloned().collect();
    let mut opened = AccountLog::open(log.id(), entries[0].clone()).unwrap();
    for entry in &entries {
        let bytes = entry.to_bytes();
        assert_eq!(AccountEntry::from_bytes(&bytes).as_ref(), Ok(entry));
        opened.accept(entry.clone()).unwrap();
    }
    assert_eq!(opened.head(), log.head());
    assert_eq!(opened.standing(), log.standing());
    let open = |id, entry: &AccountEntry| AccountLog::open(id, entry.clone()).map(|_| ());
    let other = AccountId::from_bytes([1; 32]);
    assert_eq!(open(other, &entries[0]), Err(LogError::Genesis));
    assert_eq!(open(log.id(), &entries[1]), Err(LogError::Genesis));
    let mut forged = entries[0].clone();
    forged.clock = Clock::from_bits(99);
    assert_eq!(open(log.id(), &forged), Err(LogError::Signature));
}

#[test]
fn a_device_has_the_last_name_that_it_or_one_above_gave_it() {
    let mut log = family();
    let name = |log: &AccountLog, n| {
        let mut devices = log.standing().devices();
        let (_, device) = devices.find(|(device, _)| **device == key(n)).unwrap();
        device.name.as_ref().map(ToString::to_string)
    };
    let call = |device, name: &str| AccountStatement::Approve {
        device: key(device),
        name: DeviceName::lossy(name),
    };
    assert_eq!(name(&log, LAPTOP), None);
    log.say(LAPTOP, call(LAPTOP, "desk"));
    log.say(TABLET, call(TABLET, "kitchen"));
    log.say(TABLET, call(LAPTOP, "stolen"));
    assert_eq!(name(&log, LAPTOP).as_deref(), Some("desk"));
    assert_eq!(name(&log, TABLET).as_deref(), Some("kitchen"));
    log.say(LAPTOP, call(TABLET, "bath"));
    assert_eq!(name(&log, TABLET).as_deref(), Some("bath"));
}

#[test]
fn a_thief_fills_its_own_room_and_nobody_elses() {
    let mut log = founded();
    log.say(LAPTOP, approval(PHONE));
    let cut = log.cut(&key(PHONE));
    let mut honest = log.clone();
    honest.say(PHONE, approval(TABLET));
    let kept = honest.cut(&key(PHONE));
    assert_ne!(cut, kept);
    let junk = |log: &AccountLog, n: u8| {
        log.write(approval(30), run(100 + n), Clock::default(), &secret(PHONE))
    };
    let full = ACCOUNT_ENTRIES_PER_DEVICE_MAX as u8;
    for n in 0..full {
        let entry = junk(&log, n);
        assert_eq!(log.accept(entry), Ok(Accepted::New));
    }
    let one_more = junk(&log, full);
    assert_eq!(log.accept(one_more), Err(LogError::TooMany));
    // What the owner leaves of it has room all the same.
    log.say(LAPTOP, revocation(PHONE, kept));
    for entry in honest.entries() {
        log.accept(entry.clone()).unwrap();
    }
    assert_eq!(log.approved(), [LAPTOP, TABLET]);
}

#[test]
fn of_too_many_devices_the_most_senior_count() {
    let mut log = founded();
    log.say(LAPTOP, approval(PHONE));
    // A thief has its devices approve others, each as many as it can.
    let mut next = 10_u8;
    let mut authors = vec![PHONE];
    while log.standing().devices().count() < ACCOUNT_DEVICES_MAX {
        let author = authors.remove(0);
        for _ in 0..40 {
            log.say(author, approval(next));
            authors.push(next);
            next += 1;
        }
    }
    assert_eq!(log.standing().devices().count(), ACCOUNT_DEVICES_MAX);
    log.say(LAPTOP, approval(TABLET));
    assert!(log.standing().is_approved(&key(TABLET)));
    assert_eq!(log.standing().devices().count(), ACCOUNT_DEVICES_MAX);
}

// ---- any order ---------------------------------------------------------------------------------

/// Whatever is said by whom, and in whichever order it comes: the same standing everywhere, and nobody is revoked by one
/// who may not.
#[test]
fn whoever_has_the_same_entries_has_the_same_standing() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let entries = history(&mut rng);
        let first = replica(&entries, &mut rng);
        for _ in 0..3 {
            let other = replica(&entries, &mut rng);
            assert_eq!(first.standing(), other.standing(), "seed {seed}");
            assert_eq!(first.head(), other.head(), "seed {seed}");
        }
        let devices: BTreeMap<_, _> = first.standing().devices().collect();
        for (device, it) in &devices {
            if let State::Revoked { by, .. } = &it.state {
                let mut above = Some(*device);
                while above.is_some_and(|above| above != by) {
                    above = above
                        .and_then(|above| devices.get(above))
                        .map(|it| &it.approved_by);
                }
                assert!(above.is_some(), "seed {seed}");
            }
        }
    }
}

/// Entries of devices that know different parts of the log, of which some are thieves: they revoke whom they like, go
/// on after they were revoked, begin new runs, contradict themselves and date entries as they like.
fn history(rng: &mut StdRng) -> Vec<AccountEntry> {
    let mut known: Vec<AccountLog> = (0..3).map(|_| founded()).collect();
    let mut entries: Vec<AccountEntry> = known[0].entries().cloned().collect();
    for _ in 0..rng.random_range(5..40) {
        let author = rng.random_range(0..8);
        let log = rng.random_range(0..known.len());
        let log = &mut known[log];
        let statement = if rng.random_bool(0.6) {
            approval(rng.random_range(1..8))
        } else {
            let device = rng.random_range(1..8);
            let mut cut = log.cut(&key(device));
            cut.retain(|_, _| rng.random_bool(0.8));
            revocation(device, cut)
        };
        let clock = Clock::from_bits(rng.random_range(0..50));
        let run = run(rng.random_range(0..2));
        let entry = log.write(statement, run, clock, &secret(author));
        if log.accept(entry.clone()).is_ok() {
            entries.push(entry);
        }
        if rng.random_bool(0.5) {
            let all = entries.clone();
            deliver(log, all, rng);
        }
    }
    entries
}

fn replica(entries: &[AccountEntry], rng: &mut StdRng) -> AccountLog {
    let mut log = AccountLog::open(genesis().id(), entries[0].clone()).unwrap();
    // Some hear of nearly all first, and of the rest from others.
    let part = rng.random_range(0..=entries.len());
    let some = entries.sample(rng, part).cloned().collect();
    deliver(&mut log, some, rng);
    deliver(&mut log, entries.to_vec(), rng);
    log
}

/// Brings entries in any order, until none is news any more.
fn deliver(log: &mut AccountLog, mut entries: Vec<AccountEntry>, rng: &mut StdRng) {
    loop {
        entries.shuffle(rng);
        let accepted = entries.iter().map(|entry| log.accept(entry.clone()));
        let news = accepted.filter(|it| matches!(it, Ok(Accepted::New | Accepted::Fork)));
        if news.count() == 0 {
            return;
        }
    }
}

// ---- the document ------------------------------------------------------------------------------

/// The example of PROTOCOL.md, section 9.2.
#[test]
fn the_log_of_an_account_has_the_bytes_of_the_protocol_document() {
    let mut log = founded();
    let name = DeviceName::lossy("phone");
    let device = key(PHONE);
    log.say(LAPTOP, AccountStatement::Approve { device, name });
    assert_eq!(documented("has the AccountId"), log.id().as_bytes());
    let entries: Vec<_> = log.entries().map(AccountEntry::to_bytes).collect();
    assert_eq!(documented("first entry:"), entries[0]);
    assert_eq!(documented("The second entry,"), entries[1]);
}

/// The bytes of an example, behind the words that introduce it.
fn documented(introduction: &str) -> Vec<u8> {
    let document = include_str!("../../../PROTOCOL.md");
    let (_, section) = document.split_once("## 9. Accounts").unwrap();
    let (_, example) = section.split_once(introduction).expect(introduction);
    let example = example.split("```").nth(1).unwrap();
    let words = example.split_whitespace();
    words
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}
