//! `status` and `list`.

use std::collections::BTreeMap;

use common::id::{AccountName, DeviceName};
use serde::Serialize;

use super::Place;
use super::node_handle::NodeHandle;
use crate::args::List;
use crate::client::{CallError, Happening};
use crate::config::{CALL_TIMEOUT, READY_TIMEOUT, shown_path};
use crate::conversation::connection::ConnectionWatch;
use crate::failure::{Exit, Failure};
use crate::node::command::{
    Command, CommandError, ConnectionState, Event, KeyState, Listed, NodeStatus, PresenceView,
    Reply,
};
use crate::profile::{Settings, Trust};
use crate::ui::{Screen, line};
use common::os::clock::unix_time;
use common::wire::rendezvous::Status;

/// What `list` does, in the infinitive.
const DOING: &str = "list who is online";

#[derive(Serialize)]
struct StatusView<'a> {
    profile: &'a std::path::Path,
    server: String,
    server_fingerprint: Option<String>,
    device_name: &'a str,
    /// Whose profile it is, logged in or not.
    profile_account: Option<&'a AccountName>,
    #[serde(flatten)]
    node: &'a NodeStatus,
}

/// Shows who and where this device is. An unreachable server is part of the answer, not a failure.
pub(super) fn status(place: &Place, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "show the status";
    let mut session = match place.open(DOING) {
        Ok(session) => session,
        Err(failure) => return Err(without_server(place, failure, screen)),
    };
    if session.is_owner() {
        // A node that has just started gets a moment to connect.
        match session.try_call(&Command::WaitReady, READY_TIMEOUT) {
            Ok(_) | Err(CallError::Refused(_) | CallError::TimedOut) => {}
            Err(error) => return Err(Failure::of_call(DOING, error)),
        }
    }
    let Reply::Status(node) = session.call(DOING, &Command::Status)? else {
        return Err(Failure::unexpected_reply(DOING));
    };
    let settings = session.settings();
    let fingerprint = match settings.trust {
        Trust::Pinned => place.profile.known_server(&settings.server())?,
        Trust::SystemRoots => None,
    };
    let fingerprint = fingerprint.map(|fingerprint| fingerprint.to_string());
    screen.data(&StatusView {
        profile: place.profile.folder(),
        server: settings.server().to_string(),
        server_fingerprint: fingerprint.clone(),
        device_name: settings.device_name.as_str(),
        profile_account: settings.account.as_ref(),
        node: &node,
    })?;
    let trust = fingerprint.unwrap_or_else(|| "verified by this system's roots".to_owned());
    for row in status_rows(place, settings, &trust, &node, screen) {
        screen.say(row)?;
    }
    session.tell_notices(screen);
    Ok(if node.account.is_some() {
        Exit::Done
    } else {
        Exit::NotLoggedIn
    })
}

/// The profile whose server's key is forgotten, as far as it is known without a node. Returns what is to be done.
fn without_server(place: &Place, failure: Failure, screen: &Screen) -> Failure {
    let Ok(Some(settings)) = place.profile.settings() else {
        return failure;
    };
    if failure.exit() != Exit::ServerKey || screen.is_json() {
        return failure;
    }
    let account = settings
        .account
        .as_ref()
        .map_or("none", AccountName::as_str);
    let rows = [
        ("account", account.to_owned()),
        (
            "state",
            "offline: no key of the server is trusted".to_owned(),
        ),
        ("server", settings.server().to_string()),
        ("profile", shown_path(place.profile.folder())),
    ];
    for (name, value) in rows {
        // Where this cannot be shown, the failure is.
        let _ = screen.say(line::labelled(name, &value, &screen.look));
    }
    failure
}

fn status_rows(
    place: &Place,
    settings: &Settings,
    trust: &str,
    node: &NodeStatus,
    screen: &Screen,
) -> Vec<String> {
    let look = &screen.look;
    let device = common::text::inline(settings.device_name.as_str());
    let server = format!("{}  {trust}", settings.server());
    let mut rows = line::node_status(node, settings.account.as_ref(), &server, look);
    // Behind the server.
    rows.insert(3, ("device", format!("{device}  {}", node.fingerprint)));
    rows.push(("profile", shown_path(place.profile.folder())));
    let rows = rows.into_iter();
    rows.map(|(name, value)| line::labelled(name, &value, look))
        .collect()
}

/// Shows who is online, and with `--watch` who comes and leaves.
pub(super) fn list(place: &Place, args: &List, screen: &Screen) -> Result<Exit, Failure> {
    let mut session = place.open(DOING)?;
    session.ready_in_sight(DOING, screen)?;
    if args.watch {
        session.call(DOING, &Command::Watch)?;
    }
    let Reply::Directory(mut devices) = session.ask_server(DOING, &Command::List, screen)? else {
        return Err(Failure::unexpected_reply(DOING));
    };
    if devices.iter().all(|device| !device.is_self) {
        devices.extend(this_device(&mut session, DOING)?);
        devices.sort_by(|one, other| one.account.cmp(&other.account));
    }
    for device in &devices {
        if args.watch {
            // The same shape as of those who come later.
            let online = PresenceView::Online(device.clone());
            screen.data(&Event::Presence(online))?;
        } else {
            screen.data(device)?;
        }
    }
    let columns = screen.look.columns();
    for row in line::directory(&devices, args.fingerprints, columns, &screen.look) {
        screen.say(row)?;
    }
    if args.watch {
        return watch(&mut session, devices, screen);
    }
    session.tell_notices(screen);
    Ok(Exit::Done)
}

