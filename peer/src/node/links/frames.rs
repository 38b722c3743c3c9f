//! The message stream of one link: a greeting, then frames in order.
//!
//! A recipient reads no more while so many frames wait to be handled.

use common::limits::{LINK_FRAME_LEN_MAX, MESSAGES_IN_FLIGHT_MAX};
use common::wire::frame::FrameBuffer;
use common::wire::peer::{PeerFrame, PeerHello};

use crate::node::transport::{CloseReason, StreamId};
use crate::node::violation::ProtocolViolation;

/// Our end of a message stream.
#[derive(Debug, Default)]
pub(super) struct MessageStream {
    id: Option<StreamId>,
    buffer: FrameBuffer<LINK_FRAME_LEN_MAX>,
    has_greeted: bool,
    /// Frames that were taken and not handled yet.
    queued: usize,
}

/// What a message stream brought.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and a box would be an allocation for each message"
)]
#[derive(Debug)]
pub(super) enum Arrived {
    /// The other side's greeting.
    Hello,
    Frame(PeerFrame),
}

impl MessageStream {
    /// The stream, once it is open.
    pub(super) const fn id(&self) -> Option<StreamId> {
        self.id
    }

    /// The stream is open.
    pub(super) const fn open(&mut self, id: StreamId) {
        self.id = Some(id);
    }

    /// Tells whether the other side has greeted.
    pub(super) const fn has_greeted(&self) -> bool {
        self.has_greeted
    }

    /// Frames that wait, at most [`MESSAGES_IN_FLIGHT_MAX`].
    pub(super) const fn waiting(&self) -> usize {
        self.queued
    }

    /// Tells whether so many frames wait that no more are taken.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting() >= MESSAGES_IN_FLIGHT_MAX
    }

    /// Adds bytes as they came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.push(bytes);
    }

    /// Takes the next of what has come, as long as there is room.
    ///
    /// # Errors
    /// The other side broke the protocol, or speaks no version of ours: the link is to be closed.
    pub(super) fn take(&mut self) -> Result<Option<Arrived>, CloseReason> {
        if !self.has_greeted {
            let Some(hello) = self.buffer.next_frame::<PeerHello>().map_err(malformed)? else {
                return Ok(None);
            };
            if !hello.is_compatible() {
                return Err(CloseReason::Version);
            }
            self.has_greeted = true;
            return Ok(Some(Arrived::Hello));
        }
        if self.is_full() {
            return Ok(None);
        }
        let frame = self.buffer.next_frame::<PeerFrame>().map_err(malformed)?;
        self.queued += usize::from(frame.is_some());
        Ok(frame.map(Arrived::Frame))
    }

    /// A frame that was taken is being handled.
    pub(super) const fn on_handled(&mut self) {
        self.queued = self.queued.saturating_sub(1);
    }
}

fn malformed(error: common::wire::frame::FrameError) -> CloseReason {
    log::debug!("a link is closed: {}", ProtocolViolation::from(error));
    CloseReason::Protocol
}
