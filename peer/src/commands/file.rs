//! `send-file`.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::id::{AccountName, TransferId};
use common::text::{inline, size};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Serialize;

use super::Place;
use super::node_handle::{NodeHandle, SILENCE_MAX, tell_notice};
use crate::args::SendFile;
use crate::client::{CallError, Happening, now};
use crate::config::{CALL_TIMEOUT, shown_path};
use crate::conversation::connection::ConnectionWatch;
use crate::failure::{Exit, Failure};
use crate::node::command::{Command, CommandError, Event, FailureKind, Reply, TransferState};
use crate::shell::has_more_than_it_says;
use crate::ui::progress::Bars;
use crate::ui::{Screen, line};

/// Sends a file and shows how far it is.
pub(super) fn send(place: &Place, args: &SendFile, screen: &Screen) -> Result<Exit, Failure> {
    let to = &args.to;
    let (path, shown) = sendable(&args.path)?;
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let doing = format!("send {shown} to {to}");
    let mut session = place.open(&doing)?;
    find_way(&mut session, &doing, to, screen)?;
    let command = Command::SendFile {
        to: to.clone(),
        path,
    };
    let transfer = begin(&mut session, &doing, &command)?;
    let mut sending = Sending {
        command,
        transfer,
        to,
        name,
        shown,
        offer: OfferStage::looking(false),
        moved: None,
    };
    let ended = sending.watch(&mut session, &doing, screen);
    if ended.as_ref().is_err_and(Failure::is_silent) && !sending.cancel(&mut session, screen)? {
        // It ended before it could be cancelled.
        return sending.watch(&mut session, &doing, screen);
    }
    ended
}

/// Waits for the server, which knows the way to `to`, unless a link or a neighbour is there.
fn find_way(
    session: &mut NodeHandle,
    doing: &str,
    to: &AccountName,
    screen: &Screen,
) -> Result<(), Failure> {
    let Reply::Status(status) = session.call(doing, &Command::Status)? else {
        return Err(Failure::unexpected_reply(doing));
    };
    if status.is_linked(to) || status.nearby.contains(to) {
        return Ok(());
    }
    session.ready_again(doing, to, screen)?;
    // It is known once this device has logged in.
    match session.lacks_relay() {
        true => Err(Failure::relay_off(doing)),
        false => Ok(()),
    }
}

fn begin(session: &mut NodeHandle, doing: &str, command: &Command) -> Result<TransferId, Failure> {
    let Reply::Started(transfer) = session.call(doing, command)? else {
        return Err(Failure::unexpected_reply(doing));
    };
    Ok(transfer)
}

