//! OPAQUE (RFC 9807), client and server: the server never learns a password.
//!
//! Suite: ristretto255 with SHA-512 for the OPRF and the key exchange (3DH), Argon2id (RFC 9106) on the
//! client as the key stretching function. The client's identity is the account name, the server's is
//! its OPAQUE public key, and the context is the channel binding, so that a log-in holds for one TLS
//! connection only.
//!
//! The server stores a [`PasswordRecord`] for each account and one [`ServerSetup`] for all of them.
//! Whoever steals both can test passwords offline, at the cost of one Argon2id each. Transcripts alone,
//! or records alone, are not enough.
//!
//! The OPRF key of a record is derived from a random [`CredentialId`], new for each registration, never
//! from the account's name: evaluations that somebody collected before the registration belong to
//! another key. A name without an account has a fake record, derived from the setup, and goes through the
//! same steps.

use std::fmt;

use opaque_ke::argon2::{Algorithm, Argon2, Params, Version};
use opaque_ke::errors::ProtocolError;
use opaque_ke::key_exchange::tripledh::TripleDh;
use opaque_ke::{
    CipherSuite, ClientLoginFinishParameters, ClientRegistrationFinishParameters,
    CredentialFinalization, CredentialRequest, CredentialResponse, Identifiers,
    RegistrationRequest, RegistrationResponse, RegistrationUpload, Ristretto255,
    ServerLoginParameters, ServerRegistration,
};
use rand_chacha03::ChaCha20Rng;
use rand_chacha03::rand_core::SeedableRng;
use zeroize::Zeroizing;

use crate::id::AccountName;
use crate::key::ChannelBinding;
use crate::limits::{PASSWORD_CHARS_MIN, PASSWORD_LEN_MAX};
use crate::wire::rendezvous::{OpaqueMessage, StretchVersion};

/// The parameters with which new passwords are stretched: Argon2id with 64 MiB, three passes and one
/// lane. RFC 9106 section 4 recommends the same memory and passes with four lanes, which need four cores.
pub const STRETCH_CURRENT: StretchVersion = StretchVersion(1);

/// Length of KE1, in bytes. The server checks it before it counts a log-in.
pub const KE1_LEN: usize = 96;

struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = Argon2<'static>;
}

/// The key stretching function with the parameters of `version`.
fn stretch(version: StretchVersion) -> Result<Argon2<'static>, PasswordError> {
    let params = match version {
        STRETCH_CURRENT => Params::new(64 * 1024, 3, 1, None),
        StretchVersion(_) => return Err(PasswordError::UnknownStretch),
    };
    let params = params.expect("the table holds valid parameters only");
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// A password in memory. Wiped when dropped, never shown.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes the password of an existing account, of at least one byte.
    ///
    /// # Errors
    ///
    /// [`PasswordLengthError`] if it is empty or longer than [`PASSWORD_LEN_MAX`].
    pub fn existing(text: Zeroizing<String>) -> Result<Self, PasswordLengthError> {
        match text.len() {
            0 => Err(PasswordLengthError::Empty),
            1..=PASSWORD_LEN_MAX => Ok(Self(text)),
            _ => Err(PasswordLengthError::TooLong),
        }
    }

    /// Takes the password of a new account.
    ///
    /// # Errors
    ///
    /// [`PasswordLengthError`] if it is shorter than [`PASSWORD_CHARS_MIN`] or longer than
    /// [`PASSWORD_LEN_MAX`].
    pub fn new(text: Zeroizing<String>) -> Result<Self, PasswordLengthError> {
        if text.chars().count() < PASSWORD_CHARS_MIN {
            return Err(PasswordLengthError::TooShort);
        }
        Self::existing(text)
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The text's length is out of bounds for a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordLengthError {
    /// It is empty.
    #[error("the password is empty")]
    Empty,
    /// It is shorter than a new password has to be.
    #[error(
        "a password has at least {PASSWORD_CHARS_MIN} characters; take a few words that only you would put together"
    )]
    TooShort,
    /// It is longer than [`PASSWORD_LEN_MAX`].
    #[error("a password has at most {PASSWORD_LEN_MAX} bytes")]
    TooLong,
}

