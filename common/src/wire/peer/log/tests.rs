use super::*;
use crate::key::{DeviceSecret, Signature};
use crate::limits::{
    ENTRY_BODY_LEN_MAX, LINK_FRAME_LEN_MAX, PAGE_FRAME_LEN_MAX, PAGE_LEN_MAX, SEQUENCE_MAX,
};
use crate::log::{BodyHash, RunId};
use crate::wire::frame::{self, FrameError, PREFIX_LEN};

fn body<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode::<PAGE_FRAME_LEN_MAX>(value, &mut out).unwrap();
    out.split_off(PREFIX_LEN)
}

fn decode(body: &[u8]) -> Result<LogFrame, FrameError> {
    frame::decode::<PAGE_FRAME_LEN_MAX, LogFrame>(body)
}

fn last_place() -> Sequence {
    Sequence::new(SEQUENCE_MAX).unwrap()
}

fn extent() -> Extent {
    Extent {
        base: last_place(),
        sealed: last_place().previous(),
        last: last_place().previous(),
        hash: HeaderHash::from_bytes([255; 32]),
        fork: Some(last_place()),
    }
}

fn seal(sequence: Sequence) -> Seal {
    Seal {
        sequence,
        signature: Signature::from_bytes([255; 64]),
    }
}

fn entry(len: usize) -> LogEntry {
    LogEntry {
        clock: Clock::from_bits(u64::MAX),
        kind: Kind(255),
        body: EntryBody::Kept(vec![255; len].try_into().unwrap()),
    }
}

fn entries(entries: Vec<LogEntry>) -> LogFrame {
    LogFrame::Entries(Entries {
        chain: ChainNumber(u32::MAX),
        first: last_place(),
        previous: HeaderHash::from_bytes([255; 32]),
        entries: entries.try_into().unwrap(),
        seal: Some(seal(last_place())),
    })
}

fn list<T: Clone, const MIN: usize, const MAX: usize>(element: T) -> List<T, MIN, MAX> {
    List::fill(std::iter::repeat(element)).unwrap()
}

fn outline() -> Outline {
    Outline {
        clock: Clock::from_bits(u64::MAX),
        kind: Kind(255),
        body_len: ENTRY_BODY_LEN_MAX as u32,
        body_hash: BodyHash::from_bytes([255; 32]),
    }
}

fn stretch() -> Stretch {
    let first = Sequence::new(SEQUENCE_MAX - 64).unwrap();
    Stretch {
        first,
        previous: HeaderHash::from_bytes([255; 32]),
        outlines: vec![outline(); 64],
        seal: seal(first.plus(63)),
    }
}

/// What a page may count is what `Entry::cost` of the peer says: 13 bytes and the body, at least 45.
#[test]
fn the_longest_page_fits_its_frame() {
    let cost = |lens: &[usize]| lens.iter().map(|len| 13 + (*len).max(32)).sum::<usize>();
    let pages = [
        vec![ENTRY_BODY_LEN_MAX, ENTRY_BODY_LEN_MAX],
        [
            vec![PAGE_LEN_MAX / 64 - 13; 63],
            vec![PAGE_LEN_MAX / 64 - 13],
        ]
        .concat(),
        [vec![ENTRY_BODY_LEN_MAX], vec![1000; 63]].concat(),
        [vec![ENTRY_BODY_LEN_MAX, ENTRY_BODY_LEN_MAX], vec![31; 62]].concat(),
        vec![31; 64],
    ];
    for mut page in pages {
        while cost(&page) > PAGE_LEN_MAX {
            page.pop();
        }
        let frame = entries(page.iter().map(|len| entry(*len)).collect());
        assert_eq!(decode(&body(&frame)), Ok(frame), "{page:?}");
    }
    let dropped = LogEntry::new(outline(), None).unwrap();
    let frame = entries(vec![dropped; 64]);
    assert_eq!(decode(&body(&frame)), Ok(frame));
}

#[test]
fn the_longest_of_all_others_fit_a_frame_of_the_link() {
    let chain = ChainNumber(u32::MAX);
    let numbered = NumberedChain {
        number: chain,
        chain: ChainId {
            device: DeviceSecret::from_seed([7; 32]).public(),
            run: RunId::from_bytes([255; 16]),
        },
        extent: extent(),
    };
    let frames = [
        LogFrame::Digests(list((
            ConversationId::from_bytes([255; 32]),
            Digest([255; 16]),
        ))),
        LogFrame::Chains {
            conversation: ConversationNumber(u32::MAX),
            chains: list(numbered),
            is_first: true,
            is_last: true,
        },
        LogFrame::Have {
            answered: u32::MAX,
            extents: list((chain, extent())),
        },
        LogFrame::Marks(list((chain, last_place()))),
        LogFrame::Known(list("x".repeat(32).parse().unwrap())),
        LogFrame::Fork {
            chain,
            one: stretch(),
            other: stretch(),
        },
    ];
    for frame in frames {
        let bytes = body(&frame);
        assert!(bytes.len() < LINK_FRAME_LEN_MAX, "{}", bytes.len());
        assert_eq!(decode(&bytes), Ok(frame));
    }
}

