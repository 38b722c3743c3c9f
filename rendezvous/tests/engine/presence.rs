//! What presence costs: whoever changes its entry without an end makes the server say it to everybody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::limits::{
    ANNOUNCE_INTERVAL, ANNOUNCEMENTS_BURST_MAX, CANDIDATES_MAX, CONTROL_FRAME_LEN_MAX,
    WATCH_CHANGES_BURST_MAX, WATCH_CHANGES_PER_SECOND_MAX,
};
use common::wire::frame;
use common::wire::rendezvous::{
    DevicePush, DeviceRequest, DirectoryAnswer, DirectoryPush, DirectoryRequest, Push, Request,
    RequestFrame, RequestId, ServerFrame, Status,
};
use rendezvous::server::{ConnectionId, Frame, Input, Output};

use super::world::*;

const ANNOUNCERS: usize = 64;
const WATCHERS: usize = 200;
/// How often an announcer says something new: whatever comes sooner goes into the same push.
const PACE: Duration = Duration::from_millis(50);
const SPAN: Duration = Duration::from_secs(60);
/// What an entry takes in a push: its candidates, both names, a key and a time.
const ENTRY_LEN_MAX: usize = 21 * CANDIDATES_MAX + 32 + 64 + 32 + 32;

/// What went through the server.
#[derive(Debug, Default)]
struct Traffic {
    bytes_in: usize,
    bytes_out: usize,
    changes_pushed: usize,
    watches_ended: usize,
}

/// A crowd whose frames are counted and not kept.
struct Crowd {
    world: World,
    announcers: Vec<ConnectionId>,
    watchers: Vec<ConnectionId>,
    traffic: Traffic,
}

impl Crowd {
    fn new(announcers: usize, watchers: usize) -> Self {
        let mut world = World::new();
        let mut members: Vec<ConnectionId> = (0..announcers + watchers)
            .map(|number| world.online_with_token(number as u16))
            .collect();
        let watchers = members.split_off(announcers);
        world.advance(Duration::from_secs(10));
        for watcher in &watchers {
            let since = world.server.directory().version();
            assert_eq!(
                world.ask(*watcher, DirectoryRequest::Watch { since }),
                DirectoryAnswer::Done.into()
            );
        }
        Self {
            world,
            announcers: members,
            watchers,
            traffic: Traffic::default(),
        }
    }

    /// Every announcer says something new at this pace, for so long.
    fn run(&mut self, span: Duration) {
        let end = self.world.now + span;
        let mut round = 0;
        while self.world.now < end {
            for announcer in self.announcers.clone() {
                self.send(announcer, announcement(round));
            }
            self.pass(PACE);
            round += 1;
        }
    }

    fn keep_alive(&mut self) {
        let everybody = [&self.announcers[..], &self.watchers[..]].concat();
        for member in everybody {
            self.send(member, DeviceRequest::KeepAlive);
        }
    }

    /// Until everybody may say as much at once as at the start.
    fn rest(&mut self) {
        for _ in 0..=ANNOUNCEMENTS_BURST_MAX {
            self.keep_alive();
            self.pass(ANNOUNCE_INTERVAL);
        }
    }

    fn send(&mut self, connection: ConnectionId, request: impl Into<Request>) {
        self.world.last_request += 1;
        let id = RequestId(self.world.last_request);
        let frame = RequestFrame {
            id,
            request: request.into(),
        };
        self.traffic.bytes_in += len_of(&frame);
        let input = Input::Requested { connection, frame };
        self.world.server.handle_input(input, self.world.now);
        self.drain();
    }

    /// Lets time pass, stopping at every deadline on the way.
    fn pass(&mut self, span: Duration) {
        let end = self.world.now + span;
        while let Some(at) = self.drain().filter(|at| *at <= end) {
            self.world.now = at.max(self.world.now);
            self.world.server.handle_timeout(self.world.now);
        }
        self.world.now = end;
    }

    /// Counts what comes out; returns when the server wants to be called.
    fn drain(&mut self) -> Option<std::time::Instant> {
        let mut last: Option<(Arc<ServerFrame>, usize)> = None;
        loop {
            let frame = match self.world.server.poll_output(self.world.now) {
                Output::Send { frame, .. } => frame,
                Output::Wait(deadline) => return deadline.map(|deadline| deadline.at),
                other @ (Output::Close { .. }
                | Output::Store { .. }
                | Output::Compute { .. }
                | Output::Relay(_)
                | Output::ToRelay { .. }
                | Output::Reply { .. }) => panic!("{other:?}"),
            };
            let Frame::Server(frame) = frame else {
                panic!("{frame:?}");
            };
            // Many get the same one; its length is worked out once.
            let len = match &last {
                Some((same, len)) if Arc::ptr_eq(same, &frame) => *len,
                _ => len_of(&*frame),
            };
            self.traffic.bytes_out += len;
            match &*frame {
                ServerFrame::Push(Push::Directory(DirectoryPush::Presence { changes, .. })) => {
                    self.traffic.changes_pushed += changes.len();
                }
                ServerFrame::Push(Push::Directory(DirectoryPush::ListAgain)) => {
                    self.traffic.watches_ended += 1
                }
                ServerFrame::Push(
                    Push::Directory(DirectoryPush::Unenrolled { .. })
                    | Push::Device(DevicePush::FailedLogins(_) | DevicePush::Enrolled(_))
                    | Push::Introduction(_)
                    | Push::Identity(_)
                    | Push::Relay(_)
                    | Push::Bye(_),
                )
                | ServerFrame::Answer { .. } => {}
            }
            last = Some((frame, len));
        }
    }
}

