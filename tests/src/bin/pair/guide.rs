//! What a person can type while the pair runs; every line works as it is printed.

use std::io;
use std::path::Path;

use tests::ready::PairReady;

/// The guide. `temporary` says that the state goes at the end.
pub fn text(ready: &PairReady, temporary: bool) -> io::Result<String> {
    let PairReady { edge, big, people, internet, .. } = ready;
    let program = quoted(&std::env::current_exe()?);
    let topology = quoted(&ready.topology);
    let address = |name: &str| {
        let person = people.iter().find(|person| person.name == name);
        person.map_or_else(String::new, |person| person.address.clone())
    };
    let (alice, bob) = (address("alice"), address("bob"));
    let password = people.iter().find_map(|person| person.password.as_deref()).unwrap_or_default();
    let carol = format!("carol@{}", internet.domain);
    let state = if temporary { "gone when the pair ends" } else { "kept" };
    Ok(format!(
        "\
Sallypost runs: two nodes, linked, and a small Internet around them.

  edge-node (pid {edge_pid})   SMTP {smtp}, submission {submission}, submissions {submissions},
                         POP3 {pop3}, POP3S {pop3s}
  big-node (pid {big_pid})    no listener; it dialled the edge's link at {link}
  inside                 {alice} at her desk; {bob} on the road, password {password}
  outside                everyone at {domain}; what they get is in {mailbox}
  state and logs         {folder} ({state})

In another terminal, the nodes' commands:

  big()  {{ {program} node-big  --topology {topology} \"$@\"; }}
  edge() {{ {program} node-edge --topology {topology} \"$@\"; }}

Somebody outside writes to alice and bob:

  swaks --server {smtp} --from {carol} --to {alice},{bob} --header 'Subject: Hello'

Alice, at her desk, reads it and answers (ID as in the list); then see what the outside got:

  big mail list --as alice
  big mail read ID --as alice
  big mail reply ID --as alice --text 'Hello yourself.'
  ls {mailbox}

The same on a full screen, with F1 for its keys; what has not left yet can be amended there, or by command:

  big desk --as alice
  big mail amend ID --as alice --text 'Hello, once more.';  big mail status ID --as alice

Bob, on the road, collects by POP3 and sends by submission; the certificate is self-signed:

  curl -k --user {bob}:{password} pop3s://{pop3s}/
  curl -k --user {bob}:{password} pop3s://{pop3s}/1
  swaks --server {submission} -tls --auth PLAIN --auth-user {bob} --auth-password {password} \\
    --from {bob} --to {carol} --header 'Subject: From the road'

Where everything is:

  big trace ID;  edge trace ID;  big link status;  big queue list;  edge queue list;  big travel list
  big --help;  edge --help

Ctrl-C ends the pair.
",
        edge_pid = edge.pid,
        big_pid = big.pid,
        smtp = edge.smtp,
        submission = edge.submission,
        submissions = edge.submissions,
        pop3 = edge.pop3,
        pop3s = edge.pop3s,
        link = ready.link.address,
        domain = internet.domain,
        mailbox = quoted(&internet.mailbox_dir),
        folder = ready.topology.parent().unwrap_or(Path::new("")).display(),
    ))
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