/// Why a step of a registration or log-in failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// The password is wrong, the account is unknown, or the other side is an impostor.
    #[error("unknown account or wrong password")]
    Wrong,
    /// The other side's message does not decode.
    #[error("the other side sent a log-in message that does not decode")]
    Malformed,
    /// The account's password was stretched with parameters that this program does not know.
    #[error("this account needs a newer program; please upgrade")]
    UnknownStretch,
    /// The 64 MiB for stretching cannot be allocated.
    #[error(
        "cannot stretch the password: the system is out of memory; end some programs and try again"
    )]
    Stretch,
}

/// Why the server cannot answer KE1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// KE1 does not decode: the peer's fault.
    #[error("the peer sent a KE1 that does not decode")]
    Malformed,
    /// The record does not decode: the store's fault.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<PasswordError> for ChallengeError {
    fn from(_: PasswordError) -> Self {
        Self::Malformed
    }
}

/// The stored record of an account is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the account's password record is damaged; restore a backup or create the account anew")]
pub struct RecordError;

impl From<ProtocolError> for PasswordError {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::InvalidLoginError => Self::Wrong,
            ProtocolError::LibraryError(opaque_ke::errors::InternalError::KsfError) => {
                Self::Stretch
            }
            ProtocolError::LibraryError(_)
            | ProtocolError::SerializationError
            | ProtocolError::SizeError { .. }
            | ProtocolError::ReflectedValueError
            | ProtocolError::Custom(_) => Self::Malformed,
        }
    }
}

/// Lengths of the suite's messages, in bytes (RFC 9807 section 6.4 with 32-byte group elements and
/// 64-byte hashes). The library accepts longer ones and ignores the excess.
mod len {
    pub(super) const REGISTRATION_REQUEST: usize = 32;
    pub(super) const REGISTRATION_RESPONSE: usize = 64;
    pub(super) const UPLOAD: usize = 192;
    pub(super) const KE1: usize = super::KE1_LEN;
    pub(super) const KE2: usize = 320;
    pub(super) const KE3: usize = 64;

    /// Length of the client's public key, at the start of its upload.
    pub(super) const PUBLIC_KEY: usize = 32;
    /// Length of a [`CredentialId`](super::CredentialId), at the end of a record.
    pub(super) const CREDENTIAL: usize = 32;
}

/// Returns the bytes if there are exactly `len` of them.
fn exactly(len: usize, bytes: &[u8]) -> Result<&[u8], PasswordError> {
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(PasswordError::Malformed)
    }
}

fn message(bytes: impl AsRef<[u8]>) -> OpaqueMessage {
    OpaqueMessage::try_from(bytes.as_ref().to_vec())
        .expect("the longest message of the suite is within the bound")
}

fn identifiers(account: &AccountName) -> Identifiers<'_> {
    Identifiers {
        client: Some(account.as_str().as_bytes()),
        server: None,
    }
}

// ---- server ------------------------------------------------------------------------------------

/// The server's OPAQUE keys and OPRF seed: its most valuable secret. If it is lost, no account can log in
/// any more; if it is stolen with the records, passwords can be tested offline.
pub struct ServerSetup {
    keys: opaque_ke::ServerSetup<Suite>,
    fakes: Fakes,
}

impl ServerSetup {
    /// Generates a setup from 32 random bytes.
    pub fn generate(seed: [u8; 32]) -> Self {
        Self::new(opaque_ke::ServerSetup::new(&mut ChaCha20Rng::from_seed(
            seed,
        )))
    }

