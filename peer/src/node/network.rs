//! Routes what comes from the network, over links or past them, and what changes about it: each to the parts that it
//! concerns.

use std::time::{Duration, Instant};

use common::relayed::is_relayed;
use common::wire::peer::PeerFrame;

use super::Node;
use super::command::Event;
use super::context::Context;
use super::conversations::People;
use super::io::{Datagrams, LocalAddress, Output};
use super::links::{LinkChange, LinksEvent};
use super::transport::LinkId;
use super::violation::ProtocolViolation;
use crate::port_mapping::{NoPortMapping, PortMapping};

impl Node {
    /// The host has these addresses from now on.
    pub(super) fn on_local_addresses(&mut self, addresses: Vec<LocalAddress>, now: Instant) {
        let cx = &mut self.effects.at(now);
        self.paths.set_local(&addresses);
        self.paths.check_server(now);
        self.lan.set_local(&addresses, now);
        cx.links.set_local_addresses(addresses);
        self.announce(now);
    }

    /// What the gateway forwards has changed.
    pub(super) fn on_port_mapping(
        &mut self,
        found: Result<PortMapping, NoPortMapping>,
        now: Instant,
    ) {
        self.paths.on_port_mapping(found, now);
        self.announce(now);
    }

    /// Where there are links, somebody calls every few seconds, unless the program is stopped.
    pub(super) fn note_standstill(&mut self, now: Instant) {
        let span = now.saturating_duration_since(self.called);
        self.called = now;
        self.effects.links.on_standstill(span, now);
    }

    /// The device was asleep: each part finds out what that has cost.
    pub(super) fn on_woke(&mut self, span: Duration, now: Instant) {
        log::debug!("the device was asleep for {} s", span.as_secs());
        let cx = &mut self.effects.at(now);
        cx.links.on_standstill(span, now);
        cx.links.on_woke(now);
        self.paths.check_server(now);
        self.account.on_woke(cx);
    }

    /// Takes datagrams of any kind.
    pub(super) fn on_datagrams(&mut self, datagrams: Datagrams, now: Instant) {
        if is_relayed(datagrams.source.ip()) {
            return log::debug!("dropped datagrams that claim to come through the relay");
        }
        // RFC 9443: STUN has 0 to 3 in its first byte, QUIC 64 to 127 and 192 to 255.
        match datagrams.bytes.first() {
            Some(64..=127 | 192..=255) => self.effects.links.handle_datagrams(datagrams, now),
            Some(0..=3) => self.on_stun(datagrams, now),
            Some(128..=191) => self.effects.links.handle_relayed(&datagrams, now),
            Some(4..=63) | None => log::trace!("dropped a datagram of an unknown kind"),
        }
    }

    /// Takes a batch that begins with a STUN datagram. The others may be of any kind.
    fn on_stun(&mut self, mut datagrams: Datagrams, now: Instant) {
        let rest = datagrams.split_first();
        if self.paths.handle_stun(&datagrams, now) {
            self.effects.links.on_udp(true, now);
            self.announce(now);
        }
        self.effects.links.handle_stun(&datagrams, now);
        if let Some(rest) = rest {
            self.on_datagrams(rest, now);
        }
    }

    /// Announces this device's endpoints if they changed.
    pub(super) fn announce(&mut self, now: Instant) {
        let cx = &mut self.effects.at(now);
        cx.links.set_own_addresses(self.paths.own_addresses(), now);
        cx.links.set_candidates(self.paths.candidates(), now);
        if let Some(order) = self.paths.take_mapping_order() {
            cx.outputs.push_back(Output::PortMapping(order));
        }
        if cx.requests.is_online() && self.paths.needs_announcing() {
            let candidates = self.paths.take_announcement();
            self.directory.announce(candidates, cx);
        }
    }

    /// Tells people who came to the local network, and who left it.
    pub(super) fn tell_neighbours(&mut self, now: Instant) {
        let cx = &mut self.effects.at(now);
        let changes = self.lan.take_changes(cx.links, now);
        for account in &changes.heard {
            self.directory.on_neighbour(account, &self.lan, cx);
        }
        for (account, is_here) in changes.told {
            cx.event(Event::Nearby { account, is_here });
        }
    }

    /// Tells people which links go another way than before, if it is time.
    pub(super) fn tell_ways(&mut self, now: Instant) {
        if !self.ways.is_due(now) {
            return;
        }
        let cx = &mut self.effects.at(now);
        let links = cx.links.views();
        // Without a session there is no relay, whatever a link would like to go through.
        let is_online = cx.requests.is_online();
        for changed in self.ways.look(&links, is_online, now) {
            cx.event(Event::Path(changed));
        }
    }

    /// Gives what happened to links, or came over one, to the parts that it concerns.
    pub(super) fn on_links(&mut self, event: LinksEvent, now: Instant) {
        self.wants_are_stale = true;
        let cx = &mut self.effects.at(now);
        match event {
            LinksEvent::NewKey {
                account,
                device_key,
                known,
                forgotten,
            } => {
                let is_approved = self.identities.approves(&account, &device_key);
                cx.on_new_key(account.clone(), device_key, forgotten);
                self.lan.on_new_key(device_key);
                // A device that this account has approved is no news to its owner.
                if !is_approved || self.account.name() != Some(&account) {
                    cx.event(Event::NewKey {
                        account,
                        fingerprint: device_key.fingerprint().to_string(),
                        known,
                        is_approved,
                    });
                }
            }
            LinksEvent::Claimed(claim) => {
                self.identities.on_claim(claim, self.account.name(), cx);
            }
            LinksEvent::Frame {
                link,
                account,
                frame,
            } => {
                let done = match frame {
                    PeerFrame::File(frame) => self.transfers.on_frame(link, account, frame, cx),
                    PeerFrame::Log(frame) => {
                        let people = People::of(&self.account, &self.identities);
                        self.conversations.on_frame(link, frame, people, cx);
                        Ok(())
                    }
                };
                close_if_violated(link, done, cx);
            }
            LinksEvent::LeafReadable { link, stream } => {
                let done = self.transfers.on_leaf_readable(link, stream, cx);
                close_if_violated(link, done, cx);
            }
            LinksEvent::Change(change) => {
                if matches!(change, LinkChange::Silent { .. }) {
                    self.paths.check_server(now);
                }
                self.paths.on_link(&change);
                self.ways.on_link(&change, now);
                self.directory.on_link(&change, cx);
                self.transfers.on_link(&change, cx);
                let people = People::of(&self.account, &self.identities);
                self.conversations.on_link(&change, people, cx);
            }
        }
    }
}

/// Closes the link of a peer that broke the protocol.
fn close_if_violated(link: LinkId, done: Result<(), ProtocolViolation>, cx: &mut Context<'_>) {
    if let Err(violation) = done {
        cx.links.close_for(link, violation, cx.now);
    }
}
