//! TLS over a socket: bytes in, bytes out, for either side of a connection.
//!
//! Reading never waits on writing. What is to be sent waits in an outbox with a bound, so that a side
//! which does not read is noticed instead of waited for. When the other side breaks a rule of TLS, the
//! alert that tells it so is written once.

use std::io::{self, ErrorKind, Read, Write};

use rustls::Connection;

use crate::key::ChannelBinding;
use crate::limits::SEND_QUEUE_LEN_MAX;
use crate::tls::channel_binding;

/// Encrypted bytes that wait in rustls at most; everything else waits in the outbox.
const TLS_BUFFER_LEN: usize = 64 * 1024;

/// A connection. The socket may block or not; if it does not, nothing in here waits.
#[derive(Debug)]
pub struct TlsPump<S> {
    socket: S,
    tls: Connection,
    outbox: Vec<u8>,
    /// So many bytes at the start of the outbox are encrypted already.
    taken: usize,
}

/// How reading went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many encrypted bytes came. There may be more.
    Bytes(usize),
    /// The socket has no more for now.
    Blocked,
    /// The other side said that it says no more.
    Ended,
    /// The stream ended without such a word.
    Cut,
}

/// How writing went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it is with the system.
    All,
    /// The socket takes no more for now.
    Blocked,
}

