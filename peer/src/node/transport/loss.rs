//! Why links are lost.

use std::fmt;
use std::time::{Duration, Instant};

use common::limits::{LINK_IDLE_TIMEOUT, STANDSTILL_MIN};
use noq_proto::ConnectionError;

use super::{CloseReason, LinkId, Transport};

/// Why a link was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// This program was stopped, or the device asleep, for so long that the other side gave the link up.
    StoodStill(Duration),
    /// Anything else, for a person.
    Other(String),
}

impl Loss {
    pub(in crate::node) fn other(reason: &str) -> Self {
        Self::Other(reason.to_owned())
    }

    /// What became of whoever was at the other end of the link.
    pub(in crate::node) fn of_partner(&self, partner: impl fmt::Display, before: &str) -> String {
        match self {
            Self::StoodStill(_) => format!("the link to {partner} ended: {self}"),
            Self::Other(_) => format!("{partner} went away{before} ({self})"),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoodStill(span) => write!(
                f,
                "this program was stopped, or the device asleep, for {} s",
                span.as_secs()
            ),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

impl Transport {
    /// Nobody has called for `span`: the program was stopped, or the device asleep. Links that end for that
    /// do so soon.
    pub fn on_standstill(&mut self, span: Duration, now: Instant) {
        if span < STANDSTILL_MIN {
            return;
        }
        self.wakes_until = Some(now + LINK_IDLE_TIMEOUT);
        for link in self.links.values_mut() {
            link.stood_still = Some(span);
        }
    }

    /// Why a link is lost whose other end does not answer.
    pub fn loss_of_silence(&self, link: LinkId) -> Loss {
        let stood_still = self.links.get(&link).and_then(|link| link.stood_still);
        loss(&ConnectionError::TimedOut, stood_still)
    }

    /// Whatever ends from now on does so for another reason.
    pub(super) fn end_of_standstill(&mut self, now: Instant) {
        if self.wakes_until.take_if(|until| *until <= now).is_some() {
            for link in self.links.values_mut() {
                link.stood_still = None;
            }
        }
    }
}

/// Why QUIC lost a link.
pub(super) fn loss(error: &ConnectionError, stood_still: Option<Duration>) -> Loss {
    match (error, stood_still) {
        (ConnectionError::TimedOut | ConnectionError::Reset, Some(span)) => Loss::StoodStill(span),
        (error, _) => Loss::Other(describe(error)),
    }
}

/// Describes to a person why a link is lost.
fn describe(reason: &ConnectionError) -> String {
    const UNAUTHORISED: u64 = CloseReason::Unauthorised as u64;
    const PROTOCOL: u64 = CloseReason::Protocol as u64;
    const VERSION: u64 = CloseReason::Version as u64;
    const NOT_APPROVED: u64 = CloseReason::NotApproved as u64;
    match reason {
        ConnectionError::TimedOut => "no answer".to_owned(),
        ConnectionError::Reset => "the other side has restarted".to_owned(),
        ConnectionError::ApplicationClosed(close) => match close.error_code.into_inner() {
            UNAUTHORISED => "the other side does not know this device".to_owned(),
            PROTOCOL => "the other side reports that this side broke the protocol".to_owned(),
            VERSION => {
                "the other side speaks another version; upgrade the older of the two".to_owned()
            }
            NOT_APPROVED => "one of the two devices is not approved by its account".to_owned(),
            _ => "the other side closed the connection".to_owned(),
        },
        ConnectionError::LocallyClosed => "closed".to_owned(),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::CidsExhausted => format!("the connection failed: {reason}"),
    }
}
