//! What the loop's workers ([`common::os::worker`]) are asked and answer: those that stretch passwords and
//! look up names, and beside them the history and the disk.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use common::id::TransferId;
use common::os::worker::{self, Queue, Worker};

use crate::node::io::{
    DiskAnswer, Job, JobId, LanInput, Outcome, SealOutcome, SealWork, StoreAnswer, StoreId, WorkId,
};
use crate::port_mapping::{NoPortMapping, PortMapping};
use common::limits::{LOOKUPS_MAX, SEALS_MAX, SERVER_ADDRESSES_MAX, STRETCHES_MAX};

/// Where workers leave their answers.
pub(crate) type Answers = worker::Answers<Answer>;

/// What a worker found out.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The history's answer to a request.
    Stored(StoreId, StoreAnswer),
    /// The disk worker's answer to a request of a transfer.
    Disk(TransferId, DiskAnswer),
    /// A computation's.
    Computed(JobId, Outcome),
    /// A seal, or a proof, was checked or made.
    Sealed(WorkId, SealOutcome),
    /// The name service's.
    Resolved(Resolved),
    /// What was heard on the local network.
    Lan(LanInput),
    /// What became of the port mapping.
    PortMapping(Result<PortMapping, NoPortMapping>),
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

/// Starts the worker that stretches passwords.
pub(crate) fn spawn_stretcher(answers: Answers) -> io::Result<Worker<(JobId, Job)>> {
    Worker::spawn(
        "stretch",
        STRETCHES_MAX,
        move |queue: Queue<(JobId, Job)>| {
            for (id, job) in queue {
                if !answers.give(Answer::Computed(id, job.run())) {
                    return;
                }
            }
        },
    )
}

/// Starts the worker that checks and makes seals.
pub(crate) fn spawn_sealer(answers: Answers) -> io::Result<Worker<(WorkId, SealWork)>> {
    Worker::spawn(
        "seals",
        SEALS_MAX,
        move |queue: Queue<(WorkId, SealWork)>| {
            for (id, work) in queue {
                if !answers.give(Answer::Sealed(id, work.run())) {
                    return;
                }
            }
        },
    )
}

/// Starts the worker that looks up names. `getaddrinfo` may hang for half a minute.
pub(crate) fn spawn_resolver(answers: Answers) -> io::Result<Worker<Lookup>> {
    Worker::spawn("resolve", LOOKUPS_MAX, move |queue: Queue<Lookup>| {
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
        format!("cannot look up the name '{host}' ({error}); is it spelled right?")
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

    #[test]
    fn addresses_need_no_name_service() {
        let addresses = resolve("127.0.0.1", 7400).unwrap();
        assert_eq!(addresses, ["127.0.0.1:7400".parse().unwrap()]);
        assert!(resolve("no such host.invalid", 1).is_err());
    }
}
