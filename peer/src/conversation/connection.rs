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
    /// It was lost and is up.
    Restored,
}

/// Turns the states of the control connection into what is news: once that it is lost, once that it is
/// back, and nothing of the attempts between.
#[derive(Debug, Default)]
pub(crate) struct ConnectionWatch {
    is_lost: bool,
}

impl ConnectionWatch {
    /// Takes the next state.
    pub(crate) fn on_state(&mut self, state: &ConnectionState) -> Option<ConnectionChange> {
        match state {
            ConnectionState::Offline { reason, retry_in_s } if !self.is_lost => {
                self.is_lost = true;
                Some(ConnectionChange::Lost {
                    reason: reason.clone(),
                    is_retried: retry_in_s.is_some(),
                })
            }
            ConnectionState::Online if self.is_lost => {
                self.is_lost = false;
                Some(ConnectionChange::Restored)
            }
            ConnectionState::Connecting
            | ConnectionState::Online
            | ConnectionState::Offline { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_told_once() {
        let mut watch = ConnectionWatch::default();
        let offline = ConnectionState::Offline {
            reason: "gone".to_owned(),
            retry_in_s: Some(1),
        };
        let lost = ConnectionChange::Lost {
            reason: "gone".to_owned(),
            is_retried: true,
        };
        for (state, told) in [
            (&ConnectionState::Online, None),
            (&offline, Some(lost)),
            (&ConnectionState::Connecting, None),
            (&offline, None),
            (&ConnectionState::Online, Some(ConnectionChange::Restored)),
            (&ConnectionState::Online, None),
        ] {
            assert_eq!(watch.on_state(state), told, "{state:?}");
        }
    }
}
