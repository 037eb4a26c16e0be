//! What answers look like on a terminal: pure functions from answer to text.
//!
//! Foreign text appears only in a table's cell, in a line's value, or at the very end of a message
//! that is read, so that it cannot pass for something we say.

use shared::mime::{file_name, terminal};
use shared::render::{Table, cut, line, size, when, word};
use shared::verdict;

use super::account::Accounts;
use crate::record::{About, Folder, Part, Scope, WindowState};
use crate::request::{
    AggregateView, Compared, Deleted, DraftView, Explanation, FolderView, Found, GatewayView, GroupView,
    Imported, Line, NicknameView, PersonView, Queue, Reading, RecipientView, Saved, Sent, Settings,
    ShadowView, Started, Status, WindowView,
};

/// Characters of a correspondent in a list.
const WHO_MAX: usize = 32;
/// How far an answer is set in, at most.
const DEPTH_SHOWN_MAX: usize = 10;
/// The lanes, as [`Queue::units`] counts them.
const LANES: [&str; 4] = ["service", "event", "inter", "batch"];

pub(super) fn people(people: &[PersonView], accounts: &Accounts) -> String {
    let header =
        ["name", "attachments", "pop3", "account", "travelling", "display", "addresses", "forwards to"];
    let mut table = Table::new(header);
    for person in people {
        table.row([
            person.name.clone(),
            person.filing.map_or("as the site", |mode| mode.as_str()).into(),
            person.pop3.as_str().into(),
            person.uid.map_or_else(String::new, |uid| accounts.shown(uid)),
            if person.travelling { "yes" } else { "no" }.into(),
            cut(&person.display, WHO_MAX),
            person.addresses.join(", "),
            forwards(person),
        ]);
    }
    table.or("nobody yet: `big-node person add NAME`")
}

/// Aggregate reports.
pub(super) fn reports(reports: &[AggregateView]) -> String {
    let mut table = Table::new(["day (UTC)", "kind", "about", "to", "id", "state"]);
    for report in reports {
        let day = when(report.begin).get(..10).unwrap_or_default().to_owned();
        let (to, kind, domain) = (report.to.join(", "), report.kind.clone(), report.domain.clone());
        table.row([day, kind, domain, to, report.id.clone(), report.state.clone()]);
    }
    table.or("none in 30 days: the edge counts by the day, and tells who asks for it in DNS")
}

fn forwards(person: &PersonView) -> String {
    let copy = if person.keep_copy { " and here" } else { "" };
    if person.forward.is_empty() { String::new() } else { person.forward.join(", ") + copy }
}

pub(super) fn shadows(shadows: &[ShadowView]) -> String {
    let mut table = Table::new(["name", "stands for", "display", "addresses"]);
    for shadow in shadows {
        let display = cut(&shadow.display, WHO_MAX);
        table.row([shadow.name.clone(), shadow.target.clone(), display, shadow.addresses.join(", ")]);
    }
    table.or("none yet: `big-node shadow add NAME ADDRESS`")
}

pub(super) fn groups(groups: &[GroupView]) -> String {
    let mut table = Table::new(["name", "display", "addresses", "members"]);
    for group in groups {
        let display = cut(&group.display, WHO_MAX);
        table.row([group.name.clone(), display, group.addresses.join(", "), group.members.join(", ")]);
    }
    table.or("none yet: `big-node group add NAME --member NAME`")
}

pub(super) fn gateways(gateways: &[GatewayView]) -> String {
    let mut table = Table::new(["name", "kind", "waiting", "where", "recipients", "takes the domains"]);
    for gateway in gateways {
        let mut places = gateway.hosts.clone();
        places.extend(gateway.drop.clone());
        places.extend(gateway.pickup.as_ref().map(|folder| format!("back from {folder}")));
        table.row([
            gateway.name.clone(),
            gateway.kind.clone(),
            gateway.waiting.to_string(),
            places.join(", "),
            match gateway.listed {
                0 => gateway.takes.as_str().to_owned(),
                listed => format!("{} ({listed})", gateway.takes.as_str()),
            },
            gateway.domains.join(", "),
        ]);
    }
    let mut text =
        table.or("none but smtp, by the edge: `big-node gateway add NAME --lmtp HOST:PORT --domain DOMAIN`");
    for gateway in gateways.iter().filter(|gateway| gateway.restart) {
        let name = &gateway.name;
        text.push_str(&format!(
            "{name} is reached from the next start on: the sandbox of the big-node that runs was made before it; \
             start big-node again\n"
        ));
    }
    text
}

