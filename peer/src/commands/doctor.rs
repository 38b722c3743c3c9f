//! `doctor`: what is well between this device, the server and others, and what is not.
//!
//! Each check is shown as it is done. Those of names, TCP and the server's key work without the node; it is the node
//! that asks over UDP, on the socket of its links.

use std::net::SocketAddr;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use common::id::{AccountName, DeviceName};
use common::os::clock::unix_time;
use common::text::inline;
use common::time::UnixTime;
use serde::Serialize;

use super::Place;
use super::node_handle::{NodeHandle, tell_notice};
use crate::args::Doctor;
use crate::client::{CallError, Happening, now};
use crate::failure::{Exit, Failure};
use crate::node::PathRule;
use crate::node::command::{
    Approval, Command, CommandError, ConnectionState, Event, ExaminationView, FamilyView, KeyState,
    LinkView, Listed, NodeStatus, Reply, Way,
};
use crate::port_mapping::{MappingCheck, NoPortMapping, PortMappingState};
use crate::profile::{Settings, Trust};
use crate::ui::{OutputClosed, Screen, line};
use findings::{Advice, Attempt, CarrierNat, Facts, Ipv6, NoRelay, Obstacle, Outcome, Verdict};
use server::{Key, Tcp};

// Conclusions.
mod findings;
// The server without the node.
mod server;
// All of it in words.
mod words;

/// What the command does, in the infinitive.
const DOING: &str = "examine the connection";
/// Time for the log-in: a few round trips and a busy server.
const LOG_IN_PATIENCE: Duration = Duration::from_secs(5);
/// Time for a list of the server.
const LIST_PATIENCE: Duration = Duration::from_secs(5);
/// Time for what the node asks over UDP, which takes it 5 s where nothing answers.
const EXAMINATION_PATIENCE: Duration = Duration::from_secs(8);
/// Time for the router to answer by PCP, NAT-PMP or UPnP, one after the other.
const PORT_MAPPING_PATIENCE: Duration = Duration::from_secs(16);
/// Time in which a device is linked, and found a direct path to: the search begins anew after 5 s.
const LINK_PATIENCE: Duration = Duration::from_secs(9);
/// How often the node is asked how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How often it is looked whether something that waits for the network is done.
const WORK_INTERVAL: Duration = Duration::from_millis(10);
/// Clocks that are further apart are worth a word: messages seem to be from another time.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(60);

/// All that was found, for programs. The names of the fields do not change.
#[derive(Debug, Serialize)]
struct Report {
    server: String,
    /// Its addresses, one of each family.
    addresses: Vec<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lookup_error: Option<String>,
    tcp: Vec<Tcp>,
    key: Key,
    log_in: LogIn,
    /// Seconds by which the server's clock is ahead.
    clock_difference_s: Option<i64>,
    /// One for each address that was asked.
    udp: Vec<FamilyView>,
    carrier_nat: CarrierNat,
    ipv6: Ipv6,
    port_mapping: PortMappingState,
    lan: bool,
    path_rule: PathRule,
    /// The port of the UDP socket.
    udp_port: Option<u16>,
    verdict: Verdict,
    advice: Vec<Advice>,
    /// The account that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<AccountName>,
    /// Its devices that are online; those that are linked where only a server that is away could tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<DeviceReport>>,
}

/// Whether this device is logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum LogIn {
    /// It is.
    LoggedIn { account: AccountName },
    /// It has no account, or has logged out.
    NotLoggedIn,
    /// It has an account, and no session.
    Failed { reason: String },
}

/// A device that is online, and how it is reached.
#[derive(Debug, Serialize)]
struct DeviceReport {
    /// The name that its owner gave it, untrusted text; `None` where only a server that is away could tell.
    device: Option<DeviceName>,
    fingerprint: String,
    is_linked: bool,
    /// The link has not acknowledged for a while what is in flight.
    is_silent: bool,
    #[serde(flatten)]
    way: Option<Way>,
    /// Why it could not be linked, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// What is in the way of a direct path, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    obstacle: Option<Obstacle>,
    /// Why no relay leads there, where that is so and there is no other device of the account to talk to.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_relay: Option<NoRelay>,
    candidates: Vec<CandidateReport>,
}

/// An address that a device announces, and what came of it.
#[derive(Debug, Serialize)]
struct CandidateReport {
    endpoint: SocketAddr,
    result: Outcome,
}