    /// Parses the output of [`ServerSetup::to_bytes`].
    ///
    /// # Errors
    ///
    /// [`PasswordError::Malformed`] if the bytes do not decode.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PasswordError> {
        Ok(Self::new(opaque_ke::ServerSetup::deserialize(bytes)?))
    }

    /// Serialises the setup, to be stored in a file that only the server can read.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.keys.serialize().to_vec())
    }

    fn new(keys: opaque_ke::ServerSetup<Suite>) -> Self {
        let fakes = Fakes::of(&keys);
        Self { keys, fakes }
    }

    /// Answers the start of a registration. `credential` is a new one, to be kept for the record.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Malformed`] if `request` does not decode.
    pub fn register(
        &self,
        credential: &CredentialId,
        request: &OpaqueMessage,
    ) -> Result<OpaqueMessage, PasswordError> {
        let request = RegistrationRequest::deserialize(exactly(
            len::REGISTRATION_REQUEST,
            request.as_bytes(),
        )?)?;
        let answer = ServerRegistration::<Suite>::start(&self.keys, request, &credential.0)?;
        Ok(message(answer.message.serialize()))
    }

    /// Answers KE1 with KE2. For an unknown account, which has no record, takes the same steps with a fake
    /// one (RFC 9807 section 6.3.2.2). `seed` is 32 random bytes.
    ///
    /// # Errors
    ///
    /// [`ChallengeError::Malformed`] if `ke1` does not decode, [`ChallengeError::Record`] if `record`
    /// does not.
    pub fn login(
        &self,
        account: &AccountName,
        record: Option<&PasswordRecord>,
        ke1: &OpaqueMessage,
        channel_binding: &ChannelBinding,
        seed: [u8; 32],
    ) -> Result<(ServerLogin, OpaqueMessage), ChallengeError> {
        // Derived in either case, so that both take the same time.
        let fake = self.fakes.record(account);
        let record = record.unwrap_or(&fake);
        let upload = ServerRegistration::deserialize(record.upload());
        let started = opaque_ke::ServerLogin::<Suite>::start(
            &mut ChaCha20Rng::from_seed(seed),
            &self.keys,
            Some(upload.map_err(|_| RecordError)?),
            CredentialRequest::deserialize(exactly(len::KE1, ke1.as_bytes())?)
                .map_err(PasswordError::from)?,
            record.credential(),
            login_parameters(account, channel_binding),
        )
        .map_err(PasswordError::from)?;
        let ke2 = message(started.message.serialize());
        let login = ServerLogin {
            state: Box::new(started.state),
            account: account.clone(),
            channel_binding: *channel_binding,
        };
        Ok((login, ke2))
    }
}

impl fmt::Debug for ServerSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSetup(…)")
    }
}

fn login_parameters<'a>(
    account: &'a AccountName,
    channel_binding: &'a ChannelBinding,
) -> ServerLoginParameters<'a, 'a> {
    ServerLoginParameters {
        context: Some(&channel_binding.0),
        identifiers: identifiers(account),
    }
}

/// Makes fake records for names without an account (RFC 9807 section 6.3.2.2). Nobody knows a password for
/// them, nor the private key of their public key.
struct Fakes {
    credential_key: Zeroizing<[u8; 32]>,
    upload: Zeroizing<[u8; len::UPLOAD]>,
}

impl Fakes {
    /// Derives them from `keys`, so that each name has the same fake record after a restart.
    fn of(keys: &opaque_ke::ServerSetup<Suite>) -> Self {
        let keys = Zeroizing::new(keys.serialize());
        let mut upload = Zeroizing::new([0; len::UPLOAD]);
        let (public_key, rest) = upload.split_at_mut(len::PUBLIC_KEY);
        // The setup has a public key for this purpose, at its end.
        public_key.copy_from_slice(&keys[keys.len() - len::PUBLIC_KEY..]);
        blake3::Hasher::new_derive_key("rdv/1 masking key and envelope of fake records")
            .update(&keys)
            .finalize_xof()
            .fill(rest);
        let credential_key = blake3::derive_key(
            "rdv/1 credential identifiers of names without an account",
            &keys,
        );
        Self {
            credential_key: Zeroizing::new(credential_key),
            upload,
        }
    }

    fn record(&self, account: &AccountName) -> PasswordRecord {
        let id = blake3::keyed_hash(&self.credential_key, account.as_str().as_bytes());
        PasswordRecord::new(&self.upload[..], id.as_bytes())
    }
}

/// Identifies one registration to the OPRF (`credential_identifier` of RFC 9807): 32 random bytes, new for
/// every registration and every change of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialId([u8; 32]);

impl CredentialId {
    /// Makes an identifier of 32 random bytes.
    pub const fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialId(…)")
    }
}

/// The server's side of a log-in that waits for KE3.
pub struct ServerLogin {
    state: Box<opaque_ke::ServerLogin<Suite>>,
    account: AccountName,
    channel_binding: ChannelBinding,
}

