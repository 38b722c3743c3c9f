//! `register`, `login`, `logout`, `admit`, `forget-server`.

use std::cell::RefMut;
use std::collections::BTreeMap;
use std::path::Path;

use common::id::{AccountName, DeviceName};
use common::key::Fingerprint;
use common::wire::rendezvous::FailedLogins;
use serde::Serialize;

use super::Place;
use super::devices::{identify, not_there};
use super::node_handle::NodeHandle;
use crate::args::{Access, ForgetServer, Login, Register};
use crate::client::CallError;
use crate::config::{LOGIN_CALL_TIMEOUT, READY_TIMEOUT};
use crate::conversation::Waiting;
use crate::failure::{Exit, Failure};
use crate::node::command::{Command, CommandError, PasswordText, Reply};
use crate::node::io::ClosedReason;
use crate::profile::{Profile, Settings, Trust};
use crate::shell::ServerAddress;
use crate::ui::question::{KeyAnswer, Purpose, about_key, can_ask, is_wanted, password};
use crate::ui::{Screen, line};

/// Creates an account.
pub(super) fn register(place: &Place, args: Register, screen: &Screen) -> Result<Exit, Failure> {
    let Register {
        account,
        access,
        recovery_file,
    } = args;
    let doing = format!("register {account}");
    if let Some(file) = &recovery_file {
        not_there(file)?;
    }
    let entrance = Entrance::prepare(place, &account, &access, &doing, screen)?;
    let password = entrance.password(place, Purpose::Register, &access, &doing, screen)?;
    let command = Command::Register {
        account: account.clone(),
        password: PasswordText(password),
    };
    let mut session = entrance.enter(place, &doing, &command, screen)?;
    screen.prose(&format!(
        "Registered {} at {}. This device is logged in.",
        screen.look.bold(account.as_str()),
        entrance.settings.server()
    ))?;
    identify(&mut session, &doing, recovery_file.as_deref(), screen)?;
    screen.note(
        screen
            .error_look
            .dim("Next: 'peer chat', or 'peer send NAME TEXT'. No password is needed from now on."),
    );
    Ok(Exit::Done)
}

/// Logs in to an account.
pub(super) fn log_in(place: &Place, args: Login, screen: &Screen) -> Result<Exit, Failure> {
    let Login {
        account,
        access,
        code,
        recovery_file,
    } = args;
    let doing = format!("log in as {account}");
    let entrance = Entrance::prepare(place, &account, &access, &doing, screen)?;
    let password = entrance.password(place, Purpose::LogIn, &access, &doing, screen)?;
    let command = Command::LogIn {
        account: account.clone(),
        password: PasswordText(password),
        code: code.map(|code| code.to_string()),
    };
    let mut session =
        entrance
            .enter(place, &doing, &command, screen)
            .map_err(|failure| match code {
                Some(_) if failure.exit() == Exit::Blocked => wrong_code(&doing, failure),
                Some(_) | None => failure,
            })?;
    screen.prose(&format!(
        "Logged in as {} at {}.",
        screen.look.bold(account.as_str()),
        entrance.settings.server()
    ))?;
    identify(&mut session, &doing, recovery_file.as_deref(), screen)?;
    Ok(Exit::Done)
}

/// Says that a one-time code did not help, because it is wrong, used or expired.
fn wrong_code(doing: &str, failure: Failure) -> Failure {
    let blocked = failure.why().unwrap_or_default().to_owned();
    Failure::new(
        Exit::Blocked,
        format!("could not {doing}: the one-time code is wrong, used or expired"),
    )
    .because(format!("without it the account is blocked: {blocked}"))
    .next("get another one with 'peer admit' on a device that is logged in, or wait")
}

