//! The last stage of a request: a backend's answer handed to the client, ours in its place, or the word that its
//! connection carries another protocol from here on.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::access::{Line, Sent};
use super::answer::{Answer, Finish, Keep, Kept, Relay, Watch};
use super::body::Source;
use super::failover::Answered;
use super::forward;
use super::pair::Pair;
use super::stage::{Stage, Upgrade};
use super::tunnel::{self, Open, Tunnel};
use super::upstream::Reply;
use super::wants::Wants;
use crate::engine::guard::{Failure, Run};
use crate::engine::vocab::Side;
use crate::live::tally::{Made, RunFailure, StatusClass};

impl Stage<'_> {
    /// Hands a backend's answer to the client, or ours in its place.
    pub(super) fn relay(
        &self,
        answered: Answered,
        pair: &Arc<Pair>,
        source: &Source,
        keep: Option<usize>,
        wants: &Wants,
        line: &mut Option<Box<Line>>,
    ) -> Response<Answer> {
        let Answered { side, failover, reply } = answered;
        if let Some(line) = line {
            (line.side, line.failover, line.body) = (Some(side), failover, Sent::from(source));
        }
        let mut response = match reply {
            Err(error) => self.make(source.broken().map_or_else(|| error.into(), Into::into)),
            Ok(reply) if reply.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return self.change_protocol(side, failover, reply, pair, wants);
            }
            Ok(reply) => self.hand_on(side, failover, reply, pair, keep, wants),
        };
        if wants.version != Version::HTTP_2 && !source.is_taken() && !self.origin.turn.is_passed_over(wants.sized) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    fn hand_on(
        &self,
        side: Side,
        failover: bool,
        reply: Reply,
        pair: &Arc<Pair>,
        keep: Option<usize>,
        wants: &Wants,
    ) -> Response<Answer> {
        let Reply {
            response,
            lease,
            latency,
        } = reply;
        let (mut parts, incoming) = response.into_parts();
        let tally = self.route.tally(self.worker.shard);
        tally.answered[side.index()].add(StatusClass::of(parts.status));
        let keep = keep.map(|cap| {
            Box::new(Keep {
                headers: parts.headers.clone(),
                body: Kept::Frames(Vec::new(), 0),
                hold: self.worker.live.budget.hold(),
                cap,
            })
        });
        let trailers = wants
            .trailers
            .then(|| forward::announced_trailers(&parts.headers))
            .flatten();
        forward::prepare_answer(&mut parts.headers, self.snapshot.via);
        // The library writes only trailers that are announced.
        if let Some(names) = trailers {
            parts.headers.insert(header::TRAILER, names);
        }
        self.name_side(&mut parts.headers, side);
        let watch = Watch {
            pair: Arc::clone(pair),
            shard: self.worker.shard,
            side,
            failover,
            status: parts.status,
            latency,
            keep,
        };
        // The version before chunks; whatever is not said in bytes ends with the connection.
        let by_closing = wants.version == Version::HTTP_10 && !parts.headers.contains_key(header::CONTENT_LENGTH);
        self.origin.turn.ends_by_closing(by_closing);
        let finish = Finish(Arc::clone(&self.origin.turn));
        let mut relay = Relay::new(incoming, lease, Some(watch), finish);
        // The length of what was not modified is a statement about what the client has; the library takes an answer that
        // is known to have no body for one whose length is wrong.
        if wants.version != Version::HTTP_2
            && parts.status == StatusCode::NOT_MODIFIED
            && parts.headers.contains_key(header::CONTENT_LENGTH)
        {
            relay.keep_length();
        }
        parts.version = Version::HTTP_11;
        let reason = parts.extensions.remove::<ReasonPhrase>();
        parts.extensions.clear();
        if let Some(reason) = reason {
            parts.extensions.insert(reason);
        }
        Response::from_parts(parts, Answer::Relayed(Box::new(relay)))
    }

    /// Tells the client that a backend has agreed to change the protocol; the connection's task does the rest.
    fn change_protocol(
        &self,
        side: Side,
        failover: bool,
        reply: Reply,
        pair: &Arc<Pair>,
        wants: &Wants,
    ) -> Response<Answer> {
        let tally = self.route.tally(self.worker.shard);
        let run_over = |run| {
            if failover {
                pair.failed_over(run);
            } else {
                pair.served(run, None);
            }
        };
        let Reply {
            mut response, latency, ..
        } = reply;
        let offered = wants.upgrade.as_ref();
        let agreed = offered.and_then(|offered| tunnel::agreed(offered, response.headers()));
        let Some(agreed) = agreed else {
            tally.failed[side.index()].add(RunFailure::Malformed);
            run_over(Run::failed(Failure::Malformed));
            return self.make(Made::Malformed);
        };
        let backend = hyper::upgrade::on(&mut response);
        tally.answered[side.index()].add(StatusClass::of(response.status()));
        run_over(Run::answered(response.status().as_u16(), latency));
        let (mut parts, _) = response.into_parts();
        forward::prepare_answer(&mut parts.headers, self.snapshot.via);
        self.name_side(&mut parts.headers, side);
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, agreed);
        let origin = self.origin;
        origin.turn.switch_protocols();
        origin.set_upgrade(Upgrade::Agreed(Box::new(Tunnel {
            pair: Arc::clone(pair),
            side,
            shard: self.worker.shard,
            backend,
            idle: self.snapshot.limits.tunnel_idle,
            drain: self.snapshot.limits.drain,
            open: Open::new(&self.worker.live, side),
        })));
        parts.version = Version::HTTP_11;
        Response::from_parts(parts, Answer::Made(None, Finish(Arc::clone(&origin.turn))))
    }

    fn name_side(&self, headers: &mut HeaderMap, side: Side) {
        if self.snapshot.served_by {
            headers.insert(forward::SERVED_BY, HeaderValue::from_static(side.as_str()));
        }
    }
}
