//! What a node found out about its way to the server over UDP, and about NATs in between: `peer doctor`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::port_mapping::PortMappingState;

/// How far an examination has got, or what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExaminationView {
    /// Nothing more is asked, and nothing was if no examination was started.
    pub is_done: bool,
    /// One for each address of the server that is asked, at most one of each family.
    pub families: Vec<FamilyView>,
    /// The addresses of this host with the port of the node's UDP socket, announced or not.
    pub local: Vec<SocketAddr>,
    /// Milliseconds since the log-in of the session that lasts.
    pub online_ms: Option<u64>,
    /// Whether the server relays for this device; `None` without a session, and where the path rule forbids it.
    pub has_relay: Option<bool>,
    /// The port of the UDP socket was chosen by a person: it may be forwarded in the router, and is announced as such.
    pub is_port_chosen: bool,
    /// What came of asking the router for a port.
    pub port_mapping: PortMappingState,
    /// Why a device of the account that is to be linked could not be reached the last time, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_failure: Option<String>,
}

/// The way to one address of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyView {
    /// The address that is asked.
    pub server: SocketAddr,
    /// Whether it answers over UDP.
    pub udp: UdpState,
    /// Where the server sees this device.
    pub reflexive: Option<SocketAddr>,
    /// That is none of this host's addresses.
    pub is_behind_nat: Option<bool>,
    /// The NAT has given that address the port that the packets have inside.
    pub keeps_port: Option<bool>,
    /// Whether the server has a second port, and that answers. Without it the next two are not known.
    pub second_port: Option<UdpState>,
    /// What the NAT's mappings look at (RFC 5780 section 4.3).
    pub mapping: Option<Dependence>,
    /// What the NAT's filter looks at (RFC 5780 section 4.4), or a firewall's where there is no NAT.
    pub filtering: Option<Dependence>,
    /// Seconds since the filter was looked at, if that was in an earlier examination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filtering_age_s: Option<u64>,
}

/// Whether a UDP port answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UdpState {
    /// It was asked, and may answer yet.
    Asked,
    /// It has answered.
    Answers,
    /// It has left all requests without an answer.
    Silent,
}

/// What a NAT looks at, as far as one address of a server can show. Whether it looks at addresses is not known in
/// either case, and does not matter to two devices that both send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependence {
    /// All ports of an address are the same to it: endpoint-independent or address-dependent (RFC 4787).
    PortIndependent,
    /// Each port is another one to it: address and port-dependent.
    PortDependent,
}