/// Ends the session of this device for good.
pub(super) fn log_out(place: &Place, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "log out";
    let mut session = place.open(DOING)?;
    session.ready_in_sight(DOING, screen)?;
    let Reply::Messages(items) = session.call(DOING, &Command::Outbox)? else {
        return Err(Failure::unexpected_reply(DOING));
    };
    session.ask_server(DOING, &Command::LogOut, screen)?;
    let owner = session.settings().owner();
    screen.prose(&format!(
        "Logged out. The history stays; 'peer login {owner}' brings this device back."
    ))?;
    screen.data(&serde_json::json!({
        "logged_out": session.settings().account,
        "outbox": items.len(),
    }))?;
    let mut counts = BTreeMap::<AccountName, usize>::new();
    for item in items {
        *counts.entry(item.with).or_default() += 1;
    }
    let waiting = counts.into_iter().map(|(to, count)| Waiting { to, count });
    let waiting = Vec::from_iter(waiting);
    if !waiting.is_empty() {
        screen.note(line::left_behind(&waiting, false));
    }
    session.tell_notices(screen);
    Ok(Exit::Done)
}

/// Gets a one-time code for a new device.
pub(super) fn admit(place: &Place, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "get a one-time code";
    let mut session = place.open(DOING)?;
    session.ready_in_sight(DOING, screen)?;
    let reply = session.ask_server(DOING, &Command::Admit, screen)?;
    let Reply::Admission { code, expires_in_s } = reply else {
        return Err(Failure::unexpected_reply(DOING));
    };
    let shown = common::text::inline(&code);
    let owner = session.settings().owner();
    screen.prose(&format!(
        "{}   (for one log-in within {}: peer login {owner} --code {shown})",
        screen.look.bold(&shown),
        common::text::seconds(expires_in_s.into())
    ))?;
    screen.data(&serde_json::json!({ "code": code, "expires_in_s": expires_in_s }))?;
    session.tell_notices(screen);
    Ok(Exit::Done)
}

/// Trusts no key for a server any more.
pub(super) fn forget_server(
    place: &Place,
    args: &ForgetServer,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let settings = place.profile.settings()?;
    let own = settings.as_ref().map(Settings::server);
    let Some(server) = args.server.clone().or(own) else {
        return Err(Failure::new(Exit::Usage, "could not forget the server")
            .because("this profile has no server yet")
            .next("name it: peer forget-server HOST[:PORT]"));
    };
    let failure = |exit| Failure::new(exit, format!("could not forget {server}"));
    if place.profile.known_server(&server)?.is_none() {
        return Err(failure(Exit::Other)
            .because("this profile trusts no key of it")
            .next("give the server as it stands in 'peer status', with its port"));
    }
    let users = settings.as_ref().filter(|it| it.server() == server);
    if let Some(account) = users.and_then(|settings| settings.account.as_ref())
        && !args.yes
    {
        may_forget(account, &server, screen)?;
    }
    place.profile.forget_server(&server)?;
    let server = server.to_string();
    let owner = settings.map_or_else(|| "NAME".to_owned(), |settings| settings.owner());
    screen.prose(&format!(
        "The key of {server} is forgotten; the next 'peer login {owner}' shows its key and asks."
    ))?;
    screen.data(&serde_json::json!({ "forgotten": server }))?;
    Ok(Exit::Done)
}

/// Asks before the profile of `account` loses its own server.
fn may_forget(
    account: &AccountName,
    server: &ServerAddress,
    screen: &Screen,
) -> Result<(), Failure> {
    let why = format!("without its key nothing works here until 'peer login {account}'");
    if screen.is_json() || !can_ask() {
        return Err(
            Failure::new(Exit::Usage, format!("could not forget {server}"))
                .because(format!("{why}, and there is nobody to ask"))
                .next("add --yes"),
        );
    }
    let question = format!("This is the server of {account}: {why}. Forget its key?");
    if is_wanted(&question, screen)? {
        return Ok(());
    }
    Err(
        Failure::new(Exit::Other, format!("did not forget {server}"))
            .because("the answer was not yes"),
    )
}

/// The way to a log-in: which server, how it is trusted, what the profile will say.
#[derive(Debug)]
struct Entrance {
    account: AccountName,
    settings: Settings,
    contact: Contact,
}

#[derive(Serialize)]
struct Entered<'a> {
    account: &'a AccountName,
    server: String,
    device_name: &'a DeviceName,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_logins: Option<&'a FailedLogins>,
}

