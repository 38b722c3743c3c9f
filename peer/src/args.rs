//! What was typed. What it means is in [`crate::config`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use common::id::{AccountName, DeviceName, DeviceNameError, MessageId, NameError};
use common::key::Fingerprint;
use common::limits::{HISTORY_ITEMS_MAX, ON_MESSAGE_TIMEOUT_MAX};
use common::os::bind::BindAddress;
use common::os::clock::unix_time;
use common::os::number::within;
use common::text::{TimeRange, TimeRangeError, time_range};
use common::time::UnixTime;
use common::wire::rendezvous::AdmissionCode;
use jiff::tz::TimeZone;

use crate::config::parse_server;
use crate::failure::Exit;
use crate::node::PathRule;
use crate::node::command::Cursor;
use crate::shell::ServerAddress;

const EXAMPLES: &str = "\
First steps:
  peer register alice --server chat.example.org   once, asks for a password
  peer chat                                       from then on

More:
  peer send bob See you at eight.                 a text, all words behind the name
  peer send-file bob holiday.mp4                  a file, straight to bob's device
  peer receive --accept from bob                  wait for messages and bob's files
  peer --profile work list                        a second account has its own profile";

const FILES: &str = "\
Files:
  The profile is a folder that only you can read: settings (profile.toml), trusted servers
  (known_servers), the device's key (device-key) and the history (history.db). The program that
  runs first owns it; all others go through its socket, up to 32 at once.";

/// Messages and files, straight from device to device, end-to-end encrypted.
#[derive(Debug, Parser)]
#[command(
    name = "peer",
    version,
    after_help = epilogue(),
    max_term_width = 100,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) action: Action,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Which profile: a name, or a path (anything with a slash).
    #[arg(
        long,
        global = true,
        env = "PEER_PROFILE",
        value_name = "NAME|PATH",
        default_value = "default"
    )]
    pub(crate) profile: String,
    /// Print one JSON object a line instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Bind the UDP socket to this address instead of a free port.
    #[arg(
        long,
        global = true,
        env = "PEER_UDP",
        value_name = "[ADDR:]PORT",
        allow_negative_numbers = true
    )]
    pub(crate) udp: Option<BindAddress>,
    /// Which way packets to others may take: both, or only through the server's relay, which hides this device's
    /// addresses, or only directly.
    #[arg(
        long = "path",
        global = true,
        env = "PEER_PATH",
        value_enum,
        default_value_t
    )]
    pub(crate) rule: PathArgument,
    /// Neither announce this device on the local network nor look for others there. Without it, people who have
    /// talked before find each other there while the server is away; --path relay implies it.
    #[arg(long, global = true, env = "PEER_NO_LAN", value_parser = FalseyValueParser::new())]
    pub(crate) no_lan: bool,
    /// Ask no router for a port. Without it, a chat or another program that stays has the router of this network
    /// forward a port to it by PCP, NAT-PMP or UPnP, so that others reach this device directly; it is given back at
    /// the end. --path relay implies it.
    #[arg(long, global = true, env = "PEER_NO_PORT_MAPPING", value_parser = FalseyValueParser::new())]
    pub(crate) no_port_mapping: bool,
    /// Log to stderr what is decided; twice: what is dropped, too. RUST_LOG overrides it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Create an account at a server and log this device in.
    #[command(after_help = "\
Examples:
  peer register alice --server chat.example.org
  peer register alice --server 192.0.2.7:7400 --fingerprint SHA256:4fJ…   (no question asked)
  peer register alice --server chat.example.org --system-roots            (public certificate)")]
    Register(Register),
    /// Log this device in to an account that exists.
    #[command(after_help = "\
Examples:
  peer login alice --server chat.example.org
  peer login alice                                  (the server of this profile)
  peer login alice --code 7k2vq-x01mz               (while the account is blocked)")]
    Login(Login),
    /// Log this device out; the password is needed to come back.
    Logout,
    /// Show the devices of your account, approve a new one, name one or revoke one.
    #[command(after_help = "\
