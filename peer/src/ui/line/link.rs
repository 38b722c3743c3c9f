//! Links to other devices: how their packets go, how long they take, and what is lost.

use std::time::Duration;

use common::text::{self, Align};

use super::devices::beginning;
use crate::node::command::{Carrier, LinkView, PathChanged, Way};
use crate::ui::Look;

/// What a link carried lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Rates {
    /// In bytes a second.
    sent_per_s: u64,
    received_per_s: u64,
    /// In the whole span that was looked at.
    recent_sent_packets: u64,
    /// Some may have been sent before the span, as a loss is noticed later.
    recent_lost_packets: u64,
}

impl Rates {
    /// The rates of a link in the `span` since `before` was all that there was. They are those of one path of one
    /// link, of which a device may have several: what another one has carried is no difference to this.
    pub(crate) fn since(before: &[LinkView], link: &LinkView, span: Duration) -> Self {
        let path = |view: &LinkView| (view.link, view.path_changes, view.way);
        let mut before = before.iter();
        let Some(LinkView { traffic: then, .. }) = before.find(|it| path(it) == path(link)) else {
            return Self::default();
        };
        let per_s = |bytes: u64| (bytes as f64 / span.as_secs_f64().max(0.001)) as u64;
        let now = &link.traffic;
        Self {
            sent_per_s: per_s(now.sent_bytes.saturating_sub(then.sent_bytes)),
            received_per_s: per_s(now.received_bytes.saturating_sub(then.received_bytes)),
            recent_sent_packets: now.sent_packets.saturating_sub(then.sent_packets),
            recent_lost_packets: now.lost_packets.saturating_sub(then.lost_packets),
        }
    }
}

/// A link in a few words.
pub(super) fn in_words(link: &LinkView) -> String {
    let way = match link.way {
        Way::Direct { remote } => format!("direct, {remote}"),
        Way::Relayed {
            over: Carrier::Udp, ..
        } => "through the relay".to_owned(),
        Way::Relayed {
            over: Carrier::Control,
            ..
        } => "through the relay over TCP".to_owned(),
    };
    format!("{}, {way}, {}", link.account, round_trip(link))
}

/// Says that the packets of a link go another way than before.
pub(crate) fn rerouted(view: &PathChanged) -> String {
    let way = match view.way {
        Way::Direct { remote } => format!("direct now, {remote}"),
        Way::Relayed {
            over: Carrier::Udp, ..
        } => "through the relay of the server now".to_owned(),
        Way::Relayed {
            over: Carrier::Control,
            ..
        } => "through the relay of the server now, over TCP".to_owned(),
    };
    let time = span(view.round_trip_us);
    format!("  {}: {way}, {time}", view.account)
}

/// Columns of a screen on which a table of links is easier to read than their values under each other.
const TABLE_COLUMNS_MIN: usize = 60;

