//! Entries of an account's log, each sealed by its author.

use serde::{Deserialize, Serialize};

use super::statement::{AccountStatement, StatementError, conversation};
use crate::key::{DeviceSecret, Signature};
use crate::limits::ACCOUNT_STATEMENT_LEN_MAX;
use crate::log::{AccountId, Clock, EntryId, Header, HeaderError, HeaderHash, Outline, Seal};

/// An entry, with everything that it takes to verify it but the header before. On the wire it is
/// [its bytes](Self::to_bytes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct AccountEntry {
    /// Its author's chain, and its place in that.
    pub id: EntryId,
    /// When it was written, by its author.
    pub clock: Clock,
    /// What it says.
    pub statement: AccountStatement,
    /// The author's seal of its header.
    pub signature: Signature,
}

impl AccountEntry {
    /// Length of what stands before the statement.
    const PREFIX_LEN: usize = EntryId::LEN + Outline::LEN + 64;

    /// Signs an entry that follows `previous` in its chain. `secret` is the one of the chain's device.
    pub(super) fn sign(
        account: &AccountId,
        id: EntryId,
        previous: HeaderHash,
        (clock, statement): (Clock, AccountStatement),
        secret: &DeviceSecret,
    ) -> Self {
        let unsigned = Self {
            id,
            clock,
            statement,
            signature: Signature::from_bytes([0; 64]),
        };
        let hash = unsigned.hash(account, previous);
        let signature = Seal::sign_hash(secret, id.sequence, &hash).signature;
        Self {
            signature,
            ..unsigned
        }
    }

    /// The hash of its header, where that follows `previous`.
    pub(super) fn hash(&self, account: &AccountId, previous: HeaderHash) -> HeaderHash {
        let header = Header {
            conversation: conversation(account),
            chain: self.id.chain,
            sequence: self.id.sequence,
            previous,
            outline: self.outline(),
        };
        header.hash()
    }

    /// Tells whether its author has signed this hash.
    pub(super) fn is_sealed(&self, hash: &HeaderHash) -> bool {
        let seal = Seal {
            sequence: self.id.sequence,
            signature: self.signature,
        };
        seal.is_by(&self.id.chain.device, hash)
    }

    fn outline(&self) -> Outline {
        let outline = Outline::new(
            self.clock,
            self.statement.kind(),
            &self.statement.to_bytes(),
        );
        outline.expect("a statement is shorter than a body may be")
    }

    /// Its bytes: chain, place, outline, signature and statement, as they are stored and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        [
            &self.id.to_bytes()[..],
            &self.outline().to_bytes(),
            self.signature.as_bytes(),
            &self.statement.to_bytes(),
        ]
        .concat()
    }

    /// Parses these bytes. Whether its author has signed it is only known with the entry before it.
    ///
    /// # Errors
    ///
    /// [`EntryError`] if they are not those of an entry.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > Self::PREFIX_LEN + ACCOUNT_STATEMENT_LEN_MAX {
            return Err(EntryError::Length);
        }
        let (id, rest) = bytes.split_first_chunk().ok_or(EntryError::Length)?;
        let (outline, rest) = rest
            .split_first_chunk::<{ Outline::LEN }>()
            .ok_or(EntryError::Length)?;
        let (signature, body) = rest.split_first_chunk().ok_or(EntryError::Length)?;
        let outline = Outline::from_bytes(outline)?;
        if !outline.is_of(body) {
            return Err(EntryError::Body);
        }
        Ok(Self {
            id: EntryId::from_bytes(id).ok_or(EntryError::Place)?,
            clock: outline.clock,
            statement: AccountStatement::parse(outline.kind, body)?,
            signature: Signature::from_bytes(*signature),
        })
    }
}

impl From<AccountEntry> for Vec<u8> {
    fn from(entry: AccountEntry) -> Self {
        entry.to_bytes()
    }
}

impl TryFrom<Vec<u8>> for AccountEntry {
    type Error = EntryError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, EntryError> {
        Self::from_bytes(&bytes)
    }
}

/// Why bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// There are too many or too few.
    #[error("an entry of the account's log is cut off, or too long")]
    Length,
    /// It names a place where no entry can be, or a weak key.
    #[error("an entry of the account's log names a place where none can be")]
    Place,
    /// The statement is another than its author has signed.
    #[error("the statement of an entry is not the one that its author has signed")]
    Body,
    /// What its place does not say is malformed.
    #[error(transparent)]
    Outline(#[from] HeaderError),
    /// It says nothing that can be said.
    #[error(transparent)]
    Statement(#[from] StatementError),
}
