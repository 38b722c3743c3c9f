//! The recovery code of an account: twelve words on paper that bring it back when no device of it is left.
//!
//! It is 128 random bits, written as twelve words of the English list of BIP-39, with four bits that find a word that was
//! mistaken for another. The secret half of the account's recovery key follows from them
//! ([`common::account::Genesis::recovery`]). Nothing on any device keeps it.

use std::fmt;

use bip39::{Error, Language, Mnemonic};
use common::account::recovery_secret;
use common::key::DeviceSecret;
use zeroize::Zeroizing;

/// Words of a code.
const WORDS: usize = 12;
/// Letters by which the words of the list differ.
const LETTERS: usize = 4;

/// A recovery code. Wiped when dropped, never shown but by [`RecoveryCode::words`].
pub struct RecoveryCode(Zeroizing<[u8; 16]>);

impl RecoveryCode {
    /// Makes a code of random bits.
    pub fn new(entropy: [u8; 16]) -> Self {
        Self(Zeroizing::new(entropy))
    }

    /// Reads what a person has copied: words in any case, of which the first four letters are enough, with blanks or
    /// line feeds between them and perhaps numbers in front.
    ///
    /// # Errors
    ///
    /// [`RecoveryCodeError`] says which word is wrong, if that can be told.
    pub fn parse(text: &str) -> Result<Self, RecoveryCodeError> {
        let lower = Zeroizing::new(text.to_lowercase());
        let split = |letter: char| !letter.is_alphabetic();
        let typed: Vec<&str> = lower.split(split).filter(|word| !word.is_empty()).collect();
        if typed.len() != WORDS {
            return Err(RecoveryCodeError::Count(typed.len()));
        }
        let mut words = Zeroizing::new(String::new());
        for (place, typed) in (1..).zip(typed) {
            let word = word(typed).ok_or(RecoveryCodeError::Word(place))?;
            words.push_str(word);
            words.push(' ');
        }
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &words);
        let (entropy, len) = mnemonic.map_err(refusal)?.to_entropy_array();
        let entropy = Zeroizing::new(entropy);
        let entropy = entropy[..len].try_into();
        entropy
            .map(Self::new)
            .map_err(|_| RecoveryCodeError::Checksum)
    }

    /// The words, to be shown once. Wiped when dropped.
    pub fn words(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, &*self.0);
        let mnemonic = mnemonic.expect("16 bytes are twelve words");
        let mut text = Zeroizing::new(String::with_capacity(WORDS * 9));
        for word in mnemonic.words() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }

    /// The secret half of the recovery key.
    pub fn secret(&self) -> DeviceSecret {
        recovery_secret(&self.0)
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(…)")
    }
}

/// The word of the list that a person means.
fn word(typed: &str) -> Option<&'static str> {
    let mut candidates = Language::English.words_by_prefix_iter(typed);
    let first = candidates.next()?;
    let is_only = candidates.next().is_none();
    // A word that begins others stands before them in the list.
    (first == typed || (is_only && typed.len() >= LETTERS)).then_some(first)
}

fn refusal(error: Error) -> RecoveryCodeError {
    match error {
        Error::BadWordCount(count) => RecoveryCodeError::Count(count),
        Error::UnknownWord(place) => RecoveryCodeError::Word(place + 1),
        Error::BadEntropyBitCount(_) | Error::InvalidChecksum | Error::AmbiguousLanguages(_) => {
            RecoveryCodeError::Checksum
        }
    }
}

/// Why a text is no recovery code. Tells nothing of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryCodeError {
    /// It has more or fewer words.
    #[error("a recovery code has {WORDS} words, and these are {0}")]
    Count(usize),
    /// The word at this place, from 1 on, is not in the list.
    #[error("word {0} is none that a recovery code can have; look for a slip of the pen")]
    Word(usize),
    /// All are in the list, but at least one is not the one that was written down, or they are in another order.
    #[error("one of the words is not the one that was written down, or they are in another order")]
    Checksum,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first example of BIP-39 with twelve words, and one of its random ones.
    const EXAMPLES: [([u8; 16], &str); 2] = [
        (
            [0; 16],
            "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
        ),
        (
            [
                0x9e, 0x88, 0x5d, 0x95, 0x2a, 0xd3, 0x62, 0xca, 0xeb, 0x4e, 0xfe, 0x34, 0xa8, 0xe9,
                0x1b, 0xd2,
            ],
            "ozone drill grab fiber curtain grace pudding thank cruise elder eight picnic",
        ),
    ];

    #[test]
    fn codes_are_the_words_of_bip_39_and_survive_them() {
        for (entropy, words) in EXAMPLES {
            let code = RecoveryCode::new(entropy);
            assert_eq!(*code.words(), words);
            let read = RecoveryCode::parse(words).unwrap();
            assert_eq!(*read.0, entropy);
            assert_eq!(read.secret().public(), code.secret().public());
        }
    }

    #[test]
    fn a_person_may_write_it_down_as_they_like() {
        let (entropy, _) = EXAMPLES[1];
        for text in [
            "  OZONE drill\tgrab\nfiber curtain Grace pudding thank cruise elder eight picnic.",
            "ozon dril grab fibe curt grac pudd than crui elde eigh picn",
            "1. ozone 2. drill 3. grab 4. fiber 5. curtain 6. grace
             7. pudding 8. thank 9. cruise 10. elder 11. eight 12. picnic",
        ] {
            let read = RecoveryCode::parse(text).map(|code| *code.0);
            assert_eq!(read, Ok(entropy), "{text}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_found() {
        let (_, words) = EXAMPLES[1];
        for (wrong, error) in [
            (words.replace("fiber", "fibre"), RecoveryCodeError::Word(4)),
            (words.replace("fiber", "fi"), RecoveryCodeError::Word(4)),
            (words.replace("fiber", "dog"), RecoveryCodeError::Checksum),
            (
                words.replace("grab fiber", "fiber grab"),
                RecoveryCodeError::Checksum,
            ),
            (words.replace("picnic", ""), RecoveryCodeError::Count(11)),
            (String::new(), RecoveryCodeError::Count(0)),
            ("é".repeat(100_000), RecoveryCodeError::Count(1)),
        ] {
            let read = RecoveryCode::parse(&wrong).map(|code| *code.0);
            assert_eq!(read, Err(error), "{wrong:.60}");
        }
    }

    #[test]
    fn it_is_never_shown_by_accident() {
        let code = RecoveryCode::new([7; 16]);
        assert_eq!(format!("{code:?}"), "RecoveryCode(…)");
    }
}
