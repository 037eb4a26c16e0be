//! The command line, in the manner of the ancestors: `/TO name`, `/GATEWAY address`, `/FIND words`.
//!
//! A command is a word, or as much of its beginning as means no other, in any case. Names of folders and
//! people are completed.

use super::compose::ReplyTo;
use crate::cli::travel::{self, Until};
use crate::record::{AfterFetch, Scope};

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Writes to these, or adds them to the message that is written.
    To(Vec<String>),
    /// Adds these as Cc.
    Cc(Vec<String>),
    /// Sets the subject.
    Subject(String),
    /// Writes a message.
    New,
    /// Answers.
    Reply(ReplyTo),
    /// Sends on, to these.
    Forward(Vec<String>),
    /// Revises, or amends and returns.
    Amend,
    /// Takes back, for that reason.
    Withdraw(String),
    /// Looks for words, everywhere or in the folder that is shown.
    Find {
        /// The words.
        words: String,
        /// Only here.
        here: bool,
    },
    /// Moves to a folder.
    Move(String),
    /// Shows a folder.
    Folder(String),
    /// Makes a folder.
    FolderAdd(String),
    /// Renames a folder: from, to.
    FolderRename(String, String),
    /// Removes a folder.
    FolderRemove(String),
    /// Opens an attachment.
    Open(String),
    /// Saves attachments, none for all, in a folder.
    Save {
        /// Which; all if there are none.
        parts: Vec<String>,
        /// Where; here otherwise.
        into: Option<String>,
    },
    /// Attaches a file.
    Attach(String),
    /// Takes attachments away, by number.
    Detach(Vec<u32>),
    /// Sends what is written.
    Send,
    /// Keeps what is written.
    Draft,
    /// Opens the text in the person's own editor.
    Editor,
    /// Throws away what is written.
    Discard,
    /// To Trash.
    Delete,
    /// Marks read, or unread.
    Mark {
        /// Read.
        read: bool,
    },
    /// Where each recipient's copy is.
    Status,
    /// The revisions.
    History,
    /// The conversation.
    Thread,
    /// The address book.
    Book,
    /// Adds a nickname, or changes it: name, meaning.
    Nickname(String, String),
    /// Removes a nickname.
    Forget(String),
    /// Shows travel windows.
    Travel,
    /// Opens a travel window.
    TravelStart {
        /// Its end; `None` is standing.
        until: Option<u64>,
        /// What is filed into it.
        scope: Scope,
        /// What a deletion on the road does.
        after_fetch: AfterFetch,
    },
    /// Ends it.
    TravelEnd {
        /// Accept nothing more that was submitted through it.
        revoke: bool,
    },
    /// What would happen to mail for an address.
    Explain(String),
    /// A message's way.
    Trace,
    /// Shows the help.
    Help,
    /// Ends.
    Quit,
}

/// A command word: what it takes, and what it does.
struct Word {
    word: &'static str,
    takes: &'static str,
    does: &'static str,
}

const fn word(word: &'static str, takes: &'static str, does: &'static str) -> Word {
    Word { word, takes, does }
}

