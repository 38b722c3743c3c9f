//! Who is asked whose entries count.

use common::key::DeviceKey;

/// Whose entries count. The logs of accounts say so; this is asked anew each time.
pub trait Standing {
    /// Tells whether a device is approved by an account that is a member.
    fn is_approved(&self, device: &DeviceKey) -> bool;

    /// How senior `signer` is as somebody who ends chains of `target`; `None` if it may not.
    fn rank(&self, signer: &DeviceKey, target: &DeviceKey) -> Option<Rank>;
}

/// How senior a signer is: 0 is the most senior one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(pub u32);
