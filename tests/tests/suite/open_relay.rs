//! Nobody's mail for somebody else: every spelling of a recipient that has led elsewhere at some mail system, from
//! every kind of sender, at each of the edge's services.

use std::collections::BTreeMap;
use std::sync::Arc;

use big_node::record::Folder;
use big_node::request::{Started, Terms};
use tests::client::smtp::SmtpClient;
use tests::internet::dns::Zone;
use tests::internet::mta::{Mail, Mta, Options};
use tests::internet::{HOST, loopback};
use tests::process::Program;
use tests::services::SmtpService;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, World};

/// Who mail is to be got to by way of others.
const VICTIM: &str = "victim@far.example";
/// Errors from which on a session waits before each answer.
const ERRORS_MAX: usize = 5;
/// Errors that one form is, at most: a refused MAIL and the RCPT behind it.
const ERRORS_OF_A_FORM: usize = 2;

/// Senders as MAIL names them; whether port 25 takes mail of theirs, and whether alice may send as them.
const SENDERS: [(&str, bool, bool); 9] = [
    ("<>", true, true),
    ("<alice@example.com>", true, true),
    ("<bob@example.com>", true, false),
    ("<nobody@example.com>", true, false),
    ("<carol@remote.example>", true, false),
    ("<root@localhost>", true, false),
    ("<carol%far.example@example.com>", true, false),
    ("<@example.com:carol@remote.example>", false, false),
    ("<carol@[127.0.0.1]>", false, false),
];

/// Recipients as RCPT names them, and the address that each one is to us. A percent sign and a bang are letters of a
/// name; a quoted name, a literal, a source route and whatever cannot be read in one way only are no address.
fn forms() -> Vec<(String, Option<&'static str>)> {
    let mut forms: Vec<_> = FORMS.iter().map(|(form, address)| ((*form).to_owned(), *address)).collect();
    forms.push((format!("<{}@example.com>", "a".repeat(65)), None));
    forms.push((format!("<a@{}.example.com>", "b".repeat(64)), None));
    forms.push((format!("<a@{}com>", "b.".repeat(126)), None));
    forms
}

