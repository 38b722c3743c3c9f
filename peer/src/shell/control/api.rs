//! `peer/API.md` says what is spoken on the socket. Here it is held against the types.

use std::collections::BTreeSet;

use common::limits::{
    EXAMINED_SERVERS_MAX, FEED_QUEUE_MAX, HISTORY_ITEMS_LEN_MAX, HISTORY_ITEMS_MAX,
    MESSAGE_LEN_MAX, ON_MESSAGE_TIMEOUT, ON_MESSAGE_TIMEOUT_MAX, OUTBOX_MESSAGES_MAX,
    PASSWORD_CHARS_MIN, PASSWORD_LEN_MAX, PROFILE_CLIENTS_MAX, PROFILE_EVENTS_MAX,
    PROFILE_LINE_LEN_MAX, PROFILE_REQUESTS_MAX, PROFILE_REQUESTS_PER_CLIENT_MAX,
    PROFILE_SEND_QUEUE_LEN_MAX, RECIPIENTS_MAX, REPLY_LINE_LEN_MAX, SOCKET_PATH_LEN_MAX,
    WITHDRAW_MAX,
};
use common::os::lines;
use common::wire::rendezvous::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Request;
use crate::node::command::{API_VERSION, Command, CommandError, Event, Reply};

const PAGE: &str = include_str!("../../../API.md");

/// The text below a heading of the second order.
fn chapter(name: &str) -> &'static str {
    let chapters = PAGE.split("\n## ").skip(1);
    let mut found = chapters.filter_map(|text| text.strip_prefix(name)?.strip_prefix('\n'));
    found.next().unwrap_or_else(|| panic!("no chapter {name}"))
}

/// The sections of a chapter by the names in their headings.
fn sections(chapter: &'static str) -> Vec<(&'static str, &'static str)> {
    let sections = chapter.split("\n### `").skip(1);
    let named = sections.map(|text| text.split_once("`\n").expect("a name in back quotes"));
    named.collect()
}

