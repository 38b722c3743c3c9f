//! What two people compare to be sure of each other's accounts.

use std::fmt;

use crate::log::AccountId;

/// Separates these digits from all other uses of an AccountId: a context string of BLAKE3's key derivation.
const CONTEXT: &str = "rdv 2026-11 safety number v1";
/// Groups of digits of one account.
const GROUPS: usize = 6;
/// Digits of a group: a number below 10 to this power.
const DIGITS: usize = 5;

/// Sixty digits that are the same at both ends if each has the other's true account: thirty of each, the lesser ones
/// first. A server that puts itself between two people cannot have an account with somebody else's digits: that
/// would take some 2^99 attempts.
///
/// It is shown as twelve groups of five, which people read to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafetyNumber([[u32; GROUPS]; 2]);

impl SafetyNumber {
    /// The number of two accounts, in whichever order.
    pub fn of(one: &AccountId, other: &AccountId) -> Self {
        let mut halves = [one, other].map(half);
        halves.sort_unstable();
        Self(halves)
    }
}

impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, group) in self.0.as_flattened().iter().enumerate() {
            let gap = if place == 0 { "" } else { " " };
            write!(f, "{gap}{group:0DIGITS$}")?;
        }
        Ok(())
    }
}

/// The groups of one account. Each is made of 40 bits, so that no digit is noticeably more frequent than others.
fn half(account: &AccountId) -> [u32; GROUPS] {
    let mut bytes = [0; 5 * GROUPS];
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(account.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    std::array::from_fn(|group| {
        let mut number = [0; 8];
        number[3..].copy_from_slice(&bytes[5 * group..5 * group + 5]);
        let number = u64::from_be_bytes(number) % 10_u64.pow(DIGITS as u32);
        u32::try_from(number).expect("it has five digits")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(one: u8, other: u8) -> String {
        let [one, other] = [one, other].map(|n| AccountId::from_bytes([n; 32]));
        SafetyNumber::of(&one, &other).to_string()
    }

    #[test]
    fn both_sides_see_the_same_sixty_digits_and_nobody_else_does() {
        let shown = number(1, 2);
        assert_eq!(shown, number(2, 1));
        assert_eq!(shown.split(' ').count(), 12);
        let groups = shown.split(' ');
        assert!(groups.clone().all(|group| group.len() == 5));
        assert!(
            groups
                .flat_map(str::chars)
                .all(|digit| digit.is_ascii_digit())
        );
        for (one, other) in [(1, 3), (3, 2), (1, 1)] {
            assert_ne!(shown, number(one, other));
        }
    }

    #[test]
    fn it_is_that_of_the_protocol_document() {
        let document = include_str!("../../PROTOCOL.md");
        let (_, example) = document.split_once("### 9.3 Safety numbers").unwrap();
        let example = example.split("```").nth(1).unwrap();
        assert_eq!(example.trim(), number(1, 2));
    }
}
