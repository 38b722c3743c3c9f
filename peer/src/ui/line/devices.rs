//! Devices of one's own account.

use common::text::{Align, inline, table};

use crate::node::command::{OwnDevice, OwnDeviceState};
use crate::ui::Look;

/// Devices under each other, each with its whole fingerprint, to be compared.
pub(crate) fn devices(devices: &[OwnDevice], columns: Option<usize>, look: &Look) -> Vec<String> {
    let mut rows = vec![["DEVICE", "STATE", "FINGERPRINT"].map(str::to_owned)];
    rows.extend(devices.iter().map(|device| {
        let name = device.name.as_ref();
        let name = name.map_or("-".into(), |name| inline(name.as_str()));
        // Behind the name, a name could have it, too.
        let mark = match (device.is_this, device.is_online) {
            (true, _) => "this one, ",
            (false, true) => "online, ",
            (false, false) => "",
        };
        [
            name.into_owned(),
            format!("{mark}{}", state(device, devices)),
            device.fingerprint.clone(),
        ]
    }));
    let mut lines = table(&rows, [Align::Left; 3], columns);
    if let Some(heads) = lines.first_mut() {
        *heads = look.dim(heads);
    }
    lines
}

fn state(device: &OwnDevice, devices: &[OwnDevice]) -> String {
    match device.state {
        OwnDeviceState::Waiting => "waits for approval".to_owned(),
        OwnDeviceState::Revoked => "revoked".to_owned(),
        OwnDeviceState::Approved => match &device.approved_by {
            None => "approved".to_owned(),
            Some(by) => format!("approved by {}", approver(by, devices)),
        },
    }
}

/// Of a fingerprint as much as tells a device from the others in a list.
pub(super) fn beginning(fingerprint: &str) -> String {
    const LEN: usize = "SHA256:".len() + 8;
    let beginning: String = fingerprint.chars().take(LEN).collect();
    inline(&beginning).into_owned()
}

/// Who has approved a device, as briefly as it can be told.
fn approver(fingerprint: &str, devices: &[OwnDevice]) -> String {
    let mut others = devices.iter();
    match others.find(|other| other.fingerprint == *fingerprint) {
        None => "the recovery code".to_owned(),
        Some(OwnDevice {
            name: Some(name), ..
        }) => inline(name.as_str()).into_owned(),
        Some(OwnDevice { name: None, .. }) => beginning(fingerprint),
    }
}

#[cfg(test)]
mod tests {
    use common::id::DeviceName;

    use super::*;

    #[test]
    fn devices_are_told_with_who_approved_them() {
        let device = |name: Option<&str>, fingerprint: &str, by: Option<&str>, state| OwnDevice {
            name: name.map(DeviceName::lossy),
            fingerprint: fingerprint.to_owned(),
            state,
            approved_by: by.map(str::to_owned),
            is_this: false,
            is_online: state == OwnDeviceState::Waiting,
        };
        let mut all = [
            device(None, "SHA256:cccccccccc", None, OwnDeviceState::Waiting),
            device(
                None,
                "SHA256:aaaaaaaaaa",
                Some("SHA256:rrrr"),
                OwnDeviceState::Approved,
            ),
            device(
                Some("phone"),
                "SHA256:bbbbbbbbbb",
                Some("SHA256:aaaaaaaaaa"),
                OwnDeviceState::Approved,
            ),
            device(
                Some("old"),
                "SHA256:dddddddddd",
                Some("SHA256:bbbbbbbbbb"),
                OwnDeviceState::Revoked,
            ),
        ];
        all[1].is_this = true;
        all[0].name = Some(DeviceName::lossy("new\u{1b}[2J (this one)"));
        let lines = devices(&all, None, &Look::plain());
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert!(
            !lines.iter().any(|line| line.contains('\u{1b}')),
            "{lines:?}"
        );
        assert!(lines[1].contains("online, waits for approval"), "{lines:?}");
        assert!(
            lines[2].contains("this one, approved by the recovery code"),
            "{lines:?}"
        );
        assert!(
            lines[3].contains("approved by SHA256:aaaaaaaa "),
            "{lines:?}"
        );
        assert!(lines[4].contains("revoked"), "{lines:?}");
    }
}
