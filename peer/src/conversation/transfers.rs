//! Files on their way, in either direction.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::id::{AccountName, TransferId};

use super::speed::{Pace, Speed};
use crate::node::command::Moved;

/// How often it is told how far a transfer is, to whoever sees no line that is redrawn.
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);

/// Where a file goes or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    To(AccountName),
    From(AccountName),
}

/// A file that was offered, or whose offer was accepted, in this conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// What the person calls it.
    pub(crate) number: usize,
    /// The file's name, perhaps from outside.
    pub(crate) name: String,
    pub(crate) way: Way,
}

impl Transfer {
    /// What is being done, in the infinitive, for an error message.
    pub(crate) fn doing(&self) -> String {
        let name = &self.name;
        match &self.way {
            Way::To(to) => format!("send {name} to {to}"),
            Way::From(from) => format!("take {name} from {from}"),
        }
    }
}

/// How far a transfer is that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A way to the recipient is looked for.
    Looking,
    /// Nobody has answered the offer.
    Offered,
    /// Bytes have arrived.
    Moving { done: u64, total: u64, pace: Pace },
}

impl Stage {
    /// Tells whether bytes come, or are about to.
    pub(super) const fn is_moving(self) -> bool {
        match self {
            Self::Looking | Self::Offered => false,
            Self::Moving { pace, .. } => pace.is_moving(),
        }
    }
}

/// The transfer that a person means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    One(TransferId, Transfer),
    /// There is none of that number, or none at all.
    Missing,
    /// It could be any of these.
    Several(Vec<Transfer>),
}

/// How a transfer has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) transfer: Transfer,
    /// The person cancelled it here.
    pub(super) is_cancelled: bool,
}

/// A file whose offer ended with its node, to be offered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    /// The offer that is no more.
    pub(super) id: TransferId,
    pub(super) to: AccountName,
    pub(super) name: String,
    /// As it was typed.
    pub(super) path: PathBuf,
}

/// The transfers that this conversation follows until they end. The node bounds how many there are.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    followed: BTreeMap<TransferId, Followed>,
}

#[derive(Debug)]
struct Followed {
    transfer: Transfer,
    /// What is sent, as it was typed.
    source: Option<PathBuf>,
    /// Whether the recipient, or the person here, was told of it.
    is_offered: bool,
    /// Its offer was out before, and ended with its node.
    is_again: bool,
    /// Bytes so far and of the whole file, once it moves.
    moved: Option<(u64, u64)>,
    speed: Speed,
    /// When something was told of it last.
    told: Instant,
    is_cancelled: bool,
    /// Its offer ended with the node, and no other one was asked to make it again.
    is_lost: bool,
}

impl Transfers {
    /// Follows a transfer from now on; `source` is the path of a file that is sent, and not offered yet.
    pub(super) fn follow(
        &mut self,
        id: TransferId,
        transfer: Transfer,
        source: Option<PathBuf>,
        now: Instant,
    ) {
        let followed = Followed {
            transfer,
            is_offered: source.is_none(),
            is_again: false,
            source,
            moved: None,
            speed: Speed::default(),
            told: now,
            is_cancelled: false,
            is_lost: false,
        };
        self.followed.insert(id, followed);
    }

    /// An offer is out. Returns its transfer, if that is news, and whether it is out again.
    pub(super) fn on_offered(&mut self, id: TransferId) -> Option<(Transfer, bool)> {
        let followed = self.followed.get_mut(&id)?;
        let is_news = !std::mem::replace(&mut followed.is_offered, true);
        is_news.then(|| (followed.transfer.clone(), followed.is_again))
    }

    /// The node ends, and the offer with it. Tells whether it can be made again: it is one of a file that is
    /// sent, nothing of which has moved.
    pub(super) fn lose(&mut self, id: TransferId) -> bool {
        let followed = self.followed.get_mut(&id);
        let lost = followed.filter(|followed| followed.can_be_offered_again());
        lost.map(|followed| followed.is_lost = true).is_some()
    }

    /// Tells whether there are offers to be made again.
    pub(super) fn has_lost(&self) -> bool {
        self.followed.values().any(|followed| followed.is_lost)
    }

    /// Takes the offers that are to be made again, once each, by number. They are followed all the same.
    pub(super) fn take_lost(&mut self) -> Vec<Lost> {
        let mut lost: Vec<_> = self.followed.iter_mut().collect();
        lost.retain(|(_, followed)| followed.is_lost);
        lost.sort_by_key(|(_, followed)| followed.transfer.number);
        let lost = lost.into_iter().filter_map(|(id, followed)| {
            followed.is_lost = false;
            followed.to_be_offered(*id)
        });
        lost.collect()
    }

    /// An offer is made again under another id. Tells whether it is still wanted.
    pub(super) fn on_begun_again(
        &mut self,
        before: TransferId,
        id: TransferId,
        now: Instant,
    ) -> bool {
        let Some(ended) = self.followed.remove(&before) else {
            return false;
        };
        self.follow(id, ended.transfer, ended.source, now);
        if let Some(followed) = self.followed.get_mut(&id) {
            followed.is_again = ended.is_offered || ended.is_again;
            followed.is_cancelled = ended.is_cancelled;
        }
        !ended.is_cancelled
    }

