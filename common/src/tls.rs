//! TLS 1.3 (RFC 8446): the server's identity, pinning, and raw public keys between peers.
//!
//! Every configuration prefers X25519MLKEM768 and has neither resumption nor early data. None can be told
//! to skip verification.

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ParsedCertificate,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName as TlsName, Error,
    OtherError, PeerIncompatible, ServerConfig, SignatureScheme,
};
use zeroize::Zeroizing;

use crate::key::{ChannelBinding, DeviceKey, DeviceSecret, Fingerprint};
use crate::wire::peer;

/// ALPN protocol name of the control connection.
pub const RENDEZVOUS_ALPN: &[u8] = b"rdv/1";
/// Label of the TLS exporter that the channel binding is taken from.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-rdv/1 channel binding";

/// The cryptography of every configuration: aws-lc-rs, which prefers X25519MLKEM768.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The channel binding of a connection.
///
/// # Errors
///
/// [`Error::HandshakeNotComplete`] before the handshake is complete.
pub fn channel_binding<Data>(
    connection: &rustls::ConnectionCommon<Data>,
) -> Result<ChannelBinding, Error> {
    connection
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map(ChannelBinding)
}

// ---- rendezvous --------------------------------------------------------------------------------

/// The certificate chain and private key of a server.
#[derive(Debug)]
pub struct ServerIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ServerIdentity {
    /// Generates a self-signed Ed25519 identity and returns its key and certificate as PEM, to be stored in
    /// a file that only the server can read. Draws its own randomness.
    pub fn generate_pem() -> Zeroizing<String> {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("the provider has Ed25519");
        let mut params = CertificateParams::new(vec!["rendezvous".to_owned()])
            .expect("a plain name is a valid subject");
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "rendezvous");
        let certificate = params
            .self_signed(&key)
            .expect("signing with a fresh key works");
        let key = Zeroizing::new(key.serialize_pem());
        Zeroizing::new(format!("{}{}", *key, certificate.pem()))
    }

    /// Parses a private key and a certificate chain, self-signed or issued, from PEM.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if there is no private key, or no certificate that can be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, IdentityError> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| IdentityError::NoKey)?;
        let chain = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| IdentityError::NoCertificate)?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        Ok(Self { chain, key })
    }

    /// The fingerprint of the public key, which stays the same if a renewed certificate has the same key.
    ///
    /// # Errors
    ///
    /// [`IdentityError::NoCertificate`] if the certificate cannot be parsed.
    pub fn fingerprint(&self) -> Result<Fingerprint, IdentityError> {
        certificate_fingerprint(&self.chain[0]).map_err(|_| IdentityError::NoCertificate)
    }

    /// The TLS configuration for accepting control connections.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Mismatch`] if the key does not belong to the certificate.
    pub fn into_server_config(self) -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)
            .map_err(IdentityError::Mismatch)?;
        config.alpn_protocols = vec![RENDEZVOUS_ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// Why a file holds no usable server identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It has no private key.
    #[error("no private key in PEM format")]
    NoKey,
    /// It has no certificate that can be read.
    #[error("no certificate in PEM format")]
    NoCertificate,
    /// The key does not belong to the certificate.
    #[error("the key and the certificate do not belong together: {0}")]
    Mismatch(Error),
}

/// How a peer recognises its server.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// By the fingerprint of its key; the rest of the certificate is ignored.
    Pinned(Fingerprint),
    /// By a certificate for its name, verified against the system's root certificates.
    SystemRoots,
    /// Not yet: any server that proves possession of its key is accepted. The caller must have a person
    /// confirm the fingerprint before it sends any application data.
    AskPerson,
}

/// The TLS configuration of a peer's control connection.
///
/// # Errors
///
/// [`TrustError`] if the system's root certificates are needed and none can be read.
pub fn rendezvous_client_config(trust: &ServerTrust) -> Result<Arc<ClientConfig>, TrustError> {
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        ServerTrust::Pinned(expected) => Arc::new(PinnedServer {
            expected: Some(*expected),
            provider: provider(),
        }),
        ServerTrust::AskPerson => Arc::new(PinnedServer {
            expected: None,
            provider: provider(),
        }),
        ServerTrust::SystemRoots => {
            rooted_verifier(rustls_native_certs::load_native_certs().certs)?
        }
    };
    Ok(client_config(verifier))
}

