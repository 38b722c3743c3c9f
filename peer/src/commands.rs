//! The program's commands. Each is a client of the profile's node, wherever that runs.

use std::cell::{RefCell, RefMut};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use common::os::bind::BindAddress;
use common::os::process::forbid_core_dumps;
use common::text::columns;

use crate::args::{Action, Arguments, Global, Outbox, OutboxAction, example_for};
use crate::config::profile_folder;
use crate::failure::{Exit, Failure};
use crate::profile::{Profile, Settings};
use crate::ui::{OutputClosed, Screen};

/// Registering, logging in and out, one-time codes, trust in servers.
mod account;
/// `chat`: typing and reading in one place.
mod chat;
/// Devices of this account, and safety numbers.
mod devices;
/// Who is online, and this device itself.
mod directory;
/// What is well and what is not.
mod doctor;
/// Everything that happens, for programs.
mod events;
/// All messages, written out.
mod export;
/// Sending a file.
mod file;
/// Earlier messages, and finding them.
mod history;
/// Sending a text, and what waits to be sent.
mod message;
/// The way to the node.
mod node_handle;
/// What is done for other programs of the profile before this one ends.
mod parting;
/// Paths of links.
mod paths;
/// Showing what arrives.
mod receive;
/// A node without a screen, and messages for a program.
mod run;

use node_handle::{NodeHandle, Ways};

/// Runs the program `peer` with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let typed: Vec<OsString> = args.into_iter().collect();
    let arguments = match Arguments::try_parse_from(&typed) {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(usage(&error, &typed)),
    };
    start_log(arguments.global.verbose);
    forbid_core_dumps();
    let Arguments { global, action } = arguments;
    let screen = Screen::new(global.json);
    let exit = match Place::of(&global) {
        Ok(place) => {
            let exit = ended(run(&place, action, &screen), &screen);
            place.leave(exit, &screen);
            exit
        }
        Err(failure) => ended(Err(failure), &screen),
    };
    ExitCode::from(exit as u8)
}

/// Reports what went wrong. Returns what the program ends with.
fn ended(result: Result<Exit, Failure>, screen: &Screen) -> Exit {
    result.unwrap_or_else(|failure| {
        report(&failure, screen);
        failure.exit()
    })
}

fn run(place: &Place, action: Action, screen: &Screen) -> Result<Exit, Failure> {
    match action {
        Action::Register(register) => account::register(place, register, screen),
        Action::Login(login) => account::log_in(place, login, screen),
        Action::Logout => account::log_out(place, screen),
        Action::Admit => account::admit(place, screen),
        Action::ForgetServer(forget) => account::forget_server(place, &forget, screen),
        Action::Devices(args) => devices::devices(place, args, screen),
        Action::Verify(args) => devices::verify(place, args, screen),
        Action::Status => directory::status(place, screen),
        Action::Paths => paths::paths(place, screen),
        Action::Doctor(args) => doctor::doctor(place, args, screen),
        Action::List(list) => directory::list(place, &list, screen),
        Action::Send(send) => message::send(place, send, screen),
        Action::Outbox(Outbox { action: None }) => message::outbox(place, screen),
        Action::Outbox(Outbox {
            action: Some(OutboxAction::Cancel(cancel)),
        }) => message::cancel(place, &cancel, screen),
        Action::History(args) => history::history(place, args, screen),
        Action::Export(args) => export::export(place, args, screen),
        Action::Search(args) => history::search(place, args, screen),
        Action::SendFile(send) => file::send(place, &send, screen),
        Action::Receive(receive) => receive::receive(place, &receive, screen),
        Action::Run(args) => run::run(place, &args, screen),
        Action::Events(args) => events::events(place, &args, screen),
        Action::Chat(chat) => chat::chat(place, chat, screen),
    }
}

/// Which profile a command is about, and the way to its node once the command has opened it.
#[derive(Debug)]
struct Place {
    profile: Profile,
    ways: Ways,
    node: RefCell<Option<NodeHandle>>,
}