/// What stands in a section's blocks of JSON, line by line.
fn examples(section: &str) -> Vec<Value> {
    let blocks = section.split("```json\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    let parsed = lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    parsed.collect()
}

/// Words in back quotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The value as the type writes it, which has to be the same: nothing is missing, and nothing invented.
#[track_caller]
fn same<T: DeserializeOwned + Serialize>(value: &Value) -> T {
    let parsed: T =
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"));
    assert_eq!(&serde_json::to_value(&parsed).unwrap(), value);
    parsed
}

/// All names of an object's members, and of those within.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                found.insert(name.clone());
                names(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn params(value: &Value) -> Map<String, Value> {
    let params = value["params"].as_object().cloned();
    params.unwrap_or_default()
}

/// The only member of a result, or `done`.
const fn result_of(command: &Command) -> &'static str {
    match command {
        Command::Version => "version",
        Command::Register { .. } | Command::LogIn { .. } | Command::WaitReady => "logged_in",
        Command::Admit => "admission",
        Command::Status => "status",
        Command::Examination => "examination",
        Command::List => "directory",
        Command::Contacts => "contacts",
        Command::Send { .. } => "queued",
        Command::Withdraw { .. } => "withdrawn",
        Command::SendFile { .. } => "started",
        Command::Offers => "offers",
        Command::Outbox | Command::History(_) | Command::Unread => "messages",
        Command::Recorded { .. } => "recorded",
        Command::LogOut
        | Command::Examine { .. }
        | Command::Watch
        | Command::AnswerOffer { .. }
        | Command::Cancel { .. }
        | Command::MarkRead { .. }
        | Command::Found { .. }
        | Command::Approve { .. }
        | Command::Name { .. }
        | Command::Revoke { .. }
        | Command::Recover { .. } => "done",
        Command::Devices => "devices",
        Command::Safety { .. } | Command::Verify { .. } => "safety",
    }
}

#[test]
fn every_method_is_described_and_no_other() {
    let described: BTreeSet<&str> = sections(chapter("Methods")).iter().map(|it| it.0).collect();
    let methods = lines::methods::<Command>().iter().copied();
    assert_eq!(described, methods.chain(["subscribe"]).collect());
}

#[test]
fn every_notification_is_described_and_no_other() {
    let all = sections(chapter("Notifications"));
    let described: BTreeSet<&str> = all.iter().map(|it| it.0).collect();
    let events = lines::methods::<Event>().iter().copied();
    assert_eq!(described, events.collect());
    for (name, section) in all {
        let examples = examples(section);
        assert!(!examples.is_empty(), "{name}");
        for mut example in examples {
            let jsonrpc = example.as_object_mut().unwrap().remove("jsonrpc");
            assert_eq!(jsonrpc, Some("2.0".into()));
            assert_eq!(example["method"], name);
            same::<Event>(&example);
        }
    }
}

#[test]
fn every_example_of_a_method_is_what_the_program_takes_and_gives() {
    for (name, section) in sections(chapter("Methods")) {
        let (asked, answered): (Vec<Value>, Vec<Value>) = examples(section)
            .into_iter()
            .partition(|example| example.get("method").is_some());
        assert!(!asked.is_empty() && !answered.is_empty(), "{name}");
        let mut result = "done";
        for request in asked {
            assert_eq!(request["method"], name);
            let parsed = Request::parse(request.to_string().as_bytes()).unwrap();
            let command = match parsed {
                Request::Command { id, command } => {
                    assert!(id.is_some(), "{name}");
                    command
                }
                Request::Subscribe { .. } => continue,
            };
            result = result_of(&command);
            // Every parameter is shown, and none that there is not.
            let known = params(&serde_json::to_value(&command).unwrap());
            assert_eq!(params(&request), known, "{name}");
            let rows: BTreeSet<&str> = section
                .lines()
                .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
                .collect();
            for parameter in known.keys() {
                assert!(rows.contains(parameter.as_str()), "{name}: {parameter}");
            }
            let words: Vec<&str> = section.split_whitespace().collect();
            let says_none = words.join(" ").contains("No parameters.");
            assert_eq!(known.is_empty(), says_none, "{name}");
        }
        let mut has_result = false;
        for answer in answered {
            assert_eq!(answer["jsonrpc"], "2.0");
            if let Some(error) = answer.get("error") {
                assert_eq!(error["code"], -32000);
                let parsed = same::<CommandError>(&error["data"]);
                assert_eq!(error["message"], parsed.to_string());
                continue;
            }
            has_result = true;
            let given = &answer["result"];
            let reply = same::<Reply>(given);
            let member = given.as_object().map(|members| members.keys().collect());
            let member: Vec<&String> = member.unwrap_or_default();
            match given.as_str() {
                Some(text) => assert_eq!(text, result, "{name}"),
                None => assert_eq!(member, [result], "{name}: {reply:?}"),
            }
        }
        assert!(has_result, "{name}");
    }
}

/// The kinds that an enum knows, as serde names them where it does not know one.
fn kinds<T: DeserializeOwned>() -> BTreeSet<String> {
    let error = serde_json::from_value::<T>(json!("?")).err().unwrap();
    let error = error.to_string();
    let named = error.split('`').skip(3).step_by(2);
    named.map(str::to_owned).collect()
}

/// The rows of a table that begin with a kind, each with its example.
fn rows(table: &str) -> Vec<(String, Value)> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let parsed = rows.map(|row| {
        let mut cells = row.split('`');
        let kind = cells.next().unwrap().to_owned();
        let example = cells.nth(1).unwrap();
        (kind, serde_json::from_str(example).unwrap())
    });
    parsed.collect()
}

/// The kind of an error or a refusal.
fn kind_of(value: &Value) -> &str {
    let members = value.as_object();
    let name = members.and_then(|members| members.keys().next());
    name.map_or_else(|| value.as_str().unwrap(), String::as_str)
}