/// Examines the connection, and how the devices of an account are reached.
pub(super) fn doctor(place: &Place, args: Doctor, screen: &Screen) -> Result<Exit, Failure> {
    let settings = place.settings(DOING)?;
    let mut visit = Visit {
        screen,
        settings: settings.clone(),
        name: args.name,
    };
    // It begins to connect.
    let session = &mut *place.open_with(settings.clone())?;
    let server = settings.server();
    let name = server.clone();
    let found = aside(session, move || server::look_up(&name))?;
    visit.say_name(&found)?;
    let (addresses, lookup_error) = match found {
        Ok(addresses) => (addresses, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    visit.begin_examination(session, &addresses)?;
    let asked = addresses.clone();
    let tcp = aside(session, move || server::connect(&asked))?;
    for tcp in &tcp {
        visit.say("tcp", &words::tcp(tcp, &screen.look))?;
    }
    let has_tcp = tcp.iter().any(|tcp| tcp.connect_ms.is_some());
    let is_pinned = settings.trust == Trust::Pinned;
    let key = if has_tcp {
        let trusted = place.profile.known_server(&server)?;
        aside(session, move || server::key(&server, is_pinned, trusted))?
    } else {
        Key::NotTried
    };
    visit.say("key", &words::key(&key, &screen.look))?;
    let outside = Outside {
        addresses,
        lookup_error,
        tcp,
        key,
    };
    let (report, exit) = visit.examine(session, outside)?;
    screen.data(&report)?;
    visit.tell_first_contact(session)?;
    Ok(exit)
}

/// Does what waits for the network without the node, and ends at Ctrl-C meanwhile.
fn aside<T: Send + 'static>(
    session: &mut NodeHandle,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        // Nobody waits any more.
        let _ = sender.send(work());
    });
    loop {
        match done.try_recv() {
            Ok(result) => return Ok(result),
            Err(TryRecvError::Empty) => session.pause(DOING, WORK_INTERVAL)?,
            Err(TryRecvError::Disconnected) => {
                return Err(Failure::new(Exit::Other, format!("could not {DOING}")));
            }
        }
    }
}

/// What was found without the node.
struct Outside {
    addresses: Vec<SocketAddr>,
    lookup_error: Option<String>,
    tcp: Vec<Tcp>,
    key: Key,
}

/// What a visit is about, and where it is shown.
struct Visit<'a> {
    screen: &'a Screen,
    settings: Settings,
    name: Option<AccountName>,
}

