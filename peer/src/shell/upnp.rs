//! Port mappings by the Internet Gateway Device of UPnP. All of it waits for the gateway, so it is called on a thread
//! of its own.
//!
//! UPnP looks for gateways by multicast, and whoever answers names a URL that is then fetched. So that nobody but the
//! gateway names one, the search (SSDP) is done here, and only an answer from the gateway's own address counts. The
//! crate gets that answer over the loopback interface, where nobody else can send it another one; it fetches a
//! description only from the gateway, takes no control URL at another address, follows no redirect, and reads at most
//! 1 MiB of what it gets and no deeper than 64 elements.
//!
//! Where the environment names a proxy for HTTP, the crate would have that ask its own network: then no gateway is
//! asked by UPnP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::Duration;

use common::os::clock::now;
use igd_next::{
    AddPortError, Gateway, GatewayIpVersion, GetExternalIpError, PortMappingProtocol, RequestError,
    SearchOptions, search_gateway,
};

use crate::port_mapping::{Grant, NoPortMapping, Target, UpnpAnswer};

/// Where gateways hear a search: the group of SSDP.
const SEARCH_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const SEARCH_PORT: u16 = 1900;
/// How long a gateway may take to answer a search. It is told to take no longer than a second.
const SEARCH_PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take to describe itself.
const DESCRIPTION_PATIENCE: Duration = Duration::from_secs(5);
/// Answers to the search of which the gateway's is looked for: others on the network answer, too.
const SEARCH_ANSWERS_MAX: usize = 64;
/// Longest answer that is taken, in bytes: what fits a packet, as the crate does it.
const SEARCH_ANSWER_LEN_MAX: usize = 1500;
/// What is searched for: gateways of both versions.
const SEARCHED: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];
/// How the gateway's owner sees the mapping.
const DESCRIPTION: &str = "peer";

/// The gateway that was found, for the target that it was found for.
#[derive(Debug, Default)]
pub(super) struct Upnp {
    found: Option<(Target, Gateway)>,
}

impl Upnp {
    /// Has the gateway map a port to the target, preferably this one. Waits for its answers: for up to 10 s each, of
    /// which one that is slow on purpose can have two dozen.
    pub(super) fn map(
        &mut self,
        target: Target,
        external_port: u16,
        lifetime_s: u32,
    ) -> UpnpAnswer {
        let was_known = self.found.is_some();
        let mapped = self.try_map(target, external_port, lifetime_s);
        if mapped.is_ok() {
            return mapped;
        }
        self.found = None;
        if was_known && mapped == Err(NoPortMapping::NoAnswer) {
            // It listens somewhere else once it has begun anew.
            return self.try_map(target, external_port, lifetime_s);
        }
        mapped
    }

    /// Ends a mapping.
    pub(super) fn unmap(&self, external_port: u16) {
        let Some((_, gateway)) = &self.found else {
            return;
        };
        if let Err(error) = gateway.remove_port(PortMappingProtocol::UDP, external_port) {
            log::debug!("the gateway does not take its port back: {error:?}");
        }
    }

    fn try_map(&mut self, target: Target, external_port: u16, lifetime_s: u32) -> UpnpAnswer {
        let gateway = self.gateway(target)?;
        let IpAddr::V4(ip) = gateway.get_external_ip().map_err(reason_of_address)? else {
            return Err(NoPortMapping::Implausible);
        };
        let port = add(gateway, target.internal, external_port, lifetime_s)?;
        Ok(Grant {
            external: SocketAddrV4::new(ip, port),
            // Old gateways know only mappings without an end. Such a one is renewed like all others, and ended when the
            // program ends; if that is killed, it stays.
            lifetime_s,
        })
    }

