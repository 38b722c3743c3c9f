//! Files on their way: the line that is redrawn, and what is said of one in passing and at its end.

use common::text::{self, columns, inline, shortened, shortened_name};

use super::{declined, transfer_done};
use crate::conversation::speed::Pace;
use crate::conversation::{Stage, Transfer, Way};
use crate::node::command::{Direction, FailureKind, Moved, OfferView, TransferState, TransferView};
use crate::ui::Look;
use crate::ui::progress::STALLED;

/// Columns of a terminal that does not say how many it has.
const COLUMNS_DEFAULT: usize = 80;
/// Columns that a file's name keeps before figures give way to it.
const NAME_COLUMNS_MIN: usize = 6;

/// How far a transfer is, in one line that fits the screen: figures are left out, and the name is
/// shortened, as far as it takes.
pub(super) fn live(transfer: &Transfer, stage: Stage, screen: Option<usize>) -> String {
    // The last column stays free: a terminal may break the line behind it.
    let room = screen.unwrap_or(COLUMNS_DEFAULT).saturating_sub(1);
    let number = format!(" {}: ", transfer.number);
    let name = inline(&transfer.name);
    let name_min = columns(&name).min(NAME_COLUMNS_MIN);
    let fits = |rest: &&String| columns(&number) + name_min + columns(rest) <= room;
    let forms = forms(transfer, stage);
    let rest = forms.iter().find(fits).or(forms.last());
    let rest = rest.map_or("", String::as_str);
    let name = shortened_name(&name, room.saturating_sub(columns(&number) + columns(rest)));
    shortened(&format!("{number}{name}{rest}"), room)
}

/// The same where there is room for all of it.
pub(super) fn in_full(transfer: &Transfer, stage: Stage) -> String {
    let forms = forms(transfer, stage);
    let rest = forms.first().map_or("", String::as_str);
    format!("{}: {}{rest}", transfer.number, inline(&transfer.name))
}

/// A transfer by its number, to choose from.
pub(super) fn numbered(transfer: &Transfer) -> String {
    let name = inline(&transfer.name);
    format!("{} ({name} {})", transfer.number, whom(transfer))
}

/// What stands behind the name, from all that can be said to the least.
fn forms(transfer: &Transfer, stage: Stage) -> Vec<String> {
    let whom = whom(transfer);
    let (done, total, pace) = match stage {
        Stage::Looking => {
            let with = match &transfer.way {
                Way::To(with) | Way::From(with) => with,
            };
            return vec![
                format!(" {whom}, looks for {with}"),
                format!(", looks for {with}"),
                ", not offered yet".to_owned(),
            ];
        }
        Stage::Offered => {
            return vec![
                format!(" {whom}, waits for an answer"),
                ", waits for an answer".to_owned(),
                ", offered".to_owned(),
            ];
        }
        Stage::Moving { done, total, pace } => (done, total, pace),
    };
    let percent = percent(done, total);
    if done >= total {
        return vec![
            format!(" {whom}  {percent}, is being checked"),
            format!("  {percent}, is being checked"),
            format!("  {percent}"),
        ];
    }
    let left = pace.seconds_left(total - done);
    let left = left.map_or(String::new(), |left| {
        format!("  {} left", text::seconds(left))
    });
    let rate = match pace {
        Pace::Unmeasured => String::new(),
        Pace::PerSecond(rate) => format!("  {}/s", text::size(rate)),
        Pace::Stalled => "  stalled".to_owned(),
        Pace::Behind => "  waits for its turn".to_owned(),
    };
    let next = match pace {
        Pace::Stalled => format!("  {STALLED}"),
        Pace::Unmeasured | Pace::PerSecond(_) | Pace::Behind => format!("{rate}{left}"),
    };
    let pace = format!("{rate}{left}");
    let of = format!("{} of {}", text::size(done), text::size(total));
    vec![
        format!(" {whom}  {percent}, {of}{next}"),
        format!(" {whom}  {percent}{next}"),
        format!(" {whom}  {percent}{pace}"),
        format!("  {percent}{pace}"),
        format!("  {percent}{left}"),
        format!("  {percent}"),
    ]
}

fn percent(done: u64, total: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    format!("{percent} %")
}

fn whom(transfer: &Transfer) -> String {
    match &transfer.way {
        Way::To(to) => format!("to {to}"),
        Way::From(from) => format!("from {from}"),
    }
}

/// An offer ended with the program that had made it, and was made again.
pub(super) fn offered_again(transfer: &Transfer) -> String {
    let (name, whom) = (inline(&transfer.name), whom(transfer));
    format!(
        "  Offered {name} {whom} again, as transfer {}.",
        transfer.number
    )
}