/// Links under each other, with what is lost of what this side sends now, and how fast both sides are. An IPv4
/// address and a short name fit 80 columns.
pub(crate) fn table(
    links: &[(LinkView, Rates)],
    columns: Option<usize>,
    look: &Look,
) -> Vec<String> {
    if columns.is_some_and(|columns| columns < TABLE_COLUMNS_MIN) {
        let blocks = links
            .iter()
            .map(|(link, rates)| block(&whose(link, links), link, rates));
        return blocks.chain(bound_of_relay(links)).collect();
    }
    let heads = [
        "ACCOUNT", "PATH", "ADDRESS", "RTT", "LOSS", "SENDS", "RECEIVES",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(links.iter().map(|(link, rates)| {
        let (path, address) = path(link);
        [
            whose(link, links),
            path.to_owned(),
            address,
            round_trip(link),
            loss(rates),
            per_s(rates.sent_per_s),
            per_s(rates.received_per_s),
        ]
    }));
    let mut lines = text::table(&rows, [Align::Left; 7], columns);
    if let Some(heads) = lines.first_mut() {
        *heads = look.dim(heads);
    }
    lines.extend(bound_of_relay(links));
    lines
}

/// Whose device a link leads to, and which one of several, by the beginning of its fingerprint.
fn whose(link: &LinkView, links: &[(LinkView, Rates)]) -> String {
    let is_alone = links
        .iter()
        .all(|(other, _)| other.account != link.account || other.fingerprint == link.fingerprint);
    if is_alone {
        link.account.to_string()
    } else {
        format!("{} {}", link.account, beginning(&link.fingerprint))
    }
}

/// What a relayed link cannot go beyond, whatever the lines carry.
fn bound_of_relay(links: &[(LinkView, Rates)]) -> Option<String> {
    let bounds = links.iter().filter_map(|(link, _)| match link.way {
        Way::Direct { .. } => None,
        Way::Relayed { per_s_max, .. } => Some(per_s_max),
    });
    let bound = per_s(bounds.min()?.into());
    Some(format!("relay: at most {bound} per account"))
}

/// A link in lines of its own, for a screen that is too narrow for a table.
fn block(whose: &str, link: &LinkView, rates: &Rates) -> String {
    let (path, address) = path(link);
    format!(
        "{whose} {path}\n  {address}\n  {}, loss {}\n  sends {}\n  receives {}",
        round_trip(link),
        loss(rates),
        per_s(rates.sent_per_s),
        per_s(rates.received_per_s)
    )
}

fn path(link: &LinkView) -> (&'static str, String) {
    match link.way {
        Way::Direct { remote } => ("direct", remote.to_string()),
        Way::Relayed {
            over: Carrier::Udp, ..
        } => ("relayed", "by the server".to_owned()),
        Way::Relayed {
            over: Carrier::Control,
            ..
        } => ("relayed", "by the server, TCP".to_owned()),
    }
}

fn per_s(bytes: u64) -> String {
    format!("{}/s", text::size(bytes))
}

/// Or that there is none now.
fn round_trip(link: &LinkView) -> String {
    if link.is_silent {
        return "no answer".to_owned();
    }
    span(link.round_trip_us)
}

/// Microseconds for a person.
fn span(us: u64) -> String {
    match us {
        short @ 0..10_000 => format!("{:.1} ms", short as f64 / 1000.0),
        long => format!("{} ms", long / 1000),
    }
}

/// Or that nothing was sent that could be lost.
fn loss(rates: &Rates) -> String {
    let Rates {
        recent_sent_packets: sent,
        recent_lost_packets: lost,
        ..
    } = *rates;
    if sent == 0 && lost == 0 {
        return "-".to_owned();
    }
    let percent = lost as f64 * 100.0 / sent.max(lost) as f64;
    format!("{percent:.1} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::Traffic;

    fn link(way: Way) -> LinkView {
        LinkView {
            account: "bob".parse().unwrap(),
            fingerprint: String::new(),
            link: 1,
            path_changes: 1,
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
        let mut relayed = link(Way::Relayed {
            over: Carrier::Udp,
            per_s_max: 2_500_000,
        });
        relayed.round_trip_us = 31_900;
        assert_eq!(in_words(&relayed), "bob, through the relay, 31 ms");
        relayed.way = Way::Relayed {
            over: Carrier::Control,
            per_s_max: 2_500_000,
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
            recent_sent_packets: 200,
            recent_lost_packets: 1,
        };
        let links = [(link(Way::Direct { remote }), rates), (relayed, rates)];
        assert_eq!(
            table(&links, Some(80), &Look::plain()),
            [
                "ACCOUNT  PATH     ADDRESS                RTT     LOSS   SENDS       RECEIVES",
                "bob      direct   192.168.100.200:50000  1.2 ms  0.5 %  250.0 MB/s  4.0 kB/s",
                "bob      relayed  by the server, TCP     31 ms   0.5 %  250.0 MB/s  4.0 kB/s",
                "relay: at most 2.5 MB/s per account",
            ]
        );
    }

    #[test]
    fn devices_of_one_account_are_told_apart() {
        let mut other = link(direct());
        other.fingerprint = "SHA256:0123456789".to_owned();
        let links = [link(direct()), other].map(|link| (link, Rates::default()));
        let lines = table(&links, None, &Look::plain());
        assert!(lines[2].starts_with("bob SHA256:01234567 "), "{lines:?}");
    }

    #[test]
    fn on_a_narrow_screen_a_link_has_lines_of_its_own() {
        let links = [(link(direct()), Rates::default())];
        let expected =
            "bob direct\n  192.0.2.7:5000\n  1.2 ms, loss -\n  sends 0 B/s\n  receives 0 B/s";
        assert_eq!(table(&links, Some(40), &Look::plain()), [expected]);
    }

    #[test]
    fn rates_are_those_of_one_path() {
        let before = link(direct());
        let mut after = before.clone();
        after.traffic.sent_bytes += 500;
        let since = |before: &[LinkView], after: &LinkView| {
            Rates::since(before, after, Duration::from_millis(500))
        };
        let rates = since(std::slice::from_ref(&before), &after);
        assert_eq!((rates.sent_per_s, rates.received_per_s), (1000, 0));
        assert_eq!(since(&[], &after), Rates::default());
        // The other device has one address, whichever interface of this one its packets go through.
        after.path_changes += 1;
        assert_eq!(since(&[before], &after), Rates::default());
    }

    #[test]
    fn links_of_one_device_are_told_apart() {
        let relayed = Way::Relayed {
            over: Carrier::Control,
            per_s_max: 2_500_000,
        };
        let (mut idle, mut busy) = (link(relayed), link(relayed));
        idle.traffic.sent_bytes = 67;
        busy.link += 1;
        busy.traffic.sent_bytes = 122_400_000;
        let before = [idle.clone(), busy.clone()];
        idle.traffic.sent_bytes += 30;
        busy.traffic.sent_bytes += 67;
        let second = Duration::from_secs(1);
        let sent = |link| Rates::since(&before, link, second).sent_per_s;
        assert_eq!((sent(&idle), sent(&busy)), (30, 67));
    }

    #[test]
    fn loss_is_that_of_now_and_not_since_the_path_began() {
        let mut before = link(direct());
        before.traffic.lost_packets = 138;
        let span = Duration::from_secs(1);
        let shown = |sent, lost| {
            let mut after = before.clone();
            after.traffic.sent_packets += sent;
            after.traffic.lost_packets += lost;
            loss(&Rates::since(std::slice::from_ref(&before), &after, span))
        };
        assert_eq!(shown(0, 0), "-");
        assert_eq!(shown(100, 0), "0.0 %");
        assert_eq!(shown(200, 3), "1.5 %");
        // They had been sent before.
        assert_eq!(shown(2, 5), "100.0 %");
    }
}