/// Makes sure that `path` is a file that can be read. Returns its absolute path and its name, fit for
/// a terminal.
pub(super) fn sendable(path: &Path) -> Result<(PathBuf, String), Failure> {
    let shown = shown_path(path);
    let cannot = || Failure::new(Exit::File, format!("could not send {shown}"));
    let unreadable = |error| {
        cannot()
            .because(error)
            .next("check the path and its permissions")
    };
    let irregular = || {
        cannot()
            .because("it is not a regular file")
            .next("copy what it holds into a file first")
    };
    // Without it, opening a named pipe waits for somebody to write to it.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        // Opening a socket fails like this.
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            return Err(irregular());
        }
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(cannot().because("it is a folder").next(format!(
            "pack it into one file first: tar -czf folder.tar.gz {shown}"
        )));
    }
    if !metadata.is_file() {
        return Err(irregular());
    }
    if has_more_than_it_says(&file, &metadata).map_err(unreadable)? {
        return Err(cannot()
            .because("its length is not known before it is read")
            .next("copy what it holds into a file first"));
    }
    let path = std::path::absolute(path).map_err(|error| cannot().because(error))?;
    if path.to_str().is_none() {
        return Err(cannot()
            .because("its path is not valid text (UTF-8)")
            .next("rename the file, or the folder that it is in"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = inline(&name).into_owned();
    Ok((path, name))
}

struct Sending<'a> {
    /// What offers the file.
    command: Command,
    transfer: TransferId,
    to: &'a AccountName,
    /// The file's name as it was offered.
    name: String,
    /// The same, fit for a terminal.
    shown: String,
    offer: OfferStage,
    /// Bytes that have arrived, and of the whole file, once it moves.
    moved: Option<(u64, u64)>,
}

/// How far the offer is.
#[derive(Clone, Copy, Debug)]
enum OfferStage {
    /// A way to the recipient is looked for.
    Looking {
        /// When to say so.
        told_at: Option<Instant>,
        /// It was out before, and ended with its node.
        is_again: bool,
    },
    /// The recipient has it.
    Out,
}

impl OfferStage {
    fn looking(is_again: bool) -> Self {
        Self::Looking {
            told_at: Some(now() + SILENCE_MAX),
            is_again,
        }
    }

    /// When to say that the recipient is looked for.
    const fn told_at(self) -> Option<Instant> {
        match self {
            Self::Looking { told_at, .. } => told_at,
            Self::Out => None,
        }
    }
}

impl Sending<'_> {
    fn watch(
        &mut self,
        session: &mut NodeHandle,
        doing: &str,
        screen: &Screen,
    ) -> Result<Exit, Failure> {
        let mut bars = Bars::new(screen);
        let mut connection = ConnectionWatch::default();
        loop {
            let deadlines = [bars.poll_timeout(), self.offer.told_at()];
            let event = match session.next(deadlines.into_iter().flatten().min()) {
                Some(Happening::Event(event)) => event,
                Some(Happening::Gone(_)) if !self.has_moved() => {
                    self.begin_again(session, doing, screen)?;
                    continue;
                }
                Some(Happening::Gone(why)) => {
                    return Err(Failure::new(Exit::Transfer, format!("could not {doing}"))
                        .because(why)
                        .next("send the file again; it starts from the beginning"));
                }
                Some(Happening::Signal(signal)) => return Err(Failure::signal(signal)),
                Some(Happening::Typed(_) | Happening::NotText | Happening::Handled(_)) => continue,
                None => {
                    bars.handle_timeout(now());
                    self.tell_looking(screen);
                    continue;
                }
            };
            if let Event::Connection(state) = &event
                && let Some(change) = connection.on_state(state)
            {
                let text = line::connection_change(&change, &screen.error_look);
                bars.around(|| screen.note(text));
            }
            bars.around(|| tell_notice(&event, screen));
            let Event::Transfer { transfer, state } = event else {
                continue;
            };
            if transfer != self.transfer || self.is_to_be_offered_again(&state) {
                continue;
            }
            screen.data(&TransferView {
                transfer,
                state: &state,
            })?;
            if let TransferState::Moving(moved) = state {
                self.moved = Some((moved.done, moved.total));
                bars.advance(transfer, (&self.shown, self.to), moved, now());
            }
            if state == TransferState::Waiting {
                self.on_offered(screen);
            }
            if let TransferState::NotOffered { error } = state {
                if session.lacks_relay() {
                    return Err(Failure::relay_off(doing));
                }
                return Err(session.failure(doing, CallError::Refused(error)));
            }
            if state.is_final() {
                bars.end(transfer);
                return self.ended(&state, doing, screen);
            }
        }
    }

    /// Tells whether anything of the file has arrived.
    fn has_moved(&self) -> bool {
        self.moved.is_some_and(|(done, _)| done > 0)
    }

    /// The program with the node ends before anything has moved: the offer can be made without it.
    fn is_to_be_offered_again(&self, state: &TransferState) -> bool {
        let is_stopped = matches!(
            state,
            TransferState::Failed {
                kind: FailureKind::NodeEnds,
                ..
            }
        );
        is_stopped && !self.has_moved()
    }

    /// Offers the file through another node, or one of our own.
    fn begin_again(
        &mut self,
        session: &mut NodeHandle,
        doing: &str,
        screen: &Screen,
    ) -> Result<(), Failure> {
        session.revive()?;
        find_way(session, doing, self.to, screen)?;
        self.transfer = begin(session, doing, &self.command)?;
        self.moved = None;
        self.offer = OfferStage::looking(match self.offer {
            OfferStage::Looking { is_again, .. } => is_again,
            OfferStage::Out => true,
        });
        Ok(())
    }

    /// Says that the recipient is looked for, if that takes long.
    fn tell_looking(&mut self, screen: &Screen) {
        if let OfferStage::Looking { told_at, .. } = &mut self.offer
            && told_at.is_some_and(|at| now() >= at)
        {
            *told_at = None;
            let text = format!("Looking for {}… Ctrl-C cancels.", self.to);
            screen.note(screen.error_look.dim(&text));
        }
    }

    /// The recipient has the offer.
    fn on_offered(&mut self, screen: &Screen) {
        let (shown, to) = (&self.shown, self.to);
        let text = match std::mem::replace(&mut self.offer, OfferStage::Out) {
            OfferStage::Looking {
                is_again: false, ..
            } => {
                format!("Offered {shown} to {to}; waiting for an answer. Ctrl-C cancels.")
            }
            OfferStage::Looking { is_again: true, .. } => format!(
                "The 'peer' program that had the connection has ended; offered {shown} to {to} again."
            ),
            OfferStage::Out => return,
        };
        screen.note(screen.error_look.dim(&text));
    }

    /// What to do after the transfer has failed.
    fn after(&self, kind: FailureKind) -> String {
        let to = self.to;
        match kind {
            FailureKind::Cancelled => format!("ask {to} whether the file is wanted"),
            FailureKind::Unanswered => {
                format!("send it again when {to} is back ('peer list --watch' shows it)")
            }
            FailureKind::NodeEnds | FailureKind::Broken => {
                "send the file again; it starts from the beginning".to_owned()
            }
        }
    }

    /// The person gives up. The other side is told; when that fails it finds out by itself. Returns `false`
    /// if the transfer has ended already, and how is still to be read.
    fn cancel(&self, session: &mut NodeHandle, screen: &Screen) -> Result<bool, Failure> {
        let transfer = self.transfer;
        let cancelled = session.try_call(&Command::Cancel { transfer }, CALL_TIMEOUT);
        if let Err(CallError::Refused(CommandError::NoSuchTransfer)) = cancelled {
            return Ok(false);
        }
        let (shown, to) = (&self.shown, self.to);
        screen.note(match (self.offer, self.moved) {
            (OfferStage::Looking { .. }, _) => {
                format!("Cancelled: {shown} was not offered to {to}.")
            }
            (OfferStage::Out, None) => {
                format!("Cancelled: the offer of {shown} to {to} is withdrawn.")
            }
            (OfferStage::Out, Some((done, total))) => format!(
                "Cancelled: {shown} was not sent. {to} had {} of {} and does not keep it.",
                size(done),
                size(total)
            ),
        });
        let state = TransferState::Failed {
            reason: "cancelled".to_owned(),
            kind: FailureKind::Cancelled,
        };
        screen.data(&TransferView {
            transfer,
            state: &state,
        })?;
        Ok(true)
    }

    fn ended(&self, state: &TransferState, doing: &str, screen: &Screen) -> Result<Exit, Failure> {
        let failure = |reason: &str| {
            Failure::new(Exit::Transfer, format!("could not {doing}")).because(reason)
        };
        match state {
            TransferState::Declined { reason } => {
                let next = match line::is_about_name(reason) {
                    true => format!(
                        "rename the file and send it again; or {} takes it in a chat, or with 'peer receive --rename'",
                        self.to
                    ),
                    false => format!("ask {} whether the file is wanted", self.to),
                };
                Err(failure(&line::declined(reason, &self.name)).next(next))
            }
            TransferState::Failed { reason, kind } => Err(failure(reason).next(self.after(*kind))),
            TransferState::NotOffered { error } => Err(Failure::of_command(doing, error)),
            TransferState::Done { .. }
            | TransferState::Looking
            | TransferState::Waiting
            | TransferState::Moving(_) => {
                let text =
                    line::transfer_done("Sent", &self.shown, &format!("to {}", self.to), state);
                screen.say(text)?;
                Ok(Exit::Done)
            }
        }
    }
}

