//! The scalars of the configuration: addresses, methods, headers, shares, and numbers that may not be zero.
//!
//! Pure. Each says what it expects and how to write it; `decode` does the rest.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use crate::engine::compare::{Pattern, Severity};
use crate::engine::flags::bucket::Threshold;
use crate::engine::identity::Pointer;
use crate::engine::ruleset::decode::{ByteSize, Decode, Decoder, Misfit, Scalar, Shape, decimal, duration};
use crate::engine::ruleset::problem::{near, quote};
use crate::engine::ruleset::route::StatusPattern;
use crate::engine::ruleset::yaml::Node;

/// How many worker threads serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One for each core that this process may use.
    Auto,
    /// This many, 1 to 64.
    Count(usize),
}

impl Scalar for Workers {
    const NAME: &'static str = "`auto` or a number";
    const KIND: &'static str = "`auto` or a number from 1 to 64";
    const REMEDY: &'static str = "write `auto` for one worker on each core";

    fn read(text: &str) -> Result<Self, Misfit> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(count @ 1..=64) if !text.starts_with(['+', '0']) => Ok(Self::Count(count)),
            _ => Err(Misfit::Kind),
        }
    }
}

/// An address of the network to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAddress(pub SocketAddr);

impl Scalar for SocketAddress {
    const NAME: &'static str = "address";
    const KIND: &'static str = "an address to listen on";
    const REMEDY: &'static str = "write IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080";

    fn read(text: &str) -> Result<Self, Misfit> {
        text.parse().map(Self).map_err(|_| Misfit::Kind)
    }
}

/// The origin of a web page (RFC 6454), or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub String);

impl Scalar for Origin {
    const NAME: &'static str = "origin";
    const KIND: &'static str = "the origin of a page";
    const REMEDY: &'static str =
        "write scheme and host as a browser sends them, such as https://shop.example, or \"*\" for every page";

    fn read(text: &str) -> Result<Self, Misfit> {
        let uri: Option<http::Uri> = text.parse().ok();
        let whole = uri.is_some_and(|uri| {
            let scheme = uri
                .scheme_str()
                .is_some_and(|scheme| matches!(scheme, "http" | "https"));
            let rebuilt = uri
                .scheme()
                .zip(uri.authority())
                .map(|(scheme, host)| format!("{scheme}://{host}"));
            scheme && rebuilt.is_some_and(|rebuilt| rebuilt == text) && !text.contains('@')
        });
        if text == "*" || (whole && text.to_lowercase() == text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Misfit::Kind)
        }
    }
}

/// A network in CIDR notation, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Scalar for Network {
    const NAME: &'static str = "network";
    const KIND: &'static str = "a network";
    const REMEDY: &'static str = "write ADDRESS/BITS, such as 10.0.0.0/8 or 2001:db8::/32, or one address";

    fn read(text: &str) -> Result<Self, Misfit> {
        let one = text.parse::<IpAddr>().map(IpNet::from);
        one.or_else(|_| text.parse())
            .map(|network| Self(network.trunc()))
            .map_err(|_| Misfit::Kind)
    }
}

/// A file's path. Relative ones count from the working directory of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl Scalar for FilePath {
    const NAME: &'static str = "path";
    const KIND: &'static str = "the path of a file";
    const REMEDY: &'static str = "write an absolute path, or one from the working directory";

    fn read(text: &str) -> Result<Self, Misfit> {
        if text.is_empty() || text.contains('\0') {
            Err(Misfit::Kind)
        } else {
            Ok(Self(text.into()))
        }
    }
}

/// A name that is not empty and has at most 200 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub String);

impl Scalar for Name {
    const NAME: &'static str = "name";
    const KIND: &'static str = "a name";
    const REMEDY: &'static str = "write 1 to 200 printable characters";

    fn read(text: &str) -> Result<Self, Misfit> {
        let good = !text.trim().is_empty() && text.chars().count() <= 200 && !text.chars().any(char::is_control);
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(Misfit::Kind)
        }
    }
}

/// A duration above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(pub Duration);

impl Scalar for Timeout {
    const NAME: &'static str = "duration";
    const KIND: &'static str = "a duration above zero";
    const REMEDY: &'static str = <Duration as Scalar>::REMEDY;

    fn read(text: &str) -> Result<Self, Misfit> {
        duration(text)
            .filter(|duration| !duration.is_zero())
            .map(Self)
            .ok_or(Misfit::Kind)
    }
}

/// A whole number of at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub usize);

impl Scalar for Count {
    const NAME: &'static str = "whole number";
    const KIND: &'static str = "a whole number of at least 1";
    const REMEDY: &'static str = <usize as Scalar>::REMEDY;
    const BARE: bool = true;

    fn read(text: &str) -> Result<Self, Misfit> {
        usize::read(text).and_then(|count| if count == 0 { Err(Misfit::Kind) } else { Ok(Self(count)) })
    }
}

/// How many bytes a header section may have: 8 KiB, below which hyper cannot work, to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderBytes(pub u64);

impl Scalar for HeaderBytes {
    const NAME: &'static str = ByteSize::NAME;
    const KIND: &'static str = "a size from 8KiB to 16MiB";
    const REMEDY: &'static str = "write a whole number with its unit, such as 64KiB";

    fn read(text: &str) -> Result<Self, Misfit> {
        let ByteSize(bytes) = ByteSize::read(text)?;
        if (8 << 10..=16 << 20).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(Misfit::Kind)
        }
    }
}

/// A percentage, `25`, `0.5` or `1%`, with at most four decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub Threshold);

