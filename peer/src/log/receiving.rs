//! Each page of a link is answered, in the order in which they came: the giver counts what is in flight.

use std::collections::VecDeque;

/// A page that came over a link, and awaits its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u64);

/// The pages of one link that are not answered yet.
///
/// A page is settled when it was refused, or when the disk has it. A `Have` then says how many were settled since the
/// last one, counted from the oldest without a gap, and what this device now has of their chains.
#[derive(Clone, Debug, Default)]
pub struct Receiving {
    /// Whether each is settled, from the oldest on.
    slots: VecDeque<bool>,
    /// The number of the oldest.
    oldest: u64,
}

impl Receiving {
    /// A page came.
    pub fn open(&mut self) -> Slot {
        self.slots.push_back(false);
        Slot(self.oldest + self.slots.len() as u64 - 1)
    }

    /// What came of it is known.
    pub fn settle(&mut self, slot: Slot) {
        let index = slot.0.checked_sub(self.oldest);
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(is_settled) = index.and_then(|index| self.slots.get_mut(index)) {
            *is_settled = true;
        }
    }

    /// Takes those that can be answered now, and tells how many they are.
    pub fn take_settled(&mut self) -> usize {
        let settled = self.slots.iter().take_while(|settled| **settled).count();
        self.slots.drain(..settled);
        self.oldest += settled as u64;
        settled
    }

    /// How many await an answer.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_answered_in_their_order_and_once() {
        let mut receiving = Receiving::default();
        let [first, second, third] = [(); 3].map(|()| receiving.open());
        receiving.settle(second);
        assert_eq!(receiving.take_settled(), 0);
        receiving.settle(first);
        assert_eq!(receiving.take_settled(), 2);
        receiving.settle(first);
        assert_eq!(receiving.take_settled(), 0);
        receiving.settle(third);
        assert_eq!((receiving.take_settled(), receiving.is_empty()), (1, true));
    }
}
