//! A real terminal that reflows: what is wrapped in narrow rows takes fewer of them in wider ones.

use std::fs::File;
use std::process::{Command, Output};

use rustix::termios::tcgetwinsize;
use tempfile::TempDir;
use tests::program::now;
use tests::world::{PATIENCE, until};

/// Rows of a screen.
const ROWS: &str = "30";
/// A server of its own, without anybody's configuration.
const OPTIONS: [&str; 5] = ["-u", "-L", "screen", "-f", "/dev/null"];

/// A server of tmux with one program. Both are killed when this is dropped.
pub(crate) struct Tmux {
    /// Has its socket, which it leaves behind.
    folder: TempDir,
}

impl Tmux {
    /// Tells whether there is a tmux.
    pub(crate) fn is_there() -> bool {
        let asked = Command::new("tmux").arg("-V").output();
        asked.is_ok_and(|asked| asked.status.success())
    }

    /// Starts a command on a screen with so many columns.
    #[track_caller]
    pub(crate) fn start(command: &Command, columns: u16) -> Self {
        let folder = TempDir::new().expect("there is room for a temporary folder");
        let tmux = Self { folder };
        let columns = columns.to_string();
        let session = ["new-session", "-d", "-x", &columns, "-y", ROWS, "--"];
        let mut started = super::wrapped("tmux", &[&OPTIONS[..], &session].concat(), command);
        let started = started.env("TMUX_TMPDIR", tmux.folder.path());
        let started = started.env_remove("TMUX").output();
        assert_done(&started.expect("there is a tmux"));
        tmux
    }

    /// Types keys, all at once and none by its name.
    #[track_caller]
    pub(crate) fn type_keys(&self, keys: &str) {
        self.ask(&["send-keys", "-l", keys]);
    }

    /// Changes the number of columns, and waits until the program can know of it.
    #[track_caller]
    pub(crate) fn resize(&self, columns: u16) {
        self.ask(&["resize-window", "-x", &columns.to_string(), "-y", ROWS]);
        let path = self.ask(&["display-message", "-p", "#{pane_tty}"]);
        let terminal = File::open(path.trim_end()).expect("the program has a terminal");
        until("the terminal has its size", PATIENCE, || {
            let size = tcgetwinsize(&terminal).expect("a terminal has a size");
            (size.ws_col == columns).then_some(())
        });
    }

    /// Waits until the screen, with all that has gone out of sight, `is_it`, and returns it.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = now() + PATIENCE;
        until(what, PATIENCE * 2, || {
            let shown = self.shown();
            let is_in_time = now() < deadline;
            assert!(is_in_time, "never: {what}; the screen shows\n{shown}");
            is_it(&shown).then_some(shown)
        })
    }

    #[track_caller]
    fn shown(&self) -> String {
        self.ask(&["capture-pane", "-p", "-S", "-"])
    }

    #[track_caller]
    fn ask(&self, words: &[&str]) -> String {
        let asked = self.command().args(words).output();
        let asked = asked.expect("there is a tmux");
        assert_done(&asked);
        String::from_utf8_lossy(&asked.stdout).into_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        command.args(OPTIONS).env_remove("TMUX");
        command.env("TMUX_TMPDIR", self.folder.path());
        command
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // It may have ended with its program.
        let _ = self.command().arg("kill-server").output();
    }
}

#[track_caller]
fn assert_done(asked: &Output) {
    assert!(asked.status.success(), "{asked:?}");
}
