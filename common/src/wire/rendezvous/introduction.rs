//! Introductions: both sides of a link to be are told at once whom to expect, and through which channel of
//! the relay they reach each other until they find a direct path.

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::id::AccountName;
use crate::wire::channel::{AllocationId, EndId};

/// A logged-in device's request for links to others.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntroductionRequest {
    /// Asks for this device's allocation at the relay; its channels carry nothing before that is bound.
    /// Answered by `Allocated`, or by `Refused(RelayOff)` if the server relays nothing.
    Allocate,
    /// Introduces this device and those of an account that are online to each other. Answered by
    /// `Introduced`; the others get a push, unless they were introduced to this device just before.
    Introduce { account: AccountName },
}

/// The answer to an [`IntroductionRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntroductionAnswer {
    /// This device's allocation: the same as long as a session or a channel of the device lasts.
    Allocated {
        /// A secret between the server and this device.
        allocation: AllocationId,
        /// Bytes per second that the server relays from an account at most.
        rate: u32,
    },
    /// The devices of the account; none if none is online or the account is unknown.
    Introduced {
        /// At most [`crate::limits::DEVICES_PER_ACCOUNT_MAX`], as many as fit a frame.
        introductions: Vec<Introduction>,
    },
}

/// A notification of an introduction that another device has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntroductionPush {
    /// That device is about to make a link.
    Introduced(Introduction),
}

/// Another device that a link is to be made to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// As the directory has it.
    pub entry: Entry,
    /// This device's end of a channel to it; `None` if one of the two has no allocation or too many channels.
    pub end: Option<EndId>,
    /// What this device does.
    pub role: Role,
}

/// What a device does to make a link. The two have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Dials: it was the first to ask.
    Client,
    /// Waits for the other's handshake.
    Server,
}
