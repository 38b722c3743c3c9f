//! Names under which devices announce themselves on a local network, by multicast DNS (RFC 6762) and DNS-SD
//! (RFC 6763).
//!
//! A name says who announces it to those who know the device's key, and nothing to others: it is a nonce
//! and a tag that depends on the nonce and the key. Who knows the key are contacts, who have it pinned, the
//! server, and whoever has seen the device in the server's directory. A name proves nothing: whoever hears
//! one can repeat it, and whoever knows the key can make one. Only a handshake proves a device.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::id::IdError;
use crate::key::DeviceKey;

/// The service that devices announce: its instances are named by [`LanName`]s.
pub const SERVICE: &str = "_rdv._udp.local.";
/// Prefix of the hash's input, to separate it from other uses of SHA-256.
const TAG_LABEL: &[u8] = b"rdv/1 local network name";

/// What a device is called on a local network for a while: 8 random bytes, and the tag of 8 bytes that the
/// device's key gives them. In text 32 hexadecimal digits.
///
/// ```
/// use common::key::DeviceSecret;
/// use common::lan::LanName;
///
/// let key = DeviceSecret::from_seed([1; 32]).public();
/// let name = LanName::new([0, 1, 2, 3, 4, 5, 6, 7], &key);
/// assert!(name.is_of(&key));
/// assert_eq!(name.to_string().parse(), Ok(name));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LanName {
    nonce: [u8; 8],
    tag: [u8; 8],
}

impl LanName {
    /// Names a device. `nonce` is random.
    pub fn new(nonce: [u8; 8], device_key: &DeviceKey) -> Self {
        let tag = tag(nonce, device_key);
        Self { nonce, tag }
    }

    /// Tells whether the name was made by someone who knows this key; a guess is right once in 2^64 times.
    pub fn is_of(&self, device_key: &DeviceKey) -> bool {
        tag(self.nonce, device_key) == self.tag
    }
}

/// The first bytes of the hash of everything that a name depends on.
fn tag(nonce: [u8; 8], device_key: &DeviceKey) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(TAG_LABEL);
    hash.update(device_key.as_bytes());
    hash.update(nonce);
    *hash
        .finalize()
        .first_chunk()
        .expect("a SHA-256 hash has 32 bytes")
}

impl fmt::Display for LanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [nonce, tag] = [self.nonce, self.tag].map(u64::from_be_bytes);
        write!(f, "{nonce:016x}{tag:016x}")
    }
}

impl fmt::Debug for LanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LanName {
    type Err = IdError;

    /// Parses the label of an instance. Upper and lower case are the same, as in all of DNS.
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 32 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(IdError);
        }
        let half = |digits| u64::from_str_radix(digits, 16).map(u64::to_be_bytes);
        let (nonce, tag) = text.split_at(16);
        match (half(nonce), half(tag)) {
            (Ok(nonce), Ok(tag)) => Ok(Self { nonce, tag }),
            (Err(_), _) | (_, Err(_)) => Err(IdError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DeviceSecret;

    fn key(seed: u8) -> DeviceKey {
        DeviceSecret::from_seed([seed; 32]).public()
    }

    /// The example of the protocol's document.
    #[test]
    fn a_name_has_the_documented_bytes() {
        let key = key(7);
        let name = LanName::new([0, 1, 2, 3, 4, 5, 6, 7], &key);
        assert_eq!(name.to_string(), "0001020304050607d73611381305c44a");
    }

    #[test]
    fn only_whoever_knows_the_key_recognises_a_name() {
        let name = LanName::new([9; 8], &key(1));
        assert!(name.is_of(&key(1)));
        assert!(!name.is_of(&key(2)));
        // Two names of one device have nothing in common for others.
        let next = LanName::new([10; 8], &key(1));
        assert_ne!((name.nonce, name.tag), (next.nonce, next.tag));
        assert_ne!(name.tag, next.tag);
    }

    #[test]
    fn a_label_is_32_hexadecimal_digits_and_nothing_else() {
        let name = LanName::new([0xab; 8], &key(1));
        let text = name.to_string();
        assert_eq!(text.len(), 32);
        assert_eq!(text.to_uppercase().parse(), Ok(name));
        let longer = format!("{text}0");
        let foreign = format!("{}é", &text[..30]);
        for bad in ["", "+f", &text[1..], &longer, &foreign, &"g".repeat(32)] {
            assert_eq!(bad.parse::<LanName>(), Err(IdError), "{bad:?}");
        }
    }
}
