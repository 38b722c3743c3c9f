//! Registration and log-in.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::AdmissionCode;
use crate::id::{AccountName, DeviceName};
use crate::key::{DeviceKey, Signature, Token};
use crate::limits::OPAQUE_MESSAGE_LEN_MAX;
use crate::time::UnixTime;

/// A step of registration or log-in, allowed only before the log-in.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginRequest {
    /// Starts the registration of an account. Answered by `RegisterChallenge`.
    RegisterStart {
        account: AccountName,
        /// OPAQUE RegistrationRequest.
        message: OpaqueMessage,
    },
    /// Completes the registration. Answered by `Registered`; the peer then logs in.
    RegisterFinish {
        /// OPAQUE RegistrationRecord.
        upload: OpaqueMessage,
        /// The parameters with which the password was stretched.
        stretch: StretchVersion,
    },
    /// Starts a password log-in. Answered by `LoginChallenge`.
    LoginStart(LoginStart),
    /// Completes a password log-in. Answered by `LoggedIn`.
    LoginFinish {
        /// OPAQUE KE3.
        ke3: OpaqueMessage,
    },
    /// Logs in an enrolled device without a password. Answered by `LoggedIn`.
    TokenLogin(TokenLogin),
}

/// The answer to a [`LoginRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginAnswer {
    /// Continues a registration.
    RegisterChallenge {
        /// OPAQUE RegistrationResponse.
        message: OpaqueMessage,
    },
    /// The account was created.
    Registered,
    /// Continues a password log-in. The peer learns from it whether the password is right.
    LoginChallenge {
        /// OPAQUE KE2.
        ke2: OpaqueMessage,
        /// The parameters with which this account's password is stretched.
        stretch: StretchVersion,
    },
    /// The connection is logged in.
    LoggedIn(LoggedIn),
}

/// The first message of a password log-in.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginStart {
    pub account: AccountName,
    pub device_key: DeviceKey,
    /// The name that its owner gave the device.
    pub device_name: DeviceName,
    /// OPAQUE KE1.
    pub ke1: OpaqueMessage,
    /// [`crate::key::Statement`] over KE1 in the role `PasswordLogin`.
    pub signature: Signature,
    /// A one-time code, which lets the log-in past a block.
    pub code: Option<AdmissionCode>,
}

/// A log-in without a password.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLogin {
    pub account: AccountName,
    pub device_key: DeviceKey,
    /// The newest token that the server issued to this device.
    pub token: Token,
    /// [`crate::key::Statement`] over the token in the role `TokenLogin`.
    pub signature: Signature,
}

/// The result of a successful log-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedIn {
    /// A new token, after a password log-in or if the old one was due for renewal.
    pub token: Option<Token>,
    /// Failed log-ins since this account's owner was last told.
    pub failed: Option<FailedLogins>,
    /// Devices that were enrolled while this one was away and that it has not noted, oldest first. At most
    /// [`ENROLMENTS_UNTOLD_MAX`](crate::limits::ENROLMENTS_UNTOLD_MAX).
    pub enrolled: Vec<Enrolment>,
}

/// Another device that was enrolled at the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Chosen by whoever enrolled it.
    pub device_name: DeviceName,
    /// It may be enrolled no longer.
    pub device_key: DeviceKey,
    /// When it was, by the server's clock.
    pub at: UnixTime,
}

/// Failed password log-ins from devices that the account does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLogins {
    /// Number of failures since the owner was last told.
    pub count: u32,
    /// When the latest one was, by the server's clock.
    pub last: UnixTime,
    /// Seconds for which unknown devices remain blocked; 0 if they are not.
    pub blocked_for_s: u32,
}

/// A message of OPAQUE (RFC 9807), at most [`OPAQUE_MESSAGE_LEN_MAX`] bytes. This layer does not parse it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct OpaqueMessage(Vec<u8>);

impl OpaqueMessage {
    /// The message as RFC 9807 serialises it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for OpaqueMessage {
    type Error = OpaqueLengthError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, OpaqueLengthError> {
        if bytes.len() > OPAQUE_MESSAGE_LEN_MAX {
            return Err(OpaqueLengthError);
        }
        Ok(Self(bytes))
    }
}

impl From<OpaqueMessage> for Vec<u8> {
    fn from(message: OpaqueMessage) -> Self {
        message.0
    }
}

impl fmt::Debug for OpaqueMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpaqueMessage({} bytes)", self.0.len())
    }
}

/// The message is longer than [`OPAQUE_MESSAGE_LEN_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an OPAQUE message has at most {OPAQUE_MESSAGE_LEN_MAX} bytes")]
pub struct OpaqueLengthError;

/// Numbers the parameters with which a password is stretched; see
/// [`STRETCH_CURRENT`](crate::password::STRETCH_CURRENT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StretchVersion(pub u8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONTROL_FRAME_LEN_MAX;
    use crate::wire::frame;

    #[test]
    fn t16_oversized_opaque_messages_do_not_decode() {
        let mut out = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&vec![0u8; OPAQUE_MESSAGE_LEN_MAX + 1], &mut out)
            .unwrap();
        let body = &out[frame::PREFIX_LEN..];
        assert!(frame::decode::<CONTROL_FRAME_LEN_MAX, OpaqueMessage>(body).is_err());
    }
}
