//! Command lines (RFC 5321 §4.1.1), read into types once.
//!
//! A line has one reading or none: paths are refused rather than repaired, and an address that gets
//! through is an [`Address`], which can hold no quoted string, route or literal. What is wrong with a
//! line is said by the reply that refuses it.

use super::BodyType;
use super::reply::{Enhanced, Reply};
use crate::address::{Address, AddressError};
use crate::notify::{self, Notify, Return};
use crate::sasl::Mechanism;

/// Octets kept of the name a client gives itself.
const HELO_BYTES_MAX: usize = 255;
/// Digits of a number of octets (RFC 1870 §4, RFC 3030 §2).
const SIZE_DIGITS_MAX: usize = 20;

/// A command, its arguments checked as far as they can be without knowing the session.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Helo {
        name: String,
        esmtp: bool,
    },
    Mail(Mail),
    Rcpt(Rcpt),
    Data,
    /// A chunk of so many octets follows the line (RFC 3030).
    Bdat {
        octets: u64,
        last: bool,
    },
    /// BDAT that does not say how many octets follow: nobody knows where the next command begins.
    BadChunk,
    Rset,
    Noop,
    /// VRFY or EXPN.
    Verify,
    Help,
    Quit,
    StartTls,
    Auth {
        mechanism: Mechanism,
        initial: Option<String>,
    },
    /// A web browser, or somebody who made one talk to us.
    Http,
}

/// MAIL FROM with its parameters.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mail {
    /// `None` is the null reverse-path.
    pub reverse_path: Option<Address>,
    pub size: Option<u64>,
    pub body: BodyType,
    pub smtputf8: bool,
    /// RET.
    pub returns: Option<Return>,
    /// ENVID, decoded.
    pub envelope_id: Option<String>,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// The AUTH parameter was there; its value is believed of nobody (RFC 4954 §5).
    pub auth: bool,
}

/// RCPT TO with its parameters.
#[derive(Debug, PartialEq)]
pub(super) struct Rcpt {
    pub path: ForwardPath,
    /// There are characters beyond ASCII in it.
    pub utf8: bool,
    pub notify: Option<Notify>,
    /// ORCPT, decoded.
    pub original: Option<String>,
}

/// The path of RCPT TO.
#[derive(Debug, PartialEq)]
pub(super) enum ForwardPath {
    /// `<Postmaster>`, without a domain.
    Postmaster,
    Address(Address),
}

/// Reads a line without its CRLF.
pub(super) fn parse(line: &[u8]) -> Result<Command, Reply> {
    let line = line.trim_ascii_end();
    let (verb, argument) = match line.iter().position(|b| *b == b' ') {
        Some(space) => line.split_at(space),
        None => (line, &[][..]),
    };
    let argument = argument.trim_ascii_start();
    let nothing = |command| if argument.is_empty() { Ok(command) } else { Err(no_argument()) };
    match verb.to_ascii_uppercase().as_slice() {
        b"HELO" => helo(argument, false),
        b"EHLO" => helo(argument, true),
        b"MAIL" => mail(text(argument)?),
        b"RCPT" => rcpt(text(argument)?),
        b"DATA" => nothing(Command::Data),
        b"RSET" => nothing(Command::Rset),
        b"NOOP" => Ok(Command::Noop),
        b"VRFY" | b"EXPN" if argument.is_empty() => Err(syntax("give a name or an address")),
        b"VRFY" | b"EXPN" => Ok(Command::Verify),
        b"HELP" => Ok(Command::Help),
        b"QUIT" => nothing(Command::Quit),
        b"STARTTLS" => nothing(Command::StartTls),
        b"AUTH" => auth(text(argument)?),
        b"BDAT" => Ok(chunk(argument)),
        b"GET" | b"HEAD" | b"POST" | b"PUT" | b"DELETE" | b"OPTIONS" | b"CONNECT" | b"TRACE" | b"PATCH" => {
            Ok(Command::Http)
        }
        _ => Err(Reply::new(500, Enhanced(5, 5, 2), "command not recognized")),
    }
}

fn syntax(text: &str) -> Reply {
    Reply::new(501, Enhanced(5, 5, 4), text)
}

fn no_argument() -> Reply {
    syntax("this command takes no argument")
}

fn text(argument: &[u8]) -> Result<&str, Reply> {
    std::str::from_utf8(argument).map_err(|_| Reply::new(501, Enhanced(5, 5, 2), "the line is not UTF-8"))
}

