//! The settings files of a travel window, read by parsers that others wrote; and a login with nothing but what
//! they say.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::internet::Internet;
use tests::process::{Program, finish};
use tests::topology::TestTopology;
use tests::wait::{SOON, Trouble, until};
use tests::world::World;

use crate::tally::Tally;

const CASE: &str =
    "settings files: Python's plistlib and expat read them, and poplib logs in with what they say";
const SCHEMAS: &str =
    "settings files: xmllint holds them to the schemas of their formats, and finds each mistake";
/// What the formats ask for.
const AUTOCONFIG: &str = include_str!("autoconfig.rng");
const PROFILE: &str = include_str!("profile.rng");
/// Mistakes that a schema has to find, and what stands in their place.
const AUTOCONFIG_MISTAKES: [(&str, &str); 6] = [
    ("version=\"1.1\"", "version=\"2\""),
    ("type=\"pop3\"", "type=\"pop\""),
    ("<socketType>SSL", "<socketType>TLS"),
    ("<hostname>mx", "<hostname>mx "),
    ("<username>%EMAILADDRESS%</username>", ""),
    ("password-cleartext", "password"),
];
const PROFILE_MISTAKES: [(&str, &str); 7] = [
    ("EmailTypePOP", "POP"),
    ("<true/>", "<string>true</string>"),
    ("<key>IncomingPassword</key>", ""),
    ("<integer>", "<integer>x"),
    ("com.apple.mail.managed", "com.apple.mail"),
    ("<string>alice@example.com</string>", "<string>alice</string>"),
    ("<key>PayloadUUID</key>", "<key>PayloadUuid</key>"),
];
/// What xmllint's exit says of a text that is not valid.
const INVALID: i32 = 3;
/// How long the script may take.
const WITHIN: Duration = Duration::from_secs(60);

/// Stands for both clients. The edge's name is not in DNS here, so its address is known by other means.
const SCRIPT: &str = r#"
import plistlib, poplib, ssl, sys
import xml.etree.ElementTree as tree
profile = plistlib.load(open(sys.argv[1], "rb"))
account = profile["PayloadContent"][0]
assert (profile["PayloadType"], account["PayloadType"]) == ("Configuration", "com.apple.mail.managed")
assert account["EmailAccountType"] == "EmailTypePOP" and account["EmailAddress"] == "alice@example.com"
assert account["IncomingMailServerUseSSL"] is True and account["OutgoingMailServerUseSSL"] is True
assert type(account["OutgoingMailServerPortNumber"]) is int
config = tree.parse(sys.argv[2]).getroot()
assert (config.tag, config.get("version")) == ("clientConfig", "1.1")
incoming = config.find("emailProvider/incomingServer")
told = {field.tag: field.text for field in incoming}
assert incoming.get("type") == "pop3" and told["socketType"] == "SSL"
assert told["hostname"] == account["IncomingMailServerHostName"]
assert int(told["port"]) == account["IncomingMailServerPortNumber"]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
session = poplib.POP3_SSL("127.0.0.1", int(told["port"]), context=context)
session.user(told["username"].replace("%EMAILADDRESS%", account["EmailAddress"]))
session.pass_(account["IncomingPassword"])
session.quit()
"#;

/// Runs the cases.
pub async fn cases(pair: &Path, folder: &Path, tally: &mut Tally) {
    let wanted = [(CASE, "python3"), (SCHEMAS, "xmllint")].map(|(case, by)| tally.wants(case, by));
    if wanted == [false; 2] {
        return;
    }
    let verdicts = held(pair, folder, wanted).await;
    for ((case, is_wanted), number) in [CASE, SCHEMAS].into_iter().zip(wanted).zip(0..) {
        let verdict = match &verdicts {
            Ok(verdicts) => verdicts[number].clone(),
            Err(trouble) => Err(trouble.to_string()),
        };
        if is_wanted {
            tally.note(case, verdict);
        }
    }
}

/// Makes the files and has them looked at, as far as that is wanted.
async fn held(pair: &Path, folder: &Path, wanted: [bool; 2]) -> Result<[Result<(), String>; 2], Trouble> {
    let internet = Internet::start(None).await?;
    let (dns, port) = (internet.dns.address(), internet.mta.address().port());
    let topology = TestTopology::new(folder.join("settings-state"), dns, port)?.with_fixed_ports()?;
    let world = World::of(Program::at(pair), topology, internet, None).await?;
    world.pair().await?;
    world.add_people().await?;
    let files = folder.join("settings");
    let into = files.to_str().ok_or("a folder whose name is no text")?;
    world.nodes.big.run(&["travel", "start", "alice", "--until", "standing", "--settings", into]).await?;
    until("the window is live", SOON, async || {
        let windows = world.big().windows().await?;
        world.quiet().await?;
        Ok((windows.len() == 1).then_some(()))
    })
    .await?;
    let mut verdicts = [Ok(()), Ok(())];
    if wanted[0] {
        verdicts[0] = read(&files).await.map_err(|trouble| trouble.to_string());
    }
    if wanted[1] {
        verdicts[1] = valid(&files).await.map_err(|trouble| trouble.to_string());
    }
    world.end().await?;
    Ok(verdicts)
}

async fn read(files: &Path) -> Result<(), Trouble> {
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]);
    python.args([files.join("alice.mobileconfig"), files.join("example.com.xml")]);
    let done = finish(python, b"", WITHIN).await?;
    if done.status.success() { Ok(()) } else { Err(done.stderr.into()) }
}

/// Each file has to be valid, and none of what it would be with a mistake in it.
async fn valid(files: &Path) -> Result<(), Trouble> {
    for (name, schema, mistakes) in [
        ("example.com.xml", AUTOCONFIG, AUTOCONFIG_MISTAKES.as_slice()),
        ("alice.mobileconfig", PROFILE, PROFILE_MISTAKES.as_slice()),
    ] {
        let rules = files.join("schema.rng");
        std::fs::write(&rules, schema)?;
        let text = std::fs::read_to_string(files.join(name))?;
        if let Some(said) = invalid(&rules, &text).await? {
            return Err(format!("{name} is not valid: {said}").into());
        }
        for (from, to) in mistakes {
            if !text.contains(from) {
                return Err(format!("{name} has no {from}").into());
            }
            if invalid(&rules, &text.replacen(from, to, 1)).await?.is_none() {
                return Err(format!("{name} with {to:?} in the place of {from:?} counts as valid").into());
            }
        }
    }
    Ok(())
}

/// What is wrong with a text by a schema; `None` if nothing is.
async fn invalid(schema: &Path, text: &str) -> Result<Option<String>, Trouble> {
    let mut xmllint = Command::new("xmllint");
    xmllint.args(["--nonet", "--noout", "--relaxng"]).arg(schema).arg("-");
    let done = finish(xmllint, text.as_bytes(), WITHIN).await?;
    match done.status.code() {
        Some(0) => Ok(None),
        Some(INVALID) => Ok(Some(done.stderr)),
        // A schema that is none finds nothing.
        _ => Err(done.stderr.into()),
    }
}
