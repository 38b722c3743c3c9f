//! What is asked of the gateway, when and how.
//!
//! PCP is tried first, NAT-PMP where the gateway says that it speaks no PCP or says nothing, and UPnP where it speaks
//! neither. A gateway that refuses is not asked by another protocol, which would be refused as well. A mapping is
//! renewed at half its lifetime by the protocol that made it; if that fails, all three are tried again. Where none
//! gives a mapping, there is a pause that doubles. The mapping that there is counts until its lifetime is over.
//!
//! What a gateway that lies can do: have nothing mapped, and have this device claim a port at an address
//! that the node does not announce unless the server sees this device there. It gets no more requests than a
//! silent one.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use common::limits::{
    NAT_PMP_RETRY_FIRST, NAT_PMP_TRIES_MAX, PCP_RETRY_FIRST, PCP_TRIES_MAX,
    PORT_MAPPING_BACKOFF_FIRST, PORT_MAPPING_BACKOFF_MAX, PORT_MAPPING_LIFETIME,
    PORT_MAPPING_LIFETIME_MIN, PORT_MAPPING_RENEWAL_MIN, PORT_MAPPING_RESTART_SPREAD,
    PORT_MAPPING_RETURN_WAIT,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::epoch::Epoch;
use super::{
    AnswerError, Grant, MappingProtocol, NoPortMapping, PortMapping, SERVER_PORT, Target, nat_pmp,
    pcp,
};

/// The machine that keeps one port mapped.
///
/// Drain [`Mapper::poll_output`] after each call, and call [`Mapper::handle_timeout`] when
/// [`Mapper::poll_timeout`] has passed.
#[derive(Debug)]
pub struct Mapper {
    rng: StdRng,
    target: Option<Target>,
    step: Step,
    /// The mapping that there is.
    held: Option<Held>,
    /// Pairs the answers of PCP with requests for the present target.
    nonce: pcp::Nonce,
    epoch: Option<Epoch>,
    /// Rounds in a row that brought no mapping.
    failures: u32,
    /// When the gateway was asked last.
    asked: Option<Instant>,
    /// What was told last.
    told: Option<Result<PortMapping, NoPortMapping>>,
    outputs: VecDeque<MapperOutput>,
}

/// Something for the shell to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapperOutput {
    /// Send a datagram from the target's internal address to [`SERVER_PORT`] of its gateway.
    Send(Vec<u8>),
    /// Ask the gateway by UPnP.
    Upnp(UpnpRequest),
    /// Tell the node what became of it.
    Report(Result<PortMapping, NoPortMapping>),
}

/// Something to ask a gateway by UPnP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpnpRequest {
    /// To map a port, or to renew that; answered by [`Mapper::handle_upnp`].
    Map {
        /// The port outside that would suit.
        external_port: u16,
        /// Seconds for which it is asked for.
        lifetime_s: u32,
    },
    /// To end a mapping. Answered by nothing.
    Unmap {
        /// Its port outside.
        external_port: u16,
    },
}

/// What a gateway said by UPnP.
pub type UpnpAnswer = Result<Grant, NoPortMapping>;

/// Where the exchange is.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Nothing is wanted, or there is nobody to ask.
    Off,
    /// A PCP request is in flight.
    Pcp(Retry),
    /// A request for the external address is in flight.
    NatPmpAddress(Retry),
    /// A request for a mapping is in flight, at a gateway with this address outside.
    NatPmpMap(Retry, Ipv4Addr),
    /// The shell asks by UPnP.
    Upnp,
    /// The next round begins then.
    Idle { until: Instant },
    /// The mapping is given back; nobody waits for that for longer.
    Returning { until: Instant },
}

/// A request that is repeated.
#[derive(Clone, Copy, Debug)]
struct Retry {
    tries: u32,
    interval: Duration,
    at: Instant,
}

/// A mapping that was granted.
#[derive(Clone, Copy, Debug)]
struct Held {
    mapping: PortMapping,
    expires: Instant,
}