/// A body that says to have more than there may be: the length is refused, whatever follows it.
#[test]
fn t16_lists_and_bodies_beyond_their_bounds_are_refused() {
    let long = |index: u8, before: &[u8], len: u32| {
        let mut bytes = vec![index];
        bytes.extend_from_slice(before);
        bytes.push(0xfc);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.resize(100_000, 0);
        decode(&bytes)
    };
    for len in [1025, 1 << 20, u32::MAX] {
        assert_eq!(long(2, &[], len), Err(FrameError::Malformed), "digests");
        assert_eq!(long(4, &[0], len), Err(FrameError::Malformed), "chains");
        assert_eq!(long(5, &[0], len), Err(FrameError::Malformed), "have");
        assert_eq!(long(9, &[], len), Err(FrameError::Malformed), "marks");
        assert_eq!(long(17, &[], len), Err(FrameError::Malformed), "known");
        let before = [&[0, 2][..], &[1; 32]].concat();
        assert_eq!(long(7, &before, len), Err(FrameError::Malformed), "entries");
    }
    let is_none = |lens: usize| BodyBytes::try_from(vec![0; lens]).is_err();
    assert!(!is_none(ENTRY_BODY_LEN_MAX) && is_none(ENTRY_BODY_LEN_MAX + 1));
    assert!(BodyLen::try_from(ENTRY_BODY_LEN_MAX as u32 + 1).is_err());
    // One byte more than there may be, in an entry that is whole otherwise.
    let mut bytes = body(&entries(vec![entry(ENTRY_BODY_LEN_MAX)]));
    let at = bytes
        .windows(4)
        .position(|four| four == (ENTRY_BODY_LEN_MAX as u32).to_le_bytes());
    bytes[at.unwrap()] += 1;
    bytes.insert(at.unwrap() + 4, 255);
    assert_eq!(decode(&bytes), Err(FrameError::Malformed));
    let empty = |index: u8| decode(&[index, 0]);
    assert_eq!(empty(2), Err(FrameError::Malformed), "no digests");
    assert_eq!(empty(9), Err(FrameError::Malformed), "no marks");
    assert_eq!(empty(17), Err(FrameError::Malformed), "nobody known");
}

#[test]
fn t43_extents_and_stretches_that_contradict_themselves_are_refused() {
    let have = |extent| {
        body(&LogFrame::Have {
            answered: 0,
            extents: list::<_, 0, HAVE_CHAINS_MAX>((ChainNumber(1), extent)),
        })
    };
    assert!(decode(&have(extent())).is_ok());
    let (fork, base) = (Some(last_place().previous()), Sequence::START);
    for unsound in [Extent { fork, ..extent() }, Extent { base, ..extent() }] {
        assert_eq!(decode(&have(unsound)), Err(FrameError::Malformed));
    }
    let answer = |stretch| {
        body(&LogFrame::Stretch {
            chain: ChainNumber(1),
            stretch: Some(stretch),
        })
    };
    assert!(decode(&answer(stretch())).is_ok());
    let mut elsewhere = stretch();
    elsewhere.seal.sequence = elsewhere.first;
    assert_eq!(decode(&answer(elsewhere)), Err(FrameError::Malformed));
    let mut long = stretch();
    long.outlines.push(outline());
    long.seal.sequence = long.seal.sequence.next();
    assert_eq!(decode(&answer(long)), Err(FrameError::Malformed));
}

#[test]
fn entries_survive_their_frames_with_and_without_a_body() {
    let outline = Outline::new(Clock::from_bits(7), Kind::TEXT, b"hello").unwrap();
    for body in [Some(b"hello".to_vec()), None] {
        let entry = LogEntry::new(outline, body.clone()).unwrap();
        assert_eq!(entry.into_parts(), (outline, body));
    }
    assert!(LogEntry::new(outline, Some(vec![0; ENTRY_BODY_LEN_MAX + 1])).is_none());
}

#[test]
fn version_1_has_no_variant_for_these_frames() {
    for frame in crate::wire::samples::log_frames() {
        let in_a_later_version = [vec![2], body(&frame)].concat();
        let decoded =
            frame::decode::<PAGE_FRAME_LEN_MAX, crate::wire::peer::PeerFrame>(&in_a_later_version);
        assert_eq!(decoded, Err(FrameError::Malformed), "{frame:?}");
    }
}
