//! What all threads of a proxy look at: the luck, whether it has ended, and what they count.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Luck;

/// The shared state of a proxy.
#[derive(Debug)]
pub(super) struct Shared {
    /// Where the server really is.
    pub(super) server: SocketAddr,
    state: Mutex<State>,
    ended: Condvar,
    counters: Counters,
}

#[derive(Debug)]
struct State {
    luck: Luck,
    has_ended: bool,
    /// How often all connections were cut.
    cuts: u64,
}

/// What is counted.
#[derive(Debug, Default)]
struct Counters {
    carried: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    delayed: AtomicU64,
    cut: AtomicU64,
}

/// What became of datagrams and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams that were handed on, copies not counted.
    pub carried: u64,
    /// Datagrams that were lost.
    pub lost: u64,
    /// Datagrams that were handed on twice.
    pub doubled: u64,
    /// Datagrams that others could overtake.
    pub delayed: u64,
    /// Connections that were cut.
    pub cut: u64,
}

/// Something that is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counted {
    Carried,
    Lost,
    Doubled,
    Delayed,
    Cut,
}

impl Shared {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            state: Mutex::new(State {
                luck: Luck::GOOD,
                has_ended: false,
                cuts: 0,
            }),
            ended: Condvar::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn set_luck(&self, luck: Luck) {
        self.state().luck = luck;
    }

    pub(super) fn luck(&self) -> Luck {
        self.state().luck
    }

    pub(super) fn cut_connections(&self) {
        self.state().cuts += 1;
    }

    /// How often all connections were cut: whoever sees it grow is meant.
    pub(super) fn cuts(&self) -> u64 {
        self.state().cuts
    }

    pub(super) fn end(&self) {
        self.state().has_ended = true;
        self.ended.notify_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().has_ended
    }

    /// Lets time pass, at most until the end of the proxy.
    pub(super) fn pause(&self, pause: Duration) {
        let goes_on = |state: &mut State| !state.has_ended;
        // The outcome does not matter: whoever pauses looks whether it has ended anyway.
        drop(self.ended.wait_timeout_while(self.state(), pause, goes_on));
    }

    pub(super) fn count(&self, counted: Counted) {
        let Counters {
            carried,
            lost,
            doubled,
            delayed,
            cut,
        } = &self.counters;
        let counter = match counted {
            Counted::Carried => carried,
            Counted::Lost => lost,
            Counted::Doubled => doubled,
            Counted::Delayed => delayed,
            Counted::Cut => cut,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            carried: read(&self.counters.carried),
            lost: read(&self.counters.lost),
            doubled: read(&self.counters.doubled),
            delayed: read(&self.counters.delayed),
            cut: read(&self.counters.cut),
        }
    }

    /// The state is a few plain values, whole after every statement, so a panic elsewhere spoils
    /// nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