const WORDS: &[Word] = &[
    word("TO", "NAME, ...", "write to them; while writing, add them"),
    word("CC", "NAME, ...", "add them as Cc"),
    word("SUBJECT", "TEXT", "the subject of what you write"),
    word("NEW", "", "write a message"),
    word("REPLY", "[ALL|LIST]", "answer its author, all, or its mailing list"),
    word("FORWARD", "[NAME, ...]", "send it on"),
    word("AMEND", "", "revise what you have sent; amend and return what you have got"),
    word("WITHDRAW", "[REASON]", "take back what you have sent"),
    word("FIND", "WORDS", "look in all folders; /FINDHERE only in this one"),
    word("FINDHERE", "WORDS", "look in this folder"),
    word("FOLDER", "NAME", "show a folder"),
    word("MOVE", "FOLDER", "move the message"),
    word("MAKE", "FOLDER", "make a folder of your own"),
    word("RENAME", "FOLDER TO", "rename a folder of your own; the last word is the new name"),
    word("REMOVE", "FOLDER", "remove a folder of your own that is empty"),
    word("OPEN", "N", "open attachment N; N.M is attachment M of that"),
    word("SAVE", "[N ...|ALL] [DIR]", "save attachments as files, here or in DIR"),
    word("ATTACH", "FILE", "attach a file to what you write"),
    word("DETACH", "N ...", "take attachment N away from what you write"),
    word("SEND", "", "send what you write"),
    word("DRAFT", "", "keep what you write as a draft"),
    word("EDITOR", "", "write the text in your own editor"),
    word("DISCARD", "", "throw away what you write"),
    word("DELETE", "", "to Trash; from Trash, away for good"),
    word("READ", "", "mark it read"),
    word("UNREAD", "", "mark it unread"),
    word("WHERE", "", "where each recipient's copy is"),
    word("HISTORY", "", "its revisions"),
    word("THREAD", "", "the whole conversation"),
    word("BOOK", "", "the address book"),
    word("NICKNAME", "NAME MEANING", "a name of your own for somebody"),
    word("FORGET", "NAME", "remove a nickname"),
    word("TRAVEL", "[START UNTIL [SCOPE [AFTER]] | END [REVOKE]]", "a mailbox for the road"),
    word("EXPLAIN", "NAME", "what would happen to mail for them"),
    word("TRACE", "", "the message's way"),
    word("HELP", "", "all keys and commands"),
    word("QUIT", "", "end"),
];

/// Names that may be meant on the command line.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// People, groups, shadows, nicknames.
    pub(super) people: Vec<String>,
    /// Folders.
    pub(super) folders: Vec<String>,
    /// Gateways, `smtp` among them.
    pub(super) gateways: Vec<String>,
}

/// Every word that can be typed.
#[cfg(test)]
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|word| word.word)
}

/// All commands, for the help.
pub(super) fn help() -> String {
    let mut text = String::new();
    for Word { word, takes, does } in WORDS {
        let typed = format!("/{word} {takes}");
        match typed.len() {
            ..=23 => text.push_str(&format!("  {typed:<23} {does}\n")),
            _ => text.push_str(&format!("  {typed}\n  {:<23} {does}\n", "")),
        }
    }
    text + "  /GATEWAY ADDRESS        write by that way: /SMTP bob@remote.example\n"
}

/// Understands what was typed.
///
/// # Errors
/// What is wrong with it, and what can be typed instead.
pub(super) fn parse(typed: &str, gateways: &[String]) -> Result<Command, String> {
    let typed = typed.trim();
    let typed = typed.strip_prefix('/').unwrap_or(typed);
    let (first, rest) = typed.split_once(' ').map_or((typed, ""), |(first, rest)| (first, rest.trim()));
    let upper = first.to_uppercase();
    let exact = WORDS.iter().find(|word| word.word == upper);
    let is_gateway = gateways.iter().any(|gateway| gateway.eq_ignore_ascii_case(first));
    if exact.is_none() && is_gateway && !rest.is_empty() {
        return Ok(Command::To(vec![format!("/{first} {rest}")]));
    }
    let meant: Vec<_> = match exact {
        Some(word) => vec![word],
        None => WORDS.iter().filter(|word| !upper.is_empty() && word.word.starts_with(&upper)).collect(),
    };
    match meant.as_slice() {
        [word] => command(word, rest),
        [] => Err(format!("there is no command /{upper}; F1 lists those there are")),
        several => {
            let several: Vec<_> = several.iter().map(|word| format!("/{}", word.word)).collect();
            Err(format!("/{upper} may mean {}", several.join(", ")))
        }
    }
}

