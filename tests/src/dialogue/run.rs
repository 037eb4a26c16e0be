//! Holding a server to dialogues.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::script::{Begins, Dialogue, Message, Step, octets, repeated};
use super::{Maildrop, Peer, Protocol, Server};
use crate::client::scram::Scram;
use crate::wait::{SOON, Trouble, until};
use crate::wire::dot_stuffed;

/// How long one line may take.
const LINE_WITHIN: Duration = Duration::from_secs(60);
/// Octets of an answer that are shown.
const SHOWN_BYTES: usize = 300;
/// What a client of SMTP calls itself.
const CLIENT: &str = "client.example";
/// A password that nobody has.
const GUESS: &str = "a-wrong-password";
/// A user who does not exist.
const NOBODY: &str = "nobody-of-that-name";

/// Where a server differs from a dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The dialogue's title.
    pub title: String,
    /// File and line of the step.
    pub place: String,
    /// What had to come.
    pub expected: String,
    /// What came.
    pub came: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, place, expected, came } = self;
        write!(f, "{place} ({title})\n  expected {expected}\n  came     {came}")
    }
}

/// Holds the server to a dialogue; `None`, if it has not what that needs.
///
/// # Errors
/// What is wrong with the dialogue or the server, beside the answers.
pub async fn run(
    server: &mut dyn Server,
    dialogue: &Dialogue,
    messages: &[Message],
) -> Result<Option<Result<(), Difference>>, Trouble> {
    if !dialogue.needs.iter().all(|feature| server.has(feature)) {
        return Ok(None);
    }
    let named = |name: &String| {
        let found = messages.iter().find(|message| message.name == *name).cloned();
        found.ok_or_else(|| format!("{}: no message is named {name}", dialogue.place))
    };
    let mail: Vec<_> = dialogue.mail.iter().map(named).collect::<Result<_, _>>()?;
    let (protocol, maildrop) = (server.protocol(), server.maildrop(&dialogue.on, &mail).await?);
    let (seen, connections) = (HashMap::new(), Vec::new());
    let mut talk = Talk { server, protocol, dialogue, messages, maildrop, seen, connections };
    talk.connect().await?;
    match dialogue.begins {
        Begins::Early | Begins::Greeted => {}
        Begins::Hello => talk.hello().await?,
        Begins::Login => talk.login().await?,
    }
    let mut steps = dialogue.steps.iter().peekable();
    let mut together = Vec::new();
    while let Some((line, step)) = steps.next() {
        if let Step::Send { text, line } = step {
            together.extend(octets(&talk.filled(text)?)?);
            together.extend_from_slice(if *line { b"\r\n" } else { b"" });
            if !matches!(steps.peek(), Some((_, Step::Send { .. }))) {
                // A server may close while we still talk.
                let _ = talk.peer()?.send(&std::mem::take(&mut together)).await;
            }
            continue;
        }
        if let Err((expected, came)) = talk.step(step).await? {
            let file = dialogue.place.split(':').next().unwrap_or_default();
            let (title, place) = (dialogue.title.clone(), format!("{file}:{line}"));
            return Ok(Some(Err(Difference { title, place, expected, came })));
        }
    }
    Ok(Some(Ok(())))
}

/// What had to come, and what came.
type Other = (String, String);

struct Talk<'t> {
    server: &'t mut dyn Server,
    protocol: Protocol,
    dialogue: &'t Dialogue,
    messages: &'t [Message],
    maildrop: Maildrop,
    /// What was seen, by its name.
    seen: HashMap<String, String>,
    connections: Vec<Box<dyn Peer>>,
}

