//! A terminal for the real programs: keys in, a screen out.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use tests::program::{now, surround};
use vt100::Parser;

/// A terminal that reflows.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) mod tmux;

/// Rows of a terminal: more than any test prints.
const ROWS: u16 = 60;

/// A program with a terminal of its own. It is killed when this is dropped.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    output: Receiver<Vec<u8>>,
    screen: Parser,
    /// All that the program wrote so far, as it is.
    written: Vec<u8>,
}

impl Terminal {
    /// Starts a command on a terminal with so many columns.
    #[track_caller]
    pub(crate) fn start(command: &Command, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = openpt(flags).expect("the system has a pseudo-terminal left");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let path = ptsname(&master, Vec::new()).expect("it has a name");
        let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).to_owned();
        let keys = File::from(master);
        let slave = OpenOptions::new().read(true).write(true).open(path);
        let slave = slave.expect("the terminal opens");
        let size = Winsize {
            ws_row: ROWS,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&keys, size).expect("a terminal has a size");
        let slave_too = || Stdio::from(slave.try_clone().expect("a descriptor can be doubled"));
        // Makes it the program's controlling terminal, so that Ctrl-C is a signal. Whoever runs the tests may have been
        // told to outlive a terminal; this program is not.
        let options = ["--ctty", "env", "--default-signal=HUP"];
        let child = wrapped("setsid", &options, command)
            .env("TERM", "xterm-256color")
            .stdin(slave_too())
            .stdout(slave_too())
            .stderr(slave_too())
            .spawn()
            .expect("setsid of util-linux is there");
        drop(slave);
        let output = read_all(keys.try_clone().expect("a descriptor can be doubled"));
        Self {
            child,
            keys,
            output,
            screen: Parser::new(ROWS, columns, 0),
            written: Vec::new(),
        }
    }

    /// All that the program wrote and that was looked at, escape sequences included.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.written).into_owned()
    }

    /// Types keys, all in one write.
    #[track_caller]
    pub(crate) fn type_keys(&mut self, keys: &str) {
        let typed = self.keys.write_all(keys.as_bytes());
        typed.expect("the terminal takes keys");
    }

    /// Changes the number of columns.
    #[track_caller]
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn resize(&mut self, columns: u16) {
        let size = Winsize {
            ws_row: ROWS,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.keys, size).expect("a terminal has a size");
        self.screen.screen_mut().set_size(ROWS, columns);
    }

    /// Sends a signal to the program, by its name without `SIG`.
    #[track_caller]
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, "--", &self.child.id().to_string()])
            .status();
        assert!(sent.expect("there is a kill").success());
    }

    /// The program that has the terminal, if it is the first one of its job.
    #[track_caller]
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn foreground(&self) -> Pid {
        tcgetpgrp(&self.keys).expect("some job has the terminal")
    }

    /// Waits until the screen `is_it`, and returns it.
    #[track_caller]
    pub(crate) fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        is_it: impl Fn(&str) -> bool,
    ) -> String {
        let deadline = now() + patience;
        loop {
            let shown = self.shown();
            if is_it(&shown) {
                return shown;
            }
            let left = deadline.saturating_duration_since(now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.process(&bytes),
                Err(_) => panic!("never: {what}; the screen shows\n{shown}"),
            }
        }
    }

    /// Waits until the program has ended; returns how, and the last screen.
    #[track_caller]
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn end(mut self, patience: Duration) -> (ExitStatus, String) {
        let status = self.ended(patience);
        (status, self.shown())
    }

    /// The same with all that it wrote, escape sequences included.
    #[track_caller]
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn end_with_all(mut self, patience: Duration) -> (ExitStatus, String) {
        let status = self.ended(patience);
        (status, self.written())
    }

    #[track_caller]
    fn ended(&mut self, patience: Duration) -> ExitStatus {
        let deadline = now() + patience;
        loop {
            let left = deadline.saturating_duration_since(now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.process(&bytes),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    panic!("it does not end; the screen shows\n{}", self.shown())
                }
            }
        }
        self.child.wait().expect("it is a child of ours")
    }

    fn process(&mut self, bytes: &[u8]) {
        self.screen.process(bytes);
        self.written.extend_from_slice(bytes);
    }

    fn shown(&self) -> String {
        self.screen.screen().contents()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command, run by another program.
pub(crate) fn wrapped(by: &str, options: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(by);
    wrapped.args(options).arg(command.get_program());
    wrapped.args(command.get_args());
    surround(&mut wrapped, command);
    wrapped
}

/// Reads until nobody has the other side open any more.
fn read_all(mut master: File) -> Receiver<Vec<u8>> {
    let (sender, output) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // Linux answers EIO once the other side is closed.
        while let Ok(len @ 1..) = master.read(&mut buffer) {
            if sender.send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    output
}
