//! What strangers say: dialogues by SMTP and POP3 from either end, addresses, and a topology file.

type Files = Vec<(String, Vec<u8>)>;

/// A dialogue's lines behind the bytes that say how it is held.
fn file(name: &str, how: &[u8], lines: &str) -> (String, Vec<u8>) {
    (name.to_owned(), [how, lines.replace('\n', "\r\n").as_bytes()].concat())
}

pub(super) fn clients() -> Files {
    let opened = "EHLO a.example\nMAIL FROM:<a@x.example> SIZE=60 BODY=8BITMIME\nRCPT TO:<c@example.com> NOTIFY=NEVER\n";
    let message = "Received: x\nSubject: x\n\n..dot\n\u{e9}\n.\n";
    let binary = "EHLO a\nMAIL FROM:<a@x.example> BODY=BINARYMIME\nRCPT TO:<c@example.com>\nBDAT 67\n\
                  MIME-Version: 1.0\nContent-Transfer-Encoding: binary\n\n\0a\rBDAT 3 LAST\n\u{0}\u{1}\u{2}NOOP\n";
    let login = "EHLO a\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\nAUTH LOGIN\nYWxpY2U=\nc2VjcmV0\n";
    let scram = "EHLO a\nAUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJj\n";
    // What the server's last word is to answer, with the keys and the nonce that the target has.
    let proof = "Yz1iaXdzLHI9YWJjQkFRRUJBUUVCQVFFQkFRRUJBUUVCQVFFQkFRRSxwPUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE9\n\n";
    let refused = "HELO a\nMAIL FROM:<>\nRCPT TO:<nobody@example.com>\nRCPT TO:<later@example.com>\nDATA\n\
                   RCPT TO:<Postmaster>\nDATA\nfull\n.\nMAIL FROM:<busy@x.example>\n";
    let names = "NOOP\nVRFY a\nHELP\nEXPN\nRSET\nMAIL TO:<\nRCPT TO:<a@[1]>\nAUTH\nBDAT\nQUIT\n";
    let smuggled = format!("{opened}DATA\na\n.\rMAIL FROM:<b@x.example>\n.\n");
    vec![
        file("message", &[0, 3], &format!("{opened}DATA\n{message}QUIT\n")),
        file("reset", &[0, 0], &format!("{opened}RSET\nRCPT TO:<d@example.com>\nDATA\n{opened}DATA\n\n.\n")),
        file("two-messages", &[0, 0], &format!("{opened}DATA\n{message}{opened}DATA\n\n.\nQUIT\n")),
        file("chunks", &[0, 5], &format!("{opened}BDAT 14\nSubject: x\n\nBDAT 0\nBDAT 3 LAST\n.\nBDAT 1\nx")),
        file("binary", &[0b1010, 7], binary),
        file("tls", &[0, 1], &format!("EHLO a\nSTARTTLS\n{opened}DATA\n{message}")),
        file("injected", &[0, 0], &format!("EHLO a\nSTARTTLS\nRSET\n{opened}")),
        file("login", &[0b11, 2], &format!("{login}{opened}DATA\n{message}")),
        file("scram", &[0b11, 2], &format!("{scram}{proof}{opened}DATA\n{message}")),
        file("login-in-clear", &[0b1, 0], login),
        file("refused", &[0, 4], refused),
        file("commands", &[0b1100_0000, 6], names),
        file("smuggled", &[0, 0], &smuggled),
        file(
            "limits",
            &[0, 9],
            &format!("{opened}DATA\nReceived: a\nReceived: b\nReceived: c\n\n.\n{}", "NOOP\n".repeat(110)),
        ),
    ]
}