    /// Tells whether a transfer is followed.
    pub(super) fn follows(&self, id: TransferId) -> bool {
        self.followed.contains_key(&id)
    }

    /// Notes how far a transfer is. Returns it every [`PROGRESS_PAUSE`].
    pub(super) fn on_moved(
        &mut self,
        id: TransferId,
        moved: Moved,
        now: Instant,
    ) -> Option<Transfer> {
        let followed = self.followed.get_mut(&id)?;
        followed.moved = Some((moved.done, moved.total));
        followed.speed.add(moved.done, now);
        followed.speed.set_behind(moved.is_behind);
        if now < followed.told + PROGRESS_PAUSE {
            return None;
        }
        followed.told = now;
        Some(followed.transfer.clone())
    }

    /// A transfer has ended.
    pub(super) fn end(&mut self, id: TransferId) -> Option<Ended> {
        self.followed.remove(&id).map(Followed::ended)
    }

    /// The node that carried them has gone. Takes out those that ended with it, and keeps the offers that can
    /// be made again.
    pub(super) fn end_carried(&mut self) -> impl Iterator<Item = (TransferId, Ended)> {
        let ids: Vec<TransferId> = self.followed.keys().copied().collect();
        ids.into_iter().filter_map(|id| {
            if self.lose(id) {
                return None;
            }
            Some((id, self.end(id)?))
        })
    }

    /// The transfer of that number, or the only one.
    pub(super) fn select(&self, number: Option<usize>) -> Selected {
        let is_meant =
            |followed: &Followed| number.is_none_or(|number| followed.transfer.number == number);
        let mut meant = self.followed.iter().filter(|(_, one)| is_meant(one));
        match (meant.next(), meant.next()) {
            (Some((id, only)), None) => Selected::One(*id, only.transfer.clone()),
            (Some(_), Some(_)) => {
                let all = self.underway_by_number();
                let transfers = all.into_iter().map(|followed| followed.transfer.clone());
                Selected::Several(transfers.collect())
            }
            (None, _) => Selected::Missing,
        }
    }

    /// The person wants a transfer to end: that it fails is no news. Returns it where no node has it, so that
    /// it has ended.
    pub(super) fn cancel(&mut self, id: TransferId) -> Option<Transfer> {
        let followed = self.followed.get_mut(&id)?;
        followed.is_cancelled = true;
        if !followed.is_lost {
            return None;
        }
        self.end(id).map(|ended| ended.transfer)
    }

    /// All of them in the order in which they began, and how far each is.
    pub(super) fn underway(&self) -> Vec<(&Transfer, Stage)> {
        let all = self.underway_by_number().into_iter();
        all.map(|followed| (&followed.transfer, self.stage(followed)))
            .collect()
    }

    /// The same without how far they are.
    pub(super) fn all(&self) -> Vec<Transfer> {
        let all = self.underway_by_number().into_iter();
        all.map(|followed| followed.transfer.clone()).collect()
    }

    /// The same with their ids, to end them.
    pub(super) fn all_with_ids(&self) -> Vec<(TransferId, Transfer)> {
        let all = self.followed.iter();
        all.map(|(id, followed)| (*id, followed.transfer.clone()))
            .collect()
    }

    /// When one that moves is no longer as fast as it was, should nothing come by then.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let all = self.followed.values();
        all.filter_map(|followed| followed.speed.stalls_at()).min()
    }

    /// Notes which transfers have stopped.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for followed in self.followed.values_mut() {
            followed.speed.handle_timeout(now);
        }
    }

    /// Tells whether a file goes to an account or comes from it.
    pub(super) fn is_with(&self, account: &AccountName) -> bool {
        let mut all = self.followed.values();
        all.any(|followed| match &followed.transfer.way {
            Way::To(with) | Way::From(with) => with == account,
        })
    }

    /// Tells whether none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    fn stage(&self, followed: &Followed) -> Stage {
        let way = &followed.transfer.way;
        let all = self.followed.values();
        let same = all.filter(|other| other.transfer.way == *way);
        match followed.moved {
            None if followed.is_offered => Stage::Offered,
            None => Stage::Looking,
            Some((done, total)) => Stage::Moving {
                done,
                total,
                pace: followed.speed.pace(same.map(|other| &other.speed)),
            },
        }
    }

    fn underway_by_number(&self) -> Vec<&Followed> {
        let mut all: Vec<_> = self.followed.values().collect();
        all.sort_by_key(|followed| followed.transfer.number);
        all
    }
}

impl Followed {
    fn can_be_offered_again(&self) -> bool {
        let has_moved = self.moved.is_some_and(|(done, _)| done > 0);
        self.source.is_some() && !has_moved && !self.is_cancelled
    }

    fn to_be_offered(&self, id: TransferId) -> Option<Lost> {
        match (&self.transfer.way, &self.source) {
            (Way::To(to), Some(path)) => Some(Lost {
                id,
                to: to.clone(),
                name: self.transfer.name.clone(),
                path: path.clone(),
            }),
            (Way::To(_) | Way::From(_), _) => None,
        }
    }

    fn ended(self) -> Ended {
        Ended {
            transfer: self.transfer,
            is_cancelled: self.is_cancelled,
        }
    }
}
