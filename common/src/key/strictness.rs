//! Tests that a signature identifies one device: no key that anybody can sign for, one encoding of each
//! point, one signature for each nonce. Where verifiers may differ ("Taming the many EdDSAs", Chalkias,
//! Garillot and Nikolaenko, 2020), these tests pin what this one does.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use sha2::Sha512;

use super::*;

/// The order of the base point, little-endian: 2^252 + 27742317777372353535851937790883648493.
const BASE_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10,
];

/// 32 bytes: the first, 30 times the same between, and the last.
const fn encoding(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    bytes[0] = first;
    bytes[SIGN_AT] = last;
    bytes
}

/// Encodings of points of small order that are not canonical, as the paper lists them.
const NON_CANONICAL: [[u8; 32]; 6] = [
    // The neutral point and the one of order 2, with x = -0.
    encoding(0x01, 0x00, 0x80),
    encoding(0xec, 0xff, 0xff),
    // The neutral point with y = p + 1 and either x.
    encoding(0xee, 0xff, 0x7f),
    encoding(0xee, 0xff, 0xff),
    // Those of order 4 with y = p.
    encoding(0xed, 0xff, 0x7f),
    encoding(0xed, 0xff, 0xff),
];

/// A signer that follows RFC 8032, except where a test deviates.
struct Signer {
    scalar: Scalar,
    point: EdwardsPoint,
}

impl Signer {
    fn new(number: u8) -> Self {
        let scalar = Scalar::from_bytes_mod_order([number; 32]);
        let point = scalar * ED25519_BASEPOINT_POINT;
        Self { scalar, point }
    }

    fn key(&self) -> [u8; 32] {
        self.point.compress().to_bytes()
    }

    /// Signs with this nonce and `r` for its point.
    fn sign(&self, nonce: Scalar, r: [u8; 32], message: &[u8]) -> [u8; 64] {
        let s = nonce + challenge(&r, &self.key(), message) * self.scalar;
        joined(r, s.to_bytes())
    }
}

fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let digest = Sha512::digest([&r[..], &key[..], message].concat());
    Scalar::from_bytes_mod_order_wide(&digest.into())
}

fn joined(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    signature
}

fn on_curve(nonce: Scalar) -> [u8; 32] {
    (nonce * ED25519_BASEPOINT_POINT).compress().to_bytes()
}

/// Verifies as [`DeviceKey::verify`] does, whatever the key and the message.
fn holds(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, key);
    key.verify(message, signature).is_ok()
}

#[test]
fn t31_a_point_of_small_order_is_no_device_key_however_it_is_encoded() {
    for point in EIGHT_TORSION {
        let bytes = point.compress().to_bytes();
        assert_eq!(DeviceKey::from_bytes(bytes), Err(WeakKeyError::SmallOrder));
    }
    for bytes in NON_CANONICAL {
        let point = CompressedEdwardsY(bytes).decompress();
        assert!(point.is_some_and(|point| point.is_small_order()));
        assert!(DeviceKey::from_bytes(bytes).is_err(), "{bytes:x?}");
        assert_eq!(
            DeviceKey::from_spki(&[&SPKI_PREFIX[..], &bytes[..]].concat()),
            None
        );
    }
    // The table has no other coordinates.
    let ys = EIGHT_TORSION.map(|point| {
        let mut y = point.compress().to_bytes();
        y[SIGN_AT] &= !SIGN_BIT;
        y
    });
    assert!(SMALL_ORDER_YS.iter().all(|y| ys.contains(y)));
}

#[test]
fn a_point_has_one_encoding_and_all_below_the_prime_are_taken() {
    for last in [0x7f, 0xff] {
        for first in PRIME_LOWEST..=0xff {
            let above = DeviceKey::from_bytes(encoding(first, 0xff, last));
            assert_eq!(above, Err(WeakKeyError::NonCanonical), "{first:x}");
        }
        let below = encoding(PRIME_LOWEST - 2, 0xff, last);
        assert!(DeviceKey::from_bytes(below).is_ok());
    }
    // Any single byte below 0xff makes the value less than the prime.
    for at in 1..SIGN_AT {
        let mut below = encoding(0xff, 0xff, 0x7f);
        below[at] = 0xfe;
        assert!(DeviceKey::from_bytes(below).is_ok(), "{at}");
    }
    assert!(DeviceKey::from_bytes(encoding(0xff, 0xff, 0x7e)).is_ok());
}

#[test]
fn t16_a_weak_key_does_not_decode() {
    use crate::wire::frame;
    let points = EIGHT_TORSION.map(|point| point.compress().to_bytes());
    for bytes in points.iter().chain(&NON_CANONICAL) {
        let decoded = frame::decode::<64, DeviceKey>(bytes);
        assert_eq!(decoded, Err(frame::FrameError::Malformed));
    }
    let key = DeviceSecret::from_seed([7; 32]).public();
    assert_eq!(frame::decode::<64, DeviceKey>(key.as_bytes()), Ok(key));
}

#[test]
fn t31_for_the_neutral_point_one_signature_holds_whatever_is_said() {
    let neutral = EdwardsPoint::identity().compress().to_bytes();
    let signature = joined(neutral, [0; 32]);
    for message in [&b""[..], b"alice", &[7; 1000]] {
        assert!(holds(&neutral, message, &signature), "why it is refused");
    }
    assert!(DeviceKey::from_bytes(neutral).is_err());
}

#[test]
fn t32_a_signature_cannot_be_changed_into_another() {
    let alice = Signer::new(3);
    let nonce = Scalar::from_bytes_mod_order([5; 32]);
    let signature = alice.sign(nonce, on_curve(nonce), b"hello");
    assert!(holds(&alice.key(), b"hello", &signature));
    // S plus the base point's order solves the equation as S does, but is not a valid S.
    let mut larger = signature;
    let mut carry = 0;
    for (byte, addend) in larger[32..].iter_mut().zip(BASE_ORDER) {
        let sum = u16::from(*byte) + u16::from(addend) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert!(!holds(&alice.key(), b"hello", &larger));
}

#[test]
fn t32_the_first_half_of_a_signature_has_one_encoding() {
    let alice = Signer::new(3);
    let neutral = EdwardsPoint::identity().compress().to_bytes();
    // With 0 as the nonce the point is the neutral one, which has four encodings.
    let signed = |r| alice.sign(Scalar::ZERO, r, b"hello");
    assert!(holds(&alice.key(), b"hello", &signed(neutral)));
    for r in NON_CANONICAL {
        assert!(!holds(&alice.key(), b"hello", &signed(r)), "{r:x?}");
    }
}

/// Only its holder can sign for a key with a component of order 8, too. The cofactorless equation holds if
/// the challenge cancels that component: once in eight times.
#[test]
fn a_key_of_mixed_order_verifies_without_the_cofactor() {
    let Signer { scalar, point } = Signer::new(3);
    let point = point + EIGHT_TORSION[1];
    assert!(!point.is_torsion_free() && !point.is_small_order());
    let mixed = Signer { scalar, point };
    assert!(DeviceKey::from_bytes(mixed.key()).is_ok());
    let mut held = 0;
    for number in 1..=64 {
        let nonce = Scalar::from_bytes_mod_order([number; 32]);
        let r = on_curve(nonce);
        let vanishes = challenge(&r, &mixed.key(), b"hello").as_bytes()[0].is_multiple_of(8);
        let signature = mixed.sign(nonce, r, b"hello");
        let holds = holds(&mixed.key(), b"hello", &signature);
        assert_eq!(holds, vanishes, "nonce {number}");
        held += u32::from(holds);
    }
    assert!((1..64).contains(&held), "{held}");
}
