//! Command lines (RFC 1939 §3, RFC 2449 §4), read into types once.

use zeroize::Zeroizing;

/// A command.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    User(String),
    Pass(Zeroizing<String>),
    /// AUTH with a mechanism and perhaps an initial response; without either it asks for a list.
    Auth {
        mechanism: Option<String>,
        initial: Option<String>,
    },
    Stls,
    Utf8,
    /// LANG: a language range, or a question which there are.
    Lang(Option<String>),
    Capa,
    Stat,
    /// LIST, of one message or all.
    List(Option<u64>),
    /// UIDL, of one message or all.
    Uidl(Option<u64>),
    Retr(u64),
    /// TOP: message and lines of its body.
    Top(u64, u64),
    Dele(u64),
    Noop,
    Rset,
    Quit,
}

/// Reads a line without its CRLF; the error is the text of the refusal.
pub(super) fn parse(line: &[u8]) -> Result<Command, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
    let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
    let nothing =
        |command| if argument.trim().is_empty() { Ok(command) } else { Err("no argument is wanted") };
    match verb.to_ascii_uppercase().as_str() {
        "USER" if argument.is_empty() => Err("give a user name"),
        "USER" => Ok(Command::User(argument.into())),
        // Spaces may belong to a password (RFC 1939 §7).
        "PASS" if argument.is_empty() => Err("give a password"),
        "PASS" => Ok(Command::Pass(Zeroizing::new(argument.into()))),
        "AUTH" => auth(argument),
        "STLS" => nothing(Command::Stls),
        "UTF8" => nothing(Command::Utf8),
        "LANG" => one_word(argument).map(Command::Lang),
        "CAPA" => nothing(Command::Capa),
        "STAT" => nothing(Command::Stat),
        "LIST" => Ok(Command::List(numbers(argument)?.at_most_one()?)),
        "UIDL" => Ok(Command::Uidl(numbers(argument)?.at_most_one()?)),
        "RETR" => Ok(Command::Retr(numbers(argument)?.one()?)),
        "DELE" => Ok(Command::Dele(numbers(argument)?.one()?)),
        "TOP" => {
            let (message, lines) = numbers(argument)?.two()?;
            Ok(Command::Top(message, lines))
        }
        "NOOP" => nothing(Command::Noop),
        "RSET" => nothing(Command::Rset),
        "QUIT" => nothing(Command::Quit),
        "APOP" => Err("APOP is not spoken here: use USER and PASS, or AUTH PLAIN, under TLS"),
        _ => Err("command not recognized"),
    }
}

fn auth(argument: &str) -> Result<Command, &'static str> {
    let mut words = argument.split_ascii_whitespace().map(str::to_owned);
    let (mechanism, initial) = (words.next(), words.next());
    match words.next() {
        None => Ok(Command::Auth { mechanism, initial }),
        Some(_) => Err("write AUTH, a mechanism, and perhaps an initial response"),
    }
}

fn one_word(argument: &str) -> Result<Option<String>, &'static str> {
    let mut words = argument.split_ascii_whitespace().map(str::to_owned);
    let word = words.next();
    if words.next().is_none() { Ok(word) } else { Err("too many arguments") }
}

/// Up to two numbers.
struct Numbers(Option<u64>, Option<u64>);

fn numbers(argument: &str) -> Result<Numbers, &'static str> {
    let number = |word: &str| {
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        if digits { word.parse().map_err(|_| "the number is too large") } else { Err("a number is wanted") }
    };
    let mut words = argument.split_ascii_whitespace().map(number);
    let numbers = Numbers(words.next().transpose()?, words.next().transpose()?);
    match words.next() {
        None => Ok(numbers),
        Some(_) => Err("too many arguments"),
    }
}

impl Numbers {
    fn at_most_one(self) -> Result<Option<u64>, &'static str> {
        if self.1.is_some() { Err("too many arguments") } else { Ok(self.0) }
    }

    fn one(self) -> Result<u64, &'static str> {
        self.at_most_one()?.ok_or("give a message number")
    }

    fn two(self) -> Result<(u64, u64), &'static str> {
        Ok((self.0.ok_or("give a message number")?, self.1.ok_or("give a number of lines")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_one_reading() {
        assert_eq!(parse(b"noop"), Ok(Command::Noop));
        assert_eq!(parse(b"PASS  a b "), Ok(Command::Pass(Zeroizing::new(" a b ".into()))));
        assert_eq!(parse(b"list"), Ok(Command::List(None)));
        assert_eq!(parse(b"LIST 3"), Ok(Command::List(Some(3))));
        assert_eq!(parse(b"TOP 1 9223372036854775808"), Ok(Command::Top(1, 1 << 63)));
        assert_eq!(parse(b"LANG"), Ok(Command::Lang(None)));
        assert_eq!(parse(b"lang EN"), Ok(Command::Lang(Some("EN".into()))));
        let bad: [&[u8]; 19] = [
            b"",
            b"RETR",
            b"RETR x",
            b"RETR -1",
            b"RETR +1",
            b"RETR 1 2",
            b"RETR 18446744073709551616",
            b"TOP 1",
            b"TOP 1 2 3",
            b"TOP 1 -1",
            b"LIST 1 2",
            b"QUIT now",
            b"USER",
            b"PASS",
            b"APOP a b",
            b"USER \xff",
            b" NOOP",
            b"UTF8 USER",
            b"LANG en de",
        ];
        for line in bad {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
