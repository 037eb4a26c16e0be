//! One request to a web host under TLS, and the one response (RFC 9112): bounded, by a connection of its own, with
//! neither redirects nor cookies.

#[cfg(test)]
pub(crate) mod sample;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use httparse::{EMPTY_HEADER, Status};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Header fields that are looked at; a response with more is none.
const FIELDS_MAX: usize = 64;
/// Octets of a response's body.
const BODY_MAX: usize = 64 * 1024;
/// Octets of a response, with what frames it.
const RESPONSE_MAX: usize = 2 * BODY_MAX;
/// How long one address may take until its host has proved its name: others may answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// There is no connection, or it broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nobody is there.
    #[error("it does not answer")]
    Silent,
    /// What came is none.
    #[error("{0}")]
    Response(#[from] BadResponse),
}

/// Why something is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// It is no HTTP, or ends before its end.
    #[error("the answer is malformed or cut short")]
    Malformed,
    /// It is larger than what is read.
    #[error("it is larger than {BODY_MAX} octets")]
    TooLarge,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status code.
    pub status: u16,
    /// Its header fields: names as they came, and values that are text.
    pub fields: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// The response that `bytes` are, all of them; whether the host has `ended` the connection counts where nothing else
    /// says that it is whole. One to HEAD has no body, whatever its header says.
    ///
    /// # Errors
    /// [`BadResponse`].
    pub fn read(bytes: &[u8], ended: bool, to_head: bool) -> Result<Self, BadResponse> {
        if bytes.len() > RESPONSE_MAX {
            return Err(BadResponse::TooLarge);
        }
        let mut fields = [EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        let head = match parsed.parse(bytes).map_err(|_| BadResponse::Malformed)? {
            Status::Complete(length) => length,
            Status::Partial => return Err(BadResponse::Malformed),
        };
        let text = |value: &[u8]| std::str::from_utf8(value).map(|value| value.trim().to_owned());
        let fields = parsed.headers.iter();
        let fields = fields.filter_map(|field| Some((field.name.to_owned(), text(field.value).ok()?)));
        let status = parsed.code.ok_or(BadResponse::Malformed)?;
        let mut response = Self { status, fields: fields.collect(), body: Vec::new() };
        if !to_head {
            response.body = response.body_in(&bytes[head..], ended)?.ok_or(BadResponse::Malformed)?;
        }
        if response.body.len() > BODY_MAX { Err(BadResponse::TooLarge) } else { Ok(response) }
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// The body that `rest` holds; `None` if that is cut short.
    fn body_in(&self, rest: &[u8], ended: bool) -> Result<Option<Vec<u8>>, BadResponse> {
        match (self.field("transfer-encoding"), self.field("content-length")) {
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => unchunked(rest),
            (Some(_), _) => Err(BadResponse::Malformed),
            (None, Some(length)) => {
                let length: usize = length.parse().map_err(|_| BadResponse::Malformed)?;
                if length > BODY_MAX {
                    return Err(BadResponse::TooLarge);
                }
                Ok(rest.get(..length).map(<[u8]>::to_vec))
            }
            (None, None) => Ok(ended.then(|| rest.to_vec())),
        }
    }
}

/// What the chunks hold; `None` if the last is not there.
fn unchunked(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, BadResponse> {
    let mut body = Vec::new();
    loop {
        let (begin, length) = match httparse::parse_chunk_size(bytes).map_err(|_| BadResponse::Malformed)? {
            Status::Complete(found) => found,
            Status::Partial => return Ok(None),
        };
        let length = usize::try_from(length).map_err(|_| BadResponse::TooLarge)?;
        if length == 0 {
            return Ok(Some(body));
        }
        if body.len().saturating_add(length) > BODY_MAX {
            return Err(BadResponse::TooLarge);
        }
        let end = begin + length;
        match (bytes.get(begin..end), bytes.get(end..end + 2)) {
            (Some(chunk), Some(b"\r\n")) => body.extend_from_slice(chunk),
            (_, Some(_)) => return Err(BadResponse::Malformed),
            (_, None) => return Ok(None),
        }
        bytes = &bytes[end + 2..];
    }
}

/// A connection to the web host at an address, once that has proved its name.
///
/// # Errors
/// [`WebError`].
pub async fn connect(
    tls: &Arc<ClientConfig>,
    address: SocketAddr,
    host: &str,
) -> Result<TlsStream<TcpStream>, WebError> {
    connected(tls, address, host, CONNECT_TIMEOUT).await
}

/// What the host says to `request`, which closes the connection and is one of HEAD if `is_head`. The caller bounds the
/// time.
///
/// # Errors
/// [`WebError`].
pub async fn ask(
    mut stream: TlsStream<TcpStream>,
    request: &[u8],
    is_head: bool,
) -> Result<Response, WebError> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let (bytes, ended) = whole(&mut stream).await?;
    Ok(Response::read(&bytes, ended, is_head)?)
}

async fn connected(
    tls: &Arc<ClientConfig>,
    address: SocketAddr,
    host: &str,
    limit: Duration,
) -> Result<TlsStream<TcpStream>, WebError> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::clone(tls)).connect(name, stream).await
    };
    Ok(timeout(limit, connecting).await.map_err(|_| WebError::Silent)??)
}

