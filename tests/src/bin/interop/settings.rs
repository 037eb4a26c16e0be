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
session.user(told["username"])
session.pass_(account["IncomingPassword"])
session.quit()
"#;

/// Runs the case.
pub async fn case(pair: &Path, folder: &Path, tally: &mut Tally) {
    if tally.wants(CASE, "python3") {
        let verdict = read(pair, folder).await.map_err(|trouble| trouble.to_string());
        tally.note(CASE, verdict);
    }
}

async fn read(pair: &Path, folder: &Path) -> Result<(), Trouble> {
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
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]);
    python.args([files.join("alice.mobileconfig"), files.join("example.com.xml")]);
    let done = finish(python, b"", WITHIN).await?;
    if !done.status.success() {
        return Err(done.stderr.into());
    }
    world.end().await
}
