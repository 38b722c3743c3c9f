//! A plain file sender on quinn: the baseline of `file`.
//!
//! One stream, one thread at each end, socket buffers of 2 MiB, no hashing. The receiver writes what
//! comes to a file, renames it, and says so; the sender measures from the opening of the stream to
//! that word.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig};
use socket2::{Domain, Protocol, Socket, Type};

use crate::program::now;

/// Bytes read from the file at once.
const BLOCK: usize = 1 << 20;
/// Windows large enough never to be what bounds the rate.
const WINDOW: u32 = 16 << 20;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Runs as one of the two ends: `receive ADDRESS TARGET` or `send ADDRESS SOURCE CERTIFICATE`.
pub fn main(arguments: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(Into::into)
        .and_then(|runtime| match arguments {
            [role, address, target] if role == "receive" => {
                runtime.block_on(receive(address.parse()?, target.into()))
            }
            [role, address, source, certificate] if role == "send" => {
                runtime.block_on(send(address.parse()?, source.into(), certificate.into()))
            }
            _ => Err("unknown arguments".into()),
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started this reads it.
            let _ = writeln!(io::stderr().lock(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Receives files until its standard input ends: a line names each.
async fn receive(address: SocketAddr, target: PathBuf) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["bench".to_owned()])?;
    let certificate = target.with_extension("certificate");
    fs::write(&certificate, made.cert.der())?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut config = ServerConfig::with_single_cert(vec![made.cert.der().clone()], key.into())?;
    config.transport_config(transport());
    let endpoint = endpoint(address, Some(config))?;
    let port = endpoint.local_addr()?.port();
    writeln!(
        io::stdout().lock(),
        "{}",
        serde_json::json!({ "port": port, "certificate": certificate })
    )?;
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        let mut stream = connection.accept_uni().await?;
        let part = target.with_extension("part");
        let mut file = File::create(&part)?;
        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
            file.write_all(&chunk.bytes)?;
        }
        fs::rename(&part, &target)?;
        let mut answer = connection.open_uni().await?;
        answer.write_all(b"done").await?;
        answer.finish()?;
        connection.closed().await;
    }
    Ok(())
}

/// Sends the file once for each line of standard input, and prints the milliseconds it took.
async fn send(address: SocketAddr, source: PathBuf, certificate: PathBuf) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(fs::read(certificate)?))?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    config.transport_config(transport());
    let local = SocketAddr::new(address.ip(), 0);
    let local = if address.ip().is_loopback() {
        local
    } else {
        SocketAddr::from(([0, 0, 0, 0], 0))
    };
    let endpoint = endpoint(local, None)?;
    for line in io::stdin().lock().lines() {
        line?;
        let connection = endpoint
            .connect_with(config.clone(), address, "bench")?
            .await?;
        let mut file = File::open(&source)?;
        let began = now();
        let mut stream = connection.open_uni().await?;
        loop {
            let mut block = vec![0; BLOCK];
            let len = file.read(&mut block)?;
            if len == 0 {
                break;
            }
            block.truncate(len);
            stream.write_chunk(Bytes::from(block)).await?;
        }
        stream.finish()?;
        let mut answer = connection.accept_uni().await?;
        answer.read_to_end(16).await?;
        let elapsed = now().saturating_duration_since(began);
        writeln!(
            io::stdout().lock(),
            "{}",
            serde_json::json!({ "elapsed_ms": elapsed.as_secs_f64() * 1e3 })
        )?;
        connection.close(0u32.into(), b"");
        endpoint.wait_idle().await;
    }
    Ok(())
}

pub(super) fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(WINDOW.into())
        .receive_window(WINDOW.into())
        .send_window(WINDOW.into());
    Arc::new(config)
}

pub(super) fn endpoint(address: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_recv_buffer_size(common::limits::SOCKET_BUFFER_LEN)?;
    socket.set_send_buffer_size(common::limits::SOCKET_BUFFER_LEN)?;
    socket.bind(&address.into())?;
    let socket: UdpSocket = socket.into();
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new(
        EndpointConfig::default(),
        server,
        socket,
        runtime,
    )?)
}
