//! A message there and back on one stream of quinn: the baseline of `message` and `receipt`.
//!
//! One connection, one stream, AES-256-GCM as our links have it, one thread at each end. A message is its
//! length, a byte that says whether it is to be stored, and its bytes; the answer is the bytes alone. What
//! is to be stored is one row, committed before the answer goes out, in a database that is opened as the
//! history is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::os::private::Durability;
use common::os::sqlite::{self, Access, Schema};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls::crypto::CryptoProvider;
use quinn::rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384,
};
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::rustls::version::TLS13;
use quinn::rustls::{self, RootCertStore};
use quinn::{ClientConfig, Connection, RecvStream, SendStream, ServerConfig};
use rusqlite::params;
use serde_json::json;
use tokio::runtime::Runtime;

use super::message::{Fault, say, serve};
use super::quinn_sender::{endpoint, transport};
use crate::program::now;

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Length of what comes before the bytes of a message.
const HEAD_LEN: usize = 5;
const SCHEMA: Schema = Schema {
    migrations: &["CREATE TABLE message (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"],
    access: Access::Alone,
};

/// Answers on the first stream of the first connection until that ends.
pub(super) fn echo() -> Result<(), Fault> {
    let made = rcgen::generate_simple_self_signed(vec!["bench".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    let tls = QuicServerConfig::with_initial(Arc::new(tls), initial_suite()?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport());
    let database = sqlite::open(Path::new("quinn-echo.db"), &SCHEMA)?;
    sqlite::set_durability(&database, Durability::Kill)?;
    let store = |body: &[u8]| -> rusqlite::Result<usize> {
        let insert = "INSERT INTO message (body) VALUES (?1)";
        database.prepare_cached(insert)?.execute(params![body])
    };
    runtime()?.block_on(async {
        let endpoint = endpoint(HERE, Some(config))?;
        let certificate: &[u8] = made.cert.der();
        say(
            &json!({ "ready": true, "port": endpoint.local_addr()?.port(), "certificate": certificate }),
        )?;
        let incoming = endpoint.accept().await.ok_or("nobody connected")?;
        let (mut answers, mut questions) = incoming.await?.accept_bi().await?;
        loop {
            let mut head = [0; HEAD_LEN];
            questions.read_exact(&mut head).await?;
            let [stored, len @ ..] = head;
            let mut body = vec![0; u32::from_be_bytes(len) as usize];
            questions.read_exact(&mut body).await?;
            if stored == 1 {
                store(&body)?;
            }
            answers.write_all(&body).await?;
        }
    })
}

/// Measures slices as standard input asks for them.
pub(super) fn ping(port: &str, certificate: &str) -> Result<(), Fault> {
    let certificate: Vec<u8> = serde_json::from_str(certificate)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate))?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = QuicClientConfig::with_initial(Arc::new(tls), initial_suite()?)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport());
    let port: u16 = port.parse()?;
    let runtime = runtime()?;
    let mut pinger = runtime.block_on(async {
        let endpoint = endpoint(HERE, None)?;
        let address = SocketAddr::new(HERE.ip(), port);
        let connection = endpoint.connect_with(config, address, "bench")?.await?;
        let (questions, answers) = connection.open_bi().await?;
        Ok::<_, Fault>(Pinger {
            _connection: connection,
            questions,
            answers,
        })
    })?;
    serve(|case, len, times| runtime.block_on(pinger.slice(case == "receipt", len, times)))
}

struct Pinger {
    _connection: Connection,
    questions: SendStream,
    answers: RecvStream,
}

impl Pinger {
    async fn slice(
        &mut self,
        is_stored: bool,
        len: usize,
        times: usize,
    ) -> Result<Vec<Duration>, Fault> {
        let mut question = vec![7; HEAD_LEN + len];
        question[0] = is_stored.into();
        question[1..HEAD_LEN].copy_from_slice(&u32::try_from(len)?.to_be_bytes());
        let mut answer = vec![0; len];
        let mut taken = Vec::with_capacity(times);
        for _ in 0..times {
            let began = now();
            self.questions.write_all(&question).await?;
            self.answers.read_exact(&mut answer).await?;
            taken.push(now().saturating_duration_since(began));
        }
        Ok(taken)
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Offers and takes the cipher of our links alone.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = vec![TLS13_AES_256_GCM_SHA384];
    Arc::new(provider)
}

/// The cipher of a connection's first packets, which RFC 9001 section 5.2 prescribes.
fn initial_suite() -> Result<rustls::quic::Suite, Fault> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    Ok(suite
        .and_then(rustls::Tls13CipherSuite::quic_suite)
        .ok_or("no cipher suite for Initial packets")?)
}
