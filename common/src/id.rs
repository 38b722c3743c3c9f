//! Identifiers of accounts, devices, messages and transfers.
//!
//! Each is validated once, when it is parsed, and is valid from then on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{ACCOUNT_NAME_LEN_MAX, DEVICE_NAME_LEN_MAX};
use crate::text::beginning;

/// The name of an account: 1 to 32 ASCII letters, digits, `.`, `_` or `-`, starting with a letter
/// or digit. Case-insensitive: names are kept in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(String);

impl AccountName {
    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > ACCOUNT_NAME_LEN_MAX {
            return Err(NameError::Length);
        }
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if !text.bytes().all(plain) || !text.as_bytes()[0].is_ascii_alphanumeric() {
            return Err(NameError::Character);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// Why a text cannot be an account name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty or longer than [`ACCOUNT_NAME_LEN_MAX`].
    #[error("an account name has 1 to {ACCOUNT_NAME_LEN_MAX} characters")]
    Length,
    /// It has a character other than letters, digits, `.`, `_` and `-`, or starts with one of those three.
    #[error(
        "an account name consists of the letters a-z, digits, '.', '_' and '-' and starts with a letter or digit"
    )]
    Character,
}

/// The name that a person gives a device, for example its host name: 1 to 64 bytes without control
/// characters, and without blanks at either end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

impl DeviceName {
    /// Makes a name of any text: removes control characters, truncates between grapheme clusters, and trims blanks at either end. If
    /// nothing is left, the name is `device`. A valid name stays as it is.
    pub fn lossy(text: &str) -> Self {
        let plain: String = text.chars().filter(|c| !c.is_control()).collect();
        let plain = plain.trim_start();
        let name = beginning(plain, DEVICE_NAME_LEN_MAX).trim_end();
        Self(if name.is_empty() { "device" } else { name }.to_owned())
    }

    /// The name, still untrusted: escape it with [`crate::text::inline`] before writing it to a terminal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceNameError;

    fn try_from(text: String) -> Result<Self, DeviceNameError> {
        if Self::lossy(&text).0 == text {
            Ok(Self(text))
        } else {
            Err(DeviceNameError)
        }
    }
}

/// The device name is empty, too long, or has control characters or blanks at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a device name has 1 to {DEVICE_NAME_LEN_MAX} bytes, no control characters, and no blank at either end"
)]
pub struct DeviceNameError;

impl TryFrom<String> for AccountName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_newtype!(AccountName);
text_newtype!(DeviceName);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl Serialize for $name {
            /// 16 bytes in binary formats, 32 hexadecimal digits in human-readable ones.
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(Self)
                }
            }
        }

        impl $name {
            /// Makes an identifier of 128 random bits.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 128 bits.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() != 32 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
                    return Err(IdError);
                }
                u128::from_str_radix(text, 16)
                    .map(|bits| Self(bits.to_be_bytes()))
                    .map_err(|_| IdError)
            }
        }
    };
}

random_id!(
    /// Identifies a talk of two people, from asking for it to its end. Random.
    SessionId
);
random_id!(
    /// Identifies a message everywhere: on the wire, in the history and in receipts. Random, unless it is the message
    /// of an entry: [`MessageId::of_entry`].
    MessageId
);
random_id!(
    /// Identifies the transfer of a file from its offer to its end. Random.
    TransferId
);

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an identifier has 32 hexadecimal digits")]
pub struct IdError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_names_are_parsed_once_and_kept_in_lower_case() {
        assert_eq!("Alice".parse::<AccountName>().unwrap().as_str(), "alice");
        assert_eq!(
            "a.b_c-9".parse::<AccountName>().unwrap().as_str(),
            "a.b_c-9"
        );
        for bad in ["", "-a", ".a", "a b", "ä", "a\n", "a/b", &"x".repeat(33)] {
            assert!(bad.parse::<AccountName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(32).parse::<AccountName>().is_ok());
    }

    #[test]
    fn device_names_lose_what_a_terminal_must_not_see() {
        assert_eq!(DeviceName::lossy("a\u{1b}[31mb").as_str(), "a[31mb");
        assert_eq!(DeviceName::lossy("\n").as_str(), "device");
        assert_eq!(DeviceName::lossy(&"ä".repeat(40)).as_str().len(), 64);
        let families = "👨\u{200d}👩\u{200d}👧\u{200d}👦".repeat(3);
        assert_eq!(DeviceName::lossy(&families).as_str(), &families[..50]);
        assert!(DeviceName::try_from("a\u{7}".to_owned()).is_err());
        assert!(DeviceName::try_from(" a".to_owned()).is_err());
        assert!(DeviceName::try_from("x".repeat(65)).is_err());
    }

    /// Otherwise the server would reject the log-in of a device of that name as malformed.
    #[test]
    fn whatever_becomes_a_device_name_is_one_to_others() {
        let cut_at_a_blank = format!("{} b", "a".repeat(63));
        for text in [&cut_at_a_blank, "\u{7} a", "\u{1}   ", "a \u{7}"] {
            let name = DeviceName::lossy(text);
            assert_eq!(DeviceName::try_from(name.to_string()), Ok(name), "{text:?}");
        }
    }

    #[test]
    fn ids_survive_their_text() {
        let id = MessageId::from_bytes([0x0f; 16]);
        assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
        for bad in ["", "+f", &"g".repeat(32), &"+".repeat(32)] {
            assert!(bad.parse::<MessageId>().is_err(), "{bad:?}");
        }
    }
}
