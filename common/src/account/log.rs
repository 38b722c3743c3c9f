//! All entries of an account.

use std::collections::BTreeMap;

use super::chain::{Accepted, Chain};
use super::entry::AccountEntry;
use super::standing::Standing;
use super::statement::{AccountStatement, Genesis};
use crate::key::{DeviceKey, DeviceSecret};
use crate::limits::ACCOUNT_ENTRIES_PER_DEVICE_MAX;
use crate::log::{AccountId, ChainId, Clock, EntryId, HeaderHash, RunId, Sequence};

/// The log of one account, as far as it is known, and what follows from it.
///
/// ```
/// use common::account::{AccountLog, AccountStatement, Genesis};
/// use common::id::DeviceName;
/// use common::key::DeviceSecret;
/// use common::log::{Clock, RunId};
///
/// let [laptop, recovery, phone] = [1, 2, 3].map(|n| DeviceSecret::from_seed([n; 32]));
/// let genesis = Genesis {
///     first_device: laptop.public(),
///     recovery: recovery.public(),
///     nonce: [0; 32],
/// };
/// let run = RunId::from_bytes([0; 16]);
/// let mut log = AccountLog::found(genesis, run, Clock::from_bits(1), &laptop);
/// let statement = AccountStatement::Approve {
///     device: phone.public(),
///     name: DeviceName::lossy("phone"),
/// };
/// let entry = log.write(statement, run, Clock::from_bits(2), &laptop);
/// log.accept(entry)?;
/// assert!(log.standing().is_approved(&phone.public()));
/// # Ok::<(), common::account::LogError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AccountLog {
    id: AccountId,
    genesis: Genesis,
    chains: BTreeMap<ChainId, Chain>,
    standing: Standing,
}

impl AccountLog {
    /// Begins an account. `secret` is that of the first device.
    pub fn found(genesis: Genesis, run: RunId, clock: Clock, secret: &DeviceSecret) -> Self {
        let account = genesis.id();
        let id = EntryId {
            chain: ChainId {
                device: genesis.first_device,
                run,
            },
            sequence: Sequence::FIRST,
        };
        let said = (clock, AccountStatement::Genesis(genesis));
        let entry = AccountEntry::sign(&account, id, HeaderHash::NONE, said, secret);
        Self::begin(account, genesis, entry)
    }

    /// Takes the first entry of the log of `account`.
    ///
    /// # Errors
    ///
    /// [`LogError`] if it is not this account's, or not signed by its first device.
    pub fn open(account: AccountId, entry: AccountEntry) -> Result<Self, LogError> {
        let AccountStatement::Genesis(genesis) = entry.statement else {
            return Err(LogError::Genesis);
        };
        let is_first = entry.id.sequence == Sequence::FIRST;
        let is_own = entry.id.chain.device == genesis.first_device;
        if genesis.id() != account || !is_first || !is_own {
            return Err(LogError::Genesis);
        }
        if !entry.is_sealed(&entry.hash(&account, HeaderHash::NONE)) {
            return Err(LogError::Signature);
        }
        Ok(Self::begin(account, genesis, entry))
    }

    fn begin(id: AccountId, genesis: Genesis, entry: AccountEntry) -> Self {
        let hash = entry.hash(&id, HeaderHash::NONE);
        let chain = Chain {
            entries: vec![(entry.clone(), hash)],
            fork: None,
        };
        let chains = BTreeMap::from([(entry.id.chain, chain)]);
        Self {
            id,
            genesis,
            standing: Standing::of(&genesis, &chains),
            chains,
        }
    }

    /// Takes an entry that anybody has brought.
    ///
    /// # Errors
    ///
    /// [`LogError`] if it is not to be taken, or not now: what it follows, and the approval of its author, come first.
    pub fn accept(&mut self, entry: AccountEntry) -> Result<Accepted, LogError> {
        let author = entry.id.chain.device;
        if !self.standing.is_author(&author) {
            return Err(LogError::Stranger);
        }
        if let AccountStatement::Genesis(genesis) = &entry.statement
            && *genesis != self.genesis
        {
            return Err(LogError::Genesis);
        }
        let chain = self.chains.get(&entry.id.chain);
        let known = chain.map_or(0, |chain| chain.entries.len());
        let place = entry.id.sequence.previous().number();
        let place = usize::try_from(place).map_err(|_| LogError::Gap)?;
        if place > known {
            return Err(LogError::Gap);
        }
        let previous = match (place.checked_sub(1), chain) {
            (Some(before), Some(chain)) => chain.entries[before].1,
            (_, _) => HeaderHash::NONE,
        };
        let hash = entry.hash(&self.id, previous);
        let same_place = chain.and_then(|chain| chain.entries.get(place));
        if same_place.is_some_and(|(_, known)| *known == hash) {
            return Ok(Accepted::Known);
        }
        if same_place.is_none() {
            self.check_room(&entry.id)?;
        }
        if !entry.is_sealed(&hash) {
            return Err(LogError::Signature);
        }
        let chain = self.chains.entry(entry.id.chain).or_default();
        let accepted = chain.insert(place, entry, hash);
        if accepted != Accepted::Known {
            self.standing = Standing::of(&self.genesis, &self.chains);
        }
        Ok(accepted)
    }

