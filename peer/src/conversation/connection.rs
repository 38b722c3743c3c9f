//! Whether the control connection is lost.

use crate::node::command::ConnectionState;

/// What a person is told of the control connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionChange {
    /// It was up, or never up yet, and is down.
    Lost {
        /// Why, in words from outside.
        reason: String,
        /// The node tries again by itself; otherwise a person has to act first.
        is_retried: bool,
    },
    /// Where the server should be, another key was shown. The node tries again by itself.
    OtherServer {
        /// Names both keys.
        reason: String,
    },
    /// It was lost and is up.
    Restored,
}

/// Turns the states of the control connection into what is news: once that it is lost, once that it is not
/// tried again, once that another server is in its place, once that it is back, and nothing of the attempts
/// between.
#[derive(Debug, Default)]
pub(crate) struct ConnectionWatch {
    told: Told,
}

/// What a person knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Lost,
    GivenUp,
    OtherServer,
}

impl ConnectionWatch {
    /// Tells whether it is lost now.
    pub(crate) const fn is_lost(&self) -> bool {
        matches!(self.told, Told::Lost | Told::GivenUp | Told::OtherServer)
    }

    /// Takes the next state.
    pub(crate) fn on_state(&mut self, state: &ConnectionState) -> Option<ConnectionChange> {
        let (tells, change) = match state {
            ConnectionState::Offline {
                reason,
                is_other_server: true,
                ..
            } => {
                let reason = reason.clone();
                (Told::OtherServer, ConnectionChange::OtherServer { reason })
            }
            ConnectionState::Offline {
                reason, retry_in_s, ..
            } => {
                let is_retried = retry_in_s.is_some();
                let tells = if is_retried {
                    Told::Lost
                } else {
                    Told::GivenUp
                };
                let reason = reason.clone();
                (tells, ConnectionChange::Lost { reason, is_retried })
            }
            ConnectionState::Online => (Told::Nothing, ConnectionChange::Restored),
            ConnectionState::Connecting => return None,
        };
        let told = std::mem::replace(&mut self.told, tells);
        (told != tells).then_some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_not_told_again() {
        let mut watch = ConnectionWatch::default();
        let offline = |reason: &str, is_other_server| ConnectionState::Offline {
            reason: reason.to_owned(),
            is_other_server,
            retry_in_s: Some(1),
        };
        let lost = |reason: &str| ConnectionChange::Lost {
            reason: reason.to_owned(),
            is_retried: true,
        };
        let out = ConnectionState::Offline {
            reason: "not logged in".to_owned(),
            is_other_server: false,
            retry_in_s: None,
        };
        let given_up = ConnectionChange::Lost {
            reason: "not logged in".to_owned(),
            is_retried: false,
        };
        let other = ConnectionChange::OtherServer {
            reason: "two keys".to_owned(),
        };
        for (state, told) in [
            (ConnectionState::Online, None),
            (offline("gone", false), Some(lost("gone"))),
            (ConnectionState::Connecting, None),
            (offline("refused", false), None),
            (offline("two keys", true), Some(other.clone())),
            (ConnectionState::Connecting, None),
            (offline("two keys", true), None),
            (offline("gone again", false), Some(lost("gone again"))),
            (offline("two keys", true), Some(other)),
            (offline("gone", false), Some(lost("gone"))),
            (ConnectionState::Connecting, None),
            (out.clone(), Some(given_up)),
            (out, None),
            (ConnectionState::Online, Some(ConnectionChange::Restored)),
            (ConnectionState::Online, None),
        ] {
            assert_eq!(watch.on_state(&state), told, "{state:?}");
        }
    }
}
