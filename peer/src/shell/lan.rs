//! Multicast DNS: announces what the node says on the local network, and hands it the names that are heard
//! there.
//!
//! The crate's own thread owns the socket, the cache and the timing of RFC 6762; a thread of ours takes what it
//! resolves to the loop. Only the interfaces whose addresses the node announces are used. What neighbours say
//! takes memory in the crate's cache as long as they say that it is valid: a cache with more records than
//! [`RECORDS_MAX`] is thrown away, and nothing is announced or heard until the node has its next name.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::lan::{LanName, SERVICE};
use mdns_sd::{
    DaemonStatus, IfKind, Metrics, Receiver, ResolvedService, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};

use super::workers::{Answer, Answers};
use crate::node::io::{LanAnnouncement, LanInput};

/// Records that neighbours may keep in memory: those of a thousand devices, some MiB.
const RECORDS_MAX: i64 = 8 * 1024;
/// What is counted of the cache, by kind of record.
const CACHED: [&str; 6] = [
    "cached-ptr",
    "cached-srv",
    "cached-addr",
    "cached-txt",
    "cached-nsec",
    "cached-subtype",
];
/// How often it is looked after.
const TEND_INTERVAL: Duration = Duration::from_secs(5);
/// How long the neighbours' farewell may take when the program ends.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(200);

/// What the node wants on the local network, and what runs of it.
pub(super) struct Lan {
    answers: Answers,
    wanted: Option<LanAnnouncement>,
    running: Option<Running>,
    /// When what runs is looked after next.
    tend_at: Instant,
    /// Comes once the last name is taken back.
    farewell: Option<Receiver<DaemonStatus>>,
}

struct Running {
    daemon: ServiceDaemon,
    /// What is announced.
    announced: LanAnnouncement,
    /// Ends with the daemon.
    listener: JoinHandle<()>,
    /// How many records there are, once that is answered.
    counts: Option<Receiver<Metrics>>,
}

impl Lan {
    /// Announces nothing yet. What is heard goes to `answers`.
    pub(super) const fn new(answers: Answers, now: Instant) -> Self {
        Self {
            answers,
            wanted: None,
            running: None,
            tend_at: now,
            farewell: None,
        }
    }

    /// Announces this from now on and nothing else, and listens; or does neither.
    pub(super) fn announce(&mut self, wanted: Option<LanAnnouncement>) {
        self.wanted = wanted;
        let Some(wanted) = &self.wanted else {
            return self.stop();
        };
        if let Some(running) = &mut self.running
            && running.announced.endpoints == wanted.endpoints
            && running.rename(wanted).is_ok()
        {
            return;
        }
        self.start();
    }

    /// When to call [`Lan::handle_timeout`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.running.as_ref().map(|_| self.tend_at)
    }

    /// Looks after what runs, every few seconds.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let Some(running) = self.running.as_mut().filter(|_| self.tend_at <= now) else {
            return;
        };
        self.tend_at = now + TEND_INTERVAL;
        if running.has_too_much() {
            log::warn!("a flood of answers on the local network; not listening there for a while");
            self.stop();
        } else if running.listener.is_finished() {
            log::debug!("multicast DNS has ended by itself; starting it anew");
            self.start();
        }
    }

    /// Takes back what is announced, and waits a moment for that.
    pub(super) fn finish(&mut self) {
        self.stop();
        if let Some(farewell) = self.farewell.take() {
            // Whoever does not hear it forgets the name by itself.
            let _ = farewell.recv_timeout(FAREWELL_PATIENCE);
        }
    }

    fn start(&mut self) {
        self.stop();
        let Some(wanted) = &self.wanted else {
            return;
        };
        match Running::start(wanted.clone(), self.answers.clone()) {
            Ok(running) => self.running = Some(running),
            Err(error) => log::warn!("cannot use the local network to find others: {error}"),
        }
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.farewell = running.daemon.shutdown().ok();
        }
    }
}

impl fmt::Debug for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Lan");
        shown.field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// Multicast DNS cannot be used.
