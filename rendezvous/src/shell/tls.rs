//! TLS over TCP for one connection: bytes in, frames out, and back.
//!
//! Reading never waits on writing. What is to be sent waits in an outbox with a bound; a peer that
//! does not read is cut off when it is full.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::key::ChannelBinding;
use common::limits::{CONTROL_FRAME_LEN_MAX, OUTBOX_LEN_MAX};
use common::tls::{RENDEZVOUS_ALPN, channel_binding};
use common::wire::frame::FrameBuffer;
use common::wire::rendezvous::{Hello, RequestFrame};
use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

use super::encoder::Encoder;
use crate::server::Frame;

/// Bytes that one connection may bring in before the others have their turn.
const READ_BUDGET: usize = 64 * 1024;
/// Frames of one connection before the others have their turn, and before it is looked at whether it
/// takes the answers: those to all of them fit above [`CONGESTED_LEN`] into the outbox.
const FRAMES_PER_TURN: usize = 8;
/// With more than this in its outbox a connection is asked nothing further.
const CONGESTED_LEN: usize = OUTBOX_LEN_MAX / 4;
/// A connection that is being closed has this long to take what was sent to it.
const LINGER: Duration = Duration::from_secs(2);

/// A connection.
#[derive(Debug)]
pub struct Link {
    pub(super) socket: TcpStream,
    pub(super) source: SocketAddr,
    tls: ServerConnection,
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    is_greeted: bool,
    /// Nothing after bytes that are no frame is looked at.
    is_deaf: bool,
    /// The peer said that it says no more.
    has_ended: bool,
    outbox: Vec<u8>,
    sent: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Shaking,
    Open,
    /// Nothing is read any more but the end; this ends it in any case.
    Closing(Instant),
}

/// What reading brought.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete.
    Connected(ChannelBinding),
    /// The first frame.
    Greeted(Hello),
    /// A further one.
    Requested(RequestFrame),
    /// No frame: nothing more is read.
    Malformed,
}

/// How reading or writing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Until the socket says so, there is no more to do.
    Waits,
    /// There may be more, but it is the others' turn.
    HasMore,
    /// The connection is over.
    Gone,
}

impl Link {
    /// A connection whose handshake is still to come.
    pub fn new(
        socket: TcpStream,
        source: SocketAddr,
        config: Arc<ServerConfig>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            socket,
            source,
            tls: ServerConnection::new(config)?,
            frames: FrameBuffer::new(),
            is_greeted: false,
            is_deaf: false,
            has_ended: false,
            outbox: Vec::new(),
            sent: 0,
            state: State::Shaking,
        })
    }

    /// Reads until there is no more or the budget is used up. Frames that came earlier and had to
    /// wait come first.
    pub fn read(&mut self, events: &mut Vec<Event>) -> Progress {
        let mut budget = READ_BUDGET;
        loop {
            self.take_frames(events);
            if events.len() >= FRAMES_PER_TURN {
                return Progress::HasMore;
            }
            if self.has_ended {
                return Progress::Gone;
            }
            if budget == 0 {
                return Progress::HasMore;
            }
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Progress::Gone,
                Ok(len) => budget = budget.saturating_sub(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.release_memory();
                    return Progress::Waits;
                }
                Err(_) => return Progress::Gone,
            }
            if let Err(error) = self.tls.process_new_packets() {
                log::debug!("TLS ended: source={} error={error}", self.source);
                // Once: the alert that tells the peer why.
                let _ = self.tls.write_tls(&mut self.socket);
                return Progress::Gone;
            }
            if !self.take_plaintext(events) {
                return Progress::Gone;
            }
        }
    }

    /// Queues a frame. `false` if the peer reads too slowly for that.
    pub fn send(&mut self, frame: &Frame, encoder: &mut Encoder) -> bool {
        if let Err(error) = encoder.append(frame, &mut self.outbox) {
            log::error!("a frame of ours is too large: {error}");
            return false;
        }
        self.outbox.len() - self.sent <= OUTBOX_LEN_MAX
    }

    /// Writes as much as the socket takes.
    pub fn write(&mut self) -> Progress {
        loop {
            while self.sent < self.outbox.len() {
                match self.tls.writer().write(&self.outbox[self.sent..]) {
                    Ok(0) | Err(_) => break,
                    Ok(len) => self.sent += len,
                }
            }
            if self.sent == self.outbox.len() {
                self.outbox = Vec::new();
                self.sent = 0;
            }
            if !self.tls.wants_write() {
                return Progress::Waits;
            }
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Waits,
                Err(_) => return Progress::Gone,
            }
        }
    }

    /// Begins to close: what is queued is still sent, then the end of the stream. `None` if that is
    /// all done, otherwise when to give up.
    pub fn close(&mut self, now: Instant) -> Option<Instant> {
        if let State::Closing(by) = self.state {
            return Some(by);
        }
        if self.write() == Progress::Gone || self.state == State::Shaking {
            return None;
        }
        let by = now + LINGER;
        self.state = State::Closing(by);
        self.finish_closing();
        Some(by)
    }

    /// After everything is written, tells the peer that this is the end.
    pub fn finish_closing(&mut self) {
        if !self.is_closing() || !self.outbox.is_empty() || self.tls.wants_write() {
            return;
        }
        self.tls.send_close_notify();
        let _ = self.tls.write_tls(&mut self.socket);
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Tells whether the engine has let go of this connection.
    pub const fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_))
    }

    /// Tells whether so much waits for the peer that nothing further should be asked.
    pub fn is_congested(&self) -> bool {
        !self.is_closing() && self.outbox.len() - self.sent > CONGESTED_LEN
    }

    /// `false` when the connection is over.
    fn take_plaintext(&mut self, events: &mut Vec<Event>) -> bool {
        if self.state == State::Shaking && !self.tls.is_handshaking() {
            let binding = channel_binding(&self.tls);
            let is_ours = self.tls.alpn_protocol() == Some(RENDEZVOUS_ALPN);
            let (Ok(channel), true) = (binding, is_ours) else {
                log::debug!("no rdv/1 in ALPN: source={}", self.source);
                return false;
            };
            self.state = State::Open;
            events.push(Event::Connected(channel));
        }
        let mut bytes = [0; 4096];
        loop {
            match self.tls.reader().read(&mut bytes) {
                Ok(0) => {
                    self.has_ended = true;
                    return true;
                }
                Ok(_) if self.is_closing() || self.is_deaf => continue,
                Ok(len) => self.frames.push(&bytes[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    fn take_frames(&mut self, events: &mut Vec<Event>) {
        while events.len() < FRAMES_PER_TURN {
            let event = if self.is_greeted {
                self.frames
                    .next_frame()
                    .map(|frame| frame.map(Event::Requested))
            } else {
                self.frames
                    .next_frame()
                    .map(|frame| frame.map(Event::Greeted))
            };
            match event {
                Ok(Some(event)) => {
                    self.is_greeted = true;
                    events.push(event);
                }
                Ok(None) => return,
                Err(error) => {
                    log::debug!("no frame: source={} error={error}", self.source);
                    events.push(Event::Malformed);
                    self.frames = FrameBuffer::new();
                    self.is_deaf = true;
                    return;
                }
            }
        }
    }

    /// An idle connection holds no buffer.
    fn release_memory(&mut self) {
        if self.frames.is_empty() {
            self.frames = FrameBuffer::new();
        }
    }
}
