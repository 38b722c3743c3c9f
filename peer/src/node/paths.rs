//! Ways between devices: where this one can be reached, and which endpoints of others may be dialled.
//!
//! [`Paths`] owns our own endpoints, what the server was asked about them and told of them, and the
//! answers to those who check them. What others announce is the [`agent`]'s affair. The relay and hole
//! punching will find their place here.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use common::key::DeviceKey;
use common::limits::{
    ANNOUNCE_PATIENCE, CANDIDATES_MAX, STUN_INTERVAL, STUN_RETRY, STUN_TRIES_MAX,
};
use common::stun;
use rand::RngExt;
use rand::rngs::StdRng;

use super::{Datagrams, Transmit};
use answers::Answers;

// Endpoints of others: checks, proofs and budgets.
pub(super) mod agent;
// Whoever checks ours gets an answer.
mod answers;
// What a device that proves nothing may cost.
mod budget;

/// Our endpoints.
#[derive(Debug)]
pub(super) struct Paths {
    rng: StdRng,
    local: BTreeSet<SocketAddr>,
    reflexive: Option<SocketAddr>,
    server: Option<SocketAddr>,
    announced: Option<Vec<SocketAddr>>,
    /// The first announcement of a session waits for the probe until then.
    announce_by: Option<Instant>,
    probe: Probe,
    answers: Answers,
    transmits: VecDeque<(Transmit, Vec<u8>)>,
}

/// Asking the server how it sees us.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// There is no session.
    Off,
    /// A request is out.
    Asking {
        transaction: u128,
        tries: u32,
        at: Instant,
    },
    /// To be asked again then.
    Resting { until: Instant },
}

impl Paths {
    /// The device `own_key` knows nothing of its endpoints yet.
    pub(super) const fn new(rng: StdRng, own_key: DeviceKey) -> Self {
        Self {
            rng,
            local: BTreeSet::new(),
            reflexive: None,
            server: None,
            announced: None,
            announce_by: None,
            probe: Probe::Off,
            answers: Answers::new(own_key),
            transmits: VecDeque::new(),
        }
    }

    /// Takes the addresses of this host's interfaces with the port of the UDP socket.
    pub(super) fn set_local(&mut self, addresses: Vec<SocketAddr>) {
        self.local = addresses.into_iter().map(stun::canonical).collect();
    }

    /// Takes the address of the rendezvous.
    pub(super) fn set_server(&mut self, server: SocketAddr) {
        self.server = Some(stun::canonical(server));
    }

    /// There is a session: finds out how the server sees us.
    pub(super) fn on_online(&mut self, now: Instant) {
        self.announced = None;
        self.announce_by = Some(now + ANNOUNCE_PATIENCE);
        self.ask(0, now);
    }

    /// There is no session any more.
    pub(super) fn on_offline(&mut self) {
        self.probe = Probe::Off;
        self.announce_by = None;
    }

    /// What to announce: where others may reach us, at most [`CANDIDATES_MAX`]. Loopback addresses are
    /// of use only if the server is on this host, too.
    pub(super) fn candidates(&self) -> Vec<SocketAddr> {
        let is_local = self.server.is_some_and(|server| server.ip().is_loopback());
        let local = self
            .local
            .iter()
            .filter(|address| is_local || !address.ip().is_loopback());
        let seen = self
            .reflexive
            .iter()
            .filter(|address| !self.local.contains(address));
        seen.chain(local).copied().take(CANDIDATES_MAX).collect()
    }