impl Mapper {
    /// Creates a machine that wants nothing yet. `seed` is random.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: StdRng::from_seed(seed),
            target: None,
            step: Step::Off,
            held: None,
            nonce: pcp::Nonce::default(),
            epoch: None,
            failures: 0,
            asked: None,
            told: None,
            outputs: VecDeque::new(),
        }
    }

    /// Wants this mapped from now on; `None` if there is no gateway. Nothing happens if it is the same.
    ///
    /// What was mapped for another target is forgotten: from here it cannot be given back any more.
    pub fn set_target(&mut self, target: Option<Target>, now: Instant) {
        if target == self.target && !matches!(self.step, Step::Off | Step::Returning { .. }) {
            return;
        }
        self.target = target;
        (self.held, self.epoch, self.failures) = (None, None, 0);
        self.rng.fill_bytes(&mut self.nonce);
        if target.is_none() {
            self.step = Step::Off;
            return self.report_none(NoPortMapping::NoGateway);
        }
        self.report_none(NoPortMapping::Asking);
        self.begin(now);
    }

    /// Something has happened after which the mapping may be gone: asks again, unless that was done just now. Whatever
    /// comes of it is told, even if it is what was told before.
    pub fn refresh(&mut self, now: Instant) {
        let is_recent = self
            .asked
            .is_some_and(|asked| now < asked + PORT_MAPPING_RENEWAL_MIN);
        match self.step {
            Step::Idle { .. } if !is_recent => {
                self.told = None;
                self.begin(now);
            }
            Step::Off | Step::Idle { .. } => {
                let refused = self.told.filter(Result::is_err);
                self.outputs.extend(refused.map(MapperOutput::Report));
            }
            Step::Pcp(_) | Step::NatPmpAddress(_) | Step::NatPmpMap(..) | Step::Upnp => {
                self.told = None;
            }
            Step::Returning { .. } => {}
        }
    }

    /// Gives the mapping back, and wants none any more. It is done once [`Mapper::is_off`] says so.
    pub fn stop(&mut self, now: Instant) {
        (self.step, self.told) = (Step::Off, None);
        let (Some(held), Some(target)) = (self.held.take(), self.target) else {
            return;
        };
        let until = now + PORT_MAPPING_RETURN_WAIT;
        match held.mapping.protocol {
            MappingProtocol::Pcp => {
                self.send(&self.pcp_request(target, 0).to_bytes());
                self.step = Step::Returning { until };
            }
            MappingProtocol::NatPmp => {
                let request = nat_pmp::MapRequest {
                    internal_port: target.internal.port(),
                    suggested_port: 0,
                    lifetime_s: 0,
                };
                self.send(&request.to_bytes());
                self.step = Step::Returning { until };
            }
            MappingProtocol::Upnp => {
                let external_port = held.mapping.external.port();
                let request = UpnpRequest::Unmap { external_port };
                self.outputs.push_back(MapperOutput::Upnp(request));
            }
        }
    }

    /// Tells whether nothing is wanted, and nothing waited for.
    pub const fn is_off(&self) -> bool {
        matches!(self.step, Step::Off)
    }

    /// Takes a datagram that came to the socket from which requests are sent.
    pub fn handle_datagram(&mut self, source: SocketAddr, bytes: &[u8], now: Instant) {
        let Some(target) = self.target.filter(|target| is_server(*target, source)) else {
            return log::debug!("dropped what is not from the gateway");
        };
        match self.step {
            Step::Pcp(_) => {
                let request = self.pcp_request(target, lifetime_s());
                self.on_pcp(target, request.answer(bytes), now);
            }
            Step::NatPmpAddress(_) => match nat_pmp::address_answer(bytes) {
                Ok(answer) => {
                    self.note_epoch(answer.epoch_s, now);
                    let retry = self.first_try(NAT_PMP_RETRY_FIRST, now);
                    self.step = Step::NatPmpMap(retry, answer.external);
                    self.send(&self.nat_pmp_request(target).to_bytes());
                }
                Err(error) => self.on_refusal(error, now),
            },
            Step::NatPmpMap(_, external) => {
                let answer = self.nat_pmp_request(target).answer(bytes);
                let granted = answer.and_then(|answer| Ok((answer.at(external)?, answer.epoch_s)));
                match granted {
                    Ok((grant, epoch_s)) => {
                        self.note_epoch(epoch_s, now);
                        self.on_grant(MappingProtocol::NatPmp, target, grant, now);
                    }
                    Err(error) => self.on_refusal(error, now),
                }
            }
            // Whatever is said to that: the gateway has heard it.
            Step::Returning { .. } => self.step = Step::Off,
            Step::Off | Step::Upnp | Step::Idle { .. } => {}
        }
    }

    /// Takes a datagram that came to [`ANNOUNCEMENT_PORT`](super::ANNOUNCEMENT_PORT). If the gateway says that it has
    /// begun anew, it is asked again in a moment.
    pub fn handle_announcement(&mut self, source: SocketAddr, bytes: &[u8], now: Instant) {
        if !self.target.is_some_and(|target| is_server(target, source)) {
            return;
        }
        let of_nat_pmp = || {
            nat_pmp::address_answer(bytes)
                .ok()
                .map(|answer| answer.epoch_s)
        };
        let Some(epoch_s) = pcp::announced_epoch(bytes).or_else(of_nat_pmp) else {
            return;
        };
        let is_lost = self.note_epoch(epoch_s, now);
        if let Step::Idle { until } = self.step
            && is_lost
        {
            let spread = self.rng.random_range(0.0..1.0);
            let again = now + PORT_MAPPING_RESTART_SPREAD.mul_f64(spread);
            // Whoever on this network says it in the gateway's name has no more asked than that.
            let earliest = self.asked.map(|asked| asked + PORT_MAPPING_RENEWAL_MIN);
            self.step = Step::Idle {
                until: earliest.map_or(again, |at| at.max(again)).min(until),
            };
        }
    }

    /// The system says that nobody listens at the gateway's port: it has neither PCP nor NAT-PMP.
    pub fn handle_unreachable(&mut self) {
        match self.step {
            Step::Pcp(_) | Step::NatPmpAddress(_) | Step::NatPmpMap(..) => self.begin_upnp(),
            Step::Returning { .. } => self.step = Step::Off,
            Step::Off | Step::Upnp | Step::Idle { .. } => {}
        }
    }

    /// Takes the answer to [`UpnpRequest::Map`].
    pub fn handle_upnp(&mut self, answer: UpnpAnswer, now: Instant) {
        let (Step::Upnp, Some(target)) = (self.step, self.target) else {
            return;
        };
        let checked = answer.and_then(|grant| grant.check().map_err(reason_of));
        match checked {
            Ok(grant) => self.on_grant(MappingProtocol::Upnp, target, grant, now),
            Err(reason) => self.on_failure(reason, now),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.held.take_if(|held| held.expires <= now).is_some() {
            log::info!("the port mapping has ended, and the gateway gives no other one");
            self.report_none(NoPortMapping::NoAnswer);
        }
        match self.step {
            Step::Pcp(retry) if retry.at <= now => match self.again(retry, PCP_TRIES_MAX, now) {
                Some(retry) => {
                    self.step = Step::Pcp(retry);
                    self.send_pcp();
                }
                None => self.begin_nat_pmp(now),
            },
            Step::NatPmpAddress(retry) if retry.at <= now => {
                match self.again(retry, NAT_PMP_TRIES_MAX, now) {
                    Some(retry) => {
                        self.step = Step::NatPmpAddress(retry);
                        self.send(&nat_pmp::ADDRESS_REQUEST);
                    }
                    None => self.begin_upnp(),
                }
            }
            Step::NatPmpMap(retry, external) if retry.at <= now => {
                match (self.again(retry, NAT_PMP_TRIES_MAX, now), self.target) {
                    (Some(retry), Some(target)) => {
                        self.step = Step::NatPmpMap(retry, external);
                        self.send(&self.nat_pmp_request(target).to_bytes());
                    }
                    (_, _) => self.begin_upnp(),
                }
            }
            Step::Idle { until } if until <= now => self.begin(now),
            Step::Returning { until } if until <= now => self.step = Step::Off,
            Step::Pcp(_)
            | Step::NatPmpAddress(_)
            | Step::NatPmpMap(..)
            | Step::Idle { .. }
            | Step::Returning { .. }
            | Step::Off
            | Step::Upnp => {}
        }
    }

    /// When [`Mapper::handle_timeout`] is due, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let step = match self.step {
            Step::Off | Step::Upnp => None,
            Step::Pcp(retry) | Step::NatPmpAddress(retry) | Step::NatPmpMap(retry, _) => {
                Some(retry.at)
            }
            Step::Idle { until } | Step::Returning { until } => Some(until),
        };
        let expires = self.held.map(|held| held.expires);
        step.into_iter().chain(expires).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<MapperOutput> {
        self.outputs.pop_front()
    }

    // ---- rounds ------------------------------------------------------------------------------------

    /// Begins a round: with the protocol that has made the mapping, unless that has failed since, or else with the
    /// first one.
    fn begin(&mut self, now: Instant) {
        self.asked = Some(now);
        let held = self.held.filter(|_| self.failures == 0);
        match held.map(|held| held.mapping.protocol) {
            None | Some(MappingProtocol::Pcp) => {
                self.step = Step::Pcp(self.first_try(PCP_RETRY_FIRST, now));
                self.send_pcp();
            }
            Some(MappingProtocol::NatPmp) => self.begin_nat_pmp(now),
            Some(MappingProtocol::Upnp) => self.begin_upnp(),
        }
    }

    fn begin_nat_pmp(&mut self, now: Instant) {
        self.step = Step::NatPmpAddress(self.first_try(NAT_PMP_RETRY_FIRST, now));
        self.send(&nat_pmp::ADDRESS_REQUEST);
    }

    fn begin_upnp(&mut self) {
        let Some(target) = self.target else {
            return;
        };
        self.step = Step::Upnp;
        let request = UpnpRequest::Map {
            external_port: self.suggested(target).port(),
            lifetime_s: lifetime_s(),
        };
        self.outputs.push_back(MapperOutput::Upnp(request));
    }

    fn on_pcp(
        &mut self,
        target: Target,
        answer: Result<pcp::MapAnswer, AnswerError>,
        now: Instant,
    ) {
        match answer {
            Ok(answer) => {
                self.note_epoch(answer.epoch_s, now);
                self.on_grant(MappingProtocol::Pcp, target, answer.grant, now);
            }
            Err(AnswerError::OtherVersion) => self.begin_nat_pmp(now),
            Err(error) => self.on_refusal(error, now),
        }
    }

    fn on_grant(&mut self, protocol: MappingProtocol, target: Target, grant: Grant, now: Instant) {
        let lifetime = Duration::from_secs(grant.lifetime_s.into());
        if lifetime < PORT_MAPPING_LIFETIME_MIN {
            return self.on_failure(NoPortMapping::Implausible, now);
        }
        let lifetime = lifetime.min(PORT_MAPPING_LIFETIME);
        let mapping = PortMapping {
            protocol,
            external: grant.external,
            gateway: target.gateway,
        };
        self.held = Some(Held {
            mapping,
            expires: now + lifetime,
        });
        self.failures = 0;
        self.step = Step::Idle {
            until: now + lifetime / 2,
        };
        self.told = Some(Ok(mapping));
        // Each time, since it is of interest when the gateway has last said so.
        self.outputs.push_back(MapperOutput::Report(Ok(mapping)));
    }

    /// Goes on with the next protocol where the gateway cannot do it by this one.
    fn on_refusal(&mut self, error: AnswerError, now: Instant) {
        match error {
            AnswerError::Unrelated => log::debug!("dropped what answers no request"),
            AnswerError::OtherVersion | AnswerError::Unsupported(_) => self.begin_upnp(),
            AnswerError::Refused(_) | AnswerError::Implausible => {
                log::debug!("no port mapping: {error}");
                self.on_failure(reason_of(error), now);
            }
        }
    }

    /// Ends a round that brought nothing.
    fn on_failure(&mut self, reason: NoPortMapping, now: Instant) {
        let pause = PORT_MAPPING_BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.step = Step::Idle {
            until: now + pause.min(PORT_MAPPING_BACKOFF_MAX),
        };
        if self.held.is_none() {
            self.report_none(reason);
        }
    }

    /// Notes the gateway's epoch. Returns whether it has lost its mappings.
    fn note_epoch(&mut self, epoch_s: u32, now: Instant) -> bool {
        let before = self.epoch.replace(Epoch::new(epoch_s, now));
        let is_lost = before.is_some_and(|before| before.is_lost(epoch_s, now));
        if is_lost {
            log::info!("the gateway has begun anew, and has lost its port mappings");
        }
        is_lost
    }

    // ---- requests ----------------------------------------------------------------------------------

    fn send_pcp(&mut self) {
        if let Some(target) = self.target {
            self.send(&self.pcp_request(target, lifetime_s()).to_bytes());
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.outputs.push_back(MapperOutput::Send(bytes.to_vec()));
    }

    fn pcp_request(&self, target: Target, lifetime_s: u32) -> pcp::MapRequest {
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        pcp::MapRequest {
            client: *target.internal.ip(),
            nonce: self.nonce,
            internal_port: target.internal.port(),
            // Section 15.1: a mapping is ended without a suggestion.
            suggested: if lifetime_s == 0 {
                nowhere
            } else {
                self.suggested(target)
            },
            lifetime_s,
        }
    }

    fn nat_pmp_request(&self, target: Target) -> nat_pmp::MapRequest {
        nat_pmp::MapRequest {
            internal_port: target.internal.port(),
            suggested_port: self.suggested(target).port(),
            lifetime_s: lifetime_s(),
        }
    }

    /// The endpoint outside that would suit: the present one, or else the port inside.
    fn suggested(&self, target: Target) -> SocketAddrV4 {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, target.internal.port());
        self.held.map_or(any, |held| held.mapping.external)
    }

    fn first_try(&mut self, interval: Duration, now: Instant) -> Retry {
        // RFC 6887 section 8.1.1: hosts that ask at the same moment do not ask again at the same one.
        let interval = interval.mul_f64(self.rng.random_range(0.9..1.1));
        Retry {
            tries: 1,
            interval,
            at: now + interval,
        }
    }

    /// The next try; `None` if there were enough.
    fn again(&self, retry: Retry, tries_max: u32, now: Instant) -> Option<Retry> {
        let interval = retry.interval * 2;
        (retry.tries < tries_max).then_some(Retry {
            tries: retry.tries + 1,
            interval,
            at: now + interval,
        })
    }

    fn report_none(&mut self, reason: NoPortMapping) {
        if self.told.replace(Err(reason)) != Some(Err(reason)) {
            self.outputs.push_back(MapperOutput::Report(Err(reason)));
        }
    }
}

/// Tells whether this is where the gateway answers from.
fn is_server(target: Target, source: SocketAddr) -> bool {
    source == SocketAddr::from((target.gateway, SERVER_PORT))
}

/// Seconds for which a mapping is asked for.
fn lifetime_s() -> u32 {
    u32::try_from(PORT_MAPPING_LIFETIME.as_secs()).unwrap_or(u32::MAX)
}

const fn reason_of(error: AnswerError) -> NoPortMapping {
    match error {
        AnswerError::Unrelated | AnswerError::OtherVersion | AnswerError::Unsupported(_) => {
            NoPortMapping::NoAnswer
        }
        AnswerError::Refused(_) => NoPortMapping::Refused,
        AnswerError::Implausible => NoPortMapping::Implausible,
    }
}

#[cfg(test)]
mod tests;