    fn gateway(&mut self, target: Target) -> Result<&Gateway, NoPortMapping> {
        let found = match self.found.take() {
            Some((known, gateway)) if known == target => gateway,
            Some(_) | None => find(target).map_err(|error| {
                log::debug!("no gateway by UPnP: {error}");
                NoPortMapping::NoAnswer
            })?,
        };
        let (_, gateway) = self.found.insert((target, found));
        Ok(gateway)
    }
}

/// No gateway is found.
#[derive(Debug, thiserror::Error)]
enum SearchError {
    #[error("the environment names a proxy for HTTP")]
    Proxy,
    #[error("the gateway does not answer the search")]
    Silent,
    #[error("the gateway's description cannot be used: {0:?}")]
    Description(#[from] igd_next::SearchError),
    #[error("cannot use the network: {0}")]
    Io(#[from] io::Error),
}

fn find(target: Target) -> Result<Gateway, SearchError> {
    if is_proxied(target.gateway, |name| std::env::var(name).ok()) {
        return Err(SearchError::Proxy);
    }
    let answer = search(target)?.ok_or(SearchError::Silent)?;
    let gateway = hand_over(&answer, target.gateway, DESCRIPTION_PATIENCE)?;
    log::debug!("a gateway by UPnP: {}", gateway.service_type.escape_debug());
    Ok(gateway)
}

/// Searches for the gateway, and returns what it answers.
fn search(target: Target) -> io::Result<Option<Vec<u8>>> {
    let socket = UdpSocket::bind((*target.internal.ip(), 0))?;
    // Some gateways hear only the group, and some networks let no group through: one way is enough.
    let mut sent = Ok(());
    for ip in [target.gateway, SEARCH_GROUP] {
        for searched in SEARCHED {
            let host = SocketAddrV4::new(ip, SEARCH_PORT);
            let request = format!(
                "M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {searched}\r\n\r\n"
            );
            if let Err(error) = socket.send_to(request.as_bytes(), host) {
                sent = Err(error);
            }
        }
    }
    if let Err(error) = sent {
        log::debug!("a part of the search cannot be sent: {error}");
    }
    let until = now() + SEARCH_PATIENCE;
    let mut bytes = [0; SEARCH_ANSWER_LEN_MAX];
    for _ in 0..SEARCH_ANSWERS_MAX {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let (len, source) = match socket.recv_from(&mut bytes) {
            Ok(received) => received,
            Err(error) if is_nothing(&error) => continue,
            Err(error) => return Err(error),
        };
        if source.ip() == IpAddr::V4(target.gateway) {
            return Ok(bytes.get(..len).map(<[u8]>::to_vec));
        }
        log::debug!("dropped an answer to the search that is not the gateway's");
    }
    Ok(None)
}

/// Tells whether nothing has come, or only that nobody listens.
fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
    )
}

/// Has the crate read an answer to the search, and fetch from the gateway what it names.
fn hand_over(answer: &[u8], gateway: Ipv4Addr, patience: Duration) -> Result<Gateway, SearchError> {
    let here = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    here.set_read_timeout(Some(SEARCH_PATIENCE))?;
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    options.broadcast_address = here.local_addr()?;
    options.timeout = Some(patience);
    // An answer that names another address is passed over; no second one comes.
    options.single_search_timeout = Some(patience);
    options.gateway_ip_version = GatewayIpVersion::V4;
    options.allowed_gateway_ips = vec![gateway.into()];
    let found = thread::scope(|scope| {
        scope.spawn(|| {
            let searched = here.recv_from(&mut [0; SEARCH_ANSWER_LEN_MAX]);
            if let Ok((_, searcher)) = searched {
                // Without it the search finds nothing.
                let _ = here.send_to(answer, searcher);
            }
        });
        search_gateway(options)
    })?;
    if found.addr.ip() == IpAddr::V4(gateway) {
        Ok(found)
    } else {
        Err(SearchError::Silent)
    }
}