impl Scalar for Percent {
    const NAME: &'static str = "percentage";
    const KIND: &'static str = "a percentage from 0 to 100";
    const REMEDY: &'static str = "write 25, 0.5 or 1%";
    const BARE: bool = true;

    fn read(text: &str) -> Result<Self, Misfit> {
        let buckets = decimal(text.strip_suffix('%').unwrap_or(text), 4)?;
        let threshold = u32::try_from(buckets)
            .ok()
            .filter(|buckets| *buckets <= Threshold::ALL.buckets());
        threshold
            .map(|buckets| Self(Threshold::from_buckets(buckets)))
            .ok_or(Misfit::Kind)
    }
}

/// A share, `0.001` or `0.1%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

impl Scalar for Share {
    const NAME: &'static str = "share";
    const KIND: &'static str = "a share from 0 to 1";
    const REMEDY: &'static str = "write 0.001 or 0.1%";
    const BARE: bool = true;

    fn read(text: &str) -> Result<Self, Misfit> {
        let share = match text.strip_suffix('%') {
            Some(percent) => f64::read(percent)? / 100.0,
            None => f64::read(text)?,
        };
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(Misfit::Kind)
        }
    }
}

/// A method that the data plane passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodName(pub Method);

const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

impl Decode for MethodName {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        const KIND: &str = "a method";
        let Some(text) = node.text() else {
            return decoder.expected(node, KIND, "write one such as GET or POST");
        };
        let meant = || near(text, METHODS).map(|near| format!("did you mean `{near}`?"));
        if matches!(text, "CONNECT" | "TRACE") {
            return decoder.refuse(
                node.mark,
                format!("{text} is never forwarded"),
                "remove it: it is answered with 405",
            );
        }
        let upper = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
        let Some(method) = Method::from_bytes(text.as_bytes()).ok().filter(|_| upper) else {
            return decoder.expected(
                node,
                KIND,
                meant().unwrap_or_else(|| "write one such as GET or POST".to_owned()),
            );
        };
        if !METHODS.contains(&text)
            && let Some(remedy) = meant()
        {
            decoder.warn(node.mark, format!("{} is no common method", quote(text)), remedy);
        }
        Some(Self(method))
    }

    fn shape() -> Shape {
        Shape::Scalar("method")
    }
}

/// The path that a route matches: a prefix that ends at a segment boundary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(pub String);

impl Scalar for PathPrefix {
    const NAME: &'static str = "path prefix";
    const KIND: &'static str = "a path that begins with `/`";
    const REMEDY: &'static str = "write the path of a URL, such as /webhook/whatsapp";

    fn read(text: &str) -> Result<Self, Misfit> {
        if !text.starts_with('/') || text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(Misfit::Kind);
        }
        if text.contains(['?', '#']) {
            return Err(Misfit::range(
                "a path without query or fragment is expected",
                "end it before the `?` or `#`",
            ));
        }
        if text.contains('*') {
            return Err(Misfit::range(
                "`*` is no wildcard here",
                "a path is a prefix: end it before the `*`",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Scalar for HeaderName {
    const NAME: &'static str = "header name";
    const KIND: &'static str = "the name of a header";
    const REMEDY: &'static str = "write it as in HTTP, such as x-shopper-id";

    fn read(text: &str) -> Result<Self, Misfit> {
        Self::from_bytes(text.as_bytes()).map_err(|_| Misfit::Kind)
    }
}

impl Scalar for HeaderValue {
    const NAME: &'static str = "header value";
    const KIND: &'static str = "the value of a header";
    const REMEDY: &'static str = "write it in quotes, without line breaks";

    fn read(text: &str) -> Result<Self, Misfit> {
        Self::from_str(text).map_err(|_| Misfit::Kind)
    }
}

impl Scalar for Pointer {
    const NAME: &'static str = "JSON pointer";
    const KIND: &'static str = "a JSON pointer";
    const REMEDY: &'static str = "write it as in RFC 6901, such as /customer/id, with `*` for every member of an array";

    fn read(text: &str) -> Result<Self, Misfit> {
        Self::parse(text).map_err(|error| Misfit::range(error.to_string(), Self::REMEDY))
    }
}

impl Scalar for Pattern {
    const NAME: &'static str = "place pattern";
    const KIND: &'static str = "a pattern of places";
    const REMEDY: &'static str = "write a pointer such as /**/request_id, @status, @body or @header.NAME";

    fn read(text: &str) -> Result<Self, Misfit> {
        Self::parse(text).map_err(|error| Misfit::range(error.to_string(), Self::REMEDY))
    }
}

impl Scalar for Severity {
    const NAME: &'static str = "severity";
    const KIND: &'static str = "critical, major or minor";
    const REMEDY: &'static str = "choose one of them";

    fn read(text: &str) -> Result<Self, Misfit> {
        Self::parse(text).ok_or(Misfit::Kind)
    }
}

impl Scalar for StatusPattern {
    const NAME: &'static str = "status or class";
    const KIND: &'static str = "a status from 100 to 599, or a class such as 5xx";
    const REMEDY: &'static str = "write 503 or 5xx";

    fn read(text: &str) -> Result<Self, Misfit> {
        Self::parse(text).ok_or(Misfit::Kind)
    }
}

/// One status, 100 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Scalar for Status {
    const NAME: &'static str = "status";
    const KIND: &'static str = "a status from 100 to 599";
    const REMEDY: &'static str = "write three digits, such as 404";

    fn read(text: &str) -> Result<Self, Misfit> {
        match StatusPattern::parse(text) {
            Some(StatusPattern::Code(status)) => Ok(Self(status)),
            _ => Err(Misfit::Kind),
        }
    }
}