const FORMS: [(&str, Option<&str>); 75] = [
    // Whom they name plainly.
    ("<victim@far.example>", Some(VICTIM)),
    ("<alice@example.com>", Some(ALICE)),
    ("<ALICE@EXAMPLE.com>", Some(ALICE)),
    ("<alice+victim@example.com>", Some(ALICE)),
    ("<Postmaster>", Some(ALICE)),
    ("<nobody@example.com>", Some("nobody@example.com")),
    // Routes in the name before the @.
    ("<victim%far.example@example.com>", Some("victim%far.example@example.com")),
    ("<alice%far.example@example.com>", Some("alice%far.example@example.com")),
    ("<a%b%far.example@example.com>", Some("a%b%far.example@example.com")),
    ("<victim%far.example@remote.example>", Some("victim%far.example@remote.example")),
    ("<victim%far.example>", None),
    ("<far.example!victim@example.com>", Some("far.example!victim@example.com")),
    ("<far.example!victim@remote.example>", Some("far.example!victim@remote.example")),
    (
        "<example.com!far.example!victim@remote.example>",
        Some("example.com!far.example!victim@remote.example"),
    ),
    ("<far.example!victim>", None),
    ("<example.com!far.example!victim>", None),
    ("<victim=far.example@example.com>", Some("victim=far.example@example.com")),
    ("<alice+victim=far.example@example.com>", Some(ALICE)),
    ("<v#far@example.com>", Some("v#far@example.com")),
    ("<|/bin/sh@example.com>", Some("|/bin/sh@example.com")),
    ("<|/bin/sh@remote.example>", Some("|/bin/sh@remote.example")),
    // Quoted names.
    ("<\"victim@far.example\">", None),
    ("<\"victim@far.example\"@example.com>", None),
    ("<\"victim%far.example\"@example.com>", None),
    ("<\"victim\"@far.example>", None),
    ("<\"a b\"@example.com>", None),
    ("<\"\"@example.com>", None),
    ("<\"a>\"@example.com>", None),
    // More than one @, and source routes.
    ("<victim@far.example@example.com>", None),
    ("<victim@example.com@far.example>", None),
    ("<alice@@example.com>", None),
    ("<@example.com:victim@far.example>", None),
    ("<@example.com,@mx.example.com:victim@far.example>", None),
    ("<@far.example:alice@example.com>", None),
    ("<@example.com,victim@far.example>", None),
    ("<@example.com>", None),
    ("<victim\\@far.example@example.com>", None),
    ("<alice\\@example.com>", None),
    // Literals and numbers.
    ("<victim@[127.0.0.2]>", None),
    ("<victim@[IPv6:::1]>", None),
    ("<victim@[far.example]>", None),
    ("<victim@127.0.0.2>", None),
    ("<victim@2130706434>", None),
    // Dots.
    ("<victim@far.example.>", None),
    ("<alice@example.com.>", None),
    ("<alice@.example.com>", None),
    ("<alice@example..com>", None),
    ("<.alice@example.com>", None),
    ("<alice.@example.com>", None),
    ("<alice..victim@example.com>", None),
    // Comments, lists and what stands around the path.
    ("<alice(comment)@example.com>", None),
    ("<(comment)victim@far.example>", None),
    ("<alice@example.com(victim@far.example)>", None),
    ("<alice@example.com,victim@far.example>", None),
    ("<alice@example.com;victim@far.example>", None),
    ("<alice@example.com>,<victim@far.example>", None),
    ("<alice@example.com><victim@far.example>", None),
    ("<alice@example.com> <victim@far.example>", None),
    ("<alice@example.com\tvictim@far.example>", None),
    ("<<victim@far.example>>", None),
    ("victim@far.example", None),
    ("<victim@far.example", None),
    ("< victim@far.example>", None),
    ("<victim @far.example>", None),
    ("<>", None),
    ("", None),
    ("<victim>", None),
    ("<victim@>", None),
    ("<alice\0@far.example>", None),
    // A name of the host of remote.example, which is this one, and names that are not ASCII.
    ("<victim@localhost>", Some("victim@localhost")),
    ("<victim@xn--bcher-kva.example>", Some("victim@xn--bcher-kva.example")),
    ("<victim@xn--far-.example>", None),
    ("<victim\u{ff20}far.example@example.com>", None),
    ("<victim@far\u{3002}example>", Some(VICTIM)),
    ("<b\u{fc}cher@far.example>", Some("b\u{fc}cher@far.example")),
];

/// Who gets what is sent to that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Alice,
    /// It is of our domain, and nobody's.
    Nobody,
    /// Of another host.
    Foreign,
}

fn whose(address: &str) -> Whose {
    match address.split_once("@example.com") {
        _ if address == ALICE => Whose::Alice,
        Some((_, "")) => Whose::Nobody,
        _ => Whose::Foreign,
    }
}

/// How many forms were judged, and the addresses to which a message was taken.
#[derive(Debug, Default)]
struct Judged {
    forms: usize,
    taken: Vec<&'static str>,
}

/// Names every form in a transaction of its own, over as many sessions as it takes to be answered at once, and sends a
/// message to each that is taken.
async fn judge(
    world: &World,
    trip: &Started,
    service: SmtpService,
    (sender, anybody, traveller): (&str, bool, bool),
) -> Result<Judged, Trouble> {
    let may_send = if service.is_for_travellers() { traveller } else { anybody };
    let mut judged = Judged::default();
    let mut session: Option<(SmtpClient, usize)> = None;
    for (form, address) in forms() {
        let (mut client, mut errors) = match session.take() {
            Some((client, errors)) if errors + ERRORS_OF_A_FORM <= ERRORS_MAX => (client, errors),
            _ => (world.session(service, trip).await?, 0),
        };
        let told = |said: String| format!("{service:?}: {sender} to {form:?}: {said}");
        let utf8 = if form.is_ascii() { "" } else { " SMTPUTF8" };
        client.raw(format!("MAIL FROM:{sender}{utf8}\r\nRCPT TO:{form}\r\n").as_bytes()).await?;
        let mail = client.reply().await?;
        let expected = if may_send { 250..=250 } else { 550..=553 };
        assert!(expected.contains(&mail.code), "{}", told(mail.to_string()));
        let rcpt = client.reply().await.map_err(|error| told(error.to_string()))?;
        let said = rcpt.to_string();
        let is_expected = match address.map(whose) {
            // What holds a NUL ends the session as well.
            _ if rcpt.code == 500 => form.contains('\0'),
            None => matches!(rcpt.code, 501 | 553 | 555),
            Some(_) if !may_send => rcpt.code == 503,
            Some(Whose::Nobody) => said.starts_with("550 5.1.1 "),
            Some(Whose::Foreign) if !service.is_for_travellers() => said.starts_with("550 5.7.1 "),
            Some(Whose::Alice | Whose::Foreign) => rcpt.code == 250,
        };
        assert!(is_expected, "{}", told(said));
        judged.forms += 1;
        if rcpt.code == 500 {
            continue;
        }
        if rcpt.code == 250 {
            client.expect("DATA", 354).await?;
            let message = format!("From: {ALICE}\r\nSubject: to {form}\r\n\r\nx\r\n.\r\n");
            client.raw(message.as_bytes()).await?;
            let dot = client.reply().await?;
            assert_eq!(dot.code, 250, "{}", told(dot.to_string()));
            judged.taken.extend(address);
        } else {
            client.expect("RSET", 250).await?;
            // A sender who is not theirs is no mistake of form or order.
            errors +=
                if may_send || mail.to_string().starts_with("553 5.7.1 ") { 1 } else { ERRORS_OF_A_FORM };
        }
        session = Some((client, errors));
    }
    Ok(judged)
}

