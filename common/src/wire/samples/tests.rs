//! Tests that a message decodes only as a whole, and that PROTOCOL.md matches the encoding.

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::frame::{self, FrameBuffer, FrameError, PREFIX_LEN};
use super::super::peer::LEAF_HEADER_LEN_MAX;
use super::*;
use crate::hash::{LeafHasher, file_digest};
use crate::limits::{CONTROL_FRAME_LEN_MAX, LEAF_LEN, LINK_FRAME_LEN_MAX, PAGE_FRAME_LEN_MAX};

/// Truncates an encoded value at each byte, appends a byte to it and flips each of its bits.
fn check<const MAX: usize, T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = encoded::<MAX>(value);
    let body = &bytes[PREFIX_LEN..];
    assert_eq!(frame::decode::<MAX, T>(body).as_ref(), Ok(value));
    for cut in 0..body.len() {
        let part = frame::decode::<MAX, T>(&body[..cut]);
        assert_eq!(part, Err(FrameError::Malformed), "{value:?} cut at {cut}");
        // The same on a stream: nothing is decoded before the frame is complete.
        let mut stream = FrameBuffer::<MAX>::new();
        stream.push(&bytes[..PREFIX_LEN + cut]);
        assert_eq!(stream.next_frame::<T>(), Ok(None));
        stream.push(&bytes[PREFIX_LEN + cut..]);
        assert_eq!(stream.next_frame::<T>().unwrap().as_ref(), Some(value));
        for bit in 0..8 {
            let mut flipped = body.to_vec();
            flipped[cut] ^= 1 << bit;
            // Another value or an error, but no panic.
            let _ = frame::decode::<MAX, T>(&flipped);
        }
    }
    let longer = [body, &[0]].concat();
    let longer = frame::decode::<MAX, T>(&longer);
    assert_eq!(longer, Err(FrameError::TrailingBytes), "{value:?}");
}

fn encoded<const MAX: usize>(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode::<MAX>(value, &mut bytes).unwrap();
    bytes
}

const CONTROL: usize = CONTROL_FRAME_LEN_MAX;
const LINK: usize = LINK_FRAME_LEN_MAX;
const PAGE: usize = PAGE_FRAME_LEN_MAX;
const HEADER: usize = LEAF_HEADER_LEN_MAX - PREFIX_LEN;

#[test]
fn t16_every_frame_of_a_peer_to_the_server_is_whole_or_nothing() {
    hellos().iter().for_each(check::<CONTROL, _>);
    request_frames().iter().for_each(check::<CONTROL, _>);
}

#[test]
fn t16_every_frame_of_the_server_is_whole_or_nothing() {
    hello_answers().iter().for_each(check::<CONTROL, _>);
    server_frames().iter().for_each(check::<CONTROL, _>);
}

#[test]
fn t16_every_frame_between_peers_is_whole_or_nothing() {
    peer_hellos().iter().for_each(check::<LINK, _>);
    peer_frames().iter().for_each(check::<LINK, _>);
    leaf_headers().iter().for_each(check::<HEADER, _>);
    log_frames().iter().for_each(check::<PAGE, _>);
}

/// The encoding of every sample.
fn all_encoded() -> BTreeSet<Vec<u8>> {
    fn all<const MAX: usize>(values: &[impl Serialize]) -> Vec<Vec<u8>> {
        values.iter().map(encoded::<MAX>).collect()
    }
    let lists = [
        all::<CONTROL>(&hellos()),
        all::<CONTROL>(&hello_answers()),
        all::<CONTROL>(&request_frames()),
        all::<CONTROL>(&server_frames()),
        all::<LINK>(&peer_hellos()),
        all::<LINK>(&peer_frames()),
        all::<HEADER>(&leaf_headers()),
        all::<PAGE>(&log_frames()),
    ];
    lists.into_iter().flatten().collect()
}

#[test]
fn the_examples_of_the_protocol_document_are_samples() {
    check_examples("\n### 2.5 Examples", "\n## 3.", 12);
    check_examples("\n### 10.6 Example", "\nThat is all", 5);
}

