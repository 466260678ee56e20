//! A backend that is reached by TLS, and tells what of that it saw.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::tls::Authority;

/// A backend behind TLS. It answers the body it was sent, and in headers `name` (asked for), `protocol`, `client` (its
/// certificates) and `connection` (its number).
pub struct Secured {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Secured {
    /// One that shows this certificate; with `clients`, only to who shows one that this authority has signed.
    pub async fn start((certificate, key): &(String, String), clients: Option<&Authority>, protocols: &[&str]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
                roots.add(root).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (accepted, failed) = (Arc::clone(&connections), Arc::clone(&refused));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, accepted, failed) = (acceptor.clone(), Arc::clone(&accepted), Arc::clone(&failed));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        failed.fetch_add(1, Ordering::SeqCst);
                        return;
                    };
                    let number = accepted.fetch_add(1, Ordering::SeqCst) + 1;
                    let session = stream.get_ref().1;
                    let name = session.server_name().unwrap_or("").to_owned();
                    let two = session.alpn_protocol() == Some(b"h2");
                    let client = session.peer_certificates().map_or(0, <[_]>::len);
                    let service = service_fn(move |request: Request<Incoming>| {
                        let response = Response::builder()
                            .header("name", &name)
                            .header("protocol", if two { "h2" } else { "http/1.1" })
                            .header("client", client)
                            .header("number", number);
                        async move {
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            Ok::<_, Infallible>(response.body(Full::new(body)).unwrap())
                        }
                    });
                    let io = TokioIo::new(stream);
                    if two {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = builder.serve_connection(io, service).await;
                    } else {
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(io, service)
                            .await;
                    }
                });
            }
        });
        Self {
            address,
            connections,
            refused,
            accepting,
        }
    }

    /// Connections whose handshake was finished.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Handshakes that came to nothing.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