/// How often each address is among them.
fn counted<'a>(addresses: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for address in addresses {
        *counts.entry(address.to_owned()).or_default() += 1;
    }
    counts
}

fn recipients(mail: &[Arc<Mail>]) -> BTreeMap<String, usize> {
    counted(mail.iter().flat_map(|mail| mail.recipients.iter().map(String::as_str)))
}

#[tokio::test]
async fn nobody_relays_in_any_spelling_from_any_sender_at_any_service() -> Result<(), Trouble> {
    let world = Arc::new(World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?);
    let listen = (loopback(2), world.internet.mta.address().port()).into();
    let far = Mta::start(Options { listen, name: "far.example".into(), ..Options::default() }).await?;
    world.internet.dns.publish(Zone::new("far.example").a("far.example", loopback(2)));
    world.internet.dns.publish(Zone::new("xn--bcher-kva.example").mx(10, HOST));
    let trip = Arc::new(world.set_out("alice", Terms::default()).await?);

    let asked = SmtpService::ALL.map(|service| {
        let (world, trip) = (world.clone(), trip.clone());
        // One sender after the other, for logins of a traveller that come at once slow each other down.
        tokio::spawn(async move {
            let mut all = Judged::default();
            for sender in SENDERS {
                let judged =
                    judge(&world, &trip, service, sender).await.map_err(|error| error.to_string())?;
                all.forms += judged.forms;
                all.taken.extend(judged.taken);
            }
            Ok::<_, String>(all)
        })
    });
    let (mut judged, mut inside, mut outside) = (0, 0, Vec::new());
    for (service, asked) in SmtpService::ALL.into_iter().zip(asked) {
        let Judged { forms, mut taken } = asked.await??;
        judged += forms;
        let foreign: Vec<_> = taken.extract_if(.., |address| whose(address) == Whose::Foreign).collect();
        assert!(foreign.is_empty() || service.is_for_travellers(), "{service:?}: {foreign:?}");
        inside += taken.len();
        outside.extend(foreign);
    }
    assert_eq!(judged, forms().len() * SENDERS.len() * SmtpService::ALL.len(), "each was judged");

    // What a traveller may send is at the host that its domain names, to that very name; no other host has anything.
    let at_far: Vec<_> = outside.extract_if(.., |address| address.ends_with("@far.example")).collect();
    world.internet.mta.wait_for(outside.len(), SOON).await?;
    far.wait_for(at_far.len(), SOON).await?;
    until("nothing waits any more", SOON, async || Ok(world.edge_queue().await?.is_empty().then_some(())))
        .await?;
    world.quiet().await?;
    assert_eq!(recipients(&world.internet.mta.mail()), counted(outside));
    assert_eq!(recipients(&far.mail()), counted(at_far));
    let lines = world.desk("alice").messages(Folder::In).await?;
    assert_eq!(lines.iter().filter(|line| line.subject.starts_with("to ")).count(), inside);
    assert!(world.desk("bob").messages(Folder::In).await?.is_empty());
    Ok(())
}
