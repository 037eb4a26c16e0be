use super::*;
use crate::client::load::{Outcome, Outgoing, Plan, drive};
use crate::client::smtp::{SendError, SmtpClient};

const WITHIN: Duration = Duration::from_secs(20);
const FROM: &str = "alice@example.com";
const TO: &str = "bob@remote.example";
const MESSAGE: &[u8] = b"Subject: hello\r\n\r\n.dot\r\ntext\r\n";

async fn mta(options: Options) -> Mta {
    Mta::start(options).await.expect("an MTA")
}

async fn client(mta: &Mta) -> SmtpClient {
    SmtpClient::ready(mta.address(), None).await.expect("greeted")
}

#[tokio::test]
async fn what_arrives_is_remembered_as_it_arrived() {
    let mta = mta(Options::default()).await;
    let mut client = client(&mta).await;
    client.start_tls().await.expect("TLS");
    assert!(!client.offers("STARTTLS") && client.offers("8BITMIME"));
    client.send(FROM, &[TO, "eve@remote.example"], MESSAGE).await.expect("taken");
    client.send("", &[TO], "Subject: \u{e9}\r\n\r\n".as_bytes()).await.expect("taken");
    client.quit().await.expect("QUIT");
    let mail = mta.wait_for(2, WITHIN).await.expect("both");
    assert_eq!(mail[0].data, MESSAGE);
    assert!(mail[0].tls);
    assert_eq!((mail[0].number, mail[1].number), (1, 2));
    assert_eq!(mail[0].recipients, [TO, "eve@remote.example"]);
    assert_eq!((mail[1].reverse_path.as_str(), &mail[1].parameters[..]), ("", &["BODY=8BITMIME".into()][..]));
}

#[tokio::test]
async fn with_a_directory_the_books_are_on_disk_before_the_250() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options { keep_in: Some(directory.path().into()), ..Options::default() };
    for number in 1..=2 {
        let mta = mta(options.clone()).await;
        client(&mta).await.send(FROM, &[TO], MESSAGE).await.expect("taken");
        let eml = fs::read(directory.path().join(format!("{number:08}.eml"))).expect("kept");
        assert_eq!(eml, MESSAGE);
        let json = fs::read(directory.path().join(format!("{number:08}.json"))).expect("kept");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["recipients"], serde_json::json!([TO]));
        assert_eq!(json["digest"], blake3::hash(MESSAGE).to_hex().as_str());
    }
}

#[tokio::test]
async fn rules_bite_where_they_are_told_and_as_often() {
    let mta = mta(Options::default()).await;
    mta.add_rule(Rule::reply(Stage::Rcpt, 550, "5.1.1 nobody").only_for("eve@remote.example"));
    mta.add_rule(Rule::reply(Stage::Dot, 451, "4.2.0 later").times(1));
    let mut client = client(&mta).await;
    let refused = client.send(FROM, &["eve@remote.example"], MESSAGE).await.expect_err("refused");
    assert_eq!(refused.to_string(), "RCPT was refused: 550 5.1.1 nobody");
    let refused = client.send(FROM, &[TO], MESSAGE).await.expect_err("refused");
    let SendError::Refused { stage: "dot", reply } = refused else { panic!("{refused}") };
    assert_eq!((reply.code, reply.enhanced()), (451, Some("4.2.0")));
    client.send(FROM, &[TO], MESSAGE).await.expect("taken the second time");
    assert_eq!(mta.mail().len(), 1);
}

#[tokio::test]
async fn a_sender_can_be_left_in_doubt_or_sure_that_nothing_went() {
    let mta = mta(Options::default()).await;
    mta.add_rule(Rule::hang_up(Stage::Data).times(1));
    let lost = client(&mta).await.send(FROM, &[TO], MESSAGE).await.expect_err("lost");
    assert!(matches!(lost, SendError::NotSent(_)), "{lost}");
    for (rule, kept) in [(Rule::hang_up(Stage::Dot), 0), (Rule::keep_and_hang_up(), 1)] {
        mta.add_rule(rule.times(1));
        let lost = client(&mta).await.send(FROM, &[TO], MESSAGE).await.expect_err("lost");
        assert!(matches!(lost, SendError::InDoubt(_)), "{lost}");
        assert_eq!(mta.mail().len(), kept);
    }
}

