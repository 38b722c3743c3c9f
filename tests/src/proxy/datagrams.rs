//! What becomes of a datagram: it is lost, comes twice, comes late, or arrives.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::stun::binding_answer;

use super::luck::Dice;
use super::shared::{Counted, Shared};
use super::{Luck, PACE};
use crate::program::now;

/// Room for any datagram.
const DATAGRAM_LEN_MAX: usize = 1 << 16;
/// Datagrams that wait to be late; what comes on top is lost, as in a router.
const WAITING_MAX: usize = 1024;
/// The shortest time-out of a read: zero would be none.
const READ_MIN: Duration = Duration::from_millis(1);

/// One of the two directions between the peers.
#[derive(Debug)]
pub(super) struct Way {
    /// The receiver's alias, which the sender sends to.
    pub(super) from: UdpSocket,
    /// The only one whose datagrams count.
    pub(super) sender: SocketAddr,
    /// The sender's alias, which the receiver gets them from.
    pub(super) out: UdpSocket,
    /// Where they go.
    pub(super) receiver: SocketAddr,
}

/// Carries datagrams until the proxy ends.
pub(super) fn carry(shared: &Shared, way: &Way, mut dice: Dice) {
    let mut space = vec![0; DATAGRAM_LEN_MAX];
    let mut waiting = Waiting::default();
    while !shared.has_ended() {
        let pause = waiting.due().map_or(PACE, |due| {
            due.saturating_duration_since(now()).clamp(READ_MIN, PACE)
        });
        // It is not zero, so it is taken; and a read that fails is one without a datagram.
        let _ = way.from.set_read_timeout(Some(pause));
        if let Ok((len, source)) = way.from.recv_from(&mut space)
            && source == way.sender
        {
            let now = now();
            for delay in decide(shared, &shared.luck(), &mut dice) {
                waiting.push(now + delay, &space[..len]);
            }
        }
        while let Some(datagram) = waiting.pop(now()) {
            // Nobody may be there to receive it.
            let _ = way.out.send_to(&datagram, way.receiver);
        }
    }
}

/// Tells whoever asks that it is seen as `alias`, until the proxy ends.
pub(super) fn answer_stun(shared: &Shared, socket: &UdpSocket, alias: SocketAddr, mut dice: Dice) {
    let mut space = vec![0; DATAGRAM_LEN_MAX];
    while !shared.has_ended() {
        let Ok((len, source)) = socket.recv_from(&mut space) else {
            continue;
        };
        let is_lost = decide(shared, &shared.luck(), &mut dice).is_empty();
        if let Some(answer) = binding_answer(&space[..len], alias)
            && !is_lost
        {
            // It asks again if this does not reach it.
            let _ = socket.send_to(&answer, source);
        }
    }
}

/// How much later each copy of a datagram comes; none if it is lost. Takes the same number of rolls
/// whatever comes of it.
fn decide(shared: &Shared, luck: &Luck, dice: &mut Dice) -> Vec<Duration> {
    let [is_lost, is_doubled, is_late] =
        [luck.loss, luck.doubles, luck.delays].map(|rate| dice.hits(rate));
    let [late, later] = [(); 2].map(|()| Duration::from_millis(dice.within(1, luck.delay_ms_max)));
    if is_lost || luck.is_dark {
        shared.count(Counted::Lost);
        return Vec::new();
    }
    shared.count(Counted::Carried);
    let mut copies = vec![Duration::ZERO];
    if is_late {
        shared.count(Counted::Delayed);
        copies[0] = late;
    }
    if is_doubled {
        shared.count(Counted::Doubled);
        copies.push(later);
    }
    copies
}

/// Datagrams by the time at which they are due; those of one time in the order in which they came.
#[derive(Debug, Default)]
struct Waiting {
    datagrams: BTreeMap<(Instant, u64), Vec<u8>>,
    number: u64,
}

impl Waiting {
    fn push(&mut self, due: Instant, datagram: &[u8]) {
        if self.datagrams.len() < WAITING_MAX {
            self.number += 1;
            self.datagrams.insert((due, self.number), datagram.to_vec());
        }
    }

    fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        let first = self.datagrams.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    fn due(&self) -> Option<Instant> {
        let (first, _) = self.datagrams.first_key_value()?;
        Some(first.0)
    }
}
