//! Seals: one signature for many entries.

use serde::{Deserialize, Serialize};

use super::{Header, HeaderHash, Sequence};
use crate::key::{DeviceKey, DeviceSecret, SealStatement, Signature};

/// An author's signature over the hash of one header, and by the chain over all before it in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The place of the header in its run.
    pub sequence: Sequence,
    /// The author's signature of a [`SealStatement`].
    pub signature: Signature,
}

impl Seal {
    /// Seals a header and all before it. `secret` is the one of the header's device.
    pub fn sign(secret: &DeviceSecret, header: &Header) -> Self {
        Self::sign_hash(secret, header.sequence, &header.hash())
    }

    /// The same by the header's place and hash.
    pub fn sign_hash(secret: &DeviceSecret, sequence: Sequence, header: &HeaderHash) -> Self {
        Self {
            sequence,
            signature: secret.sign(&SealStatement { header }),
        }
    }

    /// Tells whether `device` has signed this hash. The hash names the place, so that a seal with another place than
    /// the header's is none of it.
    pub fn is_by(&self, device: &DeviceKey, header: &HeaderHash) -> bool {
        device.verify(&SealStatement { header }, &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t42_a_seal_holds_for_one_header_of_one_device() {
        let secret = DeviceSecret::from_seed([7; 32]);
        let [hash, other] = [1, 2].map(|n| HeaderHash::from_bytes([n; 32]));
        let seal = Seal::sign_hash(&secret, Sequence::FIRST, &hash);
        assert!(seal.is_by(&secret.public(), &hash));
        assert!(!seal.is_by(&secret.public(), &other));
        assert!(!seal.is_by(&DeviceSecret::from_seed([8; 32]).public(), &hash));
    }
}
