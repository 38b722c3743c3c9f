//! Where a program listens, as a person types it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A port of one address, or of every address that the system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress {
    /// `None` is every address, of both families where the system has both.
    ip: Option<IpAddr>,
    port: u16,
}

/// What was typed is no port and no address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindAddressError {
    /// It is neither.
    #[error(
        "a port is needed, or an address and a port, for instance 7400, 192.0.2.1:7400 or [::1]:7400"
    )]
    NoPort,
    /// It would be one of them if ports were larger.
    #[error("a port is at most {}", u16::MAX)]
    LargePort,
}

impl BindAddress {
    /// This port of every address; 0 is any that is free.
    pub const fn port(port: u16) -> Self {
        Self { ip: None, port }
    }

    /// The port, if a certain one is meant and not any that is free.
    pub const fn chosen_port(self) -> Option<u16> {
        match self.port {
            0 => None,
            port => Some(port),
        }
    }

    /// Has `bind` try the addresses that this can mean, until one is bound.
    ///
    /// # Errors
    ///
    /// The last address that was tried, and what `bind` said of it.
    pub fn bind<T>(
        self,
        bind: impl Fn(SocketAddr) -> io::Result<T>,
    ) -> Result<T, (SocketAddr, io::Error)> {
        let bind = |ip| {
            let address = SocketAddr::new(ip, self.port);
            bind(address).map_err(|error| (address, error))
        };
        if let Some(ip) = self.ip {
            return bind(ip);
        }
        // One socket for both families, or IPv4 where a system has no IPv6.
        bind(Ipv6Addr::UNSPECIFIED.into()).or_else(|(address, error)| {
            // A port that is taken is taken in the other family, too.
            if error.kind() == io::ErrorKind::AddrInUse {
                return Err((address, error));
            }
            bind(Ipv4Addr::UNSPECIFIED.into())
        })
    }
}

impl From<SocketAddr> for BindAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: Some(address.ip()),
            port: address.port(),
        }
    }
}

impl FromStr for BindAddress {
    type Err = BindAddressError;

    fn from_str(text: &str) -> Result<Self, BindAddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (ip, digits) = text.rsplit_once(':').unwrap_or(("", text));
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let is_address = ip.is_empty() || format!("{ip}:0").parse::<SocketAddr>().is_ok();
        // Unlike `parse`, no sign.
        if !is_number || !is_address {
            return Err(BindAddressError::NoPort);
        }
        match digits.parse() {
            Ok(port) if ip.is_empty() => Ok(Self::port(port)),
            Ok(_) => Err(BindAddressError::NoPort),
            Err(_) => Err(BindAddressError::LargePort),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is tried on a system that refuses everything with `kind`.
    fn tried(typed: &str, kind: io::ErrorKind) -> Vec<String> {
        let tried = std::cell::RefCell::new(Vec::new());
        let bound = typed.parse::<BindAddress>().unwrap().bind(|address| {
            tried.borrow_mut().push(address.to_string());
            Err::<(), _>(io::Error::from(kind))
        });
        let tried = tried.into_inner();
        assert_eq!(bound.unwrap_err().0.to_string(), *tried.last().unwrap());
        tried
    }

    #[test]
    fn a_port_alone_is_one_of_every_address() {
        for typed in ["7400", ":7400"] {
            let all = ["[::]:7400", "0.0.0.0:7400"];
            assert_eq!(tried(typed, io::ErrorKind::Unsupported), all);
            assert_eq!(tried(typed, io::ErrorKind::AddrInUse), all[..1]);
        }
        for typed in ["127.0.0.1:0", "[::1]:65535"] {
            assert_eq!(tried(typed, io::ErrorKind::Unsupported), [typed]);
        }
    }

    #[test]
    fn a_port_that_is_too_large_is_told() {
        for typed in [
            "65536",
            ":70000",
            "127.0.0.1:99999999999999999999",
            "[::1]:70000",
        ] {
            let told = typed.parse::<BindAddress>().unwrap_err().to_string();
            assert!(told.contains("at most 65535"), "{typed}: {told}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for typed in [
            "",
            ":",
            "example.org:70000",
            "+7400",
            "-1",
            "localhost:7400",
            "127.0.0.1",
            "::1",
            "[::1]",
            "::1:7400 ",
        ] {
            assert_eq!(
                typed.parse::<BindAddress>(),
                Err(BindAddressError::NoPort),
                "{typed}"
            );
        }
    }
}
