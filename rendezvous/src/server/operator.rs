//! What an operator asks: the same engine answers, whether it runs as the server or only for the
//! moment of the command.

use std::time::Instant;

use common::id::AccountName;
use common::limits::ACCOUNTS_PER_REPLY_MAX;
use common::password::STRETCH_CURRENT;
use common::wire::rendezvous::{AdmissionCode, ByeReason};

use super::io::{Command, CommandId, ListedAccount, Reply};
use super::logins::lockout::seconds;
use super::{Server, Work};
use crate::store::{
    AccountSummary, AccountsAnswer, AccountsRequest, Admission, AdmissionsAnswer,
    AdmissionsRequest, LockoutsAnswer, LockoutsRequest, StoreAnswer, StoreError, StoreRequest,
};

/// What a command waits for.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    /// The account is being made or looked for; then it is done.
    Account,
    /// The account is being removed.
    Removal(AccountName),
    /// The store forgets the failures.
    Unblocking(AccountName),
    /// The store keeps a code.
    Admission(AccountName, AdmissionCode),
    /// The list is being read.
    List,
}

impl Server {
    pub(super) fn on_command(&mut self, id: CommandId, command: Command, now: Instant) {
        let at = self.epoch.unix(now);
        let (pending, request): (Pending, StoreRequest) = match command {
            Command::AddAccount { account, record } => {
                let request = AccountsRequest::Create {
                    account,
                    record,
                    stretch: STRETCH_CURRENT,
                    at,
                };
                (Pending::Account, request.into())
            }
            Command::RemoveAccount(account) => {
                let pending = Pending::Removal(account.clone());
                (pending, AccountsRequest::Remove { account, at }.into())
            }
            Command::Unblock(account) => {
                let pending = Pending::Unblocking(account.clone());
                (pending, LockoutsRequest::Unblock { account, at }.into())
            }
            Command::Admit(account) => {
                let Some((code, admission)) = self.open_admission(&account, now) else {
                    self.reply(id, Reply::TooManyCodes);
                    return;
                };
                let pending = Pending::Admission(account, code);
                (pending, AdmissionsRequest::Save { admission, at }.into())
            }
            Command::ListAccounts { after } => {
                let count_max = ACCOUNTS_PER_REPLY_MAX;
                (
                    Pending::List,
                    AccountsRequest::List { after, count_max }.into(),
                )
            }
        };
        self.order(Work::Command(id, pending), request);
    }

    pub(super) fn on_command_stored(
        &mut self,
        id: CommandId,
        pending: Pending,
        answer: Result<StoreAnswer, StoreError>,
        now: Instant,
    ) {
        let reply = match answer {
            Err(error) => {
                if let Pending::Admission(account, code) = pending {
                    self.admissions.take(&account, code);
                }
                Reply::StoreFailed(error)
            }
            Ok(StoreAnswer::Accounts(AccountsAnswer::Exists)) => Reply::Exists,
            Ok(
                StoreAnswer::Accounts(AccountsAnswer::NotFound)
                | StoreAnswer::Lockouts(LockoutsAnswer::NotFound)
                | StoreAnswer::Admissions(AdmissionsAnswer::NotFound),
            ) => {
                if let Pending::Admission(account, _) = pending {
                    self.admissions.forget(&account);
                }
                Reply::NotFound
            }
            Ok(StoreAnswer::Accounts(AccountsAnswer::Listed(accounts))) => {
                self.listed(accounts, now)
            }
            Ok(
                StoreAnswer::Accounts(AccountsAnswer::Done | AccountsAnswer::Loaded(_))
                | StoreAnswer::Lockouts(LockoutsAnswer::Done)
                | StoreAnswer::Admissions(AdmissionsAnswer::Done)
                | StoreAnswer::Devices(_),
            ) => self.on_command_done(pending, now),
        };
        self.reply(id, reply);
    }

    fn on_command_done(&mut self, pending: Pending, now: Instant) -> Reply {
        match pending {
            Pending::Account | Pending::List => Reply::Done,
            Pending::Removal(account) => {
                self.on_account_removed(&account, now);
                Reply::Done
            }
            Pending::Unblocking(account) => {
                self.lockouts.forget(&account);
                Reply::Done
            }
            Pending::Admission(_, code) => Reply::Code {
                code,
                expires_in_s: Admission::LIFETIME_S,
            },
        }
    }

    fn on_account_removed(&mut self, account: &AccountName, now: Instant) {
        self.lockouts.forget(account);
        self.admissions.forget(account);
        let sessions: Vec<_> = self.sessions_of(account).collect();
        for connection in sessions {
            self.say_bye(connection, ByeReason::AccountRemoved, now);
        }
    }

    fn listed(&self, accounts: Vec<AccountSummary>, now: Instant) -> Reply {
        let may_have_more = accounts.len() >= ACCOUNTS_PER_REPLY_MAX;
        let accounts = accounts.into_iter().map(|summary| ListedAccount {
            sessions: self.sessions_of(&summary.account).count(),
            blocked_for_s: seconds(self.lockouts.blocked_for(&summary.account, now)),
            summary,
        });
        Reply::Accounts {
            accounts: accounts.collect(),
            may_have_more,
        }
    }

    fn reply(&mut self, id: CommandId, reply: Reply) {
        self.outputs.push_back(super::Output::Reply { id, reply });
    }
}