/// What became of a transfer, or how far it is. Begins with its number: two files may have one name.
pub(super) fn progress(transfer: &Transfer, state: &TransferState, look: &Look) -> String {
    let number = transfer.number;
    let name = inline(&transfer.name);
    let whom = whom(transfer);
    let verb = match &transfer.way {
        Way::To(_) => "Sent",
        Way::From(_) => "Received",
    };
    match state {
        TransferState::Looking => look.dim(&format!("  {number}: {name} {whom}: not offered yet")),
        TransferState::NotOffered { error } => look.yellow(&format!(
            "  {number}: {name} {whom} was not offered: {}",
            inline(&error.to_string())
        )),
        TransferState::Waiting => {
            look.dim(&format!("  {number}: {name} {whom}: waiting for an answer"))
        }
        TransferState::Moving(Moved { done, total, .. }) => {
            let of = format!("{} of {}", text::size(*done), text::size(*total));
            look.dim(&format!(
                "  {number}: {name} {whom}: {}, {of}",
                percent(*done, *total)
            ))
        }
        TransferState::Done { .. } => {
            let done = transfer_done(verb, &name, &whom, state);
            look.green(&format!("  {number}: {}", done.replace('\n', "\n  ")))
        }
        TransferState::Declined { reason } => {
            let reason = declined(reason, &transfer.name);
            look.yellow(&format!("  {number}: {name} {whom} was declined: {reason}"))
        }
        TransferState::Failed { reason, kind } => look.yellow(&format!(
            "  {number}: {name} {whom} failed: {}{}",
            inline(reason),
            sending_again(&transfer.way, *kind)
        )),
    }
}

/// What is to be done about a transfer that has failed, behind the reason: nothing goes on by itself.
fn sending_again(way: &Way, kind: FailureKind) -> String {
    match (way, kind) {
        (_, FailureKind::Cancelled) => String::new(),
        (Way::To(to), FailureKind::Unanswered | FailureKind::NodeEnds | FailureKind::Broken) => {
            format!("; '/send-file {to} PATH' sends it again, from the beginning")
        }
        (
            Way::From(from),
            FailureKind::Unanswered | FailureKind::NodeEnds | FailureKind::Broken,
        ) => {
            format!("; {from} has to send it again, from the beginning")
        }
    }
}

/// How an offer ended that nobody answered, behind its name: `why`, or its sender withdrew it.
pub(crate) fn offer_ended(why: Option<&str>) -> String {
    match why {
        Some(why) => format!("ended: {}", inline(why)),
        None => "was withdrawn".to_owned(),
    }
}

/// Which transfers end with the chat, for whoever leaves it; at least one.
pub(super) fn cut_off(underway: &[(Transfer, Stage)]) -> String {
    let files = underway.iter().map(|(transfer, stage)| {
        let name = inline(&transfer.name);
        let whom = whom(transfer);
        match stage {
            Stage::Looking => format!("{name} {whom} (not offered yet)"),
            Stage::Offered => format!("{name} {whom} (offered)"),
            Stage::Moving { done, total, .. } => {
                format!("{name} {whom} ({})", percent(*done, *total))
            }
        }
    });
    let files: Vec<_> = files.collect();
    format!(
        "Still on the way, and leaving cancels it: {}. Once more Ctrl-C, Ctrl-D or /quit leaves.",
        text::joined(&files)
    )
}

/// A file that some program of the profile sends or takes.
pub(super) fn of_node(view: &TransferView) -> String {
    let name = inline(&view.name);
    let whom = match view.direction {
        Direction::Sent => format!("to {}", view.with),
        Direction::Received => format!("from {}", view.with),
    };
    match view.state {
        TransferState::Moving(Moved {
            done,
            total,
            is_behind,
        }) => {
            let (percent, total) = (percent(done, total), text::size(total));
            let behind = if is_behind {
                ", waits for its turn"
            } else {
                ""
            };
            format!("{name} {whom}, {percent} of {total}{behind}")
        }
        TransferState::Looking => format!("{name} {whom}, looks for {}", view.with),
        TransferState::Waiting
        | TransferState::NotOffered { .. }
        | TransferState::Done { .. }
        | TransferState::Declined { .. }
        | TransferState::Failed { .. } => format!("{name} {whom}, waits for an answer"),
    }
}

/// What a program still carries for others of its profile before it ends; at least one.
pub(crate) fn carried(moving: &[TransferView], look: &Look) -> String {
    let files: Vec<_> = moving.iter().map(of_node).collect();
    look.yellow(&format!(
        "For another 'peer' program this one still carries {}. It ends when that is done; Ctrl-C ends both now.",
        text::joined(&files)
    ))
}

/// Which files of other programs of the profile ended with this one; at least one.
pub(crate) fn cut_off_for_others(moving: &[TransferView]) -> String {
    let files: Vec<_> = moving.iter().map(of_node).collect();
    let files = text::joined(&files);
    format!("Cancelled for another 'peer' program: {files}.")
}

