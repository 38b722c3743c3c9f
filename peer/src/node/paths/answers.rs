//! Answers to other peers' checks of this device's endpoints.
//!
//! An answer goes to the request's source address, which may be spoofed. It is never longer than the
//! request, so it amplifies nothing, and answers are rate-limited.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::key::DeviceKey;
use common::limits::CHECK_ANSWERS_PER_SECOND_MAX;
use common::stun;

const SECOND: Duration = Duration::from_secs(1);

/// Answers checks as one device. Owns the rate limit and nothing else.
#[derive(Debug)]
pub(super) struct Answers {
    own_key: DeviceKey,
    second: Option<Instant>,
    given: usize,
}

impl Answers {
    /// Answers checks as the device `own_key`.
    pub(super) const fn new(own_key: DeviceKey) -> Self {
        Self {
            own_key,
            second: None,
            given: 0,
        }
    }

    /// Answers a Binding request from `source`; `None` for anything else, and when the rate limit of
    /// [`CHECK_ANSWERS_PER_SECOND_MAX`] is reached.
    pub(super) fn answer(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now: Instant,
    ) -> Option<Vec<u8>> {
        if source.port() == 0 {
            return None;
        }
        let answer = stun::check_answer(datagram, source, &self.own_key)?;
        if self.second.is_none_or(|second| now >= second + SECOND) {
            self.second = Some(now);
            self.given = 0;
        }
        if self.given >= CHECK_ANSWERS_PER_SECOND_MAX {
            return None;
        }
        self.given += 1;
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::key::DeviceSecret;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn t13_a_second_has_so_many_answers_and_none_is_longer_than_its_request() {
        let now = Instant::now();
        let own_key = DeviceSecret::from_seed([1; 32]).public();
        let mut answers = Answers::new(own_key);
        let request = stun::binding_request(7);
        let bare = [&[0, 1, 0, 0], &request[4..20]].concat();
        let mut answered = |second: u32| {
            let mut count = 0;
            for n in 0..2 * CHECK_ANSWERS_PER_SECOND_MAX as u16 {
                let source = SocketAddr::from(([192, 0, 2, 1], 1 + n));
                let at = now + SECOND * second + SECOND / 400 * n.into();
                assert_eq!(answers.answer(&bare, source, at), None);
                if let Some(answer) = answers.answer(&request, source, at) {
                    assert!(answer.len() <= request.len());
                    assert!(stun::is_check_answer(&answer, 7, &own_key));
                    count += 1;
                }
            }
            count
        };
        for second in 0..3 {
            assert_eq!(answered(second), CHECK_ANSWERS_PER_SECOND_MAX);
        }
        let nobody = "192.0.2.1:0".parse().unwrap();
        assert_eq!(answers.answer(&request, nobody, now + SECOND * 9), None);
    }
}
