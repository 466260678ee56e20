//! TLS of a listener: certificates, keys and authorities read, checked and made into what a handshake needs.
//!
//! In: the files that a listener names, as bytes. Out: a [`Tls`], or problems and warnings at the places that name the files.
//! The provider of cryptography is named in each configuration; there is none for the process. When a new one comes into
//! force is left to whoever publishes.

use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use xxhash_rust::xxh64::Xxh64;

use super::{ReadFile, path_at, pem, raw, read_named};
use crate::engine::ruleset::decode::At;
use crate::engine::ruleset::problem::{Problem, Problems, quote};
use crate::telemetry::clock;

/// What a client may ask to speak, in our order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What the handshakes of a listener need.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Ready to be used by a handshake.
    pub server: Arc<ServerConfig>,
    /// When each certificate ends, in seconds since 1970, in the order of the file; the first is the default.
    pub not_after_unix_s: Vec<u64>,
    // Over everything that was read.
    hash: u64,
}

/// The same files make the same, however often they are read.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Tls {}

impl Tls {
    /// Tells one content of all files from another.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }
}

/// The files that listeners name, each read once.
pub(super) struct Files(Vec<(PathBuf, Result<Vec<u8>, Problem>)>);

impl Files {
    /// Reads what these listeners name.
    pub fn read(listeners: &[At<raw::Listener>], config: &Path, read_file: ReadFile<'_>) -> Self {
        let mut files: Vec<(PathBuf, _)> = Vec::new();
        for tls in listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            let more = tls.certificates.iter().flat_map(|pair| [&pair.cert, &pair.key]);
            for named in [&tls.cert, &tls.key].into_iter().chain(more).chain(&tls.client_ca) {
                let Some(named) = path_at(Some(named.clone())) else {
                    continue;
                };
                if files.iter().all(|(path, _)| *path != named.value) {
                    let read = read_named(&named, config, read_file);
                    files.push((named.value, read));
                }
            }
        }
        Self(files)
    }
}

/// One listener's files on their way to a [`Tls`].
struct Reading<'a> {
    files: &'a Files,
    problems: &'a mut Problems,
    path: String,
    hash: Xxh64,
    provider: Arc<CryptoProvider>,
}

/// Makes what a listener's handshakes need; nothing, if a problem was added.
pub(super) fn build(written: &raw::ListenerTls, path: String, files: &Files, problems: &mut Problems) -> Option<Tls> {
    let mut reading = Reading {
        files,
        problems,
        path,
        hash: Xxh64::new(0),
        provider: Arc::new(ring::default_provider()),
    };
    let first = reading.pair("", &written.cert, &written.key);
    let more: Vec<_> = written
        .certificates
        .iter()
        .enumerate()
        .map(|(index, pair)| reading.pair(&format!("certificates[{index}]."), &pair.cert, &pair.key))
        .collect();
    let client_ca = written.client_ca.as_ref().map(|named| reading.roots(named));
    let pairs = std::iter::once(first).chain(more).collect::<Option<Vec<_>>>()?;
    let client_ca = match client_ca {
        Some(roots) => Some(roots?),
        None => None,
    };
    let versions: &[_] = match written.min_version {
        raw::TlsVersion::Two => &[&rustls::version::TLS13, &rustls::version::TLS12],
        raw::TlsVersion::Three => &[&rustls::version::TLS13],
    };
    reading
        .hash
        .write_u8(u8::from(written.min_version == raw::TlsVersion::Two));
    let (keys, not_after_unix_s): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    match server(&reading.provider, versions, client_ca, keys) {
        Ok(server) => Some(Tls {
            server: Arc::new(server),
            not_after_unix_s,
            hash: reading.hash.finish(),
        }),
        Err(error) => {
            let what = format!("TLS cannot be set up: {error}");
            reading.problem("cert", &written.cert, what, "see to these files");
            None
        }
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    client_ca: Option<Arc<RootCertStore>>,
    keys: Vec<Arc<CertifiedKey>>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        Some(roots) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|error| error.to_string())?,
        ),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(ByName(keys)));
    // Made anew with every content of the files: who was let in by an authority that is gone must ask again.
    server.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    server.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(server)
}