pub(super) fn nicknames(nicknames: &[NicknameView]) -> String {
    let mut table = Table::new(["nickname", "means"]);
    for nickname in nicknames {
        let target = nickname.target.clone().unwrap_or_else(|| "(removed)".into());
        table.row([nickname.name.clone(), target]);
    }
    table.or("none yet: `big-node nickname add NAME TARGET --as PERSON`")
}

pub(super) fn imported(imported: &Imported) -> String {
    let mut table = Table::new(["line", "name", "what is wrong"]);
    for bad in &imported.bad {
        table.row([bad.line.to_string(), bad.name.clone(), bad.reason.clone()]);
    }
    let (rows, wrong) = (imported.rows, imported.bad.len());
    match (wrong, imported.dry_run) {
        (0, true) => format!("{rows} rows could be added; nothing was changed\n"),
        (0, false) => format!("{} of {rows} rows were added\n", imported.added),
        _ => format!("{table}{wrong} of {rows} rows are wrong; nothing was changed\n"),
    }
}

pub(super) fn explanation(explanation: &Explanation) -> String {
    let mut text = line("typed", &explanation.typed);
    if let Some(reason) = &explanation.refused {
        text += &line("refused", reason);
    }
    if let Some(address) = &explanation.address {
        text += &line("address", address);
    }
    if let Some(code) = explanation.rcpt {
        text += &line("RCPT", &format!("the edge answers {code}"));
    }
    if !explanation.steps.is_empty() {
        let mut table = Table::new(["rule", "what it does"]);
        for step in &explanation.steps {
            table.row([word(&step.rule), step.what.clone()]);
        }
        text += &format!("\n{table}");
    }
    if !explanation.recipients.is_empty() {
        let mut table = Table::new(["recipient", "its copy goes to"]);
        for recipient in &explanation.recipients {
            table.row([recipient.address.clone(), recipient.to.clone()]);
        }
        text += &format!("\n{table}");
    }
    text
}

/// `name` is the folder's, as it was asked for.
pub(super) fn folder(lines: &[Line], name: &str) -> String {
    let who = if lines.iter().all(is_outgoing) && !lines.is_empty() { "to" } else { "from" };
    let mut table = Table::new(["id", "at (UTC)", "marks", "size", who, "subject"]);
    for line in lines {
        table.row(if line.part == 0 { message(line) } else { part(line) });
    }
    table.or(&format!("nothing in folder {name}"))
}

/// What a search has found so far; the first part of it has a head.
pub(super) fn found(lines: &[Line], is_first: bool) -> String {
    let table = lines_with_folder(lines, |line| line.subject.clone()).to_string();
    match table.split_once('\n') {
        Some((_, rows)) if !is_first => rows.to_owned(),
        _ => table,
    }
}

/// How far a search has looked.
pub(super) fn looked(found: &Found) -> String {
    let mut text = if found.lines.is_empty() { "nothing found\n" } else { "" }.to_owned();
    text += &format!("\n{} messages looked at", found.looked_at);
    if found.unread_texts > 0 {
        text += &format!(", of {} of them not the text", found.unread_texts);
    }
    if found.behind.is_some() {
        text += &format!("; older ones were not ({} are found)", found.lines.len());
    }
    text + ".\n"
}

/// A conversation: answers are set in under what they answer.
pub(super) fn thread(lines: &[Line]) -> String {
    let set_in = |line: &Line| {
        let depth = usize::try_from(line.depth).unwrap_or(DEPTH_SHOWN_MAX).min(DEPTH_SHOWN_MAX);
        format!("{}{}", "  ".repeat(depth), line.subject)
    };
    lines_with_folder(lines, set_in).or("no messages")
}

fn lines_with_folder(lines: &[Line], subject: impl Fn(&Line) -> String) -> Table<6> {
    let mut table = Table::new(["id", "at (UTC)", "marks", "folder", "from", "subject"]);
    for line in lines {
        let [id, at, marks, _, who, _] = message(line);
        table.row([id, at, marks, cut(&line.folder, WHO_MAX), who, subject(line)]);
    }
    table
}

pub(super) fn folders(folders: &[FolderView]) -> String {
    let mut table = Table::new(["folder", "messages", "unread", "own"]);
    for folder in folders {
        let own = if folder.own { "yes" } else { "" };
        table.row([
            folder.name.clone(),
            folder.messages.to_string(),
            folder.unread.to_string(),
            own.to_owned(),
        ]);
    }
    table.to_string()
}

