//! The threads for slow work: one owns the database, one or two compute OPAQUE.
//!
//! Orders go in through channels whose length the engine bounds
//! ([`common::limits::LOGINS_IN_PROGRESS_MAX`]); results come back as inputs, and wake the loop.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use common::limits::{COMPUTE_THREADS_MAX, STORE_BATCH_MAX};
use common::password::ServerSetup;
use mio::Waker;

use super::Problem;
use crate::server::login::Job;
use crate::server::{Input, Ticket};
use crate::store::{Store, StoreRequest};

/// The threads, and the way to and from them.
#[derive(Debug)]
pub(super) struct Workers {
    store: Sender<(Ticket, StoreRequest)>,
    compute: Sender<(Ticket, Job)>,
    results: Receiver<Input>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    pub(super) fn start(
        store: impl Store + Send + 'static,
        setup: ServerSetup,
        waker: &Arc<Waker>,
    ) -> Result<Self, Problem> {
        let (result_sender, results) = mpsc::channel();
        let (store_sender, store_orders) = mpsc::channel();
        let (compute_sender, compute_orders) = mpsc::channel();
        let back = Back {
            results: result_sender,
            waker: Arc::clone(waker),
        };
        let mut threads = Vec::new();
        let store_back = back.clone();
        threads.push(spawn("store", move || {
            run_store(store, &store_orders, &store_back);
        })?);
        let setup = Arc::new(setup);
        let orders = Arc::new(Mutex::new(compute_orders));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores.clamp(1, COMPUTE_THREADS_MAX) {
            let (setup, orders, back) = (Arc::clone(&setup), Arc::clone(&orders), back.clone());
            threads.push(spawn("opaque", move || {
                run_compute(&setup, &orders, &back)
            })?);
        }
        Ok(Self {
            store: store_sender,
            compute: compute_sender,
            results,
            threads,
        })
    }

    /// Gives the store a request.
    pub(super) fn order_store(&self, ticket: Ticket, request: StoreRequest) {
        let sent = self.store.send((ticket, request));
        sent.expect("the store's thread ends after the loop");
    }

    /// Gives the OPAQUE threads a job.
    pub(super) fn order_compute(&self, ticket: Ticket, job: Job) {
        let sent = self.compute.send((ticket, job));
        sent.expect("the OPAQUE threads end after the loop");
    }

    /// A result, if there is one.
    pub(super) fn take_result(&self) -> Option<Input> {
        self.results.try_recv().ok()
    }

    /// Lets the threads finish what they have, and ends them.
    pub(super) fn stop(self) {
        drop((self.store, self.compute));
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a worker thread panicked");
            }
        }
    }
}

#[derive(Clone)]
struct Back {
    results: Sender<Input>,
    waker: Arc<Waker>,
}

impl Back {
    fn send(&self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            // The loop is gone when the server stops; nobody waits for it then.
            let _ = self.results.send(input);
        }
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the loop: {error}");
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Problem> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|why: io::Error| Problem::System {
        what: "a thread",
        why,
    })
}

/// Executes whatever is queued as one transaction.
fn run_store(mut store: impl Store, orders: &Receiver<(Ticket, StoreRequest)>, back: &Back) {
    while let Ok(first) = orders.recv() {
        let rest = orders.try_iter().take(STORE_BATCH_MAX - 1);
        let (tickets, batch): (Vec<_>, Vec<_>) = [first].into_iter().chain(rest).unzip();
        let answers = store.execute(&batch);
        if let Some(Err(error)) = answers.iter().find(|answer| answer.is_err()) {
            log::warn!("store failed: requests={} error={error}", batch.len());
        }
        let inputs = tickets.into_iter().zip(answers);
        back.send(inputs.map(|(ticket, answer)| Input::Stored { ticket, answer }));
    }
}

fn run_compute(setup: &ServerSetup, orders: &Mutex<Receiver<(Ticket, Job)>>, back: &Back) {
    loop {
        let order = orders.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((ticket, job)) = order else { return };
        let outcome = job.run(setup);
        back.send([Input::Verified { ticket, outcome }]);
    }
}