impl Visit<'_> {
    fn say(&self, label: &str, value: &str) -> Result<(), OutputClosed> {
        self.screen
            .say(line::labelled(label, value, &self.screen.look))
    }

    /// Tells what has happened meanwhile: a device that was linked to be looked at is trusted from then on.
    fn tell_first_contact(&self, session: &mut NodeHandle) -> Result<(), OutputClosed> {
        while let Some(happening) = session.next(Some(now())) {
            let Happening::Event(event) = happening else {
                continue;
            };
            if let Event::NewKey {
                account,
                fingerprint,
                known: 0,
                ..
            } = &event
            {
                let text = line::new_key(account, fingerprint, 0, false, &self.screen.look);
                self.screen.prose(text.trim_start())?;
            }
            tell_notice(&event, self.screen);
        }
        Ok(())
    }

    fn say_name(&self, found: &Result<Vec<SocketAddr>, String>) -> Result<(), OutputClosed> {
        let server = self.settings.server().to_string();
        let server = inline(&server);
        match found {
            Ok(addresses) => {
                let at = common::text::joined(addresses);
                let is_address = server == at;
                let text = if is_address {
                    at
                } else {
                    format!("{server} is at {at}")
                };
                self.say("server", &text)
            }
            Err(error) => {
                let look = &self.screen.look;
                self.say(
                    "server",
                    &format!("{server} {}: {error}", look.red("has no address")),
                )
            }
        }
    }

    fn begin_examination(
        &self,
        session: &mut NodeHandle,
        addresses: &[SocketAddr],
    ) -> Result<(), Failure> {
        let command = Command::Examine {
            servers: addresses.to_vec(),
            account: None,
        };
        session.call(DOING, &command).map(|_| ())
    }

    /// Goes on with what the node knows.
    fn examine(
        &mut self,
        session: &mut NodeHandle,
        outside: Outside,
    ) -> Result<(Report, Exit), Failure> {
        let look = &self.screen.look;
        let has_tcp = outside.key.is_shown();
        let log_in = log_in(session, has_tcp)?;
        self.say("log-in", &words::log_in(&log_in, look))?;
        let is_online = matches!(log_in, LogIn::LoggedIn { .. });
        let listed = if is_online { list(session)? } else { None };
        let examination = self.await_examination(session, &outside)?;
        let examination = self.await_port_mapping(session, examination, is_online)?;
        let clock_difference_s = listed
            .as_ref()
            .and_then(|listed| difference(listed, &examination));
        self.say("clock", &words::clock(clock_difference_s, look))?;
        let status = status(session)?;
        if let Some(approval @ (Approval::Waiting | Approval::Revoked)) = status.approval {
            let text = line::approval_of(approval, &status.fingerprint, look);
            self.say("approval", &text)?;
        }
        let is_distrusted = matches!(outside.key, Key::Changed { .. });
        let facts = Facts {
            examination: &examination,
            rule: status.rule,
            has_tcp,
            is_shut_out: is_distrusted || matches!(log_in, LogIn::Failed { .. }),
        };
        self.say_ways(&facts, &status)?;
        let devices = match (&self.name, listed) {
            (Some(name), Some(listed)) => {
                let is_own = status.account.as_ref() == Some(name);
                Some(self.devices(session, (name, is_own), listed, (&facts, status.approval))?)
            }
            (Some(name), None) => Some(self.linked(name, status.links, is_distrusted)?),
            (None, _) => None,
        };
        let exit = exit(&outside.key, &log_in, &facts, devices.as_deref());
        let (verdict, _) = facts.verdict();
        let report = Report {
            server: self.settings.server().to_string(),
            addresses: outside.addresses,
            lookup_error: outside.lookup_error,
            tcp: outside.tcp,
            key: outside.key,
            log_in,
            clock_difference_s,
            udp: examination.families.clone(),
            carrier_nat: facts.carrier_nat(),
            ipv6: facts.ipv6(),
            port_mapping: examination.port_mapping.clone(),
            lan: status.lan,
            path_rule: status.rule,
            udp_port: udp_port(&examination),
            verdict,
            advice: facts.advice(),
            name: self.name.clone(),
            devices,
        };
        Ok((report, exit))
    }

    /// Waits for what the node asks over UDP, and shows it.
    fn await_examination(
        &self,
        session: &mut NodeHandle,
        outside: &Outside,
    ) -> Result<ExaminationView, Failure> {
        let until = now() + EXAMINATION_PATIENCE;
        let mut view = examination(session)?;
        while !view.is_done && now() < until {
            session.pause(DOING, POLL_INTERVAL)?;
            view = examination(session)?;
            if view.families.is_empty() && !outside.addresses.is_empty() {
                // Another program's node has ended, and the next one was not asked.
                self.begin_examination(session, &outside.addresses)?;
            }
        }
        let look = &self.screen.look;
        for family in &view.families {
            self.say("udp", &words::udp(family, look))?;
        }
        for family in &view.families {
            if let Some(text) = words::nat(family, look) {
                self.say("router", &text)?;
            }
            if let Some(text) = words::filter(family) {
                self.say("lets in", &text)?;
            }
        }
        Ok(view)
    }

    /// Waits for the router, which has up to three protocols to answer by.
    fn await_port_mapping(
        &self,
        session: &mut NodeHandle,
        mut view: ExaminationView,
        is_online: bool,
    ) -> Result<ExaminationView, Failure> {
        let until = now() + PORT_MAPPING_PATIENCE;
        let mut is_told = false;
        while is_asking(&view.port_mapping, is_online) && now() < until {
            // On a terminal, where somebody waits.
            if !is_told && self.screen.look.columns().is_some() {
                let text =
                    "the router is being asked, which takes up to 15 s where it does not answer";
                self.say("port", text)?;
            }
            is_told = true;
            session.pause(DOING, POLL_INTERVAL)?;
            view = examination(session)?;
        }
        Ok(view)
    }

    fn say_ways(&self, facts: &Facts<'_>, status: &NodeStatus) -> Result<(), OutputClosed> {
        let look = &self.screen.look;
        self.say("provider", &words::carrier(facts.carrier_nat(), look))?;
        self.say("ipv6", &words::ipv6(facts.ipv6(), look))?;
        let mapping = &facts.examination.port_mapping;
        self.say("port", &words::port_mapping(mapping, look))?;
        self.say("nearby", words::lan(status.lan))?;
        self.say("way", words::rule(facts))?;
        self.say("verdict", &words::verdict(facts, look))?;
        let port = udp_port(facts.examination);
        for (index, advice) in facts.advice().into_iter().enumerate() {
            let label = if index == 0 { "helps" } else { "" };
            let is_chosen = facts.examination.is_port_chosen;
            self.say(label, &words::advice(advice, port, is_chosen))?;
        }
        Ok(())
    }

    // ---- another account ---------------------------------------------------------------------------

    /// Has the devices of an account linked that are online, unless it is this device's own, and shows how they are
    /// reached.
    fn devices(
        &self,
        session: &mut NodeHandle,
        (name, is_own): (&AccountName, bool),
        listed: Vec<Listed>,
        (facts, approval): (&Facts<'_>, Option<Approval>),
    ) -> Result<Vec<DeviceReport>, Failure> {
        let listed = self.devices_of((name, is_own), listed)?;
        let is_barred = listed
            .iter()
            .all(|device| bar(device.key, approval).is_some());
        let (links, failure) = if is_own {
            let why = "devices of one account are not linked with each other";
            (Vec::new(), Some(why.to_owned()))
        } else if is_barred {
            // No way is looked for where none may be taken.
            (Vec::new(), None)
        } else {
            let links = self.link(session, name, &listed, facts)?;
            (links, examination(session)?.dial_failure)
        };
        let reports = listed.into_iter();
        let reports = reports.map(|device| match bar(device.key, approval) {
            Some(bar) if !is_own => barred(device, bar),
            Some(_) | None => report_of(device, &links, failure.as_ref(), facts),
        });
        Ok(self.say_devices(reports.collect())?)
    }

    /// The devices of an account that are online, but for this one.
    fn devices_of(
        &self,
        (name, is_own): (&AccountName, bool),
        mut listed: Vec<Listed>,
    ) -> Result<Vec<Listed>, OutputClosed> {
        listed.retain(|device| device.account == *name && !device.is_self);
        if listed.is_empty() {
            let text = if is_own {
                "that is you, and no other device of yours is online".to_owned()
            } else {
                format!("{name} is not online, or there is no such account")
            };
            self.say("device", &self.screen.look.yellow(&text))?;
        }
        Ok(listed)
    }

    /// What there is to say of an account's devices without the server.
    fn linked(
        &self,
        name: &AccountName,
        links: Vec<LinkView>,
        is_distrusted: bool,
    ) -> Result<Vec<DeviceReport>, OutputClosed> {
        let why = if is_distrusted {
            "it is not the trusted one"
        } else {
            "there is no session with it"
        };
        let text = format!("only the server can tell which devices {name} has, and {why}");
        self.say("device", &self.screen.look.yellow(&text))?;
        let links = links.into_iter().filter(|link| link.account == *name);
        let reports = links.map(|link| DeviceReport {
            device: None,
            fingerprint: link.fingerprint,
            is_linked: true,
            is_silent: link.is_silent,
            way: Some(link.way),
            failure: None,
            obstacle: None,
            no_relay: None,
            candidates: Vec::new(),
        });
        self.say_devices(reports.collect())
    }

    fn say_devices(&self, reports: Vec<DeviceReport>) -> Result<Vec<DeviceReport>, OutputClosed> {
        for report in &reports {
            for (label, text) in words::device(report, &self.screen.look) {
                self.say(label, &text)?;
            }
        }
        Ok(reports)
    }

    /// Waits until a device of an account is linked as well as it can be, and returns the links to its devices.
    fn link(
        &self,
        session: &mut NodeHandle,
        name: &AccountName,
        listed: &[Listed],
        facts: &Facts<'_>,
    ) -> Result<Vec<LinkView>, Failure> {
        let text = format!("Looking for a way to {name}…");
        // Not into the middle of a pager.
        if self.screen.look.columns().is_some() {
            self.screen.note(self.screen.error_look.dim(&text));
        }
        let command = Command::Examine {
            servers: Vec::new(),
            account: Some(name.clone()),
        };
        session.call(DOING, &command)?;
        let until = now() + LINK_PATIENCE;
        loop {
            let mut links = status(session)?.links;
            links.retain(|link| link.account == *name);
            let is_direct = |link: &LinkView| matches!(link.way, Way::Direct { .. });
            let is_possible = |device: &Listed| {
                let obstacle = facts.obstacle(&device.endpoints);
                let is_certain = [Obstacle::OwnRule, Obstacle::HidesAddresses];
                !is_certain.contains(&obstacle)
            };
            let can_improve = listed.iter().any(is_possible);
            let is_done = links.iter().any(is_direct) || (!links.is_empty() && !can_improve);
            if is_done || now() >= until {
                return Ok(links);
            }
            session.pause(DOING, POLL_INTERVAL)?;
        }
    }
}

