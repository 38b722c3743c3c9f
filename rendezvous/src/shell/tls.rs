//! TLS over TCP for one connection: bytes in, frames out, and back.
//!
//! How bytes move is in [`common::os::tls_pump`]; a peer that does not read is cut off when its outbox is
//! full.

use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::key::ChannelBinding;
use common::limits::{CONTROL_FRAME_LEN_MAX, RELAY_BYTES_WAITING_MAX, SEND_QUEUE_LEN_MAX};
use common::os::tls_pump::{Received, TlsPump, Written};
use common::tls::RENDEZVOUS_ALPN;
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
const CONGESTED_LEN: usize = SEND_QUEUE_LEN_MAX / 4;
/// A connection that is being closed has this long to take what was sent to it.
const LINGER: Duration = Duration::from_secs(2);

/// A connection.
#[derive(Debug)]
pub struct TlsConnection {
    pub(super) source: SocketAddr,
    pump: TlsPump<TcpStream>,
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    is_greeted: bool,
    /// Nothing after bytes that are no frame is looked at.
    is_deaf: bool,
    /// The peer said that it says no more.
    has_ended: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshaking,
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

impl TlsConnection {
    /// A connection whose handshake is still to come.
    ///
    /// # Errors
    ///
    /// If `config` cannot be used for a connection.
    pub fn new(
        socket: TcpStream,
        source: SocketAddr,
        config: Arc<ServerConfig>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            source,
            pump: TlsPump::new(socket, ServerConnection::new(config)?),
            frames: FrameBuffer::new(),
            is_greeted: false,
            is_deaf: false,
            has_ended: false,
            state: State::Handshaking,
        })
    }

    /// Reads until there is no more or the budget is used up. Frames that came earlier and had to
    /// wait come first.
    pub fn read(&mut self, events: &mut Vec<Event>) -> Progress {
        let mut budget = READ_BUDGET;
        let mut plaintext = Vec::new();
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
            match self.pump.read(&mut plaintext) {
                Ok(Received::Bytes(len)) => budget = budget.saturating_sub(len),
                Ok(Received::Ended) => self.has_ended = true,
                Ok(Received::Blocked) => {
                    self.release_memory();
                    return Progress::Waits;
                }
                Ok(Received::Cut) => return Progress::Gone,
                Err(error) => {
                    log::debug!("connection fails: source={} error={error}", self.source);
                    return Progress::Gone;
                }
            }
            if !self.take_plaintext(&plaintext, events) {
                return Progress::Gone;
            }
            plaintext.clear();
        }
    }

    /// Queues a frame. `false` if the peer reads too slowly for that.
    pub fn send(&mut self, frame: &Frame, encoder: &mut Encoder) -> bool {
        let mut appended = Ok(());
        let has_room = self
            .pump
            .queue(|outbox| appended = encoder.append(frame, outbox));
        if let Err(error) = appended {
            log::error!("a frame of ours is too large: {error}");
            return false;
        }
        has_room
    }

    /// Writes as much as the socket takes.
    pub fn write(&mut self) -> Progress {
        match self.pump.write() {
            Ok(Written::All | Written::Blocked) => Progress::Waits,
            Err(_) => Progress::Gone,
        }
    }

    /// Begins to close: what is queued is still sent, then the end of the stream. `None` if that is
    /// all done, otherwise when to give up.
    pub fn close(&mut self, now: Instant) -> Option<Instant> {
        if let State::Closing(by) = self.state {
            return Some(by);
        }
        if self.write() == Progress::Gone || self.state == State::Handshaking {
            return None;
        }
        let by = now + LINGER;
        self.state = State::Closing(by);
        self.finish_closing();
        Some(by)
    }

    /// After everything is written, tells the peer that this is the end.
    pub fn finish_closing(&mut self) {
        if !self.is_closing() || !self.pump.is_flushed() {
            return;
        }
        self.pump.say_goodbye();
        let _ = self.pump.socket().shutdown(Shutdown::Write);
    }

    /// Tells whether the engine has let go of this connection.
    pub const fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_))
    }

    /// Tells whether so much waits for the peer that nothing further should be asked.
    pub fn is_congested(&self) -> bool {
        !self.is_closing() && self.pump.waiting_len() > CONGESTED_LEN
    }

    /// Tells whether datagrams of the relay still reach the peer soon.
    pub fn has_room_for_datagrams(&self) -> bool {
        !self.is_closing() && self.pump.waiting_len() <= RELAY_BYTES_WAITING_MAX
    }

    /// `false` when the connection is over.
    fn take_plaintext(&mut self, plaintext: &[u8], events: &mut Vec<Event>) -> bool {
        let tls = self.pump.tls();
        if self.state == State::Handshaking && !tls.is_handshaking() {
            let is_ours = tls.alpn_protocol() == Some(RENDEZVOUS_ALPN);
            let (Ok(channel), true) = (self.pump.channel_binding(), is_ours) else {
                log::debug!("no rdv/1 in ALPN: source={}", self.source);
                return false;
            };
            self.state = State::Open;
            events.push(Event::Connected(channel));
        }
        if !self.is_closing() && !self.is_deaf {
            self.frames.push(plaintext);
        }
        true
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
