//! `devices`, `verify`, and what a log-in says of both: who this account's devices are, and who others are.

use std::fmt::Display;
use std::path::Path;

use common::os::private::{self, Durability};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use zeroize::Zeroizing;

use super::Place;
use super::node_handle::NodeHandle;
use crate::args::{Devices, DevicesAction, NewName, Verify};
use crate::config::shown_path;
use crate::failure::{Exit, Failure};
use crate::node::command::{
    Approval, Command, DevicesView, OwnDeviceState, PasswordText, Reply, SafetyView,
};
use crate::recovery::RecoveryCode;
use crate::ui::question::recovery_code;
use crate::ui::{Screen, line};

/// Lists the devices of this account, approves one or revokes one.
pub(super) fn devices(place: &Place, args: Devices, screen: &Screen) -> Result<Exit, Failure> {
    let (doing, command) = match args.action {
        None => return list(place, screen),
        Some(DevicesAction::Approve(device)) => {
            let device = device.device;
            ("approve the device", Command::Approve { device })
        }
        Some(DevicesAction::Name(NewName { device, name })) => {
            ("name the device", Command::Name { device, name })
        }
        Some(DevicesAction::Revoke(device)) => {
            let device = device.device;
            ("revoke the device", Command::Revoke { device })
        }
    };
    let mut session = place.open(doing)?;
    session.ready_in_sight(doing, screen)?;
    session.ask_server(doing, &command, screen)?;
    show(&view(&mut session, doing, screen)?, screen)?;
    session.tell_notices(screen);
    Ok(Exit::Done)
}

fn list(place: &Place, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "list the devices";
    let mut session = place.open(DOING)?;
    session.ready_in_sight(DOING, screen)?;
    show(&view(&mut session, DOING, screen)?, screen)?;
    session.tell_notices(screen);
    Ok(Exit::Done)
}

fn view(session: &mut NodeHandle, doing: &str, screen: &Screen) -> Result<DevicesView, Failure> {
    let Reply::Devices(view) = session.ask_server(doing, &Command::Devices, screen)? else {
        return Err(Failure::unexpected_reply(doing));
    };
    Ok(view)
}

fn show(view: &DevicesView, screen: &Screen) -> Result<(), Failure> {
    for device in &view.devices {
        screen.data(device)?;
    }
    for row in line::devices(&view.devices, screen.look.columns(), &screen.look) {
        screen.say(row)?;
    }
    let is_waiting = |state| state == OwnDeviceState::Waiting;
    if view
        .devices
        .iter()
        .any(|device| is_waiting(device.state) && !device.is_this)
    {
        screen.note(screen.error_look.dim(
            "Compare the fingerprint of a device that waits with what 'peer status' says there. If it is yours: 'peer devices approve FINGERPRINT'. If not, somebody knows the password; it gets nothing while nobody approves it.",
        ));
    }
    if view.identity.is_none() {
        screen.note("This account has no recovery code yet: 'peer login NAME' makes one.");
    }
    Ok(())
}

/// Shows the safety number with an account, and notes whether a person has compared it.
pub(super) fn verify(place: &Place, args: Verify, screen: &Screen) -> Result<Exit, Failure> {
    let Verify {
        account,
        matches,
        forget,
    } = args;
    let doing = format!("verify {account}");
    let mut session = place.open(&doing)?;
    session.ready_in_sight(&doing, screen)?;
    let command = if matches || forget {
        Command::Verify {
            account,
            is_verified: matches,
        }
    } else {
        Command::Safety { account }
    };
    let Reply::Safety(view) = session.ask_server(&doing, &command, screen)? else {
        return Err(Failure::unexpected_reply(&doing));
    };
    screen.data(&view)?;
    screen.prose(&safety(&view, screen))?;
    if let Some(other) = &view.other {
        screen.note(screen.error_look.red(&changed(&view, other)));
        return Ok(Exit::Other);
    }
    session.tell_notices(screen);
    Ok(Exit::Done)
}

fn safety(view: &SafetyView, screen: &Screen) -> String {
    let groups: Vec<&str> = view.number.split(' ').collect();
    let rows = groups.chunks(4).map(|row| format!("  {}", row.join(" ")));
    let rows = rows.collect::<Vec<_>>().join("\n");
    let name = screen.look.bold(view.account.as_str());
    let end = if view.is_verified {
        screen.look.green("You have compared it.")
    } else {
        format!(
            "Compare it with {name}, who runs 'peer verify' with your name, in person or by telephone. If it is the same: 'peer verify {} --matches'.",
            view.account
        )
    };
    let code = match screen.look.columns() {
        Some(columns) if columns >= QR_COLUMNS => qr(&view.number),
        Some(_) | None => String::new(),
    };
    let number = screen.look.bold(&rows);
    // The digits come last: the code may fill a screen.
    format!("Safety number with {name}:\n{code}{number}\n{end}")
}

/// Columns of the code that a telephone reads, with the quiet around it: 25 modules and four on either side.
const QR_COLUMNS: usize = 33;