/// Why nothing is exchanged with a device, however it could be reached.
const fn bar(key: KeyState, approval: Option<Approval>) -> Option<&'static str> {
    match (approval, key) {
        (Some(Approval::Waiting | Approval::Revoked), _) => {
            Some("nothing is exchanged: this device itself is not approved by its account")
        }
        (_, KeyState::NotApproved) => {
            Some("nothing is exchanged: its account has not approved it, which only its owner can")
        }
        (_, KeyState::OtherIdentity) => Some(
            "nothing is exchanged: the server has another account of this name than the one that is known; ask its owner over another channel, then run 'peer verify'",
        ),
        (_, KeyState::OtherAccount) => {
            Some("nothing is exchanged: its key was another account's before")
        }
        (Some(Approval::Approved) | None, KeyState::Known | KeyState::New | KeyState::Unmet) => {
            None
        }
    }
}

/// A device that is not linked, whatever the ways to it.
fn barred(device: Listed, bar: &str) -> DeviceReport {
    DeviceReport {
        device: Some(device.device),
        fingerprint: device.fingerprint,
        is_linked: false,
        is_silent: false,
        way: None,
        failure: Some(bar.to_owned()),
        obstacle: None,
        no_relay: None,
        candidates: Vec::new(),
    }
}

/// What is to be said of a device, of the links to its account, and of why others of that could not be reached.
fn report_of(
    device: Listed,
    links: &[LinkView],
    failure: Option<&String>,
    facts: &Facts<'_>,
) -> DeviceReport {
    let mut of_device = links.iter();
    let link = of_device.find(|link| link.fingerprint == device.fingerprint);
    let way = link.map(|link| link.way);
    let is_hidden = device.endpoints.is_empty() && facts.needs_direct();
    let failure = match (link, links) {
        (Some(_), _) => None,
        // That is reason enough.
        (None, []) if is_hidden => None,
        (None, [_, ..]) => Some("another device of the account is linked".to_owned()),
        (None, []) => {
            let late = || Some("no link came about in time".to_owned());
            failure.cloned().or_else(late)
        }
    };
    let obstacle = match way {
        Some(Way::Relayed { .. }) => Some(facts.obstacle(&device.endpoints)),
        // Another device of the account is linked instead.
        None if !links.is_empty() => None,
        None => facts.obstacle_without_link(&device.endpoints),
        Some(Way::Direct { .. }) => None,
    };
    let is_alone = link.is_some() || links.is_empty();
    let no_relay = facts.no_relay().filter(|_| is_alone);
    let attempt = match way {
        Some(way) => Attempt::Linked(way),
        None if links.is_empty() && failure.is_some() => Attempt::Failed,
        None => Attempt::None,
    };
    let candidates = device.endpoints.iter().map(|endpoint| CandidateReport {
        endpoint: *endpoint,
        result: facts.outcome(*endpoint, attempt),
    });
    DeviceReport {
        is_linked: link.is_some(),
        is_silent: link.is_some_and(|link| link.is_silent),
        candidates: candidates.collect(),
        device: Some(device.device),
        fingerprint: device.fingerprint,
        way,
        failure,
        obstacle,
        no_relay,
    }
}

