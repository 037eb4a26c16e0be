//! Logging: one event, one line, on stderr.
//!
//! A supervisor (systemd, a terminal, a test) keeps the lines and their times. What is logged is
//! chosen by `SALLYPOST_LOG` (`info` unless set; `debug`, `big_node=debug,warn` …).
//!
//! Text that others chose (EHLO names, addresses, Message-IDs, reasons a peer gave) goes into an
//! event only as [`Quoted`]: it can then neither end the line, nor drive a terminal, nor fill a
//! disk. Whatever slips past that is made harmless where the line is written, and no place in the code
//! warns more than [`A_MINUTE_MAX`] times a minute, or says what goes on more than [`INFO_A_MINUTE_MAX`] times. Bodies and secrets are never logged.

mod bounded;

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

use bounded::Bounded;
pub use bounded::{A_MINUTE_MAX, INFO_A_MINUTE_MAX};

/// The environment variable that chooses what is logged.
pub const LOG_VARIABLE: &str = "SALLYPOST_LOG";
/// What is logged unless that says otherwise. What the resolver warns of quotes strangers' answers whole; what it comes to
/// is said in our own words.
const USUAL: &str = "info,hickory_net=off,hickory_resolver=off,hickory_proto=off";
/// Characters of a foreign text that a log line shows at most.
pub const QUOTED_MAX: usize = 256;

/// Starts logging to stderr. Called once, first thing in `main`; a second call changes nothing.
pub fn init() {
    let wanted = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| USUAL.into());
    let (filter, refused) = match EnvFilter::try_new(&wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(USUAL), Some(error)),
    };
    let started = lines(filter, io::stderr).try_init();
    if let (Ok(()), Some(error)) = (started, refused) {
        tracing::warn!("{LOG_VARIABLE} is not understood ({error}); logging at `info`");
    }
}

/// Lines to `log`, of what `filter` lets through.
fn lines<M>(filter: EnvFilter, log: M) -> impl tracing::Subscriber + Send + Sync
where
    M: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Lines(log.clone()));
    Registry::default().with(lines).with(Bounded::new(Lines(log))).with(filter)
}

/// A text that others chose, for a log line: in double quotes, control and invisible characters
/// escaped, cut after [`QUOTED_MAX`] characters with the length of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut rest = self.0.chars();
        for c in rest.by_ref().take(QUOTED_MAX) {
            match c {
                ' ' => f.write_char(' ')?,
                c if is_hidden(c) => write!(f, "{}", c.escape_unicode())?,
                c => write!(f, "{}", c.escape_debug())?,
            }
        }
        f.write_char('"')?;
        if !rest.as_str().is_empty() {
            write!(f, "… ({} octets)", self.0.len())?;
        }
        Ok(())
    }
}

/// Characters that show as nothing or turn the line around.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// Writes each event as one line, whatever is in it.
#[derive(Debug)]
struct Lines<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Lines<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    /// An event comes in one call, its newline last.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        let harmless = |byte: &u8| if byte.is_ascii_control() { b' ' } else { *byte };
        let mut line: Vec<u8> = text.iter().map(harmless).collect();
        line.push(b'\n');
        self.0.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn foreign_text_stays_in_its_quotes() {
        let quoted = |text: &str| Quoted(text).to_string();
        assert_eq!(quoted("mx.example.com"), r#""mx.example.com""#);
        assert_eq!(quoted("a\r\n2026 INFO forged\0"), r#""a\r\n2026 INFO forged\0""#);
        assert_eq!(quoted("\x1b[2J\u{9b}\u{7}\t"), r#""\u{1b}[2J\u{9b}\u{7}\t""#);
        assert_eq!(quoted(r#"} {" \"#), r#""} {\" \\""#);
        assert_eq!(quoted("a\u{202e}b\u{200b}"), r#""a\u{202e}b\u{200b}""#);
        assert_eq!(quoted("jos\u{e9} 日本"), "\"jos\u{e9} 日本\"");
    }

    #[test]
    fn foreign_text_is_cut() {
        let shown = |length: usize| Quoted(&"é".repeat(length)).to_string();
        assert_eq!(shown(QUOTED_MAX).matches('é').count(), QUOTED_MAX);
        assert!(!shown(QUOTED_MAX).contains('…'));
        assert_eq!(shown(QUOTED_MAX + 1).matches('é').count(), QUOTED_MAX);
        assert!(shown(500_000).ends_with("\"… (1000000 octets)"));
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_event_is_one_line_even_when_someone_forgot_to_quote() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = lines(EnvFilter::new("info"), move || writer.clone());
        tracing::subscriber::with_default(log, || {
            let hostile = "x\r\n2026-01-01 INFO forged\x1b[2J";
            tracing::info!(helo = %hostile, "greeted by {hostile}");
            tracing::info!(helo = %Quoted(hostile), "greeted");
        });
        let log = String::from_utf8(kept.0.lock().expect("no writer panicked").clone()).expect("UTF-8");
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(!log.replace('\n', "").chars().any(char::is_control), "{log:?}");
    }
    #[test]
    fn a_flood_of_warnings_is_cut_and_of_other_lines_only_a_larger_one() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = lines(EnvFilter::new("info"), move || writer.clone());
        tracing::subscriber::with_default(log, || {
            // Within two minutes, for one may end meanwhile.
            for number in 0..20_000 {
                tracing::warn!(number, "refused");
                tracing::info!(number, "taken");
                tracing::debug!(number, "looked at");
            }
            tracing::error!("from another place");
        });
        let log = String::from_utf8(kept.0.lock().expect("no writer panicked").clone()).expect("UTF-8");
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        assert!((60..=120).contains(&count("refused")), "{}", count("refused"));
        assert!((6_000..=12_000).contains(&count("taken")), "{}", count("taken"));
        assert_eq!((count("looked at"), count("from another place")), (0, 1));
    }
}
