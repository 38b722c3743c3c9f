//! What entries say. A body is parsed by its kind; one of an unknown kind stays bytes.

use super::{EntryId, Kind};
use crate::limits::REACTION_LEN_MAX;
use crate::time::UnixTime;
use crate::wire::peer::{MessageBody, MessageBodyError};

/// The body of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// What somebody says.
    Text(MessageBody),
    /// A text in reply to another entry.
    Reply {
        /// The entry that it replies to.
        to: EntryId,
        /// What is said in reply.
        text: MessageBody,
    },
    /// A new text for an earlier entry. It counts if a device of that entry's account has written it.
    Edit {
        /// The entry that is edited.
        of: EntryId,
        /// Its new text.
        text: MessageBody,
    },
    /// Takes an earlier entry back, as [`Body::Edit`] changes it.
    Delete {
        /// The entry that is taken back.
        of: EntryId,
    },
    /// A reaction to another entry.
    React {
        /// The entry that it is a reaction to.
        to: EntryId,
        /// What it shows.
        reaction: Reaction,
    },
    /// Two people have talked.
    Session(Session),
    /// Ends a chain: what follows the named entry is void, if who signs this may say so.
    Cut(EntryId),
    /// Of a kind that this version does not know. It is kept, given on, and shown as what needs a newer one.
    Unknown {
        /// Any that has no variant of its own here.
        kind: Kind,
        /// The body as it came.
        bytes: Vec<u8>,
    },
}

/// What a reaction shows: at most [`REACTION_LEN_MAX`] bytes of UTF-8, none to take an earlier one back. Still
/// untrusted: escape it with [`crate::text::inline`] before writing it to a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction(String);

impl Reaction {
    /// Takes a short text; `None` if it is longer than [`REACTION_LEN_MAX`].
    pub fn new(text: String) -> Option<Self> {
        (text.len() <= REACTION_LEN_MAX).then_some(Self(text))
    }

    /// The text, at most [`REACTION_LEN_MAX`] bytes, still untrusted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// When two people talked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    start: UnixTime,
    end: UnixTime,
}

impl Session {
    /// A session from `start` to `end`; `None` if it ends before it starts.
    pub fn new(start: UnixTime, end: UnixTime) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// When it started, by its author's clock.
    pub const fn start(&self) -> UnixTime {
        self.start
    }

    /// When it ended, not before its start.
    pub const fn end(&self) -> UnixTime {
        self.end
    }
}

impl Body {
    /// The kind that its entry has.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::TEXT,
            Self::Reply { .. } => Kind::REPLY,
            Self::Edit { .. } => Kind::EDIT,
            Self::Delete { .. } => Kind::DELETE,
            Self::React { .. } => Kind::REACT,
            Self::Session(_) => Kind::SESSION,
            Self::Cut(_) => Kind::CUT,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// The bytes that the header has the hash of.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Reply { to: id, text } | Self::Edit { of: id, text } => {
                [&id.to_bytes(), text.as_str().as_bytes()].concat()
            }
            Self::Delete { of: id } | Self::Cut(id) => id.to_bytes().into(),
            Self::React { to, reaction } => [&to.to_bytes(), reaction.as_str().as_bytes()].concat(),
            Self::Session(Session { start, end }) => [start, end]
                .map(|time| time.as_millis().to_be_bytes())
                .concat(),
            Self::Unknown { bytes, .. } => bytes.clone(),
        }
    }

    /// Parses the body of an entry.
    ///
    /// # Errors
    ///
    /// [`BodyError`] if the kind is known and these are not the bytes of one. Such an entry has its place in the chain
    /// like any other; it says nothing.
    pub fn parse(kind: Kind, bytes: &[u8]) -> Result<Self, BodyError> {
        match kind {
            Kind::TEXT => text(bytes).map(Self::Text),
            Kind::REPLY => {
                let (to, text) = reference_and_text(bytes)?;
                Ok(Self::Reply { to, text })
            }
            Kind::EDIT => {
                let (of, text) = reference_and_text(bytes)?;
                Ok(Self::Edit { of, text })
            }
            Kind::DELETE => only_reference(bytes).map(|of| Self::Delete { of }),
            Kind::REACT => {
                let (to, rest) = reference(bytes)?;
                let reaction = Reaction::new(utf8(rest)?).ok_or(BodyError::Length)?;
                Ok(Self::React { to, reaction })
            }
            Kind::SESSION => session(bytes).map(Self::Session),
            Kind::CUT => only_reference(bytes).map(Self::Cut),
            kind => Ok(Self::Unknown {
                kind,
                bytes: bytes.to_vec(),
            }),
        }
    }
}

/// Why bytes are no body of their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// There are more or fewer bytes than the kind has.
    #[error("the body has a length that its kind does not allow")]
    Length,
    /// The text is not UTF-8.
    #[error("the text of the body is not UTF-8")]
    Utf8,
    /// The text is empty or too long.
    #[error(transparent)]
    Text(#[from] MessageBodyError),
    /// It refers to what cannot be an entry.
    #[error("the body refers to what cannot be an entry")]
    Reference,
    /// It ends before it starts.
    #[error("the session ends before it starts")]
    Session,
}

fn text(bytes: &[u8]) -> Result<MessageBody, BodyError> {
    Ok(MessageBody::try_from(utf8(bytes)?)?)
}

fn utf8(bytes: &[u8]) -> Result<String, BodyError> {
    let text = str::from_utf8(bytes).map_err(|_| BodyError::Utf8)?;
    Ok(text.to_owned())
}

