//! What becomes of a connection: its bytes come in odd pieces, late, or not any more.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::luck::{Dice, PIECE_LEN_MAX};
use super::shared::{Counted, Shared};
use super::{Luck, PACE};
use crate::program::now;

/// Connections at once; the next one is closed at once.
const CONNECTIONS_MAX: usize = 32;
/// Whoever does not take a piece for this long is cut.
const WRITE_MAX: Duration = Duration::from_secs(2);

/// Takes connections until the proxy ends, and waits for their threads.
pub(super) fn accept(shared: &Arc<Shared>, listener: &TcpListener, dice: &Dice) {
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    for number in 0.. {
        let accepted = listener.accept();
        if shared.has_ended() {
            break;
        }
        pumps.retain(|pump| !pump.is_finished());
        let Ok((client, _)) = accepted else {
            // Out of descriptors, perhaps: not for ever.
            shared.pause(PACE);
            continue;
        };
        if pumps.len() / 2 >= CONNECTIONS_MAX {
            continue;
        }
        let mut dice = dice.child(number);
        let Some(connection) = Connection::new(shared, client, &mut dice) else {
            continue;
        };
        for (number, is_upwards) in [(0, true), (1, false)] {
            let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
            let dice = dice.child(number);
            pumps.push(thread::spawn(move || {
                pump(&shared, &connection, is_upwards, dice)
            }));
        }
    }
    for pump in pumps {
        // A thread that panicked has said so.
        let _ = pump.join();
    }
}

/// A connection and its fate.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    ends_at: Option<Instant>,
    ends_rudely: bool,
    /// How often all had been cut when it was made.
    cuts: u64,
    is_cut: AtomicBool,
}

impl Connection {
    /// Connects to the server for a client; `None`, which hangs up, if nobody is there.
    fn new(shared: &Shared, client: TcpStream, dice: &mut Dice) -> Option<Arc<Self>> {
        let luck = shared.luck();
        let is_doomed = dice.hits(luck.cuts);
        let life = Duration::from_millis(dice.within(1, luck.life_ms_max));
        let connection = Self {
            server: TcpStream::connect(shared.server).ok()?,
            client,
            ends_at: is_doomed.then(|| now() + life),
            ends_rudely: dice.hits(500),
            cuts: shared.cuts(),
            is_cut: AtomicBool::new(false),
        };
        for stream in [&connection.client, &connection.server] {
            stream.set_nodelay(true).ok()?;
            stream.set_read_timeout(Some(PACE)).ok()?;
            stream.set_write_timeout(Some(WRITE_MAX)).ok()?;
        }
        Some(Arc::new(connection))
    }

    /// Tells whether it is over, and makes it so when its time has come.
    fn is_over(&self, shared: &Shared) -> bool {
        let is_due = self.cuts != shared.cuts() || self.ends_at.is_some_and(|end| end <= now());
        if is_due {
            self.cut(shared);
        }
        self.is_cut.load(Ordering::Relaxed) || shared.has_ended()
    }

    /// Ends it: with a reset, or in a way that looks like a good end in the middle of things.
    fn cut(&self, shared: &Shared) {
        if self.is_cut.swap(true, Ordering::Relaxed) {
            return;
        }
        shared.count(Counted::Cut);
        for stream in [&self.client, &self.server] {
            // Whichever end is gone already needs neither. The reset goes out when both threads have
            // let go of the socket.
            if self.ends_rudely {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            } else {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

/// Carries the bytes of one direction, until there are no more or the connection is cut.
fn pump(shared: &Shared, connection: &Connection, is_upwards: bool, mut dice: Dice) {
    let (mut from, mut to) = (&connection.client, &connection.server);
    if !is_upwards {
        (from, to) = (to, from);
    }
    let mut space = [0; PIECE_LEN_MAX];
    while !connection.is_over(shared) {
        let Luck {
            pauses,
            pause_ms_max,
            piece_len_max,
            ..
        } = shared.luck();
        let len = usize::try_from(dice.within(1, piece_len_max)).unwrap_or(PIECE_LEN_MAX);
        let is_late = dice.hits(pauses);
        let pause = Duration::from_millis(dice.within(1, pause_ms_max));
        match from.read(&mut space[..len.min(PIECE_LEN_MAX)]) {
            Ok(0) => {
                // The other end may be gone, too.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(len) => {
                if is_late {
                    shared.pause(pause);
                }
                if connection.is_over(shared) || to.write_all(&space[..len]).is_err() {
                    return connection.cut(shared);
                }
            }
            Err(error) if is_patient(error.kind()) => {}
            Err(_) => return connection.cut(shared),
        }
    }
}

/// Nothing came in time, which is no reason to end.
const fn is_patient(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