Examples:
  peer devices
  peer devices approve SHA256:4fJ…                  (as 'peer status' says on the new device)
  peer devices name SHA256:4fJ… phone
  peer devices revoke phone                         (lost or sold; this is for good)

A device is meant by its name, or by six or more characters of its fingerprint. One can be \
revoked, and named, by those that approved it, directly or not, and by itself.")]
    Devices(Devices),
    /// Show the safety number with somebody, to be compared with theirs.
    #[command(after_help = "\
Examples:
  peer verify bob
  peer verify bob --matches                         (you have compared it, in person or by telephone)")]
    Verify(Verify),
    /// Show who and where this device is.
    Status,
    /// Show how the packets to each linked device go: direct or relayed, where to, round trip, loss and rates.
    #[command(after_help = "\
Examples:
  peer paths
  peer --json paths | jq -r '[.account, .path, .round_trip_us] | @tsv'

Loss and rates are those of one second, which the command takes. Of packets that this device sends and QUIC calls \
lost some are late only. With --json, recent_sent_packets and recent_lost_packets are those of that second, and \
sent_packets, lost_packets, sent_bytes and received_bytes count since the path that a link uses now was found. Of \
several links to a device the one in use is shown.")]
    Paths,
    /// Find out how well this device reaches the server and others, and what stands in the way.
    #[command(after_help = "\
Examples:
  peer doctor
  peer doctor bob                                   (how bob's devices are reached, and why not directly)
  peer --json doctor | jq -r .verdict

It takes some seconds. It ends with 0 if the server is reached and lets this device in, with 5 if not, with \
6 if the server shows another key than the trusted one, with 10 if this device is not logged in, and with 7 \
if NAME is not online. That a NAT or a firewall prevents direct links is no failure: the relay is there for \
that.

What a filter lets in can be found out once in ten minutes: asking opens it. It is wrong after a restart of \
the program within that time with --udp and the same port.")]
    Doctor(Doctor),
    /// Show who is online.
    #[command(after_help = "\
Examples:
  peer list
  peer list --watch                                 (keep telling who comes and leaves)
  peer --json list | jq -r .account")]
    List(List),
    /// Send a text to one or several people.
    #[command(after_help = "\
Examples:
  peer send bob see you at eight                    (all words behind the name are the text)
  peer send bob,carol,dave 'See you all at eight!'  (several people: commas, no blanks)
  peer send --to bob --to carol 'See you at eight!' (the same with options)
  make 2>&1 | tail -20 | peer send bob              (the text from a pipe; - asks for that)
  peer send bob -- '-v means verbose'               (-- before a text with a leading dash)

A message that cannot be delivered now stays in the outbox and is sent as soon as both sides are
online; the exit code is 7 then.")]
    Send(Send),
    /// Show what waits in the outbox for people who are away, or take it back.
    #[command(after_help = "\
Examples:
  peer outbox
  peer --json outbox | jq -r .id
  peer outbox cancel bob                            (takes back what waits for bob)")]
    Outbox(Outbox),
    /// Send a file to one person.
    #[command(after_help = "\
Examples:
  peer send-file bob holiday.mp4
  peer --json send-file bob holiday.mp4             (progress as JSON)")]
    SendFile(SendFile),
    /// Show messages and take files as they arrive.
    #[command(after_help = "\
Examples:
  peer receive                                      (asks for each file)
  peer receive --accept from bob carol --folder ~/Downloads
  peer receive --accept always --once               (the next message or file, then end)")]
    Receive(Receive),
    /// Talk: type and read messages in one place.
    #[command(after_help = "\
Examples:
  peer chat bob
  peer chat                                         (then type 'bob: hello', or /help)")]
    Chat(Chat),
    /// Keep this device online without a screen, for other programs.
    #[command(after_help = "\
Examples:
  peer run                                          (other commands go through it)
  peer run --on-message ./bot.sh                    (starts bot.sh for each message)
  peer --json run --on-message ./bot.sh             (says what became of each)

PROGRAM is started without a shell and without arguments, one message at a time, in the order of their arrival. It \
gets the message as one JSON object on its standard input, with a cursor as in 'peer events', and the profile in \
PEER_PROFILE, so that its 'peer send' is this one's. What it prints goes to standard error. A message is marked as \
read when PROGRAM ends with 0; otherwise it stays unread, its exit code is said, and the next one follows.

The next run goes on behind the last message that was handed over, whoever has read what came in between; the first \
run begins with those that nobody has read. A message is handed over twice only if 'peer run' is killed meanwhile. \
Offered files are left to 'peer receive'.")]
    Run(Run),
    /// Tell everything that happens, for programs: one JSON object a line.
    #[command(after_help = "\
Examples:
  peer events                                       (from now on)
  peer events --since 0                             (all messages of the history first)
  peer events --since 1207 | jq -r 'select(.method == \"recorded\") | .params.body'

Each message, received or sent, is a 'recorded' event with a cursor. With --since those come first that the history \
got after that cursor; each comes once, in their order. Everything else, who comes and leaves, how far messages and \
files are, the connection, is told as it happens and never again. peer/API.md describes every event.")]
    Events(Events),
    /// Show earlier messages.
    #[command(after_help = "\
Examples:
  peer history
  peer history bob --since 3d --limit 500
  peer history --since 2026-11-01 --until 2026-11-07")]
    History(History),
    /// Write all messages out, as text or with --json.
    #[command(after_help = "\
Examples:
  peer export --output messages.txt
  peer export bob --json | jq -r .body")]
    Export(Export),
    /// Find earlier messages by their words.
    #[command(after_help = "\
Examples:
  peer search train tickets
  peer search --in bob --since 4w address")]
    Search(Search),
    /// Get a one-time code that lets a new device of yours log in while the account is blocked.
    #[command(after_help = "\
Example:
  peer admit                                        (on a device that is logged in)
  peer login alice --code 7k2vq-x01mz               (on the new one)")]
    Admit,
    /// Stop trusting a server's key, so that the next log-in asks again.
    #[command(after_help = "\
Examples:
  peer forget-server
  peer forget-server chat.example.org:7400")]
    ForgetServer(ForgetServer),
}