#[test]
fn every_kind_of_error_is_described_and_no_other() {
    let (errors, refusals) = chapter("Errors").split_once("\nWith `refused`").unwrap();
    let described = rows(errors.split_once("\n| kind ").unwrap().1);
    for (kind, example) in &described {
        same::<CommandError>(example);
        assert_eq!(kind, kind_of(example));
    }
    let of_errors: BTreeSet<String> = described.into_iter().map(|it| it.0).collect();
    assert_eq!(of_errors, kinds::<CommandError>());

    let described = rows(refusals);
    for (kind, example) in &described {
        same::<Refusal>(example);
        assert_eq!(kind, kind_of(example));
    }
    let of_refusals: BTreeSet<String> = described.into_iter().map(|it| it.0).collect();
    assert_eq!(of_refusals, kinds::<Refusal>());

    for (name, section) in sections(chapter("Methods")) {
        let (_, said) = section
            .split_once("\nErrors: ")
            .unwrap_or_else(|| panic!("{name}"));
        // What follows is in prose.
        let said = quoted(said.split(". ").next().unwrap());
        for kind in said {
            assert!(of_errors.contains(kind), "{name}: {kind}");
        }
    }
}

#[test]
fn every_member_of_an_example_is_described() {
    let mut found = BTreeSet::new();
    for example in examples(PAGE) {
        names(&example, &mut found);
    }
    let prose: String = PAGE.split("```").step_by(2).collect();
    let described = quoted(&prose);
    for name in ["jsonrpc", "id", "method", "params", "result", "error"] {
        found.remove(name);
    }
    let missing: Vec<&String> = found
        .iter()
        .filter(|name| !described.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_version_and_the_limits_are_these() {
    assert!(chapter("Version").starts_with(&format!("\nThis is version {API_VERSION},")));
    let connecting = chapter("Connecting");
    for limit in [
        PROFILE_CLIENTS_MAX,
        PROFILE_LINE_LEN_MAX,
        REPLY_LINE_LEN_MAX,
        PROFILE_REQUESTS_PER_CLIENT_MAX,
        PROFILE_REQUESTS_MAX,
        PROFILE_EVENTS_MAX,
        PROFILE_SEND_QUEUE_LEN_MAX,
    ] {
        assert!(connecting.contains(&format!("| {limit} |\n")), "{limit}");
    }
    assert!(connecting.contains(&format!("at most {SOCKET_PATH_LEN_MAX} bytes")));
    let methods = sections(chapter("Methods"));
    let says = |method: &str, words: String| {
        let (_, section) = methods.iter().find(|it| it.0 == method).unwrap();
        assert!(section.contains(&words), "{method}: {words}");
    };
    says(
        "register",
        format!("{PASSWORD_CHARS_MIN} code points at least"),
    );
    says("register", format!("{PASSWORD_LEN_MAX} bytes of UTF-8"));
    says("examine", format!("at most {EXAMINED_SERVERS_MAX}."));
    says("send", format!("1 to {RECIPIENTS_MAX}."));
    says("send", format!("1 to {MESSAGE_LEN_MAX} bytes"));
    says("send", format!("({OUTBOX_MESSAGES_MAX} messages wait"));
    says("withdraw", format!("at most {WITHDRAW_MAX}."));
    says("unread", format!("at most {HISTORY_ITEMS_MAX}."));
    for method in ["history", "recorded"] {
        says(method, format!("{HISTORY_ITEMS_MAX} if it is greater"));
        says(method, format!("{HISTORY_ITEMS_LEN_MAX} bytes of text"));
    }
    let run = chapter("`peer run --on-message PROGRAM`");
    for words in [
        format!("after {} seconds", ON_MESSAGE_TIMEOUT.as_secs()),
        format!("\n  {}.", ON_MESSAGE_TIMEOUT_MAX.as_secs()),
        format!("{FEED_QUEUE_MAX} of them"),
    ] {
        assert!(run.contains(&words), "{words}");
    }
}
