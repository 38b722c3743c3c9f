//! What was typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use common::id::AccountName;
use common::limits::{
    FAILURE_LIMIT_MAX, RELAY_BYTES_PER_SECOND, RELAY_BYTES_PER_SECOND_OF_ACCOUNT, RELAY_RATE_MAX,
    UDP_THREADS_MAX,
};
use common::os::bind::BindAddress;
use common::os::number::within;

/// Bytes of a megabit.
pub const BYTES_OF_MEGABIT: u32 = 125_000;

const EXIT_CODES: &str = "\
Examples:
  rendezvous                                    start with the defaults
  rendezvous serve --listen 0.0.0.0:7400        listen on IPv4 only
  rendezvous serve --registration closed        only the operator makes accounts
  rendezvous serve --relay-rate 20              20 Mbit/s of each account through the relay
  rendezvous account add alice                  make an account, running or not
  rendezvous account unblock alice              end a block after failed log-ins

Exit codes:
  0  done                       5  the data is of a newer version
  1  another failure            6  the data is damaged
  2  wrong usage                7  the account exists already, or does not exist
  3  cannot listen there        8  a file cannot be read or written
  4  the data folder is in use";

/// The rendezvous server of a peer-to-peer messenger: it authenticates peers and tells them where the
/// others are. It never sees a message, a file or a password.
#[derive(Debug, Parser)]
#[command(name = "rendezvous", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// Folder of the server's keys and database [default: the system's place for application data]
    #[arg(long, global = true, value_name = "DIR", env = "RENDEZVOUS_DATA")]
    pub data: Option<PathBuf>,
    /// Print one JSON object a line instead of text, failures and the log included
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do; `serve` without one.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (the default)
    Serve(ServeArguments),
    /// Manage accounts, whether the server runs or not
    #[command(subcommand)]
    Account(AccountCommand),
    /// Show the fingerprint that peers pin
    Fingerprint(FingerprintArguments),
}

/// How to serve.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Address and port to listen on, TCP and UDP [default: port 7400 of every address]
    #[arg(
        long,
        value_name = "[ADDR:]PORT",
        env = "RENDEZVOUS_LISTEN",
        allow_negative_numbers = true
    )]
    pub listen: Option<BindAddress>,
    /// A second UDP port at the same address, which only answers STUN: it lets 'peer doctor' tell people what their
    /// router does [default: the one after the port of --listen]
    #[arg(
        long,
        value_name = "PORT",
        env = "RENDEZVOUS_STUN_PORT",
        allow_negative_numbers = true
    )]
    pub stun_port: Option<u16>,
    /// Threads that answer STUN and relay; more than one on Linux only [default: as many as there are cores, at
    /// most 4]
    #[arg(long, value_name = "COUNT", env = "RENDEZVOUS_UDP_THREADS", allow_negative_numbers = true,
          value_parser = within(1..=UDP_THREADS_MAX, "threads"))]
    pub udp_threads: Option<u32>,
    /// Who may register; there are no invitations yet, so it is everybody or nobody
    #[arg(long, value_enum, default_value_t, env = "RENDEZVOUS_REGISTRATION")]
    pub registration: RegistrationArgument,
    /// PEM file with your own certificate chain and its key, instead of a self-made one
    #[arg(long, value_name = "PEMFILE", env = "RENDEZVOUS_CERTIFICATE")]
    pub certificate: Option<PathBuf>,
    /// Failed log-ins in a row after which strangers have to wait
    #[arg(long, value_name = "COUNT", default_value_t = 5, allow_negative_numbers = true,
          value_parser = within(1..=FAILURE_LIMIT_MAX, "log-ins"))]
    pub failures_max: u32,
    /// Seconds of the first block; each further one lasts twice as long, up to an hour
    #[arg(long, value_name = "SECONDS", default_value_t = 60, allow_negative_numbers = true,
          value_parser = within(1..=3600, "seconds"))]
    pub block_first: u32,
    /// Relay nothing: devices that do not reach each other directly do not reach each other
    #[arg(long, conflicts_with_all = ["relay_rate", "relay_total"], env = "RENDEZVOUS_NO_RELAY")]
    pub no_relay: bool,
    /// Megabits a second that the devices of one account may send through the relay
    #[arg(long, value_name = "MBIT", default_value_t = RELAY_BYTES_PER_SECOND_OF_ACCOUNT / BYTES_OF_MEGABIT,
          allow_negative_numbers = true,
          value_parser = within(1..=RELAY_RATE_MAX, "Mbit/s; --no-relay for none"))]
    pub relay_rate: u32,
    /// The same of all accounts together
    #[arg(long, value_name = "MBIT", default_value_t = RELAY_BYTES_PER_SECOND / BYTES_OF_MEGABIT,
          allow_negative_numbers = true,
          value_parser = within(1..=RELAY_RATE_MAX, "Mbit/s; --no-relay for none"))]
    pub relay_total: u32,
}

