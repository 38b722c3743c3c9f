//! One socket of the main port, and the thread's own space for what leaves.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::os::clock;
use common::os::udp::{Received, Train, TrainSender, TrainSocket};
use mio::{Events, Poll, Registry};

use super::outgoing::{Outgoing, Part, Way};
use super::{SOCKET, Shared};
use crate::relay::{Batch, Output};

/// Trains taken in one call: datagrams of many peers come in many trains. Their memory, 64 KiB each, is
/// touched as far as they fill it.
const BATCH: usize = 32;
/// Calls in a row before the thread looks at the time, and whether it is to stop.
const ROUND: usize = 32;

/// A socket of the main port, and whoever waits for it.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    poll: Poll,
    events: Events,
    socket: TrainSocket,
    outputs: Vec<Output>,
    leaving: Leaving,
}

/// What leaves once the relay is given back.
#[derive(Default)]
struct Leaving {
    answers: Vec<Answer>,
    outgoing: Outgoing,
}

/// An answer to where a datagram came from.
struct Answer {
    bytes: Vec<u8>,
    to: SocketAddr,
    /// The address that the datagram came to.
    from: Option<IpAddr>,
    is_from_second: bool,
}

impl Lane {
    /// Has `poll` wait for a socket, too.
    pub(super) fn new(
        socket: std::net::UdpSocket,
        poll: Poll,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let mut socket = TrainSocket::over(socket, BATCH)?;
        socket.register(poll.registry(), SOCKET)?;
        Ok(Self {
            shared,
            poll,
            events: Events::with_capacity(8),
            socket,
            outputs: Vec::new(),
            leaving: Leaving::default(),
        })
    }

    /// Where the thread registers what else it waits for.
    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Sends from this socket.
    pub(super) const fn sender(&self) -> &TrainSender {
        self.socket.sender()
    }

    /// Waits for at most `span`, shows what happened, and carries what came. `false` once the thread is to end.
    pub(super) fn turn(&mut self, span: Option<Duration>, show: impl FnOnce(&Events)) -> bool {
        let has_more = self.socket.is_readable();
        let span = if has_more { Some(Duration::ZERO) } else { span };
        if let Err(error) = self.poll.poll(&mut self.events, span)
            && error.kind() != io::ErrorKind::Interrupted
        {
            log::error!("a UDP thread cannot wait: {error}");
            return false;
        }
        if self.events.iter().any(|event| event.token() == SOCKET) {
            self.socket.note_readable();
        }
        show(&self.events);
        for _ in 0..ROUND {
            if self.socket.is_readable() {
                self.carry();
            }
        }
        !self.shared.stop.load(Ordering::Relaxed)
    }

    /// Hands what came together to the relay, and then sends what that wants sent. What finds no room is lost.
    fn carry(&mut self) {
        let Self {
            shared,
            socket,
            outputs,
            leaving,
            ..
        } = self;
        socket.receive_together(|sender, trains| {
            let mut came = [&[][..]; BATCH];
            let mut relay = shared.relay();
            let now = clock::now();
            for (index, (train, kept)) in trains.zip(&mut came).enumerate() {
                let Received {
                    source,
                    local,
                    ecn,
                    stride,
                    bytes,
                } = train;
                let batch = Batch {
                    bytes: &mut *bytes,
                    stride,
                    source,
                    local,
                };
                relay.handle_batch(batch, now, outputs);
                for output in outputs.drain(..) {
                    let answer = |bytes, is_from_second| Answer {
                        bytes,
                        to: source,
                        from: local,
                        is_from_second,
                    };
                    match output {
                        Output::Answer(bytes) => leaving.answers.push(answer(bytes, false)),
                        Output::AnswerFromOther(bytes) => {
                            leaving.answers.push(answer(bytes, true));
                        }
                        Output::Forward {
                            to,
                            from,
                            part,
                            stride,
                        } => {
                            let way = Way {
                                destination: to,
                                source: from,
                                ecn,
                            };
                            let part = Part {
                                train: index,
                                range: part,
                                stride,
                            };
                            leaving.outgoing.add(way, part);
                        }
                        Output::ForwardToControl { to, part, stride } => {
                            shared.pass_to_control(to, bytes[part].to_vec(), stride);
                        }
                    }
                }
                *kept = bytes;
            }
            let has_delayed = relay.take_delayed();
            drop(relay);
            if has_delayed {
                shared.wake_keeper();
            }
            leaving.send(&came, sender, shared);
        });
    }
}

impl Leaving {
    fn send(&mut self, came: &[&[u8]], main: &TrainSender, shared: &Shared) {
        for answer in self.answers.drain(..) {
            let sender = match &shared.second {
                Some(second) if answer.is_from_second => second,
                Some(_) | None => main,
            };
            send_answer(sender, &answer.bytes, (answer.to, answer.from));
        }
        self.outgoing.drain(came, |train| send(main, train));
    }
}

/// Sends an answer to where a datagram came from, from the address that it came to: whoever asked waits for an
/// answer from there.
pub(super) fn send_answer(
    sender: &TrainSender,
    answer: &[u8],
    (to, from): (SocketAddr, Option<IpAddr>),
) {
    let train = Train {
        destination: to,
        source: from,
        ecn: None,
        stride: None,
        bytes: answer,
    };
    send(sender, &train);
}

/// Sends a train, or as much of it as there is room for.
pub(super) fn send(sender: &TrainSender, train: &Train<'_>) {
    if sender.send(train).is_err() {
        log::trace!("there is no room to send");
    }
}