#[derive(Debug, thiserror::Error)]
enum LanError {
    #[error("{0}")]
    Mdns(#[from] mdns_sd::Error),
    #[error("{0}")]
    Thread(#[from] std::io::Error),
}

impl Running {
    fn start(announced: LanAnnouncement, answers: Answers) -> Result<Self, LanError> {
        let daemon = ServiceDaemon::new()?;
        let interfaces = announced.endpoints.iter().map(SocketAddr::ip);
        let interfaces: Vec<IfKind> = interfaces.map(IfKind::Addr).collect();
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(interfaces)?;
        let events = daemon.browse(SERVICE)?;
        daemon.register(instance(&announced)?)?;
        let listener = thread::Builder::new()
            .name("lan".to_owned())
            .spawn(move || listen(&events, &answers))?;
        Ok(Self {
            daemon,
            announced,
            listener,
            counts: None,
        })
    }

    /// Announces another name at the same addresses. Neighbours hear it before the last one is taken back.
    fn rename(&mut self, wanted: &LanAnnouncement) -> Result<(), LanError> {
        self.daemon.register(instance(wanted)?)?;
        let before = format!("{}.{SERVICE}", self.announced.name);
        self.daemon.unregister(&before)?;
        self.announced = wanted.clone();
        Ok(())
    }

    /// Tells whether more records are kept than neighbours may have here, and has them counted again.
    fn has_too_much(&mut self) -> bool {
        let counted = self.counts.take().and_then(|counts| counts.try_recv().ok());
        self.counts = self.daemon.get_metrics().ok();
        counted.is_some_and(|counts| records(&counts) > RECORDS_MAX)
    }
}

/// The records in the cache.
fn records(counts: &Metrics) -> i64 {
    let counts = CACHED.iter().filter_map(|name| counts.get(*name));
    counts.sum()
}

/// What an announcement is in DNS-SD: name and host are called the same, so that neither tells more.
fn instance(announced: &LanAnnouncement) -> Result<ServiceInfo, mdns_sd::Error> {
    let name = announced.name.to_string();
    let addresses: Vec<IpAddr> = announced.endpoints.iter().map(SocketAddr::ip).collect();
    let port = announced.endpoints.first().map_or(0, SocketAddr::port);
    let mut instance = ServiceInfo::new(
        SERVICE,
        &name,
        &format!("{name}.local."),
        &addresses[..],
        port,
        None::<HashMap<String, String>>,
    )?;
    // Nobody has the same name by chance. Asking whether it is free would let a neighbour say that it is not.
    instance.set_requires_probe(false);
    Ok(instance)
}

/// Takes what is heard to the loop until one of the two ends.
fn listen(events: &Receiver<ServiceEvent>, answers: &Answers) {
    while let Ok(event) = events.recv() {
        let heard = if let ServiceEvent::ServiceResolved(service) = &event {
            heard(service)
        } else if let ServiceEvent::ServiceRemoved(_, instance) = &event {
            name(instance).map(|name| LanInput::Gone { name })
        } else {
            None
        };
        if let Some(heard) = heard
            && !answers.give(Answer::Lan(heard))
        {
            return;
        }
    }
}

/// What an instance says; `None` if it is none of ours.
fn heard(service: &ResolvedService) -> Option<LanInput> {
    let addresses = service.addresses.iter();
    let endpoints = addresses.map(|ip| SocketAddr::new(ip.to_ip_addr(), service.port));
    Some(LanInput::Heard {
        name: name(&service.fullname)?,
        endpoints: endpoints.collect(),
    })
}

/// The label in front of the service's name.
fn name(instance: &str) -> Option<LanName> {
    let (label, service) = instance.split_once('.')?;
    let is_ours = service.eq_ignore_ascii_case(SERVICE);
    label.parse().ok().filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> LanAnnouncement {
        LanAnnouncement {
            name: "0001020304050607d73611381305c44a".parse().unwrap(),
            endpoints: vec![
                "192.0.2.1:5000".parse().unwrap(),
                "[2001:db8::1]:5000".parse().unwrap(),
            ],
        }
    }

    #[test]
    fn an_instance_tells_a_name_that_says_nothing_and_the_addresses() {
        let announced = announcement();
        let instance = instance(&announced).unwrap();
        let host = format!("{}.local.", announced.name);
        assert_eq!(instance.get_hostname(), host);
        assert_eq!(instance.get_port(), 5000);
        let service = instance.as_resolved_service();
        assert!(service.txt_properties.is_empty());
        let Some(LanInput::Heard { name, endpoints }) = heard(&service) else {
            panic!("it is one of ours: {service:?}");
        };
        assert_eq!(name, announced.name);
        let endpoints: std::collections::BTreeSet<_> = endpoints.into_iter().collect();
        assert_eq!(endpoints, announced.endpoints.into_iter().collect());
    }

    #[test]
    fn instances_of_others_are_none_of_ours() {
        let name_of = |instance: &str| name(instance).map(|name| name.to_string());
        let ours = "0001020304050607d73611381305c44a";
        let shouted = format!("{}._RDV._udp.local.", ours.to_uppercase());
        assert_eq!(name_of(&shouted).as_deref(), Some(ours));
        for other in [
            "",
            ".",
            "_rdv._udp.local.",
            "printer._rdv._udp.local.",
            "0001020304050607d73611381305c44a",
            "0001020304050607d73611381305c44a._ipp._tcp.local.",
            "a.0001020304050607d73611381305c44a._rdv._udp.local.",
            "0001020304050607d73611381305c44a\\.x._rdv._udp.local.",
            "0001020304050607d73611381305c44a (2)._rdv._udp.local.",
        ] {
            assert_eq!(name_of(other), None, "{other:?}");
        }
    }

    #[test]
    fn all_that_is_cached_counts() {
        let counts = [("cached-ptr", 5), ("cached-addr", 7), ("register", 100)];
        let counts = counts.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(records(&counts.into()), 12);
    }
}