/// The digits for the camera of a telephone, which shows them to be compared.
fn qr(number: &str) -> String {
    let digits = number.replace(' ', "");
    let code = QrCode::with_error_correction_level(digits, EcLevel::M);
    let code = code.expect("60 digits fit a QR code");
    // The light modules are drawn, as most terminals are dark.
    let mut drawing = code.render::<Dense1x2>();
    let drawn = drawing
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark);
    let drawn = drawn.build();
    format!("{drawn}\n")
}

fn changed(view: &SafetyView, other: &str) -> String {
    let name = &view.account;
    format!(
        "{name} IS SOMEBODY ELSE THAN BEFORE. The server names another account by this name, with which the safety number is {other}. Ask {name} by another way what has happened; then 'peer verify {name} --matches' goes on with the new one."
    )
}

/// Somebody is logged in by then.
const APPROVING: &str = "approve this device with the recovery code";

/// What follows a registration or a log-in: the account gets its recovery code if it has none, and a recovery code in
/// a file approves this device.
pub(super) fn identify(
    session: &mut NodeHandle,
    doing: &str,
    recovery_file: Option<&Path>,
    screen: &Screen,
) -> Result<(), Failure> {
    let devices = view(session, doing, screen)?;
    if devices.identity.is_none() {
        return found(session, doing, recovery_file, screen);
    }
    let own = devices.devices.iter().find(|device| device.is_this);
    match (own.map(|own| own.state), recovery_file) {
        (Some(OwnDeviceState::Approved), _) => Ok(()),
        (_, Some(file)) => {
            let code = PasswordText(recovery_code(file, screen)?);
            session.ask_server(APPROVING, &Command::Recover { code }, screen)?;
            screen.prose("The recovery code has approved this device.")?;
            Ok(())
        }
        (state, None) => {
            let approval = match state {
                Some(OwnDeviceState::Revoked) => Approval::Revoked,
                Some(OwnDeviceState::Approved | OwnDeviceState::Waiting) | None => {
                    Approval::Waiting
                }
            };
            let own = own.map(|own| own.fingerprint.clone()).unwrap_or_default();
            screen.note(line::approval_of(approval, &own, &screen.error_look));
            Ok(())
        }
    }
}

/// Gives the account its recovery code: in a file, or on the screen, once.
fn found(
    session: &mut NodeHandle,
    doing: &str,
    file: Option<&Path>,
    screen: &Screen,
) -> Result<(), Failure> {
    let code = RecoveryCode::new(rand::random());
    let words = code.words();
    if let Some(file) = file {
        keep(file, &words)?;
    }
    let recovery = code.secret().public();
    let founded = session.ask_server(doing, &Command::Found { recovery }, screen);
    if let Err(failure) = founded {
        if let Some(file) = file {
            // It opens nothing.
            let _ = std::fs::remove_file(file);
        }
        return Err(failure);
    }
    if file.is_some() {
        return Ok(());
    }
    screen.data(&serde_json::json!({ "recovery_code": *words }))?;
    let rows = words
        .split(' ')
        .zip(1..)
        .map(|(word, number)| format!("{number:>2} {word:<8}"));
    let rows: Vec<String> = rows.collect();
    let rows = rows
        .chunks(4)
        .map(|row| format!("  {}", row.join("  ").trim_end()));
    screen.prose(&format!(
        "Your recovery code, which is shown once and kept nowhere:\n\n{}\n\nWrite it down. It approves a new device when you have none left, and revokes any device.",
        screen.look.bold(&rows.collect::<Vec<_>>().join("\n"))
    ))?;
    Ok(())
}

/// Makes sure that a recovery code does not take the place of something else.
pub(super) fn not_there(file: &Path) -> Result<(), Failure> {
    if file.exists() {
        return Err(not_kept(file, &"there is a file already"));
    }
    Ok(())
}

fn not_kept(file: &Path, why: &dyn Display) -> Failure {
    let path = shown_path(file);
    Failure::new(
        Exit::File,
        format!("could not write the recovery code to {path}"),
    )
    .because(why)
    .next("give the path of a file that does not exist yet, in a folder that you can write to")
}

/// Writes the words into a new file that nobody else can read.
fn keep(file: &Path, words: &str) -> Result<(), Failure> {
    not_there(file)?;
    let line = Zeroizing::new(format!("{words}\n"));
    private::write(file, line.as_bytes(), Durability::PowerLoss)
        .map_err(|error| not_kept(file, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safety_number_fits_a_narrow_screen_as_a_code() {
        let number = ["12345"; 12].join(" ");
        let drawn = qr(&number);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines.len(), QR_COLUMNS.div_ceil(2), "{drawn}");
        assert!(
            lines.iter().all(|line| line.chars().count() == QR_COLUMNS),
            "{drawn}"
        );
        assert!(drawn.chars().all(|it| " ▀▄█\n".contains(it)), "{drawn}");
    }
}