/// What stands below the commands in `peer --help`.
fn epilogue() -> String {
    format!("{EXAMPLES}\n\nExit codes:\n{}\n\n{FILES}", Exit::help())
}

/// Where the server is, how it proves itself, and where the password comes from.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// The server; needed once, then it is part of the profile. The port is 7400 unless given.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = parse_server)]
    pub(crate) server: Option<ServerAddress>,
    /// Trust the server with this key, as its operator told you, without asking.
    #[arg(long, value_name = "SHA256:…", conflicts_with = "system_roots")]
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Trust the server if its certificate is signed by an authority that this system trusts.
    #[arg(long)]
    pub(crate) system_roots: bool,
    /// Read the password from the first line of a file instead of asking; - is stdin.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// What this device is called in the list; the host's name unless given.
    #[arg(long, value_name = "NAME")]
    pub(crate) device_name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The name wanted: letters, digits, '.', '_' and '-'.
    #[arg(value_name = "NAME")]
    pub(crate) account: AccountName,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Write the account's recovery code into this new file instead of showing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Devices {
    #[command(subcommand)]
    pub(crate) action: Option<DevicesAction>,
}

/// What is done with a device.
#[derive(Debug, Subcommand)]
pub(crate) enum DevicesAction {
    /// Make a device that has logged in one of your account's.
    Approve(OneDevice),
    /// Call a device something else.
    Name(NewName),
    /// Make a device no longer one of your account's, for good.
    Revoke(OneDevice),
}