    /// Tells whether a device may add another entry at the end of a run.
    fn check_room(&self, id: &EntryId) -> Result<(), LogError> {
        let chain = self.chains.get(&id.chain);
        if chain.is_some_and(|chain| chain.fork.is_some()) {
            return Err(LogError::Forked);
        }
        // What a revocation leaves has room even if the device has written a lot after it.
        let room = match self.standing.is_within_cut(id) {
            Some(true) => 2 * ACCOUNT_ENTRIES_PER_DEVICE_MAX,
            Some(false) | None => ACCOUNT_ENTRIES_PER_DEVICE_MAX,
        };
        let of_device = self.of_device(&id.chain.device);
        let count: usize = of_device.map(|(_, chain)| chain.entries.len()).sum();
        if count < room {
            Ok(())
        } else {
            Err(LogError::TooMany)
        }
    }

    /// Signs an entry at the end of a run. It counts, here as anywhere, once it is [accepted](Self::accept).
    pub fn write(
        &self,
        statement: AccountStatement,
        run: RunId,
        clock: Clock,
        secret: &DeviceSecret,
    ) -> AccountEntry {
        let device = secret.public();
        let chain = ChainId { device, run };
        let known = self.chains.get(&chain);
        let count = known.map_or(0, |chain| chain.entries.len());
        let last = known.and_then(|chain| chain.entries.last());
        let previous = last.map_or(HeaderHash::NONE, |(_, hash)| *hash);
        let sequence = Sequence::FIRST.plus(count);
        let id = EntryId { chain, sequence };
        AccountEntry::sign(&self.id, id, previous, (clock, statement), secret)
    }

    /// Up to where a device has written what is known, as a revocation without reproach has it.
    pub fn cut(&self, device: &DeviceKey) -> BTreeMap<RunId, Sequence> {
        let chains = self.of_device(device);
        chains
            .map(|(id, chain)| (id.run, Sequence::START.plus(chain.count())))
            .collect()
    }

    /// Who the account is.
    pub const fn id(&self) -> AccountId {
        self.id
    }

    /// How the account began.
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Who is a device of the account now.
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// All entries of the devices that there are or were, void ones, too, in an order in which another log accepts
    /// them.
    pub fn entries(&self) -> impl Iterator<Item = &AccountEntry> {
        let authors = self.standing.authors();
        authors.flat_map(|author| {
            self.of_device(author).flat_map(|(_, chain)| {
                let entries = chain.entries.iter().map(|(entry, _)| entry);
                // The entry that a fork contradicts is part of its proof.
                let has_fork = usize::from(chain.fork.is_some());
                entries.take(chain.count() + has_fork).chain(&chain.fork)
            })
        })
    }

    /// A hash over what is known and undisputed: two logs with the same one say the same.
    pub fn head(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (id, chain) in self
            .standing
            .authors()
            .flat_map(|author| self.of_device(author))
        {
            let last = chain.undisputed().last();
            let last = last.map_or(HeaderHash::NONE, |(_, hash)| *hash);
            hasher.update(id.device.as_bytes());
            hasher.update(id.run.as_bytes());
            hasher.update(last.as_bytes());
            hasher.update(&[u8::from(chain.fork.is_some())]);
        }
        hasher.finalize().into()
    }

    fn of_device(&self, device: &DeviceKey) -> impl Iterator<Item = (&ChainId, &Chain)> {
        let first = ChainId {
            device: *device,
            run: RunId::from_bytes([0; 16]),
        };
        let chains = self.chains.range(first..);
        chains.take_while(move |(chain, _)| chain.device == first.device)
    }
}

/// Why an entry is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It is of another account, or a second beginning.
    #[error("the log is that of another account")]
    Genesis,
    /// Its author has not signed it, or not at this place.
    #[error("an entry of the account's log is forged")]
    Signature,
    /// Its author is no device of the account, as far as is known.
    #[error("an entry of the account's log is from no device of the account")]
    Stranger,
    /// An entry before it is missing.
    #[error("an entry of the account's log is missing")]
    Gap,
    /// Its author has contradicted itself before it.
    #[error("an entry of the account's log is void: its device has contradicted itself")]
    Forked,
    /// Its author has written too many.
    #[error("a device has at most {ACCOUNT_ENTRIES_PER_DEVICE_MAX} entries in the account's log")]
    TooMany,
}

#[cfg(test)]
mod tests;
