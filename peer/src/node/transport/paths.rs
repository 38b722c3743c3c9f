//! The paths of a link: relayed first, then direct, on one connection.
//!
//! A link may begin on a relayed path, whose address is made up ([`common::relayed`]). Whoever owns the
//! transport sends what goes there through the relay, and passes what comes from there to
//! [`Transport::handle_datagrams`] with that address as its source. Then:
//!
//! 1. Both ends offer the addresses at which they may be reached ([`Transport::offer_addresses`]).
//! 2. The client's side starts a round ([`Transport::start_round`]), or opens a path to an address that is
//!    known to be reachable ([`Transport::open_path`]).
//! 3. As soon as a path is validated ([`PathChange::Opened`]), data goes over it ([`PathChange::Current`]).
//! 4. A second direct path is a sign that an end has moved: the one that carries data has to show soon that it
//!    still works.
//! 5. When it dies ([`PathChange::Lost`]), data goes over another direct path or through the relay, without
//!    anything for the owner to do. The owner decides when the next round starts.
//!
//! This module decides nothing but which path carries data, and when a path is dead. Each end decides for
//! what it sends.
//!
//! # What QUIC does, and what follows from it
//!
//! Found in noq-proto 1.4, and held by the tests `transport::tests::paths`.
//!
//! - *Roles.* `open_path` and `initiate_nat_traversal_round` fail on the server's side. A round needs an offered
//!   address of the client's side, even if it has none that the server's side could reach.
//! - *Statuses.* A path that the client's side opens begins as `Backup`. At the server's side it begins as
//!   `Available`, but carries no data before it is validated there, and the event of that is handled before
//!   anything is sent. An end heeds only its own statuses; those of the other end are wishes.
//! - *Acknowledgements* are written only into packets of a path that carries data (`populate_packet`): what comes
//!   over one path is acknowledged over the other. So an end may hear nothing over a path that works.
//! - *Keep-alives* of a path start anew with everything that it receives (`reset_keep_alive`). If both ends have
//!   the same interval, one of them may never send any, and the other hears nothing and gives up a path that
//!   works, after its idle timeout. Therefore this module pings all paths itself, at a fixed interval, once there
//!   are several. The connection's own keep-alive does not help: data on one path holds it up for all.
//! - *Idle timeouts* of a path start anew with everything that it receives, and are at least three times the
//!   probe timeout. The end that sends in a direction that is dead goes on hearing the other's probes until that
//!   one finds the path idle. With 1.5 s at the end that sends and 15 s at the other, data stood still for 6 to
//!   14 s at round trips of 200 ms and more; with 1.5 s at both ends for 2.5 s. Therefore this module watches
//!   acknowledgements ([`PATH_ACK_TIMEOUT`]) while data is in flight, and the idle timeout of 15 s is for
//!   quiet paths only, and that of the relayed one is as long as its channel lasts.
//! - *What was in flight* on a dead path is sent again not when the path is given up, but once the other end has
//!   abandoned it, too, and three probe timeouts of that path have passed (`discard_path`). After the last
//!   acknowledgement, with round trips of 10 ms directly and 60 ms through the relay, data arrives again
//!   after 1.1 s; with 200 ms each after 2.0 s, with 300 ms each after 2.5 s.
//! - *Rounds.* Each address gets nine probes of 35 bytes within 4.2 s, from both ends. A round ends without an
//!   event. Addresses that are offered later are not probed before the next one. What is probed is up to the
//!   other end, so probes are limited here ([`Transport::may_send`]).
//! - *Removed and offered again*, an address is news to the other end, as it has to be when the server's side moved.
//! - *Path ids.* An abandoned path gives its place back once both ends have abandoned it. One that never reached
//!   the other end, since the address that it was opened to did not answer, is unknown there and keeps its
//!   place for the link's life. Rounds only open paths that a probe went through; prefer them to
//!   [`Transport::open_path`].
//! - *Packet numbers* belong to a path (see [`super::ack_lag`]), the bound of path MTU discovery to the connection:
//!   a link that begins on a relayed path searches for the MTU of its interfaces on that, too, in vain.
//! - *Stateless resets* are recognised on the first path only (`set_reset_token`), which is the relayed one: a
//!   device that restarted is noticed over another one as a path that dies.
//! - *Trains* are for one path, but their length is chosen before QUIC chooses the path; hence
//!   `Link::largest_mtu`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::candidate::is_single_host;
use common::limits::{
    LINK_ACK_ROUND_TRIPS, LINK_ACK_TIMEOUT, LINK_IDLE_TIMEOUT, LINK_KEEP_ALIVE_INTERVAL,
    PATH_ACK_ROUND_TRIPS, PATH_ACK_TIMEOUT, PATH_DOUBT_TIMEOUT, RELAY_CHANNEL_IDLE_TIMEOUT,
    TRAVERSAL_ADDRESSES_MAX,
};
use common::relayed::is_relayed;
use noq_proto::{Connection, FourTuple, PathEvent, PathId, PathStatus, VarInt, n0_nat_traversal};