pub(super) fn hosts() -> Files {
    let offer =
        "250-h\n250-PIPELINING\n250-SIZE 1000\n250-8BITMIME\n250-SMTPUTF8\n250-DSN\n250-AUTH PLAIN LOGIN\n";
    let taken = "250 2.1.0 ok\n250 ok\n";
    let delivered = format!("{taken}354 go\n250 2.6.0 queued\n");
    let to_clear = |offer: &str| format!("220 h\n{offer}250 HELP\n");
    let chunks =
        format!("{}{taken}250 ok\n250 ok\n{taken}250 ok\n221 bye\n", to_clear("250-CHUNKING\n250-SIZE\n"));
    let tls = format!("{}220 go\n{offer}250 REQUIRETLS\n", to_clear("250-STARTTLS\n250-CHUNKING\n"));
    let login = format!("{}334 \n334 \n235 ok\n{delivered}", to_clear("250-h\n250-AUTH LOGIN\n"));
    vec![
        file("delivered", &[0, 0, 0], &format!("{}{delivered}{delivered}221 bye\n", to_clear(offer))),
        file(
            "asked",
            &[0, 0b0110_0101, 3],
            &format!("{}{taken}550 5.1.1 no\n252 ok\n354 go\n250 ok\n", to_clear(offer)),
        ),
        file("chunks", &[0, 0, 2], &chunks),
        file("no-chunks", &[0, 0, 0], &format!("{}{taken}502 what\n", to_clear("250-h\n250-CHUNKING\n"))),
        file("tls", &[1, 0b1000, 1], &format!("{tls}{delivered}{delivered}")),
        file("no-tls", &[2, 0, 0], &to_clear(offer)),
        file("injected", &[1, 0, 0], &format!("{}220 go\n250-h\n250 SIZE\n", to_clear("250-STARTTLS\n"))),
        file("login", &[0b1011, 0, 5], &login),
        file(
            "lmtp",
            &[0b100, 1, 4],
            &format!("{}{taken}250 ok\n250 ok\n354 go\n250 ok\n452 later\n550 no\n", to_clear(offer)),
        ),
        file(
            "helo",
            &[0, 0b10, 0],
            &format!("220 h\n502 no\n250 h\n{taken}550 no\n354 go\n554 no\n250 ok\n"),
        ),
        file("unfit", &[0b10_0000, 0, 0], &format!("{}{delivered}", to_clear(offer))),
        file("busy", &[0b100_0000, 0, 0], &format!("{}{taken}354 go\n421 4.3.2 busy\n", to_clear(offer))),
        file("ahead", &[0, 0, 0], &format!("{}{delivered}{taken}", to_clear("250-h\n"))),
        file("garbage", &[0, 0, 1], "220-a\n221 b\n999\n"),
    ]
}

pub(super) fn travellers() -> Files {
    let login = "USER alice\nPASS secret\n";
    let lists =
        "STAT\nLIST\nUIDL\nLIST 1\nUIDL 2\nTOP 1 0\nTOP 3 1\nRETR 1\nRETR 2\nRETR 3\nRETR 4\nRETR 5\n";
    vec![
        file("session", &[1, 3], &format!("CAPA\n{login}{lists}DELE 1\nDELE 3\nRSET\nDELE 2\nNOOP\nQUIT\n")),
        file("utf8", &[1, 0], &format!("UTF8\nLANG\nLANG de\nLANG *\n{login}RETR 2\nRETR 3\nQUIT\n")),
        file("tls", &[0, 2], &format!("{login}STLS\n{login}DELE 1\nQUIT\n")),
        file("injected", &[0, 0], &format!("STLS\n{login}DELE 1\nQUIT\n")),
        file("lost", &[0b10_0001, 1], &format!("{login}RETR 3\nDELE 1\nDELE 1\nDELE 9\nRETR 6\n")),
        file("plain", &[0b1000_1001, 4], "AUTH\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\nDELE 4\nRETR 1\nQUIT\n"),
        file("scram", &[1, 0], "AUTH SCRAM-SHA-256\nbiwsbj11c2VyLHI9YWJj\n*\n"),
        file("in-clear", &[0b100, 0], &format!("{login}DELE 5\nQUIT\nNOOP\n")),
        file(
            "refused",
            &[1, 0],
            "USER nobody\nPASS x\nUSER later\nPASS x\nUSER in-use\nPASS x\nUSER guess\nPASS x\nUSER soon\nPASS x\n",
        ),
        file("errors", &[0b101_0001, 6], &"RETR x\nTOP 1\nAPOP a b\nPASS\n\n".repeat(6)),
    ]
}

