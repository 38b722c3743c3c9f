//! What the entries of an account's log say.

use std::collections::BTreeMap;

use crate::id::DeviceName;
use crate::key::{DeviceKey, DeviceSecret};
use crate::limits::REVOCATION_RUNS_MAX;
use crate::log::{AccountId, ConversationId, Kind, RunId, Sequence};

/// Separates the hash of a genesis from all others: a context string of BLAKE3's key derivation.
const ID_CONTEXT: &str = "rdv 2026-11 account v1";
/// The same for the recovery key.
const RECOVERY_CONTEXT: &str = "rdv 2026-11 recovery key v1";
/// The same for the log of an account.
const LOG_CONTEXT: &str = "rdv 2026-11 account log v1";

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountStatement {
    /// The account begins.
    Genesis(Genesis),
    /// This is a device of the account. The name counts if the device itself or one above it gives it.
    Approve {
        /// Whose key is approved: any but the recovery key.
        device: DeviceKey,
        /// What its owner calls it.
        name: DeviceName,
    },
    /// This is a device of the account no longer.
    Revoke(Revocation),
}

/// The beginning of an account: 96 bytes, signed by its first device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The first device.
    pub first_device: DeviceKey,
    /// What can revoke every device and approve a new one when none is left.
    pub recovery: DeviceKey,
    /// Random, so that two accounts of one device are two.
    pub nonce: [u8; 32],
}

/// The end of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Whose key is revoked: the author's own or one below it, or it has no effect.
    pub device: DeviceKey,
    /// The last of its entries that count in this log, of each run that its revoker knows. At most
    /// [`REVOCATION_RUNS_MAX`]; nothing counts of runs that are not here.
    pub cut: BTreeMap<RunId, Sequence>,
}

impl Genesis {
    const LEN: usize = 96;

    /// Who the account is.
    pub fn id(&self) -> AccountId {
        AccountId::from_bytes(blake3::derive_key(ID_CONTEXT, &self.to_bytes()))
    }

    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(self.first_device.as_bytes());
        bytes[32..64].copy_from_slice(self.recovery.as_bytes());
        bytes[64..].copy_from_slice(&self.nonce);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let (first_device, rest) = device(bytes)?;
        let (recovery, nonce) = device(rest)?;
        if first_device == recovery {
            return Err(StatementError::Key);
        }
        let nonce = nonce.try_into().map_err(|_| StatementError::Length)?;
        Ok(Self {
            first_device,
            recovery,
            nonce,
        })
    }
}

/// The secret half of the recovery key that follows from the 128 random bits of a recovery code.
pub fn recovery_secret(code: &[u8; 16]) -> DeviceSecret {
    DeviceSecret::from_seed(blake3::derive_key(RECOVERY_CONTEXT, code))
}

/// The conversation that an account's log is.
pub(super) fn conversation(account: &AccountId) -> ConversationId {
    ConversationId::from_bytes(blake3::derive_key(LOG_CONTEXT, account.as_bytes()))
}

impl AccountStatement {
    /// The kind that its entry has.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Genesis(_) => Kind::GENESIS,
            Self::Approve { .. } => Kind::APPROVE,
            Self::Revoke(_) => Kind::REVOKE,
        }
    }

    /// The body of its entry, at most [`ACCOUNT_STATEMENT_LEN_MAX`](crate::limits::ACCOUNT_STATEMENT_LEN_MAX) bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Genesis(genesis) => genesis.to_bytes().to_vec(),
            Self::Approve { device, name } => {
                [&device.as_bytes()[..], name.as_str().as_bytes()].concat()
            }
            Self::Revoke(Revocation { device, cut }) => {
                let mut bytes = device.as_bytes().to_vec();
                for (run, last) in cut {
                    bytes.extend(run.as_bytes());
                    bytes.extend(last.number().to_be_bytes());
                }
                bytes
            }
        }
    }

    /// Parses the body of an entry.
    ///
    /// # Errors
    ///
    /// [`StatementError`] if these are not the bytes of a statement, each of which has exactly one encoding.
    pub fn parse(kind: Kind, bytes: &[u8]) -> Result<Self, StatementError> {
        match kind {
            Kind::GENESIS => Genesis::parse(bytes).map(Self::Genesis),
            Kind::APPROVE => {
                let (device, name) = device(bytes)?;
                let name = String::from_utf8(name.to_vec()).map_err(|_| StatementError::Name)?;
                let name = DeviceName::try_from(name).map_err(|_| StatementError::Name)?;
                Ok(Self::Approve { device, name })
            }
            Kind::REVOKE => {
                let (device, cut) = device(bytes)?;
                let cut = parse_cut(cut)?;
                Ok(Self::Revoke(Revocation { device, cut }))
            }
            _ => Err(StatementError::Kind),
        }
    }
}

fn device(bytes: &[u8]) -> Result<(DeviceKey, &[u8]), StatementError> {
    let (key, rest) = bytes.split_first_chunk().ok_or(StatementError::Length)?;
    let key = DeviceKey::from_bytes(*key).map_err(|_| StatementError::Key)?;
    Ok((key, rest))
}

