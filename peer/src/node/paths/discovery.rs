//! Discovers this device's server-reflexive address in one address family.
//!
//! A [`Discovery`] owns the STUN exchange with one address of the rendezvous server, and what the server
//! last saw there. It repeats requests, gives up for a while on a server that does not answer, and keeps
//! the NAT's mapping alive: where the server sees another address though nothing has changed on this host, the NAT
//! has let go of the mapping since the last answer, and is asked twice as often from then on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::limits::{STUN_INTERVAL, STUN_INTERVAL_MIN, STUN_RETRY_INTERVAL, STUN_TRIES_MAX};
use common::stun;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::node::io::Transmit;

/// Learns under which address the server at one address sees this device.
#[derive(Debug)]
pub(super) struct Discovery {
    server: SocketAddr,
    /// Outlasts a session: the next one's first announcement may need it.
    reflexive: Option<SocketAddr>,
    /// From one request to the next: as long as mappings last on this network, as far as is known.
    interval: Duration,
    /// When the server answered last on this network.
    heard: Option<Instant>,
    probe: Probe,
    /// The server has just been given up.
    is_lost: bool,
}

/// State of the exchange.
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

impl Discovery {
    /// Creates the discovery at one address of the server, with what `before` has found out, the discovery at
    /// another one of this family.
    pub(super) fn new(server: SocketAddr, before: Option<&Self>) -> Self {
        Self {
            server,
            reflexive: before.and_then(|before| before.reflexive),
            interval: before.map_or(STUN_INTERVAL, |before| before.interval),
            heard: None,
            probe: Probe::Off,
            is_lost: false,
        }
    }

    /// The address of the server.
    pub(super) const fn server(&self) -> SocketAddr {
        self.server
    }

    /// What the server last saw.
    pub(super) const fn reflexive(&self) -> Option<SocketAddr> {
        self.reflexive
    }

    /// Begins the exchange with a request to send.
    pub(super) fn start(&mut self, rng: &mut StdRng, now: Instant) -> (Transmit, Vec<u8>) {
        self.request(0, rng, now)
    }

    /// Asks at once instead of later; `None` if an answer is waited for already, or there is no session.
    pub(super) fn hurry(&mut self, rng: &mut StdRng, now: Instant) -> Option<(Transmit, Vec<u8>)> {
        match self.probe {
            Probe::Idle { .. } => Some(self.request(0, rng, now)),
            Probe::Off | Probe::InFlight { .. } => None,
        }
    }

    /// Ends the exchange.
    pub(super) const fn stop(&mut self) {
        self.probe = Probe::Off;
    }

    /// Takes a datagram that may be the server's answer. Returns whether it was.
    pub(super) fn on_answer(&mut self, source: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let Probe::InFlight { transaction, .. } = self.probe else {
            return false;
        };
        if source != self.server {
            return false;
        }
        let Some(seen) = stun::reflexive_address(datagram, transaction) else {
            return false;
        };
        let has_moved = self.reflexive.is_some_and(|before| before != seen);
        // After a sleep nothing has kept the mapping alive.
        let was_kept = self.heard.is_some_and(|at| now <= at + self.interval * 2);
        if has_moved && was_kept {
            self.interval = (self.interval / 2).max(STUN_INTERVAL_MIN);
            log::debug!("a NAT forgets soon; asking every {:?}", self.interval);
        }
        self.heard = Some(now);
        self.probe = Probe::Idle {
            until: now + self.interval,
        };
        self.reflexive = Some(seen);
        true
    }

    /// This host is on another network.
    pub(super) const fn on_network_change(&mut self) {
        self.interval = STUN_INTERVAL;
        self.heard = None;
    }

    /// Returns the request that is due, if any.
    pub(super) fn handle_timeout(
        &mut self,
        rng: &mut StdRng,
        now: Instant,
    ) -> Option<(Transmit, Vec<u8>)> {
        match self.probe {
            Probe::InFlight { tries, at, .. } if at <= now && tries >= STUN_TRIES_MAX => {
                self.probe = Probe::Idle {
                    until: now + self.interval,
                };
                self.is_lost = true;
                None
            }
            Probe::InFlight { tries, at, .. } if at <= now => Some(self.request(tries, rng, now)),
            Probe::Idle { until } if until <= now => Some(self.request(0, rng, now)),
            Probe::InFlight { .. } | Probe::Idle { .. } | Probe::Off => None,
        }
    }

