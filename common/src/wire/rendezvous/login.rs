//! Registration and log-in.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::AdmissionCode;
use crate::id::{AccountName, DeviceName};
use crate::key::{DeviceKey, Signature, Token};
use crate::limits::OPAQUE_MESSAGE_LEN_MAX;
use crate::time::UnixTime;

/// What a peer may ask before it has logged in, and only then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginRequest {
    /// Starts the registration of an account. Answered by `RegisterChallenge`.
    RegisterStart {
        /// The name wanted.
        account: AccountName,
        /// OPAQUE RegistrationRequest.
        message: OpaqueMessage,
    },
    /// Ends the registration. Answered by `Registered`; the peer then logs in.
    RegisterFinish {
        /// OPAQUE RegistrationRecord.
        upload: OpaqueMessage,
        /// How the password was stretched for it.
        stretch: StretchVersion,
    },
    /// Starts a password log-in. Answered by `LoginChallenge`.
    LoginStart(LoginStart),
    /// Ends a password log-in. Answered by `LoggedIn`.
    LoginFinish {
        /// OPAQUE KE3.
        ke3: OpaqueMessage,
    },
    /// Logs an enrolled device in. Answered by `LoggedIn`.
    TokenLogin(TokenLogin),
}

/// The answer to a [`LoginRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginAnswer {
    /// Registration goes on.
    RegisterChallenge {
        /// OPAQUE RegistrationResponse.
        message: OpaqueMessage,
    },
    /// The account exists now.
    Registered,
    /// The log-in goes on. Whether the password is right the peer finds out from this.
    LoginChallenge {
        /// OPAQUE KE2.
        ke2: OpaqueMessage,
        /// How the password of this account is stretched.
        stretch: StretchVersion,
    },
    /// The session is logged in.
    LoggedIn(LoggedIn),
}

/// The first message of a password log-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginStart {
    /// Who logs in.
    pub account: AccountName,
    /// This device's key.
    pub device_key: DeviceKey,
    /// What its owner calls this device.
    pub device_name: DeviceName,
    /// OPAQUE KE1.
    pub ke1: OpaqueMessage,
    /// [`crate::key::Statement`] over KE1 in the role `PasswordLogin`.
    pub signature: Signature,
    /// A one-time code, if the owner has one.
    pub code: Option<AdmissionCode>,
}

/// A log-in without a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLogin {
    /// Who logs in.
    pub account: AccountName,
    /// This device's key.
    pub device_key: DeviceKey,
    /// The token of the last log-in.
    pub token: Token,
    /// [`crate::key::Statement`] over the token in the role `TokenLogin`.
    pub signature: Signature,
}

/// A log-in that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedIn {
    /// A new token, after a password log-in or when the old one is due for renewal.
    pub token: Option<Token>,
    /// Failed log-ins since this account's owner was last told.
    pub failed: Option<FailedLogins>,
}

/// Failed password log-ins from devices that the account does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLogins {
    /// How many.
    pub count: u32,
    /// When the last one was.
    pub last: UnixTime,
    /// Seconds for which strangers are blocked now; 0 when they are not.
    pub blocked_for_s: u32,
}

/// An OPAQUE message, opaque also to this layer: at most [`OPAQUE_MESSAGE_LEN_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct OpaqueMessage(Vec<u8>);

impl OpaqueMessage {
    /// The bytes.
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

/// An OPAQUE message is longer than any of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an OPAQUE message has at most {OPAQUE_MESSAGE_LEN_MAX} bytes")]
pub struct OpaqueLengthError;

/// Which parameters stretch an account's password; see [`crate::password`].
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