/// A transfer's state for programs.
#[derive(Serialize)]
struct TransferView<'a> {
    transfer: TransferId,
    #[serde(flatten)]
    state: &'a TransferState,
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_to_do_next_fits_why_a_transfer_failed() {
        let to = "bob".parse().unwrap();
        let next = |kind, moved| {
            let sending = Sending {
                command: Command::Offers,
                transfer: TransferId::from_bytes([0; 16]),
                to: &to,
                name: "letter".to_owned(),
                shown: "letter".to_owned(),
                offer: OfferStage::Out,
                moved,
            };
            let state = TransferState::Failed {
                reason: "no answer".to_owned(),
                kind,
            };
            let failure = sending.ended(&state, "send letter to bob", &Screen::new(true));
            failure.unwrap_err().what_next().unwrap().to_owned()
        };
        let moved = Some((1, 2));
        assert!(next(FailureKind::Cancelled, moved).starts_with("ask bob"));
        assert!(next(FailureKind::Broken, moved).starts_with("send the file again;"));
        let back = next(FailureKind::Unanswered, None);
        assert!(back.starts_with("send it again when bob is back"));
    }

    #[test]
    fn only_files_can_be_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a\u{1b}b");
        std::fs::write(&file, "x").unwrap();
        let (path, name) = sendable(&file).unwrap();
        assert!(path.is_absolute());
        assert_eq!(name, "a␛b");
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let no_text = OsStr::from_bytes(b"a\xff.txt");
        let no_text = folder.path().join(no_text);
        std::fs::write(&no_text, "x").unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        // Without an error it would be sent as an empty file.
        if Path::new("/proc/cpuinfo").exists() {
            let failure = sendable(Path::new("/proc/cpuinfo")).unwrap_err();
            assert_eq!(failure.exit(), Exit::File);
            assert_eq!(
                failure.why(),
                Some("its length is not known before it is read")
            );
        }
        for bad in [
            folder.path().to_owned(),
            folder.path().join("none"),
            "/dev/null".into(),
            pipe,
            no_text,
            socket,
        ] {
            let failure = sendable(&bad).unwrap_err();
            assert_eq!(failure.exit(), Exit::File);
            assert!(failure.what_next().is_some());
        }
    }
}
