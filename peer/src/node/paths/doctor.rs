//! Examines this device's ways for `peer doctor`: what NATs do to the server's answers, and how devices of one account
//! are reached.
//!
//! [`Doctor`] has one examination at a time, which several people may look at. To see how an account is reached, its
//! devices are to be linked for a while as if something waited for them; the directory and the links do that.

use std::net::SocketAddr;
use std::time::Instant;

use common::id::AccountName;
use common::limits::{EXAMINED_SERVERS_MAX, SOUGHT_FOR};
use common::stun;
use rand::rngs::StdRng;

use super::nat::{NatProbe, Remembered};
use crate::node::command::{ExaminationView, FamilyView};
use crate::node::io::Transmit;
use crate::node::links::LinkChange;
use crate::port_mapping::PortMappingState;

/// An examination, what earlier ones left, and who is to be linked.
#[derive(Debug, Default)]
pub(super) struct Doctor {
    /// At most [`EXAMINED_SERVERS_MAX`].
    probes: Vec<NatProbe>,
    /// At most as many, by the address of the server.
    remembered: Vec<(SocketAddr, Remembered)>,
    sought: Option<Sought>,
    /// When the session began that lasts.
    online_since: Option<Instant>,
}

/// An account whose devices are to be linked.
#[derive(Debug)]
struct Sought {
    account: AccountName,
    until: Instant,
    /// Why a device of it could not be reached the last time.
    failure: Option<String>,
}

impl Doctor {
    /// Begins to examine the way to these addresses of the server, if there are any and no examination is under way,
    /// and to have the devices of an account linked, instead of another's.
    pub(super) fn examine(
        &mut self,
        servers: &[SocketAddr],
        account: Option<AccountName>,
        rng: &mut StdRng,
        now: Instant,
    ) {
        if !servers.is_empty() && self.is_done() {
            self.remember();
            let servers = servers.iter().take(EXAMINED_SERVERS_MAX);
            let probes = servers.copied().map(stun::canonical).map(|server| {
                let mut known = self.remembered.iter();
                let known = known.find(|(of, _)| *of == server);
                NatProbe::new(server, known.map(|(_, it)| *it), rng, now)
            });
            self.probes = probes.collect();
        }
        if let Some(account) = account {
            self.sought = Some(Sought {
                account,
                until: now + SOUGHT_FOR,
                failure: None,
            });
        }
    }

    /// A session began.
    pub(super) const fn on_online(&mut self, now: Instant) {
        self.online_since = Some(now);
    }

    /// The session ended.
    pub(super) const fn on_offline(&mut self) {
        self.online_since = None;
    }

    /// Takes note of why somebody who is sought could not be reached.
    pub(super) fn on_link(&mut self, change: &LinkChange) {
        if let LinkChange::DialFailed { account, reason } = change
            && let Some(sought) = &mut self.sought
            && sought.account == *account
        {
            sought.failure = Some(reason.clone());
        }
    }

    /// Takes a STUN datagram that may be an answer.
    pub(super) fn on_answer(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        rng: &mut StdRng,
        now: Instant,
    ) {
        let mut probes = self.probes.iter_mut();
        if probes.any(|probe| probe.on_answer(source, datagram, rng, now)) {
            log::trace!("an answer for the examination came");
        }
    }

    /// Returns the datagrams that are due, and forgets whoever was sought for long enough.
    pub(super) fn handle_timeout(
        &mut self,
        rng: &mut StdRng,
        now: Instant,
    ) -> Vec<(Transmit, Vec<u8>)> {
        self.sought.take_if(|sought| sought.until <= now);
        let probes = self.probes.iter_mut();
        probes
            .filter_map(|probe| probe.handle_timeout(rng, now))
            .collect()
    }

