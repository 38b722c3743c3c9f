//! The exit codes: the one table that the program ends by and `peer --help` prints.

use common::text::{Align, table};

macro_rules! exits {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $meaning:literal;)+) => {
        /// How the program ends. A code never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Exit {
            $($(#[doc = $doc])+ $name = $code,)+
        }

        /// Every code and what it means to a person, by the code.
        const EXITS: &[(Exit, &str)] = &[$((Exit::$name, $meaning),)+];
    };
}

exits! {
    /// What was asked is done, or nobody reads the output any more.
    Done = 0, "done";
    /// A failure without a code of its own.
    Other = 1, "something else failed";
    /// clap's own code for a usage error.
    Usage = 2, "the command line has a mistake";
    /// The server refused name and password.
    Credentials = 3, "wrong password or unknown account";
    /// Too many log-ins failed.
    Blocked = 4, "account blocked for a while";
    /// No connection to the server, or none in time.
    Unreachable = 5, "server unreachable";
    /// Nothing was sent to the server.
    ServerKey = 6, "server key changed or not trusted";
    /// The message stays in the outbox.
    NotDelivered = 7, "recipient offline, or not in time";
    /// A file of the person's, or the output; not the profile's history.
    File = 8, "file problem: not found, not readable, disk full";
    /// The other side said no, or the transfer broke off.
    Transfer = 9, "transfer declined or failed";
    /// There is no account to act for.
    NotLoggedIn = 10, "not logged in, or the profile is not set up";
    /// The profile's folder cannot be used by this process.
    Profile = 11, "profile in use, damaged or too new";
    /// Only the account's owner can approve it.
    NotApproved = 12, "device not approved by its account";
    /// 128 + SIGINT.
    Interrupted = 130, "interrupted with Ctrl-C";
    /// 128 + SIGTERM, and for every other signal that asks a program to end.
    Terminated = 143, "ended by a signal";
}

impl Exit {
    /// The codes in two columns for `--help`, indented, one line feed behind each row but the last.
    pub(crate) fn help() -> String {
        let cells: Vec<_> = EXITS
            .iter()
            .map(|(exit, meaning)| [(*exit as u8).to_string(), (*meaning).to_owned()])
            .collect();
        let (left, right) = cells.split_at(cells.len().div_ceil(2));
        let rows: Vec<_> = left
            .iter()
            .enumerate()
            .map(|(index, [code, meaning])| {
                let [next, its] = right.get(index).cloned().unwrap_or_default();
                [String::new(), code.clone(), meaning.clone(), next, its]
            })
            .collect();
        let aligns = [
            Align::Left,
            Align::Right,
            Align::Left,
            Align::Right,
            Align::Left,
        ];
        table(&rows, aligns, None).join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_has_every_code_once_and_fits_its_width() {
        let help = Exit::help();
        for (exit, meaning) in EXITS {
            let row = format!("{}  {meaning}", *exit as u8);
            assert_eq!(help.matches(&row).count(), 1, "{help}");
        }
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
        assert!(EXITS.is_sorted_by_key(|(exit, _)| *exit as u8));
    }
}
