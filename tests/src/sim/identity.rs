//! Accounts that have their logs from the beginning.

use common::account::{AccountLog, Genesis};
use common::key::DeviceSecret;
use common::log::{Clock, ConversationId, RunId};
use common::time::UnixTime;
use peer::recovery::RecoveryCode;

use super::world::World;

/// The log of an account that its first device has just founded.
pub fn founded(secret: &DeviceSecret, at: UnixTime) -> AccountLog {
    let device = secret.public();
    let mut run = [0; 16];
    run.copy_from_slice(&device.as_bytes()[..16]);
    let genesis = Genesis {
        first_device: device,
        recovery: recovery(secret).secret().public(),
        nonce: *device.as_bytes(),
    };
    AccountLog::found(genesis, RunId::from_bytes(run), Clock::at(at), secret)
}

/// The recovery code that the owner of an account wrote down when this device founded it.
pub fn recovery(secret: &DeviceSecret) -> RecoveryCode {
    let mut code = [0; 16];
    code.copy_from_slice(&secret.public().as_bytes()[16..]);
    RecoveryCode::new(code)
}

/// The conversation of two hosts.
pub fn conversation(world: &World, of: [usize; 2]) -> ConversationId {
    let [one, other] = of.map(|host| {
        let secret = DeviceSecret::from_seed(world.hosts[host].secret);
        founded(&secret, world.wall).id()
    });
    ConversationId::direct(&one, &other)
}