#[derive(Debug, Args)]
pub(crate) struct OneDevice {
    /// Its name, or six or more characters of its fingerprint.
    #[arg(value_name = "DEVICE")]
    pub(crate) device: String,
}

#[derive(Debug, Args)]
pub(crate) struct NewName {
    /// Its present name, or six or more characters of its fingerprint.
    #[arg(value_name = "DEVICE")]
    pub(crate) device: String,
    /// What it is to be called, at most 64 bytes.
    #[arg(value_name = "NAME", value_parser = device_name)]
    pub(crate) name: DeviceName,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Whose safety number.
    #[arg(value_name = "NAME")]
    pub(crate) account: AccountName,
    /// Note that the two of you have compared it and it is the same.
    #[arg(long)]
    pub(crate) matches: bool,
    /// Forget that you have compared it.
    #[arg(long, conflicts_with = "matches")]
    pub(crate) forget: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The account.
    #[arg(value_name = "NAME")]
    pub(crate) account: AccountName,
    #[command(flatten)]
    pub(crate) access: Access,
    /// A one-time code from 'peer admit' or the operator.
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<AdmissionCode>,
    /// Approve this device by the recovery code in this file; where the account has none yet, write a new one there.
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Outbox {
    /// Shows what waits unless given.
    #[command(subcommand)]
    pub(crate) action: Option<OutboxAction>,
}

/// What can be done to the outbox.
#[derive(Debug, Subcommand)]
pub(crate) enum OutboxAction {
    /// Take back messages that wait.
    #[command(after_help = "\
Examples:
  peer outbox cancel bob                              (all that waits for bob)
  peer outbox cancel 0f1e2d3c4b5a69788796a5b4c3d2e1f0 (one, as 'peer --json outbox' names it)
  peer outbox cancel --all

What is on its way already cannot be taken back, and what an earlier run had on its way may have
arrived.")]
    Cancel(Cancel),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Cancel {
    /// Messages that wait for these people, or have these ids.
    #[arg(value_name = "NAME|ID")]
    pub(crate) what: Vec<Waiting>,
    /// Everything that waits.
    #[arg(long)]
    pub(crate) all: bool,
}

/// Which messages of the outbox are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// All for that account.
    For(AccountName),
    /// 32 hexadecimal digits, which are an account name as well; the outbox tells which is meant.
    Id(MessageId, AccountName),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(name) | Self::Id(_, name) => name.fmt(f),
        }
    }
}

impl FromStr for Waiting {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.parse()?;
        Ok(match text.parse() {
            Ok(id) => Self::Id(id, name),
            Err(_) => Self::For(name),
        })
    }
}

/// Which way packets to others may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PathArgument {
    /// Through the relay at first, and directly as soon as that is possible
    #[default]
    // An empty variable is none.
    #[value(alias = "")]
    Any,
    /// Through the server's relay alone: nobody but the server learns this device's addresses
    Relay,
    /// Directly alone
    Direct,
}

impl From<PathArgument> for PathRule {
    fn from(typed: PathArgument) -> Self {
        match typed {
            PathArgument::Any => Self::Any,
            PathArgument::Relay => Self::Relayed,
            PathArgument::Direct => Self::Direct,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Somebody whose devices to look for a way to, too.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<AccountName>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Keep running and tell who comes and leaves.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Show the fingerprint of each device's key.
    #[arg(long)]
    pub(crate) fingerprints: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Who gets it, with commas between several names.
    #[arg(
        value_name = "NAME[,NAME…]",
        required_unless_present = "to",
        allow_negative_numbers = true
    )]
    names: Option<String>,
    /// The text, one word or several. - reads it from stdin, and so does no text if stdin is a pipe or a
    /// file.
    #[arg(value_name = "TEXT", allow_negative_numbers = true)]
    words: Vec<String>,
    /// Who gets it; can be given several times. All words are the text then, the first one, too.
    #[arg(long, value_name = "NAME")]
    pub(crate) to: Vec<AccountName>,
    /// Do not wait until it is delivered.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait at most so many seconds for each to get it.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, conflicts_with = "no_wait",
          allow_negative_numbers = true,
          value_parser = within(1..=86_400, "seconds"))]
    pub(crate) timeout: u32,
}