fn client_config(verifier: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![RENDEZVOUS_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// The system has no usable root certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read any root certificates of this system; pin the server's fingerprint instead")]
pub struct TrustError;

/// Verifies that a chain ends at one of these roots, and its names and dates.
fn rooted_verifier(
    certificates: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    Ok(verifier.build().map_err(|_| TrustError)?)
}

/// The fingerprint of the key in a certificate.
///
/// # Errors
///
/// If the certificate cannot be parsed.
pub fn certificate_fingerprint(certificate: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Fingerprint::of_spki(&parsed.subject_public_key_info()))
}

/// The server presented a key other than the pinned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's key has the fingerprint {seen}, not {expected}")]
pub struct FingerprintMismatch {
    /// The fingerprint of the pinned key.
    pub expected: Fingerprint,
    /// The fingerprint of the presented key.
    pub seen: Fingerprint,
}

/// The mismatch, if the TLS error is that the server's key is not the pinned one.
pub fn fingerprint_mismatch(error: &Error) -> Option<FingerprintMismatch> {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error else {
        return None;
    };
    inner.downcast_ref().copied()
}

#[derive(Debug)]
struct PinnedServer {
    expected: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = certificate_fingerprint(end_entity)?;
        match self.expected {
            Some(expected) if expected != seen => {
                let mismatch = OtherError(Arc::new(FingerprintMismatch { expected, seen }));
                Err(CertificateError::Other(mismatch).into())
            }
            Some(_) | None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

// ---- links between peers -----------------------------------------------------------------------

/// The TLS configuration for accepting links: from any device that proves possession of its Ed25519 key.
/// Whether that device is authorised is decided after the handshake.
pub fn link_server_config(secret: &DeviceSecret) -> ServerConfig {
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified_key(secret));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(Arc::new(RawKey {
            expected: None,
            provider: provider(),
        }))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![peer::ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// The TLS configuration for dialling the device with the key `expected`; any other key fails the
/// handshake.
pub fn link_client_config(secret: &DeviceSecret, expected: DeviceKey) -> ClientConfig {
    let resolver = AlwaysResolvesClientRawPublicKeys::new(certified_key(secret));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RawKey {
            expected: Some(expected),
            provider: provider(),
        }))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![peer::ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    config
}

/// The device key that the other end of a link proved; `None` unless it is exactly one valid device key.
pub fn link_device_key(certificates: &[CertificateDer<'_>]) -> Option<DeviceKey> {
    let [spki] = certificates else { return None };
    DeviceKey::from_spki(spki)
}

fn certified_key(secret: &DeviceSecret) -> Arc<CertifiedKey> {
    let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(secret.to_pkcs8().to_vec()));
    let key = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(match &pkcs8 {
        PrivateKeyDer::Pkcs8(der) => der,
        PrivateKeyDer::Pkcs1(_) | PrivateKeyDer::Sec1(_) | _ => {
            unreachable!("built as PKCS #8 above")
        }
    })
    .expect("a seed of 32 bytes is always a valid Ed25519 key");
    let spki = CertificateDer::from(secret.public().to_spki().to_vec());
    Arc::new(CertifiedKey::new(vec![spki], key))
}

/// Accepts Ed25519 raw public keys (RFC 7250): a given one, or any.
#[derive(Debug)]
struct RawKey {
    expected: Option<DeviceKey>,
    provider: Arc<CryptoProvider>,
}

impl RawKey {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let seen = DeviceKey::from_spki(certificate).ok_or(CertificateError::BadEncoding)?;
        match self.expected {
            Some(expected) if expected != seen => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(certificate.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, dss, algorithms)
    }
}

impl ServerCertVerifier for RawKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKey {
    fn root_hint_subjects(&self) -> &[TlsName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConnection, ServerConnection};

    /// Runs a handshake in memory until both are done or one fails.
    fn handshake(
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
    ) -> Result<(ClientConnection, ServerConnection), Error> {
        let name = ServerName::try_from("rendezvous").unwrap();
        let mut client = ClientConnection::new(client, name)?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok((client, server))
    }

    #[test]
    fn a_pinned_server_is_reached_with_the_hybrid_group_and_one_channel_binding() {
        let identity = ServerIdentity::from_pem(ServerIdentity::generate_pem().as_bytes()).unwrap();
        let pinned = ServerTrust::Pinned(identity.fingerprint().unwrap());
        let server = identity.into_server_config().unwrap();
        let client = rendezvous_client_config(&pinned).unwrap();
        let (client, server) = handshake(client, server).unwrap();
        let group = client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        assert_eq!(client.alpn_protocol(), Some(RENDEZVOUS_ALPN));
        assert_eq!(channel_binding(&client), channel_binding(&server));
    }

    #[test]
    fn t30_a_changed_server_key_is_refused_and_named() {
        let fresh = || ServerIdentity::from_pem(ServerIdentity::generate_pem().as_bytes()).unwrap();
        let (known, other) = (fresh(), fresh());
        let expected = known.fingerprint().unwrap();
        let seen = other.fingerprint().unwrap();
        let client = rendezvous_client_config(&ServerTrust::Pinned(expected)).unwrap();
        let error = handshake(client, other.into_server_config().unwrap()).unwrap_err();
        assert_eq!(
            fingerprint_mismatch(&error),
            Some(FingerprintMismatch { expected, seen })
        );
    }

    /// A certificate for `name` and its key, signed by `issuer` or by nobody else.
    fn certificate(name: &str, issuer: Option<&rcgen::Issuer<'_, KeyPair>>) -> ServerIdentity {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
        ServerIdentity::from_pem(pem.as_bytes()).unwrap()
    }

    #[test]
    fn t30_roots_vouch_for_their_own_certificates_and_for_the_name_only() {
        let root = || {
            let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).unwrap().der().clone();
            (certificate, rcgen::Issuer::new(params, key))
        };
        let ((trusted, ours), (_, foreign)) = (root(), root());
        let verify = |identity: ServerIdentity| {
            let client = client_config(rooted_verifier(vec![trusted.clone()]).unwrap());
            match handshake(client, identity.into_server_config().unwrap()) {
                Ok(_) => Ok(()),
                Err(Error::InvalidCertificate(reason)) => Err(reason),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(verify(certificate("rendezvous", Some(&ours))), Ok(()));
        // Another root with the same name.
        let forged = verify(certificate("rendezvous", Some(&foreign)));
        assert_eq!(forged, Err(CertificateError::BadSignature));
        let unrooted = verify(certificate("rendezvous", None));
        assert_eq!(unrooted, Err(CertificateError::UnknownIssuer));
        let other = verify(certificate("elsewhere.example", Some(&ours)));
        assert!(
            matches!(
                other,
                Err(CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. })
            ),
            "{other:?}"
        );
    }

    #[test]
    fn t30_no_root_of_this_system_vouches_for_a_certificate_of_ones_own() {
        // A system without root certificates gets an error instead.
        let Ok(client) = rendezvous_client_config(&ServerTrust::SystemRoots) else {
            return;
        };
        let server = certificate("rendezvous", None);
        let error = handshake(client, server.into_server_config().unwrap()).unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(_)), "{error}");
    }

    #[test]
    fn t31_a_link_reaches_the_expected_key_only() {
        let (alice, bob) = (
            DeviceSecret::from_seed([1; 32]),
            DeviceSecret::from_seed([2; 32]),
        );
        let server = Arc::new(link_server_config(&bob));
        let dial = |expected| Arc::new(link_client_config(&alice, expected));
        let (client, accepted) = handshake(dial(bob.public()), server.clone()).unwrap();
        let seen =
            |certificates: Option<&[CertificateDer<'_>]>| link_device_key(certificates.unwrap());
        assert_eq!(seen(client.peer_certificates()), Some(bob.public()));
        assert_eq!(seen(accepted.peer_certificates()), Some(alice.public()));
        assert!(handshake(dial(alice.public()), server).is_err());
    }

    #[test]
    fn t34_an_x509_certificate_is_no_device() {
        let identity = ServerIdentity::from_pem(ServerIdentity::generate_pem().as_bytes()).unwrap();
        let alice = DeviceSecret::from_seed([1; 32]);
        let client = Arc::new(link_client_config(&alice, alice.public()));
        assert!(handshake(client, identity.into_server_config().unwrap()).is_err());
    }

    #[test]
    fn identity_files_say_what_they_lack() {
        assert!(matches!(
            ServerIdentity::from_pem(b""),
            Err(IdentityError::NoKey)
        ));
        let pem = ServerIdentity::generate_pem();
        let key_only = pem.split("-----BEGIN CERT").next().unwrap();
        assert!(matches!(
            ServerIdentity::from_pem(key_only.as_bytes()),
            Err(IdentityError::NoCertificate)
        ));
    }
}
