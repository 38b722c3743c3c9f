use std::time::{Duration, Instant};

use super::*;

pub(super) const WALL: UnixTime = UnixTime::from_millis(1_795_000_000_000);

/// All devices are approved, and none may cut another.
pub(super) struct Everybody;

impl Standing for Everybody {
    fn is_approved(&self, _: &DeviceKey) -> bool {
        true
    }

    fn rank(&self, _: &DeviceKey, _: &DeviceKey) -> Option<Rank> {
        None
    }
}

/// A device that writes one run.
pub(super) struct Writer {
    pub(super) secret: DeviceSecret,
    pub(super) replica: Replica,
    now: Instant,
    entries: u64,
}

impl Writer {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    pub(super) fn new(seed: u8) -> Self {
        let secret = DeviceSecret::from_seed([seed; 32]);
        let mut replica = Replica::new(CONVERSATION, secret.public());
        let run = RunId::from_bytes([seed; 16]);
        replica.begin(OwnRun::begin(secret.public(), run));
        Self {
            secret,
            replica,
            now: Instant::now(),
            entries: 0,
        }
    }

    pub(super) fn chain(&self) -> ChainId {
        self.replica.run().unwrap().chain()
    }

    pub(super) fn text(&mut self, text: &str) -> Admission {
        self.append(Kind::TEXT, text.as_bytes().to_vec())
    }

    pub(super) fn write(&mut self, body: &Body) -> Admission {
        self.append(body.kind(), body.to_bytes())
    }

    pub(super) fn append(&mut self, kind: Kind, body: Vec<u8>) -> Admission {
        self.entries += 1;
        let wall = WALL.saturating_add(Duration::from_millis(self.entries));
        let admission = self
            .replica
            .append(kind, body, wall, self.now, &Everybody)
            .unwrap();
        self.replica.committed(&admission.receipt);
        admission
    }

    /// Seals all that is written; `None` if it is.
    pub(super) fn try_seal(&mut self) -> Option<Admission> {
        self.now += SEAL_INTERVAL;
        let job = self.replica.poll_seal(self.now)?;
        let seal = Seal::sign_hash(&self.secret, job.sequence, &job.hash);
        let admission = self.replica.handle_seal(&job, seal, &Everybody).unwrap();
        self.replica.committed(&admission.receipt);
        Some(admission)
    }

    pub(super) fn seal(&mut self) -> Admission {
        self.try_seal().unwrap()
    }

    /// What is written once all before is sealed.
    pub(super) fn seal_and_text(&mut self) -> Admission {
        while self.try_seal().is_some() {}
        self.text("one more")
    }

    /// What another copy of the device goes on with.
    pub(super) fn received_from_a_copy(&mut self, text: &str) -> Admission {
        self.text(text)
    }

    /// What changes nothing.
    pub(super) fn nothing(&mut self) -> Admission {
        let mut admission = self.text("this is not written");
        admission.entries.clear();
        admission
    }
}

pub(super) fn key(seed: u8) -> DeviceKey {
    DeviceSecret::from_seed([seed; 32]).public()
}