impl Place {
    fn of(global: &Global) -> Result<Self, Failure> {
        let folder = profile_folder(&global.profile).map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("could not use '{}' as a profile", global.profile),
            )
            .because(error)
            .next("give another one with --profile, or leave it out")
        })?;
        Ok(Self {
            profile: Profile::at(folder),
            ways: Ways {
                udp: global.udp.unwrap_or(BindAddress::port(0)),
                rule: global.rule.into(),
                lan: !global.no_lan,
                port_mapping: !global.no_port_mapping,
            },
            node: RefCell::new(None),
        })
    }

    /// The settings of the profile, which must be set up; `doing` says in the infinitive what for.
    fn settings(&self, doing: &str) -> Result<Settings, Failure> {
        let settings = self.profile.settings()?;
        settings.ok_or_else(|| {
            Failure::new(Exit::NotLoggedIn, format!("could not {doing}"))
                .because(format!(
                    "the profile {} is not set up",
                    crate::config::shown_path(self.profile.folder())
                ))
                .next("run 'peer register NAME --server HOST', or 'peer login' if you have an account")
        })
    }

    /// Opens the profile, which must be set up.
    fn open(&self, doing: &str) -> Result<RefMut<'_, NodeHandle>, Failure> {
        self.open_with(self.settings(doing)?)
    }

    /// Opens the profile with settings that may not be saved yet; once, as each command does.
    fn open_with(&self, settings: Settings) -> Result<RefMut<'_, NodeHandle>, Failure> {
        let node = NodeHandle::open(self.profile.clone(), settings, self.ways)?;
        let slot = self.node.borrow_mut();
        Ok(RefMut::map(slot, |slot| slot.insert(node)))
    }

    /// Ends the node if it is this program's, after all that it carries for others of the profile, unless
    /// this program was told to end at once.
    fn leave(self, exit: Exit, screen: &Screen) {
        if let Some(mut node) = self.node.into_inner()
            && exit != Exit::Terminated
        {
            parting::serve_others(&mut node, screen);
        }
    }
}

/// Prints a failure to stderr, or as JSON to stdout, and to stderr where stdout takes nothing.
fn report(failure: &Failure, screen: &Screen) {
    if failure.is_silent() {
        if failure.exit() == Exit::Interrupted && std::io::stderr().is_terminal() {
            // The terminal shows "^C"; what comes next starts on a line of its own.
            screen.note("");
        }
        if let Some(next) = failure.what_next() {
            screen.note(screen.error_look.dim(next));
        }
        return;
    }
    if screen.is_json() {
        let error = serde_json::json!({ "error": failure });
        if screen.data(&error).is_err() {
            screen.aside(&error);
        }
        return;
    }
    let look = &screen.error_look;
    screen.note(format!("{} {}", look.red("error:"), failure.what()));
    if let Some(why) = failure.why() {
        screen.note(format!("  {} {why}", look.dim("why:")));
    }
    if let Some(next) = failure.what_next() {
        screen.note(format!(" {} {next}", look.dim("next:")));
    }
}

/// Prints help, or a mistake with an example of how to do it. Returns the exit code.
fn usage(error: &clap::Error, typed: &[OsString]) -> u8 {
    // What was typed has no meaning as a whole; this word has one by itself.
    let is_json = typed.iter().any(|word| word == "--json");
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let is_mistake = !is_help && (is_json || !is_without_command(error));
    let screen = Screen::new(is_mistake && is_json);
    if screen.is_json() {
        report(&mistake(error, typed), &screen);
    } else {
        let typed_alone = is_mistake.then(|| mistake_of(typed)).flatten();
        let error = typed_alone.as_ref().unwrap_or(error);
        let plain = error.render().to_string();
        if is_mistake && is_too_wide(&plain, &screen) {
            screen.note(plain.trim_end());
        } else {
            let printed = error.print().map_err(OutputClosed::from);
            if let Err(closed) = printed.map_err(Failure::from)
                && is_help
            {
                report(&closed, &screen);
                return closed.exit() as u8;
            }
        }
    }
    if is_mistake && !screen.is_json() {
        let example = example_for(typed);
        screen.note(format!(
            "\n{} {example}",
            screen.error_look.bold("Example:")
        ));
    }
    u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8)
}

/// Tells whether the terminal would break a line in the middle of a word.
fn is_too_wide(text: &str, screen: &Screen) -> bool {
    let limit = screen.error_look.columns();
    limit.is_some_and(|limit| text.lines().any(|line| columns(line) > limit))
}

/// What is wrong with what was typed, whatever the environment sets: its options would stand in the usage as
/// if they had to be there.
fn mistake_of(typed: &[OsString]) -> Option<clap::Error> {
    let command = Arguments::command();
    let command = command.mut_args(|argument| argument.env(Resettable::Reset));
    command.try_get_matches_from(typed).err()
}

/// Tells whether nothing but options was typed: people then see the help.
fn is_without_command(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// A mistake on the command line, for a program.
fn mistake(error: &clap::Error, typed: &[OsString]) -> Failure {
    let text = if is_without_command(error) {
        "there is no command".to_owned()
    } else {
        error.to_string()
    };
    let why = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = why.split_whitespace().collect();
    let why = words.join(" ");
    Failure::new(Exit::Usage, "could not understand the command line")
        .because(why.strip_prefix("error: ").unwrap_or(&why))
        .next(format!("write it like this: {}", example_for(typed)))
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "error,peer=debug,common=debug",
        _ => "error,peer=trace,common=trace",
    };
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| level.to_owned());
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&filter).format_timestamp_millis();
    // It edits lines, and would log each key that is typed.
    builder.filter_module("rustyline", log::LevelFilter::Off);
    // They repeat what a router says in its own words.
    for module in ["igd_next", "attohttpc", "xml"] {
        builder.filter_module(module, log::LevelFilter::Off);
    }
    // A test that runs several commands in one process has a logger already.
    let _ = builder.try_init();
}
