//! Who is logged in at a connection: made by a log-in, kept by `devices`.

use std::net::SocketAddr;

use common::id::{AccountName, DeviceName};
use common::key::DeviceKey;
use common::time::UnixTime;
use common::wire::rendezvous::{Candidate, Cursor, Entry, Status};

use crate::store::AccountId;

/// A device that is logged in.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: AccountId,
    pub(super) account: AccountName,
    pub(super) device_key: DeviceKey,
    pub(super) device_name: DeviceName,
    /// When it logged in.
    pub(super) since: UnixTime,
    /// Where its connection comes from.
    pub(super) source: SocketAddr,
}

impl Member {
    /// What the directory says of it, if it announces this.
    pub(super) fn entry(&self, status: Status, candidates: Vec<Candidate>) -> Entry {
        Entry {
            account: self.account.clone(),
            device_name: self.device_name.clone(),
            device_key: self.device_key,
            status,
            since: self.since,
            candidates,
        }
    }

    /// Its place in the directory.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor {
            account: self.account.clone(),
            device_key: self.device_key,
        }
    }
}
