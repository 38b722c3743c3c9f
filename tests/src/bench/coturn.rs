//! coturn, the STUN and TURN server that ours is compared with.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::stun::binding_request;

use super::Failure;
use super::stage::Place;
use crate::program::{START, now};

/// A request without an answer is sent again after this long.
const RETRY: Duration = Duration::from_millis(200);

/// A server of its own. It ends with this.
pub(super) struct Coturn {
    child: Child,
    address: SocketAddr,
}

impl Coturn {
    /// Starts it on a free port of the loopback interface, with one thread that relays; the inner error says
    /// why where it is not there.
    pub(super) fn start(
        place: &Place,
        folder: &Path,
        more: &[&str],
    ) -> Result<Result<Self, String>, Failure> {
        let found = Command::new("turnserver").arg("--version").output();
        if found.is_err() {
            return Ok(Err("coturn is not there ('turnserver')".to_owned()));
        }
        let free = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("turnserver");
        command.args(["-n", "--no-tls", "--no-dtls", "--no-cli"]);
        command.args(["--no-software-attribute", "--relay-threads", "1"]);
        command.args(["--log-file", "coturn.log", "--simple-log"]);
        command.args(["--pidfile", "coturn.pid", "--listening-ip", "127.0.0.1"]);
        command.args(["--listening-port", &free.port().to_string()]);
        command.args(more).current_dir(folder);
        let mut command = place.wrap(&command);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let coturn = Self {
            child,
            address: free,
        };
        coturn.wait_ready()?;
        Ok(Ok(coturn))
    }

    fn wait_ready(&self) -> Result<(), Failure> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(RETRY))?;
        let deadline = now() + START;
        let mut answer = [0; 1500];
        while now() < deadline {
            socket.send_to(&binding_request(1), self.address)?;
            if socket.recv_from(&mut answer).is_ok() {
                return Ok(());
            }
        }
        Err(Failure::Wrong("coturn does not answer".to_owned()))
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process's number.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
