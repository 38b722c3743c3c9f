//! Device keys (Ed25519, RFC 8032), their signatures and fingerprints.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::id::AccountName;
use crate::log::HeaderHash;

/// SubjectPublicKeyInfo of an Ed25519 key is this prefix and the 32 bytes of the key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// PKCS #8 of an Ed25519 key is this prefix and the 32 bytes of the seed (RFC 8410 section 7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The byte that holds the sign of x and the highest bits of y, and the bit of the sign in it.
const SIGN_AT: usize = 31;
const SIGN_BIT: u8 = 0x80;
/// The lowest byte of the prime 2^255 - 19. All others are 0xff, the highest without the sign bit.
const PRIME_LOWEST: u8 = 0xed;
/// The y coordinates, little-endian, of the eight points whose order is 1, 2, 4 or 8. The order of a
/// point and of its opposite is the same, so the sign of x does not matter.
const SMALL_ORDER_YS: [[u8; 32]; 5] = [
    // 1: the neutral point, order 1.
    [
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00,
    ],
    // -1: order 2.
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x7f,
    ],
    // 0: order 4.
    [0; 32],
    // Order 8.
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    // Order 8: minus the one before.
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
];

/// The Ed25519 public key that identifies a device, 32 bytes.
///
/// Points of small order are rejected, because anybody can sign for them, and so are non-canonical
/// encodings, so that each key has exactly one encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 32]")]
pub struct DeviceKey([u8; 32]);

impl DeviceKey {
    /// Parses the encoding of RFC 8032. Bytes that are no point of the curve pass; no signature verifies
    /// with them.
    ///
    /// # Errors
    ///
    /// [`WeakKeyError`] if the encoding is not canonical or the point is of small order. Comparing bytes is
    /// enough to tell, so parsing a page of the directory needs no arithmetic on the curve.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, WeakKeyError> {
        let mut y = bytes;
        y[SIGN_AT] &= !SIGN_BIT;
        if !is_below_prime(&y) {
            return Err(WeakKeyError::NonCanonical);
        }
        if SMALL_ORDER_YS.contains(&y) {
            return Err(WeakKeyError::SmallOrder);
        }
        Ok(Self(bytes))
    }

    /// The encoding of RFC 8032.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses a DER SubjectPublicKeyInfo; `None` unless it is a valid device key.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        let key = der.strip_prefix(&SPKI_PREFIX)?;
        Self::from_bytes(key.try_into().ok()?).ok()
    }

    /// The key as a DER SubjectPublicKeyInfo, which `openssl pkey -pubin -inform DER` reads.
    pub fn to_spki(self) -> [u8; 44] {
        let mut der = [0; 44];
        der[..12].copy_from_slice(&SPKI_PREFIX);
        der[12..].copy_from_slice(&self.0);
        der
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_spki(&self.to_spki())
    }

    /// Tells whether `signature` is this key's signature of `statement`.
    pub fn verify(&self, statement: &impl Signable, signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&statement.to_signed(), &signature.0)
            .is_ok()
    }
}

/// Tells whether `y`, little-endian and without the sign of x, is less than 2^255 - 19.
fn is_below_prime(y: &[u8; 32]) -> bool {
    y[0] < PRIME_LOWEST || y[SIGN_AT] != !SIGN_BIT || y[1..SIGN_AT].iter().any(|byte| *byte != 0xff)
}

impl TryFrom<[u8; 32]> for DeviceKey {
    type Error = WeakKeyError;

    fn try_from(bytes: [u8; 32]) -> Result<Self, WeakKeyError> {
        Self::from_bytes(bytes)
    }
}

/// Why 32 bytes cannot be a device key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakKeyError {
    /// The y coordinate is not below the prime, so the point has another encoding.
    #[error("the encoding of the device key is not canonical; make a new key")]
    NonCanonical,
    /// The order of the point is 1, 2, 4 or 8.
    #[error("the device key is of small order, so anybody could sign for it; make a new key")]
    SmallOrder,
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fingerprint(), f)
    }
}

/// The secret half of a device key. Wiped when dropped, never shown.
pub struct DeviceSecret {
    seed: Zeroizing<[u8; 32]>,
    /// Kept, because deriving it takes as long as a signature.
    public: DeviceKey,
}

