//! Requests, replies and notifications: what a line holds.

use std::collections::BTreeMap;

use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Dialect;

/// JSON-RPC: the line is not JSON.
const PARSE_ERROR: i32 = -32700;
/// JSON-RPC: the line is JSON but no request.
pub(super) const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: there is no such method.
const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC: the parameters do not fit the method.
const INVALID_PARAMS: i32 = -32602;
/// The command was understood and failed.
const COMMAND_FAILED: i32 = -32000;

/// The method that is not a command.
pub(super) const SUBSCRIBE: &str = "subscribe";

/// What a client asks. A request without an `id` gets no reply.
#[derive(Debug)]
pub enum Request<D: Dialect> {
    /// To do something.
    Command {
        /// Comes back in the reply.
        id: Option<Value>,
        /// What is asked.
        command: D::Command,
    },
    /// To be told what happens from now on.
    Subscribe {
        /// Comes back in the reply.
        id: Option<Value>,
    },
}

/// The frame of a request. The parameters are read in a second pass, straight into the command, so
/// that no other copy of a password is made.
#[derive(Debug, Deserialize)]
struct Envelope {
    jsonrpc: String,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    method: String,
    #[serde(default)]
    params: Option<Params>,
}

/// Parameters, of which only the shape matters yet.
#[derive(Debug)]
enum Params {
    Empty,
    Some,
}

impl<D: Dialect> Request<D> {
    /// Reads a line, without its line feed.
    ///
    /// # Errors
    ///
    /// With what to answer, if it is not a request, or one that the dialect does not know. The answer
    /// repeats no parameter: it may be a password.
    pub fn parse(line: &[u8]) -> Result<Self, Box<Response<D>>> {
        let envelope: Envelope = serde_json::from_slice(line).map_err(|error| {
            let code = if error.is_data() {
                INVALID_REQUEST
            } else {
                PARSE_ERROR
            };
            refuse(
                code,
                format!("not a JSON-RPC 2.0 request: {error}"),
                Value::Null,
            )
        })?;
        let id = envelope.id.clone();
        if let Some(Value::Array(_) | Value::Object(_) | Value::Bool(_)) = id {
            let message = "an id is a number or a text".to_owned();
            return Err(refuse(INVALID_REQUEST, message, Value::Null));
        }
        let reply_id = id.clone().unwrap_or_default();
        if envelope.jsonrpc != "2.0" {
            let message = "only JSON-RPC 2.0 is spoken here".to_owned();
            return Err(refuse(INVALID_REQUEST, message, reply_id));
        }
        if envelope.method == SUBSCRIBE && D::subscribed().is_some() {
            return Ok(Self::Subscribe { id });
        }
        match envelope.command(line) {
            Ok(command) => Ok(Self::Command { id, command }),
            Err(_) if !methods::<D::Command>().contains(&envelope.method.as_str()) => {
                let message = format!("there is no method '{}'", envelope.method);
                Err(refuse(METHOD_NOT_FOUND, message, reply_id))
            }
            Err(error) => {
                let message = format!("wrong parameters for '{}': {error}", envelope.method);
                Err(refuse(INVALID_PARAMS, message, reply_id))
            }
        }
    }
}

impl Envelope {
    fn command<C: DeserializeOwned>(&self, line: &[u8]) -> Result<C, serde_json::Error> {
        let whole = serde_json::from_slice(line);
        match (&whole, &self.params) {
            // A method without parameters may be called with none of them in `{}` or `[]`.
            (Err(_), Some(Params::Empty)) => {
                let bare = BTreeMap::from([("method", self.method.as_str())]);
                serde_json::from_value(serde_json::to_value(bare)?)
            }
            (Ok(_) | Err(_), Some(Params::Empty | Params::Some) | None) => whole,
        }
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape {
            Object(BTreeMap<String, IgnoredAny>),
            Array(Vec<IgnoredAny>),
            Null(()),
        }
        let is_empty = match Shape::deserialize(deserializer)? {
            Shape::Object(members) => members.is_empty(),
            Shape::Array(members) => members.is_empty(),
            Shape::Null(()) => true,
        };
        Ok(if is_empty { Self::Empty } else { Self::Some })
    }
}

