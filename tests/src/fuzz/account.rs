//! Logs of an account: devices that say what they like, thieves and forgers among them.

use common::account::{
    Accepted, AccountEntry, AccountLog, AccountStatement, Genesis, Revocation, State,
};
use common::id::DeviceName;
use common::key::DeviceSecret;
use common::limits::ACCOUNT_DEVICES_MAX;
use common::log::{Clock, RunId};

use super::feed::Feed;

/// Keys: the recovery key, the first device, and others.
const KEYS: u8 = 8;
/// Copies of the log, each of which knows another part of it.
const LOGS: usize = 3;
/// What is written in one run, so that no device runs out of room.
const ENTRIES_MAX: usize = 48;

pub(super) fn account(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let secrets = [0; KEYS as usize];
    let secrets: Vec<_> = (1..)
        .zip(secrets)
        .map(|(n, _)| DeviceSecret::from_seed([n; 32]))
        .collect();
    let genesis = Genesis {
        first_device: secrets[1].public(),
        recovery: secrets[0].public(),
        nonce: [0; 32],
    };
    let run = RunId::from_bytes([0; 16]);
    let log = AccountLog::found(genesis, run, Clock::from_bits(1), &secrets[1]);
    let mut logs = vec![log.clone(); LOGS];
    let mut entries: Vec<AccountEntry> = log.entries().cloned().collect();
    while !feed.is_empty() {
        let log = feed.below(LOGS);
        match feed.below(5) {
            0 | 1 if entries.len() < ENTRIES_MAX => {
                entries.extend(write(&mut logs[log], &secrets, &mut feed));
            }
            2 => {
                let known = &entries[feed.below(entries.len())];
                let _ = logs[log].accept(known.clone());
            }
            3 => forge(&mut logs[log], &entries, &mut feed),
            _ => parse(feed.piece(), &mut logs[log]),
        }
    }
    agree(&mut logs, &entries);
}

/// An entry of a log that one of three devices has begun, perhaps one that revokes another of them.
pub(super) fn any_entry(feed: &mut Feed<'_>) -> AccountEntry {
    let secret = |n: usize| DeviceSecret::from_seed([n as u8 + 1; 32]);
    let first = feed.below(3);
    let genesis = Genesis {
        first_device: secret(first).public(),
        recovery: secret(8).public(),
        nonce: [0; 32],
    };
    let run = RunId::from_bytes([0; 16]);
    let mut log = AccountLog::found(genesis, run, Clock::from_bits(1), &secret(first));
    let author = if feed.flag() { first } else { 8 };
    let mut last = log.entries().next().cloned();
    for number in 0..feed.below(4) {
        let device = secret(number).public();
        let statement = if feed.flag() {
            let name = DeviceName::lossy("phone");
            AccountStatement::Approve { device, name }
        } else {
            let cut = log.cut(&device);
            AccountStatement::Revoke(Revocation { device, cut })
        };
        let clock = Clock::from_bits(number as u64 + 2);
        let entry = log.write(statement, run, clock, &secret(author));
        let _ = log.accept(entry.clone());
        last = Some(entry);
    }
    last.expect("a log has a first entry")
}

/// Somebody signs something, and it is taken if it may be.
fn write(
    log: &mut AccountLog,
    secrets: &[DeviceSecret],
    feed: &mut Feed<'_>,
) -> Option<AccountEntry> {
    let secret = &secrets[feed.below(secrets.len())];
    let device = secrets[feed.below(secrets.len())].public();
    let statement = if feed.flag() {
        let name = DeviceName::lossy(&format!("device {}", feed.byte()));
        AccountStatement::Approve { device, name }
    } else {
        let mut cut = log.cut(&device);
        if feed.flag() {
            cut.pop_last();
        }
        AccountStatement::Revoke(Revocation { device, cut })
    };
    let run = RunId::from_bytes([feed.byte() & 1; 16]);
    let clock = Clock::from_bits(feed.byte().into());
    let entry = log.write(statement, run, clock, secret);
    log.accept(entry.clone()).ok().map(|_| entry)
}

/// A known entry with one byte changed is nobody's.
fn forge(log: &mut AccountLog, entries: &[AccountEntry], feed: &mut Feed<'_>) {
    let mut bytes = entries[feed.below(entries.len())].to_bytes();
    let at = usize::from(feed.byte()) % bytes.len();
    let flip = feed.byte();
    bytes[at] ^= flip;
    let Ok(forged) = AccountEntry::from_bytes(&bytes) else {
        return;
    };
    let taken = log.accept(forged);
    assert!(
        flip == 0 || !matches!(taken, Ok(Accepted::New | Accepted::Fork)),
        "a forgery is taken"
    );
}

/// What parses has one encoding.
fn parse(bytes: &[u8], log: &mut AccountLog) {
    if let Ok(entry) = AccountEntry::from_bytes(bytes) {
        assert_eq!(entry.to_bytes(), bytes);
        let _ = log.accept(entry);
    }
}

/// Whoever has everything comes to the same, and nobody was revoked by one who may not.
fn agree(logs: &mut [AccountLog], entries: &[AccountEntry]) {
    for log in &mut *logs {
        let is_news = |accepted| matches!(accepted, Ok(Accepted::New | Accepted::Fork));
        while entries
            .iter()
            .filter(|entry| is_news(log.accept((*entry).clone())))
            .count()
            > 0
        {}
        let standing = log.standing();
        assert!(standing.devices().count() <= ACCOUNT_DEVICES_MAX);
        for (device, it) in standing.devices() {
            if let State::Revoked { by, .. } = &it.state {
                assert!(standing.may_revoke(by, device), "revoked by one below");
            }
        }
    }
    let (first, others) = logs.split_first().expect("there are some");
    for other in others {
        assert_eq!(first.head(), other.head(), "they differ");
        assert_eq!(first.standing(), other.standing(), "they judge otherwise");
    }
    let copy = first.entries().cloned().collect::<Vec<_>>();
    let mut again = AccountLog::open(first.id(), entries[0].clone()).expect("it begins so");
    for entry in copy {
        let taken = again.accept(entry);
        assert!(taken.is_ok(), "{taken:?}");
    }
    assert_eq!(again.head(), first.head(), "the order does not do");
}

#[cfg(test)]
mod tests {
    use super::super::seeds;
    use super::account;

    #[test]
    fn noise_finds_nothing() {
        for n in 0..200 {
            account(&seeds::noise(n, 400));
        }
    }
}