/// Who may register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RegistrationArgument {
    /// Anybody who can reach the server
    #[default]
    Open,
    /// Nobody; use `rendezvous account add`
    Closed,
}

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account; asks for its password twice
    Add {
        /// Letters, digits, '.', '_' and '-'
        name: AccountName,
        /// Read the password from this file instead, or from standard input with '-'
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List the accounts
    List,
    /// Remove an account with its devices, and end its sessions and links
    Remove {
        /// Whose account
        name: AccountName,
        /// Do not ask; needed where there is no terminal to ask at
        #[arg(long)]
        yes: bool,
    },
    /// End the block of an account after failed log-ins
    Unblock {
        /// Whose account
        name: AccountName,
    },
    /// Make a one-time code that lets a new device log in during a block
    Admit {
        /// Whose account
        name: AccountName,
    },
}

/// Whose fingerprint.
#[derive(Debug, Args)]
pub struct FingerprintArguments {
    /// Of this certificate instead of the self-made one
    #[arg(long, value_name = "PEMFILE", env = "RENDEZVOUS_CERTIFICATE")]
    pub certificate: Option<PathBuf>,
}

/// An example of the command that was typed wrongly, to be shown with a usage error.
pub(crate) fn example_for(typed: &[OsString]) -> &'static str {
    let known = |word: &OsString| {
        Some(match word.to_str()? {
            "serve" => "rendezvous serve --listen 0.0.0.0:7400 --registration open",
            "fingerprint" => "rendezvous fingerprint",
            "add" => "rendezvous account add alice",
            "list" => "rendezvous account list",
            "remove" => "rendezvous account remove alice",
            "unblock" => "rendezvous account unblock alice",
            "admit" => "rendezvous account admit alice",
            _ => return None,
        })
    };
    let example = typed.iter().skip(1).find_map(known);
    let is_account = typed.iter().any(|word| word == "account");
    let general = if is_account { "list" } else { "serve" };
    example
        .or_else(|| known(&general.into()))
        .expect("both are known")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    /// What starts with `rendezvous` in the README, in back quotes or on a line of its own, and among the
    /// examples of the help.
    fn shown() -> Vec<&'static str> {
        let readme = include_str!("../../README.md");
        let quoted = readme.split('`');
        let lines = readme.lines().chain(EXIT_CODES.lines().map(str::trim));
        let mut shown: Vec<_> = quoted.chain(lines).collect();
        // What a command is for stands behind it, with some blanks between.
        shown.retain(|text| text.starts_with("rendezvous "));
        shown
            .into_iter()
            .filter_map(|text| text.split("   ").next())
            .collect()
    }

    #[test]
    fn every_command_has_an_example() {
        let mut open = vec![(Vec::new(), Arguments::command())];
        while let Some((path, command)) = open.pop() {
            for subcommand in command.get_subcommands() {
                let path: Vec<_> = path
                    .iter()
                    .copied()
                    .chain([subcommand.get_name()])
                    .collect();
                let typed = path.iter().map(OsString::from);
                let typed: Vec<_> = [OsString::from("rendezvous")]
                    .into_iter()
                    .chain(typed)
                    .collect();
                let example = example_for(&typed);
                assert!(example.contains(&path.join(" ")), "{path:?}: {example}");
                assert!(Arguments::try_parse_from(example.split(' ')).is_ok());
            }
        }
        let mistyped = ["rendezvous", "account", "add", "X Y"].map(OsString::from);
        assert_eq!(example_for(&mistyped), "rendezvous account add alice");
    }

    #[test]
    fn a_number_out_of_its_range_is_told_the_range() {
        for (line, range) in [
            (
                "serve --failures-max x",
                "a number from 1 to 1000 (log-ins)",
            ),
            ("serve --block-first 0", "a number from 1 to 3600 (seconds)"),
            (
                "serve --failures-max -1",
                "a number from 1 to 1000 (log-ins)",
            ),
            (
                "serve --block-first -1",
                "a number from 1 to 3600 (seconds)",
            ),
            ("serve --stun-port -1", "invalid value '-1'"),
            ("serve --udp-threads -1", "invalid value '-1'"),
            ("serve --listen -1", "invalid value '-1'"),
        ] {
            let typed = ["rendezvous"].into_iter().chain(line.split(' '));
            let told = Arguments::try_parse_from(typed).unwrap_err().to_string();
            assert!(told.contains(range), "{told}");
            assert!(!told.contains("tip:"), "{told}");
        }
    }

    #[test]
    fn the_readme_and_the_help_show_what_can_be_typed() {
        let shown = shown();
        assert!(shown.len() >= 14, "{shown:?}");
        for line in shown {
            let parsed = Arguments::try_parse_from(line.split_whitespace());
            // A sentence may name a command without the account.
            let is_known = parsed.as_ref().map_or_else(
                |error| error.kind() == ErrorKind::MissingRequiredArgument,
                |_| true,
            );
            assert!(is_known, "{line}: {parsed:?}");
        }
    }
}