fn chunk(argument: &[u8]) -> Command {
    let mut words = argument.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    let last = match (words.next_back(), words.clone().count()) {
        (Some(word), 1) if word.eq_ignore_ascii_case(b"LAST") => true,
        (Some(_), 0) => false,
        _ => return Command::BadChunk,
    };
    let size = argument.split(|octet| *octet == b' ').next().and_then(octets);
    size.map_or(Command::BadChunk, |octets| Command::Bdat { octets, last })
}

/// A number of octets, as SIZE and BDAT write it; what is beyond counting is as large as can be.
fn octets(text: &[u8]) -> Option<u64> {
    let digits = (1..=SIZE_DIGITS_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok().or(Some(u64::MAX)))?
}

/// The name is taken as it comes, since RFC 5321 §4.1.4 lets nobody be refused for it, and made
/// printable.
fn helo(argument: &[u8], esmtp: bool) -> Result<Command, Reply> {
    if argument.is_empty() || argument.len() > HELO_BYTES_MAX {
        return Err(syntax("give your host name"));
    }
    let printable = |b: &u8| if b.is_ascii_graphic() { char::from(*b) } else { '?' };
    Ok(Command::Helo { name: argument.iter().map(printable).collect(), esmtp })
}

fn mail(argument: &str) -> Result<Command, Reply> {
    let (path, parameters) = path(argument, "FROM:")?;
    let mut mail = Mail::default();
    each(parameters, |keyword, value| mail.parameter(keyword, value))?;
    if !path.is_ascii() && !mail.smtputf8 {
        return Err(needs_smtputf8());
    }
    if !path.is_empty() {
        mail.reverse_path = Some(path.parse().map_err(|error| bad_address(error, Enhanced(5, 1, 7)))?);
    }
    Ok(Command::Mail(mail))
}

/// Has every parameter read, of which none is given twice. Keywords come in upper case.
fn each(
    parameters: &str,
    mut read: impl FnMut(&str, Option<&str>) -> Result<(), Reply>,
) -> Result<(), Reply> {
    let mut seen = Vec::new();
    for parameter in parameters.split_ascii_whitespace() {
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (parameter, None),
        };
        let keyword = keyword.to_ascii_uppercase();
        read(&keyword, value)?;
        if seen.contains(&keyword) {
            return Err(syntax("a parameter is given twice"));
        }
        seen.push(keyword);
    }
    Ok(())
}

/// A BODY that is none, or is not offered.
pub(super) fn unknown_body() -> Reply {
    syntax("BODY takes 7BIT, 8BITMIME, or BINARYMIME where EHLO offers it")
}

fn unknown_parameter() -> Reply {
    Reply::new(555, Enhanced(5, 5, 4), "a parameter is not recognized")
}

impl Mail {
    fn parameter(&mut self, keyword: &str, value: Option<&str>) -> Result<(), Reply> {
        match (keyword, value) {
            ("SIZE", Some(value)) => {
                let size = octets(value.as_bytes());
                self.size = Some(size.ok_or_else(|| syntax("SIZE takes a number of octets"))?);
            }
            ("BODY", value) => self.body = value.and_then(BodyType::named).ok_or_else(unknown_body)?,
            ("SMTPUTF8", None) => self.smtputf8 = true,
            ("REQUIRETLS", None) => self.require_tls = true,
            ("RET", value) => {
                self.returns = value.and_then(Return::named);
                if self.returns.is_none() {
                    return Err(syntax("RET takes FULL or HDRS"));
                }
            }
            ("ENVID", value) => {
                self.envelope_id = value.and_then(notify::envelope_id);
                if self.envelope_id.is_none() {
                    return Err(syntax("ENVID takes xtext of printable ASCII, at most 100 octets of it"));
                }
            }
            // `<>` is xtext, too.
            ("AUTH", Some(value)) if notify::xtext_octets(value).is_some_and(|octets| !octets.is_empty()) => {
                self.auth = true;
            }
            ("SIZE" | "SMTPUTF8" | "REQUIRETLS" | "AUTH", _) => return Err(syntax("malformed parameter")),
            _ => return Err(unknown_parameter()),
        }
        Ok(())
    }
}

fn rcpt(argument: &str) -> Result<Command, Reply> {
    let (path, parameters) = path(argument, "TO:")?;
    let (mut notify, mut original) = (None, None);
    each(parameters, |keyword, value| {
        let malformed = match keyword {
            "NOTIFY" => {
                notify = value.and_then(|value| value.parse::<Notify>().ok());
                notify.is_none().then_some("NOTIFY takes NEVER, or a list of SUCCESS, FAILURE and DELAY")
            }
            "ORCPT" => {
                original = value.and_then(notify::original_recipient);
                let text = "ORCPT takes a type, a semicolon and xtext of printable ASCII, at most 500 octets";
                original.is_none().then_some(text)
            }
            _ => return Err(unknown_parameter()),
        };
        malformed.map_or(Ok(()), |text| Err(syntax(text)))
    })?;
    let path = match path {
        path if path.eq_ignore_ascii_case("postmaster") => ForwardPath::Postmaster,
        path => ForwardPath::Address(path.parse().map_err(|error| bad_address(error, Enhanced(5, 1, 3)))?),
    };
    Ok(Command::Rcpt(Rcpt { path, utf8: !argument.is_ascii(), notify, original }))
}

