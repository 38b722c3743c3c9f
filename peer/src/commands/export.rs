//! `export`: the whole history, to be kept or read elsewhere.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use common::id::AccountName;
use common::limits::FEED_QUEUE_MAX;

use super::Place;
use super::history::new_day;
use super::node_handle::NodeHandle;
use crate::args::Export;
use crate::config::shown_path;
use crate::failure::{Exit, Failure};
use crate::node::command::{Command, Cursor, HistoryItem, Recorded, Reply};
use crate::ui::{Look, Screen, line, line_for_program};

const DOING: &str = "export the history";

/// Nobody but its owner reads what was said.
const FILE_MODE: u32 = 0o600;

/// Writes all messages, in the order in which this device got them. Needs no server.
pub(super) fn export(place: &Place, args: Export, screen: &Screen) -> Result<Exit, Failure> {
    let mut session = place.open(DOING)?;
    let Some(path) = args.output else {
        let mut day = None;
        every_message(&mut session, args.with.as_ref(), |item| {
            for row in rows(item, &mut day, &screen.look) {
                screen.say(row)?;
            }
            Ok(screen.data(item)?)
        })?;
        return Ok(Exit::Done);
    };
    let count = match into_file(&mut session, args.with.as_ref(), &path, screen) {
        Ok(count) => count,
        Err(NotWritten::Kept(failure)) => return Err(failure),
        Err(NotWritten::Begun(failure)) => {
            // Half of it under a whole one's name would be taken for all.
            let _ = fs::remove_file(&path);
            return Err(failure);
        }
    };
    let shown = shown_path(&path);
    screen.data(&serde_json::json!({ "exported": count, "path": path }))?;
    let messages = if count == 1 { "message" } else { "messages" };
    screen.prose(&format!("{count} {messages} exported to {shown}."))?;
    Ok(Exit::Done)
}

/// Why there is no file.
enum NotWritten {
    /// Whatever has its name is as it was.
    Kept(Failure),
    /// It is there in part.
    Begun(Failure),
}

fn into_file(
    session: &mut NodeHandle,
    with: Option<&AccountName>,
    path: &Path,
    screen: &Screen,
) -> Result<u64, NotWritten> {
    let file = create(path).map_err(|error| NotWritten::Kept(refused(path, &error)))?;
    let mut writer = BufWriter::new(file);
    // Colours and widths are the terminal's.
    let look = screen.look.for_file();
    let (mut day, mut count) = (None, 0_u64);
    every_message(session, with, |item| {
        count += 1;
        let written = if screen.is_json() {
            writeln!(writer, "{}", line_for_program(item))
        } else {
            let mut rows = rows(item, &mut day, &look).into_iter();
            rows.try_for_each(|row| writeln!(writer, "{row}"))
        };
        written.map_err(|error| failed(path, &error))
    })
    .map_err(NotWritten::Begun)?;
    let written = writer.into_inner().map_err(io::IntoInnerError::into_error);
    let written = written.and_then(|file| file.sync_all());
    written.map_err(|error| NotWritten::Begun(failed(path, &error)))?;
    Ok(count)
}

/// Hands each message on, in the order in which this device got them.
fn every_message(
    session: &mut NodeHandle,
    with: Option<&AccountName>,
    mut take: impl FnMut(&HistoryItem) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut after, limit) = (Cursor::START, FEED_QUEUE_MAX as u32);
    loop {
        let command = Command::Recorded { after, limit };
        let Reply::Recorded(page) = session.call(DOING, &command)? else {
            return Err(Failure::unexpected_reply(DOING));
        };
        let Some(last) = page.messages.last().map(|last| last.cursor) else {
            return Ok(());
        };
        for Recorded { item, .. } in &page.messages {
            if with.is_none_or(|with| item.with == *with) {
                take(item)?;
            }
        }
        after = last;
    }
}

/// A message for people, and the day before it if that is another than the one before.
fn rows(item: &HistoryItem, day: &mut Option<String>, look: &Look) -> Vec<String> {
    let begun = new_day(day, item.sent, look).map(|day| look.dim(&format!("--- {day} ---")));
    let mut rows: Vec<String> = begun.into_iter().collect();
    rows.push(line::message(item, look));
    rows
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    options.open(path)
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    if error.kind() == ErrorKind::AlreadyExists {
        return Failure::new(Exit::File, format!("could not {DOING}"))
            .because(format!("there is something named {}", shown_path(path)))
            .next("give another name, or move that away first");
    }
    failed(path, error)
}

fn failed(path: &Path, error: &impl Display) -> Failure {
    Failure::new(Exit::File, format!("could not {DOING}"))
        .because(format!("cannot write {}: {error}", shown_path(path)))
        .next("check the folder, its permissions and the free space")
}