pub(super) fn addresses() -> Files {
    let texts = [
        (
            "plain",
            "Alice+tag@Example.COM\n<a@x.example> SIZE=1 RET=HDRS ENVID=a+2Bb\n<c@y.example> NOTIFY=DELAY,SUCCESS",
        ),
        (
            "wide",
            "jo\u{308}rg@b\u{fc}cher.example\n<\u{e9}@x.example> SMTPUTF8\n<\u{f1}@y.example> ORCPT=utf-8;\\x{E9}@z.example",
        ),
        (
            "null",
            "a@[192.0.2.1]\n<> REQUIRETLS AUTH=<>\n<Postmaster> ORCPT=rfc822;b+2Bc@x.example NOTIFY=NEVER",
        ),
        ("quoted", "\"a b\"@x.example\n<a@x.example> ENVID=+20\n<c@y.example> ORCPT=x;+20+5C+3D"),
        (
            "xtext",
            "rfc822;+C3+A9@x.example\n<a@x.example> RET=FULL BODY=8BITMIME\n<c@y.example> ORCPT=rfc822;+C3+A9",
        ),
        (
            "escaped",
            "utf-8;\\x{2B}\\x{1F600}\\x@x.example\n<a@x.example>\n<c@y.example> ORCPT=UTF-8;\\x{2B}\\x{5C}a",
        ),
        ("notify", "never\n<a@x.example>\n<c@y.example>"),
        ("labels", "xn--bcher-kva.example\n<a@xn--bcher-kva.example>\n<c@_y.EXAMPLE>"),
    ];
    texts.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).into()
}

pub(super) fn topologies() -> Files {
    let smallest = "[site]\ndomains = [\"example.com\"]\npostmaster = \"alice\"\n[big]\nstate = \"b\"\n\
                    [edge]\nhostname = \"mx.example.com\"\nstate = \"e\"\n[link]\nlisten = \"[::]:1\"\ndial = \"192.0.2.1:1\"\n";
    let edge = "smtp = [\"127.0.0.1:25\"]\nsubmission = [\"127.0.0.1:587\"]\nsubmissions = [\"127.0.0.1:465\"]\n\
                pop3 = [\"127.0.0.1:110\"]\npop3s = [\"[::1]:995\"]\nreceivers = 50\nsize_max = 52_428_800\n\
                spool_max = 10_737_418_240\nstale_after = 600\nack = \"pair\"\nlogin_delay = 0\ngreeting_pause = 2\n\
                binarymime = true\nsandbox = \"required\"\n";
    let tables = "[edge.authentication]\ndmarc = \"refuse\"\ntrusted_sealers = [\"lists.example\"]\n\
                  [edge.lists]\nrefuse = [\"zen.example=127.0.0.2,127.0.0.4-7\"]\n[edge.greylist]\ndelay = 60\nwindow = 86400\n\
                  [edge.reports]\ntls = true\ndmarc = true\n[edge.public]\npop3s = 995\n[edge.dns]\nservers = [\"192.0.2.1:53\"]\ndnssec = false\n";
    let relay = "[edge.outbound]\nmode = \"direct-then-relay\"\nrelay = \"[2001:db8::1]:465\"\nrelay_tls = \"tls\"\n\
                 relay_login = \"login\"\nrelay_roots = \"ca.pem\"\nretry = [60, 300]\nexpire = 432_000\n";
    let tls = "[edge.tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
    let acme = "[edge.acme]\ncontact = \"a@example.com\"\nhttp = [\"192.0.2.1:80\"]\n";
    let with = |before: &str, lines: &str| smallest.replace(before, &format!("{lines}{before}"));
    let files = [
        ("smallest", smallest.to_owned()),
        ("edge", with("[link]", edge)),
        ("tables", with("[link]", tables)),
        ("relay", with("[link]", relay)),
        ("tls", with("[link]", tls)),
        ("acme", with("[link]", acme)),
        ("catch-all", with("[big]", "catch_all = {\"example.com\" = \"bob\"}\nattachments = \"passthru\"\n")),
        ("unknown", with("[big]", "colour = 1\nquota = 2\n")),
        ("no-toml", with("[big]", "a = [\n\"\"\"\n")),
    ];
    files.map(|(name, text)| (name.to_owned(), text.into_bytes())).into()
}
