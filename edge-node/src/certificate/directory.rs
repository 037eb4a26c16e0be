//! The way to an authority's directory (RFC 8555 §6.1): HTTPS to that one host, and to no other that it may name.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use serde::Deserialize;
use shared::render::cut;
use shared::topology::WebPlace;
use tokio::time::timeout;

use crate::delivery::Resolver;
use crate::web::{self, Response, WebError};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait between two looks at an order that the library is told of: it adds it to the time.
const LOOK_AGAIN_MAX: u64 = 3_600;
/// Characters that are told of a place that is not asked.
const PLACE_MAX: usize = 200;
const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");

/// Why the directory cannot be asked.
#[derive(Debug, thiserror::Error)]
enum DirectoryError {
    #[error("DNS gives no address of {host}: {why}; see [edge.dns], and `directory` in [edge.acme]")]
    NoAddress { host: String, why: String },
    #[error(
        "{place} cannot be reached: {error}; see `directory` and `roots` in [edge.acme], and whether this host may connect to it"
    )]
    Unreachable { place: String, error: WebError },
    #[error("{place} takes longer than {limit} s to answer", place = .0, limit = REQUEST_TIMEOUT.as_secs())]
    TooSlow(String),
    #[error("the directory leads to another place, {0:?}: only its own host is asked")]
    Elsewhere(String),
    #[error("it is answered with what is no HTTP header")]
    Field,
}

impl From<DirectoryError> for Error {
    fn from(error: DirectoryError) -> Self {
        Self::Other(Box::new(error))
    }
}

/// The places that a directory names (RFC 8555 §7.1.1), of those that are asked. The library reads it in the same way.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Places {
    new_nonce: String,
    new_account: String,
    new_order: String,
}

/// A directory. Clones share what the authority has asked for.
#[derive(Clone, Debug)]
pub struct Directory {
    place: WebPlace,
    resolver: Resolver,
    tls: Arc<ClientConfig>,
    asked: Arc<Mutex<Option<Duration>>>,
}

impl Directory {
    /// The directory at `place`, which proves itself to `tls`.
    pub fn new(place: WebPlace, resolver: Resolver, tls: ClientConfig) -> Self {
        Self { place, resolver, tls: Arc::new(tls), asked: Arc::default() }
    }