impl Entrance {
    fn prepare(
        place: &Place,
        account: &AccountName,
        access: &Access,
        doing: &str,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        let known = place.profile.settings()?;
        if let Some(owner) = known.as_ref().and_then(|known| known.account.as_ref())
            && owner != account
        {
            return Err(Failure::new(Exit::Profile, format!("could not {doing}"))
                .because(format!("this profile belongs to {owner}"))
                .next(format!(
                    "give {account} a profile of its own: --profile {account}"
                )));
        }
        let server = match (&access.server, &known) {
            (Some(server), _) => server.clone(),
            (None, Some(known)) => known.server(),
            (None, None) => {
                return Err(Failure::new(Exit::Usage, format!("could not {doing}"))
                    .because("this profile has no server yet")
                    .next("add --server HOST[:PORT], for example --server chat.example.org"));
            }
        };
        let same_server = known.as_ref().filter(|known| known.server() == server);
        let is_public = access.system_roots
            || (access.fingerprint.is_none()
                && same_server.is_some_and(|known| known.trust == Trust::SystemRoots));
        place.profile.create()?;
        let (trust, contact) = if is_public {
            (Trust::SystemRoots, Contact::Seen)
        } else {
            let contact = trust(&place.profile, &server, access.fingerprint, doing, screen)?;
            (Trust::Pinned, contact)
        };
        let device_name = match (&access.device_name, &known) {
            (Some(name), _) => DeviceName::lossy(name),
            (None, Some(known)) => known.device_name.clone(),
            (None, None) => host_name(),
        };
        let settings = Settings::new(&server, trust, Some(account.clone()), device_name);
        Ok(Self {
            account: account.clone(),
            settings,
            contact,
        })
    }

    /// Reads the password, or asks a person for it, and not before it is clear that it is of use.
    fn password(
        &self,
        place: &Place,
        purpose: Purpose,
        access: &Access,
        doing: &str,
        screen: &Screen,
    ) -> Result<zeroize::Zeroizing<String>, Failure> {
        let whose = self.account.as_str();
        let file = access.password_file.as_deref();
        if file.is_none() {
            self.compare_key(place, doing)?;
        }
        password(purpose, whose, file, screen)
    }

    /// Has the server show its key, which must be the one that is trusted.
    fn compare_key(&self, place: &Place, doing: &str) -> Result<(), Failure> {
        if self.contact == Contact::Seen {
            return Ok(());
        }
        let server = self.settings.server();
        let name = server.to_string();
        let seen = crate::shell::probe(&server, READY_TIMEOUT);
        let seen = seen.map_err(|reason| not_reached(doing, &name, &reason))?;
        let Some(trusted) = place.profile.known_server(&server)? else {
            return Ok(());
        };
        if trusted == seen {
            return Ok(());
        }
        let (trusted, seen) = (trusted.to_string(), seen.to_string());
        Err(match self.contact {
            Contact::Given => self.not_that_key(place, doing, &trusted, &seen),
            Contact::Known | Contact::Seen => Failure::server_key_changed(&name, &trusted, &seen),
        })
    }

    /// Registers or logs in. Returns the way to the node that has done it.
    fn enter<'a>(
        &self,
        place: &'a Place,
        doing: &str,
        command: &Command,
        screen: &Screen,
    ) -> Result<RefMut<'a, NodeHandle>, Failure> {
        let saved = place.profile.settings()?;
        let mut session = place.open_with(self.settings.clone())?;
        let moves = saved.is_none_or(|saved| {
            saved.server() != self.settings.server() || saved.trust != self.settings.trust
        });
        if moves && !session.is_owner() {
            return Err(Failure::new(Exit::Profile, format!("could not {doing}"))
                .because("another process runs this profile with another server")
                .next("end the other 'peer' programs of this profile, then try again"));
        }
        let replied = session.try_call(command, LOGIN_CALL_TIMEOUT);
        let replied = replied.map_err(|error| {
            if let CallError::Refused(CommandError::ServerKeyChanged { expected, seen }) = &error
                && self.contact == Contact::Given
            {
                return self.not_that_key(place, doing, expected, seen);
            }
            session.failure(doing, error)
        });
        let Reply::LoggedIn { failed } = replied? else {
            return Err(Failure::unexpected_reply(doing));
        };
        place.profile.save(&self.settings)?;
        if let Some(failed) = &failed {
            screen.note(line::failed_logins(failed, &screen.error_look));
        }
        screen.data(&Entered {
            account: &self.account,
            server: self.settings.server().to_string(),
            device_name: &self.settings.device_name,
            failed_logins: failed.as_ref(),
        })?;
        session.tell_notices(screen);
        Ok(session)
    }
}