fn command(word: &Word, rest: &str) -> Result<Command, String> {
    let usage = || format!("type /{} {}", word.word, word.takes);
    let needed = || if rest.is_empty() { Err(usage()) } else { Ok(rest.to_owned()) };
    let words: Vec<_> = rest.split_whitespace().collect();
    let none = |command: Command| if rest.is_empty() { Ok(command) } else { Err(usage()) };
    match word.word {
        "TO" => needed().map(|names| Command::To(recipients(&names))),
        "CC" => needed().map(|names| Command::Cc(recipients(&names))),
        "SUBJECT" => needed().map(Command::Subject),
        "NEW" => none(Command::New),
        "REPLY" => match words.as_slice() {
            [] => Ok(Command::Reply(ReplyTo::Author)),
            [all] if all.eq_ignore_ascii_case("all") => Ok(Command::Reply(ReplyTo::All)),
            [list] if list.eq_ignore_ascii_case("list") => Ok(Command::Reply(ReplyTo::List)),
            _ => Err(usage()),
        },
        "FORWARD" => Ok(Command::Forward(recipients(rest))),
        "AMEND" => none(Command::Amend),
        "WITHDRAW" => Ok(Command::Withdraw(rest.to_owned())),
        "FIND" => needed().map(|words| Command::Find { words, here: false }),
        "FINDHERE" => needed().map(|words| Command::Find { words, here: true }),
        "FOLDER" => needed().map(Command::Folder),
        "MOVE" => needed().map(Command::Move),
        "MAKE" => needed().map(Command::FolderAdd),
        "RENAME" => match rest.rsplit_once(' ') {
            Some((from, to)) => Ok(Command::FolderRename(from.trim().into(), to.into())),
            None => Err(usage()),
        },
        "REMOVE" => needed().map(Command::FolderRemove),
        "OPEN" => match words.as_slice() {
            [part] if is_part(part) => Ok(Command::Open((*part).into())),
            _ => Err(usage()),
        },
        "SAVE" => Ok(save(rest)),
        "ATTACH" => needed().map(Command::Attach),
        "DETACH" => {
            let numbers: Result<Vec<u32>, _> = words.iter().map(|word| word.parse()).collect();
            numbers.ok().filter(|numbers| !numbers.is_empty()).map(Command::Detach).ok_or_else(usage)
        }
        "SEND" => none(Command::Send),
        "DRAFT" => none(Command::Draft),
        "EDITOR" => none(Command::Editor),
        "DISCARD" => none(Command::Discard),
        "DELETE" => none(Command::Delete),
        "READ" => none(Command::Mark { read: true }),
        "UNREAD" => none(Command::Mark { read: false }),
        "WHERE" => none(Command::Status),
        "HISTORY" => none(Command::History),
        "THREAD" => none(Command::Thread),
        "BOOK" => none(Command::Book),
        "NICKNAME" => match rest.split_once(' ') {
            Some((name, target)) => Ok(Command::Nickname(name.into(), target.trim().into())),
            None => Err(usage()),
        },
        "FORGET" => needed().map(Command::Forget),
        "TRAVEL" => travel(&words).unwrap_or_else(|| Err(usage())),
        "EXPLAIN" => needed().map(Command::Explain),
        "TRACE" => none(Command::Trace),
        "HELP" => none(Command::Help),
        _ => none(Command::Quit),
    }
}

/// `N`, or `N.M` and so on.
fn is_part(text: &str) -> bool {
    text.split('.').all(|number| number.parse::<u32>().is_ok())
}