impl DeviceSecret {
    /// Derives the key from a 32-byte seed (RFC 8032 section 5.1.5), random for a new device.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(pair(&seed).public_key().as_ref());
        Self {
            seed: Zeroizing::new(seed),
            public: DeviceKey::from_bytes(key)
                .expect("a clamped scalar is no multiple of the base's order"),
        }
    }

    /// The seed, to be stored in a file that only its owner can read.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public key.
    pub const fn public(&self) -> DeviceKey {
        self.public
    }

    /// Signs `statement` with Ed25519.
    pub fn sign(&self, statement: &impl Signable) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(pair(&self.seed).sign(&statement.to_signed()).as_ref());
        Signature(bytes)
    }

    /// The key in PKCS #8, for TLS.
    pub(crate) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&PKCS8_PREFIX[..], &self.seed[..]].concat())
    }
}

fn pair(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes is always valid")
}

impl fmt::Debug for DeviceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceSecret(…)")
    }
}

/// Something that a device signs.
///
/// Its bytes begin with a label of 24 bytes that no other kind of statement has, so that a signature of one
/// passes for none of another.
pub trait Signable {
    /// The bytes that the signature is of.
    fn to_signed(&self) -> Zeroizing<Vec<u8>>;
}

/// What a device signs to log in. The signature is bound to its role by a label, to one TLS connection by
/// the channel binding, to the account, and to the message that it accompanies. No two statements have
/// the same encoding, because every part but the last has a fixed length or a length prefix.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// The purpose of the signature.
    pub role: Role,
    /// The TLS connection that the signature holds for.
    pub channel_binding: &'a ChannelBinding,
    /// The account that the device claims.
    pub account: &'a AccountName,
    /// KE1 for a password log-in, the token for a token log-in.
    pub content: &'a [u8],
}

/// The purpose of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first message of a password log-in.
    PasswordLogin,
    /// A log-in with a device's token.
    TokenLogin,
}

impl Role {
    /// All labels have 24 bytes, so that none is a prefix of another.
    const fn label(self) -> &'static [u8; 24] {
        match self {
            Self::PasswordLogin => b"rdv/1 device password   ",
            Self::TokenLogin => b"rdv/1 device token      ",
        }
    }
}

impl Signable for Statement<'_> {
    fn to_signed(&self) -> Zeroizing<Vec<u8>> {
        let name = self.account.as_str().as_bytes();
        let name_len = u8::try_from(name.len()).expect("account names are at most 32 bytes");
        Zeroizing::new(
            [
                &self.role.label()[..],
                &self.channel_binding.0,
                &[name_len],
                name,
                self.content,
            ]
            .concat(),
        )
    }
}

/// What a device signs to seal its log: it has written the entry with this header, and by the chain of hashes all
/// that stand before it in the run.
#[derive(Clone, Copy, Debug)]
pub struct SealStatement<'a> {
    /// The hash of the entry's header, which names the conversation, the device, the run and the place in it.
    pub header: &'a HeaderHash,
}

impl SealStatement<'_> {
    /// As long as the labels of [`Role`], and none of them.
    const LABEL: &'static [u8; 24] = b"rdv/1 log seal          ";
}

impl Signable for SealStatement<'_> {
    fn to_signed(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&Self::LABEL[..], self.header.as_bytes()].concat())
    }
}

/// 32 bytes that only the two ends of one TLS connection know: its exporter (RFC 8446 section 7.5, RFC
/// 9266) with the label [`crate::tls::EXPORTER_LABEL`] and an empty context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChannelBinding(pub [u8; 32]);

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelBinding(…)")
    }
}

/// An Ed25519 signature, 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes the bytes as they are.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The encoding of RFC 8032.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for Signature {
    type Error = SignatureLengthError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, SignatureLengthError> {
        bytes.try_into().map(Self).map_err(|_| SignatureLengthError)
    }
}

impl From<Signature> for Vec<u8> {
    fn from(signature: Signature) -> Self {
        signature.0.to_vec()
    }
}