fn len_of(frame: &impl serde::Serialize) -> usize {
    let mut bytes = Vec::new();
    frame::encode::<CONTROL_FRAME_LEN_MAX>(frame, &mut bytes).unwrap();
    bytes.len()
}

/// As long as one may be, and another one each time.
fn announcement(round: u16) -> Request {
    let candidate = |n| SocketAddr::from(([0x2001, 0xdb8, 1, 2, 3, 4, 5, round], 50_000 + n));
    Request::Directory(DirectoryRequest::Announce {
        status: Status::Busy,
        candidates: (0..CANDIDATES_MAX as u16).map(candidate).collect(),
    })
}

/// Once a device has said a few things at once, it changes at a pace.
fn changes_of_a_device(span: Duration) -> usize {
    let paced = span.as_millis() / ANNOUNCE_INTERVAL.as_millis();
    ANNOUNCEMENTS_BURST_MAX as usize + paced as usize
}

#[test]
fn t15_t39_what_a_crowd_announces_is_not_multiplied_by_those_who_watch() {
    let mut crowd = Crowd::new(ANNOUNCERS, WATCHERS);
    let part = Duration::from_secs(20);
    for _ in 0..SPAN.as_secs() / part.as_secs() {
        crowd.run(part);
        crowd.keep_alive();
    }
    let Traffic {
        bytes_in,
        bytes_out,
        changes_pushed,
        watches_ended,
    } = crowd.traffic;
    println!("{bytes_in} bytes in, {bytes_out} bytes out, {changes_pushed} changes pushed");
    let changes_max = ANNOUNCERS * changes_of_a_device(SPAN) * WATCHERS;
    assert!((1..=changes_max).contains(&changes_pushed), "{changes_max}");
    // Pushes, and an answer to each announcement.
    let answers = bytes_in / 20;
    assert!(bytes_out <= changes_max * ENTRY_LEN_MAX + answers);
    assert_eq!(watches_ended, 0, "this much can be followed");
}

#[test]
fn t15_t39_more_than_can_be_followed_ends_the_watch_and_nothing_else() {
    let mut crowd = Crowd::new(400, 8);
    let span = Duration::from_secs(20);
    crowd.run(span);
    let Traffic {
        changes_pushed,
        watches_ended,
        ..
    } = crowd.traffic;
    println!("{changes_pushed} changes pushed, {watches_ended} watches ended");
    assert_eq!(watches_ended, crowd.watchers.len(), "each is told once");
    let per_watcher =
        WATCH_CHANGES_BURST_MAX + WATCH_CHANGES_PER_SECOND_MAX * span.as_secs() as u32;
    assert!(changes_pushed <= crowd.watchers.len() * per_watcher as usize);
    // They are there all the same, list again, and have it.
    let watcher = crowd.watchers[0];
    crowd.rest();
    let since = crowd.world.list(watcher).version;
    let asked = crowd.world.ask(watcher, DirectoryRequest::Watch { since });
    assert_eq!(asked, DirectoryAnswer::Done.into());
    crowd.world.announce(crowd.announcers[0], Status::Away);
    crowd.world.advance(PACE);
    let (version, changes) = crowd.world.changes(watcher);
    assert_eq!(version, crowd.world.server.directory().version());
    assert_eq!(changes.len(), 1);
}

#[test]
fn of_what_a_device_says_in_a_hurry_the_last_holds_in_the_end() {
    let mut world = World::new();
    let c = world.member("alice", 1, HOME);
    let statuses = [Status::Away, Status::Busy];
    for round in 0..ANNOUNCEMENTS_BURST_MAX as usize {
        world.announce(c, statuses[round % 2]);
        assert_eq!(status(&world), Some(statuses[round % 2]));
    }
    let before = status(&world);
    world.announce(c, Status::Available);
    world.announce(c, Status::Away);
    world.announce(c, Status::Available);
    assert_eq!(status(&world), before, "it waits");
    world.advance(ANNOUNCE_INTERVAL - Duration::from_millis(1));
    assert_eq!(status(&world), before);
    let version = world.server.directory().version();
    world.advance(Duration::from_millis(1));
    assert_eq!(status(&world), Some(Status::Available));
    assert_eq!(world.server.directory().version().0, version.0 + 1);
}

#[test]
fn a_device_leaves_at_once_and_does_not_come_back_with_what_waited() {
    let mut world = World::new();
    let c = world.member("alice", 1, HOME);
    let statuses = [Status::Away, Status::Busy];
    for round in 0..=ANNOUNCEMENTS_BURST_MAX as usize {
        world.announce(c, statuses[round % 2]);
    }
    world.disconnect(c);
    assert_eq!(status(&world), None);
    world.advance(ANNOUNCE_INTERVAL / 2);
    // Its next session begins where the last one ended.
    let c = world.member("alice", 1, HOME);
    world.announce(c, Status::Available);
    assert_eq!(status(&world), None, "it said enough for now");
    world.advance(ANNOUNCE_INTERVAL / 2);
    assert_eq!(status(&world), Some(Status::Available));
}

/// What the directory says of the only device.
fn status(world: &World) -> Option<Status> {
    let found = world.server.directory().find(&name("alice"));
    found.first().map(|entry| entry.status)
}
