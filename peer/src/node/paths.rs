//! Paths between devices: this device's candidates, and checks of other devices' candidates.
//!
//! [`Paths`] owns this device's endpoints, the STUN requests that discover them, what was announced of
//! them, and the answers to other peers' checks. The candidates of other devices belong to the
//! [`agent`].

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

use super::io::{Datagrams, Transmit};
use answers::Answers;

// Candidates of other devices: checks, proofs and budgets.
pub(super) mod agent;
// Answers to checks of this device's endpoints.
mod answers;
// Limits what is sent to unproven endpoints.
mod budget;

/// This device's endpoints, and how they are discovered and announced.
#[derive(Debug)]
pub(super) struct Paths {
    rng: StdRng,
    /// The interfaces' addresses with the port of the UDP socket.
    local: BTreeSet<SocketAddr>,
    /// The server-reflexive address, once the server has answered.
    reflexive: Option<SocketAddr>,
    server: Option<SocketAddr>,
    /// What this session has announced.
    announced: Option<Vec<SocketAddr>>,
    /// Until then, the session's first announcement waits for the server-reflexive address.
    announce_by: Option<Instant>,
    probe: Probe,
    answers: Answers,
    transmits: VecDeque<(Transmit, Vec<u8>)>,
}

/// State of the discovery of the server-reflexive address.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// There is no session.
    Off,
    /// A request is in flight, to be repeated at `at`.
    InFlight {
        transaction: u128,
        tries: u32,
        at: Instant,
    },
    /// The next request is due at `until`.
    Idle { until: Instant },
}

impl Paths {
    /// Creates the paths of the device `own_key`, with no endpoint known yet.
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

    /// Sets the addresses of this host's interfaces, with the port of the UDP socket.
    pub(super) fn set_local(&mut self, addresses: Vec<SocketAddr>) {
        self.local = addresses.into_iter().map(stun::canonical).collect();
    }

    /// Sets the address of the rendezvous server.
    pub(super) fn set_server(&mut self, server: SocketAddr) {
        self.server = Some(stun::canonical(server));
    }

    /// A session began: starts to discover the server-reflexive address.
    pub(super) fn on_online(&mut self, now: Instant) {
        self.announced = None;
        self.announce_by = Some(now + ANNOUNCE_PATIENCE);
        self.send_request(0, now);
    }

    /// The session ended: stops the discovery.
    pub(super) fn on_offline(&mut self) {
        self.probe = Probe::Off;
        self.announce_by = None;
    }

    /// The candidates to announce, at most [`CANDIDATES_MAX`], the server-reflexive one first. Loopback
    /// addresses are included only if the server is on this host, too.
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

    /// All endpoints of this device, announced or not.
    pub(super) fn own_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.local.iter().chain(self.reflexive.iter()).copied()
    }

    /// Tells whether the candidates have changed since the last announcement and are due to be announced.
    pub(super) fn needs_announcing(&self) -> bool {
        self.announce_by.is_none() && self.announced.as_ref() != Some(&self.candidates())
    }

    /// Returns the candidates to announce, and records them as announced.
    pub(super) fn take_announcement(&mut self) -> Vec<SocketAddr> {
        let candidates = self.candidates();
        self.announced = Some(candidates.clone());
        candidates
    }

    /// Handles a STUN datagram: a check of this device, which is answered, or the server's answer. Returns
    /// whether it is the latter, after which there may be something to announce.
    pub(super) fn handle_stun(&mut self, datagrams: &Datagrams, now: Instant) -> bool {
        let source = stun::canonical(datagrams.source);
        match self.answers.answer(&datagrams.bytes, source, now) {
            Some(answer) => {
                let transmit = Transmit {
                    // The answer proves only the address that it comes from.
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
        let Probe::InFlight { transaction, .. } = self.probe else {
            return false;
        };
        if Some(source) != self.server {
            return false;
        }
        let Some(seen) = stun::reflexive_address(datagram, transaction) else {
            return false;
        };
        self.probe = Probe::Idle {
            until: now + STUN_INTERVAL,
        };
        self.reflexive = Some(seen);
        self.announce_by = None;
        true
    }

    /// Sends the STUN request that is due. Returns whether the first announcement has waited long enough
    /// for an answer.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        match self.probe {
            Probe::InFlight { tries, at, .. } if at <= now && tries >= STUN_TRIES_MAX => {
                self.probe = Probe::Idle {
                    until: now + STUN_INTERVAL,
                };
            }
            Probe::InFlight { tries, at, .. } if at <= now => self.send_request(tries, now),
            Probe::Idle { until } if until <= now => self.send_request(0, now),
            Probe::InFlight { .. } | Probe::Idle { .. } | Probe::Off => {}
        }
        self.announce_by.take_if(|by| *by <= now).is_some()
    }

    /// When [`Paths::handle_timeout`] is due, if ever.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let probe = match self.probe {
            Probe::Off => None,
            Probe::InFlight { at, .. } => Some(at),
            Probe::Idle { until } => Some(until),
        };
        probe.into_iter().chain(self.announce_by).min()
    }

    /// Appends the next datagram to send to `buffer`.
    pub(super) fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, bytes) = self.transmits.pop_front()?;
        buffer.extend_from_slice(&bytes);
        Some(transmit)
    }

    fn send_request(&mut self, tries: u32, now: Instant) {
        let Some(server) = self.server else { return };
        // A STUN transaction has 96 bits (RFC 8489 section 5).
        let transaction = self.rng.random::<u128>() >> 32;
        let request = stun::binding_request(transaction);
        self.transmits
            .push_back((Transmit::single(server, request.len()), request));
        self.probe = Probe::InFlight {
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
        // A late answer is announced at once if the address is new, and not at all otherwise.
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
            if matches!(paths.probe, Probe::Idle { .. }) {
                break;
            }
            paths.handle_timeout(now);
        }
        assert_eq!(asked, STUN_TRIES_MAX);
    }
}