impl ServerLogin {
    /// Checks KE3, which only somebody who knows the password can compute.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Wrong`] if it does not match, [`PasswordError::Malformed`] if it does not decode.
    pub fn finish(self, ke3: &OpaqueMessage) -> Result<(), PasswordError> {
        let ke3 = CredentialFinalization::deserialize(exactly(len::KE3, ke3.as_bytes())?)?;
        let parameters = login_parameters(&self.account, &self.channel_binding);
        self.state.finish(ke3, parameters)?;
        Ok(())
    }
}

impl fmt::Debug for ServerLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerLogin({:?})", self.account)
    }
}

/// What the server stores instead of a password: the client's upload of 192 bytes, followed by the
/// credential identifier of the registration. That is a [`CredentialId`] of 32 bytes, or in the oldest
/// databases the account's name.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordRecord(Zeroizing<Vec<u8>>);

impl PasswordRecord {
    /// Makes the record of the registration that started with `credential` from the client's upload.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Malformed`] if the upload is not a RegistrationRecord of the suite.
    pub fn from_upload(
        credential: &CredentialId,
        upload: &OpaqueMessage,
    ) -> Result<Self, PasswordError> {
        let upload = exactly(len::UPLOAD, upload.as_bytes())?;
        RegistrationUpload::<Suite>::deserialize(upload)?;
        Ok(Self::new(upload, &credential.0))
    }

    /// Takes a record from the store and checks its length only. It is decoded at the log-in, where a fake
    /// record is decoded, too.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if it is too short or too long.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        if (len::UPLOAD + 1..=len::UPLOAD + len::CREDENTIAL).contains(&bytes.len()) {
            Ok(Self(Zeroizing::new(bytes.to_vec())))
        } else {
            Err(RecordError)
        }
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn new(upload: &[u8], credential: &[u8]) -> Self {
        Self(Zeroizing::new([upload, credential].concat()))
    }

    fn upload(&self) -> &[u8] {
        &self.0[..len::UPLOAD]
    }

    fn credential(&self) -> &[u8] {
        &self.0[len::UPLOAD..]
    }
}

impl fmt::Debug for PasswordRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordRecord(…)")
    }
}

/// Makes the record of `password` without a client, for an operator's `account add`. Stretches the password,
/// which takes tenths of a second and 64 MiB. `seed` is 32 random bytes.
///
/// # Errors
///
/// [`PasswordError::Stretch`] if the memory for stretching cannot be allocated.
pub fn make_record(
    setup: &ServerSetup,
    account: &AccountName,
    password: &Password,
    seed: [u8; 32],
) -> Result<PasswordRecord, PasswordError> {
    let credential = CredentialId::from_random(blake3::derive_key(
        "rdv/1 credential identifier of a record made in place",
        &seed,
    ));
    let (client, request) = ClientRegistration::start(password, seed);
    let response = setup.register(&credential, &request)?;
    PasswordRecord::from_upload(&credential, &client.finish(account, &response)?)
}

// ---- client ------------------------------------------------------------------------------------

/// The client's side of a registration that waits for the server's answer.
pub struct ClientRegistration {
    state: Box<opaque_ke::ClientRegistration<Suite>>,
    password: Password,
    rng: Box<ChaCha20Rng>,
}

impl ClientRegistration {
    /// Starts a registration; returns it with the RegistrationRequest. `seed` is 32 random bytes.
    pub fn start(password: &Password, seed: [u8; 32]) -> (Self, OpaqueMessage) {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let started = opaque_ke::ClientRegistration::<Suite>::start(&mut rng, password.as_bytes())
            .expect("blinding fails for no password within the bound");
        let this = Self {
            state: Box::new(started.state),
            password: password.clone(),
            rng: Box::new(rng),
        };
        (this, message(started.message.serialize()))
    }