/// An `id` that is there, even if it is `null`, asks for a reply.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What a client is answered, as JSON.
#[derive(Debug, Serialize)]
#[serde(bound = "")]
pub struct Response<D: Dialect> {
    jsonrpc: Version,
    id: Value,
    #[serde(flatten)]
    outcome: Outcome<D>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", bound = "")]
enum Outcome<D: Dialect> {
    Result(D::Reply),
    Error(RpcError<D>),
}

#[derive(Debug, Serialize)]
#[serde(bound = "")]
struct RpcError<D: Dialect> {
    code: i32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<D::Error>,
}

#[derive(Debug, Serialize)]
pub(super) struct Notification<'a, E> {
    jsonrpc: Version,
    #[serde(flatten)]
    event: &'a E,
}

impl<'a, E> Notification<'a, E> {
    pub(super) const fn new(event: &'a E) -> Self {
        Self {
            jsonrpc: Version,
            event,
        }
    }
}

/// Always `"2.0"`.
#[derive(Debug)]
struct Version;

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("2.0")
    }
}

impl<D: Dialect> Response<D> {
    pub(super) const fn result(id: Value, reply: D::Reply) -> Self {
        Self {
            jsonrpc: Version,
            id,
            outcome: Outcome::Result(reply),
        }
    }

    pub(super) fn failed(id: Value, error: D::Error) -> Self {
        Self {
            jsonrpc: Version,
            id,
            outcome: Outcome::Error(RpcError {
                code: COMMAND_FAILED,
                message: error.to_string(),
                data: Some(error),
            }),
        }
    }

    pub(super) const fn refused(code: i32, message: String, id: Value) -> Self {
        Self {
            jsonrpc: Version,
            id,
            outcome: Outcome::Error(RpcError {
                code,
                message,
                data: None,
            }),
        }
    }
}

fn refuse<D: Dialect>(code: i32, message: String, id: Value) -> Box<Response<D>> {
    Box::new(Response::refused(code, message, id))
}

pub(super) fn to_line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("our own types have string keys only");
    line.push(b'\n');
    line
}

// ---- methods -----------------------------------------------------------------------------------

/// The names of all methods, as serde has them from the enum of the commands.
pub fn methods<C: DeserializeOwned>() -> &'static [&'static str] {
    // A method that there is not makes serde say which there are.
    let nonsense = [("method", "?")].into_iter();
    match C::deserialize(MapDeserializer::<_, Expected>::new(nonsense)) {
        Err(Expected(methods)) => methods,
        Ok(_) => &[],
    }
}

/// An error that keeps what would have been right.
#[derive(Debug, thiserror::Error)]
#[error("expected one of {0:?}")]
struct Expected(&'static [&'static str]);

