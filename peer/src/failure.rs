//! How a command ends badly: an exit code, what happened, why, and what to do next.

use std::fmt;

use common::id::AccountName;
use common::text::inline;
use common::wire::rendezvous::Refusal;
use serde::Serialize;

use crate::client::CallError;
use crate::node::command::CommandError;

/// The exit codes.
mod exit;

pub(crate) use exit::Exit;

/// What nobody reaches anybody for: the option and the server exclude each other.
pub(crate) const RELAY_OFF: &str =
    "this server relays nothing, and --path relay permits no other way";
/// What helps against [`RELAY_OFF`].
pub(crate) const RELAY_OFF_HELP: &str = "leave out --path relay, or unset PEER_PATH, which shows this device's addresses to others; or ask the server's operator for its relay";

/// Why a command ends without having done what it was asked. All its texts are fit for a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    #[serde(serialize_with = "exit_code")]
    exit: Exit,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Failure {
    /// Says what could not be done: it begins with "could not".
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self {
            exit,
            what: inline(&what.to_string()).into_owned(),
            why: None,
            next: None,
        }
    }

    /// Adds the reason.
    #[must_use]
    pub(crate) fn because(mut self, why: impl fmt::Display) -> Self {
        self.why = Some(inline(&why.to_string()).into_owned());
        self
    }

    /// Adds what the person can do about it.
    #[must_use]
    pub(crate) fn next(mut self, next: impl fmt::Display) -> Self {
        self.next = Some(inline(&next.to_string()).into_owned());
        self
    }

    /// Ended by a signal.
    pub(crate) fn signal(signal: i32) -> Self {
        let exit = if signal == signal_hook::consts::SIGINT {
            Exit::Interrupted
        } else {
            Exit::Terminated
        };
        Self::new(exit, "interrupted")
    }

    /// What the program ends with because of it.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells whether there is nothing to say but what to do next, if anything: someone who presses Ctrl-C
    /// knows.
    pub(crate) const fn is_silent(&self) -> bool {
        matches!(self.exit, Exit::Done | Exit::Interrupted | Exit::Terminated)
    }

    /// What could not be done, one line.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The reason, if there is more to say than that it failed.
    pub(crate) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// What the person can do about it.
    pub(crate) fn what_next(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// A call to the node had no reply. `doing` says in the infinitive what for, "list who is online".
    pub(crate) fn of_call(doing: &str, error: CallError) -> Self {
        match error {
            CallError::Signal(signal) => Self::signal(signal),
            CallError::Refused(error) => Self::of_command(doing, &error),
            CallError::TimedOut => Self::new(Exit::Profile, format!("could not {doing} in time"))
                .because("the 'peer' program that owns this profile did not answer")
                .next("try again; if it stays like this, end the other 'peer' programs of this profile"),
            CallError::Gone(why) => Self::new(Exit::Profile, format!("could not {doing}"))
                .because(why)
                .next("try again; if it stays like this, end the other 'peer' programs of this profile"),
        }
    }

    /// The node refused a command.
    pub(crate) fn of_command(doing: &str, error: &CommandError) -> Self {
        let failure = |exit| Self::new(exit, format!("could not {doing}")).because(error);
        match error {
            CommandError::Refused(refusal) => Self::of_refusal(doing, *refusal),
            CommandError::NotLoggedIn => Self::not_logged_in(doing, None),
            CommandError::AccountRemoved => Self::account_removed(doing, None),
            CommandError::Stopping => failure(Exit::Profile).next("try again"),
            CommandError::Replaced => failure(Exit::Profile).next(
                "end the other program, or log in here with a profile of its own ('peer --profile NAME login')",
            ),
            CommandError::NotApproved { fingerprint } => {
                Self::new(Exit::NotApproved, format!("could not {doing}"))
                    .because("this device is not approved by its account yet")
                    .next(format!(
                        "on a device that is, run 'peer devices approve {fingerprint}'; with the recovery code, run 'peer login NAME --recovery-file FILE' here"
                    ))
            }
            CommandError::Revoked => failure(Exit::NotApproved)
                .next("log in with another profile ('peer --profile NAME login'), and have that device approved"),
            CommandError::WrongPassword => failure(Exit::Credentials)
                .next(
                "check the name, and type the password anew; an account that was removed is made anew by its operator or with 'peer register NAME'",
            ),
            CommandError::Invalid(_) => {
                failure(Exit::Usage).next(
                    "the reason says what to change; 'peer COMMAND --help' shows what can be given",
                )
            }
            CommandError::Unreachable(_) => failure(Exit::Unreachable).next(
                "check the network and the server's address in 'peer status', then try again",
            ),
            CommandError::ServerKeyChanged { expected, seen } => {
                Self::server_key_changed("", expected, seen)
            }
            CommandError::Upgrade { .. } => {
                failure(Exit::Other).next("upgrade the older of the two, then try again")
            }
            CommandError::UnknownAccount(_) => failure(Exit::Credentials)
                .next("check the name: 'peer list' shows who is online"),
            CommandError::PeerOffline(_) => failure(Exit::NotDelivered)
                .next("see who is online with 'peer list', and try again later"),
            CommandError::PeerUnreachable { .. } => failure(Exit::NotDelivered).next(
                "try again: the other device may be asleep, or its program stopped. Without the relay (--path direct, or a server that relays nothing) one of the two must be reachable: the same network, IPv6, or an open UDP port ('peer --udp')",
            ),
            CommandError::Transfer(_) => failure(Exit::Transfer).next("send the file again"),
            CommandError::NoSuchTransfer => {
                failure(Exit::Transfer).next("ask the sender to offer the file again")
            }
            CommandError::File(_) => {
                failure(Exit::File).next("check the path, its permissions and the free space")
            }
            CommandError::Store(_) => failure(Exit::File)
                .next("check the free space and the permissions of the profile's folder"),
            CommandError::TooMany(_) => failure(Exit::Other).next("try again when some have ended"),
        }
    }

    fn of_refusal(doing: &str, refusal: Refusal) -> Self {
        let failure = |exit| Self::new(exit, format!("could not {doing}")).because(refusal);
        match refusal {
            Refusal::WrongCredentials => failure(Exit::Credentials).next(
                "check the name and the password; after a few wrong ones the account is blocked for a while. An account that was removed is made anew by its operator or with 'peer register NAME'",
            ),
            Refusal::Blocked { retry_after_s } => {
                Self::new(Exit::Blocked, format!("could not {doing}: the account is blocked"))
                    .because(format!("too many failed log-ins; {retry_after_s} s are left"))
                    .next(format!(
                        "wait {retry_after_s} s, or get a one-time code with 'peer admit' on a device that is logged in and add --code CODE"
                    ))
            }
            Refusal::TokenRefused => Self::not_known_there(doing, None),
            Refusal::NotLoggedIn => Self::not_logged_in(doing, None),
            Refusal::RegistrationClosed => failure(Exit::Other)
                .next("ask the server's operator for an account, then run 'peer login NAME'"),
            Refusal::AccountExists => failure(Exit::Other)
                .next("choose another name, or run 'peer login' if the account is yours"),
            Refusal::DeviceLimit => {
                failure(Exit::Other).next("run 'peer logout' on a device that is no longer used")
            }
            Refusal::RegistrationLimit { .. } | Refusal::Busy { .. } | Refusal::ListAgain => {
                failure(Exit::Other).next("try again a little later")
            }
            Refusal::OutOfOrder | Refusal::LimitExceeded => failure(Exit::Other)
                .next("try again; if it happens again, the versions of peer and server may not fit"),
            Refusal::StoreFailed => failure(Exit::Other).next("tell the server's operator"),
            Refusal::NotApproved => failure(Exit::NotApproved)
                .next("run 'peer devices approve' on a device of the account that is approved"),
            Refusal::EntryRefused => failure(Exit::Other).next("try again: another device was faster"),
            Refusal::RelayOff => failure(Exit::Other)
                .next("ask the server's operator to let it relay, or open a port at one of the two sides"),
        }
    }

    /// Everything is to go through a relay that the server has not.
    pub(crate) fn relay_off(doing: &str) -> Self {
        Self::new(Exit::NotDelivered, format!("could not {doing}"))
            .because(RELAY_OFF)
            .next(RELAY_OFF_HELP)
    }

    /// This device has logged out, or was never logged in. `owner` is whose profile it is, if that
    /// is known.
    pub(crate) fn not_logged_in(doing: &str, owner: Option<&AccountName>) -> Self {
        let failure = Self::new(Exit::NotLoggedIn, format!("could not {doing}"))
            .because("this device is not logged in");
        match owner {
            Some(owner) => failure.next(format!(
                "run 'peer login {owner}'; another account needs another profile (--profile NAME)"
            )),
            None => {
                failure.next("run 'peer login NAME', or 'peer register NAME' for a new account")
            }
        }
    }

    /// The server refuses the device's token, and does not say why. `owner` is whose profile it is, if that is known.
    pub(crate) fn not_known_there(doing: &str, owner: Option<&AccountName>) -> Self {
        let name = owner.map_or("NAME", AccountName::as_str);
        Self::new(Exit::NotLoggedIn, format!("could not {doing}"))
            .because("this device is not logged in any more: its log-in has ended at the server, or its account was removed there")
            .next(format!(
                "run 'peer login {name}'; if there is no such account any more, ask the operator, or make it anew with 'peer register {name}'"
            ))
    }

    /// The account of this profile does not exist any more. `owner` is its name, if that is known.
    pub(crate) fn account_removed(doing: &str, owner: Option<&AccountName>) -> Self {
        let anew = owner.map_or_else(
            || "'peer register NAME' makes another one".to_owned(),
            register_anew,
        );
        Self::new(Exit::NotLoggedIn, format!("could not {doing}"))
            .because(CommandError::AccountRemoved)
            .next(format!(
                "{anew}; one of another name needs another profile (--profile NAME)"
            ))
    }

    /// The node's reply does not belong to the command: the process that owns the profile is of another
    /// version. `doing` is what was asked for, in the infinitive.
    pub(crate) fn unexpected_reply(doing: &str) -> Self {
        Self::new(Exit::Other, format!("could not {doing}"))
            .because(
                "the process that owns this profile is of another version and gave another answer",
            )
            .next("end all 'peer' programs of this profile, then try again")
    }

    /// The server is not the one that was trusted. `server` is empty for the profile's own.
    pub(crate) fn server_key_changed(server: &str, expected: &str, seen: &str) -> Self {
        let forget = format!("peer forget-server {server}");
        let forget = forget.trim_end();
        Self::new(
            Exit::ServerKey,
            "THE SERVER'S KEY HAS CHANGED. Nothing was sent to it.",
        )
        .because(format!(
            "trusted is {expected}, but {seen} was shown; the server was set up anew, or someone is in between"
        ))
        .next(
            format!("ask the server's operator for the fingerprint; only if it is the new one, run '{forget}' and log in again"),
        )
    }
}

