//! Every limit of the project, each with its reason.
//!
//! Whoever exceeds a limit gets a clear error, at no cost to anybody else. `LEN` and `WINDOW` count bytes;
//! other names count what they say. `TIMEOUT`, `INTERVAL`, `LIFETIME`, `WAIT`, `AFTER` and `BACKOFF` are
//! durations, of which a `BACKOFF` doubles from `FIRST` up to `MAX`.

use std::num::NonZeroU32;
use std::time::Duration;

/// How full a bounded resource of an engine is. The simulation checks it against the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// The resource, in the plural: "links".
    pub what: &'static str,
    /// Its present size; of several resources of a kind, that of the fullest.
    pub count: usize,
    /// Its bound.
    pub max: usize,
}

impl Occupancy {
    /// Describes one resource, of which `count` out of `max` is used.
    pub const fn new(what: &'static str, count: usize, max: usize) -> Self {
        Self { what, count, max }
    }

    /// Describes the fullest of several resources of a kind, each with the same `max`.
    pub fn fullest(
        what: &'static str,
        counts: impl IntoIterator<Item = usize>,
        max: usize,
    ) -> Self {
        Self::new(what, counts.into_iter().max().unwrap_or(0), max)
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// ---- names -------------------------------------------------------------------------------------

/// Longest account name, in bytes of ASCII: fits into a column of a list.
pub const ACCOUNT_NAME_LEN_MAX: usize = 32;
/// Longest device name, in bytes: holds one label of a host name (63 bytes, RFC 1035 section 2.3.4).
pub const DEVICE_NAME_LEN_MAX: usize = 64;
/// Longest file name, in bytes: what common file systems support.
pub const FILE_NAME_LEN_MAX: usize = 255;
/// Longest program name and version in a greeting: enough to identify a program in a log.
pub const AGENT_LEN_MAX: usize = 64;
/// Longest password, in bytes: holds a long passphrase, and bounds the work of hashing it.
pub const PASSWORD_LEN_MAX: usize = KIB;
/// Shortest new password, in Unicode code points: the minimum of NIST SP 800-63B, counted as there.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest reason in a frame, for example for cancelling a transfer: one line for a person.
pub const REASON_LEN_MAX: usize = 256;

// ---- control connection ------------------------------------------------------------------------

/// Largest control frame, without its length prefix. A page of the directory is the largest message.
pub const CONTROL_FRAME_LEN_MAX: usize = 64 * KIB;
/// Protocol versions that one greeting offers: more than will ever be supported at a time.
pub const VERSIONS_MAX: usize = 16;
/// Largest OPAQUE message. The suite's largest, KE2, has 320 bytes.
pub const OPAQUE_MESSAGE_LEN_MAX: usize = 512;
/// Candidates of one device: both address families on each interface of a laptop, and a few more.
pub const CANDIDATES_MAX: usize = 16;
/// Entries in one page of the directory. With [`CANDIDATES_MAX`] candidates of up to 21 bytes each they
/// take some 32 KiB, which fits a frame.
pub const ENTRIES_PER_PAGE_MAX: usize = 64;
/// Changes in one presence push: each is an entry, so the same number fits a frame.
pub const CHANGES_PER_PUSH_MAX: usize = 64;
/// Entries that a peer collects for one listing of the directory: only a hostile server has more.
pub const LIST_ENTRIES_MAX: usize = 4 * CONNECTIONS_MAX;
/// Presence changes that the server keeps so that a watcher can resume; one that missed more lists
/// again. 4,096 changes take some 100 KiB.
pub const PRESENCE_LOG_MAX: usize = 4096;
/// One device may announce once per interval, because every watcher is told of each announcement. Of those
/// that come sooner, the newest is delayed. People notice no difference, and 64 devices that announce
/// without pause cause 13 changes per second.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(5);
/// Burst of the announcement rate limit. Each command of a peer without a background process logs in
/// and announces itself, and people type a few commands in a row.
pub const ANNOUNCEMENTS_BURST_MAX: u32 = 4;
/// Devices in the announcement rate limiter: all that are connected, and those that left less than an
/// interval ago. The least recently active one is evicted.
pub const ANNOUNCERS_MAX: usize = 65_536;
/// Sustained rate of presence changes to one watcher: one full push of at most 30 KB per second. 10,000
/// peers that each come or leave every 10 minutes cause a quarter of that.
pub const WATCH_CHANGES_PER_SECOND_MAX: u32 = CHANGES_PER_PUSH_MAX as u32;
/// Burst of presence changes to one watcher. At their largest they fill half of [`SEND_QUEUE_LEN_MAX`]. A
/// watcher that has missed more has to list again.
pub const WATCH_CHANGES_BURST_MAX: u32 = 1024;
/// First back-off of a peer whose watch the server ended. The peer waits for a random part of it, so that
/// peers whose watches ended together come back spread out.
pub const WATCH_BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest such back-off: a stale list of who is online is tolerable for a minute. A watch that lasted for
/// longer resets the back-off.
pub const WATCH_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Unanswered requests on one control connection: enough to keep it busy, few enough to bound the
/// server's work for one client.
pub const REQUESTS_OPEN_MAX: usize = 32;
/// Requests that a peer queues until earlier ones are answered, or until it is logged in: as many as its
/// clients can have unanswered ([`PROFILE_REQUESTS_MAX`]).
pub const REQUESTS_WAITING_MAX: usize = PROFILE_REQUESTS_MAX;
/// Bytes that the server queues for a slow client before it closes the connection: 16 frames of the
/// largest size.
pub const SEND_QUEUE_LEN_MAX: usize = 16 * CONTROL_FRAME_LEN_MAX;
/// Enrolled devices of one account: more than people own. Another one needs the removal of an old one.
pub const DEVICES_PER_ACCOUNT_MAX: usize = 32;
/// Enrolments that one device has yet to be told of; of more the newest stay. As many as an account can
/// have other devices, with one to spare: more are enrolled only by somebody who logs out in between.
pub const ENROLMENTS_UNTOLD_MAX: usize = DEVICES_PER_ACCOUNT_MAX;
/// Connections to the server, including those that are not logged in: everybody in a large organisation.
pub const CONNECTIONS_MAX: usize = 50_000;
/// Connections from one source (IPv4 /32, IPv6 /64) that are not logged in: a large office behind one
/// address may reconnect at once.
pub const UNAUTHENTICATED_PER_SOURCE_MAX: usize = 256;
/// Connections from all sources that are not logged in; one of the source that has most is evicted. This
/// is 16 sources at their limit. A log-in takes a second or two, so a crowd that reconnects after a
/// restart is admitted in turns.
pub const UNAUTHENTICATED_MAX: usize = 4096;
/// Of these, connections that are exempt from eviction because they proved an enrolled device: half, so
/// that an owner of very many devices leaves room for people who have none yet.
pub const PROVEN_STRANGERS_MAX: usize = UNAUTHENTICATED_MAX / 2;
/// Registrations per hour that one source may start on a server that is open to them. Each start counts,
/// because its answer tells whether a name is taken.
pub const REGISTRATIONS_PER_SOURCE_PER_HOUR_MAX: u32 = 100;

/// Time to log in, including the stretching of the password. It ends connections that send a byte at a
/// time (slow loris).
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer sends a keep-alive after this long without sending anything: three fit into
/// [`SESSION_IDLE_TIMEOUT`].
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(8);
/// The server ends a session that has sent nothing for this long, so that a peer that vanished leaves
/// the directory within 30 s.
pub const SESSION_IDLE_TIMEOUT: Duration = Duration::from_secs(25);

/// First back-off before a peer reconnects to its server, times a random factor of 0.5 to 1.5.
pub const RECONNECT_BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest such back-off, before the random factor: a server that is back has all its peers after 30 s.
/// With a token a log-in costs it little, and 50,000 peers are 2,500 a second.
pub const RECONNECT_BACKOFF_MAX: Duration = Duration::from_secs(20);

/// Accounts in one reply to an operator: they fit into a line of 64 KiB.
pub const ACCOUNTS_PER_REPLY_MAX: usize = 500;
/// Largest file that the server reads into memory: a certificate chain has a few KiB.
pub const SERVER_FILE_LEN_MAX: usize = MIB;
/// Threads for log-in cryptography: two produce as many log-ins as one database can store.
pub const COMPUTE_THREADS_MAX: usize = 2;

// ---- log-in ------------------------------------------------------------------------------------

/// Failed password log-ins in a row that block an account for strangers, which are devices not enrolled at
/// it: a few slips, far too few to guess a password.
pub const STRANGER_FAILURES_MAX: u32 = 5;
/// The same for known devices. Only the holder of an enrolled device key can cause these failures.
pub const KNOWN_DEVICE_FAILURES_MAX: u32 = 20;
/// Failed log-ins from one source, over all accounts, before that source is blocked: more than the people
/// behind one address mistype, far fewer than an attack that tries many accounts needs.
pub const SOURCE_FAILURES_MAX: u32 = 50;
/// A source's count of failures decreases by one per interval, so that people behind one address who
/// mistype once a minute are never blocked.
pub const SOURCE_DECAY_INTERVAL: Duration = Duration::from_secs(60);
/// Duration of the first block, which doubles each time: short for an owner who mistyped.
pub const BLOCK_FIRST: Duration = Duration::from_secs(60);
/// Longest block: an attacker gets few guesses, and an owner does not wait for a day.
pub const BLOCK_MAX: Duration = Duration::from_secs(3600);
/// The doubling starts over after this long without a failure.
pub const BLOCK_RESET_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Largest failure limit that an operator may configure. A higher one would not stop a guesser, and the
/// counters for unknown names have 20 bits.
pub const FAILURE_LIMIT_MAX: u32 = 1000;
/// Cells in each of the four rows of the count-min sketch that counts failures of unknown names. With a
/// million names in it, one in seven of all other names appears to have failed once, one in a million
/// twice, and none often enough to be blocked. At 8 bytes each they take 32 MiB once all are in use.
pub const UNKNOWN_NAME_CELLS: usize = 1 << 20;
/// Unknown names whose failures are kept across a restart: more than anybody can probe before and after
/// one, in at most 25 MB of the database.
pub const UNKNOWN_NAMES_KEPT_MAX: usize = 1 << 18;
/// Rows of unknown names that one sweep deletes once they are a day old: bounds how long it takes.
pub const UNKNOWN_NAMES_PER_SWEEP_MAX: usize = 8 * STORE_BATCH_MAX;
/// Sources counted separately for one account; further ones share a counter.
pub const SOURCES_PER_ACCOUNT_MAX: usize = 64;
/// Sources counted over all accounts: bounds the memory. The one with the fewest failures is evicted.
pub const SOURCES_MAX: usize = 65_536;
/// Lifetime of a device's token: a device that logs in once a month stays enrolled without a password.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// A log-in with a token older than this gets a new one, so that most log-ins write nothing.
pub const TOKEN_RENEW_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Lifetime of a one-time code that lets a new device log in during a block: the time to type it there.
pub const ADMISSION_LIFETIME: Duration = Duration::from_secs(600);
/// Unused one-time codes of one account: people set up one device at a time.
pub const ADMISSIONS_PER_ACCOUNT_MAX: usize = 4;
/// Failed log-ins that use up a one-time code: a slip or two, and far too few to guess a password.
pub const ADMISSION_FAILURES_MAX: u32 = 3;
/// Password log-ins that the server computes or has queued; further ones are refused as busy.
pub const LOGINS_IN_PROGRESS_MAX: usize = 4096;

/// Rows of the server's audit trail: some 10 MB, and years on a small server. The oldest are deleted.
pub const AUDIT_ROWS_MAX: usize = 100_000;
/// Store requests in one transaction. They share one wait for the disk, and this bounds how long the
/// first one waits for the others.
pub const STORE_BATCH_MAX: usize = 1024;
/// Requests in the store's queue: two for each connection, some 30 MB in all. Further ones fail at once.
pub const STORE_REQUESTS_MAX: usize = 2 * CONNECTIONS_MAX;
/// Results of the store and of OPAQUE that the server's event loop has not taken yet: as many as a
/// transaction has.
pub const SERVER_ANSWERS_MAX: usize = STORE_BATCH_MAX;
/// Clients of the server's admin socket: operators and their scripts.
pub const ADMIN_CLIENTS_MAX: usize = 16;
/// Longest line on the admin socket: holds a page of accounts.
pub const ADMIN_LINE_LEN_MAX: usize = 256 * KIB;
/// Unanswered requests of one admin client: they are carried out one after the other.
pub const ADMIN_REQUESTS_PER_CLIENT_MAX: usize = 1;
/// Unanswered requests of all admin clients, including clients that have left: bounds what a script that
/// connects again and again leaves behind.
pub const ADMIN_REQUESTS_MAX: usize = 256;
/// Bytes queued for a slow admin client before it is disconnected. A single reply may exceed it.
pub const ADMIN_SEND_QUEUE_LEN_MAX: usize = 2 * ADMIN_LINE_LEN_MAX;

// ---- links between peers -----------------------------------------------------------------------

/// Largest frame on the message stream: a page of entries, and a byte that says what it is.
pub const LINK_FRAME_LEN_MAX: usize = PAGE_FRAME_LEN_MAX + 1;
/// Longest message, in bytes of UTF-8. Longer text is sent as a file.
pub const MESSAGE_LEN_MAX: usize = 64 * KIB;
/// Largest record of the outbox's journal: a message with its envelope and its recipient.
pub const JOURNAL_FRAME_LEN_MAX: usize = MESSAGE_LEN_MAX + 5 * KIB;
/// Bytes in the outbox's journal: several times what can wait for a history that makes no progress. Beyond
/// it messages are not recorded there.
pub const JOURNAL_LEN_MAX: usize = 64 * MIB;
/// Bytes from which on the outbox's journal is emptied once the history has everything: seldom enough that
/// a message does not pay for it, and read at the next start in no time if the program is killed.
pub const JOURNAL_CLEAR_FROM_LEN: usize = 64 * KIB;
/// Recipients of one `send`: each gets a message of its own, and all are queued in one transaction.
pub const RECIPIENTS_MAX: usize = 64;
/// Messages without a receipt for one recipient, months of writing to somebody who is away; more are
/// refused with an error.
pub const OUTBOX_MESSAGES_MAX: usize = 10_000;
/// Messages in flight to one peer, sent without a receipt yet: bounds what a lost link makes the author
/// send again.
pub const MESSAGES_IN_FLIGHT_MAX: usize = 256;
/// Store writes that no caller awaits and that are retried because the store fails: as many as an outbox
/// holds messages.
pub const RETRIED_WRITES_MAX: usize = OUTBOX_MESSAGES_MAX;
/// Interval at which such writes are retried: soon enough after somebody freed some disk space.
pub const STORE_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Message ids remembered per author to recognise duplicates. A message that arrives again over another
/// link has no receipt yet, so it is among the latest.
pub const RECENT_MESSAGES_MAX: usize = 2 * MESSAGES_IN_FLIGHT_MAX;
/// Messages that one command removes from the outbox: as many as wait for one recipient.
pub const WITHDRAW_MAX: usize = OUTBOX_MESSAGES_MAX;
/// Time for which an offer waits for a server that is coming back: longer than its restart takes.
pub const SERVER_WAIT_MAX: Duration = Duration::from_secs(20);
/// Time for which a stopping node waits for another device to acknowledge anything at all: several round trips
/// around the world, or a probe and its two repetitions on a line that loses a third of them.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time for which it waits for everything that it wrote on its message streams to be acknowledged, by devices that
/// acknowledge something: a line that is full loses the first words of a farewell, and their first repetitions.
pub const FAREWELL_TIMEOUT_MAX: Duration = Duration::from_secs(4);
/// Pinned keys of one account: twice the devices that it may have at a time. Beyond that its oldest is
/// forgotten, so that an account which makes devices without end pushes out none but its own.
pub const PINS_PER_ACCOUNT_MAX: usize = 2 * DEVICES_PER_ACCOUNT_MAX;
/// Pinned keys in all, about 2 MiB of memory. Beyond that the oldest of the account with the most is
/// forgotten: contacts with a device or two stay.
pub const PINS_MAX: usize = 16_384;
/// Links of one peer: more contacts than anybody talks to at a time. At the limit it neither dials nor
/// accepts.
pub const LINKS_MAX: usize = 1024;
/// Devices whose end the server tells one session of: as many as a peer has links, some 100 bytes each.
pub const DEVICES_FOLLOWED_MAX: usize = LINKS_MAX;
/// Links to one device. Two peers that dial each other at the same time have two for a while, and a
/// device that restarts leaves one behind.
pub const LINKS_PER_DEVICE_MAX: usize = 4;
/// Inbound links that are not authorised yet: bounds what anybody without an account can make a peer
/// store.
pub const UNAUTHORISED_LINKS_MAX: usize = 32;
/// From this many of them on, a newcomer has to validate its address first (QUIC Retry, RFC 9000 section
/// 8.1.2), so that forged addresses cannot take all places.
pub const RETRY_FROM: usize = UNAUTHORISED_LINKS_MAX / 2;
/// Time for the handshake of an inbound link: several round trips of a slow path, with losses.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the server to name the account of an inbound link's key: a round trip and a look-up in its
/// database, with retransmissions.
pub const AUTHORISE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where the key is pinned: without an answer by then it is believed to be its old account's, as it is
/// without a server. Two round trips of a satellite's.
pub const OWNER_PATIENCE: Duration = Duration::from_secs(2);
/// Devices that the server has introduced lately: as many as a peer has links, some 100 bytes each.
pub const INTRODUCED_MAX: usize = LINKS_MAX;
/// Receive window of a link that is not authorised: holds its first frames, which are read once it is.
pub const UNAUTHORISED_WINDOW: u32 = 64 * KIB as u32;
/// Receive window of one stream: two leaves with their headers.
pub const STREAM_WINDOW: u32 = 2 * MIB as u32 + 2 * KIB as u32;
/// Receive window of a link: the bandwidth-delay product of 1 Gb/s and 100 ms is 12.5 MB.
pub const LINK_WINDOW: u32 = 16 * MIB as u32;
/// Packets sent on a link since the latest acknowledged one. A window full of 1,200-byte packets is
/// 13,981. Each takes some 150 bytes of memory.
pub const UNACKNOWLEDGED_PACKETS_MAX: u64 = 2 * LINK_WINDOW as u64 / 1024;
/// Received batches of datagrams (GRO) whose memory is shared with QUIC. One byte that is still in use
/// keeps up to 64 KiB allocated, so 4 MiB in all. Beyond that, datagrams are copied.
pub const TRAINS_LENT_MAX: usize = 64;
/// Leaf streams that a sender may have open: enough to hide the round trip between two leaves.
pub const LEAF_STREAMS_MAX: u32 = 16;
/// Bytes sent to unproven endpoints of one device in the first minute, because a device may announce a
/// third party's endpoints: four unanswered dials, and checks.
pub const UNPROVEN_FIRST_MINUTE_LEN_MAX: usize = 20_000;
/// The same in each further minute: the first flight of a dial, and checks; 83 bytes per second.
pub const UNPROVEN_MINUTE_LEN_MAX: usize = 5_000;
/// The same for all devices of one account together, since an account may have 32 of them and keep
/// enrolling new ones. Few people have more than three devices that cannot be reached.
pub const UNPROVEN_ACCOUNT_FIRST_MINUTE_LEN_MAX: usize = 3 * UNPROVEN_FIRST_MINUTE_LEN_MAX;
/// The same for one account in each further minute.
pub const UNPROVEN_ACCOUNT_MINUTE_LEN_MAX: usize = 3 * UNPROVEN_MINUTE_LEN_MAX;
/// Bytes sent to an unproven endpoint by one dial until it is answered: a first flight of two datagrams
/// and its first retransmission. QUIC pads each datagram to [`INITIAL_LEN`].
pub const UNPROVEN_DIAL_LEN_MAX: usize = 4 * INITIAL_LEN;
/// Concurrent dials to unproven endpoints of one device: its IPv4 and its IPv6 address.
pub const UNPROVEN_DIALS_MAX: usize = 2;
/// Smallest datagram of a QUIC client until the handshake is complete (RFC 9000 section 14.1).
pub const INITIAL_LEN: usize = 1200;
/// Length of a check: a Binding request, padded to the length of the longest answer.
pub const CHECK_LEN: usize = 56;
/// Bytes of the budget that dials leave for checks: one round over all candidates.
pub const CHECKS_RESERVE_LEN: usize = CANDIDATES_MAX * CHECK_LEN;
/// Interval between two checks of one device (Ta of RFC 8445 section 14.2).
pub const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// First back-off between two rounds of checks of one device: the RTO of RFC 8489 section 6.2.1.
pub const CHECK_BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest such back-off: the same as that of look-ups, which bring new candidates.
pub const CHECK_BACKOFF_MAX: Duration = FIND_BACKOFF_MAX;
/// Time after its proof for which an endpoint is dialled again without another check: a device rarely
/// moves, and its address is rarely given to another one, within a minute.
pub const PROOF_LIFETIME: Duration = Duration::from_secs(60);
/// Devices whose budget is remembered: four times [`LINKS_MAX`], some 8 MB.
pub const CHECKED_DEVICES_MAX: usize = 4 * LINKS_MAX;
/// A budget may be evicted once nothing was spent from it for this long. The first-minute budget that
/// its device then gets again is less than what the minutes in between would have allowed.
pub const BUDGET_EVICT_AFTER: Duration = Duration::from_secs(600);
/// Checks that a peer answers per second: more than legitimate peers send. The answers have 5,600 bytes at
/// most, and none is longer than its request.
pub const CHECK_ANSWERS_PER_SECOND_MAX: usize = 100;
/// Time for which a session's first announcement waits for the server's STUN answer, so that one
/// announcement has all candidates.
pub const ANNOUNCE_WAIT_MAX: Duration = Duration::from_millis(500);
/// Time for a dial to complete its handshake: long enough for some retransmissions.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(6);
/// First back-off before an account that could not be reached is looked up again: short, because it may
/// come online at any moment.
pub const FIND_BACKOFF_FIRST: Duration = Duration::from_secs(2);
/// Longest such back-off. Presence pushes make most of these look-ups unnecessary.
pub const FIND_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A program does not ask the gateway for a port before its session is this old: most commands have ended by
/// then, and each mapping costs the gateway two requests.
pub const PORT_MAPPING_START_WAIT: Duration = Duration::from_secs(1);
/// Lifetime of a port mapping that is asked for, and the longest that is believed. It is renewed at half of it:
/// a gateway that has lost it is noticed then at the latest, and what a killed program leaves behind ends soon.
pub const PORT_MAPPING_LIFETIME: Duration = Duration::from_secs(20 * 60);
/// Shortest lifetime that is accepted: the least that RFC 6887 section 15 tells servers to give. A shorter one would
/// make this device ask every few seconds.
pub const PORT_MAPPING_LIFETIME_MIN: Duration = Duration::from_secs(2 * 60);
/// First retransmission interval of PCP (IRT of RFC 6887 section 8.1.1). It doubles, and varies by a tenth.
pub const PCP_RETRY_FIRST: Duration = Duration::from_secs(3);
/// PCP requests in a row without an answer: a gateway on this network that loses both has no PCP. The RFC tries
/// for ever, but there are two protocols more to try.
pub const PCP_TRIES_MAX: u32 = 2;
/// First retransmission interval of NAT-PMP (RFC 6886 section 3.1). It doubles.
pub const NAT_PMP_RETRY_FIRST: Duration = Duration::from_millis(250);
/// NAT-PMP requests in a row without an answer: 3.75 s, after those of PCP to the same port. The RFC has nine, in
/// two minutes, for programs that have no third protocol to try.
pub const NAT_PMP_TRIES_MAX: u32 = 4;
/// Pause after all ways to a port mapping have failed; it doubles. A change of the network ends it.
pub const PORT_MAPPING_BACKOFF_FIRST: Duration = Duration::from_secs(60);
/// Longest such pause: most gateways that have no mapping to give never will.
pub const PORT_MAPPING_BACKOFF_MAX: Duration = Duration::from_secs(30 * 60);
/// Pause between two requests for the same mapping, whatever happens on the network: the least that RFC 6887
/// section 11.2.1 permits between renewals.
pub const PORT_MAPPING_RENEWAL_MIN: Duration = Duration::from_secs(4);
/// Time for a gateway to confirm a mapping before people are told that it does not: the first answer may be lost.
pub const PORT_MAPPING_PATIENCE: Duration = Duration::from_secs(4);
/// Time in which all hosts of a network ask a gateway again that has announced its restart (RFC 6887
/// section 14.1.3). Each draws its moment.
pub const PORT_MAPPING_RESTART_SPREAD: Duration = Duration::from_secs(5);
/// Time for a gateway to confirm that a mapping is given back: whoever ends a program waits for it.
pub const PORT_MAPPING_RETURN_WAIT: Duration = Duration::from_millis(300);
/// A program that has a server is not announced on the local network before it has run for this long: most
/// commands have ended by then.
pub const LAN_START_WAIT: Duration = Duration::from_secs(1);
/// Time for which a device keeps its name on a local network: strangers who hear it cannot follow a device for
/// longer by its name, and each new one costs every neighbour a few packets.
pub const LAN_NAME_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// A name that was heard on a local network and not taken back is forgotten after this long: its device has
/// had another one for a while by then.
pub const LAN_HEARD_LIFETIME: Duration = Duration::from_secs(2 * LAN_NAME_LIFETIME.as_secs());
/// Somebody whose names are all gone from the local network is told to have left after this long: a name may be
/// replaced with a loss in between, and whoever takes one back and announces it again and again is told of
/// once in as long.
pub const LAN_LEAVE_WAIT: Duration = Duration::from_secs(5);
/// Names heard on a local network and kept, recognised or not: far more than the devices of an office. Of
/// those that nobody here knows the oldest makes room.
pub const LAN_NAMES_MAX: usize = 256;
/// Names of one device that are kept: the present one, the one before, and as many that somebody else makes
/// who knows its key. The newest count.
pub const LAN_NAMES_PER_DEVICE_MAX: usize = 4;
/// Endpoints of one name that are kept: addresses of both families on a few interfaces.
pub const LAN_ENDPOINTS_MAX: usize = 8;
/// New names that are compared with all pinned keys in each [`LAN_NAMES_INTERVAL`]. With [`PINS_MAX`] keys one
/// takes 3 ms.
pub const LAN_NAMES_PER_INTERVAL_MAX: usize = LAN_NAMES_MAX;
/// See [`LAN_NAMES_PER_INTERVAL_MAX`]: a flood of names costs less than a tenth of a core.
pub const LAN_NAMES_INTERVAL: Duration = Duration::from_secs(10);
/// Retransmission interval of a STUN request to the server: the RTO of RFC 8489 section 6.2.1.
pub const STUN_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// After two round trips of the control connection, and at least this long, without a word over UDP a peer asks
/// the relay over that connection, too: a busy machine takes as long.
pub const RELAY_PATIENCE_MIN: Duration = Duration::from_millis(50);
/// STUN requests in a row without an answer: it is unlikely that a working path loses all. Then the
/// server's UDP port is considered unreachable until [`STUN_INTERVAL`] has passed.
pub const STUN_TRIES_MAX: u32 = 4;
/// Interval between two STUN requests to the server. They keep a NAT's mapping alive, which may expire
/// after 30 s without traffic (RFC 4787 REQ-5 demands 2 minutes).
pub const STUN_INTERVAL: Duration = Duration::from_secs(20);
/// Shortest such interval, where the mapping turns out not to last as long. It is halved each time, and a NAT
/// that lets go sooner keeps no link alive, either, which pings as often.
pub const STUN_INTERVAL_MIN: Duration = LINK_KEEP_ALIVE_INTERVAL;
/// Interval at which an examination repeats a question to the server: most answers are there within it.
pub const NAT_PROBE_INTERVAL: Duration = Duration::from_millis(400);
/// Times that an examination asks one question: it is unlikely that a working path loses all, and a person waits for
/// 1.6 s where silence is the answer.
pub const NAT_PROBE_TRIES_MAX: u32 = 4;
/// Time for which a NAT's filter may let in answers from a port that was sent to. RFC 4787 REQ-5 recommends at least
/// 5 minutes for mappings; few last twice as long.
pub const NAT_FILTER_MEMORY: Duration = Duration::from_secs(10 * 60);
/// Addresses of the server that one examination asks: one of each family.
pub const EXAMINED_SERVERS_MAX: usize = 2;
/// Time for which an examination has the devices of an account linked: a look-up, a dial of 6 s, and some seconds
/// to find a direct path.
pub const SOUGHT_FOR: Duration = Duration::from_secs(15);
/// Idle timeout of a link: two keep-alives in a row may be lost.
pub const LINK_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// A program that nobody has run for this long was stopped, or its device asleep: other devices may have given
/// up its links, since what they heard last may be a keep-alive interval older.
pub const STANDSTILL_MIN: Duration = LINK_IDLE_TIMEOUT.saturating_sub(LINK_KEEP_ALIVE_INTERVAL);
/// Interval between two keep-alives on an idle link: a third of [`LINK_IDLE_TIMEOUT`]. They also keep NAT
/// mappings alive.
pub const LINK_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Time without an acknowledgement of what is in flight after which the device at the other end is dialled
/// anew: it may have restarted or moved, and is to be reached again within 3 s.
pub const LINK_ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// The same in round trips, where that is longer.
pub const LINK_ACK_ROUND_TRIPS: u32 = 5;
/// Paths of a link at a time: the relayed one, direct ones of both address families, and as many again while
/// a device moves and those are not given up yet, with one to spare. Each takes a few connection ids. A path
/// that never reached the other end keeps its place.
pub const LINK_PATHS_MAX: NonZeroU32 = NonZeroU32::new(6).expect("is not zero");
/// Addresses that each end of a link may offer the other for direct paths: all candidates of a device, twice,
/// because those that replace others may arrive before the others are removed.
pub const TRAVERSAL_ADDRESSES_MAX: usize = 2 * CANDIDATES_MAX;
/// Time without an acknowledgement after which a direct path that data is in flight over is given up, if the
/// link has another path: long enough for a few probes. What was in flight is sent again over the other path
/// within 2 s of the last acknowledgement where a round trip takes up to 200 ms.
pub const PATH_ACK_TIMEOUT: Duration = Duration::from_millis(900);
/// The same from when another direct path has opened: an end may have moved. Time for a ping that is lost once.
pub const PATH_DOUBT_TIMEOUT: Duration = Duration::from_millis(300);
/// The same in round trips of the path, where that is longer.
pub const PATH_ACK_ROUND_TRIPS: u32 = 3;
/// Largest UDP payload to receive, and to try in path MTU discovery: loopback and jumbo frames carry
/// more than Ethernet's 1,452 bytes.
pub const UDP_PAYLOAD_LEN_MAX: u16 = 16 * KIB as u16;
/// Size of the UDP socket's send and receive buffers, in bytes each: absorbs bursts while the event loop is
/// busy.
pub const SOCKET_BUFFER_LEN: usize = 2 * MIB;

/// Threads of the server's UDP port unless a number is given. A fifth of the relay's work is done one at a time
/// (the profile is in tests/benches/README.md), so that four do that of two and a half at best.
pub const UDP_THREADS_DEFAULT_MAX: usize = 4;
/// The most that can be given: each has 2 MiB of memory for what comes, and socket buffers of [`SOCKET_BUFFER_LEN`].
pub const UDP_THREADS_MAX: u32 = 64;
/// Answers a second of the server's UDP ports that are longer than their requests, to all addresses: bare
/// STUN requests of clients that are not ours. Whoever forges senders has at most 24 kB/s more sent than
/// was received.
pub const LONGER_ANSWERS_PER_SECOND_MAX: u32 = 1000;
/// Bytes beyond the length of its request with which an answer counts as one of those. One that is longer by
/// more counts as several.
pub const LONGER_ANSWER_EXCESS: usize = 24;
/// The same to one source prefix: a handful of clients that each retransmit.
pub const LONGER_ANSWERS_PER_SOURCE_MAX: u32 = 10;
/// Largest STUN request that is parsed: what fits the smallest IPv4 MTU of 576 bytes (RFC 8489 section 6.1).
/// A Binding request needs far less.
pub const STUN_REQUEST_LEN_MAX: usize = 548;

/// Longest packet that a relay channel carries: with the header, a UDP header and an IPv6 header it fits the
/// 1,500 bytes of Ethernet, PPPoE and a tunnel or two included.
pub const RELAYED_PACKET_LEN_MAX: usize = 1400;
/// Longest train of datagrams for one system call: the length field of IPv4 allows 65,535 bytes.
pub const UDP_TRAIN_LEN_MAX: usize = 65_000;
/// Allocations of one server's relay: one for each device that may be connected, and as many again for those
/// that have just gone and whose links still use theirs. Some 200 bytes each.
pub const RELAY_ALLOCATIONS_MAX: usize = 2 * CONNECTIONS_MAX;
/// Relay channels of one server: some 300 bytes each.
pub const RELAY_CHANNELS_MAX: usize = 65_536;
/// A relay channel that carries nothing for this long is closed: four keep-alives of an idle link in a row
/// are lost then.
pub const RELAY_CHANNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A challenge of the relay can be returned for at least this long, and at most twice as long: several round
/// trips of a slow path.
pub const RELAY_COOKIE_LIFETIME: Duration = Duration::from_secs(10);
/// Trains of datagrams between the relay and the control connections that carry them, each way: a train of
/// each of many devices, and at most 8 MiB. Further ones are lost.
pub const RELAY_TRAINS_WAITING_MAX: usize = 128;
/// Bytes that wait for a control connection, above which it carries no more datagrams of the relay: two trains.
/// What waits longer makes a link slow, and what is lost tells QUIC to send less.
pub const RELAY_BYTES_WAITING_MAX: usize = 2 * UDP_TRAIN_LEN_MAX;
/// Relay channels of one device: far more links than people have at a time.
pub const RELAY_CHANNELS_PER_DEVICE_MAX: usize = 256;
/// Devices that one device may be introduced to at once: all those of two accounts.
pub const INTRODUCTIONS_BURST_MAX: u32 = 2 * DEVICES_PER_ACCOUNT_MAX as u32;
/// The same a second, after that.
pub const INTRODUCTIONS_PER_SECOND_MAX: u32 = 4;
/// Introductions that others may ask for to one device at once: whoever comes online is wanted by all their
/// friends at the same moment.
pub const INTRODUCED_BURST_MAX: u32 = 256;
/// The same a second, after that: each costs a device a push and a handshake.
pub const INTRODUCED_PER_SECOND_MAX: u32 = 16;
/// Whoever asks for an introduction that the other side has asked for so short a time ago gets the same one,
/// and waits for the other's handshake: as long as a dial lasts.
pub const INTRODUCTION_LIFETIME: Duration = DIAL_TIMEOUT;
/// Pairs of devices that were introduced so short a time ago: some 200 bytes each.
pub const RECENT_INTRODUCTIONS_MAX: usize = 65_536;
/// Whoever cancels a file that its recipient may have whole waits so long for word of it: a few round trips of a
/// slow link, and the disk's.
pub const CANCEL_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Devices of which it is remembered where they were reached straight last: more than one person writes to while
/// a server is away.
pub const LAST_ENDPOINTS_MAX: usize = 256;
/// A device is dialled through the relay this long before its own endpoints are dialled, too: a handshake
/// through a slow relay.
pub const RELAY_HEAD_START: Duration = Duration::from_secs(1);
/// The pause before the second of two rounds in which a relayed link looks for a direct path; it doubles each
/// time. A round takes 4.2 s.
pub const TRAVERSAL_BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// The longest such pause: networks change without a word.
pub const TRAVERSAL_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Bytes a second that one account may send through a server's relay channels, unless the operator says
/// otherwise: 100 Mbit/s.
pub const RELAY_BYTES_PER_SECOND_OF_ACCOUNT: u32 = 12_500_000;
/// The same of all accounts together: 1 Gbit/s.
pub const RELAY_BYTES_PER_SECOND: u32 = 125_000_000;
/// The highest rate that an operator can give either of them, in Mbit/s: their bytes a second fit 32 bits.
pub const RELAY_RATE_MAX: u32 = 30_000;
/// Time at its full rate that an account, or all of them, may send at once after a pause: a train of each of
/// a few links.
pub const RELAY_BURST: Duration = Duration::from_millis(100);
/// Time at its rate that what an account has sent too much may wait at the relay before the rest is dropped. QUIC never
/// has less than two packets under way: where a round trip is shorter than those take at the rate, half of all packets
/// would be dropped for ever. At the lowest rate it is eight packets.
pub const RELAY_WAIT_MAX: Duration = Duration::from_millis(100);
/// Packets of an account that wait so: the loss of higher rates is small without a longer line.
pub const RELAY_WAITING_PER_ACCOUNT_MAX: usize = 16;
/// Packets of all accounts that wait so: 6 MB.
pub const RELAY_WAITING_MAX: usize = 4096;

// ---- files -------------------------------------------------------------------------------------

/// Length of a leaf: the unit that is hashed, sent and verified. A power of two, so that it is a subtree
/// of BLAKE3.
pub const LEAF_LEN: usize = MIB;
/// Largest file, 16 TiB: the hashes of its leaves, kept until the end, take 512 MiB.
pub const FILE_LEN_MAX: u64 = 1 << 44;
/// Received offers and transfers of one account: a person answers each.
pub const OFFERS_PER_ACCOUNT_MAX: usize = 16;
/// An offer without an answer is declined after this long: a person may be away for a few minutes.
pub const OFFER_LIFETIME: Duration = Duration::from_secs(600);
/// Transfers of one peer in each direction: an open file each.
pub const TRANSFERS_MAX: usize = 256;
/// Received transfers that have ended and are remembered, so that an offer that comes late is not taken for a new
/// one: as many as can be under way at once.
pub const TRANSFERS_ENDED_MAX: usize = TRANSFERS_MAX;
/// Leaves of one transfer that are being read or that QUIC has not taken yet: 8 MiB.
pub const LEAVES_READING_MAX: usize = 8;
/// Leaves of all transfers that are received but not on disk yet: 16 MiB.
pub const LEAVES_WRITING_MAX: usize = 16;

/// Requests in the disk worker's queue: all leaves in memory, and those that start and end each
/// transfer.
pub const DISK_REQUESTS_MAX: usize = TRANSFERS_MAX * (LEAVES_READING_MAX + LEAVES_WRITING_MAX + 4);
/// Received files with the same name in one folder, and so attempts to find a free name: bounds the time
/// that the disk worker spends on it.
pub const SAME_NAMES_MAX: u32 = 1000;

// ---- sockets -----------------------------------------------------------------------------------

/// Longest path that the address of a Unix socket holds on every system: `sun_path` has 104 bytes on
/// macOS and the BSDs and 108 on Linux, including the terminating zero. Longer paths go through a
/// symbolic link.
pub const SOCKET_PATH_LEN_MAX: usize = 103;

// ---- profile -----------------------------------------------------------------------------------

/// Longest line on the profile's socket: holds a message of [`MESSAGE_LEN_MAX`] with every byte escaped.
pub const PROFILE_LINE_LEN_MAX: usize = 8 * MESSAGE_LEN_MAX;
/// Clients of one profile's socket: a person's windows and scripts.
pub const PROFILE_CLIENTS_MAX: usize = 32;
/// Events queued for one slow client before it is disconnected: minutes of a busy conversation.
pub const PROFILE_EVENTS_MAX: usize = 4096;
/// Unanswered requests of one client: enough to pipeline a script's. Its socket is not read while it has
/// as many.
pub const PROFILE_REQUESTS_PER_CLIENT_MAX: usize = 64;
/// Unanswered requests of all clients, including clients that have left: twice what those that are
/// connected may have.
pub const PROFILE_REQUESTS_MAX: usize = 2 * PROFILE_CLIENTS_MAX * PROFILE_REQUESTS_PER_CLIENT_MAX;
/// Bytes queued for a slow client before it is disconnected: four replies of [`HISTORY_ITEMS_LEN_MAX`]. A
/// single reply may exceed it.
pub const PROFILE_SEND_QUEUE_LEN_MAX: usize = 32 * MIB;
/// Answers of all workers that the event loop has not taken yet. The largest are leaves, so 64 MiB.
pub const WORKER_ANSWERS_MAX: usize = 64;
/// Passwords queued for stretching: one control connection has one log-in at a time.
pub const STRETCHES_MAX: usize = 4;
/// Seals queued for checking and making: one of each link, and what is written in as many conversations at a time. The
/// loop makes a further one itself.
pub const SEALS_MAX: usize = 2 * LINKS_MAX;
/// Host names queued for resolution: there is one control connection, and one look-up may hang.
pub const LOOKUPS_MAX: usize = 1;
/// Addresses of the server's host name that are tried: both families of a few machines.
pub const SERVER_ADDRESSES_MAX: usize = 16;
/// Requests in the history worker's queue: more than [`RETRIED_WRITES_MAX`], which may be retried together.
pub const HISTORY_REQUESTS_MAX: usize = 16_384;
/// History requests in one transaction: bounds how long the first one waits for the last.
pub const HISTORY_BATCH_MAX: usize = 512;
/// Messages that one look-up in the history returns: more than anybody reads through at a time.
pub const HISTORY_ITEMS_MAX: u32 = 10_000;
/// Bytes of text after which a look-up in the history stops, so that the reply fits a client's queue.
pub const HISTORY_ITEMS_LEN_MAX: usize = 8 * MIB;
/// Longest line that a client reads: the directory of a server with 100,000 devices.
pub const REPLY_LINE_LEN_MAX: usize = 64 * MIB;
/// Largest database that is read from end to end each time that it is opened, to see whether it is damaged: a hundredth
/// of a second.
pub const CHECKED_FILE_LEN_MAX: u64 = 4 * MIB as u64;
/// Words of one search, and bytes of them together: more than anybody types.
pub const SEARCH_WORDS_MAX: usize = 32;
/// The same in bytes.
pub const SEARCH_WORDS_LEN_MAX: usize = KIB;
/// The history is idle for so long before its index is brought up.
pub const SEARCH_INDEX_AFTER: Duration = Duration::from_secs(1);
/// Messages that are added to the index at a time while the history is idle: some 10 ms, for which a message may wait.
pub const SEARCH_INDEX_STEP: u32 = 1000;
/// Largest file of a profile that is read into memory: `known_servers` with a thousand lines.
pub const PROFILE_FILE_LEN_MAX: usize = 512 * KIB;
/// Message ids that a client remembers so that it shows no message twice: ten times what one look-up in the
/// history returns.
pub const MESSAGES_SEEN_MAX: usize = 10 * HISTORY_ITEMS_MAX as usize;
/// Messages that a conversation marks as read with one request: a line of 9 KiB on the profile's socket.
pub const MARK_READ_MAX: usize = 256;
/// Read receipts that a peer keeps for authors who are not linked: more than anybody reads in one
/// sitting, some 100 kB.
pub const OWED_RECEIPTS_MAX: usize = 4096;
/// Messages that a program which follows the history holds until they are taken: of [`MESSAGE_LEN_MAX`] each they take
/// 16 MiB. What comes beyond is read from the history later.
pub const FEED_QUEUE_MAX: usize = 256;
/// A program that a message is handed over to is ended after so long, unless the person says otherwise: one that answers
/// takes seconds, also where it waits for the recipient as `peer send` does, and the next message waits as long.
pub const ON_MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time that a person may give it: whoever has more to do puts it into the background.
pub const ON_MESSAGE_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Account names that a conversation completes, and accepts as the recipient in `NAME: text` without asking
/// first: every account of a large server, in a few MiB.
pub const KNOWN_NAMES_MAX: usize = 65_536;

// ---- logs --------------------------------------------------------------------------------------

/// Longest reaction to an entry, in bytes of UTF-8: the longest emoji of Unicode 16, the kiss of two people with skin
/// tones, has 35, and what later versions join to one has room.
pub const REACTION_LEN_MAX: usize = 64;
/// Largest body of an entry, of unknown kinds, too: a text of [`MESSAGE_LEN_MAX`] that refers to another entry, in 56
/// bytes.
pub const ENTRY_BODY_LEN_MAX: usize = MESSAGE_LEN_MAX + 56;
/// The last sequence number of a chain: a million entries a second for nine years. Arithmetic with it never overflows.
pub const SEQUENCE_MAX: u64 = 1 << 48;
/// Entries from one seal of a chain to the next: one signature is checked for all of them, and whoever is given a
/// part of a chain needs at most as many to get to the next seal.
pub const ENTRIES_PER_SEAL_MAX: usize = 64;
/// Bytes of bodies after which an author seals at once: the entry that exceeds it may have as many again.
pub const BODIES_PER_SEAL_LEN_MAX: usize = 64 * KIB;
/// An author seals no more often than this, unless one of the two before is reached: a signature takes some 20 µs,
/// and nobody notices the delay.
pub const SEAL_INTERVAL: Duration = Duration::from_millis(5);
/// Entries of a chain that may be held without a seal: those that the author's next seal covers, and as many that
/// are written while it signs.
pub const UNSEALED_ENTRIES_MAX: usize = 2 * ENTRIES_PER_SEAL_MAX;
/// Entries in one page.
pub const PAGE_ENTRIES_MAX: usize = ENTRIES_PER_SEAL_MAX;
/// Largest frame with entries: the longest run from one seal to the next fits.
pub const PAGE_FRAME_LEN_MAX: usize = 132 * KIB;
/// Bytes of one page's entries, without what stands around them in the frame. From one seal to the next there are
/// at most 63 entries with [`BODIES_PER_SEAL_LEN_MAX`] - 1 bytes, and one of [`ENTRY_BODY_LEN_MAX`]: 133,943 bytes
/// with what each takes besides.
pub const PAGE_LEN_MAX: usize = PAGE_FRAME_LEN_MAX - KIB;
/// Bytes of pages that one link carries before the other side has said what became of them: a second of 8 Mbit/s.
pub const PAGES_IN_FLIGHT_LEN_MAX: usize = MIB;
/// The same while it is filled by what others lack of old. The rest is kept for what people have just written here, so
/// that it need not wait for an answer.
pub const CATCHING_UP_LEN_MAX: usize = PAGES_IN_FLIGHT_LEN_MAX - 2 * PAGE_LEN_MAX;
/// Bytes of pages in flight on all links together: each is in memory until QUIC has sent it.
pub const PAGES_IN_FLIGHT_OF_ALL_LEN_MAX: usize = 64 * MIB;
/// Digests of conversations in one frame: 48 KiB.
pub const DIGESTS_PAGE_MAX: usize = 1024;
/// Chains in one page of what a device has of a conversation: each takes up to 117 bytes.
pub const CHAINS_PAGE_MAX: usize = 512;
/// Chains of which one frame says what is on disk, up to 74 bytes each.
pub const HAVE_CHAINS_MAX: usize = 512;
/// Chains in one frame of how far somebody has read: more than a person reads of within [`MARKS_INTERVAL`].
pub const MARKS_MAX: usize = 512;
/// Accounts in one frame that names whom the sender's account has conversations with: 17 KiB.
pub const KNOWN_ACCOUNTS_MAX: usize = 512;
/// One frame of marks is sent in so long: whoever scrolls through a conversation moves its marks all the time.
pub const MARKS_INTERVAL: Duration = Duration::from_secs(2);
/// Entries of others are given after so long, if the other side still lacks them then: their author gives them, too, and
/// is mostly sooner.
pub const GIVE_AFTER: Duration = Duration::from_millis(500);
/// Conversations that have a number on one link, of each side: as many rooms and people as anybody has, some 100 bytes
/// each.
pub const LINK_CONVERSATIONS_MAX: usize = 16_384;
/// Chains that have a number on one link, of each side: some 400 bytes each with what is known of them. Honest devices
/// name those of conversations that differ, and of these mostly a few dozen.
pub const LINK_CHAINS_MAX: usize = 65_536;
/// Questions of the other side about forks that the store has not answered: as many as it may look for.
pub const STRETCH_READS_MAX: usize = TRACES_PER_LINK_MAX;
/// Seals and proofs of one link that wait for the verifier. More of them are dropped: they come again with entries, or
/// on another link.
pub const LOOSE_CHECKS_MAX: usize = 256;
/// Talks of one link that are asked for or held: a person has one at a time.
pub const SESSIONS_PER_LINK_MAX: usize = 8;
/// Runs of one device in one conversation: one for each unclean end of its program, for years.
pub const RUNS_PER_DEVICE_MAX: usize = 1024;
/// Chains of one conversation: some 200 bytes each.
pub const CHAINS_PER_CONVERSATION_MAX: usize = 4096;
/// An entry that is dated further ahead of this device's own time is placed by its arrival: clocks that people set
/// by hand differ by minutes.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(300);
/// An entry dated before 2020-01-01 00:00:00 UTC, when this project did not exist, is placed by its arrival, too.
pub const CLOCK_EARLIEST_MS: u64 = 1_577_836_800_000;
/// Forks that one link looks for at a time: each takes a question and an answer of 4 KiB.
pub const TRACES_PER_LINK_MAX: usize = 16;
/// Questions about one fork: halving the longest chain leads to it sooner.
pub const TRACE_QUESTIONS_MAX: u32 = 64;
/// Cuts of one chain by one signer that are remembered, the last ones: only one counts, unless it is void itself.
pub const CUTS_PER_SIGNER_MAX: usize = 4;
/// Chains whose cuts are remembered in one conversation, counted for each signer: all chains by four devices.
pub const CUT_CHAINS_MAX: usize = 4 * CHAINS_PER_CONVERSATION_MAX;
/// Conversations that one profile keeps: one with each identity that it knows, and as many others.
pub const CONVERSATIONS_MAX: usize = 2 * IDENTITIES_MAX;
/// A conversation that the store has failed to write or to read is read again after this, and then after twice as long
/// each time: a full disk has room again once somebody has looked.
pub const CONVERSATION_RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest of these waits.
pub const CONVERSATION_RETRY_MAX: Duration = Duration::from_secs(60);
/// The store keeps that a link has carried a message after this, unless the other account has it by then, which says the
/// same: on most networks there is one write less for each message. Whoever is killed in between finds it as unsent.
pub const SENT_KEPT_AFTER: Duration = Duration::from_millis(250);
/// A message that was written so long ago is dated by that; a later one by when it becomes an entry: in between others
/// have been written.
pub const DRAFT_FRESH: Duration = Duration::from_secs(60);
/// Frames about logs that may come on a link before the conversations are read from the store: a greeting, buckets and
/// what follows from them. Who sends more is asked to link again.
pub const EARLY_FRAMES_MAX: usize = 64;
/// Writes of one transaction in one conversation: what a page brings, and what follows from it, are a few.
pub const ENTRY_WRITES_MAX: usize = 256;
/// Messages whose entries are looked up at once: as many as one command takes back.
pub const MESSAGES_FOUND_MAX: usize = WITHDRAW_MAX;
/// Entries whose bodies are dropped in one step: with their messages, and the words of those in the index, some 60 ms.
pub const BODIES_DROPPED_MAX: usize = 1000;
/// Conversations in one answer of the store: some 100 KiB.
pub const CONVERSATIONS_READ_MAX: usize = 1024;
/// Chains in one answer of the store: some 50 KiB, and 4 MiB if all of them end with as many entries without a seal
/// as may be.
pub const CHAINS_READ_MAX: usize = 256;
/// Proofs of forks in one answer of the store: 6 KiB each at most.
pub const FORKS_READ_MAX: usize = 64;
/// Cuts that one answer of the store goes through: some 130 bytes each.
pub const CUTS_READ_MAX: usize = 1024;
/// Entries to be written again in one answer of the store: 4 MiB at most.
pub const LOST_READ_MAX: usize = 64;
/// Headers of a stretch that the store reads: one that is compared, and those to the next seal.
pub const STRETCH_READ_MAX: usize = 2 * ENTRIES_PER_SEAL_MAX;

// ---- accounts ------------------------------------------------------------------------------------

/// Devices that an account may have or have had: a new one every month for ten years. Of more the most senior count.
pub const ACCOUNT_DEVICES_MAX: usize = 4 * DEVICES_PER_ACCOUNT_MAX;
/// Entries of one device in its account's log: it has approved and revoked more devices than its account can have. As
/// many again have room once the device is revoked, for those that its revocation leaves.
pub const ACCOUNT_ENTRIES_PER_DEVICE_MAX: usize = 64;
/// Accounts whose logs a peer remembers, some 2 KB each: as many as an organisation has people. Of a further one
/// nothing is remembered, which is said in the log.
pub const IDENTITIES_MAX: usize = 4096;
/// What was read of a log counts for so long: a link is made within it, and who has just been approved waits no longer.
pub const LOG_FRESH: Duration = Duration::from_secs(5);
/// Logs that were read within [`LOG_FRESH`]: as many as there are links, and as many dials. One more is read again.
pub const LOGS_READ_MAX: usize = 2 * LINKS_MAX;
/// Devices that people are told of because their account has not approved them, 32 bytes each: beyond that nobody reads
/// on.
pub const TOLD_DEVICES_MAX: usize = 64;
/// Entries of an account's log that the server keeps: 16 for each device that the account may have. All of them are
/// verified whenever one is added, which takes less than 0.2 s even in a build without optimisation.
pub const ACCOUNT_ENTRIES_MAX: usize = 16 * DEVICES_PER_ACCOUNT_MAX;
/// Bytes of entries in one answer: with its other fields it fits a frame.
pub const ACCOUNT_PAGE_LEN_MAX: usize = CONTROL_FRAME_LEN_MAX - 8 * KIB;
/// Entries that a device adds to its account's log at once.
pub const ACCOUNT_APPENDS_BURST_MAX: u32 = 16;
/// The same a second, after that: nobody approves faster.
pub const ACCOUNT_APPENDS_PER_SECOND_MAX: u32 = 1;
/// Runs of a device that a revocation names: one for each of the entries that it may have.
pub const REVOCATION_RUNS_MAX: usize = 2 * ACCOUNT_ENTRIES_PER_DEVICE_MAX;
/// Longest statement of an account's log, in bytes: a revocation that names so many runs, in 24 bytes each.
pub const ACCOUNT_STATEMENT_LEN_MAX: usize = 32 + 24 * REVOCATION_RUNS_MAX;
