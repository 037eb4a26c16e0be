use shared::address::Domain;
use shared::origin::Channel;
use shared::state::State;
use tempfile::TempDir;

use super::*;
use crate::node;

/// RFC 8463, appendix A: a message, and what its body's hash is.
const DINNER: &str = "From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\n\
                      Subject: Is dinner ready?\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
                      Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\nHi.\r\n\r\n\
                      We lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
const DINNER_BODY: &str = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";

fn sha256(text: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().try_into().expect("32 octets")
}

struct Keys {
    dir: TempDir,
    state: State,
    signers: Signers,
    domains: Vec<Domain>,
}

impl Keys {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::init(&dir.path().join("big"), &[("sealing", vec![7; 32])]).expect("made");
        let domains = ["football.example.com", "example.org"];
        let domains = domains.iter().map(|domain| domain.parse().expect("a domain")).collect();
        Self { dir, state, signers: Signers::default(), domains }
    }

    fn make(&self, selector: &str, algorithm: Algorithm, from: Option<u64>) -> Result<DkimKeyView, String> {
        let new = NewDkimKey { domain: None, selector: selector.into(), algorithm, signs_from: from };
        self.signers.make(&self.state, &self.domains, &new).map_err(|refused| refused.to_string())
    }

    fn states(&self, now: u64) -> Vec<(String, DkimKeyState)> {
        self.signers.list(now).into_iter().map(|key| (key.selector, key.state)).collect()
    }

    /// The selectors of the signatures of a message at a moment.
    fn signed_by(&self, message: &str, now: u64) -> Vec<String> {
        let signatures = self.signers.sign_hashed(&Content::of(message.as_bytes()), now);
        assert!(shared::unit::are_signatures(&signatures), "{signatures}");
        let selector = |field: &str| field.split("s=").nth(1)?.split(';').next().map(str::to_owned);
        signatures.split("DKIM-Signature:").skip(1).filter_map(selector).collect()
    }
}

#[test]
fn a_signature_says_what_it_is_over_and_verifies() {
    let keys = Keys::new();
    let made = keys.make("brisbane", Algorithm::Ed25519, Some(0)).expect("made");
    assert_eq!(made.record_name, "brisbane._domainkey.football.example.com");
    let twice = DINNER.replace("\r\nSubject", "\r\nTO:\tx@example.net\r\nSubject");
    let field = keys.signers.sign_hashed(&Content::of(twice.as_bytes()), 1_528_637_909_000);
    let unfolded = field.replace("\r\n\t", "");
    for part in [
        "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;d=football.example.com; s=brisbane;t=1528637909;",
        &format!(" bh={DINNER_BODY};"),
        // Each as often as it is there, and once more; what nobody may add, too.
        "h=From:From:Reply-To:To:To:To:Cc:Subject:Subject:Date:Date:Message-ID:Message-ID:\
         MIME-Version:Content-Type:Content-Transfer-Encoding;b=",
    ] {
        assert!(unfolded.contains(part), "{part} in {unfolded}");
    }
    assert!(field.lines().all(|line| line.len() < 78), "{field}");
    // What a verifier hashes: the fields from the last one up, then the signature without its value.
    let canonical = field.trim_end().replace("\r\n\t", " ");
    let (head, value) = canonical.split_once(" b=").expect("a value");
    let head = head.strip_prefix("DKIM-Signature: ").expect("the name");
    let signed = format!(
        "from:Joe SixPack <joe@football.example.com>\r\nto:x@example.net\r\nto:Suzie Q <suzie@shopping.example.net>\r\n\
         subject:Is dinner ready?\r\ndate:Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
         message-id:<20030712040037.46341.5F8J@football.example.com>\r\ndkim-signature:{head} b="
    );
    use base64::Engine as _;
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
    let public = decode(made.record.split("p=").nth(1).expect("a key"));
    let verifier = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
    verifier.verify(&sha256(&signed), &decode(&value.replace(' ', ""))).expect("is what was signed");
}