    /// When [`Doctor::handle_timeout`] is due, if ever.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let probes = self.probes.iter().filter_map(NatProbe::poll_timeout);
        probes
            .chain(self.sought.as_ref().map(|sought| sought.until))
            .min()
    }

    /// The account whose devices are to be linked.
    pub(super) fn sought(&self) -> Option<&AccountName> {
        self.sought.as_ref().map(|sought| &sought.account)
    }

    /// What is known so far, of a host that has these addresses and this port of its router.
    pub(super) fn view(
        &self,
        local: Vec<SocketAddr>,
        port_mapping: PortMappingState,
        now: Instant,
    ) -> ExaminationView {
        let is_own = |seen: SocketAddr| local.contains(&seen);
        let port = local.first().map(SocketAddr::port);
        let families = self.probes.iter().map(|probe| {
            let view = probe.view(is_own, now);
            FamilyView {
                keeps_port: view.reflexive.map(|seen| Some(seen.port()) == port),
                ..view
            }
        });
        let online = self
            .online_since
            .map(|at| now.saturating_duration_since(at));
        ExaminationView {
            is_done: self.is_done(),
            families: families.collect(),
            online_ms: online.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            local,
            has_relay: None,
            is_port_chosen: false,
            port_mapping,
            dial_failure: self.sought.as_ref().and_then(|it| it.failure.clone()),
        }
    }

    fn is_done(&self) -> bool {
        let mut probes = self.probes.iter();
        probes.all(|probe| probe.poll_timeout().is_none())
    }

    /// Keeps what later examinations cannot find out.
    fn remember(&mut self) {
        for probe in self.probes.drain(..) {
            let Some(remembered) = probe.remembered() else {
                continue;
            };
            let server = probe.server();
            self.remembered.retain(|(of, _)| *of != server);
            if self.remembered.len() >= EXAMINED_SERVERS_MAX {
                self.remembered.remove(0);
            }
            self.remembered.push((server, remembered));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn doctor() -> (Doctor, StdRng, Instant) {
        let now = Instant::now();
        (Doctor::default(), StdRng::from_seed([1; 32]), now)
    }

    fn seen(doctor: &Doctor, now: Instant) -> ExaminationView {
        doctor.view(Vec::new(), PortMappingState::default(), now)
    }

    fn server(last: u8) -> SocketAddr {
        ([198, 51, 100, last], 7400).into()
    }

    #[test]
    fn there_is_one_examination_at_a_time_of_so_many_addresses() {
        let (mut doctor, mut rng, mut now) = doctor();
        let servers: Vec<_> = (1..=9).map(server).collect();
        doctor.examine(&servers, None, &mut rng, now);
        let asked = doctor.handle_timeout(&mut rng, now);
        assert_eq!(asked.len(), EXAMINED_SERVERS_MAX);
        doctor.examine(&[server(10)], None, &mut rng, now);
        let view = seen(&doctor, now);
        assert_eq!(view.families[0].server, server(1), "that one goes on");
        assert!(!view.is_done);
        while let Some(due) = doctor.poll_timeout() {
            now = due;
            doctor.handle_timeout(&mut rng, now);
        }
        assert!(seen(&doctor, now).is_done);
        doctor.examine(&[server(10)], None, &mut rng, now);
        let view = seen(&doctor, now);
        assert_eq!(view.families.len(), 1);
        assert_eq!(view.families[0].server, server(10));
    }

    #[test]
    fn an_account_is_sought_for_a_while_and_its_failures_are_told() {
        let (mut doctor, mut rng, now) = doctor();
        let bob: AccountName = "bob".parse().unwrap();
        doctor.examine(&[], Some(bob.clone()), &mut rng, now);
        assert_eq!(doctor.sought(), Some(&bob));
        for (name, told) in [("carol", None), ("bob", Some("no answer".to_owned()))] {
            doctor.on_link(&LinkChange::DialFailed {
                account: name.parse().unwrap(),
                reason: "no answer".to_owned(),
            });
            assert_eq!(seen(&doctor, now).dial_failure, told);
        }
        let last = now + SOUGHT_FOR;
        assert_eq!(doctor.poll_timeout(), Some(last));
        doctor.handle_timeout(&mut rng, last - Duration::from_millis(1));
        assert!(doctor.sought().is_some());
        doctor.handle_timeout(&mut rng, last);
        assert_eq!((doctor.sought(), doctor.poll_timeout()), (None, None));
    }
}
