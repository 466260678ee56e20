//! A backend as written: where it is, how it is spoken with, how long it may take, how its replicas are looked after.
//!
//! Pure.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use crate::engine::ruleset::decode::{At, Decode, Decoder, Misfit, Scalar, Shape, record, words};
use crate::engine::ruleset::yaml::{Node, Value};

use super::scalar::{Count, FilePath, Name, Timeout};

record! {
    /// One service.
    pub struct Backend {
        /// Where it is: `http://HOST:PORT`, `https://HOST:PORT`, or `unix:/PATH` for a socket file; or a list of them, which
        /// are replicas of one service. Requests go to every address that a name has, to whichever has less to do.
        url: Urls,
        /// The longest wait for a connection, whatever number of addresses are tried.
        connect_timeout: Timeout = "1s",
        /// How often names are looked up. A look-up that fails changes nothing; one is made at once when a connection fails.
        dns_refresh: Timeout = "30s",
        /// Whether its addresses are asked if they are well. An address that cannot be connected to is out of service in
        /// any case while there are others.
        health: Health = "{}",
        /// How an address that is out of service is tried again. No request is spent on that.
        ejection: Ejection = "{}",
        /// The longest wait for an answer's headers after the request's last byte.
        timeout: Timeout = "10s",
        /// The longest pause within an answer's body; then the answer is cut. `null` is no limit: an event stream that says
        /// nothing for hours needs it.
        body_idle: Option<Timeout> = "10m",
        /// How long an unused connection is kept: less than the service keeps it.
        idle: Timeout = "1500ms",
        /// What is believed and shown where the URL says `https`.
        tls: Tls = "{}",
        /// The protocol spoken with it.
        http: HttpVersion = "auto",
        /// Which copies of requests it may be sent.
        copies: Copies = "safe_methods",
    }
    later: "retired";
}

record! {
    /// TLS to a service: versions 1.2 and 1.3. Its certificate is always checked, for the name in the URL.
    pub struct Tls {
        /// File with the certificates of the authorities to believe, in PEM. `null` is those of the system, or those of
        /// Mozilla where the system has none.
        ca: Option<At<FilePath>> = "null",
        /// File with the certificate to show, and those between it and its authority, in PEM.
        cert: Option<At<FilePath>> = "null",
        /// File with the key of `cert`, in PEM.
        key: Option<At<FilePath>> = "null",
        /// The name that the certificate must have, in place of the one in the URL; it is also the name asked for.
        server_name: Option<At<Name>> = "null",
    }
}

record! {
    /// Requests that ask each address of a service whether it is well; answers of 200 to 399 say so.
    pub struct Health {
        /// The path to ask for, such as `/healthz`. `null` is not to ask.
        path: Option<CheckPath> = "null",
        /// The time from one to the next.
        interval: Timeout = "5s",
        /// The longest wait for the whole of one.
        timeout: Timeout = "1s",
        /// Good answers in a row that bring an address back into service.
        healthy: Count = "2",
        /// Bad ones, or none, in a row that take it out.
        unhealthy: Count = "3",
    }
}

record! {
    /// How an address that cannot be connected to is tried again.
    pub struct Ejection {
        /// The time to the first try; it doubles with each that fails.
        first: Timeout = "1s",
        /// The longest time between two tries.
        longest: At<Timeout> = "30s",
    }
}

words! {
    /// The protocol spoken with a service.
    pub enum HttpVersion {
        /// By TLS what both prefer, HTTP/2 first; in plain text HTTP/1.1.
        Auto = "auto",
        /// HTTP/1.1.
        One = "1",
        /// HTTP/2, in plain text too. Upgrades such as WebSocket are asked for in HTTP/1.1 all the same.
        Two = "2",
    }
}

words! {
    /// Which copies of requests a service may be sent.
    pub enum Copies {
        /// Copies of GET, HEAD and OPTIONS only.
        SafeMethods = "safe_methods",
        /// All: it honours `x-understudy-shadow: 1` and then acts on nothing.
        DryRun = "dry_run",
        /// All: what it does reaches nobody.
        Isolated = "isolated",
    }
}

