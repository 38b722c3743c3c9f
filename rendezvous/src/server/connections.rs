//! Connections from their acceptance to their end: greeting, phases, silence, and who may come.
//!
//! `Connections` owns which connections are there, where each comes from, how far it has got, when it
//! was last heard, and the crowd of those that are not logged in (`strangers`). Who is logged in is
//! known to `devices`; what a connection has asked and not been answered, to the context.
//!
//! It ends no connection by itself, because other parts hold things of it, too: it tells the router
//! which is to be closed, and forgets it when it is told so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use common::key::ChannelBinding;
use common::limits::{
    CONNECTIONS_MAX, LOGIN_TIMEOUT, Occupancy, REQUESTS_OPEN_MAX, SESSION_IDLE_TIMEOUT,
};
use common::wire::rendezvous::{ByeReason, Hello, HelloAnswer, VERSION};

use super::context::{Context, ProtocolViolation, ReplyTo};
use super::io::{CloseReason, ConnectionId, Deadline};
use crate::source::SourcePrefix;
use strangers::Strangers;

// More connections than there may be.
#[cfg(test)]
mod crowd;
// Those that have not logged in, and who of them makes room.
mod strangers;

/// Every connection from its acceptance to its end.
#[derive(Debug)]
pub(super) struct Connections {
    /// What the greeting says: program and version.
    agent: String,
    connections: BTreeMap<ConnectionId, Connection>,
    /// When each connection has been silent for too long, at the earliest; looked at again when due.
    timers: BTreeSet<(Instant, ConnectionId)>,
    strangers: Strangers,
    is_stopping: bool,
    events: VecDeque<Event>,
}

/// A connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) connection: ConnectionId,
    pub(super) why: CloseReason,
}

/// Who makes a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caller {
    /// A connection that is not logged in.
    Stranger(Stranger),
    /// A device that is logged in.
    Member,
}

/// A connection that is not logged in, as a log-in needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stranger {
    pub(super) source: SocketAddr,
    pub(super) channel_binding: ChannelBinding,
}

/// A connection that is there.
#[derive(Debug)]
struct Connection {
    source: SocketAddr,
    accepted: Instant,
    heard: Instant,
    timer: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The TLS handshake is not over.
    Handshaking,
    /// The greeting has not come.
    Ungreeted(ChannelBinding),
    /// A connection that is not logged in.
    Stranger(ChannelBinding),
    /// A device that is logged in.
    Member,
}

impl Connections {
    /// Nobody is connected.
    pub(super) fn new(agent: String) -> Self {
        Self {
            agent,
            connections: BTreeMap::new(),
            timers: BTreeSet::new(),
            strangers: Strangers::default(),
            is_stopping: false,
            events: VecDeque::new(),
        }
    }

    /// Takes a connection in, or closes it. When there are too many strangers, one of them is to leave.
    pub(super) fn on_accepted(
        &mut self,
        connection: ConnectionId,
        source: SocketAddr,
        context: &mut Context,
    ) {
        let prefix = SourcePrefix::of(source.ip());
        let is_full = self.connections.len() >= CONNECTIONS_MAX
            || self.strangers.is_full(prefix)
            || self.is_stopping;
        if is_full {
            context.close(connection, CloseReason::TooMany);
            return;
        }
        let now = context.now;
        let timer = now + LOGIN_TIMEOUT;
        let known = Connection {
            source,
            accepted: now,
            heard: now,
            timer,
            phase: Phase::Handshaking,
        };
        self.strangers.add(connection, prefix, context.random_u64());
        self.timers.insert((timer, connection));
        self.connections.insert(connection, known);
        if let Some(leaver) = self.strangers.one_too_many() {
            self.is_to_leave(leaver, ByeReason::Crowded);
        }
    }

    /// The handshake of a connection is over, if there was one.
    pub(super) fn on_connected(
        &mut self,
        connection: ConnectionId,
        source: SocketAddr,
        channel_binding: ChannelBinding,
        context: &mut Context,
    ) {
        if !self.connections.contains_key(&connection) {
            self.on_accepted(connection, source, context);
        }
        if let Some(known) = self.connections.get_mut(&connection) {
            known.phase = Phase::Ungreeted(channel_binding);
        }
    }