/// Maps this port, or another one where it is taken.
fn add(
    gateway: &Gateway,
    internal: SocketAddrV4,
    external_port: u16,
    lifetime_s: u32,
) -> Result<u16, NoPortMapping> {
    let udp = PortMappingProtocol::UDP;
    let add = |port, lifetime_s| {
        let added = gateway.add_port(udp, port, internal.into(), lifetime_s, DESCRIPTION);
        added.map(|()| port)
    };
    match add(external_port, lifetime_s) {
        Ok(port) => Ok(port),
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            add(external_port, 0).map_err(reason_of_port)
        }
        Err(AddPortError::SamePortValuesRequired) => {
            add(internal.port(), lifetime_s).map_err(reason_of_port)
        }
        Err(AddPortError::PortInUse) => gateway
            .add_any_port(udp, internal.into(), lifetime_s, DESCRIPTION)
            .map_err(|error| {
                log::debug!("the gateway has no other port: {error:?}");
                NoPortMapping::Refused
            }),
        Err(error) => Err(reason_of_port(error)),
    }
}

fn reason_of_port(error: AddPortError) -> NoPortMapping {
    log::debug!("the gateway maps no port: {error:?}");
    match error {
        AddPortError::RequestError(error) => reason_of_request(&error),
        AddPortError::ActionNotAuthorized
        | AddPortError::InternalPortZeroInvalid
        | AddPortError::ExternalPortZeroInvalid
        | AddPortError::PortInUse
        | AddPortError::SamePortValuesRequired
        | AddPortError::OnlyPermanentLeasesSupported
        | AddPortError::DescriptionTooLong => NoPortMapping::Refused,
    }
}

fn reason_of_address(error: GetExternalIpError) -> NoPortMapping {
    log::debug!("the gateway does not tell its address: {error:?}");
    match error {
        GetExternalIpError::RequestError(error) => reason_of_request(&error),
        GetExternalIpError::ActionNotAuthorized => NoPortMapping::Refused,
    }
}

const fn reason_of_request(error: &RequestError) -> NoPortMapping {
    match error {
        RequestError::AttoHttpError(_) | RequestError::IoError(_) => NoPortMapping::NoAnswer,
        RequestError::InvalidResponse(_) => NoPortMapping::Implausible,
        RequestError::ErrorCode(..) | RequestError::UnsupportedAction(_) => NoPortMapping::Refused,
    }
}