impl serde::de::Error for Expected {
    fn custom<T: std::fmt::Display>(_message: T) -> Self {
        Self(&[])
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        Self(expected)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::NoEvent;
    use super::super::sample::{Command, Error, Event, Reply, Sample};
    use super::*;

    fn refusal(line: &str) -> i32 {
        let Err(response) = Request::<Sample>::parse(line.as_bytes()) else {
            panic!("accepted: {line}");
        };
        let Outcome::Error(error) = response.outcome else {
            panic!("no error: {line}");
        };
        error.code
    }

    #[test]
    fn the_enum_of_the_commands_names_the_methods() {
        assert_eq!(methods::<Command>(), ["status", "history", "log_in"]);
        assert_eq!(methods::<NoEvent>(), [""; 0]);
    }

    #[test]
    fn commands_come_with_and_without_parameters() {
        for params in [
            "",
            r#","params":null"#,
            r#","params":{}"#,
            r#","params":[]"#,
        ] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"status"{params}}}"#);
            let request = Request::<Sample>::parse(line.as_bytes()).unwrap();
            assert!(
                matches!(&request, Request::Command { id: Some(id), command: Command::Status } if *id == 1),
                "{line}: {request:?}"
            );
        }
        let line = r#"{"params":{"limit":3},"method":"history","id":"x","jsonrpc":"2.0"}"#;
        let request = Request::<Sample>::parse(line.as_bytes()).unwrap();
        assert!(
            matches!(
                &request,
                Request::Command {
                    command: Command::History {
                        with: None,
                        limit: 3
                    },
                    ..
                }
            ),
            "{request:?}"
        );
    }

    #[test]
    fn a_null_id_is_an_id_and_a_missing_one_is_a_notification() {
        let line = br#"{"jsonrpc":"2.0","id":null,"method":"subscribe"}"#;
        let request = Request::<Sample>::parse(line).unwrap();
        assert!(matches!(
            request,
            Request::Subscribe {
                id: Some(Value::Null)
            }
        ));
        let request = Request::<Sample>::parse(br#"{"jsonrpc":"2.0","method":"status"}"#).unwrap();
        assert!(matches!(request, Request::Command { id: None, .. }));
    }

    #[test]
    fn each_mistake_has_its_code() {
        for line in ["", "{", "nonsense", r#"{"jsonrpc":"2.0","#, "\u{1}"] {
            assert_eq!(refusal(line), PARSE_ERROR, "{line}");
        }
        let invalid = [
            "[]",
            "1",
            "null",
            "{}",
            r#"{"method":"status","id":1}"#,
            r#"{"jsonrpc":"1.0","method":"status","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"status"}"#,
            r#"[{"jsonrpc":"2.0","id":1,"method":"status"}]"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"status","method":"history"}"#,
        ];
        for line in invalid {
            assert_eq!(refusal(line), INVALID_REQUEST, "{line}");
        }
        for method in ["nonsense", "Status", "", "status "] {
            let line =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"a":1}}}}"#);
            assert_eq!(refusal(&line), METHOD_NOT_FOUND, "{line}");
        }
        for params in ["{}", "[]", r#"{"limit":-1}"#, r#"{"with":1,"limit":1}"#] {
            let line =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"history","params":{params}}}"#);
            assert_eq!(refusal(&line), INVALID_PARAMS, "{line}");
        }
    }

    #[test]
    fn nesting_does_not_exhaust_the_stack() {
        let line = format!(r#"{{"jsonrpc":"2.0","id":{}"#, "[".repeat(200_000));
        assert_eq!(refusal(&line), PARSE_ERROR);
    }

    #[test]
    fn t33_a_mistake_does_not_repeat_a_password() {
        let line =
            br#"{"jsonrpc":"2.0","id":1,"method":"log_in","params":{"password":"hunter22"}}"#;
        let response = Request::<Sample>::parse(line).unwrap_err();
        assert!(!format!("{response:?}").contains("hunter22"));
        assert!(
            !serde_json::to_string(&response)
                .unwrap()
                .contains("hunter22")
        );
    }

    #[test]
    fn answers_have_the_shape_of_the_specification() {
        let to_value = |response: &Response<Sample>| serde_json::to_value(response).unwrap();
        assert_eq!(
            to_value(&Response::result(json!(1), Reply::Done)),
            json!({"jsonrpc": "2.0", "id": 1, "result": "done"})
        );
        let error = Response::failed(json!("x"), Error::Nobody);
        assert_eq!(
            to_value(&error),
            json!({"jsonrpc": "2.0", "id": "x", "error": {
                "code": -32000,
                "message": "nobody is there",
                "data": "nobody",
            }})
        );
        let error = Response::refused(PARSE_ERROR, "why".to_owned(), Value::Null);
        assert_eq!(
            to_value(&error),
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "why"}})
        );
        let state = "online".to_owned();
        let event = Event::Connection { state };
        assert_eq!(
            serde_json::to_value(Notification::new(&event)).unwrap(),
            json!({"jsonrpc": "2.0", "method": "connection", "params": {"state": "online"}})
        );
    }
}