    /// Answers the first frame. A second greeting, or one before the handshake, is a violation.
    pub(super) fn on_greeted(
        &mut self,
        connection: ConnectionId,
        hello: &Hello,
        context: &mut Context,
    ) -> Result<(), ProtocolViolation> {
        let Some(known) = self.connections.get_mut(&connection) else {
            return Ok(());
        };
        let Phase::Ungreeted(channel_binding) = known.phase else {
            return Err(ProtocolViolation::new(connection, "a second greeting"));
        };
        let agent = self.agent.clone();
        let Some(version) = hello.choose() else {
            let versions = vec![VERSION];
            context.greet(connection, HelloAnswer::Upgrade { versions, agent });
            let why = CloseReason::NeedsUpgrade;
            self.events.push_back(Event { connection, why });
            return Ok(());
        };
        known.phase = Phase::Stranger(channel_binding);
        context.greet(connection, HelloAnswer::Welcome { version, agent });
        Ok(())
    }

    /// Opens a request and tells who makes it; `None` if it goes no further, because the connection is
    /// gone or has too many open. A number that is open already is a violation: an answer with it would
    /// answer two requests.
    pub(super) fn on_request(
        &mut self,
        to: ReplyTo,
        context: &mut Context,
    ) -> Result<Option<Caller>, ProtocolViolation> {
        let Some(caller) = self.caller(to.connection, context.now)? else {
            return Ok(None);
        };
        if context.is_open(to) {
            let what = "the number of a request that is open";
            return Err(ProtocolViolation::new(to.connection, what));
        }
        if context.open_count(to.connection) >= REQUESTS_OPEN_MAX {
            context.refuse_unopened(to);
            return Ok(None);
        }
        context.open(to);
        Ok(Some(caller))
    }

    /// Something came from a connection. Tells who sends it; `None` if the connection is gone.
    pub(super) fn caller(
        &mut self,
        connection: ConnectionId,
        now: Instant,
    ) -> Result<Option<Caller>, ProtocolViolation> {
        let Some(known) = self.connections.get_mut(&connection) else {
            return Ok(None);
        };
        known.heard = now;
        match known.phase {
            Phase::Handshaking | Phase::Ungreeted(_) => {
                let what = "a request before the greeting";
                Err(ProtocolViolation::new(connection, what))
            }
            Phase::Stranger(channel_binding) => Ok(Some(Caller::Stranger(Stranger {
                source: known.source,
                channel_binding,
            }))),
            Phase::Member => Ok(Some(Caller::Member)),
        }
    }

    /// A connection has proved the key of an enrolled device: strangers do not push it out.
    pub(super) fn on_proven(&mut self, connection: ConnectionId) {
        self.strangers.on_proven(connection);
    }

    /// A connection has logged in. From now on it is looked at when it will have been silent for too
    /// long, which is sooner than before.
    pub(super) fn on_logged_in(&mut self, connection: ConnectionId, context: &Context) {
        self.strangers.remove(connection);
        let known = self.connections.get_mut(&connection);
        let known = known.expect("an attempt ends with its connection");
        known.phase = Phase::Member;
        known.heard = context.now;
        self.timers.remove(&(known.timer, connection));
        known.timer = context.now + SESSION_IDLE_TIMEOUT;
        self.timers.insert((known.timer, connection));
    }

    /// Forgets a connection. `None` if it was gone already, else whether it has been greeted: before
    /// its greeting a peer expects no farewell.
    pub(super) fn on_disconnected(&mut self, connection: ConnectionId) -> Option<bool> {
        let known = self.connections.remove(&connection)?;
        self.timers.remove(&(known.timer, connection));
        self.strangers.remove(connection);
        let is_greeted = match known.phase {
            Phase::Handshaking | Phase::Ungreeted(_) => false,
            Phase::Stranger(_) | Phase::Member => true,
        };
        Some(is_greeted)
    }

    /// Everybody is to leave, and nobody is let in any more.
    pub(super) fn on_shut_down(&mut self) {
        self.is_stopping = true;
        let connections: Vec<_> = self.connections.keys().copied().collect();
        for connection in connections {
            self.is_to_leave(connection, ByeReason::ShuttingDown);
        }
    }