impl Talk<'_> {
    fn peer(&mut self) -> Result<&mut Box<dyn Peer>, Trouble> {
        self.connections.last_mut().ok_or_else(|| "there is no connection".into())
    }

    /// A new connection, greeted unless the dialogue begins before that.
    async fn connect(&mut self) -> Result<(), Trouble> {
        let mut peer = self.server.connect(&self.dialogue.on).await?;
        if self.dialogue.begins != Begins::Early {
            let greeting = peer.line().await?;
            let expected: &[u8] = match self.protocol {
                Protocol::Pop3 => b"+OK ",
                Protocol::Smtp => b"220 ",
            };
            if !greeting.starts_with(expected) {
                return Err(format!("the greeting is {}", shown(&greeting)).into());
            }
        }
        self.connections.push(peer);
        Ok(())
    }

    async fn hello(&mut self) -> Result<(), Trouble> {
        self.command(&format!("EHLO {CLIENT}"), b"250 ").await
    }

    /// Sends a command of SMTP, which must be answered so.
    async fn command(&mut self, command: &str, expected: &[u8]) -> Result<(), Trouble> {
        self.peer()?.send(format!("{command}\r\n").as_bytes()).await?;
        let lines = self.lines().await.map_err(|came| format!("{command} is answered {came}"))?;
        if lines.last().is_some_and(|line| line.starts_with(expected)) {
            return Ok(());
        }
        Err(format!("{}: {command} is answered {}", self.dialogue.place, shown(&lines.concat())).into())
    }

    async fn login(&mut self) -> Result<(), Trouble> {
        if self.protocol == Protocol::Smtp {
            self.hello().await?;
            let plain = self.named("plain")?;
            return self.command(&format!("AUTH PLAIN {plain}"), b"235 ").await;
        }
        let commands = format!("USER {}\r\nPASS {}\r\n", self.maildrop.user, self.maildrop.password);
        let place = self.dialogue.place.clone();
        let peer = self.peer()?;
        // A server may take a moment to see that the one before has hung up.
        until("the maildrop is free", SOON, async || {
            peer.send(commands.as_bytes()).await?;
            peer.line().await?;
            match peer.line().await? {
                reply if reply.starts_with(b"+OK") => Ok(Some(())),
                reply if reply.starts_with(b"-ERR [IN-USE]") => Ok(None),
                reply => Err(format!("{place}: the login is answered {}", shown(&reply)).into()),
            }
        })
        .await
    }

    async fn step(&mut self, step: &Step) -> Result<Result<(), Other>, Trouble> {
        Ok(match step {
            Step::Send { .. } => Ok(()),
            Step::Line(pattern) => {
                let came = self.line().await;
                self.must_fit(pattern, &came)?
            }
            Step::Block { has, lacks } => self.block(has, lacks).await?,
            Step::Message { number, top, instead } => self.message(*number, *top, instead.as_deref()).await?,
            Step::Closed => match self.line().await {
                Came::Closed => Ok(()),
                came => Err(("the end of the connection".into(), came.to_string())),
            },
            Step::Tls => {
                self.peer()?.start_tls().await?;
                Ok(())
            }
            Step::Scram { plus, who } => self.scram(*plus, who.as_deref()).await?,
            Step::Login => {
                self.login().await?;
                Ok(())
            }
            Step::Again => {
                self.connections.pop();
                self.connect().await?;
                Ok(())
            }
            Step::Second => {
                self.connect().await?;
                Ok(())
            }
            Step::Back => {
                self.connections.pop();
                Ok(())
            }
            Step::Wait(seconds) => {
                self.server.wait(*seconds);
                Ok(())
            }
            Step::Fault(step) => {
                self.server.fault(step);
                Ok(())
            }
            Step::Kept(count) => match self.server.kept().await? {
                Some(kept) if kept.len() != *count => {
                    Err((format!("{count} messages taken"), format!("{} messages taken", kept.len())))
                }
                _ => Ok(()),
            },
            Step::KeptAs(name) => {
                let found = self.messages.iter().find(|message| message.name == *name);
                let expected = &found.ok_or_else(|| format!("no message is named {name}"))?.octets;
                match self.server.kept().await? {
                    Some(kept) if kept.last() != Some(expected) => {
                        let came = kept.last().map_or("no message".into(), |message| shown(message));
                        Err((shown(expected), came))
                    }
                    _ => Ok(()),
                }
            }
            Step::Differ(one, other) => match (self.seen.get(one), self.seen.get(other)) {
                (Some(one), Some(other)) if one != other => Ok(()),
                (one, other) => Err(("two that differ".into(), format!("{one:?} and {other:?}"))),
            },
        })
    }

    async fn line(&mut self) -> Came {
        let Ok(peer) = self.peer() else { return Came::Closed };
        match tokio::time::timeout(LINE_WITHIN, peer.line()).await {
            Ok(Ok(line)) => match line.strip_suffix(b"\r\n") {
                Some(line) => Came::Line(line.to_vec()),
                None => Came::Bare(line),
            },
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => Came::Nothing,
            Ok(Err(_)) => Came::Closed,
            Err(_) => Came::Nothing,
        }
    }

    fn must_fit(&mut self, pattern: &str, came: &Came) -> Result<Result<(), Other>, Trouble> {
        let filled = self.filled(pattern)?;
        let fits = match came {
            Came::Line(line) => self.fits(&filled, line)?,
            _ => false,
        };
        Ok(if fits { Ok(()) } else { Err((filled, came.to_string())) })
    }

    /// The lines of a block, without its end, or of a reply; what came instead of one.
    async fn lines(&mut self) -> Result<Vec<Vec<u8>>, Came> {
        let mut lines = Vec::new();
        loop {
            match self.line().await {
                Came::Line(line) if self.protocol == Protocol::Pop3 && line == b"." => return Ok(lines),
                Came::Line(line) => {
                    let ends = self.protocol == Protocol::Smtp && line.get(3) != Some(&b'-');
                    lines.push(line);
                    if ends {
                        return Ok(lines);
                    }
                }
                other => return Err(other),
            }
        }
    }

    async fn block(&mut self, has: &[String], lacks: &[String]) -> Result<Result<(), Other>, Trouble> {
        let lines = match self.lines().await {
            Ok(lines) => lines,
            Err(came) => return Ok(Err(("a block with its end".into(), came.to_string()))),
        };
        for (patterns, wanted) in [(has, true), (lacks, false)] {
            for pattern in patterns {
                let filled = self.filled(pattern)?;
                let mut found = false;
                for line in &lines {
                    found = found || self.fits(&filled, line)?;
                }
                if found != wanted {
                    let what = if wanted { "a block with" } else { "a block without" };
                    return Ok(Err((format!("{what} {filled}"), shown(&lines.join(&b"\r\n"[..])))));
                }
            }
        }
        Ok(Ok(()))
    }

    async fn message(
        &mut self,
        number: usize,
        top: Option<usize>,
        instead: Option<&str>,
    ) -> Result<Result<(), Other>, Trouble> {
        let served = number.checked_sub(1).and_then(|index| self.maildrop.messages.get(index)).cloned();
        let mut served = served.ok_or_else(|| format!("{}: no message {number}", self.dialogue.place))?;
        if let Some(name) = instead {
            let found = self.messages.iter().find(|message| message.name == name);
            served.content = found.ok_or_else(|| format!("no message is named {name}"))?.octets.clone();
        }
        let mut expected = [served.trace, served.content].concat();
        if let Some(lines) = top {
            expected.truncate(top_of(&expected, lines));
        }
        let lines = match self.lines().await {
            Ok(lines) => lines,
            Err(came) => return Ok(Err(("a message with its end".into(), came.to_string()))),
        };
        let mut came = lines.join(&b"\r\n"[..]);
        if !lines.is_empty() {
            came.extend_from_slice(b"\r\n");
        }
        // On the wire, where each dot at the start of a line is there twice.
        let expected = dot_stuffed(&expected);
        Ok(if came == expected { Ok(()) } else { Err((shown(&expected), shown(&came))) })
    }

    async fn scram(&mut self, plus: bool, who: Option<&str>) -> Result<Result<(), Other>, Trouble> {
        let Maildrop { user, password, .. } = self.maildrop.clone();
        let (user, password) = match who {
            Some("guess") => (user, GUESS.to_owned()),
            Some("nobody") => (NOBODY.to_owned(), password),
            _ => (user, password),
        };
        let exporter = self.peer()?.exporter().filter(|_| plus);
        let scram = Scram { user: &user, password: &password, exporter };
        let first = format!("AUTH {} {}\r\n", scram.mechanism(), scram.first());
        self.peer()?.send(first.as_bytes()).await?;
        let challenge = self.line().await;
        let mark = match self.protocol {
            Protocol::Pop3 => "+ ",
            Protocol::Smtp => "334 ",
        };
        let last = match &challenge {
            Came::Line(line) => {
                line.strip_prefix(mark.as_bytes()).and_then(|text| scram.last(&String::from_utf8_lossy(text)))
            }
            _ => None,
        };
        let Some((last, proof)) = last else { return Ok(Err(("a challenge".into(), challenge.to_string()))) };
        self.peer()?.send(format!("{last}\r\n").as_bytes()).await?;
        if who.is_none() {
            let came = self.line().await;
            if !matches!(&came, Came::Line(line) if *line == format!("{mark}{proof}").into_bytes()) {
                return Ok(Err((format!("{mark}{proof}"), came.to_string())));
            }
            self.peer()?.send(b"\r\n").await?;
        }
        Ok(Ok(()))
    }

    /// The text with what its names stand for.
    fn filled(&self, text: &str) -> Result<String, Trouble> {
        let text = repeated(text)?;
        let (mut out, mut rest) = (String::new(), text.as_str());
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a { without }")?;
            out.push_str(before);
            match name.strip_prefix('?') {
                Some(word) if !self.seen.contains_key(word) => out.push_str(&format!("{{?{word}}}")),
                known => out.push_str(&self.named(known.unwrap_or(name))?),
            }
            rest = after;
        }
        Ok(out + rest)
    }

    fn named(&self, name: &str) -> Result<String, Trouble> {
        let Maildrop { user, password, address, messages } = &self.maildrop;
        let size = |message: &super::Served| message.trace.len() + message.content.len();
        let plain = |identity: &str, user: &str, password: &str| {
            STANDARD.encode(format!("{identity}\0{user}\0{password}"))
        };
        if let Some(word) = self.seen.get(name) {
            return Ok(word.clone());
        }
        Ok(match name {
            "user" => user.clone(),
            "password" => password.clone(),
            "me" => address.clone(),
            "base64-user" => STANDARD.encode(user),
            "base64-password" => STANDARD.encode(password),
            "plain" => plain("", user, password),
            "plain-guess" => plain("", user, GUESS),
            "plain-nobody" => plain("", NOBODY, password),
            "plain-other" => plain("somebody-else", user, password),
            "count" => messages.len().to_string(),
            "total" => messages.iter().map(size).sum::<usize>().to_string(),
            _ => {
                let number = name.strip_prefix("size:").and_then(|number| number.parse::<usize>().ok());
                let message = number.and_then(|number| messages.get(number.checked_sub(1)?));
                message
                    .map(|message| size(message).to_string())
                    .ok_or_else(|| format!("what is {{{name}}}?"))?
            }
        })
    }

    /// Whether the line is what the pattern says; keeps the words it names.
    fn fits(&mut self, pattern: &str, line: &[u8]) -> Result<bool, Trouble> {
        let mut words = HashMap::new();
        let fits = matches(pattern, line, &mut words)?;
        if fits {
            self.seen.extend(words);
        }
        Ok(fits)
    }
}

