//! What is believed of a backend that is reached by TLS, and what is shown to it.
//!
//! In: the decoded members and the files that they name, read by whoever loads the configuration. Out: a [`BackendTls`],
//! or problems at the members. How connections use it is left to the data plane.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use sha2::{Digest as _, Sha256};

use crate::engine::ruleset::decode::At;
use crate::engine::ruleset::problem::{Place, Problem, Problems};

use super::raw::scalar::FilePath;
use super::raw::{self, Url};
use super::{ReadFile, path_at, pem, read_named};

/// What a TLS connection to a backend begins with.
#[derive(Clone, Debug)]
pub struct BackendTls {
    /// Roots, versions and certificate; no protocols.
    pub config: Arc<ClientConfig>,
    /// The name to ask for, if not the URL's.
    pub server_name: Option<ServerName<'static>>,
    /// What everything above was read from.
    pub digest: [u8; 32],
}

impl PartialEq for BackendTls {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for BackendTls {}

/// The TLS of both backends, where their URLs ask for it.
pub(super) fn read(
    backends: &raw::Backends,
    config: &Path,
    read_file: ReadFile<'_>,
    problems: &mut Problems,
) -> [Option<BackendTls>; 2] {
    [("legacy", &backends.legacy), ("new", &backends.new)].map(|(name, backend)| {
        let secured = |url: &At<Url>| matches!(url.value, Url::Host { tls: true, .. });
        let place = &backend.url.0.first()?.place;
        if !backend.url.0.iter().any(secured) {
            let tls = &backend.tls;
            let files = [&tls.ca, &tls.cert, &tls.key].into_iter().flatten();
            let named = files
                .map(|file| &file.place)
                .chain(tls.server_name.iter().map(|name| &name.place));
            for unused in named.take(1) {
                problems.problem(
                    unused.clone(),
                    format!("backends.{name}.tls"),
                    "nothing here is reached by TLS",
                    "write https:// in `url`, or remove `tls`",
                );
            }
            return None;
        }
        if !backend.url.0.iter().all(secured) {
            problems.problem(
                place.clone(),
                format!("backends.{name}.url"),
                "some replicas are reached by TLS and some are not",
                "write https:// in all of them",
            );
        }
        let mut reader = Reader {
            name,
            config,
            read_file: &mut *read_file,
            problems,
            digest: Sha256::new(),
        };
        reader.client(backend)
    })
}

struct Reader<'a, 'r> {
    name: &'a str,
    config: &'a Path,
    read_file: ReadFile<'r>,
    problems: &'a mut Problems,
    digest: Sha256,
}

impl Reader<'_, '_> {
    fn problem(&mut self, place: &Place, member: &str, what: impl Into<String>, remedy: &str) {
        let path = format!("backends.{}.{member}", self.name);
        self.problems.problem(place.clone(), path, what, remedy);
    }

    fn file(&mut self, member: &str, named: &At<FilePath>) -> Option<Vec<u8>> {
        let named = path_at(Some(named.clone()))?;
        match read_named(&named, self.config, self.read_file) {
            Ok(bytes) => {
                self.digest.update(member.as_bytes());
                self.digest.update(bytes.len().to_be_bytes());
                self.digest.update(&bytes);
                Some(bytes)
            }
            Err(problem) => {
                self.problems.add(Problem {
                    path: format!("backends.{}.tls.{member}", self.name),
                    ..problem
                });
                None
            }
        }
    }

    fn certificates(&mut self, member: &str, named: &At<FilePath>) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.file(member, named)?;
        match pem::certificates(&named.value.0, &bytes) {
            Ok(certificates) => Some(certificates),
            Err(what) => {
                self.problem(
                    &named.place,
                    &format!("tls.{member}"),
                    what,
                    "name a file with `-----BEGIN CERTIFICATE-----`",
                );
                None
            }
        }
    }

    fn client(&mut self, backend: &raw::Backend) -> Option<BackendTls> {
        let tls = &backend.tls;
        let name_wanted = |name: &str| ServerName::try_from(name.to_owned());
        let server_name = match &tls.server_name {
            Some(named) => {
                self.digest.update(named.value.0.as_bytes());
                if name_wanted(&named.value.0).is_err() {
                    self.problem(
                        &named.place,
                        "tls.server_name",
                        "no certificate can have this name",
                        "write the name of a host",
                    );
                }
                name_wanted(&named.value.0).ok()
            }
            None => {
                for url in &backend.url.0 {
                    if let Url::Host { host, .. } = &url.value
                        && name_wanted(host).is_err()
                    {
                        self.problem(
                            &url.place,
                            "url",
                            "no certificate can have this name",
                            "set `tls.server_name` to the name that its certificate has",
                        );
                    }
                }
                None
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // The provider knows both versions.
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .ok()?;
        let builder = match &tls.ca {
            Some(named) => {
                let mut roots = RootCertStore::empty();
                let (added, _) = roots.add_parsable_certificates(self.certificates("ca", named)?);
                if added == 0 {
                    self.problem(
                        &named.place,
                        "tls.ca",
                        "none of its certificates can be read",
                        "name a file with an authority's certificate",
                    );
                    return None;
                }
                builder.with_root_certificates(roots)
            }
            // A system that has none is a container with nothing but us in it.
            None => builder.clone().with_platform_verifier().unwrap_or_else(|_| {
                let roots = webpki_roots::TLS_SERVER_ROOTS
                    .iter()
                    .cloned()
                    .collect::<RootCertStore>();
                builder.with_root_certificates(roots)
            }),
        };
        let config = match (&tls.cert, &tls.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = self.certificates("cert", cert)?;
                let bytes = self.file("key", key)?;
                let secret = match pem::private_key(&key.value.0, &bytes) {
                    Ok(secret) => secret,
                    Err(what) => {
                        self.problem(
                            &key.place,
                            "tls.key",
                            what,
                            "name a file with `-----BEGIN PRIVATE KEY-----`",
                        );
                        return None;
                    }
                };
                match builder.with_client_auth_cert(chain, secret) {
                    Ok(config) => config,
                    Err(error) => {
                        let (what, remedy) = match error {
                            rustls::Error::InconsistentKeys(_) => (
                                "the key does not belong to the certificate".to_owned(),
                                "name the key that `cert` was made with",
                            ),
                            error => (
                                format!("the certificate and its key cannot be used: {error}"),
                                "take an ECDSA, Ed25519 or RSA key, and the certificate made with it",
                            ),
                        };
                        self.problem(&key.place, "tls.key", what, remedy);
                        return None;
                    }
                }
            }
            (Some(one), None) | (None, Some(one)) => {
                self.problem(
                    &one.place,
                    "tls",
                    "`cert` and `key` belong together",
                    "set both, or neither",
                );
                return None;
            }
        };
        Some(BackendTls {
            config: Arc::new(config),
            server_name,
            digest: self.digest.clone().finalize().into(),
        })
    }
}
