//! OPAQUE (RFC 9807), both sides: passwords that the server never learns.
//!
//! Suite: Ristretto255 with SHA-512 for the OPRF and the key exchange (3DH), Argon2id (RFC 9106) on the
//! client as the key stretching function. The client's identity is the account name, the server's is
//! its OPAQUE public key, and the context is the TLS channel's exporter, so that a log-in holds for one
//! channel only.
//!
//! The server keeps a [`PasswordRecord`] for each account and one [`ServerSetup`] for all of them.
//! Whoever steals both can test passwords offline, at the price of one Argon2id each; whoever has only
//! transcripts, or only the records, cannot.
//!
//! The OPRF key of a record comes from a random [`CredentialId`] that each registration draws anew, never
//! from the account's name: what somebody had evaluated before a registration belongs to another key. A
//! name without an account has a record of its own, too, with a key that only the setup knows, and goes
//! through the same steps.

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
use crate::limits::{PASSWORD_LEN_MAX, PASSWORD_LEN_MIN};
use crate::wire::rendezvous::{OpaqueMessage, StretchVersion};

/// The parameters that new passwords are stretched with: Argon2id with 64 MiB, three passes and one
/// lane (RFC 9106 section 4 recommends the same memory and passes with four lanes, for whoever has
/// the cores).
pub const STRETCH_CURRENT: StretchVersion = StretchVersion(1);

/// Length of KE1, in bytes. The server looks at it before it counts a log-in.
pub const KE1_LEN: usize = 96;

struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2_10::Sha512>;
    type Ksf = Argon2<'static>;
}

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
    /// Takes a password that exists already. It may be shorter than a new one must be.
    pub fn existing(text: Zeroizing<String>) -> Result<Self, PasswordLengthError> {
        match text.len() {
            0 => Err(PasswordLengthError::Empty),
            1..=PASSWORD_LEN_MAX => Ok(Self(text)),
            _ => Err(PasswordLengthError::TooLong),
        }
    }

    /// Takes a password that somebody wants to have from now on.
    pub fn new(text: Zeroizing<String>) -> Result<Self, PasswordLengthError> {
        if text.len() < PASSWORD_LEN_MIN {
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

/// A text cannot be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordLengthError {
    /// Nothing was given.
    #[error("the password is empty")]
    Empty,
    /// Less than a new password must have.
    #[error(
        "a password has at least {PASSWORD_LEN_MIN} bytes; take a few words that only you would put together"
    )]
    TooShort,
    /// More than is hashed.
    #[error("a password has at most {PASSWORD_LEN_MAX} bytes")]
    TooLong,
}

/// Why a registration or log-in did not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Wrong password, or no such account, or the other side is not who it should be.
    #[error("unknown account or wrong password")]
    Wrong,
    /// The other side's message is not one of the protocol.
    #[error("the other side sent a log-in message that does not decode")]
    Malformed,
    /// The account's password was stretched by a newer program.
    #[error("this account needs a newer program; please upgrade")]
    UnknownStretch,
    /// Stretching needs 64 MiB that the system does not give.
    #[error("the password could not be stretched; the system is out of memory")]
    Stretch,
}

/// Why the server cannot answer KE1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// The peer's fault.
    #[error("the peer sent a KE1 that does not decode")]
    Malformed,
    /// The store's.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<PasswordError> for ChallengeError {
    fn from(_: PasswordError) -> Self {
        Self::Malformed
    }
}

/// What the server keeps of an account is not what a registration uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the account's password record is damaged; restore a backup or make the account anew")]
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
/// 64-byte hashes). The library takes longer ones and ignores the rest.
mod len {
    pub(super) const REGISTRATION_REQUEST: usize = 32;
    pub(super) const REGISTRATION_RESPONSE: usize = 64;
    pub(super) const UPLOAD: usize = 192;
    pub(super) const KE1: usize = super::KE1_LEN;
    pub(super) const KE2: usize = 320;
    pub(super) const KE3: usize = 64;

    /// Of the client, at the beginning of its upload.
    pub(super) const PUBLIC_KEY: usize = 32;
    pub(super) const CREDENTIAL: usize = 32;
}

/// The bytes of a message, if they are as many as it has.
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

/// The server's OPAQUE keys and OPRF seed: its crown jewel. Without it no account can log in any
/// more; with it and the records, passwords can be tested offline.
pub struct ServerSetup {
    keys: opaque_ke::ServerSetup<Suite>,
    fakes: Fakes,
}

impl ServerSetup {
    /// Makes a new one from 32 random bytes.
    pub fn generate(seed: [u8; 32]) -> Self {
        Self::new(opaque_ke::ServerSetup::new(&mut ChaCha20Rng::from_seed(
            seed,
        )))
    }

    /// Reads what [`ServerSetup::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PasswordError> {
        opaque_ke::ServerSetup::deserialize(bytes)
            .map(Self::new)
            .map_err(PasswordError::from)
    }

    /// For a file that only the server can read.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.keys.serialize().to_vec())
    }

    fn new(keys: opaque_ke::ServerSetup<Suite>) -> Self {
        let fakes = Fakes::of(&keys);
        Self { keys, fakes }
    }

    /// Answers the start of a registration under a new `credential`, which belongs into the record.
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

    /// Answers KE1 with KE2. Without a record, because there is no such account, the same steps are
    /// taken with a fake one (RFC 9807 section 6.3.2.2). `seed` is 32 random bytes.
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
        channel: &ChannelBinding,
        seed: [u8; 32],
    ) -> Result<(ServerLogin, OpaqueMessage), ChallengeError> {
        // Made in either case: it takes its time.
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
            parameters(account, channel),
        )
        .map_err(PasswordError::from)?;
        let ke2 = message(started.message.serialize());
        let login = ServerLogin {
            state: Box::new(started.state),
            account: account.clone(),
            channel: *channel,
        };
        Ok((login, ke2))
    }
}

