//! The operator's commands: the same engine executes them, whether it runs as the server or only for
//! the moment of one command.
//!
//! `Operator` owns the commands that wait for the store. What they do to sessions, lock-outs and codes
//! it tells as events, because those are other parts'.

use std::collections::{BTreeMap, VecDeque};

use common::id::AccountName;
use common::limits::ACCOUNTS_PER_REPLY_MAX;
use common::password::STRETCH_CURRENT;

use super::context::{Context, Part};
use super::devices::Devices;
use super::io::{Command, CommandId, ListedAccount, Reply, Ticket, Unblocked};
use super::logins::Logins;
use crate::store::{
    AccountSummary, AccountsAnswer, AccountsRequest, Admission, AdmissionsAnswer,
    AdmissionsRequest, LockoutRow, LockoutsAnswer, LockoutsRequest, StoreAnswer, StoreError,
    StoreRequest,
};

/// Commands that are being executed.
#[derive(Debug, Default)]
pub(super) struct Operator {
    waiting: BTreeMap<Ticket, (CommandId, Waiting)>,
    events: VecDeque<Event>,
}

/// What the other parts have to do with.
#[derive(Debug)]
pub(super) enum Event {
    /// A one-time code is wanted; answered by [`Operator::on_admission_opened`].
    AdmissionWanted { id: CommandId, account: AccountName },
    /// The store could not keep this code.
    AdmissionLost(Admission),
    /// There is no such account: it can have no codes.
    NoAccount(AccountName),
    /// An account is gone. To be replied to when its sessions are, too.
    AccountRemoved { id: CommandId, account: AccountName },
    /// The store has forgotten the failures of an account, or there is none of this name, as the flag says;
    /// answered by [`Operator::on_unblocked`].
    Unblocked(CommandId, AccountName, bool),
    /// These accounts were asked for; answered by [`Operator::on_listed`].
    Listed {
        id: CommandId,
        accounts: Vec<AccountSummary>,
    },
}

/// What a command waits for.
#[derive(Clone, Debug)]
enum Waiting {
    /// The account is being made.
    Adding,
    /// The account is being removed.
    Removal(AccountName),
    /// The store forgets the failures.
    Unblocking(AccountName),
    /// The store forgets those of a name without an account.
    Forgetting(Unblocked),
    /// The store keeps a code.
    Admission(Admission),
    /// The list is being read.
    List,
}

impl Operator {
    /// Executes a command; its reply comes when the store has answered.
    pub(super) fn handle_command(
        &mut self,
        id: CommandId,
        command: Command,
        context: &mut Context,
    ) {
        let at = context.unix();
        let (waiting, request): (Waiting, StoreRequest) = match command {
            Command::AddAccount { account, record } => {
                let request = AccountsRequest::Create {
                    account,
                    record,
                    stretch: STRETCH_CURRENT,
                    at,
                };
                (Waiting::Adding, request.into())
            }
            Command::RemoveAccount(account) => {
                let waiting = Waiting::Removal(account.clone());
                let request = AccountsRequest::Remove { account, at };
                (waiting, request.into())
            }
            Command::Unblock(account) => {
                let waiting = Waiting::Unblocking(account.clone());
                let request = LockoutsRequest::Unblock { account, at };
                (waiting, request.into())
            }
            Command::Admit(account) => {
                let wanted = Event::AdmissionWanted { id, account };
                self.events.push_back(wanted);
                return;
            }
            Command::ListAccounts { after } => {
                let count_max = ACCOUNTS_PER_REPLY_MAX;
                let request = AccountsRequest::List { after, count_max };
                (Waiting::List, request.into())
            }
        };
        self.wait(id, waiting, request, context);
    }

    /// A one-time code was opened, or the account has as many as it may have.
    pub(super) fn on_admission_opened(
        &mut self,
        id: CommandId,
        opened: Option<Admission>,
        context: &mut Context,
    ) {
        let Some(admission) = opened else {
            context.reply(id, Reply::TooManyCodes);
            return;
        };
        let waiting = Waiting::Admission(admission.clone());
        let at = context.unix();
        let request = AdmissionsRequest::Save { admission, at };
        self.wait(id, waiting, request.into(), context);
    }