/// Runs in ascending order, none twice, each with the last entry that counts.
fn parse_cut(mut bytes: &[u8]) -> Result<BTreeMap<RunId, Sequence>, StatementError> {
    let mut cut = BTreeMap::new();
    while let Some((run, rest)) = bytes.split_first_chunk() {
        let (number, rest) = rest.split_first_chunk().ok_or(StatementError::Length)?;
        let run = RunId::from_bytes(*run);
        let last = Sequence::new(u64::from_be_bytes(*number)).ok_or(StatementError::Cut)?;
        let is_next = cut.last_key_value().is_none_or(|(before, _)| *before < run);
        if !is_next || cut.len() == REVOCATION_RUNS_MAX {
            return Err(StatementError::Cut);
        }
        cut.insert(run, last);
        bytes = rest;
    }
    if bytes.is_empty() {
        Ok(cut)
    } else {
        Err(StatementError::Length)
    }
}

/// Why bytes are no statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// It says something that this version does not know.
    #[error("the account's log says something that this version does not know; upgrade")]
    Kind,
    /// There are more or fewer bytes than it takes.
    #[error("a statement of the account's log is cut off, or too long")]
    Length,
    /// It names a weak key, or one key in two roles.
    #[error("a statement of the account's log names a key that none can have")]
    Key,
    /// The device's name is not one.
    #[error("a statement of the account's log has an unusable device name")]
    Name,
    /// The cut is out of order, or of too many runs.
    #[error("a revocation has a cut that none can have")]
    Cut,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> DeviceKey {
        DeviceSecret::from_seed([n; 32]).public()
    }

    fn genesis() -> Genesis {
        Genesis {
            first_device: key(1),
            recovery: key(2),
            nonce: [3; 32],
        }
    }

    fn run(n: u8) -> RunId {
        RunId::from_bytes([n; 16])
    }

    #[test]
    fn statements_survive_their_bytes() {
        let cut = [(run(4), Sequence::START), (run(9), Sequence::FIRST)];
        let statements = [
            AccountStatement::Genesis(genesis()),
            AccountStatement::Approve {
                device: key(4),
                name: DeviceName::lossy("Küche"),
            },
            AccountStatement::Revoke(Revocation {
                device: key(4),
                cut: cut.into(),
            }),
        ];
        for statement in statements {
            let bytes = statement.to_bytes();
            assert_eq!(
                AccountStatement::parse(statement.kind(), &bytes),
                Ok(statement)
            );
        }
    }

    #[test]
    fn what_is_no_statement_is_refused() {
        let parse = |kind, parts: &[&[u8]]| AccountStatement::parse(kind, &parts.concat());
        let bytes = *key(4).as_bytes();
        let weak = [0; 32];
        let entry = |n: u8, last: u64| [&[n; 16][..], &last.to_be_bytes()].concat();
        for (kind, parts, error) in [
            (Kind::TEXT, vec![&b""[..]], StatementError::Kind),
            (Kind(200), vec![], StatementError::Kind),
            (
                Kind::GENESIS,
                vec![&bytes[..], &bytes, &[0; 32]],
                StatementError::Key,
            ),
            (Kind::GENESIS, vec![&bytes[..]], StatementError::Length),
            (
                Kind::GENESIS,
                vec![&bytes[..], key(5).as_bytes(), &[0; 33]],
                StatementError::Length,
            ),
            (Kind::APPROVE, vec![&weak, b"x"], StatementError::Key),
            (Kind::APPROVE, vec![&bytes], StatementError::Name),
            (Kind::APPROVE, vec![&bytes, b"\xff"], StatementError::Name),
            (Kind::APPROVE, vec![&bytes, b"a\nb"], StatementError::Name),
            (Kind::REVOKE, vec![&bytes, b"x"], StatementError::Length),
            (
                Kind::REVOKE,
                vec![&bytes, &entry(1, 1), &entry(1, 2)],
                StatementError::Cut,
            ),
            (
                Kind::REVOKE,
                vec![&bytes, &entry(2, 1), &entry(1, 2)],
                StatementError::Cut,
            ),
            (
                Kind::REVOKE,
                vec![&bytes, &entry(1, u64::MAX)],
                StatementError::Cut,
            ),
        ] {
            assert_eq!(parse(kind, &parts), Err(error), "{kind:?}");
        }
    }

    #[test]
    fn a_cut_has_so_many_runs_and_no_more() {
        let cut = |runs: usize| {
            let mut bytes = key(4).as_bytes().to_vec();
            for number in 0..runs {
                bytes.extend((number as u128).to_be_bytes());
                bytes.extend([0; 8]);
            }
            AccountStatement::parse(Kind::REVOKE, &bytes)
        };
        assert!(cut(REVOCATION_RUNS_MAX).is_ok());
        assert_eq!(cut(REVOCATION_RUNS_MAX + 1), Err(StatementError::Cut));
    }

    #[test]
    fn an_account_is_its_genesis() {
        let id = genesis().id();
        let nonce = [4; 32];
        assert_ne!(id, Genesis { nonce, ..genesis() }.id());
        assert_ne!(conversation(&id).as_bytes(), id.as_bytes());
    }
}
