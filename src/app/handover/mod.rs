//! A new process takes the place of a running one, and no connection is lost.
//!
//! The new one asks for the listening sockets and gets them as descriptors: the queues behind them live on, whoever accepts.
//! Then it asks for the state, of which there is one owner at a time; then it serves, and the old one finishes what it
//! has. Until the last word each failure of the new one leaves the old one as it was. docs/adr/0007 says why.

mod guest;
mod host;
mod inherited;
mod wire;

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::engine::guard::KillSet;
use crate::live::Live;
use crate::store;
use crate::telemetry::spawn;

pub(super) use guest::Guest;
pub(super) use host::{Host, Kept, MODE, make_room};
pub use inherited::Inherited;

/// Shares kills with the other process until that one ends: what is killed in either is in force in both.
pub(super) async fn exchange(stream: UnixStream, live: Arc<Live>) {
    let stream = stream
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixStream::from_std(stream));
    let (mut from, mut to) = match stream {
        Ok(stream) => stream.into_split(),
        Err(error) => {
            tracing::error!(%error, "kills are not shared with the other process of this hand-over");
            return;
        }
    };
    let its_live = Arc::clone(&live);
    let speaks = spawn::task("kills to the other process", async move {
        let mut changes = its_live.kills.watch();
        let mut said = String::new();
        loop {
            changes.mark_unchanged();
            let kills = store::write_kills(&its_live.kills.read(KillSet::clone));
            // What the other one said comes back as a change once, and is then no news.
            if kills != said {
                if wire::say(&mut to, wire::Kind::Kills, &kills).await.is_err() {
                    return;
                }
                said = kills;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
    while let Ok((wire::Kind::Kills, text)) = wire::hear(&mut from).await {
        let Some(kills) = store::read_kills(&text) else { break };
        let news = live.kills.read(|known| known.clone().join(&kills));
        if news {
            live.kills.change(|known| known.join(&kills));
        }
    }
    speaks.abort();
}
