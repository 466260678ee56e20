//! The bounds that both versions of HTTP share.

use std::time::Duration;

/// For how long a connection may have been idle to carry a request that must not be sent twice.
pub(super) const FRESH: Duration = Duration::from_millis(500);

/// The most bytes that wait on a connection, in either direction: as much again is in memory for every client whose
/// backend does not read. A longer header section of an answer is a malformed answer.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;
