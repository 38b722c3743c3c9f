//! Kinds of home networks, and which two of them a direct path is possible between.

use std::fmt;

use tests::sim::net::Dependence;

/// How a home reaches the public network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A public IPv4 address and no firewall.
    Open,
    /// A NAT that lets everybody in at a mapped port.
    FullCone,
    /// A NAT that lets addresses in that the host has sent to, from any port.
    AddressRestricted,
    /// A NAT that lets endpoints in that the host has sent to.
    PortRestricted,
    /// A NAT that maps to another port for each endpoint.
    Symmetric,
    /// A port-restricted NAT behind another one, that of a carrier.
    Double,
    /// Only IPv6, without a NAT, behind a firewall that lets endpoints in that the host has sent to.
    Ipv6,
    /// A firewall drops all UDP.
    UdpBlocked,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Double,
        Self::Ipv6,
        Self::UdpBlocked,
    ];

    /// As the table shows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::Double => "double",
            Self::Ipv6 => "ipv6",
            Self::UdpBlocked => "udp-blocked",
        }
    }

    /// What its mappings look at, and its filter (RFC 4787 sections 4.1 and 5); `None` if no UDP gets out.
    pub(crate) const fn behaviour(self) -> Option<(Dependence, Dependence)> {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        match self {
            Self::Open | Self::FullCone => Some((EndpointIndependent, EndpointIndependent)),
            Self::AddressRestricted => Some((EndpointIndependent, AddressDependent)),
            Self::PortRestricted | Self::Double | Self::Ipv6 => {
                Some((EndpointIndependent, AddressAndPortDependent))
            }
            Self::Symmetric => Some((AddressAndPortDependent, AddressAndPortDependent)),
            Self::UdpBlocked => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Two homes that are tried, or one that both are in. The first is where the link is dialled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// Two homes.
    Apart(Kind, Kind),
    /// One LAN behind one port-restricted NAT.
    SameLan,
    /// Two LANs behind one NAT that do not reach each other straight.
    SameNat {
        /// Whether they reach each other at their addresses outside (RFC 4787 section 6).
        hairpins: bool,
    },
}

impl Pair {
    /// All that the lab tries, in each direction.
    pub(crate) fn all() -> Vec<Self> {
        let kinds = || Kind::ALL.into_iter();
        let apart = kinds().flat_map(|a| kinds().map(move |b| Self::Apart(a, b)));
        let together = [true, false].map(|hairpins| Self::SameNat { hairpins });
        apart.chain([Self::SameLan]).chain(together).collect()
    }

    /// Tells whether packets can go between the two without a relay.
    pub(crate) const fn can_be_direct(self) -> bool {
        match self {
            Self::Apart(a, b) => direct_path_possible(a, b),
            Self::SameLan => true,
            Self::SameNat { hairpins } => hairpins,
        }
    }

    /// Tells whether the two reach each other at their addresses inside.
    pub(crate) const fn is_on_one_lan(self) -> bool {
        match self {
            Self::SameLan => true,
            Self::Apart(_, _) | Self::SameNat { hairpins: _ } => false,
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apart(a, b) => f.pad(&format!("{a} to {b}")),
            Self::SameLan => f.pad("same LAN"),
            Self::SameNat { hairpins: true } => f.pad("same NAT, hairpins"),
            Self::SameNat { hairpins: false } => f.pad("same NAT, no hairpins"),
        }
    }
}

/// Tells whether packets can go between two homes without a relay, if both know what a server sees of
/// the other and both send.
///
/// Each must be at an endpoint that the other can know. A home whose mappings depend on the endpoint is
/// not: it can only send first, from a port that is a surprise, and the other has to let that in.
pub(crate) const fn direct_path_possible(a: Kind, b: Kind) -> bool {
    if matches!(a, Kind::Ipv6) != matches!(b, Kind::Ipv6) {
        return false;
    }
    let (Some((mapping_a, filter_a)), Some((mapping_b, filter_b))) = (a.behaviour(), b.behaviour())
    else {
        return false;
    };
    match (is_known(mapping_a), is_known(mapping_b)) {
        (true, true) => true,
        (true, false) => takes_any_port(filter_a),
        (false, true) => takes_any_port(filter_b),
        (false, false) => false,
    }
}

const fn is_known(mapping: Dependence) -> bool {
    match mapping {
        Dependence::EndpointIndependent => true,
        Dependence::AddressDependent | Dependence::AddressAndPortDependent => false,
    }
}

const fn takes_any_port(filter: Dependence) -> bool {
    match filter {
        Dependence::EndpointIndependent | Dependence::AddressDependent => true,
        Dependence::AddressAndPortDependent => false,
    }
}

#[test]
fn a_direct_path_is_possible_except_between_these() {
    use Kind::{Double, Ipv6, PortRestricted, Symmetric, UdpBlocked};
    let is_barred = |a: Kind, b: Kind| {
        let is_odd = |kind| (a == kind) != (b == kind);
        let surprises = a == Symmetric && [PortRestricted, Symmetric, Double].contains(&b);
        surprises || is_odd(Ipv6) || a == UdpBlocked
    };
    for a in Kind::ALL {
        for b in Kind::ALL {
            let expected = !is_barred(a, b) && !is_barred(b, a);
            assert_eq!(direct_path_possible(a, b), expected, "{a} and {b}");
        }
    }
}
