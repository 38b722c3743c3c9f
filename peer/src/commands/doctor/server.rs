//! How the server is reached without the node: its name, TCP, and the key that it shows.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::key::Fingerprint;
use common::text::inline;
use serde::Serialize;

use crate::client::now;
use crate::node::io::ClosedReason;
use crate::shell::ServerAddress;
use crate::shell::workers::resolve;

/// Time to look up the server's name: the system's resolver asks a second server after 5 s.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(6);
/// Time for a TCP connection: a lost SYN is sent again after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a TLS handshake, the connection included.
const KEY_TIMEOUT: Duration = Duration::from_secs(5);

/// A TCP connection that was tried. All texts are fit for a terminal.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tcp {
    pub(super) address: SocketAddr,
    /// Milliseconds until it was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connect_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// The key that the server shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Key {
    /// The one that this profile trusts.
    Trusted { fingerprint: String },
    /// Another one than this profile trusts.
    Changed {
        expected: String,
        fingerprint: String,
    },
    /// This profile trusts none yet.
    NotPinned { fingerprint: String },
    /// The log-in verifies its certificate by this system's roots.
    Public { fingerprint: String },
    /// It showed none.
    Failed { error: String },
    /// There was no TCP connection.
    NotTried,
}

impl Key {
    /// Tells whether a server showed any, trusted or not.
    pub(super) const fn is_shown(&self) -> bool {
        match self {
            Self::Trusted { .. }
            | Self::Changed { .. }
            | Self::NotPinned { .. }
            | Self::Public { .. } => true,
            Self::Failed { .. } | Self::NotTried => false,
        }
    }
}

/// The addresses of the server, one of each family, in the order of the system.
pub(super) fn look_up(server: &ServerAddress) -> Result<Vec<SocketAddr>, String> {
    let (sender, found) = mpsc::channel();
    let ServerAddress { host, port } = server.clone();
    // A look-up cannot be broken off: the thread is left behind.
    thread::spawn(move || {
        // Nobody waits any more.
        let _ = sender.send(resolve(&host, port));
    });
    let found = found.recv_timeout(LOOKUP_TIMEOUT);
    let found = found.map_err(|_| "the system's name service does not answer".to_owned())?;
    let found = found.map_err(|error| inline(&error).into_owned())?;
    let of = |is_v4: bool| found.iter().find(|it| it.is_ipv4() == is_v4);
    let first = found.first().is_some_and(SocketAddr::is_ipv4);
    let both = [of(first), of(!first)].into_iter().flatten();
    Ok(both.copied().collect())
}

/// Tries a TCP connection to each address, side by side.
pub(super) fn connect(addresses: &[SocketAddr]) -> Vec<Tcp> {
    let tries = addresses.iter().copied().map(|address| {
        thread::spawn(move || {
            let began = now();
            let result = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
            let span = now().saturating_duration_since(began);
            let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            Tcp {
                address,
                connect_ms: result.as_ref().ok().map(|_| span),
                error: result
                    .err()
                    .map(|error| inline(&error.to_string()).into_owned()),
            }
        })
    });
    let tries: Vec<_> = tries.collect();
    let ended = tries.into_iter().map(thread::JoinHandle::join);
    ended.filter_map(Result::ok).collect()
}

/// Has the server show its key. `trusted` is the one that the profile trusts, if it trusts one by itself.
pub(super) fn key(server: &ServerAddress, is_pinned: bool, trusted: Option<Fingerprint>) -> Key {
    let shown = match crate::shell::probe(server, KEY_TIMEOUT) {
        Ok(shown) => shown,
        Err(ClosedReason::Failed(reason)) => {
            let error = inline(&reason).into_owned();
            return Key::Failed { error };
        }
        Err(ClosedReason::ServerKeyChanged { .. } | ClosedReason::Ended) => {
            let error = "the server ended the connection".to_owned();
            return Key::Failed { error };
        }
    };
    let fingerprint = shown.to_string();
    match trusted {
        _ if !is_pinned => Key::Public { fingerprint },
        None => Key::NotPinned { fingerprint },
        Some(trusted) if trusted == shown => Key::Trusted { fingerprint },
        Some(trusted) => Key::Changed {
            expected: trusted.to_string(),
            fingerprint,
        },
    }
}