impl Reading<'_> {
    fn problem(&mut self, member: &str, at: &At<raw::scalar::FilePath>, what: String, remedy: &str) {
        let path = format!("{}.{member}", self.path);
        self.problems.problem(at.place.clone(), path, what, remedy);
    }

    fn file(&mut self, member: &str, named: &At<raw::scalar::FilePath>) -> Option<Vec<u8>> {
        let (_, read) = self.files.0.iter().find(|(path, _)| *path == named.value.0)?;
        match read {
            Ok(bytes) => {
                self.hash.write_usize(bytes.len());
                self.hash.write(bytes);
                Some(bytes.clone())
            }
            Err(problem) => {
                self.problems.add(Problem {
                    place: named.place.clone(),
                    path: format!("{}.{member}", self.path),
                    ..problem.clone()
                });
                None
            }
        }
    }

    fn chain(
        &mut self,
        member: &str,
        named: &At<raw::scalar::FilePath>,
        remedy: &str,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.file(member, named)?;
        let what = match pem::certificates(&named.value.0, &bytes) {
            Ok(chain) => return Some(chain),
            Err(what) => what,
        };
        self.problem(member, named, what, remedy);
        None
    }

    fn pair(
        &mut self,
        of: &str,
        cert: &At<raw::scalar::FilePath>,
        key: &At<raw::scalar::FilePath>,
    ) -> Option<(Arc<CertifiedKey>, u64)> {
        let (cert_member, key_member) = (format!("{of}cert"), format!("{of}key"));
        let remedy = "name a PEM file with the server's certificate first and its issuers after it";
        let chain = self.chain(&cert_member, cert, remedy);
        let key_bytes = self.file(&key_member, key);
        let (chain, key_bytes) = (chain?, key_bytes?);
        let key_file = quote(&key.value.0.to_string_lossy());
        let private = match pem::private_key(&key.value.0, &key_bytes) {
            Ok(private) => private,
            Err(what) => {
                self.problem(
                    &key_member,
                    key,
                    what,
                    "name a PEM file with the key, without a password",
                );
                return None;
            }
        };
        let cert_file = quote(&cert.value.0.to_string_lossy());
        if let Err(error) = ParsedCertificate::try_from(&chain[0]) {
            let what = format!("the first certificate of {cert_file} cannot be used: {error}");
            self.problem(&cert_member, cert, what, remedy);
            return None;
        }
        let (not_before, not_after) = self.validity(&chain[0]);
        let now = u64::try_from(clock::unix_ms() / 1_000).unwrap_or(0);
        let late = match (not_before > now, not_after < now) {
            (true, _) => Some("is not valid yet"),
            (_, true) => Some("has expired"),
            _ => None,
        };
        if let Some(late) = late {
            let path = format!("{}.{cert_member}", self.path);
            let what = format!("the certificate of {cert_file} {late}: clients will refuse it");
            self.problems.warning(
                cert.place.clone(),
                path,
                what,
                "put a new one in its place; it is taken over at once",
            );
        }
        match CertifiedKey::from_der(chain, private, &self.provider) {
            Ok(pair) => Some((Arc::new(pair), not_after)),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let what = format!("the key of {key_file} is not that of the certificate of {cert_file}");
                self.problem(&key_member, key, what, "name the two files that were made together");
                None
            }
            Err(error) => {
                let what = format!("the key of {key_file} cannot be used: {error}");
                self.problem(&key_member, key, what, "take an ECDSA, Ed25519 or RSA key");
                None
            }
        }
    }

    /// From when to when a certificate is valid, in seconds since 1970.
    fn validity(&self, certificate: &CertificateDer<'_>) -> (u64, u64) {
        // The verifier looks at these two times before anything else, and tells them when it is asked about another age.
        let asked_at = |seconds| {
            let parsed = ParsedCertificate::try_from(certificate).ok()?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], at, algorithms).err()
        };
        let not_before = match asked_at(0) {
            Some(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                not_before.as_secs()
            }
            _ => 0,
        };
        let not_after = match asked_at(u64::from(u32::MAX) * 1_000) {
            Some(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                not_after.as_secs()
            }
            _ => u64::MAX,
        };
        (not_before, not_after)
    }

    fn roots(&mut self, named: &At<raw::scalar::FilePath>) -> Option<Arc<RootCertStore>> {
        let remedy = "name a PEM file with the certificates of the authorities that sign your clients";
        let chain = self.chain("client_ca", named, remedy)?;
        let mut roots = RootCertStore::empty();
        for certificate in chain {
            if let Err(error) = roots.add(certificate) {
                let file = quote(&named.value.0.to_string_lossy());
                let what = format!("a certificate of {file} cannot be used as an authority: {error}");
                self.problem("client_ca", named, what, remedy);
                return None;
            }
        }
        Some(Arc::new(roots))
    }
}

/// Chooses by the name that the client asks for: one that is written out in a certificate before one that a wildcard
/// covers, and the first pair for every other name and for none.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ByName {
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let asked = ServerName::DnsName(DnsName::try_from(name).ok()?);
        // A name beside it that nobody has: whoever covers that one too, does so by a wildcard.
        let beside = name
            .split_once('.')
            .map(|(_, rest)| format!("understudy-none-has-this.{rest}"));
        let beside = beside
            .and_then(|beside| DnsName::try_from(beside).ok())
            .map(ServerName::DnsName);
        let mut by_wildcard = None;
        for pair in &self.0 {
            let Some(certificate) = pair.cert.first().and_then(|der| ParsedCertificate::try_from(der).ok()) else {
                continue;
            };
            if verify_server_name(&certificate, &asked).is_err() {
                continue;
            }
            match &beside {
                Some(beside) if verify_server_name(&certificate, beside).is_ok() => {
                    by_wildcard = by_wildcard.or(Some(pair));
                }
                _ => return Some(pair),
            }
        }
        by_wildcard
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().filter(|_| self.0.len() > 1);
        named.and_then(|name| self.find(name)).or(self.0.first()).cloned()
    }
}
