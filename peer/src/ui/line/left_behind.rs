//! Messages that stay in the outbox when a chat ends.

use common::text;

use crate::conversation::Waiting;

/// Recipients that are named at the end of a chat; 'peer outbox' has all.
const RECIPIENTS_SHOWN: usize = 3;

/// Which messages stay behind in the outbox, at least one, and when they go out.
pub(crate) fn left_behind(waiting: &[Waiting], is_logged_in: bool) -> String {
    let shown = waiting.iter().take(RECIPIENTS_SHOWN);
    let mut words: Vec<_> = shown
        .map(|Waiting { to, count }| match count {
            1 => format!("1 message for {to}"),
            count => format!("{count} messages for {to}"),
        })
        .collect();
    let rest = waiting.iter().skip(RECIPIENTS_SHOWN);
    match rest.map(|waiting| waiting.count).sum() {
        0_usize => {}
        more => words.push(format!("{more} more ('peer outbox' lists them)")),
    }
    let total: usize = waiting.iter().map(|waiting| waiting.count).sum();
    let [wait, they] = if total == 1 {
        ["waits", "it goes"]
    } else {
        ["wait", "they go"]
    };
    let then = if is_logged_in {
        "the next time a 'peer' program of this profile runs and both are online"
    } else {
        "after you log in again"
    };
    let words = text::joined(&words);
    format!("{words} {wait} in the outbox; {they} out {then}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_stay_behind_are_counted() {
        let waiting = |all: &[(&str, usize)]| {
            let waiting = all.iter().map(|(to, count)| Waiting {
                to: to.parse().unwrap(),
                count: *count,
            });
            left_behind(&Vec::from_iter(waiting), true)
        };
        assert_eq!(
            waiting(&[("carol", 1)]),
            "1 message for carol waits in the outbox; it goes out the next time a 'peer' program of this profile runs and both are online."
        );
        assert_eq!(
            waiting(&[("bob", 1), ("carol", 2)]),
            "1 message for bob, 2 messages for carol wait in the outbox; they go out the next time a 'peer' program of this profile runs and both are online."
        );
        let one = [Waiting {
            to: "bob".parse().unwrap(),
            count: 1,
        }];
        assert_eq!(
            left_behind(&one, false),
            "1 message for bob waits in the outbox; it goes out after you log in again."
        );
        let many = waiting(&[("a", 1), ("b", 1), ("c", 1), ("d", 2), ("e", 3)]);
        let rest = "1 message for c, 5 more ('peer outbox' lists them) wait in the outbox; ";
        assert!(many.contains(rest), "{many}");
    }
}