/// Where a backend is: `http://host[:port]`, `https://host[:port]` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Url {
    /// Over the network.
    Host {
        /// Whether it is reached by TLS.
        tls: bool,
        /// Name or address; of an IPv6 address without its brackets.
        host: String,
        /// 80 or 443 if the URL has none.
        port: u16,
    },
    /// A socket file.
    Socket(PathBuf),
}

impl Url {
    /// `host:port`, an IPv6 address in brackets; of a socket file `unix:/path`.
    #[must_use]
    pub fn authority(&self) -> String {
        match self {
            Self::Host { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Host { host, port, .. } => format!("{host}:{port}"),
            Self::Socket(path) => format!("unix:{}", path.display()),
        }
    }
}

impl Scalar for Url {
    const NAME: &'static str = "URL";
    const KIND: &'static str = "a URL";
    const REMEDY: &'static str =
        "write http://HOST:PORT, such as http://127.0.0.1:9001, https://HOST:PORT, or unix:/PATH for a socket file";

    fn read(text: &str) -> Result<Self, Misfit> {
        let misfit = |what: &str, remedy: &str| Err(Misfit::Because(what.to_owned(), remedy.to_owned()));
        if let Some(path) = text.strip_prefix("unix:") {
            // A socket's path has to fit into 108 bytes.
            return match path {
                _ if path.is_empty() || path.contains('\0') => Err(Misfit::Kind),
                _ if path.len() > 107 => misfit("a socket file's path is over 107 bytes", "choose a shorter one"),
                _ => Ok(Self::Socket(path.into())),
            };
        }
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(Misfit::Kind),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return misfit(
                "a backend's URL has a path",
                "a request keeps its own path: write http://HOST:PORT",
            );
        }
        if rest.contains('@') {
            return misfit(
                "a backend's URL has a user name",
                "headers pass unchanged: let the client send its credentials",
            );
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let Some((host, port)) = v6.split_once(']') else {
                    return Err(Misfit::Kind);
                };
                host.parse::<Ipv6Addr>().map_err(|_| Misfit::Kind)?;
                (host, port)
            }
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let v6 = host.contains(':');
        let name = !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => Some(if tls { 443 } else { 80 }),
            None => None,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0 && !digits.starts_with('+')),
        };
        match port {
            Some(port) if v6 || name => Ok(Self::Host {
                tls,
                host: host.to_owned(),
                port,
            }),
            _ => Err(Misfit::Kind),
        }
    }
}

/// The most URLs of one backend.
const URLS: usize = 64;

/// One URL, or a list of them that are replicas of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls(pub Vec<At<Url>>);

impl Decode for Urls {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        if !matches!(node.value, Value::Sequence(_)) {
            return At::<Url>::decode(node, decoder).map(|url| Self(vec![url]));
        }
        let urls = Vec::<At<Url>>::decode(node, decoder)?;
        if urls.is_empty() || urls.len() > URLS {
            let what = format!("{} URLs, but a service has 1 to {URLS}", urls.len());
            return decoder.refuse(
                node.mark,
                what,
                "list its replicas, or one name that has all their addresses",
            );
        }
        for (at, url) in urls.iter().enumerate() {
            if urls[..at].iter().any(|earlier| earlier.value == url.value) {
                return decoder.refuse_at(url.place.clone(), "the same URL twice", "list each replica once");
            }
        }
        Some(Self(urls))
    }

    fn shape() -> Shape {
        Shape::Scalar("URL or list of URLs")
    }
}

/// What a health check asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckPath(pub String);

impl Scalar for CheckPath {
    const NAME: &'static str = "path";
    const KIND: &'static str = "a path that begins with `/`";
    const REMEDY: &'static str = "write the path of a URL, such as /healthz";

    fn read(text: &str) -> Result<Self, Misfit> {
        let good =
            text.starts_with('/') && text.len() <= 1_024 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        good.then(|| Self(text.to_owned())).ok_or(Misfit::Kind)
    }
}