use super::ack_lag::{AckLag, PathBytes, Paths};
use super::silence::{AckWatch, Overdue};
use crate::node::command::Traffic;
use crate::node::paths::budget::Budget;

use super::{Link, LinkId, Transport, TransportEvent, mapped};

/// Tells the other end why a path is abandoned (draft-ietf-quic-multipath section 4.1).
const PATH_UNSTABLE_OR_POOR: VarInt = VarInt::from_u32(0x3e76);

/// The way that the datagrams of a path take to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Straight to this address of the other end.
    Direct(SocketAddr),
    /// Through the relay; the address is made up ([`common::relayed`]).
    Relayed(SocketAddr),
}

impl Route {
    /// The route to an address, which may be a mapped one.
    pub fn to(remote: SocketAddr) -> Self {
        if is_relayed(remote.ip()) {
            Self::Relayed(remote)
        } else {
            Self::Direct(common::stun::canonical(remote))
        }
    }

    /// Tells whether the datagrams go through the relay.
    pub const fn is_relayed(self) -> bool {
        matches!(self, Self::Relayed(_))
    }
}

/// What happened to the paths of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// A path was validated.
    Opened(Route),
    /// A path that had been open is lost.
    Lost(Route),
    /// This end sends its data over another path from now on.
    Current(Route),
    /// The other end offers other addresses than before ([`Transport::offered_addresses`]), or the same ones
    /// anew. Only the client's side gets it.
    AddressesOffered,
}

/// One open path of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// The way that its datagrams take.
    pub route: Route,
    /// Whether this end sends its data over it.
    pub is_current: bool,
    /// The smoothed round-trip time.
    pub round_trip: Duration,
}

/// Why a path cannot be opened, or no round be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRefused {
    /// The link does not exist any more, or is not connected yet.
    #[error("cannot open a path: there is no such link")]
    NoLink,
    /// Only the end that dialled opens paths.
    #[error("cannot open a path: leave it to the other end, which dialled")]
    NotDialled,
    /// The other side does not know how.
    #[error("cannot open a path: the other side uses one path only")]
    NotSupported,
    /// The address is that of a relayed path.
    #[error("cannot open a direct path: the address is that of a relayed one")]
    NotDirect,
    /// There are as many paths as a link may have.
    #[error("cannot open a path: wait until one of the others is lost")]
    TooManyPaths,
    /// This end has offered no address, or more than the other side takes.
    #[error("cannot start a round: offer at least one address, and fewer than a hundred")]
    Addresses,
}

impl Transport {
    /// Replaces the addresses at which this end of a link may be reached, as far as the other side takes
    /// them. The server's side announces them at once, also those that it had announced before, so that the
    /// other end gets [`PathChange::AddressesOffered`]. The client's side names them in the next round.
    ///
    /// # Errors
    /// If the other side does not know of such addresses.
    pub fn offer_addresses(
        &mut self,
        link: LinkId,
        addresses: &[SocketAddr],
    ) -> Result<(), PathRefused> {
        let direct = addresses.iter().filter(|address| !is_relayed(address.ip()));
        self.with(link, |link| {
            let connection = &mut link.connection;
            for before in connection.get_local_nat_traversal_addresses()? {
                connection.remove_nat_traversal_address(before)?;
            }
            for address in direct.take(TRAVERSAL_ADDRESSES_MAX / 2) {
                connection.add_nat_traversal_address(*address)?;
            }
            Ok(())
        })
        .unwrap_or(Err(PathRefused::NoLink))
    }