    /// Makes the RegistrationRecord to upload. Stretches the password, which takes tenths of a second and
    /// 64 MiB.
    ///
    /// # Errors
    ///
    /// [`PasswordError`] if `response` does not decode, or the memory for stretching cannot be allocated.
    pub fn finish(
        mut self,
        account: &AccountName,
        response: &OpaqueMessage,
    ) -> Result<OpaqueMessage, PasswordError> {
        let response = RegistrationResponse::deserialize(exactly(
            len::REGISTRATION_RESPONSE,
            response.as_bytes(),
        )?)?;
        let stretch = stretch(STRETCH_CURRENT)?;
        let params = ClientRegistrationFinishParameters::new(identifiers(account), Some(&stretch));
        let finished =
            self.state
                .finish(&mut *self.rng, self.password.as_bytes(), response, params)?;
        Ok(message(finished.message.serialize()))
    }
}

impl fmt::Debug for ClientRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientRegistration(…)")
    }
}

/// The client's side of a log-in that waits for KE2.
pub struct ClientLogin {
    state: Box<opaque_ke::ClientLogin<Suite>>,
    password: Password,
    rng: Box<ChaCha20Rng>,
}

impl ClientLogin {
    /// Starts a log-in; returns it with KE1. `seed` is 32 random bytes.
    pub fn start(password: &Password, seed: [u8; 32]) -> (Self, OpaqueMessage) {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let started = opaque_ke::ClientLogin::<Suite>::start(&mut rng, password.as_bytes())
            .expect("blinding fails for no password within the bound");
        let this = Self {
            state: Box::new(started.state),
            password: password.clone(),
            rng: Box::new(rng),
        };
        (this, message(started.message.serialize()))
    }

    /// Checks KE2 and makes KE3. `version` says how the account's password is stretched, which takes tenths
    /// of a second and 64 MiB.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Wrong`] if KE2 does not fit the password; other variants if it does not decode, the
    /// parameters are unknown or the memory for stretching cannot be allocated.
    pub fn finish(
        mut self,
        account: &AccountName,
        ke2: &OpaqueMessage,
        version: StretchVersion,
        channel_binding: &ChannelBinding,
    ) -> Result<OpaqueMessage, PasswordError> {
        let ke2 = CredentialResponse::deserialize(exactly(len::KE2, ke2.as_bytes())?)?;
        let stretch = stretch(version)?;
        let params = ClientLoginFinishParameters::new(
            Some(&channel_binding.0),
            identifiers(account),
            Some(&stretch),
        );
        let finished = self
            .state
            .finish(&mut *self.rng, self.password.as_bytes(), ke2, params)?;
        Ok(message(finished.message.serialize()))
    }
}

