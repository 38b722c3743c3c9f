//! Samples of frames about logs. They are of the two entries of PROTOCOL.md section 8.2.

use super::*;
use crate::id::SessionId;
use crate::log::{
    AccountId, Buckets, ChainId, ConversationId, Digest, Extent, Header, HeaderHash, Kind, Outline,
    Seal, Sequence, Stretch,
};
use crate::wire::peer::{
    AccountHead, ChainNumber, ConversationNumber, DatabaseInstance, Entries, EntryBody, Greet,
    List, LogEntry, LogFrame, NumberedChain,
};

samples! {
    /// Frames about logs.
    log_frames: LogFrame {
        LogFrame::Greet(_) => [None, Some(head())].map(|account| LogFrame::Greet(Greet {
            account,
            instance: DatabaseInstance([4; 32]),
            digest: Digest([3; 16]),
        })),
        LogFrame::Buckets(_) => [LogFrame::Buckets(Box::new(
            Buckets::from([[Digest([0xbb; 16]); 16]; 16]),
        ))],
        LogFrame::Digests(_) => [LogFrame::Digests(some([(log_conversation(), Digest([3; 16]))]))],
        LogFrame::Open { .. } => [LogFrame::Open {
            number: ConversationNumber(0),
            conversation: log_conversation(),
            is_again: false,
        }],
        LogFrame::Chains { .. } => [LogFrame::Chains {
            conversation: ConversationNumber(0),
            chains: some([NumberedChain { number: ChainNumber(0), chain: chain(), extent: extent() }]),
            is_first: true,
            is_last: true,
        }],
        LogFrame::Have { .. } => [LogFrame::Have {
            answered: 1,
            extents: some([(ChainNumber(0), extent())]),
        }],
        LogFrame::Gone { .. } => [LogFrame::Gone { chain: ChainNumber(0), base: Sequence::FIRST.next() }],
        LogFrame::Entries(_) => [entries(), dropped()].map(LogFrame::Entries),
        LogFrame::Seal { .. } => [LogFrame::Seal { chain: ChainNumber(0), seal: seal() }],
        LogFrame::Marks(_) => [LogFrame::Marks(some([(ChainNumber(0), Sequence::FIRST.next())]))],
        LogFrame::Fork { .. } => [LogFrame::Fork {
            chain: ChainNumber(0),
            one: stretch(),
            other: stretch(),
        }],
        LogFrame::Trace { .. } => [LogFrame::Trace { chain: ChainNumber(0), place: Sequence::FIRST }],
        LogFrame::Stretch { .. } => [None, Some(stretch())]
            .map(|stretch| LogFrame::Stretch { chain: ChainNumber(0), stretch }),
        LogFrame::Typing { .. } => [LogFrame::Typing { conversation: ConversationNumber(0) }],
        LogFrame::Ask { .. } => [LogFrame::Ask {
            session: session(),
            conversation: ConversationNumber(0),
        }],
        LogFrame::Answer { .. } => [true, false]
            .map(|is_yes| LogFrame::Answer { session: session(), is_yes }),
        LogFrame::End { .. } => [LogFrame::End { session: session() }],
        LogFrame::Known(_) => [LogFrame::Known(some(["carol".parse().expect("a name")]))],
    }
}

/// The conversation of these samples: of the accounts of 32 bytes of 01, and of 02.
pub fn log_conversation() -> ConversationId {
    let [one, other] = [1, 2].map(|byte| AccountId::from_bytes([byte; 32]));
    ConversationId::direct(&one, &other)
}

fn some<T, const LEN: usize, const MIN: usize, const MAX: usize>(
    elements: [T; LEN],
) -> List<T, MIN, MAX> {
    List::fill(elements.into_iter()).expect("one element")
}

const fn head() -> AccountHead {
    AccountHead {
        account: AccountId::from_bytes([1; 32]),
        len: 2,
        head: HeaderHash::from_bytes([5; 32]),
    }
}

fn chain() -> ChainId {
    ChainId {
        device: device_key(),
        run: RunId::from_bytes([9; 16]),
    }
}

fn outlines() -> Vec<Outline> {
    let clock = Clock::at(UnixTime::from_millis(1_795_000_000_000));
    let clocks = [Some(clock), clock.next()].into_iter().flatten();
    let bodies = [&b"hello"[..], b"anybody there?"];
    let outlines = clocks.zip(bodies);
    outlines
        .filter_map(|(clock, body)| Outline::new(clock, Kind::TEXT, body))
        .collect()
}

/// The headers of both entries.
fn headers() -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::new();
    for outline in outlines() {
        let last = headers.last();
        let header = Header {
            conversation: log_conversation(),
            chain: chain(),
            sequence: last.map_or(Sequence::FIRST, |last| last.sequence.next()),
            previous: last.map_or(HeaderHash::NONE, Header::hash),
            outline,
        };
        headers.push(header);
    }
    headers
}

fn last() -> Header {
    *headers().last().expect("there are two")
}

fn seal() -> Seal {
    Seal::sign(&DeviceSecret::from_seed([7; 32]), &last())
}

fn extent() -> Extent {
    Extent {
        base: Sequence::FIRST,
        sealed: last().sequence,
        last: last().sequence,
        hash: last().hash(),
        fork: None,
    }
}

fn entries() -> Entries {
    let bodies = [&b"hello"[..], b"anybody there?"];
    let entries = outlines().into_iter().zip(bodies);
    let entries = entries.filter_map(|(outline, body)| LogEntry::new(outline, Some(body.into())));
    Entries {
        chain: ChainNumber(0),
        first: Sequence::FIRST,
        previous: HeaderHash::NONE,
        entries: List::fill(entries).expect("two entries"),
        seal: Some(seal()),
    }
}

/// The same without bodies, and without a seal.
fn dropped() -> Entries {
    let outlines = outlines().into_iter();
    let without_bodies = outlines.filter_map(|outline| LogEntry::new(outline, None));
    let without = Entries {
        entries: List::fill(without_bodies).expect("two entries"),
        seal: None,
        ..entries()
    };
    let is_dropped = |entry: &LogEntry| matches!(entry.body, EntryBody::Dropped { .. });
    assert!(without.entries.as_slice().iter().all(is_dropped));
    without
}

fn stretch() -> Stretch {
    Stretch {
        first: Sequence::FIRST,
        previous: HeaderHash::NONE,
        outlines: outlines(),
        seal: seal(),
    }
}

fn session() -> SessionId {
    let mut bytes = [0xb0; 16];
    for (byte, low) in bytes.iter_mut().zip(0..) {
        *byte += low;
    }
    SessionId::from_bytes(bytes)
}