    /// The addresses that the other end of a link offers. Only the client's side knows them.
    pub fn offered_addresses(&self, link: LinkId) -> Vec<SocketAddr> {
        let link = self.links.get(&link);
        let addresses = link.map(|link| link.connection.get_remote_nat_traversal_addresses());
        addresses.and_then(Result::ok).unwrap_or_default()
    }

    /// Starts a round of NAT traversal: both ends send probes to all addresses of the other, nine to each
    /// within some 4 s, and each that is answered becomes a path. The end of a round is not reported; one that
    /// is still going on is replaced.
    ///
    /// # Errors
    /// On the server's side, and if this end has not offered any address.
    pub fn start_round(&mut self, link: LinkId, now: Instant) -> Result<(), PathRefused> {
        self.with(link, |link| {
            link.connection.initiate_nat_traversal_round(now)?;
            Ok(())
        })
        .unwrap_or(Err(PathRefused::NoLink))
    }

    /// Opens a direct path to an address of the other end, unless there is one already. It is a path once it
    /// is validated ([`PathChange::Opened`]), and is given up after [`LINK_IDLE_TIMEOUT`] otherwise.
    ///
    /// # Errors
    /// On the server's side, and as long as the link has as many paths as it may.
    pub fn open_path(
        &mut self,
        link: LinkId,
        remote: SocketAddr,
        now: Instant,
    ) -> Result<(), PathRefused> {
        if is_relayed(remote.ip()) {
            return Err(PathRefused::NotDirect);
        }
        let path = FourTuple::from_remote(mapped(remote));
        self.with(link, |link| {
            link.connection
                .open_path_ensure(path, PathStatus::Backup, now)?;
            Ok(())
        })
        .unwrap_or(Err(PathRefused::NoLink))
    }

    /// The open paths of a link.
    pub fn paths(&mut self, link: LinkId) -> Vec<PathReport> {
        let Some(Link {
            paths, connection, ..
        }) = self.links.get_mut(&link)
        else {
            return Vec::new();
        };
        let ids = paths.open.keys();
        let reports = ids.filter_map(|id| paths.report(*id, connection));
        reports.collect()
    }

    /// What has gone over the path that this end of a link sends its data over.
    pub fn current_traffic(&mut self, link: LinkId) -> Option<Traffic> {
        let link = self.links.get_mut(&link)?;
        let stats = link.connection.path_stats(link.paths.current?)?;
        Some(Traffic {
            sent_packets: stats.sent_packets - stats.sent_plpmtud_probes,
            lost_packets: stats.lost_packets - stats.lost_plpmtud_probes,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
        })
    }

    /// How often this end of a link has begun to send its data over another path: as long as that stays the
    /// same, [`Transport::current_traffic`] is that of one path.
    pub fn path_changes(&self, link: LinkId) -> u32 {
        self.links.get(&link).map_or(0, |link| link.paths.changes)
    }

    /// The path that this end of a link sends its data over.
    pub fn current_path(&self, link: LinkId) -> Option<PathReport> {
        let link = self.links.get(&link)?;
        link.paths.report(link.paths.current?, &link.connection)
    }

    /// Tells whether a link, or a handshake, began at this address of the other end.
    pub fn has_link_at(&self, remote: SocketAddr) -> bool {
        let at = Some(Route::to(remote));
        let mut links = self.links.values().filter(|link| !link.is_lost);
        links.any(|link| route(PathId::ZERO, &link.connection) == at)
    }

    /// Notes whether peers may be on this host, because the server is.
    pub const fn set_local(&mut self, is_local: bool) {
        self.is_local = is_local;
    }