/// A draft; whatever we have to say comes before its text.
pub(super) fn draft(draft: &DraftView) -> String {
    let about = match &draft.about {
        None => String::new(),
        Some(About::Reply { message, .. }) => format!("answers {message}"),
        Some(About::Forward { message, .. }) => format!("sends {message} on"),
        Some(About::Return { message, .. }) => format!("is {message}, changed"),
    };
    let mut text = String::new();
    for (name, value) in [
        ("To", draft.to.join(", ")),
        ("Cc", draft.cc.join(", ")),
        ("Subject", draft.subject.clone()),
        ("Id", draft.id.clone()),
        ("Saved", format!("{} UTC", when(draft.at))),
        ("About", about),
    ] {
        if !value.is_empty() {
            text += &line(name, &value);
        }
    }
    if !draft.parts.is_empty() {
        text += &format!("\n{}", parts(&draft.id, &draft.parts));
    }
    match terminal::safe(&draft.text).trim_end() {
        "" => text + "\n(no text)\n",
        safe => text + "\n" + safe + "\n",
    }
}

/// Whether a line is of what the person has written, and says to whom it goes.
fn is_outgoing(line: &Line) -> bool {
    [Folder::Sent, Folder::Drafts].iter().any(|folder| folder.fixed_name() == Some(line.folder.as_str()))
}

fn message(line: &Line) -> [String; 6] {
    let unread = !line.read && !is_outgoing(line);
    let marks = [
        (unread, "new"),
        (line.answered, "answered"),
        (line.forwarded, "forwarded"),
        (line.late, "late"),
        revised(line.amended, line.withdrawn),
        (line.suspect, "suspect"),
    ];
    let marks: Vec<_> = marks.iter().filter(|(is_set, _)| *is_set).map(|(_, mark)| *mark).collect();
    let who = if is_outgoing(line) { line.to.join(", ") } else { line.from.clone() };
    [
        line.id.clone(),
        when(line.at),
        marks.join(" "),
        size(line.size),
        cut(&who, WHO_MAX),
        line.subject.clone(),
    ]
}

/// The mark of a message that its author has revised.
fn revised(amended: bool, withdrawn: bool) -> (bool, &'static str) {
    (amended || withdrawn, if withdrawn { "withdrawn" } else { "amended" })
}

fn part(line: &Line) -> [String; 6] {
    let content_type = line.content_type.clone().unwrap_or_default();
    let id = format!("  {}", line.id);
    let name = named(&line.subject, &content_type, &line.part.to_string());
    [id, String::new(), String::new(), size(line.size), kind(&content_type), name]
}

/// What kind of thing an attachment is: a word where there is one, else its media type.
pub(super) fn kind(content_type: &str) -> String {
    match content_type {
        "message/rfc822" | "message/global" => "message".into(),
        "multipart/related" => "page with pictures".into(),
        "multipart/signed" => "signed message".into(),
        "multipart/encrypted" => "encrypted message".into(),
        other => cut(other, WHO_MAX),
    }
}

/// An attachment's name as its sender gave it, or in brackets the one that it would be saved under.
pub(super) fn named(name: &str, content_type: &str, number: &str) -> String {
    match name {
        "" => format!("({})", file_name(None, content_type, number)),
        name => name.to_owned(),
    }
}

/// A message as read; whatever we have to say comes before its text.
pub(super) fn reading(reading: &Reading, person: &str) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("From", reading.from.join(", ")),
        ("To", reading.to.join(", ")),
        ("Cc", reading.cc.join(", ")),
        ("Date", format!("{} UTC", when(reading.at))),
        ("Subject", reading.subject.clone()),
        ("Id", reading.id.clone()),
        ("Attachment", attachment(reading)),
        ("Answers", reading.parent.clone().unwrap_or_default()),
        ("Revision", amended(reading)),
        ("Answered", if reading.answered { "yes" } else { "" }.into()),
        ("Forwarded", if reading.forwarded { "yes" } else { "" }.into()),
        ("Verified", verdict::summary(&reading.verdicts).unwrap_or_default()),
    ] {
        if !value.is_empty() {
            text += &line(name, &value);
        }
    }
    if let Some(reason) = &reading.unparsed {
        text += &line(
            "Attachments",
            &format!("could not be told apart ({reason}); --raw gives the whole message"),
        );
    }
    if !reading.parts.is_empty() {
        // `save` with an attachment's id alone saves that one, not what is in it.
        let all = if reading.parts.len() > 1 || reading.content_type.is_some() { " --all" } else { "" };
        text += &format!("\n{}", parts(&reading.id, &reading.parts));
        text += &format!("Save: big-node mail save {}{all} --as {person} --to DIR\n", reading.id);
    }
    match terminal::safe(&reading.text).trim_end() {
        "" => text + "\n(no text)\n",
        safe => text + "\n" + safe + "\n",
    }
}