impl fmt::Debug for ServerSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSetup(…)")
    }
}

fn parameters<'a>(
    account: &'a AccountName,
    channel: &'a ChannelBinding,
) -> ServerLoginParameters<'a, 'a> {
    ServerLoginParameters {
        context: Some(&channel.0),
        identifiers: identifiers(account),
    }
}

/// Records for the names that no account has. Nobody knows a password for them, nor the private key
/// that belongs to their public key.
struct Fakes {
    credential_key: Zeroizing<[u8; 32]>,
    upload: Zeroizing<[u8; len::UPLOAD]>,
}

impl Fakes {
    /// The ones that belong to `keys`: each name keeps its fake record over restarts.
    fn of(keys: &opaque_ke::ServerSetup<Suite>) -> Self {
        let keys = Zeroizing::new(keys.serialize());
        let mut upload = Zeroizing::new([0; len::UPLOAD]);
        let (public_key, rest) = upload.split_at_mut(len::PUBLIC_KEY);
        // The setup has a public key for this purpose; it stands at its end.
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

/// Names one registration to the OPRF (`credential_identifier` of RFC 9807): 32 random bytes, drawn
/// anew for every registration and every change of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialId([u8; 32]);

impl CredentialId {
    /// Takes 32 random bytes.
    pub const fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialId(…)")
    }
}

/// A log-in that the server has answered and that waits for KE3.
pub struct ServerLogin {
    state: Box<opaque_ke::ServerLogin<Suite>>,
    account: AccountName,
    channel: ChannelBinding,
}

impl ServerLogin {
    /// Checks KE3: only who knows the password can have made it.
    pub fn finish(self, ke3: &OpaqueMessage) -> Result<(), PasswordError> {
        let ke3 = CredentialFinalization::deserialize(exactly(len::KE3, ke3.as_bytes())?)?;
        self.state
            .finish(ke3, parameters(&self.account, &self.channel))
            .map(|_| ())
            .map_err(PasswordError::from)
    }
}

impl fmt::Debug for ServerLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerLogin({:?})", self.account)
    }
}

/// What the server keeps instead of a password: the 192 bytes that the client uploaded, and behind them
/// the credential identifier that they were made with. That one has 32 bytes; in the records of the first
/// databases it is the account's name.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordRecord(Zeroizing<Vec<u8>>);

impl PasswordRecord {
    /// Takes what a client uploads at the end of the registration that began with `credential`.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Malformed`] if it is no RegistrationRecord of the suite.
    pub fn from_upload(
        credential: &CredentialId,
        upload: &OpaqueMessage,
    ) -> Result<Self, PasswordError> {
        let upload = exactly(len::UPLOAD, upload.as_bytes())?;
        RegistrationUpload::<Suite>::deserialize(upload)?;
        Ok(Self::new(upload, &credential.0))
    }

    /// Reads what the store kept. Looks at its length only: whether it decodes shows at the log-in, where
    /// a fake record has to be decoded as well.
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

    /// For the store.
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

/// Registers `password` without a network: what an operator's `account add` does. Slow, see
/// [`STRETCH_CURRENT`]. `seed` is 32 random bytes.
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

/// A registration that waits for the server's answer.
pub struct ClientRegistration {
    state: Box<opaque_ke::ClientRegistration<Suite>>,
    password: Password,
    rng: Box<ChaCha20Rng>,
}

impl ClientRegistration {
    /// Starts; `seed` is 32 random bytes.
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

    /// Makes the upload. Slow: it stretches the password.
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

/// A log-in that waits for the server's KE2.
pub struct ClientLogin {
    state: Box<opaque_ke::ClientLogin<Suite>>,
    password: Password,
    rng: Box<ChaCha20Rng>,
}

impl ClientLogin {
    /// Starts with KE1; `seed` is 32 random bytes.
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

    /// Checks KE2 and makes KE3. Slow: it stretches the password.
    pub fn finish(
        mut self,
        account: &AccountName,
        ke2: &OpaqueMessage,
        version: StretchVersion,
        channel: &ChannelBinding,
    ) -> Result<OpaqueMessage, PasswordError> {
        let ke2 = CredentialResponse::deserialize(exactly(len::KE2, ke2.as_bytes())?)?;
        let stretch = stretch(version)?;
        let params = ClientLoginFinishParameters::new(
            Some(&channel.0),
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
        // It has no record, the real one from a stolen copy, or one that it made from a guess.
        let guess = password("correct horse");
        let own = make_record(&rogue, &alice, &guess, [4; 32]).unwrap();
        for (record, is_fooled) in [(None, false), (Some(&record), false), (Some(&own), true)] {
            let (client, ke1) = ClientLogin::start(&password("correct horse"), [5; 32]);
            let (_, ke2) = rogue.login(&alice, record, &ke1, &HERE, [6; 32]).unwrap();
            let answer = client.finish(&alice, &ke2, STRETCH_CURRENT, &HERE);
            // Only whoever has guessed the password already makes a record that the peer takes.
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