/// The signature does not have 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an Ed25519 signature has 64 bytes")]
pub struct SignatureLengthError;

/// SHA-256 of a SubjectPublicKeyInfo. Its text is `SHA256:` and 43 characters of base64, like OpenSSH's
/// fingerprints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Computes the fingerprint of a DER SubjectPublicKeyInfo.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let encoded = text.strip_prefix("SHA256:").ok_or(FingerprintError)?;
        let bytes = STANDARD_NO_PAD
            .decode(encoded.trim_end_matches('='))
            .map_err(|_| FingerprintError)?;
        bytes.try_into().map(Self).map_err(|_| FingerprintError)
    }
}

/// The text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 'SHA256:' and 43 characters of base64, as the server prints it")]
pub struct FingerprintError;

/// A random secret of 32 bytes with which a device logs in without a password. Wiped when dropped, never
/// shown; the server stores only its hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token([u8; 32]);

impl Token {
    /// Makes a token of 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be signed, and to be stored where only the owner can read them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The SHA-256 hash, which the server stores.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0).into())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SHA-256 of a [`Token`].
#[derive(Clone, Copy, Debug)]
pub struct TokenHash(pub [u8; 32]);

impl PartialEq for TokenHash {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for TokenHash {}

#[cfg(test)]
mod strictness;

#[cfg(test)]
mod tests {
    use super::*;

    fn statement<'a>(
        account: &'a AccountName,
        channel_binding: &'a ChannelBinding,
    ) -> Statement<'a> {
        Statement {
            role: Role::PasswordLogin,
            channel_binding,
            account,
            content: b"ke1",
        }
    }

    #[test]
    fn public_key_matches_rfc_8032_test_1() {
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];
        let key = DeviceSecret::from_seed(seed).public();
        assert_eq!(key.as_bytes()[..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(DeviceKey::from_spki(&key.to_spki()), Some(key));
    }

    #[test]
    fn t32_a_signature_holds_for_one_role_channel_account_and_content() {
        let secret = DeviceSecret::from_seed([7; 32]);
        let (alice, bob) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let (here, there) = (ChannelBinding([1; 32]), ChannelBinding([2; 32]));
        let said = statement(&alice, &here);
        let signature = secret.sign(&said);
        let key = secret.public();
        assert!(key.verify(&said, &signature));
        let others = [
            Statement {
                role: Role::TokenLogin,
                ..said
            },
            Statement {
                channel_binding: &there,
                ..said
            },
            Statement {
                account: &bob,
                ..said
            },
            Statement {
                content: b"ke2",
                ..said
            },
        ];
        for other in others {
            assert!(!key.verify(&other, &signature), "{other:?}");
        }
        assert!(
            !DeviceSecret::from_seed([8; 32])
                .public()
                .verify(&said, &signature)
        );
    }

    #[test]
    fn t42_a_seal_is_no_log_in_and_holds_for_one_header() {
        let secret = DeviceSecret::from_seed([7; 32]);
        let [header, other] = [1, 2].map(|n| HeaderHash::from_bytes([n; 32]));
        let signature = secret.sign(&SealStatement { header: &header });
        let key = secret.public();
        assert!(key.verify(&SealStatement { header: &header }, &signature));
        assert!(!key.verify(&SealStatement { header: &other }, &signature));
        for role in [Role::PasswordLogin, Role::TokenLogin] {
            assert_ne!(role.label(), SealStatement::LABEL);
        }
    }

    #[test]
    fn fingerprints_survive_their_text_and_reject_others() {
        let fingerprint = DeviceSecret::from_seed([7; 32]).public().fingerprint();
        let text = fingerprint.to_string();
        assert_eq!(text.len(), 7 + 43);
        assert_eq!(text.parse::<Fingerprint>().unwrap(), fingerprint);
        for bad in [
            "",
            "SHA256:",
            "SHA256:AAAA",
            &text[7..],
            &text.replace("SHA", "MD5"),
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn t33_secrets_are_never_shown() {
        let secret = DeviceSecret::from_seed([7; 32]);
        let token = Token::from_bytes([7; 32]);
        assert_eq!(format!("{secret:?} {token:?}"), "DeviceSecret(…) Token(…)");
    }
}
