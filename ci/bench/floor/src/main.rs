//! The floor of a check-in: one thread, TLS 1.3, HTTP/2, the request read and dropped, an answer of fixed length with
//! trailers. No session, no limits, no fleet: what is between this and the server is the price of the server.
//!
//! `vigo-bench-floor BYTES ADDRESS`

use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Sessions that can be resumed.
const SESSIONS: usize = 16_384;

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bytes, address] = &arguments[..] else {
        eprintln!("usage: vigo-bench-floor BYTES ADDRESS");
        return ExitCode::from(64);
    };
    match run(bytes, address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vigo-bench-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(bytes: &str, address: &str) -> Result<(), Failed> {
    let answer = answer(bytes.parse()?);
    let acceptor = acceptor()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            // A connection that fails ends alone.
            tokio::spawn(serve(socket, acceptor.clone(), answer.clone()));
        }
    })
}

/// One gRPC message that makes the answer this long.
fn answer(bytes: u32) -> Bytes {
    let length = bytes.saturating_sub(5);
    let mut out = vec![0];
    out.extend_from_slice(&length.to_be_bytes());
    out.resize(5 + length as usize, 0);
    out.into()
}

fn acceptor() -> Result<TlsAcceptor, Failed> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Enough to remember every caller; the default of 256 would turn resumed handshakes into full ones.
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS);
    config.send_tls13_tickets = 1;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(socket: TcpStream, acceptor: TlsAcceptor, answer: Bytes) {
    let _ = socket.set_nodelay(true);
    let Ok(tls) = acceptor.accept(socket).await else { return };
    let Ok(mut connection) = h2::server::Builder::new().max_concurrent_streams(8).handshake::<_, Bytes>(tls).await
    else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(reply(request, respond, answer.clone()));
    }
}

async fn reply(mut request: Request<RecvStream>, mut respond: SendResponse<Bytes>, answer: Bytes) {
    while let Some(Ok(data)) = request.body_mut().data().await {
        let _ = request.body_mut().flow_control().release_capacity(data.len());
    }
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    let _ = stream.send_data(answer, false);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = stream.send_trailers(trailers);
}
