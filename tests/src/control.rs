//! The socket of a running peer, as a program would use it: JSON-RPC 2.0, one message a line.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::now;
use crate::world::until;

/// A client of a profile's socket. Whatever goes wrong with it fails the test.
#[derive(Debug)]
pub struct Control {
    reader: BufReader<UnixStream>,
    last_request: u64,
    line: Vec<u8>,
    events: VecDeque<Value>,
}

impl Control {
    /// Connects to the profile in `folder` as soon as a process owns it.
    #[track_caller]
    pub fn connect(folder: &Path, patience: Duration) -> Self {
        let stream = until("the profile's socket is open", patience, || {
            UnixStream::connect(folder.join("socket")).ok()
        });
        Self {
            reader: BufReader::new(stream),
            last_request: 0,
            line: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Asks for events from now on.
    #[track_caller]
    pub fn subscribe(&mut self, patience: Duration) {
        let subscribed = self.call("subscribe", Value::Null, patience);
        subscribed.expect("events are for every client");
    }

    /// Calls a method; an error of the command is the error's data.
    #[track_caller]
    pub fn call(
        &mut self,
        method: &str,
        params: Value,
        patience: Duration,
    ) -> Result<Value, Value> {
        self.post(method, params);
        let deadline = now() + patience;
        loop {
            let left = deadline.saturating_duration_since(now());
            let Some(mut message) = self.read(left) else {
                panic!("{method} is not answered within {patience:?}");
            };
            if message["id"] == self.last_request {
                return match message.get_mut("error") {
                    Some(error) => Err(error["data"].take()),
                    None => Ok(message["result"].take()),
                };
            }
            self.events.push_back(message);
        }
    }

    /// Calls a method without waiting for the reply, which comes among the events with the id that this
    /// returns.
    #[track_caller]
    pub fn post(&mut self, method: &str, params: Value) -> u64 {
        self.last_request += 1;
        let mut request = json!({"jsonrpc": "2.0", "id": self.last_request, "method": method});
        if !params.is_null() {
            request["params"] = params;
        }
        let line = format!("{request}\n");
        let written = self.reader.get_mut().write_all(line.as_bytes());
        written.expect("the owner of the profile takes requests");
        self.last_request
    }

    /// Everything that the owner of the profile, which has died, said before and nobody has read.
    #[track_caller]
    pub fn last_words(mut self, patience: Duration) -> Vec<Value> {
        let stream = self.reader.get_ref();
        stream
            .set_read_timeout(Some(patience))
            .expect("the time is not zero");
        let mut rest = Vec::from(self.events);
        loop {
            match self.reader.read_until(b'\n', &mut self.line) {
                Ok(_) if self.line.ends_with(b"\n") => {
                    rest.push(serde_json::from_slice(&self.line).expect("every line is JSON"));
                    self.line.clear();
                }
                // It died in the middle of a line, or of a request that it had not read yet.
                Ok(_) => return rest,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return rest,
                Err(error) => panic!("the owner of the profile still lives: {error}"),
            }
        }
    }

    /// The next event; `None` if none comes in time.
    pub fn event(&mut self, patience: Duration) -> Option<Value> {
        match self.events.pop_front() {
            Some(event) => Some(event),
            None => self.read(patience),
        }
    }

    /// A message; `None` if none comes in time. A message of which only a part came stays for later.
    fn read(&mut self, patience: Duration) -> Option<Value> {
        let patience = patience.max(Duration::from_millis(1));
        let stream = self.reader.get_ref();
        stream
            .set_read_timeout(Some(patience))
            .expect("the time is not zero");
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(0) => panic!("the owner of the profile has closed the socket"),
            Ok(_) => {
                let message = serde_json::from_slice(&self.line).expect("every line is JSON");
                self.line.clear();
                Some(message)
            }
            Err(_) => None,
        }
    }
}
