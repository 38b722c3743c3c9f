//! Tells people that a link goes another way than before: directly, or through the relay.
//!
//! Not every change is news. The first way that lasts is none: a link begins through the relay, and goes on directly
//! within moments where it can. A change is told once it has lasted for [`LASTS_FROM`], and of one device not more
//! often than once in [`QUIET`], however often its link goes to and fro.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::command::{LinkView, PathChanged, Way};
use super::links::LinkChange;

/// A way that was taken for so long is one that lasts: several times as long as a dead path takes to be noticed.
const LASTS_FROM: Duration = Duration::from_secs(3);
/// After a change was told the next one waits for so long: whoever has a bad line need not be told of each turn.
const QUIET: Duration = Duration::from_secs(30);

/// The ways of all links, as far as people were told.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// By the fingerprints of devices that there are links to.
    devices: BTreeMap<String, Seen>,
    /// When to look at the links.
    due: Option<Instant>,
}

/// The way to one device.
#[derive(Debug)]
struct Seen {
    is_direct: bool,
    since: Instant,
    /// Whether the last way that lasted was direct.
    told: Option<bool>,
    quiet_until: Instant,
}

impl Ways {
    /// A link has changed: its way may be another one.
    pub(super) fn on_link(&mut self, change: &LinkChange, now: Instant) {
        match change {
            LinkChange::Ready { .. }
            | LinkChange::Rerouted
            | LinkChange::Lost { .. }
            | LinkChange::Heard => self.due = Some(now),
            LinkChange::Proved { .. }
            | LinkChange::Silent { .. }
            | LinkChange::Reached { .. }
            | LinkChange::Writable { .. }
            | LinkChange::LeafAcknowledged { .. }
            | LinkChange::Left { .. }
            | LinkChange::DialFailed { .. } => {}
        }
    }

    /// When [`Ways::look`] is due.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Tells whether it is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Looks at all links, one to each device. Returns those whose change is to be told. Without a session nothing goes
    /// through the relay: where a link would, nothing gets through.
    pub(super) fn look(
        &mut self,
        links: &[LinkView],
        is_online: bool,
        now: Instant,
    ) -> Vec<PathChanged> {
        self.due = None;
        let linked: BTreeSet<&str> = links.iter().map(|link| link.fingerprint.as_str()).collect();
        self.devices
            .retain(|fingerprint, _| linked.contains(fingerprint.as_str()));
        let mut news = Vec::new();
        for link in links {
            let is_direct = matches!(link.way, Way::Direct { .. });
            let fingerprint = link.fingerprint.clone();
            let seen = self.devices.entry(fingerprint).or_insert(Seen {
                is_direct,
                since: now,
                told: None,
                quiet_until: now,
            });
            // Where nothing gets through, the way means nothing.
            if link.is_silent || !is_direct && !is_online {
                continue;
            }
            if seen.is_direct != is_direct {
                seen.is_direct = is_direct;
                seen.since = now;
            }
            if seen.told == Some(is_direct) {
                continue;
            }
            let at = (seen.since + LASTS_FROM).max(seen.quiet_until);
            if now < at {
                self.due = Some(self.due.map_or(at, |due| due.min(at)));
            } else if seen.told.replace(is_direct).is_some() {
                seen.quiet_until = now + QUIET;
                news.push(PathChanged {
                    account: link.account.clone(),
                    fingerprint: link.fingerprint.clone(),
                    way: link.way,
                    round_trip_us: link.round_trip_us,
                });
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::{Carrier, Traffic};

    const DIRECT: Way = Way::Direct {
        remote: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7),
    };
    const RELAYED: Way = Way::Relayed {
        over: Carrier::Udp,
        per_s_max: 1,
    };

    fn link(way: Way) -> LinkView {
        LinkView {
            account: "bob".parse().unwrap(),
            fingerprint: "SHA256:b".to_owned(),
            link: 1,
            path_changes: 0,
            way,
            round_trip_us: 23_000,
            is_silent: false,
            traffic: Traffic::default(),
        }
    }

    /// The ways that are told while the link takes each of these for so many tenths of a second.
    fn told(turns: &[(Way, u64)]) -> Vec<(u64, Way)> {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
        let start = Instant::now();
        let (mut ways, mut told, mut tenth) = (Ways::default(), Vec::new(), 0);
        for (way, tenths) in turns {
            ways.on_link(
                &LinkChange::Rerouted,
                start + Duration::from_millis(100 * tenth),
            );
            for _ in 0..*tenths {
                let now = start + Duration::from_millis(100 * tenth);
                if ways.is_due(now) {
                    let news = ways.look(&[link(*way)], true, now);
                    told.extend(news.into_iter().map(|view| (tenth, view.way)));
                }
                tenth += 1;
            }
        }
        told
    }

    #[test]
    fn a_change_is_told_once_it_has_lasted_and_the_first_way_is_none() {
        for (turns, expected) in [
            (vec![(DIRECT, 1000)], vec![]),
            (vec![(RELAYED, 10), (DIRECT, 1000)], vec![]),
            (vec![(RELAYED, 100), (DIRECT, 1000)], vec![(130, DIRECT)]),
            (
                vec![(DIRECT, 100), (RELAYED, 600), (DIRECT, 100)],
                vec![(130, RELAYED), (730, DIRECT)],
            ),
            // A short one is none.
            (vec![(DIRECT, 100), (RELAYED, 29), (DIRECT, 1000)], vec![]),
        ] {
            assert_eq!(told(&turns), expected, "{turns:?}");
        }
    }

    #[test]
    fn a_link_that_goes_to_and_fro_is_seldom_told() {
        let turns = [(DIRECT, 40), (RELAYED, 40)].repeat(100);
        let told = told(&turns);
        assert!((20..=28).contains(&told.len()), "{}", told.len());
        let pauses = told.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert!(pauses.min().unwrap() >= 300);
    }

    #[test]
    fn a_new_link_begins_anew_and_a_silent_one_has_no_way() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut ways = Ways::default();
        assert_eq!(ways.look(&[link(DIRECT)], true, at(0)), []);
        assert_eq!(ways.look(&[link(DIRECT)], true, at(3)), []);
        assert_eq!(ways.poll_timeout(), None);
        let silent = LinkView {
            is_silent: true,
            ..link(RELAYED)
        };
        for seconds in 4..20 {
            assert_eq!(
                ways.look(std::slice::from_ref(&silent), true, at(seconds)),
                []
            );
        }
        // Without a session there is no relay.
        for seconds in 4..20 {
            assert_eq!(ways.look(&[link(RELAYED)], false, at(seconds)), []);
        }
        assert_eq!(ways.look(&[], true, at(20)), []);
        assert!(ways.devices.is_empty());
        for seconds in 21..40 {
            assert_eq!(ways.look(&[link(RELAYED)], true, at(seconds)), []);
        }
    }
}
