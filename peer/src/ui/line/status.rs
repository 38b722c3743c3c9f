//! What a node says of itself, for `status` and a chat.

use common::id::AccountName;
use common::text::{self, inline};
use common::wire::rendezvous::Refusal;

use super::notices::approval_of;
use super::{endpoints, link, transfer};
use crate::failure::register_anew;
use crate::node::PathRule;
use crate::node::command::{Approval, CommandError, ConnectionState, NodeStatus};
use crate::port_mapping::{MappingCheck, PortMapping, PortMappingState};
use crate::ui::Look;

/// The state of the control connection as `status` shows it.
pub(super) fn connection(state: &ConnectionState) -> String {
    match state {
        ConnectionState::Connecting => "connecting".to_owned(),
        ConnectionState::Online => "online".to_owned(),
        ConnectionState::Offline {
            reason, retry_in_s, ..
        } => {
            let reason = inline(reason);
            match retry_in_s {
                Some(seconds) => {
                    let span = text::seconds((*seconds).into());
                    format!("offline: {reason}; next attempt in {span}")
                }
                None => format!("offline: {reason}"),
            }
        }
    }
}

/// What a node says of itself, each with its name. `owner` is whose profile it is.
pub(crate) fn node_status(
    node: &NodeStatus,
    owner: Option<&AccountName>,
    server: &str,
    look: &Look,
) -> Vec<(&'static str, String)> {
    let account = match (&node.account, owner) {
        (Some(account), _) => look.bold(account.as_str()),
        (None, Some(owner)) if is_because(&node.connection, &CommandError::AccountRemoved) => {
            look.yellow(&format!("{owner} was removed: {}", register_anew(owner)))
        }
        (None, Some(owner)) if is_because(&node.connection, &TOKEN_REFUSED) => {
            look.yellow(&format!(
                "{owner}; the server does not know this device any more: 'peer login {owner}' logs it in again, 'peer register {owner}' makes an account anew that was removed"
            ))
        }
        (None, Some(owner)) => look.yellow(&format!(
            "{owner}; this device is not logged in: 'peer login {owner}' logs it in again"
        )),
        (None, None) => look.yellow("none: this device is not logged in; run 'peer login NAME'"),
    };
    let outbox = match node.outbox {
        0 => "empty".to_owned(),
        1 => "1 message waits for its recipient".to_owned(),
        count => format!("{count} messages wait for their recipients"),
    };
    let mut rows = vec![("account", account)];
    match node.approval {
        Some(Approval::Approved) | None => {}
        Some(approval @ (Approval::Waiting | Approval::Revoked)) => {
            rows.push(("approval", approval_of(approval, &node.fingerprint, look)));
        }
    }
    rows.extend([
        ("state", connection(&node.connection)),
        ("server", inline(server).into_owned()),
        ("endpoints", endpoints(&node.endpoints, usize::MAX)),
        ("outbox", outbox),
    ]);
    match node.rule {
        PathRule::Any => {}
        PathRule::Relayed if node.lacks_relay() => rows.push((
            "path",
            look.yellow("through the relay alone, and this server has none: nobody can be reached"),
        )),
        PathRule::Relayed => rows.push(("path", "through the relay alone".to_owned())),
        PathRule::Direct => rows.push(("path", "directly alone".to_owned())),
    }
    if let PortMappingState::Mapped {
        mapping,
        is_announced,
        age_s,
        check,
    } = node.port_mapping
    {
        let said = mapped(&mapping, is_announced, age_s);
        let is_silent = if check == MappingCheck::Silent {
            "; it has not answered since"
        } else {
            ""
        };
        rows.push(("router", said + is_silent));
    }
    if !node.nearby.is_empty() {
        rows.push(("nearby", text::joined(&node.nearby)));
    }
    let links = node.links.iter();
    rows.extend(links.map(|view| ("link", link::in_words(view))));
    let files = node.transfers.iter();
    rows.extend(files.map(|view| ("file", transfer::of_node(view))));
    rows
}

/// The port that the router forwards to this device, as it said so many seconds ago.
fn mapped(mapping: &PortMapping, is_announced: bool, age_s: u64) -> String {
    let PortMapping {
        protocol, external, ..
    } = mapping;
    let of_no_use = if is_announced {
        ""
    } else {
        "; nobody outside reaches that: there is another NAT behind the router"
    };
    let said = text::seconds(age_s);
    format!("forwards {external} to this device, as it said {said} ago by {protocol}{of_no_use}")
}

/// What the server says to a device that has logged out elsewhere, or whose account is gone.
const TOKEN_REFUSED: CommandError = CommandError::Refused(Refusal::TokenRefused);

/// Tells whether there is no connection because of this error.
fn is_because(state: &ConnectionState, error: &CommandError) -> bool {
    match state {
        ConnectionState::Offline { reason, .. } => *reason == error.to_string(),
        ConnectionState::Connecting | ConnectionState::Online => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port_mapping::MappingProtocol;

    #[test]
    fn a_port_of_the_router_is_shown_with_whether_it_is_of_use() {
        let mapping = PortMapping {
            protocol: MappingProtocol::NatPmp,
            external: "203.0.113.9:7000".parse().unwrap(),
            gateway: [192, 168, 1, 1].into(),
        };
        let shown = "forwards 203.0.113.9:7000 to this device, as it said 5 min ago by NAT-PMP";
        assert_eq!(mapped(&mapping, true, 300), shown);
        assert!(mapped(&mapping, false, 0).contains("another NAT"));
    }
}
