//! Finds out what the NAT between this device and one address of the server does (RFC 5780).
//!
//! A home server has one address and two UDP ports. With those, a [`NatProbe`] asks three questions, each with one
//! transaction that is repeated a few times, and never more than one at a time:
//!
//! 1. *Reach*: does the main port answer? Its answer says where the server sees this device, and which its second
//!    port is.
//! 2. *Filter* (section 4.4, test III): does an answer come in from the second port, which this device has not
//!    sent to? The main port is asked to have it sent from there.
//! 3. *Map* (section 4.3, with the ports of one address): does the second port see this device where the main one
//!    does? And does it answer at all: if not, silence in the second question says nothing.
//!
//! The order matters. The third question opens the filter for answers from the second port for as long as the NAT
//! remembers, some minutes. So the second one comes first, and whoever asks again within those minutes behind the
//! same NAT keeps to what came of it ([`Remembered`]). What this cannot see is an earlier run of the program on the
//! same UDP port: then a filter may seem to be open that is not.
//!
//! The questions go out on the one socket of all links, since another socket has other mappings. The second port is
//! taken from the server's answer, and its address is always the one that was asked: nobody can have packets sent
//! elsewhere.

use std::net::SocketAddr;
use std::time::Instant;

use common::limits::{NAT_FILTER_MEMORY, NAT_PROBE_INTERVAL, NAT_PROBE_TRIES_MAX};
use common::stun;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::node::command::{Dependence, FamilyView, UdpState};
use crate::node::io::Transmit;

/// Asks one address of the server. Never sends more than [`NAT_PROBE_TRIES_MAX`] datagrams for each of three
/// questions.
#[derive(Debug)]
pub(super) struct NatProbe {
    server: SocketAddr,
    question: Option<Question>,
    remembered: Option<Remembered>,
    main: UdpState,
    reflexive: Option<SocketAddr>,
    second: Option<(SocketAddr, UdpState)>,
    mapping: Option<Dependence>,
    /// What the filter looks at, if the second port answers at all, and when that was found out.
    filtering: Option<(Dependence, Instant)>,
    /// When the second port was last sent to.
    sent: Option<Instant>,
}

/// What an earlier examination knows that this one cannot find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The second port that was asked, and where the main one saw this device then.
    second: SocketAddr,
    reflexive: SocketAddr,
    /// What the filter looks at, and when that was found out.
    filtering: Option<(Dependence, Instant)>,
    /// When the second port was last sent to.
    sent: Instant,
}

/// A question that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Question {
    kind: Kind,
    transaction: u128,
    tries: u32,
    /// When it is asked again, or given up.
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reach,
    Filter,
    Map,
}

impl NatProbe {
    /// Begins with the first question, which is due at once.
    pub(super) fn new(
        server: SocketAddr,
        remembered: Option<Remembered>,
        rng: &mut StdRng,
        now: Instant,
    ) -> Self {
        Self {
            server,
            question: Some(Question::new(Kind::Reach, rng, now)),
            remembered,
            main: UdpState::Asked,
            reflexive: None,
            second: None,
            mapping: None,
            filtering: None,
            sent: None,
        }
    }

    /// The address of the server that is asked.
    pub(super) const fn server(&self) -> SocketAddr {
        self.server
    }

    /// Takes a datagram that may be an answer. Returns whether it was.
    pub(super) fn on_answer(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        rng: &mut StdRng,
        now: Instant,
    ) -> bool {
        let Some(Question {
            kind, transaction, ..
        }) = self.question
        else {
            return false;
        };
        if Some(source) != self.answerer(kind) {
            return false;
        }
        let Some(answer) = stun::probe_answer(datagram, transaction) else {
            return false;
        };
        match kind {
            Kind::Reach => {
                self.main = UdpState::Answers;
                self.reflexive = Some(answer.reflexive);
                let second = answer.other_port.filter(|port| *port != self.server.port());
                let second = second.map(|port| SocketAddr::new(self.server.ip(), port));
                self.second = second.map(|second| (second, UdpState::Asked));
                self.ask_second(rng, now);
            }
            Kind::Filter => self.end_filter(Dependence::PortIndependent, rng, now),
            Kind::Map => {
                let is_same = self.reflexive == Some(answer.reflexive);
                self.mapping = Some(if is_same {
                    Dependence::PortIndependent
                } else {
                    Dependence::PortDependent
                });
                self.end_second(UdpState::Answers);
            }
        }
        true
    }

