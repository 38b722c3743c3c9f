//! The addresses of this host and its default gateway, and when they change.
//!
//! Linux tells of changes over a netlink socket (rtnetlink(7)); elsewhere, and to be safe, they are looked at
//! every few seconds.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use super::gateway::default_gateway;
use super::udp::Udp;
use crate::node::io::LocalAddress;

/// How often the addresses are looked at without a word of the system.
const INTERVAL: Duration = Duration::from_secs(5);
/// A change comes in several parts, and is looked at once they are all there.
const SETTLE: Duration = Duration::from_millis(20);

/// Watches the addresses of this host.
#[derive(Debug)]
pub(super) struct NetworkWatch {
    changes: Option<changes::Changes>,
    addresses: Vec<LocalAddress>,
    gateway: Option<Ipv4Addr>,
    due: Instant,
}

impl NetworkWatch {
    /// Knows no address yet.
    pub(super) fn new(registry: &Registry, token: Token, now: Instant) -> Self {
        let changes = changes::Changes::open(registry, token);
        if let Err(error) = &changes {
            log::debug!("changes of the network are noticed late: {error}");
        }
        Self {
            changes: changes.ok(),
            addresses: Vec::new(),
            gateway: None,
            due: now,
        }
    }

    /// The system has something to tell.
    pub(super) fn note_change(&mut self, now: Instant) {
        if let Some(changes) = &mut self.changes {
            changes.take();
            self.due = self.due.min(now + SETTLE);
        }
    }

    /// Tells whether the network is due to be looked at.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// The addresses that were found last.
    pub(super) fn addresses(&self) -> &[LocalAddress] {
        &self.addresses
    }

    /// The default gateway that was found last.
    pub(super) const fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway
    }

    /// The addresses, if they are due to be looked at and have changed.
    pub(super) fn take_changed(&mut self, udp: &Udp, now: Instant) -> Option<Vec<LocalAddress>> {
        if !self.is_due(now) {
            return None;
        }
        self.due = now + INTERVAL;
        self.gateway = default_gateway();
        match udp.local_addresses() {
            Ok(addresses) if addresses != self.addresses => {
                log::debug!("local addresses change count={}", addresses.len());
                self.addresses.clone_from(&addresses);
                Some(addresses)
            }
            Ok(_) => None,
            Err(error) => {
                log::warn!("the addresses of this host cannot be read: {error}");
                None
            }
        }
    }

    /// When [`NetworkWatch::take_changed`] is due.
    pub(super) const fn deadline(&self) -> Instant {
        self.due
    }
}

#[cfg(target_os = "linux")]
mod changes {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};

    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use rustix::io::Errno;
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

    /// Interfaces, addresses of both families, and routes of IPv4 (`RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`,
    /// `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV4_ROUTE` of `linux/rtnetlink.h`).
    const GROUPS: u32 = 0x1 | 0x10 | 0x100 | 0x40;

    /// The messages of the kernel, of which only that they came is looked at.
    #[derive(Debug)]
    pub(super) struct Changes(OwnedFd);

    impl Changes {
        pub(super) fn open(registry: &Registry, token: Token) -> io::Result<Self> {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
            // Without a protocol it is `NETLINK_ROUTE`, which is 0.
            let socket = socket_with(family, kind, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
            registry.register(
                &mut SourceFd(&socket.as_raw_fd()),
                token,
                Interest::READABLE,
            )?;
            Ok(Self(socket))
        }

        /// Takes all that came. Where too much did, the kernel has dropped some, which says as much.
        pub(super) fn take(&mut self) {
            let mut message = [0; 4096];
            loop {
                match recv(&self.0, &mut message, RecvFlags::empty()) {
                    Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod changes {
    use std::io;

    use mio::{Registry, Token};

    /// There is none.
    #[derive(Debug)]
    pub(super) struct Changes;

    impl Changes {
        pub(super) fn open(_: &Registry, _: Token) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn take(&mut self) {}
    }
}
