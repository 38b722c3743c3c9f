//! The client's part of OPAQUE without the stretching of the password, which only costs the client. The
//! server's part is the same: it never sees how a password was stretched.

use common::id::AccountName;
use common::key::ChannelBinding;
use common::wire::rendezvous::OpaqueMessage;
use opaque_ke::ksf::Identity;
use opaque_ke::{
    CipherSuite, ClientLoginFinishParameters, ClientRegistrationFinishParameters,
    CredentialResponse, Identifiers, RegistrationResponse, Ristretto255, TripleDh,
};
use rand_chacha03::ChaCha20Rng;
use rand_chacha03::rand_core::SeedableRng;

const PASSWORD: &[u8] = b"a password of the bench";

pub(super) type ClientRegistration = opaque_ke::ClientRegistration<Unstretched>;
pub(super) type ClientLogin = opaque_ke::ClientLogin<Unstretched>;

/// OPAQUE as `common` has it, but for the stretching.
pub(super) struct Unstretched;

impl CipherSuite for Unstretched {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = Identity;
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([9; 32])
}

fn opaque(bytes: &[u8]) -> OpaqueMessage {
    OpaqueMessage::try_from(bytes.to_vec()).expect("within the bound")
}

fn identifiers(account: &AccountName) -> Identifiers<'_> {
    Identifiers {
        client: Some(account.as_str().as_bytes()),
        server: None,
    }
}

/// Begins a registration with the password of the bench.
pub(super) fn start_registration() -> (ClientRegistration, OpaqueMessage) {
    let started = ClientRegistration::start(&mut rng(), PASSWORD).expect("a fine password");
    (started.state, opaque(&started.message.serialize()))
}

/// The upload that ends a registration.
pub(super) fn finish_registration(
    state: ClientRegistration,
    account: &AccountName,
    message: &OpaqueMessage,
) -> OpaqueMessage {
    let response =
        RegistrationResponse::deserialize(message.as_bytes()).expect("the server's answer");
    let params = ClientRegistrationFinishParameters::new(identifiers(account), None);
    let finished = state
        .finish(&mut rng(), PASSWORD, response, params)
        .expect("it goes on");
    opaque(&finished.message.serialize())
}

/// Begins a log-in with that password: the client's state and KE1.
pub(super) fn start_login() -> (ClientLogin, OpaqueMessage) {
    let started = ClientLogin::start(&mut rng(), PASSWORD).expect("a fine password");
    (started.state, opaque(&started.message.serialize()))
}

/// KE3, the answer to KE2.
pub(super) fn finish_login(
    state: ClientLogin,
    account: &AccountName,
    ke2: &OpaqueMessage,
    channel: &ChannelBinding,
) -> OpaqueMessage {
    let ke2 = CredentialResponse::deserialize(ke2.as_bytes()).expect("the server's answer");
    let params = ClientLoginFinishParameters::new(Some(&channel.0), identifiers(account), None);
    let finished = state
        .finish(&mut rng(), PASSWORD, ke2, params)
        .expect("the right password");
    opaque(&finished.message.serialize())
}