impl Entrance {
    /// The server's key is not the one from the command line, which is not kept.
    fn not_that_key(&self, place: &Place, doing: &str, given: &str, seen: &str) -> Failure {
        let server = self.settings.server();
        if let Err(failure) = place.profile.forget_server(&server) {
            return failure.into();
        }
        Failure::new(Exit::ServerKey, format!("could not {doing}"))
            .because(format!("{server} has the fingerprint {seen}, not {given}"))
            .next(
                "compare the fingerprint with the one that the server's operator has; if it was not mistyped, another server is in between",
            )
    }
}

/// How the key of a server is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    /// From an earlier run.
    Known,
    /// From the server itself just now, or from a public authority.
    Seen,
    /// From the command line, and the server has not shown it yet.
    Given,
}

/// Makes sure that a key is trusted for this server: the one that was given, the one that is known,
/// or the one that a person says yes to.
fn trust(
    profile: &Profile,
    server: &ServerAddress,
    given: Option<Fingerprint>,
    doing: &str,
    screen: &Screen,
) -> Result<Contact, Failure> {
    let known = profile.known_server(server)?;
    let name = server.to_string();
    match (known, given) {
        (Some(known), Some(given)) if known != given => {
            return Err(Failure::new(Exit::ServerKey, format!("could not {doing}"))
                .because(format!("{name} is known with the key {known}, not {given}"))
                .next(format!(
                    "ask the operator; if the key has really changed, run 'peer forget-server {name}' first"
                )));
        }
        (Some(_), _) => return Ok(Contact::Known),
        (None, Some(given)) => {
            profile.trust_server(server, given)?;
            return Ok(Contact::Given);
        }
        (None, None) => {}
    }
    if screen.is_json() || !can_ask() {
        return Err(Failure::new(Exit::ServerKey, format!("could not {doing}"))
            .because(format!(
                "the key of {name} is not known, and there is nobody to ask"
            ))
            .next("add --fingerprint SHA256:… as the server prints it, or --system-roots"));
    }
    let seen = crate::shell::probe(server, READY_TIMEOUT);
    let seen = seen.map_err(|reason| not_reached(doing, &name, &reason))?;
    screen.prose(&format!(
        "The server at {name} has the fingerprint\n  {}\nCompare it with what its operator told you, or what the server printed when it started.",
        screen.look.bold(&seen.to_string())
    ))?;
    let why = match about_key(seen, screen)? {
        KeyAnswer::Trusted => {
            profile.trust_server(server, seen)?;
            return Ok(Contact::Seen);
        }
        KeyAnswer::Refused => format!("{name} is not trusted"),
        KeyAnswer::Expected(expected) => {
            format!("{name} is not trusted: you were told {expected}, and it shows {seen}")
        }
    };
    Err(Failure::new(Exit::ServerKey, format!("could not {doing}"))
        .because(why)
        .next("ask the server's operator for the fingerprint"))
}

fn not_reached(doing: &str, server: &str, reason: &ClosedReason) -> Failure {
    let why = match reason {
        ClosedReason::Failed(why) => why.clone(),
        ClosedReason::Ended => "it closed the connection".to_owned(),
        ClosedReason::ServerKeyChanged { expected, seen } => {
            return Failure::server_key_changed(server, expected, seen);
        }
    };
    Failure::new(Exit::Unreachable, format!("could not {doing}"))
        .because(format!("the server {server} cannot be reached: {why}"))
        .next("check the address and port, and whether the server runs; then try again")
}

fn host_name() -> DeviceName {
    let read = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"))
        .or_else(|_| std::fs::read_to_string("/etc/hostname"));
    DeviceName::lossy(read.as_deref().map_or("", str::trim))
}
