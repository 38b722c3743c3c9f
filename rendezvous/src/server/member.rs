//! Who is logged in at a connection: made by a log-in, kept by `devices`.

use std::net::SocketAddr;

use common::id::{AccountName, DeviceName};
use common::key::DeviceKey;
use common::time::UnixTime;
use common::wire::rendezvous::Cursor;

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
    /// Its place in the directory.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor {
            account: self.account.clone(),
            device_key: self.device_key,
        }
    }
}