/// That a message was revised by its author.
fn amended(reading: &Reading) -> String {
    match revised(reading.amended, reading.withdrawn) {
        (true, mark) => format!("{} ({mark} by its author)", reading.revision),
        (false, _) => String::new(),
    }
}

/// What is read, if it is an attachment.
fn attachment(reading: &Reading) -> String {
    let Some(content_type) = &reading.content_type else { return String::new() };
    let number = reading.id.split_once('.').map_or("", |(_, number)| number);
    let name = named(reading.part_name.as_deref().unwrap_or_default(), content_type, number);
    format!("{}, {name}", kind(content_type))
}

fn parts(id: &str, parts: &[Part]) -> String {
    let mut table = Table::new(["attachment", "size", "kind", "name"]);
    for part in parts {
        let id = format!("{id}.{}", part.number);
        let name = part.name.clone().unwrap_or_default();
        let number = id.split_once('.').map_or("", |(_, number)| number);
        let name = named(&name, &part.content_type, number);
        table.row([id, size(part.size), kind(&part.content_type), name]);
    }
    table.to_string()
}

pub(super) fn saved(saved: &[Saved]) -> String {
    let mut table = Table::new(["attachment", "size", "kind", "saved as"]);
    for file in saved {
        table.row([file.part.clone(), size(file.bytes), kind(&file.content_type), file.path.clone()]);
    }
    table.to_string()
}

pub(super) fn sent(sent: &Sent) -> String {
    format!("{}\n{}", line("sent as", &sent.id), recipients(&sent.recipients))
}

pub(super) fn status(status: &Status) -> String {
    let mut head = line("message", &status.id) + &line("subject", &status.subject);
    if status.late {
        head += &line("late", "submitted on the road; it came after the travel window had ended");
    }
    format!("{head}\n{}", recipients(&status.recipients))
}

fn recipients(recipients: &[RecipientView]) -> String {
    let mut table = Table::new(["recipient", "state", "since (UTC)", "what was said"]);
    for recipient in recipients {
        let mut address = match &recipient.via {
            None => recipient.address.clone(),
            Some(via) => format!("{} (by {via})", recipient.address),
        };
        if let Some(gateway) = &recipient.gateway {
            address = format!("/{gateway} {address}");
        }
        table.row([address, word(&recipient.state), when(recipient.at), said(recipient)]);
    }
    table.or("no recipients")
}