    /// How long the authority wants to be left alone, if it has refused something with that.
    pub fn asked(&self) -> Option<Duration> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self, request: Request<BodyWrapper<bytes::Bytes>>) -> Result<BytesResponse, Error> {
        let (parts, body) = request.into_parts();
        // It cannot fail.
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let place = self.own(&parts.uri.to_string())?;
        let field = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", parts.method, place.path, place.authority());
        for name in [USER_AGENT, CONTENT_TYPE] {
            text.extend(field(&name).map(|value| format!("{name}: {value}\r\n")));
        }
        if parts.method == Method::POST {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "Connection: close\r\n\r\n";
        let request = [text.as_bytes(), &body[..]].concat();
        let asked = timeout(REQUEST_TIMEOUT, self.ask(&request, parts.method == Method::HEAD));
        let response =
            asked.await.unwrap_or_else(|_| Err(DirectoryError::TooSlow(self.place.authority())))?;
        self.note(&response);
        // Only the directory itself is fetched without a signature (RFC 8555 §6.3).
        if parts.method == Method::GET {
            self.check(&response.body)?;
        }
        Ok(BytesResponse::from(passed_on(&response)?))
    }

    /// The place at `url`, if it is one of the directory's own host.
    fn own(&self, url: &str) -> Result<WebPlace, DirectoryError> {
        let elsewhere = || DirectoryError::Elsewhere(cut(url, PLACE_MAX));
        let place: WebPlace = url.parse().map_err(|_| elsewhere())?;
        let is_own = (&place.host, place.port) == (&self.place.host, self.place.port);
        if is_own && url.parse::<Uri>().is_ok() { Ok(place) } else { Err(elsewhere()) }
    }

    /// Refuses a directory with a place that the library cannot ask: it panics where it cannot make a request. What is no
    /// directory at all it tells itself.
    fn check(&self, body: &[u8]) -> Result<(), DirectoryError> {
        let Ok(places) = serde_json::from_slice::<Places>(body) else { return Ok(()) };
        [places.new_nonce, places.new_account, places.new_order]
            .iter()
            .try_for_each(|url| self.own(url).map(drop))
    }

    async fn ask(&self, request: &[u8], is_head: bool) -> Result<Response, DirectoryError> {
        let WebPlace { host, port, .. } = &self.place;
        let unreachable = |error| DirectoryError::Unreachable { place: self.place.authority(), error };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable).into();
        for address in self.addresses().await? {
            match web::connect(&self.tls, SocketAddr::new(address, *port), host).await {
                // What has been asked may have been done, so nobody else is asked.
                Ok(stream) => return web::ask(stream, request, is_head).await.map_err(unreachable),
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, DirectoryError> {
        let host = &self.place.host;
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let why = match self.resolver.addresses(host).await {
            Ok(addresses) if addresses.is_empty() => "there is none".to_owned(),
            Ok(addresses) => return Ok(addresses),
            Err(error) => error.to_string(),
        };
        Err(DirectoryError::NoAddress { host: host.clone(), why })
    }

    fn note(&self, response: &Response) {
        if matches!(response.status, 429 | 503)
            && let Some(seconds) = retry_after(response, SystemTime::now())
        {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            *asked = Some(Duration::from_secs(seconds));
        }
    }
}

/// For how many seconds from `now` on the authority is not to be asked, if it has said so: by their number or by a date
/// (RFC 9110 §10.2.3).
fn retry_after(response: &Response, now: SystemTime) -> Option<u64> {
    let value = response.field(RETRY_AFTER.as_str())?;
    value.parse().ok().or_else(|| {
        let left = httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default();
        // A part of a second is one.
        Some(left.as_secs() + u64::from(left.subsec_nanos() > 0))
    })
}

/// What the library is told of a response: the fields that it looks at, within what it can bear.
fn passed_on(response: &Response) -> Result<http::Response<Full<bytes::Bytes>>, DirectoryError> {
    let body = Full::new(bytes::Bytes::from(response.body.clone()));
    let mut passed = http::Response::new(body);
    *passed.status_mut() = StatusCode::from_u16(response.status).map_err(|_| DirectoryError::Field)?;
    for name in [LOCATION, REPLAY_NONCE] {
        if let Some(value) = response.field(name.as_str()) {
            passed.headers_mut().insert(name, value.parse().map_err(|_| DirectoryError::Field)?);
        }
    }
    if let Some(seconds) = retry_after(response, SystemTime::now()) {
        passed.headers_mut().insert(RETRY_AFTER, seconds.min(LOOK_AGAIN_MAX).into());
    }
    Ok(passed)
}

impl HttpClient for Directory {
    fn request(
        &self,
        request: Request<BodyWrapper<bytes::Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().answer(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_told_what_it_looks_at_and_nothing_that_it_cannot_bear() {
        let said = b"HTTP/1.1 201 Created\r\nLocation: https://acme.example/order/1\r\nReplay-Nonce: abc\r\n\
                     Retry-After: 18446744073709551615\r\nSet-Cookie: x=1\r\nContent-Length: 2\r\n\r\n{}";
        let response = Response::read(said, true, false).expect("a response");
        let passed = passed_on(&response).expect("passed on");
        let field =
            |name: &str| passed.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(passed.status(), 201);
        assert_eq!(field("location").as_deref(), Some("https://acme.example/order/1"));
        assert_eq!(field("replay-nonce").as_deref(), Some("abc"));
        assert_eq!(field("retry-after").as_deref(), Some("3600"), "the library adds it to the time");
        assert_eq!(passed.headers().len(), 3);
    }

    #[test]
    fn an_authority_says_when_to_come_again_by_seconds_or_by_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let now = now - Duration::from_millis(1);
        for (said, expected) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 10:49:36 GMT", Some(7_200)),
            // As they were written once.
            ("Sunday, 06-Nov-94 08:50:36 GMT", Some(60)),
            ("Sun Nov  6 08:49:37 1994", Some(1)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            let said = format!("HTTP/1.1 503 Busy\r\nRetry-After: {said}\r\nContent-Length: 0\r\n\r\n");
            let response = Response::read(said.as_bytes(), true, false).expect("a response");
            assert_eq!(retry_after(&response, now), expected, "{said}");
        }
    }

    #[test]
    fn the_library_can_ask_every_place_that_a_topology_may_name() {
        for octet in 0..=u8::MAX {
            let url = format!("https://acme.example/a{0}b?c{0}d", char::from(octet));
            let Ok(place) = url.parse::<WebPlace>() else { continue };
            assert!(place.to_string().parse::<Uri>().is_ok(), "{url:?}");
        }
    }
}