fn examination(session: &mut NodeHandle) -> Result<ExaminationView, Failure> {
    let Reply::Examination(view) = session.call(DOING, &Command::Examination)? else {
        return Err(Failure::unexpected_reply(DOING));
    };
    Ok(view)
}

fn status(session: &mut NodeHandle) -> Result<NodeStatus, Failure> {
    let Reply::Status(status) = session.call(DOING, &Command::Status)? else {
        return Err(Failure::unexpected_reply(DOING));
    };
    Ok(status)
}

/// Waits for the log-in for a moment, if the server is there.
fn log_in(session: &mut NodeHandle, has_tcp: bool) -> Result<LogIn, Failure> {
    let patience = if has_tcp {
        LOG_IN_PATIENCE
    } else {
        Duration::ZERO
    };
    let ready = session.try_call(&Command::WaitReady, patience);
    let account = status(session)?;
    Ok(match (ready, account.connection, account.account) {
        (_, ConnectionState::Online, Some(account)) => LogIn::LoggedIn { account },
        (Err(CallError::Refused(CommandError::NotLoggedIn)), _, _) | (_, _, None) => {
            LogIn::NotLoggedIn
        }
        (Err(CallError::Refused(error)), _, Some(_)) => LogIn::Failed {
            reason: error.to_string(),
        },
        (_, ConnectionState::Offline { reason, .. }, Some(_)) => LogIn::Failed { reason },
        (_, ConnectionState::Connecting, Some(_)) => LogIn::Failed {
            reason: "there is no session with the server yet".to_owned(),
        },
    })
}