#[tokio::test]
async fn a_host_can_lack_or_break_what_others_have() {
    let plain = Options {
        starttls: StartTls::Absent,
        eight_bit_mime: false,
        smtputf8: false,
        size_max: 10,
        ..Options::default()
    };
    let plain = mta(plain).await;
    let mut client = client(&plain).await;
    assert!(!client.offers("STARTTLS") && !client.offers("8BITMIME") && !client.offers("SMTPUTF8"));
    assert_eq!(client.command("MAIL FROM:<a@b.example> BODY=8BITMIME").await.expect("answered").code, 555);
    let refused = client.send(FROM, &[TO], MESSAGE).await.expect_err("too large");
    assert!(refused.to_string().starts_with("dot was refused: 552 5.3.4"), "{refused}");

    let broken = mta(Options { starttls: StartTls::Broken, ..Options::default() }).await;
    let mut client = SmtpClient::ready(broken.address(), None).await.expect("greeted");
    client.start_tls().await.expect_err("no handshake");
}

#[tokio::test]
async fn a_load_is_counted_message_by_message() {
    let mta = mta(Options::default()).await;
    mta.add_rule(Rule::reply(Stage::Rcpt, 550, "5.1.1 nobody").only_for("no7@remote.example"));
    let plan =
        Plan { to: mta.address(), connections: 4, per_connection: 5, patience: Duration::ZERO, login: None };
    let outgoing = |number| Outgoing {
        from: FROM.into(),
        to: format!("no{number}@remote.example"),
        data: format!("X-Number: {number}\r\n\r\n.\r\n").into_bytes(),
    };
    let make = move |number| (number < 50).then(|| outgoing(number));
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let report = drive(plan, make, move |number, outcome| {
        telling.lock().expect("not poisoned").push((number, outcome.clone()));
    })
    .await;
    assert_eq!((report.accepted, report.refused, report.in_doubt, report.not_sent), (49, 1, 0, 0));
    let mut told = told.lock().expect("not poisoned").clone();
    told.sort_by_key(|(number, _)| *number);
    assert_eq!(told.len(), 50);
    assert!(matches!(&told[7].1, Outcome::Refused(reply) if reply.code == 550));
    let mail = mta.mail();
    assert_eq!(mail.len(), 49);
    assert!(mail.iter().all(|mail| mail.data.ends_with(b"\r\n\r\n.\r\n")));
}

#[tokio::test]
async fn a_load_on_nobody_is_not_sent() {
    // A port that is taken, and that nobody listens on.
    let taken = TcpSocket::new_v4().expect("a socket");
    taken.bind(Options::default().listen).expect("bound");
    let nobody = taken.local_addr().expect("bound");
    let plan = Plan { to: nobody, connections: 2, per_connection: 5, patience: Duration::ZERO, login: None };
    let outgoing = Outgoing { from: FROM.into(), to: TO.into(), data: MESSAGE.to_vec() };
    let report = drive(plan, move |number| (number < 7).then(|| outgoing.clone()), |_, _| {}).await;
    assert_eq!((report.accepted, report.in_doubt, report.not_sent), (0, 0, 7));
}

#[tokio::test]
async fn clients_that_vanish_disturb_nobody() {
    let mta = mta(Options::default()).await;
    for cut in [
        &b""[..],
        b"EH",
        b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nhalf a",
        b"\0\xff\r\n",
    ] {
        let mut client = SmtpClient::connect(mta.address()).await.expect("greeted");
        client.raw(cut).await.expect("sent");
    }
    client(&mta).await.send(FROM, &[TO], MESSAGE).await.expect("taken");
    assert_eq!(mta.mail().len(), 1);
}
