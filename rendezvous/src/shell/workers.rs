//! The threads for slow work ([`common::os::worker`]): one owns the database, one or two compute OPAQUE.
//!
//! Results come back as inputs, and wake the loop.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use common::limits::{
    COMPUTE_THREADS_MAX, LOGINS_IN_PROGRESS_MAX, SERVER_ANSWERS_MAX, STORE_BATCH_MAX,
    STORE_REQUESTS_MAX,
};
use common::os::worker::{Answers, Queue, Worker};
use common::password::ServerSetup;
use mio::Waker;

use super::Failure;
use crate::server::Job;
use crate::server::{Input, Ticket};
use crate::store::{Store, StoreError, StoreRequest};

/// How long a server that stops waits for what is to be on disk.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// How long it waits for log-ins that nobody takes an answer of any more.
const COMPUTE_PATIENCE: Duration = Duration::from_secs(2);

/// The threads, and the way to and from them.
#[derive(Debug)]
pub(super) struct Workers {
    store: Worker<(Ticket, StoreRequest)>,
    compute: Worker<(Ticket, Job)>,
    setup: Arc<ServerSetup>,
    results: Receiver<Input>,
}

impl Workers {
    /// Starts the threads.
    pub(super) fn start(
        store: impl Store + Send + 'static,
        setup: ServerSetup,
        waker: &Arc<Waker>,
    ) -> Result<Self, Failure> {
        let (answers, results) = Answers::new(Arc::clone(waker), SERVER_ANSWERS_MAX);
        let no_thread = |why: io::Error| Failure::System {
            what: "start a thread",
            why,
        };
        let store_answers = answers.clone();
        let store = Worker::spawn("store", STORE_REQUESTS_MAX, move |queue| {
            run_store(store, &queue, &store_answers);
        })
        .map_err(no_thread)?;
        let setup = Arc::new(setup);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.clamp(1, COMPUTE_THREADS_MAX);
        let shared = Arc::clone(&setup);
        let compute = Worker::spawn_several(
            "opaque",
            threads,
            LOGINS_IN_PROGRESS_MAX,
            move |(ticket, job): (Ticket, Job)| {
                let outcome = job.run(&shared);
                answers.give(Input::Computed { ticket, outcome });
            },
        )
        .map_err(no_thread)?;
        Ok(Self {
            store,
            compute,
            setup,
            results,
        })
    }

    /// Gives the store a request. The answer at once if too many wait already.
    pub(super) fn order_store(&self, ticket: Ticket, request: StoreRequest) -> Option<Input> {
        self.store.submit((ticket, request)).err()?;
        let answer = Err(StoreError::Failed("too much waits for the disk".to_owned()));
        Some(Input::Stored { ticket, answer })
    }

    /// Gives the OPAQUE threads a job. Where too many wait already, those of peers that left among them,
    /// it is done here, a tenth of a millisecond that slows the loop down to the threads' pace.
    pub(super) fn order_compute(&self, ticket: Ticket, job: Job) -> Option<Input> {
        let (ticket, job) = self.compute.submit((ticket, job)).err()?;
        let outcome = job.run(&self.setup);
        Some(Input::Computed { ticket, outcome })
    }

    /// A result, if there is one.
    pub(super) fn take_result(&self) -> Option<Input> {
        self.results.try_recv().ok()
    }

    /// Lets the threads finish what they have, and ends them.
    pub(super) fn stop(self) {
        // Threads that wait for the loop to take a result learn that it does not.
        drop(self.results);
        self.store.finish(STORE_PATIENCE);
        self.compute.finish(COMPUTE_PATIENCE);
    }
}

/// Executes whatever is queued as one transaction, to the end of the queue, whether or not anybody still
/// takes the answers.
fn run_store(
    mut store: impl Store,
    queue: &Queue<(Ticket, StoreRequest)>,
    results: &Answers<Input>,
) {
    while let Some(orders) = queue.next_batch(STORE_BATCH_MAX) {
        let (tickets, batch): (Vec<_>, Vec<_>) = orders.into_iter().unzip();
        let answers = store.execute(&batch);
        if let Some(Err(error)) = answers.iter().find(|answer| answer.is_err()) {
            log::warn!("store failed: requests={} error={error}", batch.len());
        }
        let inputs = tickets.into_iter().zip(answers);
        results.give_all(inputs.map(|(ticket, answer)| Input::Stored { ticket, answer }));
    }
}

#[cfg(test)]
mod tests {
    use common::os::clock;
    use mio::{Poll, Token};

    use super::*;
    use crate::server::logins::lockout::BucketKey;
    use crate::server::{Command, CommandId};
    use crate::server::{Output, Server, ServerOptions};
    use crate::store::{LockoutsAnswer, Restored, StoreAnswer};

    /// A store that waits for its gate at each batch.
    struct Slow(Receiver<()>);

    impl Store for Slow {
        fn execute(&mut self, batch: &[StoreRequest]) -> Vec<Result<StoreAnswer, StoreError>> {
            let _ = self.0.recv();
            let done = || Ok(LockoutsAnswer::Done.into());
            batch.iter().map(|_| done()).collect()
        }

        fn restore(&mut self) -> Result<Restored, StoreError> {
            Ok(Restored::default())
        }
    }

    #[test]
    fn t20_requests_that_a_slow_store_cannot_take_fail_at_once() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (gate, closed) = std::sync::mpsc::channel();
        let setup = ServerSetup::generate([1; 32]);
        let workers = Workers::start(Slow(closed), setup, &waker).unwrap();
        let (ticket, request) = order();
        // The thread itself holds a batch at most.
        let taken = (0..=STORE_REQUESTS_MAX + STORE_BATCH_MAX)
            .map(|_| workers.order_store(ticket, request.clone()));
        let refused = taken.flatten().next().expect("a bound");
        assert!(
            matches!(
                refused,
                Input::Stored {
                    answer: Err(StoreError::Failed(_)),
                    ..
                }
            ),
            "{refused:?}"
        );
        drop(gate);
        workers.stop();
    }

    /// What an engine asks of its store.
    fn order() -> (Ticket, StoreRequest) {
        let options = ServerOptions::new(BucketKey([7; 32]));
        let (now, epoch) = (clock::now(), clock::epoch());
        let mut server = Server::new([7; 32], now, epoch, options, Restored::default());
        let (id, command) = (CommandId(1), Command::ListAccounts { after: None });
        server.handle_input(Input::Commanded { id, command }, now);
        let Output::Store { ticket, request } = server.poll_output(now) else {
            panic!("no request");
        };
        (ticket, request)
    }
}
