//! The challenge HTTP-01 (RFC 8555 §8.3): an authority fetches what it gave us a token for, by HTTP at port 80.
//!
//! Nothing else is served there, to anybody: one small request a connection, and one small answer.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use httparse::{EMPTY_HEADER, Request};
use shared::listener::{Admission, Listener, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

/// Where tokens lie.
const FOLDER: &str = "/.well-known/acme-challenge/";
/// Octets of a request.
const REQUEST_MAX: usize = 4_096;
/// Header fields of a request.
const FIELDS_MAX: usize = 32;
/// How long a connection may take: an authority sends its request at once.
const TIME_MAX: Duration = Duration::from_secs(3);
/// Connections at once, of whoever comes: an authority looks from several networks, and strangers who hold what they get
/// are to leave it room.
const CONNECTIONS_MAX: usize = 400;
/// Of them from one host. An organisation's own authority looks several times at once, from one address.
const CONNECTIONS_PER_HOST_MAX: usize = 4;
/// Characters of a token; it has 22 or more (RFC 8555 §8.3).
const TOKEN_MAX: usize = 256;

/// The tokens that are answered now.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<HashMap<String, String>>);

impl Tokens {
    /// Answers for a token for as long as what is returned lives; `None` if it is no token (RFC 8555 §8.3).
    pub fn publish(self: &Arc<Self>, token: &str, answer: &str) -> Option<Published> {
        let is_token = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        if !(1..=TOKEN_MAX).contains(&token.len()) || !token.bytes().all(is_token) {
            return None;
        }
        self.lock().insert(token.to_owned(), answer.to_owned());
        Some(Published { tokens: Arc::clone(self), token: token.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token that is answered.
#[derive(Debug)]
pub struct Published {
    tokens: Arc<Tokens>,
    token: String,
}

impl Drop for Published {
    fn drop(&mut self) {
        self.tokens.lock().remove(&self.token);
    }
}

/// The places of the listeners, `share` of the descriptors at most.
pub fn places(share: usize) -> Arc<Admission> {
    Admission::new(CONNECTIONS_MAX.min(share), CONNECTIONS_PER_HOST_MAX)
}

/// Answers at one listener until `stopping` turns true.
pub async fn serve(listener: Listener, tokens: Arc<Tokens>, stopping: watch::Receiver<bool>) {
    listener.serve(stopping, move |stream, _| answer(stream, Arc::clone(&tokens))).await;
}

async fn answer(mut stream: Stream, tokens: Arc<Tokens>) -> io::Result<()> {
    let answering = async {
        let mut request = Vec::new();
        let mut octets = [0; 1_024];
        while !is_whole(&request) && request.len() < REQUEST_MAX {
            match stream.read(&mut octets).await? {
                0 => break,
                read => request.extend_from_slice(&octets[..read]),
            }
        }
        stream.write_all(response(&request, &tokens).as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(TIME_MAX, answering).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

fn is_whole(request: &[u8]) -> bool {
    request.windows(4).any(|octets| octets == b"\r\n\r\n")
}

fn response(request: &[u8], tokens: &Tokens) -> String {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = Request::new(&mut fields);
    let is_read =
        request.len() <= REQUEST_MAX && parsed.parse(request).is_ok_and(|status| status.is_complete());
    let (status, body) = match (is_read, parsed.method, parsed.path) {
        (true, Some("GET"), Some(path)) => {
            let token = path.strip_prefix(FOLDER);
            let found = token.and_then(|token| tokens.lock().get(token).cloned());
            found.map_or(("404 Not Found", String::new()), |found| ("200 OK", found))
        }
        (true, ..) => ("405 Method Not Allowed\r\nAllow: GET", String::new()),
        (false, ..) => ("400 Bad Request", String::new()),
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn only_what_is_published_is_answered_and_only_while_it_is() {
        let tokens: Arc<Tokens> = Arc::default();
        let said = |request: &str| response(request.as_bytes(), &tokens);
        let status = |request: &str| said(request).split(' ').nth(1).expect("a status").to_owned();
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: mx.example.com\r\n\r\n");
        let path = format!("{FOLDER}abc-_1");
        assert_eq!(status(&get(&path)), "404");
        let published = tokens.publish("abc-_1", "abc-_1.thumb").expect("a token");
        assert_eq!(
            said(&get(&path)),
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 12\r\n\
             Connection: close\r\n\r\nabc-_1.thumb"
        );
        let many = "X: y\r\n".repeat(FIELDS_MAX);
        let long = "x".repeat(REQUEST_MAX);
        for (request, expected) in [
            (get("/"), "404"),
            (get(FOLDER), "404"),
            (get(&format!("{FOLDER}abc-_2")), "404"),
            (get(&format!("{path}/")), "404"),
            (get(&format!("{path}?x=1")), "404"),
            (get(&format!("{FOLDER}../abc-_1")), "404"),
            (get(&format!("/x{path}")), "404"),
            (format!("POST {path} HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), "405"),
            (format!("HEAD {path} HTTP/1.1\r\n\r\n"), "405"),
            (format!("GET {path} HTTP/1.1\r\n{many}Host: x\r\n\r\n"), "400"),
            (format!("GET {path}{long} HTTP/1.1\r\n\r\n"), "400"),
            (format!("GET {path} HTTP/1.1\r\nHost"), "400"),
            (format!("GET {path}\r\n\r\n"), "400"),
            ("\x16\x03\x01\r\n\r\n".into(), "400"),
            (String::new(), "400"),
        ] {
            assert_eq!(status(&request), expected, "{}", request.get(..60).unwrap_or(&request));
        }
        drop(published);
        assert_eq!(status(&get(&path)), "404");
    }

    #[test]
    fn strangers_from_sixty_networks_who_hold_what_they_get_leave_the_authority_room() {
        let places = places(usize::MAX);
        let strangers = (1..=60).map(|host| IpAddr::from([192, 0, 2, host]));
        let held: Vec<_> = strangers
            .flat_map(|stranger| std::iter::from_fn(|| places.admit(stranger)).take(100).collect::<Vec<_>>())
            .collect();
        let authority = IpAddr::from([198, 51, 100, 1]);
        let looks: Vec<_> = (0..3).map_while(|_| places.admit(authority)).collect();
        assert_eq!(looks.len(), 3, "{} are held", held.len());
    }

    #[test]
    fn what_an_authority_says_is_a_token_has_to_be_one() {
        let tokens: Arc<Tokens> = Arc::default();
        for text in ["", "a/b", "../x", "a b", "a\r\nb", "\u{e4}", &"x".repeat(TOKEN_MAX + 1)] {
            assert!(tokens.publish(text, "answer").is_none(), "{text:?}");
        }
    }
}