/// Numbers first, and the folder behind them, which may have blanks in its name.
fn save(rest: &str) -> Command {
    let (mut parts, mut rest) = (Vec::new(), rest);
    loop {
        let (first, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        match first {
            all if all.eq_ignore_ascii_case("all") => parts.clear(),
            part if is_part(part) => parts.push(part.to_owned()),
            _ => break,
        }
        rest = behind.trim_start();
    }
    Command::Save { parts, into: (!rest.is_empty()).then(|| rest.to_owned()) }
}

fn travel(words: &[&str]) -> Option<Result<Command, String>> {
    let [first, rest @ ..] = words else { return Some(Ok(Command::Travel)) };
    match (first.to_lowercase().as_str(), rest) {
        ("start", [until, rest @ ..]) if rest.len() <= 2 => Some(start(until, rest)),
        ("end", []) => Some(Ok(Command::TravelEnd { revoke: false })),
        ("end", [revoke]) if revoke.eq_ignore_ascii_case("revoke") => {
            Some(Ok(Command::TravelEnd { revoke: true }))
        }
        _ => None,
    }
}

fn start(until: &str, rest: &[&str]) -> Result<Command, String> {
    let until = match travel::until(until)? {
        Until::Standing => None,
        Until::Time(millis) => Some(millis),
    };
    let scope = rest.first().map_or(Ok(Scope::New), |scope| travel::scope(scope))?;
    let after_fetch = match rest.get(1) {
        None => AfterFetch::Keep,
        Some(word) => <AfterFetch as clap::ValueEnum>::from_str(word, true)
            .map_err(|_| "after a fetch: keep, read or delete")?,
    };
    Ok(Command::TravelStart { until, scope, after_fetch })
}

/// Recipients as typed, with commas or semicolons between them.
pub(super) fn recipients(typed: &str) -> Vec<String> {
    let names = typed.split([',', ';']).map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// How a text can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    /// What is to be typed at the end.
    pub(super) more: String,
    /// What it may become, if that is more than one.
    pub(super) choices: Vec<String>,
}

/// Completes a command line that ends in `typed`.
pub(super) fn complete(typed: &str, names: &Names) -> Option<Completion> {
    let Some((first, rest)) = typed.split_once(' ') else {
        let typed = typed.trim_start_matches('/');
        let words = WORDS.iter().map(|word| word.word.to_owned());
        let gateways = names.gateways.iter().map(|name| name.to_uppercase());
        let words: Vec<_> = words.chain(gateways).map(|word| word + " ").collect();
        return completed(typed, &words);
    };
    match parse(&format!("{first} x"), &names.gateways) {
        Ok(Command::To(_) | Command::Cc(_) | Command::Forward(_) | Command::Explain(_)) => {
            recipient(rest, names)
        }
        Ok(Command::Move(_) | Command::Folder(_) | Command::FolderRemove(_)) => {
            completed(rest.trim_start(), &names.folders)
        }
        _ => None,
    }
}

/// Completes the last one of some recipients.
pub(super) fn recipient(typed: &str, names: &Names) -> Option<Completion> {
    let last = typed.rsplit([',', ';']).next().unwrap_or(typed).trim_start();
    match last.strip_prefix('/') {
        // A gateway's addresses are not known here.
        Some(way) => {
            let gateways: Vec<_> = names.gateways.iter().map(|gateway| format!("{gateway} ")).collect();
            completed(way, &gateways)
        }
        None => completed(last, &names.people),
    }
}

/// What `typed` is the beginning of. `None` if it is nothing's, or whole already.
fn completed(typed: &str, all: &[String]) -> Option<Completion> {
    let begins =
        |name: &&String| name.get(..typed.len()).is_some_and(|start| start.eq_ignore_ascii_case(typed));
    let mut fitting: Vec<_> = all.iter().filter(begins).collect();
    fitting.sort();
    fitting.dedup();
    let first = fitting.first()?;
    if typed.is_empty() || fitting.iter().any(|name| name.len() == typed.len()) {
        return None;
    }
    let common = fitting.iter().fold(first.len(), |common, name| {
        let same = first.chars().zip(name.chars()).take_while(|(a, b)| a.eq_ignore_ascii_case(b));
        same.map(|(a, _)| a.len_utf8()).sum::<usize>().min(common)
    });
    let choices = match fitting.as_slice() {
        [_] => Vec::new(),
        several => several.iter().map(|name| name.trim_end().to_owned()).collect(),
    };
    Some(Completion { more: first.get(typed.len()..common).unwrap_or_default().to_owned(), choices })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateways() -> Vec<String> {
        ["smtp", "dovecot"].map(str::to_owned).into()
    }

    fn parsed(typed: &str) -> Result<Command, String> {
        parse(typed, &gateways())
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_can_be_typed() {
        for (typed, command) in [
            ("/TO bob", Command::To(strings(&["bob"]))),
            (
                "/to bob, carol jones; /smtp d@x.example",
                Command::To(strings(&["bob", "carol jones", "/smtp d@x.example"])),
            ),
            ("/SMTP bobl@x.example", Command::To(strings(&["/SMTP bobl@x.example"]))),
            ("/dovecot u@x.example", Command::To(strings(&["/dovecot u@x.example"]))),
            ("/reply", Command::Reply(ReplyTo::Author)),
            ("/rep all", Command::Reply(ReplyTo::All)),
            ("/reply List", Command::Reply(ReplyTo::List)),
            ("/FIND lunch friday", Command::Find { words: "lunch friday".into(), here: false }),
            ("/findh x", Command::Find { words: "x".into(), here: true }),
            ("/move Old projects", Command::Move("Old projects".into())),
            ("/rename Old projects attic", Command::FolderRename("Old projects".into(), "attic".into())),
            ("/open 2.1", Command::Open("2.1".into())),
            ("/save", Command::Save { parts: vec![], into: None }),
            (
                "/save 1 2.3 /tmp/a b",
                Command::Save { parts: strings(&["1", "2.3"]), into: Some("/tmp/a b".into()) },
            ),
            ("/save all .", Command::Save { parts: vec![], into: Some(".".into()) }),
            ("/detach 1 2", Command::Detach(vec![1, 2])),
            ("/withdraw", Command::Withdraw(String::new())),
            ("/nick cj carol jones", Command::Nickname("cj".into(), "carol jones".into())),
            ("/travel", Command::Travel),
            ("/travel end revoke", Command::TravelEnd { revoke: true }),
            (
                "/travel start standing 7d delete",
                Command::TravelStart { until: None, scope: Scope::Days(7), after_fetch: AfterFetch::Delete },
            ),
            ("/q", Command::Quit),
            ("quit", Command::Quit),
        ] {
            assert_eq!(parsed(typed), Ok(command), "{typed}");
        }
    }

    #[test]
    fn what_cannot_be_typed_is_answered_with_what_can() {
        for (typed, refusal) in [
            ("/finf x", "there is no command /FINF; F1 lists those there are"),
            ("/", "there is no command /; F1 lists those there are"),
            ("/de", "/DE may mean /DETACH, /DELETE"),
            ("/to", "type /TO NAME, ..."),
            ("/send now", "type /SEND "),
            ("/open x", "type /OPEN N"),
            ("/reply some", "type /REPLY [ALL|LIST]"),
            ("/smtp", "there is no command /SMTP; F1 lists those there are"),
            ("/travel start", "type /TRAVEL [START UNTIL [SCOPE [AFTER]] | END [REVOKE]]"),
            ("/travel start soon", "write 2026-12-10, or 2026-12-10T18:00:00Z, or standing"),
            ("/travel start standing new burn", "after a fetch: keep, read or delete"),
        ] {
            assert_eq!(parsed(typed), Err(refusal.into()), "{typed}");
        }
    }

    #[test]
    fn every_word_in_the_help_is_a_command() {
        for word in WORDS {
            let typed = format!("/{} 1 standing", word.word);
            let (one, bare) = (format!("/{} 1", word.word), format!("/{}", word.word));
            let understood = [typed, one, bare].iter().any(|typed| parsed(typed).is_ok());
            assert!(understood || word.word == "TRAVEL", "{}", word.word);
        }
        assert!(help().contains("/FIND WORDS"));
    }

    #[test]
    fn names_are_completed() {
        let names = Names {
            people: strings(&["bob", "carol", "carola", "team"]),
            folders: strings(&["in", "sent", "saved"]),
            gateways: gateways(),
        };
        let more = |typed: &str| complete(typed, &names).map(|c| (c.more, c.choices.len()));
        let found = |more: &str, choices: usize| Some((more.to_owned(), choices));
        assert_eq!(more("/FOR"), found("", 2));
        assert_eq!(more("/wi"), found("THDRAW ", 0));
        assert_eq!(more("/dov"), found("ECOT ", 0));
        assert_eq!(more("/TO b"), found("ob", 0));
        assert_eq!(more("/TO bob, car"), found("ol", 2));
        assert_eq!(more("/TO carol"), None);
        assert_eq!(more("/TO x"), None);
        assert_eq!(more("/TO "), None);
        assert_eq!(more("/move sa"), found("ved", 0));
        assert_eq!(more("/move s"), found("", 2));
        assert_eq!(more("/subject s"), None);
        assert_eq!(recipient("x@y.example, /sm", &names).map(|c| c.more), Some("tp ".into()));
    }
}