    /// Tells whether datagrams to `destination` may be sent. What goes over a path may. Anything else is a
    /// probe, to an address that the other end named: it goes only to a single other host, only once the link
    /// is authorised, and is paid for.
    pub(super) fn may_send(
        &mut self,
        id: LinkId,
        destination: SocketAddr,
        len: usize,
        now: Instant,
    ) -> bool {
        let is_authorised = !self.unauthorised.contains_key(&id);
        let is_single = is_single_host(destination.ip().to_canonical(), self.is_local);
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        let connection = &link.connection;
        let is_remote = |path| remote(path, connection) == Some(destination);
        if link.paths.current.is_some_and(is_remote)
            || connection.paths().into_iter().any(is_remote)
        {
            return true;
        }
        is_authorised && is_single && link.paths.pay(len, now)
    }

    /// Handles what QUIC says of a link's paths.
    pub(super) fn on_path_event(&mut self, id: LinkId, event: &PathEvent) {
        let changes = self.with(id, |link| {
            link.paths.handle_event(event, &mut link.connection)
        });
        for change in changes.unwrap_or_default() {
            self.events
                .push_back(TransportEvent::Path { link: id, change });
        }
    }
}

impl Link {
    /// Handles the timers of the connection and of its paths that have expired.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.timer = None;
        self.connection.handle_timeout(now);
        self.paths
            .handle_timeout(&mut self.connection, &self.ack_lag, now);
    }

    /// When [`Link::handle_timeout`] is due.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        let timers = [
            self.connection.poll_timeout(),
            self.paths.poll_timeout(),
            self.silence.poll_timeout(),
        ];
        timers.into_iter().flatten().min()
    }

    /// Sets the timers of the paths, and that of the link's silence. `true` if it has something to send now.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        self.paths.settle(&mut self.connection, &self.ack_lag, now);
        let round_trip = self.paths.round_trip(&self.connection);
        self.silence.settle(&self.ack_lag, round_trip, now);
        self.paths.take_frames()
    }

    /// The largest MTU of its paths, in bytes of UDP payload: a train may be for any of them.
    pub(super) fn largest_mtu(&mut self) -> u16 {
        let smallest = self.connection.current_mtu();
        let paths = self.connection.paths();
        if paths.len() == 1 {
            return smallest;
        }
        let stats = paths
            .iter()
            .filter_map(|id| self.connection.path_stats(*id));
        stats.fold(smallest, |largest, path| largest.max(path.current_mtu))
    }
}

impl From<noq_proto::PathError> for PathRefused {
    fn from(error: noq_proto::PathError) -> Self {
        use noq_proto::PathError;
        match error {
            PathError::MultipathNotNegotiated => Self::NotSupported,
            PathError::ServerSideNotAllowed => Self::NotDialled,
            PathError::MaxPathIdReached | PathError::RemoteCidsExhausted => Self::TooManyPaths,
            PathError::ValidationFailed | PathError::InvalidRemoteAddress(_) => Self::NotDirect,
        }
    }
}

impl From<n0_nat_traversal::Error> for PathRefused {
    fn from(error: n0_nat_traversal::Error) -> Self {
        use n0_nat_traversal::Error;
        match error {
            Error::TooManyAddresses | Error::NotEnoughAddresses => Self::Addresses,
            Error::WrongConnectionSide => Self::NotDialled,
            Error::ExtensionNotNegotiated => Self::NotSupported,
            Error::Multipath(error) => error.into(),
            Error::Closed => Self::NoLink,
        }
    }
}

/// The validated paths of one link.
#[derive(Debug, Default)]
pub(super) struct LinkPaths {
    /// What probes may still cost. `None` if there were none yet.
    budget: Option<Budget>,
    open: BTreeMap<PathId, OpenPath>,
    current: Option<PathId>,
    /// How often `current` became another path.
    changes: u32,
    /// When all paths are pinged next, if there are several.
    ping_at: Option<Instant>,
    /// The acknowledgements that the current path still has to get.
    watch: Option<Watch>,
    /// Data went over the relayed path before, and may still be in flight there.
    has_left_relay: bool,
    /// Another direct path has opened: the current one is to show soon that it still works.
    has_rival: bool,
    left_behind: Option<LeftBehind>,
    /// Packets with data are in flight, not keep-alives only.
    has_data_in_flight: bool,
    /// STREAM frames that had been sent when last looked at.
    stream_frames: u64,
    /// Paths came or went since their lifetimes were set.
    is_stale: bool,
    /// QUIC has frames to send.
    has_frames: bool,
}