/// Compares the examples of a part of the document, of which there are at least so many.
fn check_examples(from: &str, to: &str, least: usize) {
    let document = include_str!("../../../PROTOCOL.md");
    let (_, section) = document.split_once(from).unwrap();
    let (section, _) = section.split_once(to).unwrap();
    let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
    let samples = all_encoded();
    let mut examples = 0;
    for block in blocks {
        // A frame starts with its length: 11 characters before the separator.
        let starts: Vec<usize> = block
            .match_indices(" | ")
            .map(|(place, _)| place - 11)
            .collect();
        let ends = starts.iter().skip(1).copied().chain([block.len()]);
        for (start, end) in starts.iter().copied().zip(ends) {
            let bytes = hexadecimal(&block[start..end]);
            assert!(samples.contains(&bytes), "{}", &block[start..end]);
            examples += 1;
        }
    }
    assert!(examples >= least, "{examples} were found");
}

/// Index and name of each variant of an enum, taken from its samples.
fn variants<T: Serialize + Debug>(samples: &[T]) -> BTreeSet<(u8, String)> {
    let variant = |sample: &T| {
        let name = format!("{sample:?}");
        let end = name.find(|c: char| !c.is_alphanumeric());
        let index = encoded::<CONTROL>(sample)[PREFIX_LEN];
        (index, name[..end.unwrap_or(name.len())].to_owned())
    };
    samples.iter().map(variant).collect()
}

/// Index and name of each variant of an enum, taken from its table in PROTOCOL.md.
fn documented(name: &str) -> BTreeSet<(u8, String)> {
    let document = include_str!("../../../PROTOCOL.md");
    let title = format!("\n`{name}`:\n\n| Index |");
    let (_, table) = document.split_once(&title).expect("there is a table");
    let (table, _) = table.split_once("\n\n").expect("it ends");
    let row = |row: &str| {
        let mut cells = row.split('|').map(str::trim).skip(1);
        Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
    };
    table.lines().filter_map(row).collect()
}

#[test]
fn the_tables_of_the_protocol_document_have_every_variant() {
    fn check<T: Serialize + Debug>(name: &str, samples: &[T]) {
        assert_eq!(variants(samples), documented(name), "{name}");
    }
    check("HelloAnswer", &hello_answers());
    check("ServerFrame", &server_frames());
    check("Request", &requests());
    check("LoginRequest", &login_requests());
    check("DirectoryRequest", &directory_requests());
    check("DeviceRequest", &device_requests());
    check("IntroductionRequest", &introduction_requests());
    check("IdentityRequest", &identity_requests());
    check("Answer", &answers());
    check("LoginAnswer", &login_answers());
    check("DirectoryAnswer", &directory_answers());
    check("DeviceAnswer", &device_answers());
    check("IntroductionAnswer", &introduction_answers());
    check("IdentityAnswer", &identity_answers());
    check("Push", &pushes());
    check("DirectoryPush", &directory_pushes());
    check("DevicePush", &device_pushes());
    check("IntroductionPush", &introduction_pushes());
    check("IdentityPush", &identity_pushes());
    check("Change", &changes());
    check("Refusal", &refusals());
    check("ByeReason", &bye_reasons());
    check("PeerFrame", &peer_frames());
    check("FileFrame", &file_frames());
    check("LogFrame", &log_frames());
    check("DeclineReason", &decline_reasons());
    check("CancelReason", &cancel_reasons());
}

/// The bytes of an example. A word of a comment is longer, shorter or not hexadecimal.
fn hexadecimal(text: &str) -> Vec<u8> {
    let words = text.split_whitespace().filter(|word| word.len() == 2);
    words
        .filter_map(|word| u8::from_str_radix(word, 16).ok())
        .collect()
}

/// The samples' file is the example of PROTOCOL.md section 5.7.
#[test]
fn the_leaf_of_the_samples_is_the_second_of_its_file() {
    let file: Vec<u8> = (0..=LEAF_LEN).map(|place| (place % 251) as u8).collect();
    let leaves: Vec<LeafHash> = file
        .chunks(LEAF_LEN)
        .zip(0..)
        .map(|(leaf, index)| {
            let mut hasher = LeafHasher::new(file.len() as u64, index);
            hasher.update(leaf);
            hasher.finish()
        })
        .collect();
    assert_eq!(leaves[1], last_leaf());
    let digest = file_digest(file.len() as u64, &leaves).unwrap();
    assert!(include_str!("../../../PROTOCOL.md").contains(&digest.to_string()));
}
