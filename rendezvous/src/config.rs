//! What the arguments mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::os::bind::BindAddress;
use directories::ProjectDirs;

use crate::args::{RegistrationArgument, ServeArguments};
use crate::server::logins::lockout::LockoutOptions;
use crate::server::logins::registration::Registration;

/// The port unless another is given, TCP and UDP.
pub const PORT: u16 = 7400;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where to listen, TCP and UDP.
    pub listen: BindAddress,
    /// Who may register.
    pub registration: Registration,
    /// How many log-ins may fail.
    pub lockout: LockoutOptions,
    /// The operator's own certificate and key.
    pub certificate: Option<PathBuf>,
}

impl From<ServeArguments> for ServeConfig {
    fn from(typed: ServeArguments) -> Self {
        Self {
            listen: typed.listen.unwrap_or(BindAddress::port(PORT)),
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
        }
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
