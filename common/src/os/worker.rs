//! Threads for what takes longer than a loop may stand still.
//!
//! A worker takes its requests, in order, from a bounded queue that the loop never waits on, and leaves
//! its answers in one bounded queue that all workers of a loop share; one that is ahead of the loop waits
//! there. It ends when the loop drops its queue, after it has carried out what is in it.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::Waker;

// ---- answers -----------------------------------------------------------------------------------

/// Where workers leave their answers, and wake the loop.
#[derive(Debug)]
pub struct Answers<Answer> {
    queue: SyncSender<Answer>,
    waker: Arc<Waker>,
}

impl<Answer> Clone for Answers<Answer> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            waker: Arc::clone(&self.waker),
        }
    }
}

impl<Answer> Answers<Answer> {
    /// Makes the queue, in which `capacity` answers wait at most, and the loop's end of it.
    pub fn new(waker: Arc<Waker>, capacity: usize) -> (Self, Receiver<Answer>) {
        let (queue, answers) = sync_channel(capacity);
        (Self { queue, waker }, answers)
    }

    /// Leaves an answer, waiting for room. `false` once the loop has ended.
    pub fn give(&self, answer: Answer) -> bool {
        if self.queue.send(answer).is_err() {
            return false;
        }
        self.wake();
        true
    }

    /// Leaves several answers and wakes the loop once for all of them. `false` once it has ended.
    pub fn give_all(&self, answers: impl IntoIterator<Item = Answer>) -> bool {
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
            log::warn!("cannot wake the loop: {error}");
        }
    }
}

// ---- requests ----------------------------------------------------------------------------------

/// One or several threads with a bounded queue in front.
#[derive(Debug)]
pub struct Worker<Request> {
    name: &'static str,
    requests: Sender<Request>,
    /// Requests in the queue, and how many there may be.
    waiting: Arc<AtomicUsize>,
    capacity: usize,
    /// Carries nothing; its other ends are dropped when the threads end.
    ended: Receiver<Infallible>,
    threads: Vec<JoinHandle<()>>,
}

/// A worker's end of its queue.
#[derive(Debug)]
pub struct Queue<Request> {
    requests: Receiver<Request>,
    waiting: Arc<AtomicUsize>,
}