/// What to do about an account that was removed.
pub(crate) fn register_anew(owner: &AccountName) -> String {
    format!("ask the operator; 'peer register {owner}' makes it anew where anybody may register")
}

fn exit_code<S: serde::Serializer>(exit: &Exit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(*exit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_documented_code() {
        let bob: AccountName = "bob".parse().unwrap();
        for (error, code) in [
            (CommandError::Refused(Refusal::WrongCredentials), 3),
            (CommandError::WrongPassword, 3),
            (
                CommandError::Refused(Refusal::Blocked { retry_after_s: 42 }),
                4,
            ),
            (CommandError::Unreachable("refused".into()), 5),
            (
                CommandError::ServerKeyChanged {
                    expected: "a".into(),
                    seen: "b".into(),
                },
                6,
            ),
            (
                CommandError::PeerUnreachable {
                    account: "carol".parse().unwrap(),
                    reason: "no answer".into(),
                },
                7,
            ),
            (CommandError::UnknownAccount(bob.clone()), 3),
            (CommandError::PeerOffline(bob), 7),
            (CommandError::Transfer("the link broke".into()), 9),
            (CommandError::File("gone".into()), 8),
            (CommandError::NoSuchTransfer, 9),
            (CommandError::NotLoggedIn, 10),
            (CommandError::AccountRemoved, 10),
            (CommandError::Stopping, 11),
            (CommandError::Replaced, 11),
            (CommandError::Refused(Refusal::TokenRefused), 10),
            (CommandError::Refused(Refusal::AccountExists), 1),
        ] {
            let failure = Failure::of_command("do it", &error);
            assert_eq!(failure.exit() as u8, code, "{error:?}");
            assert!(failure.why().is_some() && failure.what_next().is_some());
        }
    }

    #[test]
    fn a_silent_owner_of_the_profile_is_not_a_silent_server() {
        let failure = Failure::of_call("list", CallError::TimedOut);
        assert_eq!(failure.exit(), Exit::Profile);
        assert!(!failure.why().unwrap().contains("server"));
        assert!(failure.what_next().is_some());
    }

    #[test]
    fn a_block_names_the_seconds_left() {
        let refusal = CommandError::Refused(Refusal::Blocked { retry_after_s: 42 });
        let failure = Failure::of_command("log in", &refusal);
        assert!(failure.why().unwrap().contains("42 s"));
    }

    #[test]
    fn t05_a_reason_from_outside_is_made_harmless() {
        let error = CommandError::Unreachable("\u{1b}[2Jgone".into());
        let failure = Failure::of_command("do it", &error);
        assert!(!failure.why().unwrap().contains('\u{1b}'));
    }
}