#[test]
fn keys_take_over_at_their_moment_and_both_algorithms_sign() {
    let keys = Keys::new();
    assert!(keys.signed_by(DINNER, 10).is_empty(), "without a key nothing is signed");
    keys.make("old", Algorithm::Ed25519, Some(10)).expect("made");
    keys.make("new", Algorithm::Ed25519, Some(20)).expect("made");
    keys.make("r1", Algorithm::Rsa, Some(10)).expect("made");
    let states = |old, new| [("new".into(), new), ("old".into(), old), ("r1".into(), DkimKeyState::Signing)];
    assert!(keys.signed_by(DINNER, 9).is_empty());
    assert_eq!(keys.signed_by(DINNER, 19), ["old", "r1"]);
    assert_eq!(keys.states(19), states(DkimKeyState::Signing, DkimKeyState::Waiting));
    assert_eq!(keys.signed_by(DINNER, 20), ["new", "r1"]);
    assert_eq!(keys.states(20), states(DkimKeyState::Retired, DkimKeyState::Signing));
    // What somebody else wrote, or somebody of a domain without a key.
    for from in ["joe@remote.example", "joe@example.org", "joe@sub.football.example.com"] {
        assert!(
            keys.signed_by(&DINNER.replace("joe@football.example.com>\r\nTo", &format!("{from}>\r\nTo")), 20)
                .is_empty()
        );
    }
    let loaded = Signers::load(&keys.state).expect("read");
    assert_eq!(loaded.list(20), keys.signers.list(20), "they are there after a restart");
    let backup = keys.dir.path().join("backup");
    let prepared = keys.state.prepare_backup(&keys.state.store().expect("opens")).expect("prepared");
    keys.state.take_backup(&prepared, &backup).expect("taken");
    let restored = Signers::load(&State::open(&backup).expect("is a state")).expect("read");
    assert_eq!(restored.list(20), keys.signers.list(20), "and in a backup");
    let names = |keys: &[DkimKeyView]| keys.iter().map(|key| key.selector.clone()).collect::<Vec<_>>();
    let removed = keys.signers.remove(&keys.state, &keys.domains, None, "new").expect("removed");
    assert_eq!(removed.removed.state, DkimKeyState::Signing);
    assert_eq!(
        (names(&removed.signing), removed.resumed.as_deref()),
        (vec!["old".into(), "r1".into()], Some("old"))
    );
    assert_eq!(keys.signed_by(DINNER, 20), ["old", "r1"]);
    assert_eq!(Signers::load(&keys.state).expect("read").list(20).len(), 2);
    // One of a domain that the topology names no more is removed like any other, and then nobody signs.
    for (selector, left) in [("old", vec!["r1".to_owned()]), ("r1", Vec::new())] {
        let elsewhere = ["example.org".parse().expect("a domain")];
        let domain = Some("football.example.com");
        let removed = keys.signers.remove(&keys.state, &elsewhere, domain, selector).expect("removed");
        assert_eq!((names(&removed.signing), removed.resumed), (left, None), "{selector}");
    }
}

#[test]
fn a_key_waits_for_its_record_where_another_one_signs() {
    let keys = Keys::new();
    let now = unix_millis();
    let first = keys.make("a", Algorithm::Ed25519, None).expect("made");
    let second = keys.make("b", Algorithm::Ed25519, None).expect("made");
    assert_eq!(first.state, DkimKeyState::Signing);
    assert_eq!(second.state, DkimKeyState::Waiting);
    assert!(second.signs_from >= now + 24 * 3_600_000);
    for (selector, why) in [
        ("a", "has a key a already"),
        ("A", "has a key a already"),
        ("a.b", "is not a selector"),
        ("../a", "is not a selector"),
        ("", "is not a selector"),
        ("-a", "is not a selector"),
    ] {
        let refused = keys.make(selector, Algorithm::Ed25519, None).expect_err("refused");
        assert!(refused.contains(why), "{selector}: {refused}");
    }
    let foreign = NewDkimKey {
        domain: Some("remote.example".into()),
        selector: "c".into(),
        algorithm: Algorithm::Ed25519,
        signs_from: None,
    };
    let refused = keys.signers.make(&keys.state, &keys.domains, &foreign).expect_err("refused");
    assert!(refused.to_string().contains("is no domain of this site"), "{refused}");
    assert!(keys.signers.remove(&keys.state, &keys.domains, None, "c").is_err());
    keys.state.write_key("x._domainkey.example.org", b"{}").expect("written");
    assert!(Signers::load(&keys.state).is_err(), "what is no key is not passed over in silence");
}

#[test]
fn only_what_is_ours_is_signed() {
    let keys = Keys::new();
    keys.make("a", Algorithm::Ed25519, Some(0)).expect("made");
    let signs = |channel, passes| {
        let origin = node::origin(channel, None, Vec::new(), DINNER.as_bytes());
        !keys.signers.sign(&origin, passes, DINNER.as_bytes()).is_empty()
    };
    assert!(signs(Channel::Desk { person: [1; 16] }, 0));
    assert!(signs(Channel::Submission { window: [1; 16] }, 0));
    assert!(signs(Channel::Report, 0));
    let gateway = || Channel::Gateway { name: "notes".into() };
    assert!(signs(gateway(), 0));
    assert!(!signs(gateway(), 1), "it came in from the Internet before");
    let reception = Channel::Reception { helo: "mx".into(), client: "192.0.2.1".into(), tls: false };
    assert!(!signs(reception, 0), "anybody can write our From on the Internet");
}
