//! What is made of an authority's words, and of an authority on loopback that refuses, or leads astray.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use shared::topology::Dnssec;

use super::*;
use crate::web::sample;

/// What is said to a request, of which this is the first line, by the authority at this URL.
type Says = fn(&str, &str) -> String;

const DIRECTORY: &str = r#"{"newNonce": "@/nonce", "newAccount": "@/account", "newOrder": "@/order"}"#;

fn said(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// The directory, and then what `then` makes of other requests.
fn directory(request: &str, url: &str, then: impl FnOnce() -> String) -> String {
    match request.split(' ').nth(1) {
        Some("/dir") => said("200 OK", "", &DIRECTORY.replace('@', url)),
        Some("/nonce") => said("200 OK", "Replay-Nonce: one\r\n", ""),
        _ => then(),
    }
}

/// Asks such an authority for a certificate: why there is none, and how many requests came.
async fn refused(says: Says) -> (Failure, usize) {
    let (chain, requests) = asked(says).await;
    (chain.expect_err("there is none"), requests)
}

/// Asks such an authority for a certificate: what came of it, and how many requests came.
async fn asked(says: impl Fn(&str, &str) -> String + Send + 'static) -> (Result<String, Failure>, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let (roots, requests) = (folder.path().join("roots.pem"), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&requests);
    let says = move |request: &str, at| {
        count.fetch_add(1, Relaxed);
        says(request, &format!("https://{at}"))
    };
    let (at, serving) = sample::serve(vec!["127.0.0.1".to_owned()], &roots, says).await;
    for part in ["store", "keys"] {
        std::fs::create_dir_all(folder.path().join("state").join(part)).expect("made");
    }
    let state = State::open(&folder.path().join("state")).expect("it looks like one");
    let own = TlsIdentity::self_signed_in(state.path(), "mx.example.com").expect("made");
    let acme = Acme {
        directory: format!("https://{at}/dir").parse().expect("a URL"),
        contact: None,
        roots: Some(roots),
        http: Vec::new(),
    };
    let wanted = Wanted {
        acme: &acme,
        hostname: &"mx.example.com".parse().expect("a name"),
        own: &own,
        state: &state,
        resolver: &Resolver::new(&["127.0.0.1:53".parse().expect("an address")], &Dnssec::Off)
            .expect("a resolver"),
        tokens: &Arc::default(),
        look: Duration::from_millis(1),
    };
    let chain = wanted.chain().await;
    serving.abort();
    (chain, requests.load(Relaxed))
}

/// An authority that need not look for the name, is busy with the order for `looks` looks at it, telling `fields` with
/// each, and issues what is no certificate.
fn busy(looks: usize, fields: &'static str) -> impl Fn(&str, &str) -> String + Send + 'static {
    let (finalized, looked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    move |request, url| {
        directory(request, url, || {
            let order = |status: &str, fields: &str| {
                let body = format!(
                    r#"{{"status": "{status}", "identifiers": [], "authorizations": [], "finalize": "{url}/final",
                        "certificate": "{url}/chain"}}"#
                );
                let fields = format!("Location: {url}/of/1\r\nReplay-Nonce: more\r\n{fields}");
                said("200 OK", &fields, &body)
            };
            match request.split(' ').nth(1) {
                Some("/final") => {
                    finalized.store(1, Relaxed);
                    order("processing", "")
                }
                Some("/of/1") if finalized.load(Relaxed) == 0 => order("ready", ""),
                Some("/of/1") if looked.fetch_add(1, Relaxed) < looks => order("processing", fields),
                Some("/chain") => said("200 OK", "Replay-Nonce: more\r\n", "the chain"),
                Some("/account" | "/order") => order("ready", ""),
                _ => order("valid", ""),
            }
        })
    }
}

#[tokio::test]
async fn an_order_that_takes_its_time_is_waited_for() {
    // By doubled delays, the last look would be a day later.
    let (chain, _) = asked(busy(30, "")).await;
    assert_eq!(chain.expect("issued"), "the chain");
}

#[tokio::test]
async fn an_authority_that_wants_to_be_asked_later_for_the_order_is() {
    let (chain, requests) = asked(busy(30, "Retry-After: 3000\r\n")).await;
    let failure = chain.expect_err("not now");
    assert!(failure.asked.is_some_and(|asked| asked > Duration::from_secs(1_500)), "{failure:?}");
    assert!(requests < 10, "{requests}");
}

#[tokio::test]
async fn an_authority_is_left_alone_for_as_long_as_it_asks() {
    let (failure, requests) = refused(|request, url| {
        directory(request, url, || {
            let problem =
                r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many accounts"}"#;
            said("429 Too Many Requests", "Retry-After: 7200\r\nReplay-Nonce: two\r\n", problem)
        })
    })
    .await;
    assert!(failure.why.contains("too many accounts; it asks again by itself"), "{failure:?}");
    assert_eq!((failure.asked, requests), (Some(Duration::from_secs(7_200)), 3));
}

#[tokio::test]
async fn a_nonce_that_is_never_good_ends_in_time() {
    let (failure, requests) = refused(|request, url| {
        directory(request, url, || {
            let problem = r#"{"type": "urn:ietf:params:acme:error:badNonce", "detail": "an old nonce"}"#;
            said("400 Bad Request", "Replay-Nonce: again\r\n", problem)
        })
    })
    .await;
    assert!(failure.why.contains("an old nonce"), "{failure:?}");
    assert_eq!((failure.asked, requests), (None, 5), "the directory, a nonce, and three tries");
}

#[tokio::test]
async fn no_other_host_is_asked_than_the_directorys() {
    let (failure, requests) =
        refused(|_, _| said("200 OK", "", &DIRECTORY.replace('@', "https://127.0.0.2:443"))).await;
    assert!(failure.why.contains("leads to another place, \"https://127.0.0.2"), "{failure:?}");
    let (clear, _) =
        refused(|_, url| said("200 OK", "", &DIRECTORY.replace('@', &url.replace("https", "http")))).await;
    assert!(clear.why.contains("leads to another place"), "{clear:?}");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn a_directory_with_a_place_that_is_none_is_refused_and_ends_nothing() {
    let says: [Says; 4] = [
        |_, url| said("200 OK", "", &DIRECTORY.replace("@/nonce", "").replace('@', url)),
        |_, url| said("200 OK", "", &DIRECTORY.replace("@/nonce", "@/a b").replace('@', url)),
        |_, url| said("200 OK", "", &DIRECTORY.replace("@/account", "/account").replace('@', url)),
        |_, url| said("200 OK", "", &DIRECTORY.replace("@/order", "@/<order>").replace('@', url)),
    ];
    for says in says {
        let (failure, requests) = refused(says).await;
        assert!(failure.why.contains("leads to another place"), "{failure:?}");
        assert_eq!(requests, 1, "nothing is asked by it");
    }
}

#[tokio::test]
async fn what_is_no_directory_is_told_and_is_not_read_without_end() {
    let says: [(Says, &str); 4] = [
        (|_, _| said("200 OK", "", "<html>"), "JSON"),
        (|_, _| said("200 OK", "", &"x".repeat(70_000)), "larger than"),
        (|_, _| "SSH-2.0-x\r\n".to_owned(), "malformed"),
        (|_, _| String::new(), "malformed"),
    ];
    for (says, why) in says {
        let (failure, _) = refused(says).await;
        assert!(failure.why.contains(why), "{failure:?}");
    }
}

#[test]
fn what_an_authority_refuses_comes_with_what_mends_it() {
    let hostname: Domain = "mx.example.com".parse().expect("a name");
    let said = |kind: &str| {
        let json =
            format!(r#"{{"type": "urn:ietf:params:acme:error:{kind}", "detail": "Timeout during connect"}}"#);
        let problem = serde_json::from_str(&json).expect("a problem");
        [words(&problem, Part::Challenge, &hostname), words(&problem, Part::Order, &hostname)]
    };
    let [unauthorized, deactivated] = said("unauthorized");
    assert!(unauthorized.contains("port 80") && !unauthorized.contains("acme-account"), "{unauthorized}");
    assert!(deactivated.contains("acme-account") && !deactivated.contains("port 80"), "{deactivated}");
    let said = |kind: &str| said(kind)[0].clone();
    assert_eq!(
        said("connection"),
        "the authority refuses a certificate for mx.example.com: Timeout during connect; see that port 80 of every \
         address of the edge's name leads to [edge.acme] http"
    );
    assert!(said("rateLimited").contains("asks again by itself"));
    assert!(said("serverInternal").ends_with("Timeout during connect"));
    let long =
        Problem { r#type: None, detail: Some("x".repeat(10_000)), status: None, subproblems: Vec::new() };
    assert!(words(&long, Part::Order, &hostname).len() < 2 * SAID_MAX);
}

#[test]
fn a_file_without_certificates_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roots.pem");
    let absent = roots(Some(&path)).expect_err("it is not there").to_string();
    assert!(absent.contains("roots.pem"), "{absent}");
    std::fs::write(&path, "no certificate").expect("written");
    let empty = roots(Some(&path)).expect_err("none in it").to_string();
    assert!(empty.contains("it holds no certificates"), "{empty}");
}
