//! Somebody without a password, at the server's door: guesses, and asks for what only members get.

use std::net::SocketAddr;

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceSecret, Role, Statement};
use common::password::{ClientLogin, Password};
use common::wire::rendezvous::{
    Answer, DeviceRequest, DirectoryRequest, Hello, IdentityRequest, IntroductionRequest,
    LoginAnswer, LoginRequest, LoginStart, OpaqueMessage, Request, RequestFrame, RequestId,
    ServerFrame, Status,
};
use rendezvous::server::{ConnectionId, Frame, Input};
use zeroize::Zeroizing;

use super::check::Violation;

/// What an attacker knows.
#[derive(Debug)]
pub struct Attacker {
    /// Where it says that it comes from.
    pub source: SocketAddr,
    channel: ChannelBinding,
    secret: DeviceSecret,
}

impl Attacker {
    /// One with random bytes of its own.
    pub fn new(bytes: [u8; 32]) -> Self {
        let [a, b, ..] = bytes;
        Self {
            source: SocketAddr::from(([198, 18, a, b], 40_000)),
            channel: ChannelBinding(bytes),
            secret: DeviceSecret::from_seed(bytes),
        }
    }

    /// What it does at first: comes, greets, and asks for what it must not have; then one guess.
    pub fn opening(&self, id: ConnectionId, victim: &AccountName, guess: &str) -> Vec<Input> {
        let requests = [
            Request::Directory(DirectoryRequest::List { after: None }),
            Request::Directory(DirectoryRequest::Find {
                account: victim.clone(),
            }),
            Request::Directory(DirectoryRequest::WhoIs {
                device_key: self.secret.public(),
            }),
            Request::Directory(DirectoryRequest::Announce {
                status: Status::Available,
                candidates: vec![self.source],
            }),
            Request::Device(DeviceRequest::Admit),
            Request::Introduction(IntroductionRequest::Allocate),
            Request::Introduction(IntroductionRequest::Introduce {
                account: victim.clone(),
            }),
            Request::Identity(IdentityRequest::Read {
                account: victim.clone(),
                after: 0,
            }),
        ];
        let guess = self
            .guess(victim, guess)
            .map(|start| Request::Login(LoginRequest::LoginStart(start)));
        let greeting = [
            Input::Connected {
                connection: id,
                source: self.source,
                channel_binding: self.channel,
            },
            Input::Greeted {
                connection: id,
                hello: Hello::ours("attacker"),
            },
        ];
        let asked = requests.into_iter().chain(guess).zip(1..);
        let asked = asked.map(|(request, number)| request_input(id, number, request));
        greeting.into_iter().chain(asked).collect()
    }

    fn guess(&self, victim: &AccountName, guess: &str) -> Option<LoginStart> {
        let password = Password::existing(Zeroizing::new(guess.to_owned())).ok()?;
        let (_, ke1) = ClientLogin::start(&password, *self.secret.seed());
        let signature = self.secret.sign(&Statement {
            role: Role::PasswordLogin,
            channel_binding: &self.channel,
            account: victim,
            content: ke1.as_bytes(),
        });
        Some(LoginStart {
            account: victim.clone(),
            device_key: self.secret.public(),
            device_name: DeviceName::lossy("attacker"),
            ke1,
            signature,
            code: None,
        })
    }

    /// What it says to an answer. An error if it got what it must not have.
    pub fn on_frame(&self, id: ConnectionId, frame: &Frame) -> Result<Option<Input>, Violation> {
        let Frame::Server(frame) = frame else {
            return Ok(None);
        };
        let ServerFrame::Answer { answer, .. } = &**frame else {
            return Ok(None);
        };
        match answer {
            Answer::Refused(_) => Ok(None),
            // Whoever does not know the password can only guess what comes next.
            Answer::Login(LoginAnswer::LoginChallenge { .. }) => {
                let ke3 = OpaqueMessage::try_from(vec![7; 64]);
                let finish = ke3
                    .ok()
                    .map(|ke3| Request::Login(LoginRequest::LoginFinish { ke3 }));
                Ok(finish.map(|finish| request_input(id, 100, finish)))
            }
            Answer::Login(_)
            | Answer::Directory(_)
            | Answer::Device(_)
            | Answer::Introduction(_)
            | Answer::Identity(_) => Err(Violation::new(&format!(
                "somebody who is not logged in got {answer:?}"
            ))),
        }
    }
}

const fn request_input(connection: ConnectionId, number: u32, request: Request) -> Input {
    Input::Requested {
        connection,
        frame: RequestFrame {
            id: RequestId(number),
            request,
        },
    }
}