    /// Tells once that the server was given up.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.is_lost)
    }

    /// When [`Discovery::handle_timeout`] is due, if ever.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        match self.probe {
            Probe::Off => None,
            Probe::InFlight { at, .. } => Some(at),
            Probe::Idle { until } => Some(until),
        }
    }

    fn request(&mut self, tries: u32, rng: &mut StdRng, now: Instant) -> (Transmit, Vec<u8>) {
        // A STUN transaction has 96 bits (RFC 8489 section 5).
        let transaction = rng.random::<u128>() >> 32;
        self.probe = Probe::InFlight {
            transaction,
            tries: tries + 1,
            at: now + STUN_RETRY_INTERVAL,
        };
        let request = stun::binding_request(transaction);
        (Transmit::single(self.server, request.len()), request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_silent_server_is_asked_a_few_times_and_again_later() {
        let mut rng = StdRng::from_seed([1; 32]);
        let began = Instant::now();
        let mut discovery = Discovery::new("198.51.100.1:7400".parse().unwrap(), None);
        let mut asked = vec![began];
        discovery.start(&mut rng, began);
        for _ in 0..=STUN_TRIES_MAX {
            let now = discovery.poll_timeout().unwrap();
            if discovery.handle_timeout(&mut rng, now).is_some() {
                asked.push(now);
            }
        }
        let pauses: Vec<_> = asked.windows(2).map(|two| two[1] - two[0]).collect();
        let (again, quick) = pauses.split_last().unwrap();
        assert_eq!(quick, [STUN_RETRY_INTERVAL; STUN_TRIES_MAX as usize - 1]);
        assert_eq!(*again, STUN_RETRY_INTERVAL + STUN_INTERVAL);
    }

    /// A NAT that lets go of a mapping after a while without traffic.
    struct Nat {
        lifetime: Duration,
        port: u16,
        used: Instant,
    }

    impl Nat {
        /// Answers the request that a discovery has just made, as the server does.
        fn answer(&mut self, discovery: &mut Discovery, request: &[u8], now: Instant) {
            if now > self.used + self.lifetime {
                self.port += 1;
            }
            self.used = now;
            let seen = ([203, 0, 113, 9], self.port).into();
            let answer = stun::binding_answer(request, seen).unwrap();
            assert!(discovery.on_answer(discovery.server(), &answer, now));
        }
    }

    /// Asks for ten minutes. Returns how often the mapping was lost.
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn lost_in_ten_minutes(lifetime: Duration, change: impl Fn(&mut Discovery)) -> (u16, Duration) {
        let mut rng = StdRng::from_seed([1; 32]);
        let mut now = Instant::now();
        let end = now + Duration::from_secs(600);
        let mut nat = Nat {
            lifetime,
            port: 1,
            used: now,
        };
        let mut discovery = Discovery::new("198.51.100.1:7400".parse().unwrap(), None);
        let (_, mut request) = discovery.start(&mut rng, now);
        while now < end {
            nat.answer(&mut discovery, &request, now);
            change(&mut discovery);
            now = discovery.poll_timeout().unwrap();
            (_, request) = discovery.handle_timeout(&mut rng, now).unwrap();
        }
        (nat.port - 1, discovery.interval)
    }

    #[test]
    fn a_mapping_is_kept_alive_as_often_as_its_nat_needs() {
        let lost = |seconds| lost_in_ten_minutes(Duration::from_secs(seconds), |_| ());
        assert_eq!(lost(30), (0, STUN_INTERVAL));
        assert_eq!(lost(12), (1, STUN_INTERVAL / 2));
        assert_eq!(lost(6), (2, STUN_INTERVAL / 4));
        let (lost, interval) = lost(1);
        assert!(lost > 100, "there is no keeping that one");
        assert_eq!(interval, STUN_INTERVAL_MIN);
    }

    #[test]
    fn what_another_network_does_says_nothing_of_its_nat() {
        let moves = |discovery: &mut Discovery| discovery.on_network_change();
        let (lost, interval) = lost_in_ten_minutes(Duration::from_secs(12), moves);
        assert_eq!((lost, interval), (29, STUN_INTERVAL));
        let sleeps = |discovery: &mut Discovery| {
            let Probe::Idle { until } = &mut discovery.probe else {
                panic!("it has its answer");
            };
            *until += STUN_INTERVAL * 2;
        };
        let (_, interval) = lost_in_ten_minutes(Duration::from_secs(30), sleeps);
        assert_eq!(interval, STUN_INTERVAL);
    }
}
