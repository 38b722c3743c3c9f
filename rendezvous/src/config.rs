//! What the arguments mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::limits::UDP_THREADS_DEFAULT_MAX;
use common::os::bind::BindAddress;
use directories::ProjectDirs;

use crate::args::{BYTES_OF_MEGABIT, RegistrationArgument, ServeArguments};
use crate::relay::TrafficLimits;
use crate::server::logins::lockout::LockoutOptions;
use crate::server::logins::registration::Registration;

/// The port unless another is given, TCP and UDP.
pub const PORT: u16 = 7400;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where to listen, TCP and UDP.
    pub listen: BindAddress,
    /// The second UDP port, if one was typed; 0 is any that is free.
    pub stun_port: Option<u16>,
    /// Threads of the main UDP port: at least one.
    pub udp_threads: usize,
    /// Who may register.
    pub registration: Registration,
    /// How many log-ins may fail.
    pub lockout: LockoutOptions,
    /// The operator's own certificate and key.
    pub certificate: Option<PathBuf>,
    /// How much devices may send each other through the relay, if there is one.
    pub relay: Option<TrafficLimits>,
}

impl From<ServeArguments> for ServeConfig {
    fn from(typed: ServeArguments) -> Self {
        Self {
            listen: typed.listen.unwrap_or(BindAddress::port(PORT)),
            stun_port: typed.stun_port,
            udp_threads: typed
                .udp_threads
                .map_or_else(udp_threads, |typed| typed as usize),
            registration: match typed.registration {
                RegistrationArgument::Open => Registration::Open,
                RegistrationArgument::Closed => Registration::Closed,
            },
            lockout: LockoutOptions {
                stranger_failures_max: typed.failures_max,
                block_first: Duration::from_secs(typed.block_first.into()),
                ..LockoutOptions::default()
            },
            certificate: typed.certificate,
            relay: (!typed.no_relay).then_some(TrafficLimits {
                of_account: typed.relay_rate * BYTES_OF_MEGABIT,
                of_all: typed.relay_total * BYTES_OF_MEGABIT,
            }),
        }
    }
}

/// As many as the machine has cores, and not so many that they wait for each other: what they share takes a fifth
/// of the time of one. Only Linux divides the peers among them.
fn udp_threads() -> usize {
    if cfg!(target_os = "linux") {
        let cores = std::thread::available_parallelism();
        cores.map_or(1, |cores| cores.get().min(UDP_THREADS_DEFAULT_MAX))
    } else {
        1
    }
}

/// The data folder: the one given, or the system's place. `None` if the system has no such place
/// because there is no home folder.
pub fn data_folder(given: Option<&Path>) -> Option<PathBuf> {
    match given {
        Some(folder) => Some(folder.to_owned()),
        None => ProjectDirs::from("", "", "rendezvous").map(|dirs| dirs.data_dir().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn relay(typed: &str) -> Option<Option<TrafficLimits>> {
        let words = format!("rendezvous serve {typed}");
        let arguments = Arguments::try_parse_from(words.split_whitespace()).ok()?;
        let Some(Command::Serve(serve)) = arguments.command else {
            panic!("another command");
        };
        Some(ServeConfig::from(serve).relay)
    }

    #[test]
    fn the_relay_has_the_rates_that_were_typed() {
        assert_eq!(relay(""), Some(Some(TrafficLimits::default())));
        assert_eq!(relay("--no-relay"), Some(None));
        let limits = TrafficLimits {
            of_account: 2_500_000,
            of_all: 3_750_000_000,
        };
        let typed = "--relay-rate 20 --relay-total 30000";
        assert_eq!(relay(typed), Some(Some(limits)));
        for wrong in [
            "--relay-rate 0",
            "--relay-total 30001",
            "--no-relay --relay-rate 20",
        ] {
            assert_eq!(relay(wrong), None, "{wrong}");
        }
    }
}
