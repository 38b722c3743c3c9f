//! Whether this program has the terminal, and taking it up again.
//!
//! A program that is stopped and continued by signals from elsewhere goes on in the background: the shell
//! has the terminal, in a mode of its own, until `fg`. The editor notices nothing of that. It may even be
//! reading already, since a key for the shell wakes it, too, and then neither prints nor draws until a line
//! is complete.

use std::io::{self, Write};

use rustix::process::{Signal, getpgrp, getpid, kill_process};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcgetpgrp,
    tcsetattr,
};

/// Has the terminal mark what is pasted. The editor asks for it, and a shell takes it back.
const MARK_PASTES: &[u8] = b"\x1b[?2004h";

/// Tells whether the terminal is another job's. Only a program's controlling terminal has jobs.
pub(super) fn is_elsewhere() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground != getpgrp())
}

/// Sets the mode in which the editor reads key by key, and wakes it if it waits for the end of a line.
///
/// It is a signal that does so, and the editor's thread has to be the only one that takes it.
pub(super) fn take_up() -> io::Result<()> {
    let mut mode = tcgetattr(io::stdin())?;
    mode.input_modes -= InputModes::BRKINT
        | InputModes::ICRNL
        | InputModes::INPCK
        | InputModes::ISTRIP
        | InputModes::IXON;
    mode.control_modes |= ControlModes::CS8;
    mode.local_modes -=
        LocalModes::ECHO | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG;
    mode.special_codes[SpecialCodeIndex::VMIN] = 1;
    mode.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(io::stdin(), OptionalActions::Drain, &mode)?;
    let mut out = io::stdout().lock();
    out.write_all(MARK_PASTES)?;
    out.flush()?;
    Ok(kill_process(getpid(), Signal::WINCH)?)
}
