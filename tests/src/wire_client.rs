//! A peer that says what a test wants it to say: it blocks, it speaks the control protocol from
//! `common`, and whatever goes wrong with it fails the test.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceSecret, Role, Signature, Statement, Token};
use common::limits::CONTROL_FRAME_LEN_MAX;
use common::password::{ClientLogin, ClientRegistration, Password, PasswordError};
use common::tls::{ServerTrust, channel_binding, rendezvous_client_config};
use common::wire::frame::{self, FrameBuffer};
use common::wire::rendezvous::{
    AdmissionCode, Answer, DirectoryRequest, Hello, HelloAnswer, LoginAnswer, LoginRequest,
    LoginStart, Refusal, Request, RequestFrame, RequestId, ServerFrame, Status, TokenLogin,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::de::DeserializeOwned;
use socket2::{Domain, Socket, Type};
use zeroize::Zeroizing;

use crate::program::Server;

/// Time for one answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where a server is, and its key's fingerprint.
#[derive(Clone, Debug)]
pub struct Target {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// `SHA256:…`.
    pub fingerprint: String,
}

impl From<&Server> for Target {
    fn from(server: &Server) -> Self {
        Self {
            address: server.address.clone(),
            fingerprint: server.fingerprint.clone(),
        }
    }
}

impl From<&Self> for Target {
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

/// A TCP connection to the server.
#[track_caller]
pub fn tcp(server: impl Into<Target>) -> TcpStream {
    let socket = TcpStream::connect(server.into().address).expect("the server accepts");
    patient(socket)
}

/// A TCP connection to the server from one of this machine's loopback addresses, 127.0.0.0/8: to the
/// server each of them is a source of its own.
#[track_caller]
pub fn tcp_from(source: Ipv4Addr, server: impl Into<Target>) -> TcpStream {
    let server: SocketAddr = server.into().address.parse().expect("an address");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::from((source, 0)).into())
        .expect("the whole of 127.0.0.0/8 is this machine");
    socket.connect(&server.into()).expect("the server accepts");
    patient(socket.into())
}

#[track_caller]
fn patient(socket: TcpStream) -> TcpStream {
    // Each request is written at once, and a time that is measured is the server's.
    socket.set_nodelay(true).expect("the socket is there");
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&socket, Some(DEADLINE)).expect("the deadline is not zero");
    }
    socket
}

/// The configuration of a peer that has pinned the server.
#[track_caller]
pub fn config(server: impl Into<Target>) -> Arc<ClientConfig> {
    let pinned = server.into().fingerprint.parse();
    let trust = ServerTrust::Pinned(pinned.expect("the server prints its fingerprint"));
    rendezvous_client_config(&trust).expect("pinning needs nothing of the system")
}

/// A device with a key of its own.
pub fn device(number: u8) -> DeviceSecret {
    DeviceSecret::from_seed([number; 32])
}

/// A control connection.
#[derive(Debug)]
pub struct WireClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    last_request: u32,
}

/// What a password log-in came to.
#[derive(Debug)]
pub enum Entry {
    /// The server answered something else than a challenge, or refused the finish.
    Answered(Answer),
    /// The challenge showed that the password is wrong, or that there is no such account.
    Failed(PasswordError),
}

impl WireClient {
    /// Connects and greets.
    #[track_caller]
    pub fn connect(server: impl Into<Target>) -> Self {
        Self::shake(server).greet()
    }

    /// Connects from one of this machine's loopback addresses, and greets.
    #[track_caller]
    pub fn connect_from(source: Ipv4Addr, server: impl Into<Target>) -> Self {
        let server = server.into();
        Self::shake_over(tcp_from(source, &server), server).greet()
    }

    #[track_caller]
    fn greet(self) -> Self {
        let mut client = self;
        client.write_frame(&Hello::ours("test"));
        let answer: HelloAnswer = client.next().expect("the server greets back");
        assert!(matches!(answer, HelloAnswer::Welcome { version: 1, .. }));
        client
    }

    /// Connects, and says nothing after the TLS handshake.
    #[track_caller]
    pub fn shake(server: impl Into<Target>) -> Self {
        let server = server.into();
        let socket = tcp(&server);
        Self::shake_over(socket, server)
    }

