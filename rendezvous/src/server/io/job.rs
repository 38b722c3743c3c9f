//! OPAQUE work, which takes too long for the loop and runs on another thread.

use std::fmt;

use common::id::AccountName;
use common::key::ChannelBinding;
use common::password::{
    ChallengeError, CredentialId, PasswordError, PasswordRecord, ServerLogin, ServerSetup,
};
use common::wire::rendezvous::OpaqueMessage;

/// OPAQUE work for another thread.
pub enum Job {
    /// Answers the start of a registration.
    Register {
        /// Drawn for this registration.
        credential: CredentialId,
        /// RegistrationRequest.
        message: OpaqueMessage,
    },
    /// Answers KE1.
    Login {
        /// Who logs in.
        account: AccountName,
        /// The account's record; `None` without an account.
        record: Option<PasswordRecord>,
        /// KE1.
        ke1: OpaqueMessage,
        /// The channel that the log-in holds for.
        channel_binding: ChannelBinding,
        /// Random, and never used again.
        seed: [u8; 32],
    },
    /// Checks KE3.
    Finish {
        /// What answering KE1 left.
        login: Box<ServerLogin>,
        /// KE3.
        ke3: OpaqueMessage,
    },
}

/// What a [`Job`] came to.
#[derive(Debug)]
pub enum Outcome {
    /// RegistrationResponse.
    Registered(Result<OpaqueMessage, PasswordError>),
    /// KE2, and what is needed to check KE3.
    Challenged(Result<(Box<ServerLogin>, OpaqueMessage), ChallengeError>),
    /// Whether KE3 proved the password.
    Finished(Result<(), PasswordError>),
}

impl Job {
    /// Does the work. A tenth of a millisecond of elliptic curves, or less.
    pub fn run(self, setup: &ServerSetup) -> Outcome {
        match self {
            Self::Register {
                credential,
                message,
            } => Outcome::Registered(setup.register(&credential, &message)),
            Self::Login {
                account,
                record,
                ke1,
                channel_binding,
                seed,
            } => {
                let record = record.as_ref();
                let answered = setup.login(&account, record, &ke1, &channel_binding, seed);
                Outcome::Challenged(answered.map(|(login, ke2)| (Box::new(login), ke2)))
            }
            Self::Finish { login, ke3 } => Outcome::Finished(login.finish(&ke3)),
        }
    }
}

impl fmt::Debug for Job {
    /// Never shows the seed: whoever has it can compute the server's secrets of this log-in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { .. } => f.write_str("Register(…)"),
            Self::Login { account, .. } => write!(f, "Login({account:?})"),
            Self::Finish { login, .. } => write!(f, "Finish({login:?})"),
        }
    }
}