#[derive(Debug)]
struct OpenPath {
    lifetime: Lifetime,
    /// `None` only if QUIC has no such path any more.
    bytes: Option<PathBytes>,
}

/// Data in flight over a direct path, which is given up once nothing of it was acknowledged for too long.
#[derive(Clone, Copy, Debug)]
struct Watch {
    path: PathId,
    acknowledgement: AckWatch,
}

/// Data in flight over the relayed path though another one carries data by now.
#[derive(Clone, Copy, Debug)]
struct LeftBehind {
    acknowledgement: AckWatch,
    /// Bytes that were acknowledged of the other paths when all were pinged.
    others: u64,
}

/// How long a path lasts that nothing is heard over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lifetime {
    /// As the connection has it, since nothing was set.
    Unset,
    /// As long as the link: the only path.
    Link,
    /// [`RELAY_CHANNEL_IDLE_TIMEOUT`]: the relayed path. Its channel lasts no longer.
    Relayed,
    /// [`LINK_IDLE_TIMEOUT`]: a direct path, if there is another.
    Idle,
}

impl Lifetime {
    const fn idle_timeout(self) -> Option<Duration> {
        match self {
            Self::Unset | Self::Link => None,
            Self::Relayed => Some(RELAY_CHANNEL_IDLE_TIMEOUT),
            Self::Idle => Some(LINK_IDLE_TIMEOUT),
        }
    }
}

impl LinkPaths {
    /// The handshake is complete: the path that it took is the first.
    pub(super) fn on_connected(&mut self, connection: &Connection) {
        self.open
            .insert(PathId::ZERO, OpenPath::new(PathId::ZERO, connection));
        self.current = Some(PathId::ZERO);
        self.is_stale = true;
    }

    fn handle_event(&mut self, event: &PathEvent, connection: &mut Connection) -> Vec<PathChange> {
        let mut changes = Vec::new();
        if let PathEvent::Established { id, .. } = event {
            let path = OpenPath::new(*id, connection);
            let is_new = self.open.insert(*id, path).is_none();
            let opened = route(*id, connection).filter(|_| is_new);
            changes.extend(opened.map(PathChange::Opened));
            self.has_rival |= opened.is_some_and(|it| !it.is_relayed());
            self.is_stale = true;
        } else if let PathEvent::Abandoned { id, .. } = event {
            let was_open = self.open.remove(id).is_some();
            let lost = route(*id, connection).filter(|_| was_open);
            changes.extend(lost.map(PathChange::Lost));
            self.is_stale = true;
        } else {
            return changes;
        }
        changes.extend(self.choose(connection).map(PathChange::Current));
        changes
    }

    /// Chooses the path for data, and makes all others backups. Returns its route if it is a new one.
    fn choose(&mut self, connection: &mut Connection) -> Option<Route> {
        let best = self.best(connection);
        for id in self.open.keys() {
            let status = if Some(*id) == best {
                PathStatus::Available
            } else {
                PathStatus::Backup
            };
            // Fails only if the path is abandoned, which an event is about to say.
            self.has_frames |= connection.set_path_status(*id, status) != Ok(status);
        }
        let before = std::mem::replace(&mut self.current, best);
        self.changes += u32::from(best != before);
        let chosen = best.filter(|_| best != before)?;
        self.has_left_relay = before == Some(PathId::ZERO);
        route(chosen, connection)
    }

    /// A direct path if there is one: the current one, or that with the shortest round trip.
    fn best(&self, connection: &Connection) -> Option<PathId> {
        let is_relayed = |id| route(id, connection).is_none_or(Route::is_relayed);
        self.open.keys().copied().min_by_key(|id| {
            let is_current = self.current == Some(*id);
            (is_relayed(*id), !is_current, connection.rtt(*id))
        })
    }

    /// Pays for a probe of `len` bytes, if the link's budget covers it.
    fn pay(&mut self, len: usize, now: Instant) -> bool {
        let budget = self.budget.get_or_insert_with(|| Budget::of_device(now));
        let is_covered = budget.covers(len, now);
        if is_covered {
            budget.take(len, now);
        }
        is_covered
    }

