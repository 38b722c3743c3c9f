//! Links to other devices: how their packets go, how long they take, and what is lost.

use std::time::Duration;

use common::text::{self, Align};

use crate::node::command::{Carrier, LinkView, Traffic, Way};
use crate::ui::Look;

/// How fast a link sends and receives, in bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Rates {
    sent_per_s: u64,
    received_per_s: u64,
}

impl Rates {
    /// The rates of a link that had the traffic `before` a `span` ago. They begin anew with another path.
    pub(crate) fn between(before: Option<&LinkView>, link: &LinkView, span: Duration) -> Self {
        let same = before.filter(|before| before.way == link.way);
        let Some(LinkView { traffic: then, .. }) = same else {
            return Self::default();
        };
        let per_s = |bytes: u64| (bytes as f64 / span.as_secs_f64().max(0.001)) as u64;
        let now = &link.traffic;
        Self {
            sent_per_s: per_s(now.sent_bytes.saturating_sub(then.sent_bytes)),
            received_per_s: per_s(now.received_bytes.saturating_sub(then.received_bytes)),
        }
    }
}

/// A link in a few words.
pub(super) fn in_words(link: &LinkView) -> String {
    let way = match link.way {
        Way::Direct { remote } => format!("direct, {remote}"),
        Way::Relayed { over: Carrier::Udp } => "through the relay".to_owned(),
        Way::Relayed {
            over: Carrier::Control,
        } => "through the relay over TCP".to_owned(),
    };
    format!("{}, {way}, {}", link.account, round_trip(link))
}

/// Links under each other, with what is lost of what this side sends, and how fast both sides are. An IPv4
/// address and a short name fit 80 columns.
pub(crate) fn table(
    links: &[(LinkView, Rates)],
    columns: Option<usize>,
    look: &Look,
) -> Vec<String> {
    let heads = [
        "ACCOUNT", "PATH", "ADDRESS", "RTT", "LOSS", "SENDS", "RECEIVES",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(links.iter().map(|(link, rates)| {
        let (path, address) = match link.way {
            Way::Direct { remote } => ("direct", remote.to_string()),
            Way::Relayed { over: Carrier::Udp } => ("relayed", "by the server".to_owned()),
            Way::Relayed {
                over: Carrier::Control,
            } => ("relayed", "by the server, TCP".to_owned()),
        };
        let per_s = |bytes: u64| format!("{}/s", text::size(bytes));
        [
            link.account.to_string(),
            path.to_owned(),
            address,
            round_trip(link),
            loss(&link.traffic),
            per_s(rates.sent_per_s),
            per_s(rates.received_per_s),
        ]
    }));
    let mut lines = text::table(&rows, [Align::Left; 7], columns);
    if let Some(heads) = lines.first_mut() {
        *heads = look.dim(heads);
    }
    lines
}

/// Or that there is none now.
fn round_trip(link: &LinkView) -> String {
    if link.is_silent {
        return "no answer".to_owned();
    }
    match link.round_trip_us {
        short @ 0..10_000 => format!("{:.1} ms", short as f64 / 1000.0),
        long => format!("{} ms", long / 1000),
    }
}

fn loss(traffic: &Traffic) -> String {
    let permille = traffic.lost_packets as f64 * 100.0 / traffic.sent_packets.max(1) as f64;
    format!("{permille:.1} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(way: Way) -> LinkView {
        LinkView {
            account: "bob".parse().unwrap(),
            fingerprint: String::new(),
            way,
            round_trip_us: 1_250,
            is_silent: false,
            traffic: Traffic {
                sent_packets: 200,
                lost_packets: 1,
                sent_bytes: 3_000_000,
                received_bytes: 4_000,
            },
        }
    }

    fn direct() -> Way {
        let remote = "192.0.2.7:5000".parse().unwrap();
        Way::Direct { remote }
    }

    #[test]
    fn a_link_says_how_its_packets_go() {
        assert_eq!(
            in_words(&link(direct())),
            "bob, direct, 192.0.2.7:5000, 1.2 ms"
        );
        let mut relayed = link(Way::Relayed { over: Carrier::Udp });
        relayed.round_trip_us = 31_900;
        assert_eq!(in_words(&relayed), "bob, through the relay, 31 ms");
        relayed.way = Way::Relayed {
            over: Carrier::Control,
        };
        assert_eq!(in_words(&relayed), "bob, through the relay over TCP, 31 ms");
        let mut hung = relayed.clone();
        hung.is_silent = true;
        assert_eq!(
            in_words(&hung),
            "bob, through the relay over TCP, no answer"
        );
        let remote = "192.168.100.200:50000".parse().unwrap();
        let rates = Rates {
            sent_per_s: 250_000_000,
            received_per_s: 4_000,
        };
        let links = [(link(Way::Direct { remote }), rates), (relayed, rates)];
        assert_eq!(
            table(&links, Some(80), &Look::plain()),
            [
                "ACCOUNT  PATH     ADDRESS                RTT     LOSS   SENDS       RECEIVES",
                "bob      direct   192.168.100.200:50000  1.2 ms  0.5 %  250.0 MB/s  4.0 kB/s",
                "bob      relayed  by the server, TCP     31 ms   0.5 %  250.0 MB/s  4.0 kB/s",
            ]
        );
    }

    #[test]
    fn rates_are_those_of_one_path() {
        let before = link(direct());
        let mut after = before.clone();
        after.traffic.sent_bytes += 500;
        let half = Duration::from_millis(500);
        let rates = Rates::between(Some(&before), &after, half);
        assert_eq!((rates.sent_per_s, rates.received_per_s), (1000, 0));
        after.way = Way::Relayed { over: Carrier::Udp };
        assert_eq!(
            Rates::between(Some(&before), &after, half),
            Rates::default()
        );
        assert_eq!(Rates::between(None, &after, half), Rates::default());
    }
}
