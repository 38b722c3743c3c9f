//! The engine of the UDP port: answers STUN Binding requests (RFC 8489).
//!
//! It keeps no state for anybody, and never sends more bytes than it got to an address that has not
//! proved itself. It is apart from [`crate::server::Server`] so that datagrams never wait for
//! log-ins: whoever owns the UDP socket owns it too.

use std::net::SocketAddr;

use common::stun;

/// Answers STUN Binding requests.
#[derive(Debug, Default)]
pub struct Relay {
    answered: u64,
    dropped: u64,
}

impl Relay {
    /// A relay that has seen nothing.
    pub const fn new() -> Self {
        Self {
            answered: 0,
            dropped: 0,
        }
    }

    /// Takes one datagram; what is returned goes back to where it came from.
    pub fn handle_datagram(&mut self, datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
        // RFC 9443: STUN begins with 0 to 3. Nothing else is served.
        let is_stun = datagram.first().is_some_and(|first| *first <= 3);
        let answer = if is_stun && source.port() != 0 {
            stun::binding_answer(datagram, source)
        } else {
            None
        };
        match answer {
            Some(_) => self.answered += 1,
            None => self.dropped += 1,
        }
        answer
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

    #[test]
    fn t13_nothing_gets_a_larger_answer_than_it_is() {
        let mut relay = Relay::new();
        let source = "[2001:db8::1]:4000".parse().unwrap();
        let request = stun::binding_request(7);
        let answer = relay.handle_datagram(&request, source).unwrap();
        assert!(answer.len() <= request.len());
        assert_eq!(stun::reflexive_address(&answer, 7), Some(source));

        for first in 0..=255u8 {
            for len in [0, 1, 20, 28, 44, 548, 1500, 65_507] {
                let mut datagram = vec![0; len];
                if let Some(byte) = datagram.first_mut() {
                    *byte = first;
                }
                let answer = relay.handle_datagram(&datagram, source);
                assert!(answer.is_none_or(|answer| answer.len() <= len));
            }
        }
        assert_eq!(relay.answered(), 1);
    }
}