    /// Returns the datagram that is due, if any.
    pub(super) fn handle_timeout(
        &mut self,
        rng: &mut StdRng,
        now: Instant,
    ) -> Option<(Transmit, Vec<u8>)> {
        let question = self.question.filter(|question| question.at <= now)?;
        if question.tries >= NAT_PROBE_TRIES_MAX {
            match question.kind {
                Kind::Reach => {
                    self.main = UdpState::Silent;
                    self.question = None;
                }
                Kind::Filter => self.end_filter(Dependence::PortDependent, rng, now),
                Kind::Map => self.end_second(UdpState::Silent),
            }
            // The next question is due at once, and has tries left.
            return self.handle_timeout(rng, now);
        }
        self.question = Some(Question {
            tries: question.tries + 1,
            at: now + NAT_PROBE_INTERVAL,
            ..question
        });
        let is_filter = question.kind == Kind::Filter;
        let request = stun::probe(question.transaction, is_filter);
        let to = match question.kind {
            Kind::Reach | Kind::Filter => self.server,
            Kind::Map => {
                self.sent = Some(now);
                self.second?.0
            }
        };
        Some((Transmit::single(to, request.len()), request))
    }

    /// When [`NatProbe::handle_timeout`] is due; `None` once all is asked.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.question.map(|question| question.at)
    }

    /// What is to be remembered for a later examination of the same way, if anything is spoilt for it.
    pub(super) fn remembered(&self) -> Option<Remembered> {
        let (second, _) = self.second?;
        Some(Remembered {
            second,
            reflexive: self.reflexive?,
            filtering: self.known_filtering(),
            sent: self.sent?,
        })
    }

    /// What is known so far. `is_own` tells whether an address is one of this host's.
    pub(super) fn view(&self, is_own: impl Fn(SocketAddr) -> bool, now: Instant) -> FamilyView {
        let filtering = self.known_filtering();
        let earlier = filtering.filter(|_| self.remembered.is_some());
        let age = earlier.map(|(_, at)| now.saturating_duration_since(at));
        FamilyView {
            server: self.server,
            udp: self.main,
            reflexive: self.reflexive,
            is_behind_nat: self.reflexive.map(|seen| !is_own(seen)),
            keeps_port: None,
            second_port: self.second.map(|(_, state)| state),
            mapping: self.mapping,
            filtering: filtering.map(|(filtering, _)| filtering),
            filtering_age_s: age.map(|age| age.as_secs()),
        }
    }

    /// What the filter looks at, if that is certain: silence of a port that never answers is no filter's.
    fn known_filtering(&self) -> Option<(Dependence, Instant)> {
        let (_, second) = self.second?;
        self.filtering.filter(|(filtering, _)| match filtering {
            Dependence::PortIndependent => true,
            Dependence::PortDependent => second == UdpState::Answers,
        })
    }

    /// Where an answer to a question comes from.
    fn answerer(&self, kind: Kind) -> Option<SocketAddr> {
        match kind {
            Kind::Reach => Some(self.server),
            Kind::Filter | Kind::Map => self.second.map(|(second, _)| second),
        }
    }

    /// Goes on with the second port, if there is one: its filter first, unless what is remembered has spoilt that.
    fn ask_second(&mut self, rng: &mut StdRng, now: Instant) {
        self.question = None;
        let Some((second, _)) = self.second else {
            return;
        };
        self.remembered = self.remembered.filter(|remembered| {
            let is_same =
                remembered.second == second && self.reflexive == Some(remembered.reflexive);
            is_same && now < remembered.sent + NAT_FILTER_MEMORY
        });
        let kind = match self.remembered {
            Some(remembered) => {
                self.filtering = remembered.filtering;
                Kind::Map
            }
            None => Kind::Filter,
        };
        self.question = Some(Question::new(kind, rng, now));
    }

    fn end_filter(&mut self, filtering: Dependence, rng: &mut StdRng, now: Instant) {
        self.filtering = Some((filtering, now));
        self.question = Some(Question::new(Kind::Map, rng, now));
    }

    const fn end_second(&mut self, state: UdpState) {
        self.question = None;
        if let Some((_, second)) = &mut self.second {
            *second = state;
        }
    }
}

impl Question {
    fn new(kind: Kind, rng: &mut StdRng, now: Instant) -> Self {
        Self {
            kind,
            // A STUN transaction has 96 bits (RFC 8489 section 5).
            transaction: rng.random::<u128>() >> 32,
            tries: 0,
            at: now,
        }
    }
}

#[cfg(test)]
mod tests;