/// What came where a line was expected.
enum Came {
    Line(Vec<u8>),
    /// Without a CR before its LF.
    Bare(Vec<u8>),
    Closed,
    Nothing,
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) | Self::Bare(line) => f.write_str(&shown(line)),
            Self::Closed => f.write_str("the end of the connection"),
            Self::Nothing => f.write_str("nothing, and the connection is open"),
        }
    }
}

fn shown(octets: &[u8]) -> String {
    let cut = octets.get(..SHOWN_BYTES).unwrap_or(octets);
    format!("{}{}", cut.escape_ascii(), if cut.len() < octets.len() { " ..." } else { "" })
}

/// Matches what stands before the first `*` or `{?`, and then, for `*`, every rest.
fn matches(pattern: &str, line: &[u8], words: &mut HashMap<String, String>) -> Result<bool, Trouble> {
    let special = pattern.char_indices().zip(pattern.chars().skip(1).map(Some).chain([None])).find(
        |((at, letter), next)| {
            let escaped = pattern.get(..*at).is_some_and(|before| before.ends_with('\\'));
            (*letter == '*' && !escaped) || (*letter == '{' && *next == Some('?'))
        },
    );
    let Some(((at, letter), _)) = special else { return Ok(octets(pattern)? == line) };
    let (before, after) = pattern.split_at(at);
    let Some(rest) = line.strip_prefix(octets(before)?.as_slice()) else { return Ok(false) };
    if letter == '*' {
        let after = after.get(1..).unwrap_or_default();
        for from in 0..=rest.len() {
            if matches(after, rest.get(from..).unwrap_or_default(), words)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    let (name, after) = after.get(2..).and_then(|text| text.split_once('}')).ok_or("a {? without }")?;
    let word = rest.iter().take_while(|octet| octet.is_ascii_graphic()).count();
    let (word, rest) = rest.split_at(word);
    words.insert(name.to_owned(), String::from_utf8_lossy(word).into_owned());
    Ok(!word.is_empty() && matches(after, rest, words)?)
}

/// Octets of a message's header, its empty line and so many lines more.
fn top_of(message: &[u8], lines: usize) -> usize {
    let header = memchr::memmem::find(message, b"\r\n\r\n").map_or(message.len(), |end| end + 4);
    let body = message.get(header..).unwrap_or_default();
    header + body.split_inclusive(|octet| *octet == b'\n').take(lines).map(<[u8]>::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_stars_and_words() {
        let fits = |pattern: &str, line: &str| {
            let mut words = HashMap::new();
            matches(pattern, line.as_bytes(), &mut words).expect("a pattern").then_some(words)
        };
        for (pattern, line) in
            [("+OK", "+OK"), ("+OK*", "+OK"), ("+OK*", "+OK x"), ("*x*", "axb"), ("\\*", "*")]
        {
            assert!(fits(pattern, line).is_some(), "{pattern} {line}");
        }
        for (pattern, line) in [("+OK", "+OK x"), ("*x", "xy"), ("\\*", "x"), ("a{?w}", "a"), ("", "x")] {
            assert!(fits(pattern, line).is_none(), "{pattern} {line}");
        }
        assert_eq!(
            fits("1 {?id} *", "1 abc 7").and_then(|mut words| words.remove("id")).as_deref(),
            Some("abc")
        );
    }
}