/// The reference at the beginning, and the rest.
fn reference(bytes: &[u8]) -> Result<(EntryId, &[u8]), BodyError> {
    let (id, rest) = bytes.split_first_chunk().ok_or(BodyError::Length)?;
    let id = EntryId::from_bytes(id).ok_or(BodyError::Reference)?;
    Ok((id, rest))
}

fn reference_and_text(bytes: &[u8]) -> Result<(EntryId, MessageBody), BodyError> {
    let (id, rest) = reference(bytes)?;
    Ok((id, text(rest)?))
}

fn only_reference(bytes: &[u8]) -> Result<EntryId, BodyError> {
    match reference(bytes)? {
        (id, []) => Ok(id),
        (_, [_, ..]) => Err(BodyError::Length),
    }
}

fn session(bytes: &[u8]) -> Result<Session, BodyError> {
    let (start, end) = bytes.split_first_chunk().ok_or(BodyError::Length)?;
    let end = end.try_into().map_err(|_| BodyError::Length)?;
    let [start, end] =
        [*start, end].map(|millis| UnixTime::from_millis(u64::from_be_bytes(millis)));
    Session::new(start, end).ok_or(BodyError::Session)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DeviceSecret;
    use crate::limits::{ENTRY_BODY_LEN_MAX, MESSAGE_LEN_MAX};
    use crate::log::{ChainId, RunId, Sequence};

    fn id() -> EntryId {
        EntryId {
            chain: ChainId {
                device: DeviceSecret::from_seed([7; 32]).public(),
                run: RunId::from_bytes([9; 16]),
            },
            sequence: Sequence::FIRST,
        }
    }

    fn text_of(len: usize) -> MessageBody {
        MessageBody::try_from("x".repeat(len)).unwrap()
    }

    fn react(text: &str) -> Body {
        Body::React {
            to: id(),
            reaction: Reaction::new(text.to_owned()).unwrap(),
        }
    }

    /// One of each kind, and the longest.
    fn bodies() -> Vec<Body> {
        let times = [5, 5].map(UnixTime::from_millis);
        vec![
            Body::Text(text_of(1)),
            Body::Text(text_of(MESSAGE_LEN_MAX)),
            Body::Reply {
                to: id(),
                text: text_of(MESSAGE_LEN_MAX),
            },
            Body::Edit {
                of: id(),
                text: text_of(3),
            },
            Body::Delete { of: id() },
            react("👍"),
            react("👩🏻\u{200d}❤\u{fe0f}\u{200d}💋\u{200d}👨🏿"),
            react(""),
            react(&"x".repeat(REACTION_LEN_MAX)),
            Body::Session(Session::new(times[0], times[1]).unwrap()),
            Body::Cut(id()),
            Body::Unknown {
                kind: Kind(77),
                bytes: vec![0, 159, 146],
            },
        ]
    }

    #[test]
    fn bodies_survive_their_bytes_and_fit_an_entry() {
        for body in bodies() {
            let bytes = body.to_bytes();
            assert!(bytes.len() <= ENTRY_BODY_LEN_MAX);
            assert_eq!(Body::parse(body.kind(), &bytes), Ok(body));
        }
    }

    /// PROTOCOL.md section 8.3.
    #[test]
    fn bodies_have_the_documented_bytes() {
        let reference = id().to_bytes();
        let expected = [&reference[..], "👍".as_bytes()].concat();
        assert_eq!(react("👍").to_bytes(), expected);
        assert_eq!(Body::Delete { of: id() }.to_bytes(), reference);
        let [start, end] = [1, 258].map(UnixTime::from_millis);
        let session = Body::Session(Session::new(start, end).unwrap());
        let expected = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(session.to_bytes(), expected);
        let kinds = bodies().into_iter().map(|body| body.kind().0);
        let kinds: Vec<u8> = kinds.collect();
        assert_eq!(kinds, [0, 0, 1, 2, 3, 4, 4, 4, 4, 5, 134, 77]);
    }

    #[test]
    fn t19_no_kind_takes_what_is_too_short_or_too_long() {
        for body in bodies() {
            let (kind, bytes) = (body.kind(), body.to_bytes());
            for len in (0..bytes.len()).take(200) {
                let parsed = Body::parse(kind, &bytes[..len]);
                assert!(parsed != Ok(body.clone()), "{kind:?} of {len}");
            }
            let longer = Body::parse(kind, &[&bytes[..], &[b'x'; 70_000]].concat());
            let is_unknown = matches!(body, Body::Unknown { .. });
            assert_eq!(longer.is_ok(), is_unknown, "{kind:?}");
        }
    }

    #[test]
    fn what_is_no_body_of_its_kind_is_refused() {
        let parse = |kind, bytes: &[u8]| Body::parse(kind, bytes).unwrap_err();
        let empty = BodyError::Text(MessageBodyError::Empty);
        assert_eq!(parse(Kind::TEXT, b""), empty);
        assert_eq!(parse(Kind::TEXT, &[0xff]), BodyError::Utf8);
        assert_eq!(parse(Kind::REPLY, &id().to_bytes()), empty);
        assert_eq!(
            parse(Kind::DELETE, &[0; EntryId::LEN]),
            BodyError::Reference
        );
        let backwards = [[0, 0, 0, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 0, 0, 1]].concat();
        assert_eq!(parse(Kind::SESSION, &backwards), BodyError::Session);
        let long = [&id().to_bytes()[..], &[b'x'; REACTION_LEN_MAX + 1]].concat();
        assert_eq!(parse(Kind::REACT, &long), BodyError::Length);
    }
}
