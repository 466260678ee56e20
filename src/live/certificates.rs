//! What the TLS handshakes of each listener need: read by workers, replaced by a reload.
//!
//! In: what the configuration's files gave. Out: the newest of it, for the next handshake; connections that exist go on
//! with what they began with.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

/// The certificates of one listener.
#[derive(Debug, Default)]
pub struct Cell(ArcSwapOption<Current>);

#[derive(Debug)]
struct Current {
    server: Arc<ServerConfig>,
    not_after_unix_s: Vec<u64>,
    hash: u64,
}

impl Cell {
    /// For the next handshake; none until the first ones are published.
    #[must_use]
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.0.load().as_ref().map(|current| Arc::clone(&current.server))
    }

    /// Puts certificates into force. The same content again changes nothing: sessions that may be resumed stay so.
    pub fn publish(&self, server: &Arc<ServerConfig>, not_after_unix_s: &[u64], hash: u64) {
        if self.0.load().as_ref().is_some_and(|current| current.hash == hash) {
            return;
        }
        self.0.store(Some(Arc::new(Current {
            server: Arc::clone(server),
            not_after_unix_s: not_after_unix_s.to_vec(),
            hash,
        })));
    }
}

/// The cells of all listeners, by their names.
#[derive(Debug, Default)]
pub struct Certificates(Mutex<Vec<(Arc<str>, Arc<Cell>)>>);

impl Certificates {
    /// A listener's cell, the same whenever it is asked for.
    #[must_use]
    pub fn cell(&self, listener: &str) -> Arc<Cell> {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = cells.iter().find(|(name, _)| &**name == listener) {
            return Arc::clone(cell);
        }
        let cell = Arc::<Cell>::default();
        cells.push((listener.into(), Arc::clone(&cell)));
        cell
    }

    /// For each listener with certificates when they end, in seconds since 1970.
    #[must_use]
    pub fn ends(&self) -> Vec<(Arc<str>, Vec<u64>)> {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = |cell: &Cell| cell.0.load().as_ref().map(|current| current.not_after_unix_s.clone());
        cells
            .iter()
            .filter_map(|(name, cell)| Some((Arc::clone(name), ends(cell)?)))
            .collect()
    }
}
