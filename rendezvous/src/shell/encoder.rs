//! Frames in bytes. A push goes to everybody who watches, and is encoded once for all of them.

use std::collections::VecDeque;
use std::sync::Arc;

use common::limits::CONTROL_FRAME_LEN_MAX;
use common::wire::frame::{self, EncodeError};
use common::wire::rendezvous::ServerFrame;

use crate::server::Frame;

/// Shared frames that are remembered: each watcher gets all pushes of one moment in turn, so these are
/// the pushes of all changes that one may get at once.
const REMEMBERED_MAX: usize = 16;

/// Encodes frames, each shared one only once while it is remembered.
#[derive(Debug, Default)]
pub struct Encoder {
    remembered: VecDeque<(Arc<ServerFrame>, Vec<u8>)>,
}

impl Encoder {
    /// Appends a frame to `out`.
    ///
    /// # Errors
    ///
    /// If it is larger than a frame may be; `out` is as it was then.
    pub fn append(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match frame {
            Frame::Greeting(greeting) => frame::encode::<CONTROL_FRAME_LEN_MAX>(greeting, out),
            Frame::Server(message) => self.append_message(message, out),
        }
    }

    fn append_message(
        &mut self,
        message: &Arc<ServerFrame>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let mut remembered = self.remembered.iter();
        let known = remembered.find(|(known, _)| Arc::ptr_eq(known, message));
        if let Some((_, bytes)) = known {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let start = out.len();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&**message, out)?;
        let is_for_others_too = Arc::strong_count(message) > 1;
        if is_for_others_too {
            self.remember(Arc::clone(message), out[start..].to_vec());
        }
        Ok(())
    }

    fn remember(&mut self, message: Arc<ServerFrame>, bytes: Vec<u8>) {
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((message, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::wire::rendezvous::{
        ByeReason, DeviceAnswer, DirectoryPush, HelloAnswer, Push, RequestId,
    };

    fn encoded(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        let done = match frame {
            Frame::Greeting(greeting) => {
                frame::encode::<CONTROL_FRAME_LEN_MAX>(greeting, &mut bytes)
            }
            Frame::Server(message) => {
                frame::encode::<CONTROL_FRAME_LEN_MAX>(&**message, &mut bytes)
            }
        };
        done.unwrap();
        bytes
    }

    #[test]
    fn shared_frames_are_remembered_and_all_come_out_as_they_are() {
        let push = |reason| Frame::Server(Arc::new(ServerFrame::Push(Push::Bye(reason))));
        let shared = [push(ByeReason::Replaced), push(ByeReason::TimedOut)];
        let own = Frame::Server(Arc::new(ServerFrame::Answer {
            id: RequestId(7),
            answer: DeviceAnswer::Done.into(),
        }));
        let greeting = Frame::Greeting(HelloAnswer::Upgrade {
            versions: vec![1],
            agent: "test".to_owned(),
        });
        let others = shared.clone();
        let mut encoder = Encoder::default();
        for _ in 0..3 {
            for frame in shared.iter().chain([&own, &greeting]) {
                let mut out = vec![9; 3];
                encoder.append(frame, &mut out).unwrap();
                assert_eq!(out[..3], [9; 3]);
                assert_eq!(out[3..], encoded(frame));
            }
        }
        assert_eq!(encoder.remembered.len(), others.len());
    }

    #[test]
    fn so_many_frames_are_remembered_and_no_more() {
        let mut encoder = Encoder::default();
        let mut out = Vec::new();
        let shared = |_| Arc::new(ServerFrame::Push(Push::Directory(DirectoryPush::ListAgain)));
        let shared: Vec<_> = (0..=REMEMBERED_MAX).map(shared).collect();
        for message in &shared {
            let frame = Frame::Server(Arc::clone(message));
            encoder.append(&frame, &mut out).unwrap();
        }
        assert_eq!(encoder.remembered.len(), REMEMBERED_MAX);
    }
}