    /// All endpoints that are ours, announced or not.
    pub(super) fn own_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.local.iter().chain(self.reflexive.iter()).copied()
    }

    /// Tells whether the server does not know our endpoints as they are, and is to be told now.
    pub(super) fn needs_announcing(&self) -> bool {
        self.announce_by.is_none() && self.announced.as_ref() != Some(&self.candidates())
    }

    /// What to announce; it counts as announced from here on.
    pub(super) fn take_announcement(&mut self) -> Vec<SocketAddr> {
        let candidates = self.candidates();
        self.announced = Some(candidates.clone());
        candidates
    }

    /// Takes a STUN datagram: a check of our endpoints, which it answers, or the answer of the server.
    /// Tells whether it is the latter, so that there may be something to announce.
    pub(super) fn handle_stun(&mut self, datagrams: &Datagrams, now: Instant) -> bool {
        let source = stun::canonical(datagrams.source);
        match self.answers.answer(&datagrams.bytes, source, now) {
            Some(answer) => {
                let transmit = Transmit {
                    // A check proves the address that it was sent to.
                    source: datagrams.local,
                    ..Transmit::single(source, answer.len())
                };
                self.transmits.push_back((transmit, answer));
                false
            }
            None => self.on_server_answer(source, &datagrams.bytes, now),
        }
    }

    fn on_server_answer(&mut self, source: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let Probe::Asking { transaction, .. } = self.probe else {
            return false;
        };
        if Some(source) != self.server {
            return false;
        }
        let Some(seen) = stun::reflexive_address(datagram, transaction) else {
            return false;
        };
        self.probe = Probe::Resting {
            until: now + STUN_INTERVAL,
        };
        self.reflexive = Some(seen);
        self.announce_by = None;
        true
    }

    /// Asks again when it is time. Tells whether the server kept the first announcement waiting for too
    /// long.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        match self.probe {
            Probe::Asking { tries, at, .. } if at <= now && tries >= STUN_TRIES_MAX => {
                self.probe = Probe::Resting {
                    until: now + STUN_INTERVAL,
                };
            }
            Probe::Asking { tries, at, .. } if at <= now => self.ask(tries, now),
            Probe::Resting { until } if until <= now => self.ask(0, now),
            Probe::Asking { .. } | Probe::Resting { .. } | Probe::Off => {}
        }
        self.announce_by.take_if(|by| *by <= now).is_some()
    }

    /// When [`Paths::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let probe = match self.probe {
            Probe::Off => None,
            Probe::Asking { at, .. } => Some(at),
            Probe::Resting { until } => Some(until),
        };
        probe.into_iter().chain(self.announce_by).min()
    }

    /// The next datagram to send.
    pub(super) fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, bytes) = self.transmits.pop_front()?;
        buffer.extend_from_slice(&bytes);
        Some(transmit)
    }

    fn ask(&mut self, tries: u32, now: Instant) {
        let Some(server) = self.server else { return };
        // A STUN transaction has 96 bits (RFC 8489 section 5).
        let transaction = self.rng.random::<u128>() >> 32;
        let request = stun::binding_request(transaction);
        self.transmits
            .push_back((Transmit::single(server, request.len()), request));
        self.probe = Probe::Asking {
            transaction,
            tries: tries + 1,
            at: now + STUN_RETRY,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use bytes::BytesMut;
    use common::key::DeviceSecret;
    use rand::SeedableRng;

    fn server() -> SocketAddr {
        "198.51.100.1:7400".parse().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn online() -> (Paths, Instant) {
        let now = Instant::now();
        let own_key = DeviceSecret::from_seed([1; 32]).public();
        let mut paths = Paths::new(StdRng::from_seed([1; 32]), own_key);
        let local = ["127.0.0.1:5000", "192.0.2.1:5000"].map(|text| text.parse().unwrap());
        paths.set_local(local.to_vec());
        paths.set_server(server());
        paths.on_online(now);
        (paths, now)
    }

    fn answer(paths: &mut Paths, seen: &str, from: SocketAddr, now: Instant) -> bool {
        let mut request = Vec::new();
        paths.poll_transmit(&mut request).unwrap();
        let bytes = stun::binding_answer(&request, seen.parse().unwrap()).unwrap();
        let bytes = BytesMut::from(bytes.as_slice());
        let stride = bytes.len();
        paths.handle_stun(
            &Datagrams {
                source: from,
                local: None,
                ecn: None,
                stride,
                bytes,
            },
            now,
        )
    }

    #[test]
    fn the_address_that_the_server_sees_is_announced_first() {
        let (mut paths, now) = online();
        assert!(answer(&mut paths, "203.0.113.9:6000", server(), now));
        let announced = paths.take_announcement();
        assert_eq!(announced[0], "203.0.113.9:6000".parse().unwrap());
        assert_eq!(
            announced.len(),
            2,
            "loopback is of no use to others: {announced:?}"
        );
        assert!(!paths.needs_announcing());
    }

    #[test]
    fn the_first_announcement_waits_for_the_server_and_not_for_long() {
        let (mut paths, now) = online();
        assert!(!paths.needs_announcing());
        paths.set_local(vec!["192.0.2.2:5000".parse().unwrap()]);
        assert!(!paths.needs_announcing(), "still");
        assert!(answer(&mut paths, "203.0.113.9:6000", server(), now));
        assert!(paths.needs_announcing());

        let (mut paths, now) = online();
        let almost = now + ANNOUNCE_PATIENCE - Duration::from_millis(1);
        assert!(!paths.handle_timeout(almost));
        assert!(!paths.needs_announcing());
        assert!(paths.poll_timeout().unwrap() <= now + ANNOUNCE_PATIENCE);
        assert!(paths.handle_timeout(now + ANNOUNCE_PATIENCE));
        assert!(paths.needs_announcing());
        assert_eq!(paths.take_announcement().len(), 1);
        // What comes late and is new is announced at once, and what is old is not.
        let later = now + ANNOUNCE_PATIENCE;
        paths.transmits.pop_front();
        assert!(answer(&mut paths, "203.0.113.9:6000", server(), later));
        assert!(paths.needs_announcing());
        paths.take_announcement();
        assert!(!paths.needs_announcing());
        assert!(!paths.handle_timeout(later + ANNOUNCE_PATIENCE));
    }

    #[test]
    fn a_check_is_answered_from_the_address_that_it_came_to() {
        let (mut paths, now) = online();
        paths.transmits.clear();
        let own_key = DeviceSecret::from_seed([1; 32]).public();
        let request = stun::binding_request(9);
        let source = "203.0.113.5:4000".parse().unwrap();
        let local = "192.0.2.1".parse().ok();
        let datagrams = Datagrams {
            source,
            local,
            ecn: None,
            stride: request.len(),
            bytes: BytesMut::from(request.as_slice()),
        };
        assert!(!paths.handle_stun(&datagrams, now), "nothing to announce");
        let mut buffer = Vec::new();
        let transmit = paths.poll_transmit(&mut buffer).unwrap();
        assert_eq!((transmit.destination, transmit.source), (source, local));
        assert!(stun::is_check_answer(&buffer, 9, &own_key));
        assert_eq!(transmit.size, buffer.len());
        assert!(paths.poll_transmit(&mut buffer).is_none());
    }

    #[test]
    fn answers_from_elsewhere_teach_nothing() {
        let (mut paths, now) = online();
        assert!(!answer(
            &mut paths,
            "203.0.113.9:6000",
            "203.0.113.1:7400".parse().unwrap(),
            now
        ));
    }

    #[test]
    fn a_silent_server_is_asked_a_few_times_and_again_later() {
        let (mut paths, _) = online();
        let mut asked = 0;
        for _ in 0..STUN_TRIES_MAX * 2 {
            let mut buffer = Vec::new();
            while paths.poll_transmit(&mut buffer).is_some() {
                asked += 1;
            }
            let now = paths.poll_timeout().unwrap();
            if matches!(paths.probe, Probe::Resting { .. }) {
                break;
            }
            paths.handle_timeout(now);
        }
        assert_eq!(asked, STUN_TRIES_MAX);
    }
}
