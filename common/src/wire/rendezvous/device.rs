//! A device's requests about itself and its account.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Enrolment, FailedLogins};
use crate::key::DeviceKey;

/// A logged-in device's request about itself or its account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceRequest {
    /// Requests a one-time code that lets a new device of this account log in during a block. Answered
    /// by `Admission`.
    Admit,
    /// Ends this session and revokes the device's token. Answered by `Done`.
    LogOut,
    /// Keeps the session from timing out. Answered by `Done`.
    KeepAlive,
    /// Tells that this device knows of an enrolment: it is not told of it at its next log-in. Answered by
    /// `Done`.
    Noted {
        /// The device that was enrolled.
        device_key: DeviceKey,
    },
}

/// The answer to a [`DeviceRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceAnswer {
    /// The request succeeded and has no result.
    Done,
    /// A one-time code.
    Admission {
        /// For a person to type at the new device.
        code: AdmissionCode,
        /// Seconds until the code expires.
        expires_in_s: u32,
    },
}

/// A notification about the account of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DevicePush {
    /// Log-ins from unknown devices failed.
    FailedLogins(FailedLogins),
    /// Another device was enrolled. Answered with [`DeviceRequest::Noted`] once the owner is told.
    Enrolled(Enrolment),
}

/// A one-time code that admits a new device: 50 random bits as ten characters, shown `xxxxx-xxxxx`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct AdmissionCode(u64);

/// Crockford's base 32: no letter that looks like a digit.
const CODE_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const CODE_LEN: u32 = 10;

impl AdmissionCode {
    /// Makes a code of the lowest 50 of 64 random bits.
    pub const fn from_random(bits: u64) -> Self {
        Self(bits & ((1 << (5 * CODE_LEN)) - 1))
    }
}

impl TryFrom<u64> for AdmissionCode {
    type Error = AdmissionCodeError;

    fn try_from(bits: u64) -> Result<Self, AdmissionCodeError> {
        let code = Self::from_random(bits);
        (code.0 == bits).then_some(code).ok_or(AdmissionCodeError)
    }
}

impl From<AdmissionCode> for u64 {
    fn from(code: AdmissionCode) -> Self {
        code.0
    }
}

impl fmt::Display for AdmissionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in (0..CODE_LEN).rev() {
            let digit = (self.0 >> (5 * place)) & 31;
            write!(f, "{}", CODE_ALPHABET[digit as usize] as char)?;
            if place == CODE_LEN / 2 {
                f.write_str("-")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AdmissionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdmissionCode(…)")
    }
}

impl FromStr for AdmissionCode {
    type Err = AdmissionCodeError;

    fn from_str(text: &str) -> Result<Self, AdmissionCodeError> {
        let mut bits = 0;
        let mut digits = 0;
        for c in text.bytes().filter(|c| *c != b'-') {
            let c = match c.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other => other,
            };
            let digit = CODE_ALPHABET.iter().position(|known| *known == c);
            bits = (bits << 5) | digit.ok_or(AdmissionCodeError)? as u64;
            digits += 1;
            if digits > CODE_LEN {
                return Err(AdmissionCodeError);
            }
        }
        if digits == CODE_LEN {
            Ok(Self(bits))
        } else {
            Err(AdmissionCodeError)
        }
    }
}

/// The text or number is not a one-time code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a one-time code has ten letters and digits, for example 7k2vq-x01mz")]
pub struct AdmissionCodeError;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONTROL_FRAME_LEN_MAX;
    use crate::wire::frame;

    #[test]
    fn codes_survive_their_text_and_forgive_look_alikes() {
        let code = AdmissionCode::from_random(0x1234_5678_9abc_def0);
        let text = code.to_string();
        assert_eq!(text.len(), 11);
        assert_eq!(text.parse::<AdmissionCode>().unwrap(), code);
        assert_eq!(
            "ooooo-llll1".parse(),
            "00000-11111".parse::<AdmissionCode>()
        );
        for bad in ["", "12345", "12345-6789u", "12345-678901"] {
            assert!(bad.parse::<AdmissionCode>().is_err(), "{bad:?}");
        }
    }

    /// It would be shown as ten characters that are another code.
    #[test]
    fn a_code_of_more_than_50_bits_does_not_decode() {
        for (bits, is_code) in [((1u64 << 50) - 1, true), (1 << 50, false)] {
            let mut out = Vec::new();
            frame::encode::<CONTROL_FRAME_LEN_MAX>(&bits, &mut out).unwrap();
            let body = &out[frame::PREFIX_LEN..];
            let decoded = frame::decode::<CONTROL_FRAME_LEN_MAX, AdmissionCode>(body);
            assert_eq!(decoded.is_ok(), is_code);
        }
    }
}