impl Send {
    /// Everything that is no option, in its order.
    pub(crate) fn words(&self) -> Vec<String> {
        self.names.iter().chain(&self.words).cloned().collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct SendFile {
    /// Who gets it.
    #[arg(value_name = "NAME")]
    pub(crate) to: AccountName,
    /// The file.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// What to do with files: ask, always, never, or 'from' and the names of those who may.
    #[arg(long, value_name = "ask|always|never|from NAME…", num_args = 1.., default_value = "ask")]
    pub(crate) accept: Vec<String>,
    /// Where files go; it must exist, and you must be permitted to write to it.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Take a file whose name is odd, such as a hidden one's, under the other name that its offer shows.
    #[arg(long)]
    pub(crate) rename: bool,
    /// End after the first message or file.
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Start this program for each received message: the path of an executable file.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) on_message: Option<PathBuf>,
    /// End PROGRAM if it takes longer than so many seconds; 60 unless given.
    #[arg(long, value_name = "SECONDS", requires = "on_message", allow_negative_numbers = true,
          value_parser = within(1..=ON_MESSAGE_TIMEOUT_MAX.as_secs() as u32, "seconds"))]
    pub(crate) timeout: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// First tell the messages that came after this one: the cursor of an event, or 0 for all.
    #[arg(long, value_name = "CURSOR", allow_negative_numbers = true)]
    pub(crate) since: Option<Cursor>,
}

#[derive(Debug, Args)]
pub(crate) struct Chat {
    /// With whom; can be chosen later with /to.
    #[arg(value_name = "NAME")]
    pub(crate) with: Option<AccountName>,
    /// Where accepted files go; it must exist.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// With whom; everybody unless given.
    #[arg(value_name = "NAME")]
    pub(crate) with: Option<AccountName>,
    #[command(flatten)]
    pub(crate) part: Part,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Only the conversation with NAME.
    #[arg(value_name = "NAME")]
    pub(crate) with: Option<AccountName>,
    /// Write to a new file that only you can read, instead of to standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// Words that a message has, or that words of it begin with; case and accents do not matter.
    #[arg(value_name = "WORD", required = true)]
    pub(crate) words: Vec<String>,
    /// Only the conversation with NAME.
    #[arg(long = "in", value_name = "NAME")]
    pub(crate) with: Option<AccountName>,
    #[command(flatten)]
    pub(crate) part: Part,
}

/// Which part of a history is shown.
#[derive(Debug, Args)]
pub(crate) struct Part {
    /// Only what was sent from then on: a day (today, yesterday, 2026-11-23), a time of one ('2026-11-23 14:05'), or how
    /// long ago (30min, 12h, 3d, 2w).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    pub(crate) since: Option<TypedTime>,
    /// Only what was sent until then; all of a day or a minute counts.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    pub(crate) until: Option<TypedTime>,
    /// At most so many messages, the latest.
    #[arg(long, value_name = "COUNT", default_value_t = 50, allow_negative_numbers = true,
          value_parser = within(1..=HISTORY_ITEMS_MAX, "messages"))]
    pub(crate) limit: u32,
}

/// A time as [`text::time_range`](common::text::time_range) reads it.
#[derive(Clone, Debug)]
pub(crate) struct TypedTime(String);

impl TypedTime {
    /// What it means in a zone.
    pub(crate) fn range(
        &self,
        zone: &TimeZone,
        now: UnixTime,
    ) -> Result<TimeRange, TimeRangeError> {
        time_range(&self.0, zone, now)
    }
}

