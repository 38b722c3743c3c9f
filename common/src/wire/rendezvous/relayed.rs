//! Datagrams of the relay on the control connection, for devices whose UDP packets do not reach the server.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::UDP_TRAIN_LEN_MAX;
use crate::wire::channel::CHANNEL_HEADER_LEN;

/// Datagrams between a peer and the relay, as they would be over UDP ([`crate::wire::channel`]).
///
/// They may be lost here, too: whoever cannot take or pass them on drops them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayDatagrams {
    /// Length of each in bytes but the last, which may be shorter.
    pub stride: u16,
    /// All of them, back to back; at most [`UDP_TRAIN_LEN_MAX`].
    #[serde(with = "byte_string")]
    pub bytes: Vec<u8>,
}

impl RelayDatagrams {
    /// Tells whether the bounds hold: none of them is empty, or so short that they are very many.
    pub fn is_fair(&self) -> bool {
        usize::from(self.stride) >= CHANNEL_HEADER_LEN
            && (1..=UDP_TRAIN_LEN_MAX).contains(&self.bytes.len())
    }
}

impl fmt::Debug for RelayDatagrams {
    /// Whose ids they have must not be in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayDatagrams")
            .field("stride", &self.stride)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Bytes at once instead of one by one; their encoding is the same.
mod byte_string {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
                Ok(bytes)
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(bytes.to_vec())
            }
        }

        from.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONTROL_FRAME_LEN_MAX;
    use crate::wire::frame;
    use crate::wire::rendezvous::{Push, Request, RequestFrame, RequestId, ServerFrame};

    #[test]
    fn the_longest_train_fits_a_frame_of_either_side() {
        let datagrams = RelayDatagrams {
            stride: u16::MAX,
            bytes: vec![1; UDP_TRAIN_LEN_MAX],
        };
        assert!(datagrams.is_fair());
        let mut out = Vec::new();
        let request = RequestFrame {
            id: RequestId(u32::MAX),
            request: Request::Relay(datagrams.clone()),
        };
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&request, &mut out).unwrap();
        let decoded: RequestFrame =
            frame::decode::<CONTROL_FRAME_LEN_MAX, _>(&out[frame::PREFIX_LEN..]).unwrap();
        assert_eq!(decoded, request);
        let push = ServerFrame::Push(Push::Relay(datagrams));
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&push, &mut out).unwrap();
    }

    #[test]
    fn bytes_at_once_are_encoded_as_one_by_one() {
        let datagrams = RelayDatagrams {
            stride: 300,
            bytes: vec![7; 400],
        };
        let (mut one, mut other) = (Vec::new(), Vec::new());
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&datagrams, &mut one).unwrap();
        let plain = (300_u16, vec![7_u8; 400]);
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&plain, &mut other).unwrap();
        assert_eq!(one, other);
    }

    #[test]
    fn t16_datagrams_without_a_length_are_not_fair() {
        for (stride, len) in [(0, 9), (16, 1000), (17, 0), (17, UDP_TRAIN_LEN_MAX + 1)] {
            let bytes = vec![0; len];
            assert!(!RelayDatagrams { stride, bytes }.is_fair());
        }
    }
}
