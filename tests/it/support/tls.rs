//! An authority of the tests' own, the certificates that it signs, and clients that trust it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Who signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Whoever signs another name than its own has not signed itself.
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests' authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// In PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names and its key, in PEM.
    pub fn sign(&self, names: &[&str]) -> (String, String) {
        self.sign_with(names, |_| ())
    }

    /// The same, with something about it changed.
    pub fn sign_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// Writes a pair as `NAME.crt` and `NAME.key`; gives it as the configuration names it.
pub fn pair(folder: &Path, name: &str, (certificate, key): &(String, String)) -> String {
    let path = |extension: &str| folder.join(format!("{name}.{extension}"));
    std::fs::write(path("crt"), certificate).unwrap();
    std::fs::write(path("key"), key).unwrap();
    format!("cert: {}, key: {}", path("crt").display(), path("key").display())
}

/// A client that speaks TLS.
#[derive(Clone)]
pub struct Shopper {
    config: Arc<ClientConfig>,
}

impl Shopper {
    /// One that trusts this authority and asks for these protocols.
    pub fn trusting(authority: &Authority, protocols: &[&str]) -> Self {
        Self::speaking(rustls::ALL_VERSIONS, authority, protocols, None)
    }

    /// The same, in these versions only, with a certificate of its own.
    pub fn speaking(
        versions: &[&'static SupportedProtocolVersion],
        authority: &Authority,
        protocols: &[&str],
        own: Option<&(String, String)>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
            .unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self {
            config: Arc::new(config),
        }
    }

    /// One that does not say which name it wants.
    pub fn nameless(self) -> Self {
        let mut config = (*self.config).clone();
        config.enable_sni = false;
        Self {
            config: Arc::new(config),
        }
    }

    pub async fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.over(stream, name).await
    }

    /// Over a stream that is already there.
    pub async fn over<S>(&self, stream: S, name: &str) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

/// The certificate that the other side showed.
pub fn shown<S>(stream: &TlsStream<S>) -> CertificateDer<'static> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().unwrap()[0].clone().into_owned()
}
