//! Every bound of the project, each with its reason.
//!
//! What exceeds one of these gets a clear error and costs nobody else anything. Sizes are in bytes
//! unless the name says otherwise.

use std::time::Duration;

/// How full something is that has one of these bounds, for whoever watches over an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What it is.
    pub what: &'static str,
    /// How many there are; of several of a kind, in the fullest.
    pub count: usize,
    /// How many there may be.
    pub max: usize,
}

impl Fill {
    /// So many of at most `max`.
    pub const fn new(what: &'static str, count: usize, max: usize) -> Self {
        Self { what, count, max }
    }

    /// The fullest of several of a kind.
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

/// Longest account name, in bytes (ASCII): fits one column of a list.
pub const ACCOUNT_NAME_LEN_MAX: usize = 32;
/// Longest device name, in bytes: a host name (RFC 1035 allows 63 a label) with room for a suffix.
pub const DEVICE_NAME_LEN_MAX: usize = 64;
/// Longest file name, in bytes: what every common file system can hold.
pub const FILE_NAME_LEN_MAX: usize = 255;
/// Longest name of a program in a greeting.
pub const AGENT_LEN_MAX: usize = 64;
/// Longest password, in bytes: a long passphrase; bounds what is hashed.
pub const PASSWORD_LEN_MAX: usize = KIB;
/// Shortest password, in bytes. NIST SP 800-63B asks for 8 at least.
pub const PASSWORD_LEN_MIN: usize = 8;
/// Longest reason that a person gives, for example for declining a file.
pub const REASON_LEN_MAX: usize = 256;

// ---- control connection ------------------------------------------------------------------------

/// Largest control frame, without its length prefix: a page of LIST is the largest message.
pub const CONTROL_FRAME_LEN_MAX: usize = 64 * KIB;
/// Most protocol versions that a greeting may list.
pub const VERSIONS_MAX: usize = 16;
/// Largest OPAQUE message; the largest of the suite, KE2, has 320 bytes.
pub const OPAQUE_MESSAGE_LEN_MAX: usize = 512;
/// Most candidates of one device: each of a laptop's interfaces in both families, and a few more.
pub const CANDIDATES_MAX: usize = 16;
/// Most entries of one page of LIST: with `CANDIDATES_MAX` candidates of up to 21 bytes each they take
/// some 32 KiB and still fit a frame.
pub const PAGE_ENTRIES_MAX: usize = 64;
/// Most changes in one presence push, for the same reason.
pub const CHANGES_MAX: usize = 64;
/// Entries of the directory that a peer gathers for one LIST.
pub const LIST_ENTRIES_MAX: usize = 200_000;
/// Presence changes that the server remembers to bring a watcher up to date; an older watcher
/// lists again. 4,096 changes are some 100 KiB.
pub const PRESENCE_LOG_MAX: usize = 4096;
/// Between two changes of what a device announces: each is told to everybody who watches. What comes
/// sooner waits, the newest of it. People notice no difference, and 64 devices that never rest make 13
/// changes a second.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(5);
/// Announcements of a device that need not wait after it was silent for a while: each command of a peer
/// that nobody else runs logs in and announces itself, and people type a few one after the other.
pub const ANNOUNCEMENTS_AT_ONCE: u32 = 4;
/// Devices whose last announcements are remembered: all that are connected, and those that left within
/// the time that it takes to announce something again. The one that has rested the longest makes room.
pub const ANNOUNCERS_MAX: usize = 65_536;
/// Presence changes that one watcher gets in a second, in the long run: a full push, which has 30 KB at
/// most. 10,000 peers that come or leave every 10 minutes make a fourth of that.
pub const WATCH_CHANGES_PER_S: u32 = CHANGES_MAX as u32;
/// Presence changes that one watcher gets at once. The largest of them together are half of what may
/// wait for a slow client; a watcher of whom there is more to tell lists again.
pub const WATCH_CHANGES_AT_ONCE: u32 = 1024;
/// First pause of a peer before it watches again when the server ended its watch. The longest one
/// doubles each time, and it takes a random one up to that: those who were ended together come back
/// spread out.
pub const WATCH_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause; a watch that lasted for longer counts as a good one.
pub const WATCH_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Requests that a peer may have open at once on its control connection.
pub const REQUESTS_OPEN_MAX: usize = 32;
/// Requests of a peer that wait until others are answered, or until it is logged in.
pub const REQUESTS_WAITING_MAX: usize = 4096;
/// Bytes that wait for a slow client before the server closes its connection: 16 of the largest
/// frames.
pub const OUTBOX_LEN_MAX: usize = 16 * CONTROL_FRAME_LEN_MAX;
/// Devices of one account. An older one makes room when its owner removes it.
pub const DEVICES_PER_ACCOUNT_MAX: usize = 32;
/// Connections that the server holds at once, log-ins in progress included.
pub const CONNECTIONS_MAX: usize = 50_000;
/// Connections from one source (/32 IPv4, /64 IPv6) that have not logged in yet.
pub const UNAUTHENTICATED_PER_SOURCE_MAX: usize = 256;
/// Connections in all that have not logged in yet; one of the fullest source makes room. 16 sources at
/// their limit, and a log-in takes a second or two: a crowd that comes back after a restart is let in in
/// turns.
pub const UNAUTHENTICATED_MAX: usize = 4096;
/// Of these, connections that proved an enrolled device and do not make room for others: half, so that
/// somebody with very many devices leaves room for whoever has none yet.
pub const PROVEN_STRANGERS_MAX: usize = UNAUTHENTICATED_MAX / 2;
/// Accounts that one open registration source may create in an hour.
pub const REGISTRATIONS_PER_SOURCE_HOUR_MAX: u32 = 100;

/// A connection that has not logged in by then is closed, slow-loris or not.
pub const LOGIN_DEADLINE: Duration = Duration::from_secs(30);
/// A peer sends a keep-alive when it has sent nothing for this long.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(8);
/// The server ends a session from which nothing came for this long, so a peer that vanished has
/// left the directory within 30 s.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(25);

/// First pause before a peer tries to reach its server again; doubles, and varies by half.
pub const RECONNECT_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause, before it varies.
pub const RECONNECT_MAX: Duration = Duration::from_secs(60);

/// Accounts in one reply to an operator: a line of 64 KiB holds them.
pub const ACCOUNTS_PER_REPLY_MAX: usize = 500;
/// Largest file of a server that is read into memory: a certificate chain has some KiB.
pub const SERVER_FILE_LEN_MAX: usize = MIB;
/// More threads than this compute more log-ins than one database can keep up with.
pub const COMPUTE_THREADS_MAX: usize = 2;

// ---- log-in ------------------------------------------------------------------------------------

/// Failed password log-ins in a row after which an account is blocked for strangers.
pub const STRANGER_FAILURES_MAX: u32 = 5;
/// The same for the lane of a known device: its key is proved first, so only its holder gets here.
pub const KNOWN_DEVICE_FAILURES_MAX: u32 = 20;
/// Failed log-ins from one source over all accounts before that source has to wait: more than a
/// household or an office behind one address mistypes in the window, far fewer than a list of names.
pub const SOURCE_FAILURES_MAX: u32 = 50;
/// A source's failures fade at one in this time.
pub const SOURCE_FADE: Duration = Duration::from_secs(60);
/// First block; each further one lasts twice as long.
pub const BLOCK_FIRST: Duration = Duration::from_secs(60);
/// Longest block.
pub const BLOCK_MAX: Duration = Duration::from_secs(3600);
/// Without a failure for this long the doubling starts anew.
pub const BLOCK_MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Largest such number that an operator may choose: beyond it there is no lock-out to speak of, and the
/// counters of names without an account have 20 bits.
pub const FAILURES_MAX_MAX: u32 = 1000;
/// Cells in each of the four rows of the sketch that counts failures of names without an account: with a
/// million names in it, one in seven of the others seems to have failed once already, one in a million
/// twice, and none so often that it is blocked. 8 bytes each: 32 MiB when all are touched.
pub const UNKNOWN_NAME_CELLS: usize = 1 << 20;
/// Names without an account whose failures outlast a restart: more than anybody can compare before and
/// after one, and 25 MB of the database at most.
pub const UNKNOWN_NAMES_KEPT: usize = 1 << 18;
/// Rows of such names that one look drops when they are a day old.
pub const UNKNOWN_NAMES_SWEPT: usize = 8 * STORE_BATCH_MAX;
/// Sources whose failures are counted for one account; further ones share a counter.
pub const SOURCES_PER_ACCOUNT_MAX: usize = 64;
/// Sources whose breadth is counted at once; the one with the fewest failures makes room.
pub const SOURCES_MAX: usize = 65_536;
/// Life of a device's token.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// A token is renewed at a log-in when it is older than this.
pub const TOKEN_RENEW_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Life of a one-time code that admits a new device during a block.
pub const ADMISSION_LIFETIME: Duration = Duration::from_secs(600);
/// One-time codes open at once for one account.
pub const ADMISSIONS_PER_ACCOUNT_MAX: usize = 4;
/// Log-ins with one one-time code that may fail: a slip or two, and far too few to guess a password.
pub const ADMISSION_FAILURES_MAX: u32 = 3;
/// Password log-ins that the server computes or waits for at once; more are told to come back.
pub const LOGINS_IN_PROGRESS_MAX: usize = 4096;

/// Rows of the server's audit trail, the newest: years of a small server, some 10 MB.
pub const AUDIT_ROWS_MAX: usize = 100_000;
/// Requests that the store executes as one transaction: one wait for the disk for all of them, and
/// none waits for more than these.
pub const STORE_BATCH_MAX: usize = 1024;
/// Requests that wait for the store: two of each connection, 30 MB. Further ones fail at once.
pub const STORE_REQUESTS_MAX: usize = 2 * CONNECTIONS_MAX;
/// Results of the store and of OPAQUE that wait for the server's loop: a transaction's.
pub const SERVER_ANSWERS_MAX: usize = STORE_BATCH_MAX;
/// Clients of the server's admin socket at once.
pub const ADMIN_CLIENTS_MAX: usize = 16;
/// Longest line on the admin socket: a page of accounts.
pub const ADMIN_LINE_LEN_MAX: usize = 256 * KIB;
/// Requests of one operator that have no reply yet: they are carried out one after the other.
pub const ADMIN_REQUESTS_PER_CLIENT_MAX: usize = 1;
/// Requests without a reply of all operators, those that left included.
pub const ADMIN_REQUESTS_MAX: usize = 256;
/// Bytes that wait for a slow operator before it is dropped. One reply may exceed it.
pub const ADMIN_OUTBOX_LEN_MAX: usize = 2 * ADMIN_LINE_LEN_MAX;

// ---- links between peers -----------------------------------------------------------------------

/// Largest frame on the message stream: one message with its envelope.
pub const LINK_FRAME_LEN_MAX: usize = MESSAGE_LEN_MAX + 4 * KIB;
/// Longest message, in bytes of UTF-8.
pub const MESSAGE_LEN_MAX: usize = 64 * KIB;
/// Recipients of one `send`.
pub const RECIPIENTS_MAX: usize = 64;
/// Messages that wait for one recipient; more are refused with a word.
pub const OUTBOX_MESSAGES_MAX: usize = 10_000;
/// Messages on the wire to one peer that have no receipt yet.
pub const MESSAGES_IN_FLIGHT_MAX: usize = 256;
/// Requests to a failing store that nobody waits for; as many as an outbox has messages.
pub const LATE_STORES_MAX: usize = OUTBOX_MESSAGES_MAX;
/// They are asked again this often.
pub const STORE_RETRY: Duration = Duration::from_secs(5);
/// Messages of one author whose ids are remembered: what may come again over another link has no
/// receipt yet, so it is among the latest.
pub const RECENT_MESSAGES_MAX: usize = 2 * MESSAGES_IN_FLIGHT_MAX;
/// Without a receipt for this long the recipient is looked for again: it may have restarted elsewhere
/// or moved, and is to be talked to again within 3 s.
pub const RECEIPT_PATIENCE: Duration = Duration::from_secs(2);
/// Messages that one command takes out of the outbox: as many as wait for one recipient.
pub const WITHDRAW_MAX: usize = OUTBOX_MESSAGES_MAX;
/// How long an offer waits for a server that is coming back: longer than its restart takes.
pub const SERVER_PATIENCE: Duration = Duration::from_secs(20);
/// How long a node that stops waits until everything that it wrote on its message streams is
/// acknowledged: several round trips around the world.
pub const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// Pinned keys of one account: twice the devices that it may have at a time. Beyond that its oldest is
/// forgotten, so that an account which makes devices without end pushes out none but its own.
pub const PINS_PER_ACCOUNT_MAX: usize = 2 * DEVICES_PER_ACCOUNT_MAX;
/// Pinned keys in all, about 2 MiB of memory. Beyond that the oldest of the account with the most is
/// forgotten: contacts with a device or two stay.
pub const PINS_MAX: usize = 16_384;
/// Links of one peer at once.
pub const LINKS_MAX: usize = 1024;
/// Links of one device at once: two peers that dial each other at the same time have two for a while,
/// and one that restarts leaves one behind.
pub const LINKS_PER_DEVICE_MAX: usize = 4;
/// Inbound links whose key is not authorised yet.
pub const UNAUTHORISED_LINKS_MAX: usize = 32;
/// Above this many of them a newcomer proves its address first (QUIC Retry, RFC 9000 section 8.1.2).
pub const RETRY_ABOVE: usize = 16;
/// Time for the handshake of an inbound link.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Time for the rendezvous to name the owner of an inbound link's key.
pub const AUTHORISE_DEADLINE: Duration = Duration::from_secs(5);
/// What an unauthorised link may send.
pub const UNAUTHORISED_WINDOW: u32 = 64 * KIB as u32;
/// Receive window of one stream: a leaf and its header, twice.
pub const STREAM_WINDOW: u32 = 2 * MIB as u32 + 2 * KIB as u32;
/// Receive window of a link: at 1 Gb/s and 100 ms it takes 12.5 MB to fill the path.
pub const LINK_WINDOW: u32 = 16 * MIB as u32;
/// Packets of ours that a link may leave without any acknowledgement: a window full of those with
/// 1,200 bytes is 13,981. Each is remembered and takes some 150 bytes.
pub const UNACKNOWLEDGED_PACKETS_MAX: u64 = 2 * LINK_WINDOW as u64 / 1024;
/// Trains of datagrams (GRO) that may be held while their datagrams share their memory: a byte that is
/// kept of one keeps up to 64 KiB, so 4 MiB in all. Beyond that datagrams are copied.
pub const TRAINS_LENT_MAX: usize = 64;
/// Streams with leaves that a sender may have open at once.
pub const LEAF_STREAMS_MAX: u32 = 16;
/// What a peer sends in the first minute to endpoints of one device that did not prove to be the
/// device's: somebody may have announced another's. Four dials that nobody answers, checks besides.
pub const UNPROVEN_FIRST_MINUTE_LEN_MAX: usize = 20_000;
/// The same in each further minute: the first flight of a dial, and checks. 83 bytes a second.
pub const UNPROVEN_MINUTE_LEN_MAX: usize = 5_000;
/// The same for all devices of one account together: an account may have 32 of them, and new ones
/// again and again. Few people carry more than three devices that cannot be reached.
pub const UNPROVEN_ACCOUNT_FIRST_MINUTE_LEN_MAX: usize = 3 * UNPROVEN_FIRST_MINUTE_LEN_MAX;
/// The same in each further minute.
pub const UNPROVEN_ACCOUNT_MINUTE_LEN_MAX: usize = 3 * UNPROVEN_MINUTE_LEN_MAX;
/// What one dial to such an endpoint may send until it is answered. QUIC pads each datagram to 1,200
/// bytes; a first flight has two of them, and this is that flight and its first repetition.
pub const UNPROVEN_DIAL_LEN_MAX: usize = 4 * INITIAL_LEN;
/// Such dials of one device at once: its IPv4 and its IPv6 address, say.
pub const UNPROVEN_DIALS_MAX: usize = 2;
/// Length of a QUIC client's datagrams until the handshake is complete, at least (RFC 9000 section
/// 14.1).
pub const INITIAL_LEN: usize = 1200;
/// Length of a check: a STUN request with room for its answer.
pub const CHECK_LEN: usize = 56;
/// Dials leave so much of the budget behind: one round of checks of all candidates.
pub const CHECKS_RESERVE_LEN: usize = CANDIDATES_MAX * CHECK_LEN;
/// Checks of one device are this far apart (Ta of RFC 8445 section 14.2).
pub const CHECK_PACE: Duration = Duration::from_millis(50);
/// First pause between two rounds of checks of one device: the RTO of RFC 8489 section 6.2.1; doubles.
pub const CHECK_PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest such pause, as long as that between two searches.
pub const CHECK_PAUSE_MAX: Duration = FIND_MAX;
/// An endpoint that has answered is dialled again without a check for this long.
pub const PROOF_LIFETIME: Duration = Duration::from_secs(60);
/// Devices whose budget is remembered: four times the links that there can be, some 8 MB.
pub const CHECKED_DEVICES_MAX: usize = 4 * LINKS_MAX;
/// A budget may make room for another device's when nothing was taken from it for this long. A first
/// minute so far apart from the last byte is less than what the minutes between would have allowed.
pub const BUDGET_MEMORY: Duration = Duration::from_secs(600);
/// Checks of others that a peer answers in a second: more than peers dial it in earnest. 5,600 bytes
/// at most, each answer for at least as many.
pub const CHECK_ANSWERS_PER_SECOND_MAX: usize = 100;
/// A first announcement waits so long for the server's STUN answer, so that it says everything.
pub const ANNOUNCE_PATIENCE: Duration = Duration::from_millis(500);
/// A dial to a peer gives up after this long without an answer.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(6);
/// First pause before an account that could not be reached is looked for again; doubles.
pub const FIND_FIRST: Duration = Duration::from_secs(2);
/// Longest such pause. Presence pushes make most of these searches needless.
pub const FIND_MAX: Duration = Duration::from_secs(60);
/// A STUN request to the server is repeated this often until it is answered.
pub const STUN_RETRY: Duration = Duration::from_millis(500);
/// So many times, then the server's UDP port counts as closed for a while.
pub const STUN_TRIES_MAX: u32 = 4;
/// Then, and after an answer, the address is asked for again after this long; it keeps a NAT's
/// mapping alive, which may end after 30 s without traffic (RFC 4787 REQ-5 asks for 2 minutes).
pub const STUN_INTERVAL: Duration = Duration::from_secs(20);
/// A link is dropped after this long without a packet.
pub const LINK_IDLE_MAX: Duration = Duration::from_secs(15);
/// Keep-alive of a link.
pub const LINK_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Largest UDP payload that is received, and that path MTU discovery tries: loopback and jumbo frames
/// carry more than Ethernet's 1,452.
pub const UDP_PAYLOAD_MAX: u16 = 16 * KIB as u16;
/// Send and receive buffer of the UDP socket.
pub const SOCKET_BUFFER: usize = 2 * MIB;

/// Largest datagram that is looked at; a Binding request needs far less.
pub const STUN_REQUEST_LEN_MAX: usize = 548;

// ---- files -------------------------------------------------------------------------------------

/// Size of a leaf: the unit that is hashed, sent, verified and resumed.
pub const LEAF_LEN: usize = MIB;
/// Largest file: 16 TiB. The hashes of its leaves, kept until the end, take 512 MiB.
pub const FILE_LEN_MAX: u64 = 1 << 44;
/// Offers open at once from one peer.
pub const OFFERS_PER_PEER_MAX: usize = 16;
/// An offer that nobody answers is declined after this long.
pub const OFFER_LIFETIME: Duration = Duration::from_secs(600);
/// Transfers at once.
pub const TRANSFERS_MAX: usize = 256;
/// Leaves of one transfer between disk and wire on the sending side.
pub const LEAVES_READING_MAX: usize = 8;
/// Leaves that are received but not yet on disk.
pub const LEAVES_WRITING_MAX: usize = 16;

/// Requests that wait for the thread: all leaves that the node has in the air, and what begins and
/// ends each transfer.
pub const DISK_REQUESTS_MAX: usize = TRANSFERS_MAX * (LEAVES_READING_MAX + LEAVES_WRITING_MAX + 4);
/// Files of one name in one folder, and attempts to find a free one.
pub const SAME_NAMES_MAX: u32 = 1000;

// ---- sockets -----------------------------------------------------------------------------------

/// Longest path in the address of a Unix socket on every system: `sun_path` has 104 bytes on macOS and
/// the BSDs, 108 on Linux, with a zero at the end. Longer paths are taken through a link.
pub const SOCKET_PATH_LEN_MAX: usize = 103;

// ---- profile -----------------------------------------------------------------------------------

/// Longest line on the profile's socket: a message of [`MESSAGE_LEN_MAX`], escaped.
pub const CONTROL_LINE_LEN_MAX: usize = 8 * MESSAGE_LEN_MAX;
/// Clients of one profile's socket at once.
pub const CONTROL_CLIENTS_MAX: usize = 32;
/// Events that wait for one slow client before it is dropped.
pub const CONTROL_EVENTS_MAX: usize = 4096;
/// Requests of one client that have no reply yet; it is not read from until one has.
pub const CONTROL_REQUESTS_PER_CLIENT_MAX: usize = 64;
/// Requests without a reply of all clients, those that left included.
pub const CONTROL_REQUESTS_MAX: usize = 4096;
/// Bytes that wait for a slow client before it is dropped. One reply may exceed it.
pub const CONTROL_OUTBOX_LEN_MAX: usize = 32 * MIB;
/// Answers that wait for the loop, of all workers together. A leaf is the largest: 64 of them are
/// 64 MiB.
pub const WORKER_ANSWERS_MAX: usize = 64;
/// Passwords that wait to be stretched: one control connection has one log-in at a time.
pub const STRETCHES_MAX: usize = 4;
/// Names that wait to be looked up: there is one control connection, and one look-up may hang.
pub const LOOKUPS_MAX: usize = 1;
/// Addresses of one name that are tried.
pub const SERVER_ADDRESSES_MAX: usize = 16;
/// Requests that wait for the thread.
pub const HISTORY_REQUESTS_MAX: usize = 16_384;
/// Requests of one transaction: bounds how long the first one waits for the last.
pub const HISTORY_BATCH_MAX: usize = 512;
/// Most messages of one look-up.
pub const HISTORY_ITEMS_MAX: u32 = 10_000;
/// Bytes of text after which a look-up ends early, so that an answer fits a client's queue.
pub const HISTORY_ITEMS_LEN_MAX: usize = 8 * MIB;
/// Longest line that is read: the directory of a server with 100,000 devices.
pub const REPLY_LINE_LEN_MAX: usize = 64 * MIB;
/// Largest file of a profile that is read here: `known_servers` with a thousand lines.
pub const PROFILE_FILE_LEN_MAX: usize = 512 * KIB;
/// Message ids that are remembered so that none is shown twice.
pub const MESSAGES_SEEN_MAX: usize = 100_000;
/// Messages that a conversation marks as read with one request: a line of 9 KiB on the profile's
/// socket, and one transaction for what a person has looked at.
pub const MARK_READ_MAX: usize = 256;
/// Account names that a conversation completes and takes for a recipient in `NAME: text` without
/// asking: everybody of a large server, in a few MiB. Of others it asks, as of somebody who was never
/// seen.
pub const PEOPLE_MET_MAX: usize = 65_536;