/// Whether it is what a host wrote: that begins with its code.
fn is_reply(text: &str) -> bool {
    let code = text.split(' ').next().unwrap_or_default();
    code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn said(recipient: &RecipientView) -> String {
    let mut said = Vec::new();
    if let Some(host) = &recipient.host {
        let how = match &recipient.tls {
            Some(tls) => format!(" under {tls}"),
            None if is_reply(&recipient.text) => " in clear".into(),
            // Our own words may be just why nothing was sent in clear.
            None => String::new(),
        };
        said.push(format!("{host}{how}:"));
    }
    // What a host wrote has its enhanced code in it.
    let says_it = recipient.text.split(' ').take(2).any(|word| word == recipient.status);
    let status = Some(&recipient.status).filter(|_| !says_it);
    said.extend(status.into_iter().chain([&recipient.text]).filter(|text| !text.is_empty()).cloned());
    if let Some(why) = &recipient.relay {
        said.push(format!("(through the smart host: {why})"));
    }
    if recipient.in_doubt {
        said.push("(in doubt: it may have arrived)".into());
    }
    if recipient.host_reports {
        said.push("(it reports delivery itself)".into());
    }
    if let Some(next) = recipient.next_attempt_at {
        said.push(format!("(next attempt {})", when(next)));
    }
    if let Some(to) = &recipient.redirect {
        said.push(format!("(being redirected to {to})"));
    }
    if let Some(revised) = &recipient.revised {
        let more = if revised.text.is_empty() { String::new() } else { format!(": {}", revised.text) };
        let (number, result, at) = (revised.revision, word(&revised.result), when(revised.at));
        said.push(format!("(revision {number} {result} {at}{more})"));
    }
    said.join(" ")
}

pub(super) fn deleted(deleted: &Deleted) -> String {
    let to = if deleted.for_good { "gone for good" } else { "in Trash" };
    format!("{} is {to}\n", deleted.id)
}

pub(super) fn windows(windows: &[WindowView]) -> String {
    let header = [
        "person",
        "state",
        "from (UTC)",
        "until (UTC)",
        "scope",
        "after fetch",
        "filled in",
        "on the edge",
        "waiting",
        "fetched",
        "deleted",
        "last login (UTC)",
        "id",
    ];
    let mut table = Table::new(header);
    for window in windows {
        let on_edge = match window.quota {
            None => size(window.bytes),
            Some(quota) => format!("{} of {}", size(window.bytes), size(quota)),
        };
        table.row([
            window.person.clone(),
            state_of(window),
            when(window.from),
            window.until.map_or_else(|| "standing".into(), when),
            limits(window),
            word(&window.after_fetch),
            format!("{} of {}", window.back_fill.0, window.back_fill.1),
            format!("{} ({on_edge})", window.filed - window.deleted.min(window.filed)),
            window.waiting.to_string(),
            window.fetched.to_string(),
            window.deleted.to_string(),
            window.last_login.map_or_else(|| "never".into(), when),
            window.id.clone(),
        ]);
    }
    table.or("nobody travels: `big-node travel start PERSON --until DATE`")
}

/// A window that has ended here stays a worry until the edge says so.
fn state_of(window: &WindowView) -> String {
    match (window.state, window.ended_at) {
        (WindowState::Ending, Some(at)) => format!("ending, not confirmed since {}", when(at)),
        (state, _) => word(&state),
    }
}

fn limits(window: &WindowView) -> String {
    let mut text = scope(window.scope);
    if window.headers_first {
        text += ", small first";
    }
    if let Some(limit) = window.size_max {
        text += &format!(", up to {}", size(limit));
    }
    if window.too_large > 0 {
        text += &format!(" ({} larger)", window.too_large);
    }
    text
}

pub(super) fn scope(scope: Scope) -> String {
    match scope {
        Scope::New => "new".into(),
        Scope::Days(days) => format!("{days}d"),
        Scope::All => "all".into(),
    }
}

/// The credentials, and everything that a mail client's account dialogue asks for.
pub(super) fn started(started: &Started) -> String {
    let window = &started.window;
    let until = match window.until {
        None => "until it is ended (standing)".into(),
        Some(until) => format!("until {} UTC", when(until)),
    };
    let on_their_way = match started.backfilled {
        0 => String::new(),
        messages => format!("; {messages} messages are on their way"),
    };
    [
        format!("{} travels {until}{on_their_way}.\n\n", window.person),
        line("user name", &started.user),
        line("password", &started.password),
        "\nThe password is shown this once and stored nowhere. It does not work on big-node.\n\n".into(),
        settings(&started.settings).to_string(),
        "\nAuthentication is by normal password. Take one line for collecting and one for sending.\n".into(),
    ]
    .concat()
}

fn settings(settings: &Settings) -> Table<5> {
    let mut table = Table::new(["for", "server", "port", "security", "address"]);
    for (purpose, security, addresses) in [
        ("POP3 (collecting)", "SSL/TLS", &settings.pop3s),
        ("POP3 (collecting)", "STARTTLS", &settings.pop3),
        ("SMTP (sending)", "SSL/TLS", &settings.submissions),
        ("SMTP (sending)", "STARTTLS", &settings.submission),
    ] {
        for socket in addresses {
            let (address, port) = socket.rsplit_once(':').unwrap_or((socket, ""));
            table.row([purpose, &settings.host, port, security, address].map(str::to_owned));
        }
    }
    table
}

pub(super) fn compared(compared: &Compared) -> String {
    let Compared { compared, differing, named, cut, quiet: _ } = compared;
    let mut text = format!(
        "{compared} holdings of messages compared (origins, recipients who wait, copies in travel windows): \
         {differing} differ\n"
    );
    named.iter().for_each(|difference| text += &format!("  {difference}\n"));
    match differing.saturating_sub(named.len() as u64) {
        0 => {}
        more => text += &format!("  and {more} more\n"),
    }
    if *cut {
        text += "there are more than are compared at once: of origins, only the newest were\n";
    }
    text
}

pub(super) fn queue(queue: &Queue) -> String {
    let mut text = String::new();
    for (lane, count) in LANES.iter().zip(queue.units).filter(|(_, count)| *count > 0) {
        text += &line(lane, &format!("{count} units wait for the edge"));
    }
    for message in &queue.messages {
        text += &format!("\n{}", status(message));
    }
    if !queue.dead_letters.is_empty() {
        text += &format!("\nThe edge refused:\n{}", shared::operator::show_dead(&queue.dead_letters));
    }
    if text.is_empty() { "nothing waits\n".into() } else { text }
}
