//! Files, lines and texts of people: settings, known servers, requests of programs.

use common::key::DeviceSecret;
use common::os::lines::{Dialect, Request};
use common::tls::ServerIdentity;
use peer::config::{AcceptPolicy, parse_server};
use peer::profile::{
    Settings, device_secret_text, known_servers_text, parse_device_secret, parse_known_servers,
};
use peer::shell::control::ProfileDialect;
use rendezvous::shell::admin::AdminDialect;
use serde_json::Value;

use super::feed::Feed;

pub(super) fn config(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let kind = feed.below(8);
    let text = String::from_utf8_lossy(feed.0);
    match kind {
        0 => server(&text),
        1 => settings(&text),
        2 => known_servers(&text),
        3 => device_secret(&text),
        4 => accept_policy(&text),
        5 => request::<ProfileDialect>(feed.0),
        6 => request::<AdminDialect>(feed.0),
        _ => {
            // An operator's own certificate. Whatever it holds, it is used or refused.
            if let Ok(identity) = ServerIdentity::from_pem(feed.0) {
                let _ = identity.fingerprint();
                let _ = identity.into_server_config();
            }
        }
    }
}

fn server(text: &str) {
    let Ok(server) = parse_server(text) else {
        return;
    };
    let shown = server.to_string();
    assert_eq!(common::text::inline(&shown), shown);
    assert_eq!(parse_server(&shown).as_ref(), Ok(&server), "{text:?}");
}

fn settings(text: &str) {
    let Ok(settings) = Settings::parse(text) else {
        return;
    };
    let written = settings.to_text();
    assert_eq!(Settings::parse(&written).as_ref(), Ok(&settings));
    // What was checked when it was read can be used without another check.
    let _ = settings.server();
}

fn known_servers(text: &str) {
    match parse_known_servers(text) {
        Ok(known) => {
            let written = known_servers_text(&known);
            assert_eq!(parse_known_servers(&written).as_ref(), Ok(&known));
        }
        Err(line) => {
            let named = line
                .checked_sub(1)
                .and_then(|index| text.lines().nth(index));
            assert!(named.is_some_and(|line| !line.trim().is_empty()));
        }
    }
}

fn device_secret(text: &str) {
    let Some(secret) = parse_device_secret(text) else {
        return;
    };
    let written = device_secret_text(&secret);
    let again = parse_device_secret(&written);
    assert_eq!(again.as_ref().map(DeviceSecret::seed), Some(secret.seed()));
}

fn accept_policy(text: &str) {
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let Ok(policy) = AcceptPolicy::parse(&words) else {
        return;
    };
    let alice = "alice".parse().expect("a plain name");
    let is_answered = policy.answer(&alice).is_some();
    assert_eq!(is_answered, policy != AcceptPolicy::Ask);
}

/// A line at a program's socket: a request, or an answer of one line that says what is wrong.
fn request<D: Dialect>(line: &[u8]) {
    match Request::<D>::parse(line) {
        Ok(Request::Command { id, command }) => {
            check_id(id.as_ref());
            // What another program says in its own words is the same in ours.
            let said = serde_json::to_value(&command).expect("a command is plain data");
            let again: D::Command =
                serde_json::from_value(said.clone()).expect("a command of ours");
            assert_eq!(serde_json::to_value(&again).ok(), Some(said));
        }
        Ok(Request::Subscribe { id }) => check_id(id.as_ref()),
        Err(refusal) => {
            let refusal = serde_json::to_string(&refusal).expect("a response is plain data");
            assert!(!refusal.contains('\n'), "one line");
            let refusal: Value = serde_json::from_str(&refusal).expect("it was just written");
            assert!(refusal["error"]["code"].is_i64() && refusal["result"].is_null());
            check_id(Some(&refusal["id"]));
        }
    }
}

fn check_id(id: Option<&Value>) {
    let is_structured = id.is_some_and(|id| id.is_array() || id.is_object() || id.is_boolean());
    assert!(!is_structured, "{id:?}");
}
