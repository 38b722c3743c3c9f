//! Port mappings: has the gateway of a home network forward a port of its own to this device.
//!
//! Behind a NAT that maps to another port for each endpoint, nobody can know where a device is. A gateway can be
//! asked for a port instead, by PCP (RFC 6887), by NAT-PMP (RFC 6886) or by UPnP. [`Mapper`] decides what is
//! asked, when and by which of them, and judges the answers; [`pcp`] and [`nat_pmp`] read and write the bytes. All
//! of it does no I/O: the shell owns the sockets, the thread, and UPnP itself, of which only requests and results
//! come here.
//!
//! A gateway is believed little. Its answers count only from its own address, to the request in flight, and an
//! external address that is not one other host's is refused (T22). What is left is a claim that the node
//! compares with what the server sees.
//!
//! Only IPv4 is mapped. A firewall for IPv6 is not asked for a hole.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use common::candidate::is_single_host;
use serde::{Deserialize, Serialize};

// When the gateway has forgotten everything.
mod epoch;
// What is asked, when and how.
mod mapper;
// Messages of NAT-PMP.
pub mod nat_pmp;
// Messages of PCP.
pub mod pcp;

pub use mapper::{Mapper, MapperOutput, UpnpAnswer, UpnpRequest};

/// The UDP port of a gateway that speaks PCP or NAT-PMP (RFC 6887 section 19.1).
pub const SERVER_PORT: u16 = 5351;
/// The UDP port at which clients hear a gateway announce its restart (RFC 6887 section 19.1).
pub const ANNOUNCEMENT_PORT: u16 = 5350;

/// Whether this device's UDP port is mapped at its gateway, as `status` and other commands are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PortMappingState {
    /// The gateway forwards a port.
    Mapped {
        /// What it forwards.
        mapping: PortMapping,
        /// Whether the mapped endpoint is one of this device's candidates. It is not where the server sees another
        /// address of IPv4, as behind a carrier's NAT: then nobody outside reaches it.
        is_announced: bool,
        /// Seconds since the gateway has said so. It may have forgotten the port since, without a word.
        age_s: u64,
        /// What came of asking again.
        check: MappingCheck,
    },
    /// It does not.
    Unmapped {
        /// Why not.
        reason: NoPortMapping,
    },
}

impl PortMappingState {
    /// Tells whether the owner permits a mapping.
    pub const fn is_permitted(&self) -> bool {
        match self {
            Self::Unmapped {
                reason: NoPortMapping::SwitchedOff | NoPortMapping::Hidden,
            } => false,
            Self::Mapped { .. } | Self::Unmapped { .. } => true,
        }
    }
}

impl Default for PortMappingState {
    fn default() -> Self {
        let reason = NoPortMapping::NotYetWanted;
        Self::Unmapped { reason }
    }
}

/// Whether a gateway that was asked again still forwards a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MappingCheck {
    /// It has answered whenever it was asked.
    Answered,
    /// It was asked just now.
    Asked,
    /// It has not answered.
    Silent,
}

/// A port of the gateway that leads to this device's UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// How the gateway was asked.
    pub protocol: MappingProtocol,
    /// The gateway's endpoint outside, as it says itself.
    pub external: SocketAddrV4,
    /// The gateway's address inside.
    pub gateway: Ipv4Addr,
}

/// How a gateway is asked for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MappingProtocol {
    /// The Port Control Protocol, RFC 6887.
    Pcp,
    /// The NAT Port Mapping Protocol, RFC 6886.
    NatPmp,
    /// The Internet Gateway Device of UPnP.
    Upnp,
}

impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// Why no port is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoPortMapping {
    /// The owner does not want any: `--no-port-mapping`.
    SwitchedOff,
    /// This device hides its addresses: `--path relay`.
    Hidden,
    /// The server is on this host, and so are all whom it introduces.
    LocalServer,
    /// The session with the server has only begun, or there has been none.
    NotYetWanted,
    /// No gateway of IPv4 is known on a network of the UDP socket. On systems other than Linux none ever is.
    NoGateway,
    /// The gateway is being asked for the first time.
    Asking,
    /// The gateway answers neither by PCP nor by NAT-PMP nor by UPnP.
    NoAnswer,
    /// The gateway has refused.
    Refused,
    /// The gateway has named an external endpoint that cannot be one.
    Implausible,
}

/// What is to be mapped, and where to ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The gateway's address on the network of `internal`.
    pub gateway: Ipv4Addr,
    /// This device's endpoint on that network.
    pub internal: SocketAddrV4,
}

/// A mapping as a gateway grants it. [`check`](Grant::check) says whether it can be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The endpoint outside.
    pub external: SocketAddrV4,
    /// Seconds until it ends.
    pub lifetime_s: u32,
}

impl Grant {
    /// Returns the grant if others can be sent to it.
    ///
    /// # Errors
    ///
    /// If it has port 0, no time to live, or an address that is not one other host's.
    pub fn check(self) -> Result<Self, AnswerError> {
        let is_endpoint = is_external(*self.external.ip()) && self.external.port() != 0;
        if is_endpoint && self.lifetime_s > 0 {
            Ok(self)
        } else {
            Err(AnswerError::Implausible)
        }
    }
}

/// Tells whether this can be an address that a gateway has outside (T22).
pub fn is_external(ip: Ipv4Addr) -> bool {
    is_single_host(ip.into(), false)
}

/// Why an answer grants nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is no answer to the request: to be ignored, the true one may follow.
    #[error("it does not answer the request")]
    Unrelated,
    /// The gateway does not speak this protocol in this version.
    #[error("the gateway speaks another protocol")]
    OtherVersion,
    /// The gateway cannot do this by this protocol.
    #[error("the gateway cannot do this by this protocol (code {0})")]
    Unsupported(u16),
    /// The gateway does not want to, or has nothing to give.
    #[error("the gateway refuses (code {0})")]
    Refused(u16),
    /// It grants what cannot be.
    #[error("the gateway grants an endpoint that cannot be one")]
    Implausible,
}
