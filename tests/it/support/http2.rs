//! Clients that speak HTTP/2 properly.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::client::Answered;

/// A connection over HTTP/2 as libraries make it.
pub struct Client2 {
    sender: SendRequest<Bytes>,
}

impl Client2 {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with(address, &h2::client::Builder::new()).await
    }

    pub async fn with(address: SocketAddr, builder: &h2::client::Builder) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, builder).await
    }

    pub async fn over<S>(stream: S, builder: &h2::client::Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    /// Sends a head; the body is the caller's.
    pub async fn begin(&mut self, request: Request<()>, is_whole: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.sender = self.sender.clone().ready().await.unwrap();
        self.sender.send_request(request, is_whole).unwrap()
    }

    /// Whether the other side still takes requests on this connection.
    #[allow(dead_code, reason = "each binary of tests uses its part")]
    pub async fn is_open(&mut self) -> bool {
        self.sender.clone().ready().await.is_ok()
    }

    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Answered, h2::Error> {
        let (head, body) = request.into_parts();
        let (answer, mut stream) = self.begin(Request::from_parts(head, ()), body.is_empty()).await;
        if !body.is_empty() {
            stream.send_data(body, true)?;
        }
        let (head, body) = answer.await?.into_parts();
        Ok(Answered {
            status: head.status.as_u16(),
            headers: head.headers,
            body: whole(body).await?,
        })
    }
}

/// A request to one host over HTTP/2.
pub fn request(method: &str, path: &str, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Bytes> {
    let uri = format!("http://shop.example:81{path}");
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// All of an answer's body.
pub async fn whole(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await.transpose()? {
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all.into())
}