/// A connection is over.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The other side broke a rule of TLS, or could not prove who it is. It was told so.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<S: Read + Write> TlsPump<S> {
    /// A connection whose handshake is still to come.
    pub fn new(socket: S, tls: impl Into<Connection>) -> Self {
        let mut tls = tls.into();
        tls.set_buffer_limit(Some(TLS_BUFFER_LEN));
        Self {
            socket,
            tls,
            outbox: Vec::new(),
            taken: 0,
        }
    }

    /// Reads once from the socket, and appends to `plaintext` whatever that brings: at most what one
    /// call of the system returns. To be called until it is [`Received::Blocked`], or again when others
    /// had their turn.
    ///
    /// # Errors
    ///
    /// If the connection is over. The alert that says why is with the system, if it took it.
    pub fn read(&mut self, plaintext: &mut Vec<u8>) -> Result<Received, PumpError> {
        let len = loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(Received::Cut),
                Ok(len) => break len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Received::Blocked);
                }
                Err(error) => return Err(error.into()),
            }
        };
        let state = match self.tls.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // Once: the alert that tells the other side why. It may have gone already.
                let _ = self.tls.write_tls(&mut self.socket);
                return Err(error.into());
            }
        };
        let at = plaintext.len();
        plaintext.resize(at + state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut plaintext[at..])?;
        Ok(if state.peer_has_closed() {
            Received::Ended
        } else {
            Received::Bytes(len)
        })
    }

    /// Queues what `append` appends. `false` if more waits then than [`SEND_QUEUE_LEN_MAX`]: the other side
    /// reads too slowly, and the connection is to be ended.
    #[must_use]
    pub fn queue(&mut self, append: impl FnOnce(&mut Vec<u8>)) -> bool {
        append(&mut self.outbox);
        self.waiting_len() <= SEND_QUEUE_LEN_MAX
    }

    /// Encrypts and writes as much of the outbox as the socket takes, and what TLS itself has to say.
    ///
    /// # Errors
    ///
    /// If the socket fails.
    pub fn write(&mut self) -> io::Result<Written> {
        loop {
            self.encrypt()?;
            if !self.tls.wants_write() {
                return Ok(Written::All);
            }
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Written::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that this side says no more. To be called when all is written.
    pub fn say_goodbye(&mut self) {
        self.tls.send_close_notify();
        if let Err(error) = self.tls.write_tls(&mut self.socket) {
            log::debug!("no goodbye: {error}");
        }
    }

    /// Hands as much of the outbox to rustls as it has room for.
    fn encrypt(&mut self) -> io::Result<()> {
        if self.tls.is_handshaking() || self.outbox.is_empty() {
            return Ok(());
        }
        self.taken += self.tls.writer().write(&self.outbox[self.taken..])?;
        if self.taken == self.outbox.len() {
            // An idle connection holds no buffer.
            self.outbox = Vec::new();
            self.taken = 0;
        } else if self.taken > self.outbox.len() / 2 {
            // Each byte moves once on average, and what was sent does not stay in memory for as long as
            // the other side is a little behind.
            self.outbox.drain(..self.taken);
            self.taken = 0;
        }
        Ok(())
    }
}

impl<S> TlsPump<S> {
    /// Bytes that wait for the other side, not encrypted yet.
    pub const fn waiting_len(&self) -> usize {
        self.outbox.len() - self.taken
    }

    /// Tells whether all that was queued, and what TLS itself has to say, is with the system.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && !self.tls.wants_write()
    }

    /// The state of TLS: its handshake, the protocol and the certificates.
    pub const fn tls(&self) -> &Connection {
        &self.tls
    }

    /// The socket below.
    pub const fn socket(&self) -> &S {
        &self.socket
    }

    /// What both sides of this very connection know and nobody else does.
    ///
    /// # Errors
    ///
    /// If the handshake is not complete.
    pub fn channel_binding(&self) -> Result<ChannelBinding, rustls::Error> {
        match &self.tls {
            Connection::Client(tls) => channel_binding(tls),
            Connection::Server(tls) => channel_binding(tls),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::tls::{ServerIdentity, ServerTrust, rendezvous_client_config};

    type Pump = TlsPump<UnixStream>;

    /// Both ends of a connection, before the handshake.
    fn ends() -> (Pump, Pump) {
        let identity = ServerIdentity::from_pem(ServerIdentity::generate_pem().as_bytes()).unwrap();
        let trust = ServerTrust::Pinned(identity.fingerprint().unwrap());
        let client = rendezvous_client_config(&trust).unwrap();
        let name = ServerName::try_from("rendezvous").unwrap();
        let client = ClientConnection::new(client, name).unwrap();
        let server = ServerConnection::new(identity.into_server_config().unwrap()).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        for socket in [&near, &far] {
            socket.set_nonblocking(true).unwrap();
        }
        (TlsPump::new(near, client), TlsPump::new(far, server))
    }

    fn connected() -> (Pump, Pump) {
        let (mut client, mut server) = ends();
        for _ in 0..4 {
            for end in [&mut client, &mut server] {
                end.write().unwrap();
                assert_eq!(read_all(end), (Vec::new(), Received::Blocked));
                end.write().unwrap();
            }
        }
        assert!(!client.tls().is_handshaking() && !server.tls().is_handshaking());
        (client, server)
    }

    /// Reads until there is no more, or the end.
    fn read_all(pump: &mut Pump) -> (Vec<u8>, Received) {
        let mut plaintext = Vec::new();
        loop {
            match pump.read(&mut plaintext).unwrap() {
                Received::Bytes(_) => {}
                last @ (Received::Blocked | Received::Ended | Received::Cut) => {
                    return (plaintext, last);
                }
            }
        }
    }

    fn queue(pump: &mut Pump, bytes: &[u8]) -> bool {
        pump.queue(|outbox| outbox.extend_from_slice(bytes))
    }

    #[test]
    fn bytes_go_both_ways_and_both_ends_have_one_binding() {
        let (mut client, mut server) = connected();
        assert_eq!(
            client.channel_binding().unwrap(),
            server.channel_binding().unwrap()
        );
        assert!(queue(&mut client, b"there") && queue(&mut server, b"back"));
        for end in [&mut client, &mut server] {
            assert_eq!(end.write().unwrap(), Written::All);
            assert!(end.is_flushed());
        }
        assert_eq!(
            read_all(&mut server),
            (b"there".to_vec(), Received::Blocked)
        );
        assert_eq!(read_all(&mut client), (b"back".to_vec(), Received::Blocked));
    }

    #[test]
    fn what_is_queued_before_the_handshake_comes_after_it() {
        let (mut client, mut server) = ends();
        assert!(queue(&mut client, b"early"));
        let mut plaintext = Vec::new();
        for _ in 0..4 {
            client.write().unwrap();
            plaintext.extend(read_all(&mut server).0);
            server.write().unwrap();
            read_all(&mut client);
        }
        assert_eq!(plaintext, b"early");
    }

    #[test]
    fn an_end_with_a_word_and_one_without_are_told_apart() {
        let (mut client, mut server) = connected();
        assert!(queue(&mut client, b"last"));
        client.write().unwrap();
        client.say_goodbye();
        assert_eq!(read_all(&mut server), (b"last".to_vec(), Received::Ended));

        let (client, mut server) = connected();
        drop(client);
        assert_eq!(read_all(&mut server), (Vec::new(), Received::Cut));
    }

    #[test]
    fn t20_who_does_not_read_is_noticed_at_the_bound_and_still_heard() {
        let (mut client, mut server) = connected();
        let piece = [7; 64 * 1024];
        let mut queued = 0;
        while queue(&mut server, &piece) {
            server.write().unwrap();
            queued += piece.len();
            assert!(queued < 8 * SEND_QUEUE_LEN_MAX, "no bound");
        }
        assert!(server.waiting_len() > SEND_QUEUE_LEN_MAX);
        assert_eq!(server.write().unwrap(), Written::Blocked);
        assert!(queue(&mut client, b"still here"));
        client.write().unwrap();
        let heard = read_all(&mut server);
        assert_eq!(heard, (b"still here".to_vec(), Received::Blocked));
    }

    #[test]
    fn t20_what_was_sent_to_a_side_that_is_a_little_behind_is_not_kept() {
        let (mut client, mut server) = connected();
        let piece = [7; 64 * 1024];
        let (mut sent, mut received) = (0, 0);
        for _ in 0..200 {
            while server.waiting_len() < SEND_QUEUE_LEN_MAX / 2 {
                assert!(queue(&mut server, &piece));
                sent += piece.len();
            }
            server.write().unwrap();
            let mut plaintext = Vec::new();
            client.read(&mut plaintext).unwrap();
            client.read(&mut plaintext).unwrap();
            received += plaintext.len();
            assert!(server.outbox.len() <= 2 * SEND_QUEUE_LEN_MAX);
        }
        assert!(received > 2 * SEND_QUEUE_LEN_MAX && sent > received);
    }

    #[test]
    fn whoever_breaks_a_rule_is_told_once() {
        let (mut client, mut server) = connected();
        let garbage = [23, 3, 3, 0, 32, 0xa5].into_iter().chain([0xa5; 31]);
        let garbage: Vec<u8> = garbage.collect();
        (&client.socket).write_all(&garbage).unwrap();
        let error = server.read(&mut Vec::new()).unwrap_err();
        assert!(
            matches!(error, PumpError::Tls(rustls::Error::DecryptError)),
            "{error}"
        );
        let error = client.read(&mut Vec::new()).unwrap_err();
        assert!(
            matches!(error, PumpError::Tls(rustls::Error::AlertReceived(_))),
            "{error}"
        );
        assert_eq!(server.write().unwrap(), Written::All);
        let mut rest = [0];
        let nothing = (&client.socket).read(&mut rest).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    }
}
