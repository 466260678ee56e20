//! Certificates and keys in PEM, as the files of listeners and of backends hold them.
//!
//! Pure: a file's name and bytes in, what it holds out, or in words why not. Where that is told, and with which remedy, is
//! the caller's.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::engine::ruleset::problem::quote;

/// All certificates of a file, at least one.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn certificates(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let file = quote(&file.to_string_lossy());
    match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
        Ok(all) if all.is_empty() => Err(format!("{file} holds no certificate in PEM")),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("{file} cannot be read as PEM: {error}")),
    }
}

/// The private key of a file.
///
/// # Errors
/// That there is none. What else is wrong with a key is not told: the words of the error may hold a part of it.
pub(super) fn private_key(file: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let file = quote(&file.to_string_lossy());
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| format!("{file} holds no private key in PEM"))
}
