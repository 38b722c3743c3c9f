//! Leaf streams as far as their bytes have come: a header, then one leaf.

use bytes::Bytes;

use common::wire::frame;
use common::wire::peer::{LEAF_HEADER_LEN_MAX, LeafHeader};

/// A leaf of which some bytes have come. They are copied together: what the transport hands out are
/// views that keep whole receive buffers alive.
#[derive(Debug, Default)]
pub(super) struct IncomingLeaf {
    head: Vec<u8>,
    header: Option<LeafHeader>,
    bytes: Vec<u8>,
    /// Bytes that the leaf will have; 0 before its header.
    len: usize,
}

/// Why a leaf stream is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeafFault {
    /// It holds something else than a header and that leaf.
    Malformed,
    /// Nobody waits for this leaf here.
    Unexpected,
}

impl IncomingLeaf {
    /// Takes the next bytes. `room` tells how long the leaf of a header is, if it is expected.
    pub(super) fn push(
        &mut self,
        mut bytes: Bytes,
        room: impl Fn(&LeafHeader) -> Option<usize>,
    ) -> Result<(), LeafFault> {
        if self.header.is_none() {
            self.take_header(&mut bytes)?;
            let Some(header) = &self.header else {
                return Ok(());
            };
            self.len = room(header).ok_or(LeafFault::Unexpected)?;
            self.bytes.reserve_exact(self.len);
        }
        if self.bytes.len() + bytes.len() > self.len {
            return Err(LeafFault::Malformed);
        }
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    /// The header, once it is here, and how many bytes of the leaf are.
    pub(super) fn arrived(&self) -> Option<(LeafHeader, usize)> {
        Some((self.header?, self.bytes.len()))
    }

    /// The whole leaf, if its stream has ended after its header.
    pub(super) fn finish(self) -> Option<(LeafHeader, Bytes)> {
        Some((self.header?, self.bytes.into()))
    }

    fn take_header(&mut self, bytes: &mut Bytes) -> Result<(), LeafFault> {
        let wanted = match self.head.first_chunk::<{ frame::PREFIX_LEN }>() {
            Some(prefix) => frame::PREFIX_LEN + u32::from_be_bytes(*prefix) as usize,
            None => frame::PREFIX_LEN,
        };
        if wanted > LEAF_HEADER_LEN_MAX {
            return Err(LeafFault::Malformed);
        }
        let missing = wanted - self.head.len();
        self.head
            .extend_from_slice(&bytes.split_to(missing.min(bytes.len())));
        if self.head.len() < wanted {
            return Ok(());
        }
        if wanted == frame::PREFIX_LEN {
            // The prefix is whole now; go on with the header itself.
            return if self.head == [0; frame::PREFIX_LEN] {
                Err(LeafFault::Malformed)
            } else {
                self.take_header(bytes)
            };
        }
        let header = frame::decode::<LEAF_HEADER_LEN_MAX, _>(&self.head[frame::PREFIX_LEN..]);
        self.header = Some(header.map_err(|_| LeafFault::Malformed)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use common::hash::LeafHash;
    use common::id::TransferId;
    use common::limits::LEAF_LEN;

    use super::*;

    fn leaf(payload: &[u8]) -> (LeafHeader, Vec<u8>) {
        let header = LeafHeader {
            transfer: TransferId::from_bytes([1; 16]),
            index: 300,
            hash: LeafHash([2; 32]),
        };
        let mut bytes = Vec::new();
        frame::encode::<LEAF_HEADER_LEN_MAX>(&header, &mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        (header, bytes)
    }

    #[test]
    fn leaves_survive_any_cutting() {
        let (header, bytes) = leaf(b"payload");
        for cut in 0..=bytes.len() {
            let mut incoming = IncomingLeaf::default();
            for piece in [&bytes[..cut], &bytes[cut..]] {
                incoming
                    .push(Bytes::copy_from_slice(piece), |_| Some(7))
                    .unwrap();
            }
            assert_eq!(incoming.header, Some(header));
            assert_eq!(incoming.bytes, b"payload");
        }
    }

    #[test]
    fn t11_oversized_leaves_and_headers_are_refused() {
        let push = |bytes: Vec<u8>, room: Option<usize>| {
            IncomingLeaf::default().push(bytes.into(), |_| room)
        };
        let (_, bytes) = leaf(b"payload");
        assert_eq!(push(bytes.clone(), Some(6)), Err(LeafFault::Malformed));
        assert_eq!(push(bytes, None), Err(LeafFault::Unexpected));
        for prefix in [0u32, 61, u32::MAX] {
            let bytes = [&prefix.to_be_bytes()[..], &[0; 80]].concat();
            assert_eq!(
                push(bytes, Some(LEAF_LEN)),
                Err(LeafFault::Malformed),
                "{prefix}"
            );
        }
    }
}
