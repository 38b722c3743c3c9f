//! What an account's owner has to know: who tried to log in, new devices, keys that are not what they were.

use common::id::{AccountName, DeviceName};
use common::text::{self, inline};
use common::wire::rendezvous::FailedLogins;

use crate::failure::{RELAY_OFF, RELAY_OFF_HELP};
use crate::node::command::{Approval, EnrolmentView, Event};
use crate::ui::Look;

/// What the account's owner has to know of devices, keys and options, in a line; `None` for an event of another kind.
pub(crate) fn notice(event: &Event, look: &Look) -> Option<String> {
    match event {
        Event::FailedLogins(failed) => Some(failed_logins(failed, look)),
        Event::Enrolled(device) => Some(enrolled(device, look)),
        Event::NewKey {
            account,
            fingerprint,
            known,
            is_approved,
        } => Some(new_key(account, fingerprint, *known, *is_approved, look)),
        Event::NotApproved {
            account,
            fingerprint,
        } => Some(not_approved(account, fingerprint, look)),
        Event::OtherAccount { account } => Some(other_account(account, look)),
        Event::Approval {
            approval,
            fingerprint,
        } => Some(approval_of(*approval, fingerprint, look)),
        Event::DeviceApproved {
            device,
            fingerprint,
            by_recovery,
        } => Some(device_approved(
            device.as_ref(),
            fingerprint,
            *by_recovery,
            look,
        )),
        Event::RelayOff => Some(relay_off(look)),
        Event::Connection(_)
        | Event::Presence(_)
        | Event::Nearby { .. }
        | Event::Path(_)
        | Event::Message(_)
        | Event::Recorded(_)
        | Event::Addressed { .. }
        | Event::MessageState { .. }
        | Event::Withdrawn { .. }
        | Event::Offer(_)
        | Event::Transfer { .. } => None,
    }
}

/// The same without a first contact, of which a command that does one thing says nothing.
pub(crate) fn warning(event: &Event, look: &Look) -> Option<String> {
    let is_first = matches!(event, Event::NewKey { known: 0, .. });
    notice(event, look).filter(|_| !is_first)
}

/// Warns that nobody can be reached.
pub(crate) fn relay_off(look: &Look) -> String {
    look.yellow(&format!(
        "Nobody can be reached: {RELAY_OFF}. What helps: {RELAY_OFF_HELP}."
    ))
}

/// Failed log-ins by others, and whether they led to a block.
pub(crate) fn failed_logins(failed: &FailedLogins, look: &Look) -> String {
    let times = match failed.count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let block = match failed.blocked_for_s {
        0 => String::new(),
        seconds => format!(
            " Unknown devices are blocked for {}; this one is not.",
            text::seconds(seconds.into())
        ),
    };
    look.yellow(&format!(
        "Somebody failed to log in to this account {times} since you were last told, the last time at {}.{block}",
        text::stamp(failed.last, &look.zone)
    ))
}

/// Another device of this account, and what to do whether it is the owner's or not.
fn enrolled(device: &EnrolmentView, look: &Look) -> String {
    let fingerprint = inline(&device.fingerprint);
    look.yellow(&format!(
        "NEW DEVICE of your account: '{}' logged in at {}, with the fingerprint {fingerprint}. If it shows you the same one ('peer status' there), it is yours: 'peer devices approve {fingerprint}'. If not, somebody knows your password; it gets nothing while nobody approves it.",
        inline(device.device.as_str()),
        text::stamp(device.at, &look.zone)
    ))
}

/// A key that was never seen before; `known` counts those of its account that were.
pub(crate) fn new_key(
    account: &AccountName,
    fingerprint: &str,
    known: usize,
    is_approved: bool,
    look: &Look,
) -> String {
    let fingerprint = inline(fingerprint);
    if is_approved && known > 0 {
        return look.dim(&format!(
            "  {account} has one more device, which the account has approved: {fingerprint}."
        ));
    }
    if known == 0 {
        return look.dim(&format!(
            "  First contact with {account}, whose key {fingerprint} is trusted from now on. 'peer verify {account}' shows both of you the same number, if nobody is in between."
        ));
    }
    let devices = match known {
        1 => "1 device is".to_owned(),
        count => format!("{count} devices are"),
    };
    look.yellow(&format!(
        "NEW DEVICE of {account}: its key {fingerprint} was never seen before ({devices} known). Ask {account} over another channel whether it is theirs."
    ))
}

/// A device was turned away, since the account that it names has not approved it.
fn not_approved(account: &AccountName, fingerprint: &str, look: &Look) -> String {
    let fingerprint = inline(fingerprint);
    look.yellow(&format!(
        "A device that calls itself one of {account}'s ({fingerprint}) is not approved by {account}'s account. It gets nothing and is not heard; {account} can approve it with 'peer devices' on another device."
    ))
}

/// What one's own account says of this device.
pub(crate) fn approval_of(approval: Approval, fingerprint: &str, look: &Look) -> String {
    let fingerprint = inline(fingerprint);
    match approval {
        Approval::Approved => look.green("This device is approved by its account now."),
        Approval::Waiting => look.yellow(&format!(
            "This device is not approved yet: it sends nothing and gets nothing. Its fingerprint is {fingerprint}. On a device that is approved: 'peer devices approve {fingerprint}'. With the recovery code: 'peer login NAME --recovery-file FILE'."
        )),
        Approval::Revoked => look.red(
            "This device was revoked, which is for good: it sends nothing and gets nothing. Log in with another profile ('peer --profile NAME login').",
        ),
    }
}

/// Another device of one's own account was approved.
fn device_approved(
    device: Option<&DeviceName>,
    fingerprint: &str,
    by_recovery: bool,
    look: &Look,
) -> String {
    let name = device.map_or("-".into(), |name| inline(name.as_str()));
    let fingerprint = inline(fingerprint);
    if by_recovery {
        look.yellow(&format!(
            "THE RECOVERY CODE of your account has approved a device: '{name}' ({fingerprint}). It gets your messages from now on. If that was not you, somebody has your recovery code: 'peer devices revoke {fingerprint}', and have the operator make you a new account."
        ))
    } else {
        look.dim(&format!(
            "  '{name}' ({fingerprint}) is one of your devices now: another one has approved it."
        ))
    }
}

/// The server names another account by a name that is known.
fn other_account(account: &AccountName, look: &Look) -> String {
    look.red(&format!(
        "THE SERVER HAS ANOTHER ACCOUNT OF THE NAME {account} than the one you know. {account} has begun anew, or somebody deceives you. It gets nothing and is not heard. Ask {account} over another channel, and only then run 'peer verify {account}'."
    ))
}