/// This device as it has announced itself. The server lists one that has done so several times in a row, as
/// short commands do, only some seconds later.
fn this_device(session: &mut NodeHandle, doing: &str) -> Result<Option<Listed>, Failure> {
    let Reply::Status(node) = session.call(doing, &Command::Status)? else {
        return Err(Failure::unexpected_reply(doing));
    };
    let device = session.settings().device_name.clone();
    Ok(node.account.map(|account| Listed {
        account,
        device,
        fingerprint: node.fingerprint,
        key: KeyState::Known,
        is_verified: false,
        status: Status::Available,
        since: unix_time(),
        endpoints: node.endpoints,
        is_self: true,
    }))
}

fn watch(session: &mut NodeHandle, online: Vec<Listed>, screen: &Screen) -> Result<Exit, Failure> {
    let mut connection = ConnectionWatch::default();
    let mut present = Present::new(online);
    loop {
        let event = match session.next(None) {
            Some(Happening::Event(event)) => event,
            Some(Happening::Gone(_)) => {
                if session.revive()? {
                    screen.note(screen.error_look.dim(line::TOOK_OVER));
                }
                watch_again(session, DOING)?;
                continue;
            }
            Some(Happening::Signal(signal)) => return Err(Failure::signal(signal)),
            Some(Happening::Typed(_) | Happening::NotText | Happening::Handled(_)) | None => {
                continue;
            }
        };
        match &event {
            Event::Presence(change) => {
                let Some(left) = present.on_change(change) else {
                    continue;
                };
                screen.data(&event)?;
                let text = line::presence(change, left.as_ref(), unix_time(), &screen.look);
                screen.say(text)?;
            }
            Event::Connection(state) => {
                screen.data(&event)?;
                if let Some(change) = connection.on_state(state) {
                    screen.note(line::connection_change(&change, &screen.error_look));
                }
                if is_over(state) {
                    // Unless somebody has logged in again meanwhile.
                    session.ready(DOING)?;
                }
            }
            Event::FailedLogins(_)
            | Event::Enrolled(_)
            | Event::NewKey { .. }
            | Event::NotApproved { .. }
            | Event::OtherAccount { .. }
            | Event::Approval { .. }
            | Event::DeviceApproved { .. }
            | Event::RelayOff => {
                screen.data(&event)?;
                if let Some(text) = line::warning(&event, &screen.error_look) {
                    screen.note(text);
                }
            }
            Event::Message(_)
            | Event::Recorded(_)
            | Event::Nearby { .. }
            | Event::Path(_)
            | Event::Addressed { .. }
            | Event::MessageState { .. }
            | Event::Withdrawn { .. }
            | Event::Offer(_)
            | Event::Transfer { .. } => {}
        }
    }
}

/// The devices that were shown as online, by their fingerprints: who leaves is told without a name.
struct Present(BTreeMap<String, DeviceName>);

impl Present {
    fn new(online: Vec<Listed>) -> Self {
        let named = |device: Listed| (device.fingerprint, device.device);
        Self(online.into_iter().map(named).collect())
    }

    /// Somebody comes or leaves: returns the name of the device that leaves, if one does; `None` where it was never
    /// shown, so that there is nothing to tell.
    fn on_change(&mut self, change: &PresenceView) -> Option<Option<DeviceName>> {
        match change {
            PresenceView::Online(device) => {
                self.0
                    .insert(device.fingerprint.clone(), device.device.clone());
                Some(None)
            }
            PresenceView::Offline { fingerprint, .. } => self.0.remove(fingerprint).map(Some),
        }
    }
}

/// Tells whether there will be no session before a person acts.
pub(super) const fn is_over(state: &ConnectionState) -> bool {
    match state {
        ConnectionState::Offline { retry_in_s, .. } => retry_in_s.is_none(),
        ConnectionState::Connecting | ConnectionState::Online => false,
    }
}

/// A new node watches nobody yet.
pub(super) fn watch_again(session: &mut NodeHandle, doing: &str) -> Result<(), Failure> {
    match session.try_call(&Command::Watch, CALL_TIMEOUT) {
        Ok(_) | Err(CallError::TimedOut | CallError::Refused(CommandError::Unreachable(_))) => {
            Ok(())
        }
        Err(error) => Err(session.failure(doing, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_leaves_who_was_not_there() {
        let dave = Listed {
            account: "dave".parse().unwrap(),
            device: DeviceName::lossy("laptop"),
            fingerprint: "SHA256:d".to_owned(),
            key: KeyState::Known,
            is_verified: false,
            status: Status::Available,
            since: unix_time(),
            endpoints: Vec::new(),
            is_self: false,
        };
        let leaves = PresenceView::Offline {
            account: dave.account.clone(),
            fingerprint: dave.fingerprint.clone(),
        };
        let mut present = Present::new(Vec::new());
        assert_eq!(present.on_change(&leaves), None);
        assert_eq!(
            present.on_change(&PresenceView::Online(dave.clone())),
            Some(None)
        );
        assert_eq!(present.on_change(&leaves), Some(Some(dave.device.clone())));
        assert_eq!(present.on_change(&leaves), None, "once");
        let mut present = Present::new(vec![dave.clone()]);
        assert_eq!(present.on_change(&leaves), Some(Some(dave.device)));
    }
}