/// Whether a time can be meant does not depend on the zone.
fn time(typed: &str) -> Result<TypedTime, TimeRangeError> {
    let zone = TimeZone::UTC;
    time_range(typed, &zone, unix_time()).map(|_| TypedTime(typed.to_owned()))
}

#[derive(Debug, Args)]
pub(crate) struct ForgetServer {
    /// The server, as it was given to register or login; the profile's own unless given.
    #[arg(value_name = "HOST[:PORT]", value_parser = parse_server)]
    pub(crate) server: Option<ServerAddress>,
    /// Do not ask: the profile's own server is out of reach until the next login.
    #[arg(long)]
    pub(crate) yes: bool,
}

fn device_name(text: &str) -> Result<DeviceName, DeviceNameError> {
    DeviceName::try_from(text.to_owned())
}

/// An example of the command that was typed wrongly, to be shown with a usage error.
pub(crate) fn example_for(typed: &[std::ffi::OsString]) -> &'static str {
    let known = |word: &std::ffi::OsString| {
        Some(match word.to_str()? {
            "register" => "peer register alice --server chat.example.org",
            "login" => "peer login alice --server chat.example.org",
            "logout" => "peer logout",
            "devices" => "peer devices",
            "verify" => "peer verify bob",
            "status" => "peer status",
            "paths" => "peer paths",
            "doctor" => "peer doctor bob",
            "list" => "peer list --watch",
            "send" => "peer send bob See you at eight.",
            "outbox" => "peer outbox cancel bob",
            "send-file" => "peer send-file bob holiday.mp4",
            "receive" => "peer receive --accept from bob --folder ~/Downloads",
            "run" => "peer run --on-message ./bot.sh",
            "events" => "peer events --since 0",
            "chat" => "peer chat bob",
            "export" => "peer export --output messages.txt",
            "history" => "peer history bob --since yesterday --limit 100",
            "search" => "peer search --in bob train tickets",
            "admit" => "peer admit",
            "forget-server" => "peer forget-server chat.example.org:7400",
            _ => return None,
        })
    };
    let example = typed.iter().skip(1).find_map(known);
    example.unwrap_or("peer register alice --server chat.example.org")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_options_of_send_stand_anywhere() {
        for line in [
            "peer send --no-wait --to Carol --to dave bob is -5 late",
            "peer send bob is --to carol -5 late --to=dave --no-wait",
        ] {
            let Action::Send(send) = parse(line).unwrap().action else {
                panic!("another command");
            };
            let to: Vec<_> = send.to.iter().map(AccountName::as_str).collect();
            assert_eq!(to, ["carol", "dave"], "{line}");
            assert_eq!(send.words(), ["bob", "is", "-5", "late"], "{line}");
            assert!(send.no_wait);
            assert_eq!(send.timeout, 10);
        }
    }

    #[test]
    fn what_waits_is_meant_by_name_or_by_id() {
        const ID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        let cancelled = |line: &str| {
            let Action::Outbox(Outbox {
                action: Some(OutboxAction::Cancel(cancel)),
            }) = parse(line).unwrap().action
            else {
                panic!("another command");
            };
            cancel.what
        };
        let meant = cancelled(&format!("peer outbox cancel Bob {ID}"));
        let id = Waiting::Id(ID.parse().unwrap(), ID.parse().unwrap());
        assert_eq!(meant, [Waiting::For("bob".parse().unwrap()), id]);
        let listed = parse("peer outbox").unwrap().action;
        assert!(matches!(listed, Action::Outbox(Outbox { action: None })));
    }

    #[test]
    fn options_of_every_command_stand_before_or_behind_it() {
        for line in [
            "peer --json --profile work list",
            "peer list --json --profile work",
        ] {
            let global = parse(line).unwrap().global;
            assert!(global.json && global.profile == "work");
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in [
            "peer send",
            "peer send --no-wait",
            "peer send --to b/b hi",
            "peer cancel bob",
            "peer outbox bob",
            "peer outbox cancel",
            "peer outbox cancel b/b",
            "peer send-file bob",
            "peer register alice --server host:0",
            "peer register alice --fingerprint MD5:abc",
            "peer login alice --code 123",
            "peer login alice --system-roots --fingerprint SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "peer history --limit 0",
            "peer send bob hi --no-wait --timeout 3",
            "peer events --since -1",
            "peer events --since yesterday",
            "peer events --since +1",
            "peer events --since 99999999999999999999",
            "peer run --on-message",
            "peer run --timeout 3",
            "peer run --on-message a --timeout 0",
            "peer run --on-message a b",
            "peer login alice --password hunter22",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_number_out_of_its_range_is_told_the_range() {
        for (line, range) in [
            (
                "peer send bob hi --timeout 0",
                "a number from 1 to 86400 (seconds)",
            ),
            (
                "peer send bob hi --timeout soon",
                "a number from 1 to 86400 (seconds)",
            ),
            (
                "peer history --limit 99999999999",
                "a number from 1 to 10000 (messages)",
            ),
            (
                "peer history --limit -1",
                "a number from 1 to 10000 (messages)",
            ),
            (
                "peer send bob hi --timeout -1",
                "a number from 1 to 86400 (seconds)",
            ),
            (
                "peer run --on-message ./bot.sh --timeout -1",
                "a number from 1 to 3600 (seconds)",
            ),
            ("peer events --since -1", "invalid value '-1'"),
            ("peer list --udp -1", "invalid value '-1'"),
            ("peer history --since -3d", "nor how long ago (30min,"),
            ("peer history --since 2026-02-29", "no such day"),
            ("peer history --since 1m", "minutes are min"),
            ("peer history --until 99999999999w", "too long ago"),
            (
                "peer run --on-message ./bot.sh --timeout 3601",
                "a number from 1 to 3600 (seconds)",
            ),
        ] {
            let told = parse(line).unwrap_err().to_string();
            assert!(told.contains(range), "{told}");
            assert!(!told.contains("tip:"), "{told}");
        }
    }

    /// What stands in back quotes or in a block of the README and starts with `peer`.
    fn typed_in_the_readme() -> Vec<String> {
        let readme = include_str!("../../README.md");
        let mut is_block = false;
        let mut typed = Vec::new();
        for line in readme.lines() {
            if line.starts_with("```") {
                is_block = !is_block;
            } else if is_block {
                // What a command is for stands behind it, with some blanks between.
                typed.extend(line.split("   ").next().map(str::to_owned));
            } else {
                typed.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            }
        }
        typed.retain(|typed| typed.starts_with("peer "));
        typed
    }

    #[test]
    fn the_readme_shows_what_can_be_typed() {
        let typed = typed_in_the_readme();
        assert!(typed.len() >= 10, "{typed:?}");
        for line in &typed {
            let line = line.replace('\'', "");
            let parsed = parse(&line);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn t33_no_option_takes_a_password() {
        let mut open = vec![Arguments::command()];
        while let Some(command) = open.pop() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                assert!(
                    !name.contains("password") || name == "password_file",
                    "{name}"
                );
                if let Some(variable) = argument.get_env() {
                    assert!(
                        [
                            "PEER_PROFILE",
                            "PEER_UDP",
                            "PEER_PATH",
                            "PEER_NO_LAN",
                            "PEER_NO_PORT_MAPPING"
                        ]
                        .map(Into::into)
                        .contains(&variable.to_owned())
                    );
                }
            }
            open.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn every_command_has_an_example() {
        let command = Arguments::command();
        let general = example_for(&[]);
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            let example = example_for(&["peer".into(), name.into()]);
            let words = example.replace(['\''], "");
            assert!(name == "register" || example != general, "{name}");
            assert!(
                !subcommand.is_hide_set(),
                "{name} is not in the list of commands"
            );
            assert!(parse(&words).is_ok(), "{example}");
        }
    }
}