    #[track_caller]
    fn shake_over(socket: TcpStream, server: impl Into<Target>) -> Self {
        let name = ServerName::try_from("rendezvous").expect("a plain name");
        let connection = ClientConnection::new(config(server), name).expect("the name is fine");
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .expect("the handshake completes");
        }
        Self {
            stream,
            frames: FrameBuffer::new(),
            last_request: 0,
        }
    }

    /// The TLS connection.
    pub const fn tls(&self) -> &ClientConnection {
        &self.stream.conn
    }

    /// The channel that log-ins are bound to.
    pub fn channel(&self) -> ChannelBinding {
        channel_binding(&self.stream.conn).expect("the handshake is complete")
    }

    /// Writes bytes that need not be a frame.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads until the server ends the connection. Returns what it said last, in bytes.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            Ok(_) | Err(_) => Ok(bytes),
        }
    }

    /// Asks, and returns the answer.
    #[track_caller]
    pub fn ask(&mut self, request: impl Into<Request>) -> Answer {
        self.last_request += 1;
        let asked = RequestId(self.last_request);
        self.write_frame(&RequestFrame {
            id: asked,
            request: request.into(),
        });
        loop {
            match self.next::<ServerFrame>().expect("the server answers") {
                ServerFrame::Answer { id, answer } if id == asked => return answer,
                ServerFrame::Answer { .. } | ServerFrame::Push(_) => {}
            }
        }
    }

    /// Creates an account; the answer to the first or the last step.
    #[track_caller]
    pub fn register(&mut self, account: &str, text: &str) -> Answer {
        let account = name(account);
        let (client, message) = ClientRegistration::start(&password(text), [3; 32]);
        let answer = self.ask(LoginRequest::RegisterStart {
            account: account.clone(),
            message,
        });
        let Answer::Login(LoginAnswer::RegisterChallenge { message }) = answer else {
            return answer;
        };
        let upload = client.finish(&account, &message).expect("it goes on");
        self.ask(LoginRequest::RegisterFinish {
            upload,
            stretch: common::password::STRETCH_CURRENT,
        })
    }

    /// Starts a password log-in with a signature that the device makes for this channel.
    #[track_caller]
    pub fn login_start(
        &mut self,
        account: &str,
        secret: &DeviceSecret,
        text: &str,
        code: Option<AdmissionCode>,
    ) -> (ClientLogin, Answer) {
        let channel = self.channel();
        self.login_start_signed(account, secret, text, code, &channel)
    }

    /// Starts a password log-in with a signature for `channel`.
    #[track_caller]
    pub fn login_start_signed(
        &mut self,
        account: &str,
        secret: &DeviceSecret,
        text: &str,
        code: Option<AdmissionCode>,
        channel: &ChannelBinding,
    ) -> (ClientLogin, Answer) {
        let account = name(account);
        let (client, ke1) = ClientLogin::start(&password(text), [4; 32]);
        let signature = secret.sign(&Statement {
            role: Role::PasswordLogin,
            channel_binding: channel,
            account: &account,
            content: ke1.as_bytes(),
        });
        let start = LoginStart {
            account,
            device_key: secret.public(),
            device_name: DeviceName::lossy("laptop"),
            ke1,
            signature,
            code,
        };
        let answer = self.ask(LoginRequest::LoginStart(start));
        (client, answer)
    }

    /// Logs in with a password.
    #[track_caller]
    pub fn log_in(&mut self, account: &str, secret: &DeviceSecret, text: &str) -> Entry {
        let (client, answer) = self.login_start(account, secret, text, None);
        let Answer::Login(LoginAnswer::LoginChallenge { ke2, stretch }) = answer else {
            return Entry::Answered(answer);
        };
        match client.finish(&name(account), &ke2, stretch, &self.channel()) {
            Ok(ke3) => Entry::Answered(self.ask(LoginRequest::LoginFinish { ke3 })),
            Err(error) => Entry::Failed(error),
        }
    }

    /// Logs in with the right password, and returns the new token.
    #[track_caller]
    pub fn token(&mut self, account: &str, secret: &DeviceSecret, text: &str) -> Token {
        match self.log_in(account, secret, text) {
            Entry::Answered(Answer::Login(LoginAnswer::LoggedIn(logged_in))) => {
                logged_in.token.expect("a password log-in gives a token")
            }
            other @ (Entry::Answered(_) | Entry::Failed(_)) => panic!("{other:?}"),
        }
    }

    /// The signature of a token log-in on `channel`.
    pub fn sign_token(
        account: &str,
        secret: &DeviceSecret,
        token: &Token,
        channel: &ChannelBinding,
    ) -> Signature {
        secret.sign(&Statement {
            role: Role::TokenLogin,
            channel_binding: channel,
            account: &name(account),
            content: token.as_bytes(),
        })
    }

    /// Logs in with a token.
    #[track_caller]
    pub fn token_login(&mut self, account: &str, secret: &DeviceSecret, token: &Token) -> Answer {
        let signature = Self::sign_token(account, secret, token, &self.channel());
        self.ask(LoginRequest::TokenLogin(TokenLogin {
            account: name(account),
            device_key: secret.public(),
            token: token.clone(),
            signature,
        }))
    }

    /// Announces one endpoint.
    #[track_caller]
    pub fn announce(&mut self) -> Answer {
        self.ask(DirectoryRequest::Announce {
            status: Status::Available,
            candidates: vec![SocketAddr::from(([127, 0, 0, 1], 9))],
        })
    }

    fn next<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(io::Error::other)? {
                return Ok(frame);
            }
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.frames.push(&bytes[..len]),
            }
        }
    }

    #[track_caller]
    fn write_frame(&mut self, value: &impl serde::Serialize) {
        let mut bytes = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(value, &mut bytes).expect("it fits a frame");
        self.write(&bytes).expect("the server reads");
    }
}

/// An account's name.
#[track_caller]
pub fn name(text: &str) -> AccountName {
    text.parse().expect("the name is one")
}

/// Tells whether an answer is this refusal.
pub fn is_refused(answer: &Answer, refusal: Refusal) -> bool {
    *answer == Answer::Refused(refusal)
}

/// A password that is long enough to register with.
#[track_caller]
pub fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.to_owned())).expect("the password is long enough")
}