    /// Whoever has been silent for too long is to leave.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((timer, connection)) = self.timers.first().copied()
            && timer <= now
        {
            self.timers.remove(&(timer, connection));
            let known = self.connections.get_mut(&connection);
            let known = known.expect("a timer goes with its connection");
            let deadline = match known.phase {
                Phase::Member => known.heard + SESSION_IDLE_TIMEOUT,
                Phase::Handshaking | Phase::Ungreeted(_) | Phase::Stranger(_) => {
                    known.accepted + LOGIN_TIMEOUT
                }
            };
            if deadline > now {
                known.timer = deadline;
                self.timers.insert((deadline, connection));
            } else {
                self.is_to_leave(connection, ByeReason::TimedOut);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let (at, _) = self.timers.first()?;
        Some(Deadline {
            at: *at,
            why: "a silent connection",
        })
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Connections that are there.
    pub(super) fn count(&self) -> usize {
        self.connections.len()
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 3] {
        let [strangers, of_source] = self.strangers.occupancies();
        let connections = Occupancy::new("connections", self.connections.len(), CONNECTIONS_MAX);
        [connections, strangers, of_source]
    }

    fn is_to_leave(&mut self, connection: ConnectionId, reason: ByeReason) {
        let why = CloseReason::Said(reason);
        self.events.push_back(Event { connection, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::time::{Epoch, UnixTime};
    use common::wire::rendezvous::RequestId;

    use crate::server::io::Output;

    const PEER: ConnectionId = ConnectionId(1);

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn accepted() -> (Connections, Context) {
        let now = Instant::now();
        let mut context = Context::new([1; 32], now, Epoch::new(now, UnixTime::from_millis(1)));
        let mut connections = Connections::new("test".to_owned());
        let source = ([192, 0, 2, 1], 4000).into();
        connections.on_accepted(PEER, source, &mut context);
        (connections, context)
    }

    fn greeted() -> (Connections, Context) {
        let (mut connections, mut context) = accepted();
        let source = ([192, 0, 2, 1], 4000).into();
        connections.on_connected(PEER, source, ChannelBinding([1; 32]), &mut context);
        let greeted = connections.on_greeted(PEER, &Hello::ours("test"), &mut context);
        assert_eq!(greeted, Ok(()));
        assert!(matches!(context.poll_output(), Some(Output::Send { .. })));
        (connections, context)
    }

    const fn request(id: u32) -> ReplyTo {
        ReplyTo {
            connection: PEER,
            id: RequestId(id),
        }
    }

    #[test]
    fn what_comes_out_of_order_is_a_violation() {
        let (mut connections, mut context) = accepted();
        let hello = Hello::ours("test");
        assert!(connections.on_greeted(PEER, &hello, &mut context).is_err());
        assert!(connections.on_request(request(1), &mut context).is_err());
        let (mut connections, mut context) = greeted();
        assert!(connections.on_greeted(PEER, &hello, &mut context).is_err());
        let caller = connections.on_request(request(1), &mut context).unwrap();
        assert!(matches!(caller, Some(Caller::Stranger(_))));
        assert!(connections.on_request(request(1), &mut context).is_err());
        assert!(connections.on_request(request(2), &mut context).is_ok());
    }

    #[test]
    fn one_request_too_many_is_refused_and_goes_no_further() {
        let (mut connections, mut context) = greeted();
        for id in 0..REQUESTS_OPEN_MAX as u32 {
            let caller = connections.on_request(request(id), &mut context).unwrap();
            assert!(caller.is_some());
        }
        let one_more = request(REQUESTS_OPEN_MAX as u32);
        let caller = connections.on_request(one_more, &mut context).unwrap();
        assert!(caller.is_none());
        assert!(matches!(context.poll_output(), Some(Output::Send { .. })));
        assert_eq!(context.open_count(PEER), REQUESTS_OPEN_MAX);
    }

    #[test]
    fn a_silent_stranger_is_to_leave_and_a_member_later() {
        let (mut connections, mut context) = greeted();
        let due = connections.poll_timeout().unwrap().at;
        assert_eq!(due, context.now + LOGIN_TIMEOUT);
        connections.handle_timeout(due);
        let why = CloseReason::Said(ByeReason::TimedOut);
        let connection = PEER;
        assert_eq!(connections.poll_event(), Some(Event { connection, why }));

        let (mut connections, _) = greeted();
        context.now = due - LOGIN_TIMEOUT / 2;
        connections.on_logged_in(PEER, &context);
        let due = connections.poll_timeout().unwrap().at;
        assert_eq!(due, context.now + SESSION_IDLE_TIMEOUT);
        context.now += SESSION_IDLE_TIMEOUT / 2;
        assert!(connections.on_request(request(1), &mut context).is_ok());
        connections.handle_timeout(due);
        assert_eq!(connections.poll_event(), None, "it was heard since");
        connections.handle_timeout(context.now + SESSION_IDLE_TIMEOUT);
        assert_eq!(connections.poll_event(), Some(Event { connection, why }));
    }
}