/// Tells whether the crate would send what is for the gateway to a proxy. `variable` reads the environment.
fn is_proxied(gateway: Ipv4Addr, variable: impl Fn(&str) -> Option<String>) -> bool {
    let either = |name: &str| variable(name).or_else(|| variable(&name.to_uppercase()));
    let has_proxy = ["http_proxy", "all_proxy"]
        .into_iter()
        .filter_map(either)
        .any(|url| !url.is_empty());
    let exempt = either("no_proxy").unwrap_or_default();
    let gateway = gateway.to_string();
    let is_exempt = exempt == "*" || exempt.split(',').any(|host| host.trim() == gateway);
    has_proxy && !is_exempt
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// The gateway of these tests.
    const GATEWAY: Ipv4Addr = Ipv4Addr::LOCALHOST;

    /// What a search hears that is sent to a description at this URL.
    fn answer(location: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\nEXT:\r\n\r\n").into_bytes()
    }

    fn description(control: &str) -> Vec<u8> {
        let description = format!(
            "<root><device><deviceType>x</deviceType><serviceList><service>\
            <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
            <SCPDURL>/schema.xml</SCPDURL><controlURL>{control}</controlURL>\
            </service></serviceList></device></root>"
        );
        description.into_bytes()
    }

    const SCHEMA: &[u8] = b"<scpd><actionList><action><name>AddPortMapping</name><argumentList>\
        <argument><name>NewExternalPort</name><direction>in</direction></argument>\
        </argumentList></action></actionList></scpd>";

    /// A gateway that describes itself to whoever asks. Returns its port.
    fn serve(description: Vec<u8>) -> u16 {
        let listener = TcpListener::bind((GATEWAY, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut asked = [0; 2048];
                let len = stream.read(&mut asked).unwrap();
                let is_schema = asked[..len].starts_with(b"GET /schema.xml");
                let body = if is_schema { SCHEMA } else { &description };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                // Whoever has had enough of it closes early.
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(body));
            }
        });
        port
    }

    /// The crate waits for a better answer to what it refuses.
    const REFUSED_AFTER: Duration = Duration::from_millis(400);

    fn found(description: Vec<u8>, patience: Duration) -> Result<Gateway, SearchError> {
        let port = serve(description);
        let location = format!("http://{GATEWAY}:{port}/root.xml");
        hand_over(&answer(&location), GATEWAY, patience)
    }

    fn is_refused(description: Vec<u8>) -> bool {
        found(description, REFUSED_AFTER).is_err()
    }

    fn is_passed_over(answer: &[u8]) -> bool {
        hand_over(answer, GATEWAY, REFUSED_AFTER).is_err()
    }

    #[test]
    fn a_gateway_is_found_at_what_it_answers() {
        let gateway = found(description("/control"), DESCRIPTION_PATIENCE).unwrap();
        assert_eq!(gateway.addr.ip(), IpAddr::V4(GATEWAY));
        assert_eq!(gateway.control_url, "/control");
    }

    #[test]
    fn t22_nothing_is_fetched_from_elsewhere_than_the_gateway() {
        let elsewhere = TcpListener::bind("127.0.0.2:0");
        let Ok(elsewhere) = elsewhere else {
            // Only Linux has more than one address on the loopback interface.
            return;
        };
        elsewhere.set_nonblocking(true).unwrap();
        let url = format!("http://{}/root.xml", elsewhere.local_addr().unwrap());
        // As where the description is, as where control is, and as where both are said to begin.
        assert!(is_passed_over(&answer(&url)));
        assert!(is_refused(description(&url)));
        let based = String::from_utf8(description("/control")).unwrap();
        let based = based.replace("<root>", &format!("<root><URLBase>{url}</URLBase>"));
        assert!(is_refused(based.into_bytes()));
        let fetched = elsewhere.accept().map_err(|error| error.kind());
        assert_eq!(fetched.err(), Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn t16_a_description_of_megabytes_or_without_end_is_none() {
        let mut long = description("/control");
        long.resize(8 << 20, b' ');
        assert!(is_refused(long));
        let deep = "<a>".repeat(10_000).into_bytes();
        assert!(is_refused(deep));
        for odd in [&b""[..], b"<root>", b"\xff\xfe\x00", b"<root/>"] {
            assert!(is_refused(odd.to_vec()), "{odd:?}");
        }
        for odd in [
            &b""[..],
            b"\xff",
            b"HTTP/1.1 200 OK\r\nLOCATION: ",
            b"LOCATION: ftp://127.0.0.1/\r\n",
        ] {
            assert!(is_passed_over(odd), "{odd:?}");
        }
    }

    #[test]
    fn a_proxy_hears_of_no_gateway() {
        let gateway = Ipv4Addr::new(192, 168, 1, 1);
        let is_proxied = |set: &[(&str, &str)]| {
            is_proxied(gateway, |name| {
                let found = set.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(!is_proxied(&[]));
        assert!(is_proxied(&[("http_proxy", "http://proxy:3128")]));
        assert!(is_proxied(&[
            ("ALL_PROXY", "http://proxy:3128"),
            ("no_proxy", "example.org")
        ]));
        assert!(!is_proxied(&[
            ("http_proxy", "http://proxy:3128"),
            ("NO_PROXY", "a, 192.168.1.1")
        ]));
        assert!(!is_proxied(&[
            ("HTTP_PROXY", "http://proxy:3128"),
            ("no_proxy", "*")
        ]));
        assert!(!is_proxied(&[("https_proxy", "http://proxy:3128")]));
    }
}
