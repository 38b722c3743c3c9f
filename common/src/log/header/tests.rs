use super::*;
use crate::key::DeviceSecret;
use crate::log::{AccountId, Seal};
use crate::time::UnixTime;

/// The example of PROTOCOL.md, section 8.2: the second entry of a run.
fn example() -> (Header, Header) {
    let [alice, bob] = [1, 2].map(|n| AccountId::from_bytes([n; 32]));
    let time = UnixTime::from_millis(1_795_000_000_000);
    let outline = |clock, text: &[u8]| Outline::new(clock, Kind::TEXT, text).unwrap();
    let first = Header {
        conversation: ConversationId::direct(&alice, &bob),
        chain: ChainId {
            device: DeviceSecret::from_seed([7; 32]).public(),
            run: RunId::from_bytes([9; 16]),
        },
        sequence: Sequence::FIRST,
        previous: HeaderHash::NONE,
        outline: outline(Clock::at(time), b"hello"),
    };
    let second = Header {
        sequence: Sequence::FIRST.next(),
        previous: first.hash(),
        outline: outline(Clock::at(time).next().unwrap(), b"anybody there?"),
        ..first
    };
    (first, second)
}

/// The bytes of an example in PROTOCOL.md, behind the words that introduce it.
fn documented(introduction: &str) -> Vec<u8> {
    let document = include_str!("../../../PROTOCOL.md");
    let (_, example) = document.split_once(introduction).expect(introduction);
    let example = example.split("```").nth(1).unwrap();
    let words = example.split_whitespace();
    words
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn entries_have_the_bytes_of_the_protocol_document() {
    let (first, second) = example();
    assert_eq!(documented("\nfirst header:"), first.to_bytes());
    assert_eq!(
        documented("The hash of the first,"),
        first.hash().as_bytes()
    );
    assert_eq!(documented("The second header:"), second.to_bytes());
    assert_eq!(
        documented("The hash of the second:"),
        second.hash().as_bytes()
    );
    let seal = Seal::sign(&DeviceSecret::from_seed([7; 32]), &second);
    let signature: Vec<u8> = seal.signature.into();
    assert_eq!(documented("The seal of both"), signature);
}

#[test]
fn a_header_has_181_bytes_in_fixed_places() {
    let (first, second) = example();
    let bytes = second.to_bytes();
    assert_eq!(bytes.len(), 181);
    assert_eq!(&bytes[..16], b"rdv entry v1\0\0\0\0");
    assert_eq!(bytes[16..48], *second.conversation.as_bytes());
    assert_eq!(bytes[48..80], *second.device().as_bytes());
    assert_eq!(bytes[80..96], [9; 16]);
    assert_eq!(bytes[96..104], [0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(bytes[104..136], *first.hash().as_bytes());
    assert_eq!(
        bytes[136..144],
        second.outline.clock.to_bits().to_be_bytes()
    );
    assert_eq!(bytes[144], 0);
    assert_eq!(bytes[145..149], [0, 0, 0, 14]);
    assert_eq!(bytes[149..], *BodyHash::of(b"anybody there?").as_bytes());
}

#[test]
fn headers_survive_their_bytes() {
    let (first, second) = example();
    for header in [first, second] {
        assert_eq!(Header::from_bytes(&header.to_bytes()), Ok(header));
    }
}

#[test]
fn t19_no_other_length_is_a_header() {
    let bytes = example().1.to_bytes();
    for len in 0..Header::LEN {
        assert_eq!(Header::from_bytes(&bytes[..len]), Err(HeaderError::Length));
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Header::from_bytes(&longer), Err(HeaderError::Length));
}

#[test]
fn t42_every_byte_counts() {
    let (_, header) = example();
    let bytes = header.to_bytes();
    let mut refused = 0;
    for place in 0..Header::LEN {
        let mut changed = bytes;
        changed[place] ^= 1;
        match Header::from_bytes(&changed) {
            Ok(other) => {
                assert_ne!(other, header);
                assert_ne!(other.hash(), header.hash());
                assert_eq!(other.to_bytes(), changed);
            }
            Err(_) => refused += 1,
        }
    }
    assert!((18..30).contains(&refused), "{refused}");
}

#[test]
fn only_the_first_of_a_run_follows_nothing() {
    let (first, second) = example();
    let orphan = Header {
        previous: HeaderHash::NONE,
        ..second
    };
    let heir = Header {
        previous: second.hash(),
        ..first
    };
    for bad in [orphan, heir] {
        let parsed = Header::from_bytes(&bad.to_bytes());
        assert_eq!(parsed, Err(HeaderError::Place));
    }
}

#[test]
fn a_body_is_bounded_and_no_other_passes_for_it() {
    let (first, _) = example();
    assert!(first.outline.is_of(b"hello"));
    assert!(!first.outline.is_of(b"hellO"));
    assert!(!first.outline.is_of(b"hello "));
    let longest = vec![0; ENTRY_BODY_LEN_MAX];
    let clock = first.outline.clock;
    assert!(Outline::new(clock, Kind(200), &longest).is_some());
    let longer = vec![0; ENTRY_BODY_LEN_MAX + 1];
    assert!(Outline::new(clock, Kind(200), &longer).is_none());
    let mut bytes = first.to_bytes();
    bytes[145..149].copy_from_slice(&(ENTRY_BODY_LEN_MAX as u32 + 1).to_be_bytes());
    assert_eq!(Header::from_bytes(&bytes), Err(HeaderError::BodyLength));
}