/// The directory, if the server tells it in time.
fn list(session: &mut NodeHandle) -> Result<Option<Vec<Listed>>, Failure> {
    let until = now() + LIST_PATIENCE;
    loop {
        let Ok(Reply::Directory(listed)) = session.try_call(&Command::List, LIST_PATIENCE) else {
            return Ok(None);
        };
        // This device is listed as soon as it has announced itself.
        if now() >= until || listed.iter().any(|device| device.is_self) {
            return Ok(Some(listed));
        }
        session.pause(DOING, POLL_INTERVAL)?;
    }
}

/// Seconds by which the server's clock is ahead: it says when this device logged in.
fn difference(listed: &[Listed], examination: &ExaminationView) -> Option<i64> {
    let own = listed.iter().find(|device| device.is_self)?;
    let span = Duration::from_millis(examination.online_ms?);
    let here = unix_time().saturating_sub(span);
    let millis = |time: UnixTime| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let ahead = millis(own.since).saturating_sub(millis(here));
    // To the nearest second: the log-in takes a part of one.
    Some((ahead + ahead.signum() * 500) / 1000)
}

fn udp_port(examination: &ExaminationView) -> Option<u16> {
    examination.local.first().map(SocketAddr::port)
}

/// Tells whether the router has said that it forwards a port, and has not answered when it was asked again.
fn is_outdated(state: &PortMappingState) -> bool {
    matches!(state, PortMappingState::Mapped { check, .. } if *check == MappingCheck::Silent)
}

/// Tells whether it is not known yet what comes of asking the router.
const fn is_asking(state: &PortMappingState, is_online: bool) -> bool {
    match state {
        PortMappingState::Unmapped { reason } => match reason {
            NoPortMapping::Asking => true,
            NoPortMapping::NotYetWanted => is_online,
            NoPortMapping::SwitchedOff
            | NoPortMapping::Hidden
            | NoPortMapping::LocalServer
            | NoPortMapping::NoGateway
            | NoPortMapping::NoAnswer
            | NoPortMapping::Refused
            | NoPortMapping::Implausible => false,
        },
        PortMappingState::Mapped { check, .. } => matches!(check, MappingCheck::Asked),
    }
}