impl fmt::Debug for ClientLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientLogin(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ChannelBinding = ChannelBinding([1; 32]);
    const THERE: ChannelBinding = ChannelBinding([2; 32]);

    fn password(text: &str) -> Password {
        Password::new(Zeroizing::new(text.to_owned())).unwrap()
    }

    #[test]
    fn a_new_password_has_so_many_characters_and_no_password_more_bytes_than_the_limit() {
        let new = |text: String| Password::new(Zeroizing::new(text)).map(drop);
        for character in ["a", "é", "漢", "👍"] {
            assert_eq!(new(character.repeat(PASSWORD_CHARS_MIN)), Ok(()));
            let short = new(character.repeat(PASSWORD_CHARS_MIN - 1));
            assert_eq!(short, Err(PasswordLengthError::TooShort));
        }
        assert_eq!(new("a".repeat(PASSWORD_LEN_MAX)), Ok(()));
        let long = new("a".repeat(PASSWORD_LEN_MAX + 1));
        assert_eq!(long, Err(PasswordLengthError::TooLong));
        let existing = |text: &str| Password::existing(Zeroizing::new(text.to_owned())).map(drop);
        assert_eq!(existing("a"), Ok(()));
        assert_eq!(existing(""), Err(PasswordLengthError::Empty));
    }

    struct World {
        setup: ServerSetup,
        alice: AccountName,
        record: PasswordRecord,
    }

    fn world() -> World {
        let setup = ServerSetup::generate([3; 32]);
        let alice = "alice".parse().unwrap();
        let record = make_record(&setup, &alice, &password("correct horse"), [4; 32]).unwrap();
        World {
            setup,
            alice,
            record,
        }
    }

    #[test]
    fn the_right_password_logs_in_on_its_own_channel_only() {
        let World {
            setup,
            alice,
            record,
        } = world();
        let setup = ServerSetup::from_bytes(&setup.to_bytes()).unwrap();
        let (client, ke1) = ClientLogin::start(&password("correct horse"), [5; 32]);
        let (server, ke2) = setup
            .login(&alice, Some(&record), &ke1, &HERE, [6; 32])
            .unwrap();
        let ke3 = client.finish(&alice, &ke2, STRETCH_CURRENT, &HERE).unwrap();
        assert_eq!(server.finish(&ke3), Ok(()));

        let (client, ke1) = ClientLogin::start(&password("correct horse"), [5; 32]);
        let (_, ke2) = setup
            .login(&alice, Some(&record), &ke1, &THERE, [6; 32])
            .unwrap();
        let crossed = client.finish(&alice, &ke2, STRETCH_CURRENT, &HERE);
        assert_eq!(crossed.unwrap_err(), PasswordError::Wrong);
    }

    #[test]
    fn t29_wrong_passwords_and_unknown_names_look_alike() {
        let World {
            setup,
            alice,
            record,
        } = world();
        let mut lengths = Vec::new();
        for record in [Some(&record), None] {
            let (client, ke1) = ClientLogin::start(&password("battery staple"), [5; 32]);
            let (_, ke2) = setup.login(&alice, record, &ke1, &HERE, [6; 32]).unwrap();
            lengths.push(ke2.as_bytes().len());
            let refused = client.finish(&alice, &ke2, STRETCH_CURRENT, &HERE);
            assert_eq!(refused.unwrap_err(), PasswordError::Wrong);
        }
        assert_eq!(lengths[0], lengths[1]);
    }

    #[test]
    fn t29_a_server_with_a_set_up_of_its_own_gets_no_last_message() {
        let World { alice, record, .. } = world();
        let rogue = ServerSetup::generate([99; 32]);
        // The impostor has no record, a stolen copy of the real one, or one made from a guess.
        let guess = password("correct horse");
        let own = make_record(&rogue, &alice, &guess, [4; 32]).unwrap();
        for (record, is_fooled) in [(None, false), (Some(&record), false), (Some(&own), true)] {
            let (client, ke1) = ClientLogin::start(&password("correct horse"), [5; 32]);
            let (_, ke2) = rogue.login(&alice, record, &ke1, &HERE, [6; 32]).unwrap();
            let answer = client.finish(&alice, &ke2, STRETCH_CURRENT, &HERE);
            // The peer accepts only the real record, or one made from the right guess.
            assert_eq!(answer.is_ok(), is_fooled);
        }
        let (client, ke1) = ClientLogin::start(&password("battery staple"), [5; 32]);
        let (_, ke2) = rogue
            .login(&alice, Some(&own), &ke1, &HERE, [6; 32])
            .unwrap();
        let answer = client.finish(&alice, &ke2, STRETCH_CURRENT, &HERE);
        assert_eq!(
            answer.unwrap_err(),
            PasswordError::Wrong,
            "a guess that failed"
        );
    }

    #[test]
    fn a_record_of_the_first_databases_has_the_name_as_its_identifier() {
        let setup = ServerSetup::generate([3; 32]);
        let alice: AccountName = "alice".parse().unwrap();
        let right = password("correct horse");
        let (client, request) = ClientRegistration::start(&right, [4; 32]);
        let request = RegistrationRequest::deserialize(request.as_bytes()).unwrap();
        let response = ServerRegistration::<Suite>::start(&setup.keys, request, b"alice").unwrap();
        let response = message(response.message.serialize());
        let upload = client.finish(&alice, &response).unwrap();
        let record = PasswordRecord::from_bytes(&[upload.as_bytes(), b"alice"].concat()).unwrap();
        let (client, ke1) = ClientLogin::start(&right, [5; 32]);
        let login = setup.login(&alice, Some(&record), &ke1, &HERE, [6; 32]);
        let (server, ke2) = login.unwrap();
        let ke3 = client.finish(&alice, &ke2, STRETCH_CURRENT, &HERE).unwrap();
        assert_eq!(server.finish(&ke3), Ok(()));
    }

    #[test]
    fn a_damaged_record_is_not_taken_for_the_peers_mistake() {
        let World { setup, alice, .. } = world();
        let (_, ke1) = ClientLogin::start(&password("correct horse"), [5; 32]);
        let record = PasswordRecord::from_bytes(&[0xff; 224]).unwrap();
        let login = setup.login(&alice, Some(&record), &ke1, &HERE, [6; 32]);
        assert_eq!(login.unwrap_err(), ChallengeError::Record(RecordError));
    }

    #[test]
    fn garbage_is_an_error_on_either_side() {
        let World {
            setup,
            alice,
            record,
        } = world();
        let credential = CredentialId::from_random([7; 32]);
        for len in [0, 1, 32, 33, 64, 65, 96, 97, 192, 193, 320, 321, 512] {
            let garbage = OpaqueMessage::try_from(vec![0xff; len]).unwrap();
            assert!(setup.register(&credential, &garbage).is_err());
            assert!(
                setup
                    .login(&alice, Some(&record), &garbage, &HERE, [6; 32])
                    .is_err()
            );
            let (client, ke1) = ClientLogin::start(&password("correct horse"), [5; 32]);
            assert!(
                client
                    .finish(&alice, &garbage, STRETCH_CURRENT, &HERE)
                    .is_err()
            );
            let (server, _) = setup
                .login(&alice, Some(&record), &ke1, &HERE, [6; 32])
                .unwrap();
            assert!(server.finish(&garbage).is_err());
        }
    }

    #[test]
    fn a_message_with_bytes_behind_it_is_refused() {
        let World {
            setup,
            alice,
            record,
        } = world();
        let longer = |message: &OpaqueMessage| {
            OpaqueMessage::try_from([message.as_bytes(), &[0]].concat()).unwrap()
        };
        let (_, request) = ClientRegistration::start(&password("correct horse"), [5; 32]);
        let credential = CredentialId::from_random([7; 32]);
        assert!(setup.register(&credential, &longer(&request)).is_err());
        let (client, ke1) = ClientLogin::start(&password("correct horse"), [5; 32]);
        let long = setup.login(&alice, Some(&record), &longer(&ke1), &HERE, [6; 32]);
        assert!(long.is_err());
        let (server, ke2) = setup
            .login(&alice, Some(&record), &ke1, &HERE, [6; 32])
            .unwrap();
        let ke3 = client.finish(&alice, &ke2, STRETCH_CURRENT, &HERE).unwrap();
        assert_eq!(server.finish(&longer(&ke3)), Err(PasswordError::Malformed));
        let upload = OpaqueMessage::try_from(record.upload().to_vec()).unwrap();
        assert!(PasswordRecord::from_upload(&credential, &upload).is_ok());
        assert!(PasswordRecord::from_upload(&credential, &longer(&upload)).is_err());
        let kept = [record.as_bytes(), &[0]].concat();
        assert!(PasswordRecord::from_bytes(&kept).is_err());
        assert!(PasswordRecord::from_bytes(record.upload()).is_err());
    }

    #[test]
    fn a_newer_stretch_asks_for_an_upgrade() {
        let World {
            setup,
            alice,
            record,
        } = world();
        let (client, ke1) = ClientLogin::start(&password("correct horse"), [5; 32]);
        let (_, ke2) = setup
            .login(&alice, Some(&record), &ke1, &HERE, [6; 32])
            .unwrap();
        let refused = client.finish(&alice, &ke2, StretchVersion(99), &HERE);
        assert_eq!(refused.unwrap_err(), PasswordError::UnknownStretch);
    }

    #[test]
    fn passwords_have_bounds_and_are_never_shown() {
        let text = |len: usize| Zeroizing::new("x".repeat(len));
        assert_eq!(
            Password::new(text(7)).unwrap_err(),
            PasswordLengthError::TooShort
        );
        assert!(Password::existing(text(7)).is_ok());
        assert_eq!(
            Password::existing(text(0)).unwrap_err(),
            PasswordLengthError::Empty
        );
        assert_eq!(
            Password::new(text(1025)).unwrap_err(),
            PasswordLengthError::TooLong
        );
        assert_eq!(format!("{:?}", password("correct horse")), "Password(…)");
    }
}
