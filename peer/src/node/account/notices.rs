//! What the owner of the account has to be told: failed log-ins, and devices that were enrolled.
//!
//! `Notices` keeps them until somebody listens, so that nothing is told into the void between the start
//! of a process and its first command. An enrolment counts as told only then, and the server is asked not
//! to repeat it. A device that its account has not approved hears of no enrolment before it is approved.

use std::collections::VecDeque;

use common::key::DeviceKey;
use common::limits::ENROLMENTS_UNTOLD_MAX;
use common::wire::rendezvous::{Enrolment, FailedLogins};

use crate::node::command::{EnrolmentView, Event};

/// What is told, or waits for somebody to tell.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// A command has asked for a log-in or waited for one: there is somebody who listens.
    is_heard: bool,
    /// This device waits for its account's approval, or was revoked: new devices are not its business.
    is_unapproved: bool,
    failed: Option<FailedLogins>,
    /// Not told yet; of more than [`ENROLMENTS_UNTOLD_MAX`] the newest.
    enrolled: VecDeque<Enrolment>,
    /// Told by this process: the server repeats what it has not noted.
    told: VecDeque<Enrolment>,
    /// Told once more, and to be noted once more.
    repeated: VecDeque<DeviceKey>,
}

/// What follows from a notice.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// People are told.
    Failed(FailedLogins),
    /// People are told, and then it is as with `Told`.
    Enrolled(Enrolment),
    /// The server is asked not to repeat the enrolment of this device.
    Told(DeviceKey),
}

impl Notices {
    /// Somebody listens from now on.
    pub(super) const fn on_heard(&mut self) {
        self.is_heard = true;
    }

    /// Whether the account has a log that does not approve this device. Of enrolments nothing is told until
    /// it does.
    pub(super) const fn set_unapproved(&mut self, is_unapproved: bool) {
        self.is_unapproved = is_unapproved;
    }

    /// Strangers failed to log in.
    pub(super) fn on_failed(&mut self, failed: FailedLogins) {
        let earlier = self.failed.take().map_or(0, |earlier| earlier.count);
        self.failed = Some(FailedLogins {
            count: earlier.saturating_add(failed.count),
            ..failed
        });
    }

    /// A device was enrolled.
    pub(super) fn on_enrolled(&mut self, enrolment: Enrolment) {
        if self.told.contains(&enrolment) {
            keep(&mut self.repeated, enrolment.device_key);
        } else {
            keep(&mut self.enrolled, enrolment);
        }
    }

    /// The next thing to tell, once somebody listens.
    pub(super) fn poll(&mut self) -> Option<Notice> {
        if !self.is_heard {
            return None;
        }
        if let Some(failed) = self.failed.take() {
            return Some(Notice::Failed(failed));
        }
        if self.is_unapproved {
            return None;
        }
        if let Some(device_key) = self.repeated.pop_front() {
            return Some(Notice::Told(device_key));
        }
        let enrolment = self.enrolled.pop_front()?;
        keep(&mut self.told, enrolment.clone());
        Some(Notice::Enrolled(enrolment))
    }
}

impl From<Enrolment> for Event {
    fn from(enrolment: Enrolment) -> Self {
        Self::Enrolled(EnrolmentView {
            device: enrolment.device_name,
            fingerprint: enrolment.device_key.fingerprint().to_string(),
            at: enrolment.at,
        })
    }
}

/// Adds the newest, unless it is there; of too many the oldest goes.
fn keep<T: PartialEq>(kept: &mut VecDeque<T>, newest: T) {
    if kept.contains(&newest) {
        return;
    }
    if kept.len() >= ENROLMENTS_UNTOLD_MAX {
        kept.pop_front();
    }
    kept.push_back(newest);
}

#[cfg(test)]
mod tests {
    use common::id::DeviceName;
    use common::key::DeviceSecret;
    use common::time::UnixTime;

    use super::*;

    fn enrolment(number: u8) -> Enrolment {
        Enrolment {
            device_name: DeviceName::lossy("laptop"),
            device_key: DeviceSecret::from_seed([number; 32]).public(),
            at: UnixTime::from_millis(number.into()),
        }
    }

    fn failed(count: u32) -> FailedLogins {
        FailedLogins {
            count,
            last: UnixTime::from_millis(1),
            blocked_for_s: 0,
        }
    }

    fn told(notices: &mut Notices) -> Vec<Notice> {
        std::iter::from_fn(|| notices.poll()).collect()
    }

    #[test]
    fn nothing_is_told_before_somebody_listens() {
        let mut notices = Notices::default();
        notices.on_failed(failed(2));
        notices.on_failed(failed(3));
        notices.on_enrolled(enrolment(1));
        // The same again, with the next session.
        notices.on_enrolled(enrolment(1));
        assert_eq!(told(&mut notices), []);
        notices.on_heard();
        let expected = [Notice::Failed(failed(5)), Notice::Enrolled(enrolment(1))];
        assert_eq!(told(&mut notices), expected);
        notices.on_enrolled(enrolment(2));
        assert_eq!(told(&mut notices), [Notice::Enrolled(enrolment(2))]);
    }

    #[test]
    fn a_device_that_is_not_approved_hears_of_no_new_ones() {
        let mut notices = Notices::default();
        notices.on_heard();
        notices.set_unapproved(true);
        notices.on_failed(failed(1));
        notices.on_enrolled(enrolment(1));
        assert_eq!(told(&mut notices), [Notice::Failed(failed(1))]);
        notices.set_unapproved(false);
        assert_eq!(told(&mut notices), [Notice::Enrolled(enrolment(1))]);
    }

    #[test]
    fn what_the_server_repeats_is_told_once_and_noted_again() {
        let mut notices = Notices::default();
        notices.on_heard();
        notices.on_enrolled(enrolment(1));
        assert_eq!(told(&mut notices), [Notice::Enrolled(enrolment(1))]);
        notices.on_enrolled(enrolment(1));
        let noted = Notice::Told(enrolment(1).device_key);
        assert_eq!(told(&mut notices), [noted]);
        // It logged out, and is enrolled once more.
        let mut again = enrolment(1);
        again.at = UnixTime::from_millis(9);
        notices.on_enrolled(again.clone());
        assert_eq!(told(&mut notices), [Notice::Enrolled(again)]);
    }

    #[test]
    fn a_server_that_tells_of_very_many_takes_no_memory() {
        let mut notices = Notices::default();
        for number in 0..=u8::MAX {
            notices.on_enrolled(enrolment(number));
        }
        notices.on_heard();
        let told = told(&mut notices);
        assert_eq!(told.len(), ENROLMENTS_UNTOLD_MAX);
        assert_eq!(told.last(), Some(&Notice::Enrolled(enrolment(u8::MAX))));
        for number in 0..=u8::MAX {
            notices.on_enrolled(enrolment(number));
            while notices.poll().is_some() {}
        }
        assert_eq!(notices.told.len(), ENROLMENTS_UNTOLD_MAX);
    }
}