/// What the program ends with.
fn exit(key: &Key, log_in: &LogIn, facts: &Facts<'_>, devices: Option<&[DeviceReport]>) -> Exit {
    if matches!(key, Key::Changed { .. }) {
        Exit::ServerKey
    } else if !facts.has_tcp && !facts.has_udp() {
        Exit::Unreachable
    } else {
        match log_in {
            LogIn::NotLoggedIn => Exit::NotLoggedIn,
            LogIn::Failed { .. } => Exit::Unreachable,
            LogIn::LoggedIn { .. } if devices.is_some_and(<[_]>::is_empty) => Exit::NotDelivered,
            LogIn::LoggedIn { .. } => Exit::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::UdpState;

    fn name() -> AccountName {
        "alice".parse().unwrap()
    }

    fn family(udp: UdpState) -> FamilyView {
        FamilyView {
            server: ([198, 51, 100, 1], 7400).into(),
            udp,
            reflexive: None,
            is_behind_nat: None,
            keeps_port: None,
            second_port: None,
            mapping: None,
            filtering: None,
            filtering_age_s: None,
        }
    }

    #[test]
    fn each_way_to_end_has_its_code() {
        let fingerprint = "SHA256:x".to_owned();
        let trusted = Key::Trusted {
            fingerprint: fingerprint.clone(),
        };
        let expected = fingerprint.clone();
        let changed = Key::Changed {
            expected,
            fingerprint,
        };
        let reason = "no answer".to_owned();
        let failed = LogIn::Failed { reason };
        let logged_in = LogIn::LoggedIn { account: name() };
        let (answers, silent) = (UdpState::Answers, UdpState::Silent);
        let nobody: Option<&[DeviceReport]> = Some(&[]);
        for (key, log_in, has_tcp, udp, devices, expected) in [
            (&trusted, &logged_in, true, answers, None, Exit::Done),
            (&trusted, &logged_in, true, silent, None, Exit::Done),
            (
                &trusted,
                &logged_in,
                true,
                answers,
                nobody,
                Exit::NotDelivered,
            ),
            (
                &trusted,
                &LogIn::NotLoggedIn,
                true,
                answers,
                None,
                Exit::NotLoggedIn,
            ),
            (
                &trusted,
                &LogIn::NotLoggedIn,
                false,
                silent,
                None,
                Exit::Unreachable,
            ),
            (&trusted, &failed, false, answers, None, Exit::Unreachable),
            (&changed, &failed, true, answers, None, Exit::ServerKey),
        ] {
            let examination = ExaminationView {
                families: vec![family(udp)],
                ..ExaminationView::default()
            };
            let facts = Facts {
                examination: &examination,
                rule: PathRule::Any,
                has_tcp,
                is_shut_out: false,
            };
            assert_eq!(exit(key, log_in, &facts, devices), expected, "{log_in:?}");
        }
    }

    #[test]
    fn whoever_hides_and_whoever_uses_no_relay_are_told_that_and_nothing_else() {
        let device = Listed {
            account: name(),
            device: DeviceName::lossy("phone"),
            fingerprint: String::new(),
            key: KeyState::Known,
            is_verified: false,
            status: common::wire::rendezvous::Status::Available,
            since: unix_time(),
            endpoints: Vec::new(),
            is_self: false,
        };
        let examination = ExaminationView::default();
        let failure = "no answer at any of its addresses".to_owned();
        let hides = |no_relay| (None, Some(Obstacle::HidesAddresses), Some(no_relay));
        let failed = (Some(failure.clone()), None, None);
        for (rule, has_relay, expected) in [
            (PathRule::Direct, None, hides(NoRelay::OwnRule)),
            (PathRule::Any, Some(false), hides(NoRelay::Server)),
            (PathRule::Any, Some(true), failed),
        ] {
            let examination = ExaminationView {
                has_relay,
                ..examination.clone()
            };
            let facts = Facts {
                examination: &examination,
                rule,
                has_tcp: true,
                is_shut_out: false,
            };
            let report = report_of(device.clone(), &[], Some(&failure), &facts);
            let found = (report.failure, report.obstacle, report.no_relay);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_clocks_are_compared_by_the_time_of_the_log_in() {
        let own = |since| Listed {
            account: name(),
            device: DeviceName::lossy("laptop"),
            fingerprint: String::new(),
            key: KeyState::Known,
            is_verified: false,
            status: common::wire::rendezvous::Status::Available,
            since,
            endpoints: Vec::new(),
            is_self: true,
        };
        let examination = ExaminationView {
            online_ms: Some(90_000),
            ..ExaminationView::default()
        };
        let logged_in = unix_time().saturating_sub(Duration::from_secs(90));
        let span = Duration::from_secs(3600);
        for (since, expected) in [
            (logged_in, 0),
            (logged_in.saturating_add(span), 3600),
            (logged_in.saturating_sub(span), -3600),
        ] {
            assert_eq!(difference(&[own(since)], &examination), Some(expected));
        }
        assert_eq!(difference(&[], &examination), None);
        assert_eq!(
            difference(&[own(logged_in)], &ExaminationView::default()),
            None
        );
    }
}