/// What stands between `<` and `>` after the keyword, and what follows it.
///
/// The first `>` ends the path: a quoted one could come earlier, but quoted strings are refused. A
/// space before the `<` is let through, as everybody does.
fn path<'a>(argument: &'a str, keyword: &str) -> Result<(&'a str, &'a str), Reply> {
    let malformed = || syntax(&format!("write {keyword}<name@domain>"));
    let (word, rest) = argument.split_at_checked(keyword.len()).ok_or_else(malformed)?;
    if !word.eq_ignore_ascii_case(keyword) {
        return Err(malformed());
    }
    let rest = rest.trim_start_matches(' ').strip_prefix('<').ok_or_else(malformed)?;
    let (path, parameters) = rest.split_once('>').ok_or_else(malformed)?;
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(malformed());
    }
    Ok((path, parameters.trim_start()))
}

fn bad_address(error: AddressError, enhanced: Enhanced) -> Reply {
    Reply::new(553, enhanced, &error.to_string())
}

/// An address with non-ASCII characters in a transaction without SMTPUTF8 (RFC 6531 §3.5).
pub(super) fn needs_smtputf8() -> Reply {
    Reply::new(553, Enhanced(5, 6, 7), "a non-ASCII address needs SMTPUTF8")
}

fn auth(argument: &str) -> Result<Command, Reply> {
    let mut words = argument.split_ascii_whitespace();
    let (Some(name), initial, None) = (words.next(), words.next(), words.next()) else {
        return Err(syntax("write AUTH, a mechanism, and perhaps an initial response"));
    };
    let mechanism = Mechanism::named(name)
        .ok_or_else(|| Reply::new(504, Enhanced(5, 5, 4), "mechanism not recognized: use PLAIN or LOGIN"))?;
    Ok(Command::Auth { mechanism, initial: initial.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> u16 {
        parse(line.as_bytes()).map_or_else(|reply| reply.code(), |_| 0)
    }

    #[test]
    fn verbs_are_read_in_any_case_and_with_trailing_space() {
        assert_eq!(parse(b"noop hello"), Ok(Command::Noop));
        assert_eq!(parse(b"Data  "), Ok(Command::Data));
        assert_eq!(parse(b"QUIT now").map_err(|r| r.code()), Err(501));
        assert_eq!(code("BOGUS"), 500);
        assert_eq!(code(""), 500);
        assert_eq!(parse(b"GET / HTTP/1.0"), Ok(Command::Http));
    }

    #[test]
    fn a_chunk_has_a_size_or_nobody_knows_where_it_ends() {
        let bdat = |octets, last| Ok(Command::Bdat { octets, last });
        assert_eq!(parse(b"BDAT 10"), bdat(10, false));
        assert_eq!(parse(b"bdat 0  last "), bdat(0, true));
        assert_eq!(parse(b"BDAT 99999999999999999999"), bdat(u64::MAX, false));
        for bad in ["BDAT", "BDAT ", "BDAT LAST", "BDAT 1 2", "BDAT 1 LAST LAST", "BDAT -1", "BDAT 0x10"] {
            assert_eq!(parse(bad.as_bytes()), Ok(Command::BadChunk), "{bad}");
        }
        assert_eq!(parse(b"BDAT 999999999999999999999"), Ok(Command::BadChunk), "21 digits");
        assert_eq!(parse(b"BDAT 1\tLAST"), Ok(Command::BadChunk));
    }

    #[test]
    fn a_helo_name_is_made_printable() {
        let name = |line: &[u8]| match parse(line) {
            Ok(Command::Helo { name, .. }) => Some(name),
            _ => None,
        };
        assert_eq!(name(b"EHLO client.example").as_deref(), Some("client.example"));
        assert_eq!(name(b"HELO a\x1b[2J \xff").as_deref(), Some("a?[2J??"));
        assert_eq!(name(b"EHLO"), None);
        assert_eq!(name(&[&b"EHLO "[..], &[b'x'; 255]].concat()).map(|n| n.len()), Some(255));
        assert_eq!(name(&[&b"EHLO "[..], &[b'x'; 256]].concat()), None);
    }

    #[test]
    fn mail_parameters() {
        let Ok(Command::Mail(mail)) = parse(b"MAIL FROM:<a@example.com> size=100 BODY=8bitmime SMTPUTF8")
        else {
            panic!("a sound MAIL command");
        };
        assert_eq!(
            (mail.size, mail.body, mail.smtputf8, mail.auth),
            (Some(100), BodyType::EightBit, true, false)
        );
        let Ok(Command::Mail(mail)) = parse(b"MAIL FROM:<> SIZE=99999999999999999999 AUTH=<>") else {
            panic!("a sound MAIL command");
        };
        assert_eq!((mail.reverse_path, mail.size, mail.auth), (None, Some(u64::MAX), true));
        for bad in ["SIZE", "SIZE=", "SIZE=-1", "SIZE=1 SIZE=1", "BODY=BINARY", "BODY", "SMTPUTF8=1", "AUTH"]
        {
            assert_eq!(code(&format!("MAIL FROM:<> {bad}")), 501, "{bad}");
        }
        for bad in ["AUTH=", "AUTH=a=b", "AUTH=a+", "AUTH=a+4", "AUTH=a+3d", "AUTH=\u{fc}"] {
            assert_eq!(code(&format!("MAIL FROM:<> {bad}")), 501, "{bad}");
        }
        assert_eq!(code("MAIL FROM:<> AUTH=e+3Dmc2@example.com"), 0);
        for unknown in ["X", "=", "NOTIFY=NEVER"] {
            assert_eq!(code(&format!("MAIL FROM:<> {unknown}")), 555, "{unknown}");
        }
    }

    #[test]
    fn what_a_sender_wants_to_be_told_is_read_with_the_paths() {
        let Ok(Command::Mail(mail)) = parse(b"MAIL FROM:<a@example.com> ret=hdrs ENVID=a+2Bb") else {
            panic!("a sound MAIL command");
        };
        assert_eq!((mail.returns, mail.envelope_id.as_deref()), (Some(Return::Headers), Some("a+b")));
        for bad in ["RET", "RET=", "RET=ALL", "RET=FULL RET=FULL", "ENVID", "ENVID=", "ENVID=+0D+0ARCPT"] {
            assert_eq!(code(&format!("MAIL FROM:<> {bad}")), 501, "{bad}");
        }
        let rcpt = b"RCPT TO:<a@example.com> notify=success,DELAY ORCPT=rfc822;b+2Bc@example.com";
        let Ok(Command::Rcpt(rcpt)) = parse(rcpt) else { panic!("a sound RCPT command") };
        assert_eq!(rcpt.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!((rcpt.original.as_deref(), rcpt.utf8), (Some("rfc822;b+c@example.com"), false));
        let bad =
            ["NOTIFY", "NOTIFY=", "NOTIFY=NEVER,DELAY", "NOTIFY=NEVER NOTIFY=NEVER", "ORCPT=a@example.com"];
        for bad in bad.into_iter().chain(["ORCPT=rfc822;a+0D+0A"]) {
            assert_eq!(code(&format!("RCPT TO:<a@example.com> {bad}")), 501, "{bad}");
        }
        assert_eq!(code("RCPT TO:<a@example.com> RET=FULL"), 555);
    }

    #[test]
    fn paths_need_their_keyword_and_brackets() {
        for good in ["MAIL FROM:<>", "mail from: <a@example.com>", "MAIL FROM:<a@example.com> "] {
            assert_eq!(code(good), 0, "{good}");
        }
        for bad in [
            "MAIL",
            "MAIL <a@example.com>",
            "MAIL FROM<a@example.com>",
            "MAIL TO:<a@example.com>",
            "MAIL FROM:a@example.com",
            "MAIL FROM:<a@example.com",
            "MAIL FROM:<a@example.com>x",
            "MAIL FROM:<>SIZE=1",
        ] {
            assert_eq!(code(bad), 501, "{bad}");
        }
    }

    #[test]
    fn an_address_outside_ascii_needs_smtputf8() {
        assert_eq!(code("MAIL FROM:<j\u{f6}rg@example.com>"), 553);
        assert_eq!(code("MAIL FROM:<a@b\u{fc}cher.example>"), 553);
        assert_eq!(code("MAIL FROM:<j\u{f6}rg@example.com> SMTPUTF8"), 0);
        let wide = ["RCPT TO:<a@b\u{fc}cher.example>", "RCPT TO:<a@x.example> ORCPT=utf-8;\u{e9}@x.example"];
        for wide in wide {
            let Ok(Command::Rcpt(rcpt)) = parse(wide.as_bytes()) else { panic!("a sound RCPT command") };
            assert!(rcpt.utf8, "{wide}");
        }
    }
}
