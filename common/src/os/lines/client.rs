//! The side that asks.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Dialect;
use super::path::SocketPath;
use super::rpc::SUBSCRIBE;

/// Room for the longest command with a password, so that it is never copied to a larger buffer.
const COMMAND_LEN_MIN: usize = 8 * 1024;

/// A connection to the process that answers. Dropping it ends it for its [`LineReader`], too.
#[derive(Debug)]
pub struct LineClient<D> {
    stream: UnixStream,
    last_id: u64,
    dialect: PhantomData<D>,
}

/// Where the messages of a connection arrive; may wait on a thread of its own.
#[derive(Debug)]
pub struct LineReader<D> {
    stream: BufReader<UnixStream>,
    dialect: PhantomData<D>,
}

/// What the other side says.
#[derive(Debug)]
pub enum Message<D: Dialect> {
    /// The reply to the request with this number.
    Reply(u64, Result<D::Reply, D::Error>),
    /// An error that answers no request of ours: the connection is refused.
    Refused(D::Error),
    /// Something happened.
    Event(D::Event),
}

impl<D: Dialect> LineClient<D> {
    /// Connects. The path may have any length.
    ///
    /// # Errors
    ///
    /// If nobody listens there, or not for us.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Ok(Self {
            stream: UnixStream::connect(SocketPath::new(socket)?.as_path())?,
            last_id: 0,
            dialect: PhantomData,
        })
    }

    /// Bounds how long each write, and each read of the reader, may wait.
    ///
    /// # Errors
    ///
    /// If `patience` is zero.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))?;
        self.stream.set_write_timeout(Some(patience))
    }

    /// The end of the connection at which messages arrive. There is to be one.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor left.
    pub fn reader(&self) -> io::Result<LineReader<D>> {
        Ok(LineReader {
            stream: BufReader::new(self.stream.try_clone()?),
            dialect: PhantomData,
        })
    }

    /// Sends a command; returns the number that its reply will have.
    ///
    /// # Errors
    ///
    /// If the other side is gone, or does not read within the patience; also if JSON cannot hold the
    /// command, as with a path that is not text.
    pub fn send(&mut self, command: &D::Command) -> io::Result<u64> {
        let mut line = self.begin();
        serde_json::to_writer(&mut *line, command)?;
        // A command is an object: its members join those of the request.
        let start = line.iter().skip(1).position(|byte| *byte == b'{');
        line[start.expect("a command is an object") + 1] = b' ';
        self.finish(line)
    }

    /// Asks for events from now on; returns the number that the reply will have.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn subscribe(&mut self) -> io::Result<u64> {
        let mut line = self.begin();
        line.extend_from_slice(format!(r#""method":"{SUBSCRIBE}"}}"#).as_bytes());
        self.finish(line)
    }

    /// Sends a command and waits for its reply. What else is said is lost: this is for connections that
    /// ask one thing after the other.
    ///
    /// # Errors
    ///
    /// If the other side is gone, does not answer within the patience, or does not speak like this.
    pub fn call(&mut self, command: &D::Command) -> io::Result<Result<D::Reply, D::Error>> {
        let mut reader = self.reader()?;
        let sent = self.send(command);
        loop {
            match (reader.next_message(), &sent) {
                // Whoever is turned away at once may not even get its request through.
                (Ok(Message::Refused(error)), _) => return Ok(Err(error)),
                (Ok(Message::Reply(of, result)), Ok(id)) if of == *id => return Ok(result),
                (Ok(Message::Reply(..) | Message::Event(_)), _) => {}
                (Err(error), Ok(_)) => return Err(error),
                (Err(_), Err(_)) => return Err(sent.expect_err("just seen")),
            }
        }
    }

    /// Starts a request; the caller adds the other members and the closing brace.
    fn begin(&mut self) -> Zeroizing<Vec<u8>> {
        self.last_id += 1;
        let mut line = Zeroizing::new(Vec::with_capacity(COMMAND_LEN_MIN));
        line.extend_from_slice(format!(r#"{{"jsonrpc":"2.0","id":{},"#, self.last_id).as_bytes());
        line
    }

    fn finish(&mut self, mut line: Zeroizing<Vec<u8>>) -> io::Result<u64> {
        line.push(b'\n');
        self.stream
            .write_all(&line)
            .map_err(|error| gone::<D>(&error))?;
        Ok(self.last_id)
    }
}

impl<D> Drop for LineClient<D> {
    fn drop(&mut self) {
        // Ends a thread that reads; if it has ended already there is nothing to do.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl<D: Dialect> LineReader<D> {
    /// Waits for the next message. Lines that a newer program may say are passed over.
    ///
    /// # Errors
    ///
    /// If the other side is gone, broke off in a message or said one that is too long, or if nothing
    /// comes within the patience.
    pub fn next_message(&mut self) -> io::Result<Message<D>> {
        loop {
            let line = self.next_line()?;
            if let Some(message) = parse_message(&line) {
                return Ok(message);
            }
            log::debug!("ignored a line of {} bytes from the socket", line.len());
        }
    }

    fn next_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let bounded = Read::take(&mut self.stream, D::LIMITS.reply_len as u64);
        let ended = |how| {
            let reason = format!("{} {how}", D::PROCESS);
            Err(io::Error::new(ErrorKind::UnexpectedEof, reason))
        };
        match { bounded }.read_until(b'\n', &mut line) {
            Ok(0) => ended("has ended"),
            Ok(_) if line.last() != Some(&b'\n') => ended("broke off in a message"),
            Ok(_) => Ok(line),
            Err(error) => Err(gone::<D>(&error)),
        }
    }
}

fn gone<D: Dialect>(error: &io::Error) -> io::Error {
    let is_late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    let what = if is_late {
        "does not answer"
    } else {
        "has ended"
    };
    let reason = format!("{} {what} ({error})", D::PROCESS);
    io::Error::new(error.kind(), reason)
}

/// Reads a message; `None` for what a newer program may say.
fn parse_message<D: Dialect>(line: &[u8]) -> Option<Message<D>> {
    let mut message: Value = serde_json::from_slice(line).ok()?;
    let error = message.get_mut("error").map(Value::take);
    match (message.get("id").and_then(Value::as_u64), error) {
        (Some(id), Some(error)) => Some(Message::Reply(id, Err(parse_error::<D>(error)))),
        (Some(id), None) => {
            let result = message.get_mut("result").map_or(json!("done"), Value::take);
            let result = serde_json::from_value(result)
                .map_err(|error| D::unexpected(format!("the reply cannot be understood: {error}")));
            Some(Message::Reply(id, result))
        }
        (None, Some(error)) => Some(Message::Refused(parse_error::<D>(error))),
        (None, None) => {
            message.as_object_mut()?.remove("jsonrpc");
            let event = serde_json::from_value(message).ok()?;
            Some(Message::Event(event))
        }
    }
}

fn parse_error<D: Dialect>(mut error: Value) -> D::Error {
    let data = error.get_mut("data").map_or(Value::Null, Value::take);
    serde_json::from_value(data).unwrap_or_else(|_| {
        let message = error.get("message").and_then(Value::as_str);
        D::unexpected(
            message
                .unwrap_or("it was refused without a reason")
                .to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::super::sample::{Command, Error, Event, Reply, Sample};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A client, and a thread that serves it: for each request, the lines that `answer` makes of it.
    fn client(
        answer: impl Fn(&Value) -> Vec<String> + Send + 'static,
    ) -> (tempfile::TempDir, LineClient<Sample>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut writer = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let request = serde_json::from_str(&line).unwrap();
                for line in answer(&request) {
                    if writer.write_all(line.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        let client = LineClient::connect(&path).unwrap();
        client.set_patience(PATIENCE).unwrap();
        (folder, client)
    }

    fn answer(request: &Value, result: Value) -> String {
        let id = &request["id"];
        format!(
            "{}\n",
            json!({"jsonrpc": "2.0", "id": id, "result": result})
        )
    }

    #[test]
    fn requests_are_one_object_on_one_line() {
        let (_folder, mut client) = client(|request| {
            assert_eq!(request["jsonrpc"], "2.0");
            assert_eq!(request["method"], "log_in");
            assert_eq!(request["params"]["account"], "alice");
            assert_eq!(request["params"]["password"], "a \"quoted\"\nsecret");
            vec![answer(request, json!("done"))]
        });
        let command = Command::LogIn {
            account: "alice".to_owned(),
            password: "a \"quoted\"\nsecret".to_owned(),
        };
        assert_eq!(client.call(&command).unwrap(), Ok(Reply::Done));
    }

    #[test]
    fn messages_are_told_apart_and_those_of_the_future_passed_over() {
        let (_folder, mut client) = client(|request| {
            assert_eq!(request["method"], SUBSCRIBE);
            vec![
                "{\"jsonrpc\":\"2.0\",\"method\":\"from_the_future\",\"params\":1}\n".to_owned(),
                "{\"jsonrpc\":\"2.0\",\"method\":\"connection\",\"params\":{\"state\":\"x\"}}\n"
                    .to_owned(),
                answer(request, json!("done")),
                "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":1,\"message\":\"full\"}}\n"
                    .to_owned(),
            ]
        });
        let id = client.subscribe().unwrap();
        let mut reader = client.reader().unwrap();
        let Message::Event(event) = reader.next_message().unwrap() else {
            panic!("no event");
        };
        assert_eq!(
            event,
            Event::Connection {
                state: "x".to_owned()
            }
        );
        let reply = reader.next_message().unwrap();
        assert!(
            matches!(reply, Message::Reply(of, Ok(Reply::Done)) if of == id),
            "{reply:?}"
        );
        let refused = reader.next_message().unwrap();
        assert!(
            matches!(&refused, Message::Refused(Error::Unexpected(why)) if why == "full"),
            "{refused:?}"
        );
    }

    #[test]
    fn errors_keep_their_meaning() {
        let (_folder, mut client) = client(|request| {
            let error = if request["method"] == "status" {
                json!({"code": -32000, "message": "…", "data": "nobody"})
            } else {
                json!({"code": -32601, "message": "no such method"})
            };
            let id = &request["id"];
            vec![format!(
                "{}\n",
                json!({"jsonrpc": "2.0", "id": id, "error": error})
            )]
        });
        assert_eq!(client.call(&Command::Status).unwrap(), Err(Error::Nobody));
        let history = Command::History {
            with: None,
            limit: 1,
        };
        let unexpected = Error::Unexpected("no such method".to_owned());
        assert_eq!(client.call(&history).unwrap(), Err(unexpected));
    }

    #[test]
    fn t20_a_reply_that_never_ends_is_not_kept() {
        let (_folder, mut client) = client(|_| vec!["x".repeat(Sample::LIMITS.reply_len + 1)]);
        let error = client.call(&Command::Status).unwrap_err();
        assert!(error.to_string().contains("broke off"), "{error}");
    }

    #[test]
    fn t21_a_reply_that_does_not_come_is_given_up() {
        let (_folder, mut client) = client(|_| Vec::new());
        client.set_patience(Duration::from_millis(20)).unwrap();
        let error = client.call(&Command::Status).unwrap_err();
        assert!(
            error.to_string().contains("the sample does not answer"),
            "{error}"
        );
    }
}
