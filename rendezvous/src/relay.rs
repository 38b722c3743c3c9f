//! The engine of the UDP port: answers STUN Binding requests (RFC 8489).
//!
//! It keeps no state for anybody, and never sends more bytes than it got to an address that has not
//! proved itself, but for the answers to bare requests, which have a budget. It is apart from
//! [`crate::server::Server`] so that datagrams never wait for log-ins: whoever owns the UDP socket owns it
//! too.

use std::net::SocketAddr;
use std::time::Instant;

use common::stun;

use crate::source::SourcePrefix;
use budget::Budget;

// Answers that are longer than their requests.
mod budget;

/// Answers STUN Binding requests.
#[derive(Debug)]
pub struct Relay {
    budget: Budget,
    answered: u64,
    dropped: u64,
}

impl Relay {
    /// A relay that has seen nothing. `seed` is random.
    pub fn new(seed: [u8; 32], now: Instant) -> Self {
        Self {
            budget: Budget::new(seed, now),
            answered: 0,
            dropped: 0,
        }
    }

    /// Takes one datagram; what is returned goes back to where it came from.
    pub fn handle_datagram(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let answer = self.answer(datagram, source, now);
        match answer {
            Some(_) => self.answered += 1,
            None => self.dropped += 1,
        }
        answer
    }

    fn answer(&mut self, datagram: &[u8], source: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        // RFC 9443: STUN begins with 0 to 3. Nothing else is served.
        let is_stun = datagram.first().is_some_and(|first| *first <= 3);
        if !is_stun || source.port() == 0 {
            return None;
        }
        let answer = stun::binding_answer(datagram, source)?;
        let is_allowed =
            answer.len() <= datagram.len() || self.budget.take(SourcePrefix::of(source.ip()), now);
        is_allowed.then_some(answer)
    }

    /// Requests answered so far.
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// Datagrams dropped so far.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::limits::LONGER_ANSWERS_PER_SOURCE_MAX;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn relay() -> (Relay, Instant) {
        let now = Instant::now();
        (Relay::new([1; 32], now), now)
    }

    #[test]
    fn t13_nothing_but_a_bare_request_gets_a_larger_answer_than_it_is() {
        let (mut relay, now) = relay();
        let source = "[2001:db8::1]:4000".parse().unwrap();
        let request = stun::binding_request(7);
        let answer = relay.handle_datagram(&request, source, now).unwrap();
        assert!(answer.len() <= request.len());
        assert_eq!(stun::reflexive_address(&answer, 7), Some(source));

        for first in 0..=255u8 {
            for len in [0, 1, 20, 28, 44, 548, 1500, 65_507] {
                let mut datagram = vec![0; len];
                if let Some(byte) = datagram.first_mut() {
                    *byte = first;
                }
                let answer = relay.handle_datagram(&datagram, source, now);
                assert!(answer.is_none_or(|answer| answer.len() <= len));
            }
        }
        assert_eq!(relay.answered(), 1);
    }

    #[test]
    fn t13_bare_requests_are_answered_within_a_budget() {
        let (mut relay, now) = relay();
        let bare = [&[0, 1, 0, 0], &stun::binding_request(7)[4..20]].concat();
        for (source, len) in [("192.0.2.1:4000", 32), ("[2001:db8::1]:4000", 44)] {
            let source: SocketAddr = source.parse().unwrap();
            for _ in 0..LONGER_ANSWERS_PER_SOURCE_MAX {
                let answer = relay.handle_datagram(&bare, source, now).unwrap();
                assert_eq!(answer.len(), len);
                assert_eq!(stun::reflexive_address(&answer, 7), Some(source));
            }
            assert_eq!(relay.handle_datagram(&bare, source, now), None);
            // What is no longer than its request takes nothing of it.
            let request = stun::binding_request(8);
            assert!(relay.handle_datagram(&request, source, now).is_some());
        }
    }
}
