//! Who gets a message.

use common::id::{AccountName, MessageId};

/// The names in the order in which they were first given, each once.
pub(crate) fn each_once(names: Vec<AccountName>) -> Vec<AccountName> {
    let mut once: Vec<AccountName> = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

/// Which message goes to whom: a node answers in the order of the recipients, each once. `None` if it
/// has made more messages than there are recipients, or fewer.
pub(crate) fn addressed(
    ids: Vec<MessageId>,
    to: Vec<AccountName>,
) -> Option<impl Iterator<Item = (MessageId, AccountName)> + use<>> {
    (ids.len() == to.len()).then(|| ids.into_iter().zip(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<AccountName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn id(number: u8) -> MessageId {
        MessageId::from_bytes([number; 16])
    }

    #[test]
    fn each_message_belongs_to_whom_it_was_made_for() {
        let to = each_once(names(&["zed", "bob", "zed", "alice", "bob"]));
        assert_eq!(to, names(&["zed", "bob", "alice"]));
        let pairs = addressed(vec![id(3), id(1), id(2)], to).unwrap();
        let expected = [(3, "zed"), (1, "bob"), (2, "alice")];
        assert!(pairs.eq(expected.map(|(number, name)| (id(number), name.parse().unwrap()))));
    }

    #[test]
    fn an_answer_for_other_recipients_is_none() {
        for count in [0, 1, 3] {
            let ids = (0..count).map(id).collect();
            assert!(addressed(ids, names(&["zed", "bob"])).is_none());
        }
    }
}
