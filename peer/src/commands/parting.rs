//! What a program with the node still does for others of its profile before it ends.

use std::collections::BTreeSet;

use common::text::inline;
use signal_hook::consts::SIGCONT;

use super::node_handle::NodeHandle;
use crate::client::{CallError, Happening, now};
use crate::config::CALL_TIMEOUT;
use crate::node::command::{Command, Event, Reply, TransferState, TransferView};
use crate::ui::progress::Bars;
use crate::ui::{Screen, line};

/// Keeps the node until no file moves through it that another program of the profile sends or takes, and says
/// so. Any signal ends it, and the files with it, which is said, too. What this program asked for itself has
/// ended before: with which exit code is settled.
pub(super) fn serve_others(session: &mut NodeHandle, screen: &Screen) {
    let Ok(mut moving) = carried(session) else {
        return;
    };
    let mut told = BTreeSet::new();
    let mut bars = Bars::new(screen);
    while !moving.is_empty() {
        let new = moving.iter().filter(|view| told.insert(view.transfer));
        if new.count() > 0 {
            bars.around(|| screen.note(line::carried(&moving, &screen.error_look)));
        }
        match session.next(bars.poll_timeout()) {
            Some(Happening::Event(Event::Transfer { transfer, state })) => {
                let known = moving.iter_mut().find(|view| view.transfer == transfer);
                match (&state, known) {
                    (TransferState::Moving(moved), Some(view)) => {
                        let whom = (&*inline(&view.name), &view.with);
                        bars.advance(transfer, whom, *moved, now());
                        view.state = state;
                    }
                    (TransferState::Looking | TransferState::Waiting, _) => {}
                    // Another one began, or one has ended.
                    (_, _) => {
                        bars.end(transfer);
                        moving = match carried(session) {
                            Ok(moving) => moving,
                            Err(Interrupted) => break,
                        };
                    }
                }
            }
            // It goes on after a stop.
            Some(Happening::Signal(SIGCONT)) => {}
            Some(Happening::Signal(_)) => break,
            Some(Happening::Gone(_)) => return,
            Some(
                Happening::Event(_)
                | Happening::Typed(_)
                | Happening::NotText
                | Happening::Handled(_),
            ) => {}
            None => bars.handle_timeout(now()),
        }
    }
    drop(bars);
    if !moving.is_empty() {
        // The terminal shows "^C".
        screen.clear_row();
        screen.note(line::cut_off_for_others(&moving));
    }
}

/// A signal came while the node was asked.
struct Interrupted;

/// The files that move through a node of this program. An offer that nobody has answered is made again by its
/// own program.
fn carried(session: &mut NodeHandle) -> Result<Vec<TransferView>, Interrupted> {
    if !session.is_owner() {
        return Ok(Vec::new());
    }
    match session.try_call(&Command::Status, CALL_TIMEOUT) {
        Ok(Reply::Status(mut node)) => {
            node.transfers
                .retain(|view| matches!(view.state, TransferState::Moving(_)));
            Ok(node.transfers)
        }
        Err(CallError::Signal(_)) => Err(Interrupted),
        Ok(_) | Err(_) => Ok(Vec::new()),
    }
}
