//! The codec: a `u32` length in network byte order, then one bincode value of exactly that length.
//!
//! Decoding is stricter than bincode: a frame is bounded, and its value uses every byte of it. Signatures
//! and hashes cover the bytes received, never a second encoding, because bincode has more than one
//! encoding of an integer.

use bincode::config;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Length of the length prefix, in bytes.
pub const PREFIX_LEN: usize = 4;

/// Appends `value` to `out` as one frame with a body of at most `MAX` bytes.
///
/// # Errors
///
/// [`EncodeError`] if the body would be longer than `MAX`; `out` is unchanged then.
pub fn encode<const MAX: usize>(
    value: &impl Serialize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_LEN]);
    let written = bincode::serde::encode_into_std_write(value, out, config::standard())
        .expect("writing to a Vec cannot fail and all our types are supported");
    match u32::try_from(written) {
        Ok(len) if written <= MAX => {
            out[start..start + PREFIX_LEN].copy_from_slice(&len.to_be_bytes());
            Ok(())
        }
        _ => {
            out.truncate(start);
            Err(EncodeError {
                len: written,
                max: MAX,
            })
        }
    }
}

/// Decodes the body of one frame, without its prefix.
///
/// # Errors
///
/// [`FrameError`] if the body is longer than `MAX`, or is not exactly one value of the type `T`.
pub fn decode<const MAX: usize, T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    if body.len() > MAX {
        return Err(FrameError::TooLong {
            len: body.len(),
            max: MAX,
        });
    }
    let limited = config::standard().with_limit::<MAX>();
    let (value, consumed) =
        bincode::serde::decode_from_slice(body, limited).map_err(|_| FrameError::Malformed)?;
    if consumed != body.len() {
        return Err(FrameError::TrailingBytes);
    }
    Ok(value)
}

/// Splits a byte stream, which may arrive in pieces of any size, into frames of at most `MAX` bytes.
///
/// Drained after each push, it holds at most one incomplete frame. A length above `MAX` is an error
/// as soon as the prefix is complete.
#[derive(Debug, Default)]
pub struct FrameBuffer<const MAX: usize> {
    bytes: Vec<u8>,
    start: usize,
}

impl<const MAX: usize> FrameBuffer<MAX> {
    /// Creates an empty buffer.
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// Appends bytes in the order of their arrival.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Removes and decodes the next frame; `None` if it is not complete yet.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the frame is too long or does not decode. The stream cannot be resynchronised:
    /// close the connection.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        match self.next_body()? {
            Some(body) => decode::<MAX, T>(body).map(Some),
            None => Ok(None),
        }
    }

    /// Number of bytes that belong to no decoded frame yet.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Tells whether nothing is left, as at a stream's orderly end.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn next_body(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let held = &self.bytes[self.start..];
        let Some((prefix, rest)) = held.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > MAX {
            return Err(FrameError::TooLong { len, max: MAX });
        }
        if rest.len() < len {
            return Ok(None);
        }
        let body = self.start + PREFIX_LEN;
        self.start = body + len;
        Ok(Some(&self.bytes[body..body + len]))
    }
}

/// The other side sent something that is not a frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body is longer than the protocol allows.
    #[error("cannot decode a frame of {len} bytes: at most {max} are allowed")]
    TooLong {
        /// Length of the body, in bytes.
        len: usize,
        /// Largest length allowed, in bytes.
        max: usize,
    },
    /// The body is not a value of the expected type.
    #[error("cannot decode a frame: it is not a message of the protocol")]
    Malformed,
    /// The value ends before the body does.
    #[error("cannot decode a frame: it has bytes after its message")]
    TrailingBytes,
}

/// A message is too large for its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot encode a message of {len} bytes: at most {max} are allowed; split it")]
pub struct EncodeError {
    /// Length of the encoded message, in bytes.
    pub len: usize,
    /// Largest length allowed, in bytes.
    pub max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rendezvous::{Request, RequestFrame};

    const MAX: usize = 64;
    type Value = (u64, String, Vec<u16>);

    fn sample() -> (Value, Vec<u8>) {
        let value = (1 << 40, "text".to_owned(), vec![1, 500]);
        let mut frame = Vec::new();
        encode::<MAX>(&value, &mut frame).unwrap();
        (value, frame)
    }

    #[test]
    fn frames_survive_any_cutting() {
        let (value, frame) = sample();
        let stream = [frame.clone(), frame.clone()].concat();
        for cut in 0..stream.len() {
            let mut buffer = FrameBuffer::<MAX>::new();
            let mut seen = 0;
            for piece in [&stream[..cut], &stream[cut..]] {
                buffer.push(piece);
                while let Some(decoded) = buffer.next_frame::<Value>().unwrap() {
                    assert_eq!(decoded, value);
                    seen += 1;
                }
            }
            assert_eq!((seen, buffer.is_empty()), (2, true));
        }
    }

    #[test]
    fn t16_lengths_truncation_and_trailing_bytes_are_refused() {
        let (_, frame) = sample();
        let body = &frame[PREFIX_LEN..];
        for cut in 0..body.len() {
            assert!(decode::<MAX, Value>(&body[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [body, &[0]].concat();
        assert_eq!(
            decode::<MAX, Value>(&longer),
            Err(FrameError::TrailingBytes)
        );

        let mut buffer = FrameBuffer::<MAX>::new();
        buffer.push(&u32::MAX.to_be_bytes());
        assert!(matches!(
            buffer.next_frame::<Value>(),
            Err(FrameError::TooLong { .. })
        ));

        // A sequence of 2^60 elements: marker 253, then the length as a u64.
        let huge = [&[0, 0, 253][..], &(1u64 << 60).to_le_bytes()].concat();
        assert!(decode::<MAX, Value>(&huge).is_err());
    }

    #[test]
    fn a_message_over_the_limit_is_not_sent() {
        let mut out = vec![1, 2, 3];
        let error = encode::<8>(&"far too long".to_owned(), &mut out).unwrap_err();
        assert_eq!((error.max, out.len()), (8, 3));
    }

    #[test]
    fn unknown_variants_are_errors_not_panics() {
        for variant in 0..=255u8 {
            let _ = decode::<MAX, RequestFrame>(&[0, variant]);
            let _ = decode::<MAX, Request>(&[variant, 0xff, 0xff]);
        }
    }
}
