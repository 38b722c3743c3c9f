//! Threads for what takes longer than the loop may stand still.
//!
//! Each worker takes its requests, in order, from a bounded queue that the loop never waits on, and
//! gives its answers to one bounded queue that all of them share; a worker that is ahead of the loop
//! waits there. A worker ends when the loop drops its queue.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use common::id::TransferId;
use mio::Waker;

use crate::node::io::{DiskAnswer, StoreAnswer, StoreId, Work, WorkAnswer, WorkId};
use common::limits::{LOOKUPS_MAX, SERVER_ADDRESSES_MAX, STRETCHES_MAX, WORKER_ANSWERS_MAX};

/// What a worker found out.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The store's.
    Stored(StoreId, StoreAnswer),
    /// The disk's.
    Disk(TransferId, DiskAnswer),
    /// A computation's.
    Worked(WorkId, WorkAnswer),
    /// The name service's.
    Resolved(Resolved),
}

/// The addresses of the rendezvous.
#[derive(Debug)]
pub struct Resolved {
    /// Which look-up this answers.
    pub attempt: u64,
    /// The addresses, at least one, in the order in which the system recommends them, or why there
    /// are none.
    pub addresses: Result<Vec<SocketAddr>, String>,
}

/// A name to be looked up.
#[derive(Debug)]
pub struct Lookup {
    /// Pairs it with its answer.
    pub attempt: u64,
    /// A host name or an address.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

/// Where workers leave their answers.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    queue: SyncSender<Answer>,
    waker: Arc<Waker>,
}

impl Answers {
    /// Makes the queue and the loop's end of it.
    pub(crate) fn new(waker: Arc<Waker>) -> (Self, Receiver<Answer>) {
        let (queue, answers) = sync_channel(WORKER_ANSWERS_MAX);
        (Self { queue, waker }, answers)
    }

    /// Leaves an answer, waiting for room. `false` once the loop has ended.
    pub(crate) fn give(&self, answer: Answer) -> bool {
        if self.queue.send(answer).is_err() {
            return false;
        }
        self.wake();
        true
    }

    /// Leaves several answers and wakes the loop once for all of them. `false` once it has ended.
    pub(crate) fn give_all(&self, answers: impl IntoIterator<Item = Answer>) -> bool {
        for answer in answers {
            let is_left = match self.queue.try_send(answer) {
                Ok(()) => true,
                // It has to take some before there is room.
                Err(TrySendError::Full(answer)) => {
                    self.wake();
                    self.give(answer)
                }
                Err(TrySendError::Disconnected(_)) => false,
            };
            if !is_left {
                return false;
            }
        }
        self.wake();
        true
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::warn!("the loop cannot be woken: {error}");
        }
    }
}

/// A thread with a bounded queue in front.
#[derive(Debug)]
pub struct Worker<Request> {
    name: &'static str,
    requests: SyncSender<Request>,
    /// Carries nothing; its other end is dropped when the thread ends.
    ended: Receiver<Infallible>,
}

impl<Request: Send + 'static> Worker<Request> {
    /// Starts a thread that takes requests until there can be no more. At most `capacity` of them
    /// wait.
    pub fn spawn(
        name: &'static str,
        capacity: usize,
        run: impl FnOnce(Receiver<Request>) + Send + 'static,
    ) -> io::Result<Self> {
        let (requests, queue) = sync_channel(capacity);
        let (alive, ended) = sync_channel(1);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alive = alive;
                run(queue);
            })?;
        Ok(Self {
            name,
            requests,
            ended,
        })
    }

    /// Hands a request over without waiting; gives it back if the queue is full or the thread gone.
    pub fn submit(&self, request: Request) -> Result<(), Request> {
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
            })
    }

    /// Lets the thread finish its queue and waits for that, but not longer than `patience`.
    pub fn finish(self, patience: Duration) {
        drop(self.requests);
        match self.ended.recv_timeout(patience) {
            Ok(never) => match never {},
            Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                log::warn!("worker does not end worker={}", self.name);
            }
        }
    }
}

/// Starts the worker that stretches passwords.
pub(crate) fn spawn_stretcher(answers: Answers) -> io::Result<Worker<(WorkId, Work)>> {
    Worker::spawn(
        "stretch",
        STRETCHES_MAX,
        move |queue: Receiver<(WorkId, Work)>| {
            for (id, work) in queue {
                if !answers.give(Answer::Worked(id, work.run())) {
                    return;
                }
            }
        },
    )
}

/// Starts the worker that looks up names. `getaddrinfo` may hang for half a minute.
pub(crate) fn spawn_resolver(answers: Answers) -> io::Result<Worker<Lookup>> {
    Worker::spawn("resolve", LOOKUPS_MAX, move |queue: Receiver<Lookup>| {
        for lookup in queue {
            let resolved = Resolved {
                attempt: lookup.attempt,
                addresses: resolve(&lookup.host, lookup.port),
            };
            if !answers.give(Answer::Resolved(resolved)) {
                return;
            }
        }
    })
}

/// Asks the system for the addresses of a host, and waits for them.
pub(crate) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = (host, port).to_socket_addrs().map_err(|error| {
        format!("the name '{host}' cannot be looked up ({error}); is it spelled right?")
    })?;
    let addresses: Vec<SocketAddr> = found.take(SERVER_ADDRESSES_MAX).collect();
    if addresses.is_empty() {
        return Err(format!("the name '{host}' has no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_full_queue_gives_the_request_back() {
        let (gate, closed) = sync_channel::<()>(0);
        let (started, has_started) = sync_channel(0);
        let worker = Worker::spawn("test", 1, move |queue: Receiver<u32>| {
            let first = queue.recv().unwrap();
            started.send(first).unwrap();
            let _ = closed.recv();
        })
        .unwrap();
        worker.submit(1).unwrap();
        assert_eq!(has_started.recv_timeout(PATIENCE), Ok(1));
        worker.submit(2).unwrap();
        assert_eq!(worker.submit(3), Err(3));
        drop(gate);
        worker.finish(PATIENCE);
    }

    #[test]
    fn a_worker_that_is_gone_gives_the_request_back() {
        let worker = Worker::spawn("test", 1, |queue: Receiver<u32>| drop(queue)).unwrap();
        assert_eq!(
            worker.ended.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Disconnected)
        );
        assert_eq!(worker.submit(1), Err(1));
    }

    #[test]
    fn addresses_need_no_name_service() {
        let addresses = resolve("127.0.0.1", 7400).unwrap();
        assert_eq!(addresses, ["127.0.0.1:7400".parse().unwrap()]);
        assert!(resolve("no such host.invalid", 1).is_err());
    }
}
