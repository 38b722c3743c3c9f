//! Who this account's devices are, and who another account is, as shown to people.

use common::id::{AccountName, DeviceName};
use serde::{Deserialize, Serialize};

/// Keys in JSON.
pub(super) mod hexadecimal {
    use common::key::DeviceKey;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        key: &DeviceKey,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let digits = key.as_bytes().iter().map(|byte| format!("{byte:02x}"));
        serializer.serialize_str(&digits.collect::<String>())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<DeviceKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        let key = bytes(&text).and_then(|bytes| DeviceKey::from_bytes(bytes).ok());
        key.ok_or_else(|| D::Error::custom("a recovery key has 64 hexadecimal digits"))
    }

    fn bytes(text: &str) -> Option<[u8; 32]> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(bytes)
    }
}

/// The devices of this account, by its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicesView {
    /// The account's identity; `None` if it has none yet: [`Command::Found`](super::Command::Found).
    pub identity: Option<String>,
    /// Those that wait for approval first, then the approved ones, then the revoked ones; of each kind this device
    /// first, then by name.
    pub devices: Vec<OwnDevice>,
}

/// A device that is, was, or wants to be one of this account's.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnDevice {
    /// The name that whoever approved it gave it, or else that it gives itself, as far as that is known.
    pub name: Option<DeviceName>,
    /// Fingerprint of its key.
    pub fingerprint: String,
    pub state: OwnDeviceState,
    /// Fingerprint of the key that approved it: another device's, or the recovery key.
    pub approved_by: Option<String>,
    /// Tells whether it is this device.
    pub is_this: bool,
    /// Tells whether it is logged in now.
    pub is_online: bool,
}

/// Whether a device is one of its account's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnDeviceState {
    /// It has the password, and nobody has approved it.
    Waiting,
    /// It is one of the account's.
    Approved,
    /// It was one of the account's.
    Revoked,
}

/// What two people compare to know that nobody is between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafetyView {
    /// The other account.
    pub account: AccountName,
    /// 60 digits in twelve groups: the same at both sides.
    pub number: String,
    /// The person has compared it.
    pub is_verified: bool,
    /// How many approved devices the account has.
    pub devices: usize,
    /// The server names another account by this name than the one that is known; the number with that one.
    pub other: Option<String>,
}