    /// The store has done what a command waits for.
    pub(super) fn on_stored(
        &mut self,
        ticket: Ticket,
        answer: Result<StoreAnswer, StoreError>,
        context: &mut Context,
    ) {
        let waiting = self.waiting.remove(&ticket);
        let (id, waiting) = waiting.expect("a ticket is for what waits for it");
        match answer {
            Err(error) => {
                if let Waiting::Admission(admission) = waiting {
                    self.events.push_back(Event::AdmissionLost(admission));
                }
                context.reply(id, Reply::StoreFailed(error));
            }
            Ok(
                StoreAnswer::Accounts(AccountsAnswer::NotFound)
                | StoreAnswer::Lockouts(LockoutsAnswer::NotFound)
                | StoreAnswer::Admissions(AdmissionsAnswer::NotFound),
            ) => {
                self.on_not_found(id, waiting, context);
            }
            Ok(StoreAnswer::Accounts(AccountsAnswer::Exists)) => context.reply(id, Reply::Exists),
            Ok(StoreAnswer::Accounts(AccountsAnswer::Listed(accounts))) => {
                self.events.push_back(Event::Listed { id, accounts });
            }
            Ok(
                StoreAnswer::Accounts(AccountsAnswer::Done | AccountsAnswer::Loaded(_))
                | StoreAnswer::Lockouts(LockoutsAnswer::Done)
                | StoreAnswer::Admissions(AdmissionsAnswer::Done)
                | StoreAnswer::Devices(_)
                | StoreAnswer::Logs(_),
            ) => self.on_done(id, waiting, context),
        }
    }

    /// What the lock-outs held against a name is forgotten. Of a name without an account the store still
    /// has it.
    pub(super) fn on_unblocked(
        &mut self,
        id: CommandId,
        (unblocked, row): (Unblocked, LockoutRow),
        context: &mut Context,
    ) {
        let is_nothing = unblocked.blocked_for_s == 0 && unblocked.failures == 0;
        if unblocked.has_account {
            context.reply(id, Reply::Unblocked(unblocked));
        } else if is_nothing {
            context.reply(id, Reply::NotFound);
        } else {
            let request = LockoutsRequest::Save {
                row,
                is_blocked_now: false,
                at: context.unix(),
            };
            self.wait(id, Waiting::Forgetting(unblocked), request.into(), context);
        }
    }

    /// Replies with accounts and what is known of each.
    pub(super) fn on_listed(
        &self,
        id: CommandId,
        accounts: Vec<AccountSummary>,
        devices: &Devices,
        logins: &Logins,
        context: &mut Context,
    ) {
        let may_have_more = accounts.len() >= ACCOUNTS_PER_REPLY_MAX;
        let accounts = accounts.into_iter().map(|summary| ListedAccount {
            sessions: devices.connections_of(&summary.account).count(),
            blocked_for_s: logins.blocked_for_s(&summary.account, context.now),
            summary,
        });
        let reply = Reply::Accounts {
            accounts: accounts.collect(),
            may_have_more,
        };
        context.reply(id, reply);
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn on_not_found(&mut self, id: CommandId, waiting: Waiting, context: &mut Context) {
        match waiting {
            Waiting::Unblocking(name) => {
                self.events.push_back(Event::Unblocked(id, name, false));
                return;
            }
            Waiting::Admission(Admission { account, .. }) => {
                self.events.push_back(Event::NoAccount(account));
            }
            Waiting::Adding | Waiting::Removal(_) | Waiting::Forgetting(_) | Waiting::List => {}
        }
        context.reply(id, Reply::NotFound);
    }

    fn on_done(&mut self, id: CommandId, waiting: Waiting, context: &mut Context) {
        match waiting {
            Waiting::Adding | Waiting::List => context.reply(id, Reply::Done),
            Waiting::Removal(account) => {
                let removed = Event::AccountRemoved { id, account };
                self.events.push_back(removed);
            }
            Waiting::Unblocking(name) => {
                self.events.push_back(Event::Unblocked(id, name, true));
            }
            Waiting::Forgetting(unblocked) => context.reply(id, Reply::Unblocked(unblocked)),
            Waiting::Admission(Admission { code, .. }) => {
                let expires_in_s = Admission::LIFETIME_S;
                context.reply(id, Reply::Code { code, expires_in_s });
            }
        }
    }

    fn wait(
        &mut self,
        id: CommandId,
        waiting: Waiting,
        request: StoreRequest,
        context: &mut Context,
    ) {
        let ticket = context.store(Part::Operator, request);
        self.waiting.insert(ticket, (id, waiting));
    }
}