/// What comes until the connection ends, no more than a response may have and one octet; and whether the host ended it,
/// or somebody has cut it off.
async fn whole(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    match stream.take(RESPONSE_MAX as u64 + 1).read_to_end(&mut bytes).await {
        Ok(_) => Ok((bytes, true)),
        // Many web hosts end it without a word, too; the response says whether it is whole.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok((bytes, false)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use shared::smtp::client::verified;
    use tokio::net::TcpListener;

    use super::*;

    fn read(response: &str, ended: bool) -> Result<Vec<u8>, BadResponse> {
        Response::read(response.as_bytes(), ended, false).map(|response| response.body)
    }

    #[test]
    fn a_body_comes_whole_in_all_three_framings() {
        let head = "HTTP/1.1 200 OK\r\nReplay-Nonce: abc \r\n";
        for framed in [
            "Content-Length: 5\r\n\r\nhello",
            "\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n",
            "Content-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            let response = format!("{head}{framed}");
            assert_eq!(read(&response, true).as_deref(), Ok(&b"hello"[..]), "{framed}");
            // Whoever cuts it off is found out by the framing, or because it is TLS that says where it ends.
            let is_framed = !framed.starts_with('\r');
            assert_eq!(read(&response, false).is_ok(), is_framed, "{framed}");
            for length in 0..response.len().saturating_sub(2) {
                let cut = read(&response[..length], false);
                assert_eq!(cut, Err(BadResponse::Malformed), "{length} of {framed}");
            }
        }
        let to_head = format!("{head}Content-Length: 5\r\n\r\n");
        let response = Response::read(to_head.as_bytes(), false, true).expect("whole");
        assert_eq!((response.status, response.field("replay-nonce")), (200, Some("abc")));
        assert_eq!(response.field("location"), None);
    }

    #[test]
    fn anything_else_is_no_response() {
        let text = "HTTP/1.1 200 OK\r\n";
        for (response, why) in [
            ("220 mx.example ESMTP\r\n".to_owned(), BadResponse::Malformed),
            (format!("{text}Content-Length: 9\r\n\r\nhello"), BadResponse::Malformed),
            (format!("{text}Content-Length: -1\r\n\r\nhello"), BadResponse::Malformed),
            (format!("{text}Content-Length: 65537\r\n\r\n"), BadResponse::TooLarge),
            (format!("{text}Transfer-Encoding: gzip\r\n\r\nhello"), BadResponse::Malformed),
            (format!("{text}Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n"), BadResponse::Malformed),
            (format!("{text}Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n"), BadResponse::TooLarge),
            (format!("{text}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"), BadResponse::Malformed),
            (format!("{text}X: {}", "x".repeat(RESPONSE_MAX)), BadResponse::TooLarge),
            (format!("{text}\r\n{}", "x".repeat(BODY_MAX + 1)), BadResponse::TooLarge),
            (format!("{text}{}\r\n", "X: y\r\n".repeat(FIELDS_MAX + 1)), BadResponse::Malformed),
        ] {
            assert_eq!(read(&response, true), Err(why), "{}", response.get(..80).unwrap_or(&response));
        }
    }

    #[tokio::test]
    async fn a_web_host_that_says_nothing_is_left_for_the_next() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = silent.local_addr().expect("bound");
        let tls = Arc::new(verified(RootCertStore::empty()));
        let limit = Duration::from_millis(50);
        let tried = connected(&tls, address, "mta-sts.remote.example", limit).await;
        assert!(matches!(tried, Err(WebError::Silent)), "{:?}", tried.map(drop));
    }

    #[tokio::test]
    async fn no_more_is_read_than_a_response_may_have() {
        let (bytes, ended) = whole(&mut &b"hello"[..]).await.expect("readable");
        assert_eq!((bytes.as_slice(), ended), (&b"hello"[..], true));
        let (bytes, _) = whole(&mut tokio::io::repeat(b'x')).await.expect("readable");
        assert_eq!(bytes.len(), RESPONSE_MAX + 1);
    }
}