/// Which offers of others nobody has answered in a chat that ends, at least one, and perhaps the node with it.
pub(crate) fn unanswered(offers: &[&OfferView], ends_node: bool) -> String {
    let files = offers.iter();
    let files = files.map(|offer| format!("{} from {}", inline(&offer.name), offer.from));
    let files = text::joined(&Vec::from_iter(files));
    if ends_node {
        format!("Not answered, and not open any more: {files}.")
    } else {
        format!("Not answered: {files}. 'peer receive' asks again.")
    }
}

/// Which transfers ended with the chat; at least one.
pub(crate) fn cancelled(transfers: &[Transfer]) -> String {
    format!("Cancelled: {}.", named(transfers))
}

/// Which transfers of piped input had not ended; at least one.
pub(crate) fn unfinished(transfers: &[Transfer]) -> String {
    format!("Not done in time, and cut off: {}.", named(transfers))
}

fn named(transfers: &[Transfer]) -> String {
    let files = transfers.iter().map(|transfer| {
        let name = inline(&transfer.name);
        format!("{name} {}", whom(transfer))
    });
    text::joined(&Vec::from_iter(files))
}

#[cfg(test)]
mod tests {
    use common::id::TransferId;

    use super::*;

    fn transfer(name: &str) -> Transfer {
        Transfer {
            number: 3,
            name: name.to_owned(),
            way: Way::To("bob".parse().unwrap()),
        }
    }

    const MOVING: Stage = Stage::Moving {
        done: 12_000_000,
        total: 48_000_000,
        pace: Pace::PerSecond(3_000_000),
    };

    #[test]
    fn a_transfer_takes_one_line_of_any_screen() {
        let file = transfer("a-long-holiday-in-the-mountains.mp4");
        for (screen, line) in [
            (
                200,
                " 3: a-long-holiday-in-the-mountains.mp4 to bob  25 %, 12.0 MB of 48.0 MB  3.0 MB/s  12 s left",
            ),
            (
                80,
                " 3: a-long-hol…ntains.mp4 to bob  25 %, 12.0 MB of 48.0 MB  3.0 MB/s  12 s left",
            ),
            (40, " 3: a-l….mp4  25 %  3.0 MB/s  12 s left"),
            (36, " 3: a-long-…ns.mp4  25 %  12 s left"),
            (20, " 3: a-lo….mp4  25 %"),
            (5, " 3…%"),
        ] {
            let shown = live(&file, MOVING, Some(screen));
            assert!(columns(&shown) < screen, "{screen}: {shown}");
            assert_eq!(shown, line);
        }
        for screen in 0..200 {
            for name in ["", "x", "漢字漢字漢字漢字.txt", "a\u{1b}[2Jb\n"] {
                let shown = live(&transfer(name), MOVING, Some(screen));
                assert!(columns(&shown) <= screen.saturating_sub(1), "{shown}");
                assert_eq!(text::block(&shown), shown);
                assert!(!shown.contains('\n'));
            }
        }
    }

    #[test]
    fn offers_that_nobody_answered_are_named_at_the_end() {
        let offer = |name: &str| OfferView {
            transfer: TransferId::from_bytes([0; 16]),
            from: "bob".parse().unwrap(),
            name: name.to_owned(),
            size: 1,
            executable: false,
        };
        let (first, second) = (offer("a\u{1b}.txt"), offer("b.txt"));
        assert_eq!(
            unanswered(&[&first, &second], true),
            "Not answered, and not open any more: a␛.txt from bob, b.txt from bob."
        );
        assert_eq!(
            unanswered(&[&second], false),
            "Not answered: b.txt from bob. 'peer receive' asks again."
        );
    }

    #[test]
    fn a_transfer_says_what_it_waits_for() {
        let moving = |done, pace| Stage::Moving {
            done,
            total: 1_000_000,
            pace,
        };
        for (stage, line) in [
            (Stage::Looking, " 3: x to bob, looks for bob"),
            (Stage::Offered, " 3: x to bob, waits for an answer"),
            (
                moving(0, Pace::Unmeasured),
                " 3: x to bob  0 %, 0 B of 1.0 MB",
            ),
            (
                moving(0, Pace::Behind),
                " 3: x to bob  0 %, 0 B of 1.0 MB  waits for its turn",
            ),
            (
                moving(10_000, Pace::Stalled),
                " 3: x to bob  1 %, 10.0 kB of 1.0 MB  stalled: goes on or fails",
            ),
            (
                moving(10_000, Pace::PerSecond(1)),
                " 3: x to bob  1 %, 10.0 kB of 1.0 MB  1 B/s",
            ),
            (
                moving(1_000_000, Pace::PerSecond(5)),
                " 3: x to bob  100 %, is being checked",
            ),
        ] {
            assert_eq!(live(&transfer("x"), stage, None), line);
        }
    }
}