impl<Request: Send + 'static> Worker<Request> {
    /// Starts a thread that takes requests until there can be no more. At most `capacity` of them wait.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn spawn(
        name: &'static str,
        capacity: usize,
        run: impl FnOnce(Queue<Request>) + Send + 'static,
    ) -> io::Result<Self> {
        let (mut worker, queue, alive) = Self::without_threads(name, capacity);
        worker.start(alive, move || run(queue))?;
        Ok(worker)
    }

    /// Starts `threads` threads that take requests in turn and do one at a time each.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn spawn_several(
        name: &'static str,
        threads: usize,
        capacity: usize,
        run: impl Fn(Request) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (mut worker, queue, alive) = Self::without_threads(name, capacity);
        let (queue, run) = (Arc::new(Mutex::new(queue)), Arc::new(run));
        for _ in 0..threads {
            let (queue, run) = (Arc::clone(&queue), Arc::clone(&run));
            worker.start(alive.clone(), move || {
                loop {
                    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    let next = queue.next_request();
                    drop(queue);
                    let Some(request) = next else { return };
                    run(request);
                }
            })?;
        }
        Ok(worker)
    }

    /// Hands a request over without waiting.
    ///
    /// # Errors
    ///
    /// Gives the request back if the queue is full or the thread gone.
    pub fn submit(&self, request: Request) -> Result<(), Request> {
        // Only the loop adds to it, so it cannot grow in between.
        if self.waiting.load(Ordering::Acquire) >= self.capacity {
            return Err(request);
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.requests.send(request).map_err(|unsent| unsent.0)
    }

    /// Lets the threads finish their queue and waits for that, but not longer than `patience`.
    pub fn finish(self, patience: Duration) {
        drop(self.requests);
        match self.ended.recv_timeout(patience) {
            Ok(never) => match never {},
            Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                log::warn!("worker does not end worker={}", self.name);
                return;
            }
        }
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("worker panicked worker={}", self.name);
            }
        }
    }

    fn without_threads(
        name: &'static str,
        capacity: usize,
    ) -> (Self, Queue<Request>, SyncSender<Infallible>) {
        let (sender, requests) = channel();
        let (alive, ended) = sync_channel(1);
        let waiting = Arc::new(AtomicUsize::new(0));
        let queue = Queue {
            requests,
            waiting: Arc::clone(&waiting),
        };
        let worker = Self {
            name,
            requests: sender,
            waiting,
            capacity,
            ended,
            threads: Vec::new(),
        };
        (worker, queue, alive)
    }

    fn start(
        &mut self,
        alive: SyncSender<Infallible>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let thread = thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || {
                let _alive = alive;
                run();
            })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl<Request> Queue<Request> {
    /// Waits for the next request. `None` when there can be no more.
    pub fn next_request(&self) -> Option<Request> {
        let request = self.requests.recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        Some(request)
    }

    /// Waits for the next request, and takes those that are behind it, at most `count_max` together.
    /// `None` when there can be no more.
    pub fn next_batch(&self, count_max: usize) -> Option<Vec<Request>> {
        let first = self.requests.recv().ok()?;
        Some(self.batch(first, count_max))
    }

    /// The same, but waits no longer than `patience`: then there is nothing in the batch.
    pub fn next_batch_within(&self, count_max: usize, patience: Duration) -> Option<Vec<Request>> {
        match self.requests.recv_timeout(patience) {
            Ok(first) => Some(self.batch(first, count_max)),
            Err(RecvTimeoutError::Timeout) => Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn batch(&self, first: Request, count_max: usize) -> Vec<Request> {
        let mut batch = vec![first];
        let rest = self.requests.try_iter().take(count_max.saturating_sub(1));
        batch.extend(rest);
        self.waiting.fetch_sub(batch.len(), Ordering::AcqRel);
        batch
    }
}

impl<Request> Iterator for Queue<Request> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        self.next_request()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mio::{Poll, Token};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn t20_a_full_queue_gives_the_request_back() {
        let (gate, closed) = sync_channel::<()>(0);
        let (started, has_started) = sync_channel(0);
        let worker = Worker::spawn("test", 1, move |queue: Queue<u32>| {
            started.send(queue.next_request().unwrap()).unwrap();
            let _ = closed.recv();
            started.send(queue.next_request().unwrap()).unwrap();
            let _ = closed.recv();
        })
        .unwrap();
        worker.submit(1).unwrap();
        assert_eq!(has_started.recv_timeout(PATIENCE), Ok(1));
        worker.submit(2).unwrap();
        assert_eq!(worker.submit(3), Err(3));
        gate.send(()).unwrap();
        // There is room again for as many as were taken.
        assert_eq!(has_started.recv_timeout(PATIENCE), Ok(2));
        worker.submit(4).unwrap();
        assert_eq!(worker.submit(5), Err(5));
        drop(gate);
        worker.finish(PATIENCE);
    }

    #[test]
    fn a_worker_that_is_gone_gives_the_request_back() {
        let worker = Worker::spawn("test", 9, |queue: Queue<u32>| drop(queue)).unwrap();
        assert_eq!(
            worker.ended.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Disconnected)
        );
        assert_eq!(worker.submit(1), Err(1));
    }

    #[test]
    fn what_is_in_the_queue_is_done_before_the_end() {
        let (done, is_done) = channel();
        let worker = Worker::spawn("test", 100, move |queue: Queue<u32>| {
            while let Some(batch) = queue.next_batch(7) {
                assert!(batch.len() <= 7);
                done.send(batch).unwrap();
            }
        })
        .unwrap();
        for number in 0..100 {
            worker.submit(number).unwrap();
        }
        let waiting = Arc::clone(&worker.waiting);
        worker.finish(PATIENCE);
        let done: Vec<u32> = is_done.iter().flatten().collect();
        assert!(done.into_iter().eq(0..100));
        assert_eq!(waiting.load(Ordering::Acquire), 0);
    }

    #[test]
    fn several_threads_share_a_queue() {
        let (done, is_done) = channel();
        let (gate, closed) = sync_channel::<()>(0);
        let closed = Mutex::new(closed);
        let worker = Worker::spawn_several("test", 2, 100, move |request: u32| {
            // The first one holds up its thread only.
            if request == 0 {
                let _ = closed.lock().unwrap().recv();
            }
            done.send(request).unwrap();
        })
        .unwrap();
        for request in 0..10 {
            worker.submit(request).unwrap();
        }
        let others = (1..10).map(|_| is_done.recv_timeout(PATIENCE).unwrap());
        assert_eq!(others.collect::<BTreeSet<_>>(), (1..10).collect());
        drop(gate);
        assert_eq!(is_done.recv_timeout(PATIENCE), Ok(0));
        worker.finish(PATIENCE);
    }

    #[test]
    fn a_worker_that_does_not_end_is_not_waited_for_longer() {
        let (gate, closed) = sync_channel::<()>(0);
        let worker = Worker::spawn("test", 1, move |_: Queue<u32>| {
            let _ = closed.recv();
        })
        .unwrap();
        worker.finish(Duration::from_millis(10));
        drop(gate);
    }

    #[test]
    fn t20_answers_wait_for_a_loop_that_is_behind_and_end_with_it() {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (answers, taken) = Answers::new(Arc::new(waker), 2);
        let giver = thread::spawn(move || {
            let is_given = answers.give_all(0..10);
            (is_given, answers)
        });
        for number in 0..10 {
            assert_eq!(taken.recv_timeout(PATIENCE), Ok(number));
        }
        let (is_given, answers) = giver.join().unwrap();
        assert!(is_given && answers.give(10));
        drop(taken);
        assert!(!answers.give(11) && !answers.give_all([12]));
    }
}