    fn report(&self, id: PathId, connection: &Connection) -> Option<PathReport> {
        Some(PathReport {
            route: route(id, connection)?,
            is_current: self.current == Some(id),
            round_trip: connection.rtt(id)?,
        })
    }

    /// Tells once whether QUIC got frames to send that it has not been asked for.
    pub(super) fn take_frames(&mut self) -> bool {
        std::mem::take(&mut self.has_frames)
    }

    /// Sets the timers of the paths. Called once a link has nothing more to send.
    pub(super) fn settle(&mut self, connection: &mut Connection, ack_lag: &AckLag, now: Instant) {
        self.look_for_data(connection, ack_lag);
        self.look_for_acknowledgements(connection, now);
        self.look_behind(connection, ack_lag, now);
        if std::mem::take(&mut self.is_stale) {
            self.set_lifetimes(connection, now);
        }
    }

    /// When [`LinkPaths::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let current = self.watch.iter().map(|watch| &watch.acknowledgement);
        let relayed = self.left_behind.iter().map(|left| &left.acknowledgement);
        let deadlines = current.chain(relayed).map(AckWatch::poll_timeout);
        deadlines.chain(self.ping_at).min()
    }

    /// Keeps the paths alive, and gives up the current one, or the relayed one that was current before, if
    /// nothing of what is in flight over it was acknowledged in time.
    pub(super) fn handle_timeout(
        &mut self,
        connection: &mut Connection,
        ack_lag: &AckLag,
        now: Instant,
    ) {
        self.look_for_acknowledgements(connection, now);
        // What fails here does so only if the path is abandoned already.
        if let Some(watch) = &mut self.watch {
            match watch.acknowledgement.handle_timeout(now) {
                Overdue::No => {}
                Overdue::Ping => self.has_frames |= connection.ping_path(watch.path).is_ok(),
                Overdue::Yes => {
                    let _ = connection.close_path(now, watch.path, PATH_UNSTABLE_OR_POOR);
                    self.watch = None;
                }
            }
        }
        self.give_up_relay(connection, ack_lag, now);
        if self.ping_at.is_some_and(|at| at <= now) {
            self.ping(connection, now);
        }
    }

    /// Pings all paths, whatever is heard over them.
    fn ping(&mut self, connection: &mut Connection, now: Instant) {
        for id in self.open.keys() {
            // Fails only if the path is abandoned, which an event is about to say.
            self.has_frames |= connection.ping_path(*id).is_ok();
        }
        self.ping_at = Some(now + LINK_KEEP_ALIVE_INTERVAL);
    }

    /// Notes whether data is in flight, if the link has several paths.
    fn look_for_data(&mut self, connection: &mut Connection, ack_lag: &AckLag) {
        let in_flight = ack_lag.in_flight(Paths::First) + ack_lag.in_flight(Paths::Others);
        if self.open.len() < 2 || in_flight == 0 {
            self.has_data_in_flight = false;
        } else if !self.has_data_in_flight {
            let sent = connection.stats().frame_tx.stream;
            let before = std::mem::replace(&mut self.stream_frames, sent);
            self.has_data_in_flight = sent != before;
        }
    }

    /// Watches the current path while data is in flight over it, if it is direct and there is another.
    fn look_for_acknowledgements(&mut self, connection: &mut Connection, now: Instant) {
        let before = self.watch.take();
        let has_rival = std::mem::take(&mut self.has_rival);
        let Some(path) = self.current.filter(|_| self.has_data_in_flight) else {
            return;
        };
        let bytes = self.open.get(&path).and_then(|path| path.bytes.as_ref());
        let Some(bytes) = bytes.filter(|bytes| bytes.in_flight() > 0) else {
            return;
        };
        if route(path, connection).is_none_or(Route::is_relayed) {
            return;
        }
        let before = before.filter(|watch| watch.path == path);
        let before = before.map(|watch| watch.acknowledgement);
        let round_trip = self.round_trip(connection);
        let patience = PATH_ACK_TIMEOUT.max(PATH_ACK_ROUND_TRIPS * round_trip);
        let mut acknowledgement = AckWatch::of(before, bytes.acknowledged(), patience, now);
        if has_rival {
            let patience = PATH_DOUBT_TIMEOUT.max(PATH_ACK_ROUND_TRIPS * round_trip);
            acknowledgement.hurry(patience, now);
            // Fails only if the path is abandoned, which an event is about to say.
            self.has_frames |= connection.ping_path(path).is_ok();
        }
        self.watch = Some(Watch {
            path,
            acknowledgement,
        });
    }

    /// Watches what is in flight over the relayed path since another one carries data: QUIC would keep it
    /// there for good if the relay is gone. After one acknowledgement it finds its losses by itself.
    fn look_behind(&mut self, connection: &Connection, ack_lag: &AckLag, now: Instant) {
        let before = self.left_behind.take();
        let is_backup = self.current != Some(PathId::ZERO) && self.open.contains_key(&PathId::ZERO);
        let round_trip = connection.rtt(PathId::ZERO).unwrap_or_default();
        let patience = LINK_ACK_TIMEOUT.max(LINK_ACK_ROUND_TRIPS * round_trip);
        let acknowledged = ack_lag.acknowledged(Paths::First);
        let watch = before.map(|left| left.acknowledgement);
        let acknowledgement = AckWatch::of(watch, acknowledged, patience, now);
        let has_progress = watch.is_some_and(|watch| watch != acknowledgement);
        self.has_left_relay &= is_backup && !has_progress && ack_lag.in_flight(Paths::First) > 0;
        if self.has_left_relay {
            let others = before.map_or_else(|| ack_lag.acknowledged(Paths::Others), |it| it.others);
            self.left_behind = Some(LeftBehind {
                acknowledgement,
                others,
            });
        }
    }

    /// Gives up the relayed path if nothing is acknowledged of what is in flight there. Acknowledgements come over
    /// the path that carries data: that one has to have brought some of its own meanwhile.
    fn give_up_relay(&mut self, connection: &mut Connection, ack_lag: &AckLag, now: Instant) {
        self.look_behind(connection, ack_lag, now);
        let Some(left) = &mut self.left_behind else {
            return;
        };
        let others = ack_lag.acknowledged(Paths::Others);
        match left.acknowledgement.handle_timeout(now) {
            Overdue::No => {}
            Overdue::Ping => {
                left.others = others;
                self.ping(connection, now);
            }
            Overdue::Yes => {
                if others > left.others {
                    // Fails only if it is abandoned already.
                    let _ = connection.close_path(now, PathId::ZERO, PATH_UNSTABLE_OR_POOR);
                    self.has_left_relay = false;
                }
                self.left_behind = None;
            }
        }
    }

    /// The smoothed round-trip time of the current path.
    pub(super) fn round_trip(&self, connection: &Connection) -> Duration {
        let current = self.current.and_then(|path| connection.rtt(path));
        current.unwrap_or_default()
    }

    fn set_lifetimes(&mut self, connection: &mut Connection, now: Instant) {
        let is_sole = self.open.len() < 2;
        for (id, OpenPath { lifetime, .. }) in &mut self.open {
            let is_relayed = route(*id, connection).is_some_and(Route::is_relayed);
            let wanted = match is_relayed {
                _ if is_sole => Lifetime::Link,
                true => Lifetime::Relayed,
                false => Lifetime::Idle,
            };
            if std::mem::replace(lifetime, wanted) != wanted {
                // Fails only if the path is abandoned, which an event is about to say.
                let _ = connection.set_path_max_idle_timeout(now, *id, wanted.idle_timeout());
            }
        }
        if is_sole {
            // The link's own keep-alive is enough.
            self.ping_at = None;
        } else if self.ping_at.is_none() {
            self.ping(connection, now);
        }
    }
}

impl OpenPath {
    fn new(id: PathId, connection: &Connection) -> Self {
        Self {
            lifetime: Lifetime::Unset,
            bytes: PathBytes::of(id, connection),
        }
    }
}

fn route(id: PathId, connection: &Connection) -> Option<Route> {
    remote(id, connection).map(Route::to)
}

/// The other end's address on a path, as QUIC sees it.
fn remote(id: PathId, connection: &Connection) -> Option<SocketAddr> {
    let path = connection.network_path(id).ok()?;
    Some(path.remote())
}
