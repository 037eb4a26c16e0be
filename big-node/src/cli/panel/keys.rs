//! Keys, and what each does on which screen: one table, from which the bottom line and the help are made.

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A character.
    Char(char),
    /// A letter with Ctrl.
    Ctrl(char),
    /// A function key.
    F(u8),
    /// Enter.
    Enter,
    /// Escape.
    Esc,
    /// Tab.
    Tab,
    /// Tab with Shift.
    BackTab,
    /// Arrow.
    Up,
    /// Arrow.
    Down,
    /// Arrow.
    Left,
    /// Arrow.
    Right,
    /// Home.
    Home,
    /// End.
    End,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Backspace.
    Backspace,
    /// Delete.
    Delete,
}

impl Key {
    /// As a person calls it.
    fn name(self) -> String {
        match self {
            Self::Char(' ') => "Space".into(),
            Self::Char(c) => c.to_string(),
            Self::Ctrl(c) => format!("Ctrl-{}", c.to_ascii_uppercase()),
            Self::F(number) => format!("F{number}"),
            Self::BackTab => "Shift-Tab".into(),
            key => format!("{key:?}"),
        }
    }
}

/// What is on the screen, as far as keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A list of messages.
    List,
    /// A message that is read.
    Reader,
    /// A message that is written.
    Compose,
    /// The address book.
    Book,
    /// A text: help, status, history, travel.
    Pane,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Shows the help.
    Help,
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// One page up.
    PageUp,
    /// One page down.
    PageDown,
    /// To the first line.
    First,
    /// To the last line.
    Last,
    /// Reads what is chosen.
    Open,
    /// The message before this one in the list.
    Newer,
    /// The message behind this one in the list.
    Older,
    /// To where one came from.
    Back,
    /// Ends the desk.
    Quit,
    /// Types a command.
    Command,
    /// Types what is looked for.
    Find,
    /// The folder to the right.
    NextFolder,
    /// The folder to the left.
    PreviousFolder,
    /// Writes a message.
    New,
    /// Answers the sender.
    Reply,
    /// Answers all.
    ReplyAll,
    /// Sends it on.
    Forward,
    /// Revises one's own message; returns another's, amended.
    Amend,
    /// Takes back what one has sent.
    Withdraw,
    /// To Trash, and from there away.
    Delete,
    /// Types the folder to move to.
    Move,
    /// Read, or unread again.
    Mark,
    /// Where each recipient's copy is.
    Status,
    /// The revisions.
    History,
    /// The conversation, and back.
    Thread,
    /// Types which attachment to save where.
    Save,
    /// The address book.
    Book,
    /// Travel.
    Travel,
    /// Asks for everything anew.
    Refresh,
    /// Sends what is written.
    Send,
    /// Keeps what is written as a draft.
    Draft,
    /// Opens the text in the person's own editor.
    Edit,
    /// Types which file to attach.
    Attach,
    /// The next field.
    NextField,
    /// The field before.
    PreviousField,
    /// Picks a name, or drops it again.
    Pick,
}

/// Some keys of some screens.
pub(super) struct Binding {
    places: &'static [Place],
    keys: &'static [Key],
    /// What they do.
    action: Action,
    /// On the bottom line; empty for what is not there.
    label: &'static str,
    help: &'static str,
}

const fn bind(
    places: &'static [Place],
    keys: &'static [Key],
    action: Action,
    label: &'static str,
    help: &'static str,
) -> Binding {
    Binding { places, keys, action, label, help }
}

use Place::{Book, Compose, List, Pane, Reader};

/// Everywhere but where a text is typed.
const LOOKING: &[Place] = &[List, Reader, Book, Pane];
const EVERYWHERE: &[Place] = &[List, Reader, Compose, Book, Pane];
const MAIL: &[Place] = &[List, Reader];
const LISTS: &[Place] = &[List, Book];

/// Every key, in the order of the bottom line and of the help.
const BINDINGS: &[Binding] = &[
    bind(EVERYWHERE, &[Key::F(1)], Action::Help, "F1 Help", "this help"),
    bind(LOOKING, &[Key::Char('?')], Action::Help, "", "the same"),
    bind(MAIL, &[Key::F(2), Key::Char('r')], Action::Reply, "F2 Reply", "answer; no address is typed"),
    bind(MAIL, &[Key::Char('R'), Key::Char('a')], Action::ReplyAll, "", "answer all"),
    bind(&[Compose], &[Key::F(2), Key::Ctrl('x')], Action::Send, "F2 Send", "send it"),
    bind(
        EVERYWHERE,
        &[Key::F(3), Key::Esc],
        Action::Back,
        "F3 Back",
        "back to where you came from; from a folder, q ends",
    ),
    bind(LOOKING, &[Key::Char('q')], Action::Back, "", "the same; from a folder, end"),
    bind(
        MAIL,
        &[Key::F(4), Key::Char('f')],
        Action::Forward,
        "F4 Forward",
        "send it on, with its attachments",
    ),
    bind(
        &[Compose],
        &[Key::F(4), Key::Ctrl('g')],
        Action::Edit,
        "F4 Editor",
        "write the text in your own editor ($VISUAL, $EDITOR)",
    ),
    bind(&[List], &[Key::F(5)], Action::New, "F5 New", "write a message"),
    bind(MAIL, &[Key::Char('n')], Action::New, "", "write a message"),
    bind(&[Reader], &[Key::F(5), Key::Char('s')], Action::Save, "F5 Save", "save attachments as files"),
    bind(&[Compose], &[Key::F(5), Key::Ctrl('t')], Action::Attach, "F5 Attach", "attach a file"),
    bind(
        &[Book],
        &[Key::F(5), Key::Char('n'), Key::Enter],
        Action::New,
        "F5 Write",
        "write to those who are picked, or add them to the message",
    ),
    bind(
        MAIL,
        &[Key::F(6), Key::Char('e')],
        Action::Amend,
        "F6 Amend",
        "revise what you have sent; amend and return what you got",
    ),
    bind(MAIL, &[Key::Char('W')], Action::Withdraw, "", "take back what you have sent"),
    bind(&[Compose], &[Key::F(6), Key::Ctrl('o')], Action::Draft, "F6 Draft", "keep it as a draft"),
    bind(&[Book], &[Key::F(6), Key::Char(' ')], Action::Pick, "F6 Pick", "pick a name, or drop it again"),
    bind(LOOKING, &[Key::F(7), Key::PageUp, Key::Ctrl('b')], Action::PageUp, "F7/F8 Page", "a page up"),
    bind(LOOKING, &[Key::F(8), Key::PageDown, Key::Ctrl('f')], Action::PageDown, "", "a page down"),
    bind(&[Reader, Pane], &[Key::Char(' ')], Action::PageDown, "", "a page down"),
    bind(&[List], &[Key::Char(' ')], Action::PageDown, "", "a page down"),
    bind(LOOKING, &[Key::Up, Key::Char('k')], Action::Up, "", "a line up"),
    bind(LOOKING, &[Key::Down, Key::Char('j')], Action::Down, "", "a line down"),
    bind(LOOKING, &[Key::Home, Key::Char('g')], Action::First, "", "to the top"),
    bind(LOOKING, &[Key::End, Key::Char('G')], Action::Last, "", "to the bottom"),
    bind(&[List], &[Key::Enter], Action::Open, "", "read it"),
    bind(
        &[Reader],
        &[Key::Left, Key::Char('p')],
        Action::Newer,
        "",
        "the message above this one in the list",
    ),
    bind(&[Reader], &[Key::Right, Key::Enter], Action::Older, "", "the message below this one in the list"),
    bind(&[List], &[Key::Tab, Key::Right], Action::NextFolder, "", "the next folder"),
    bind(&[List], &[Key::BackTab, Key::Left], Action::PreviousFolder, "", "the folder before"),
    bind(MAIL, &[Key::F(9)], Action::Find, "F9 Find", "look for words"),
    bind(
        &[Compose],
        &[Key::F(9), Key::Ctrl('r')],
        Action::Book,
        "F9 Book",
        "the address book: pick who gets it",
    ),
    bind(
        MAIL,
        &[Key::F(10), Key::Char('t')],
        Action::Thread,
        "F10 Thread",
        "the whole conversation, and back",
    ),
    bind(MAIL, &[Key::F(11), Key::Char('w')], Action::Status, "F11 Where", "where each recipient's copy is"),
    bind(MAIL, &[Key::Char('h')], Action::History, "", "its revisions, and how they differ"),
    bind(MAIL, &[Key::Char('d'), Key::Delete], Action::Delete, "", "to Trash; in Trash, away for good"),
    bind(MAIL, &[Key::Char('m')], Action::Move, "", "to another folder"),
    bind(MAIL, &[Key::Char('u')], Action::Mark, "", "unread again, or read"),
    bind(LISTS, &[Key::Char('b')], Action::Book, "", "the address book"),
    bind(MAIL, &[Key::Char('v')], Action::Travel, "", "travel: a mailbox for the road"),
    bind(LOOKING, &[Key::Char('/'), Key::Char(':')], Action::Command, "", "type a command"),
    bind(LOOKING, &[Key::Ctrl('r'), Key::Ctrl('l')], Action::Refresh, "", "ask for everything anew"),
    bind(&[Compose], &[Key::Tab], Action::NextField, "", "complete a name; else the next field"),
    bind(&[Compose], &[Key::BackTab], Action::PreviousField, "", "the field before"),
    bind(&[Compose], &[Key::Ctrl('p')], Action::Command, "", "type a command"),
    bind(
        EVERYWHERE,
        &[Key::F(12), Key::Ctrl('q'), Key::Ctrl('c')],
        Action::Quit,
        "F12 Quit",
        "end; what is not sent is kept if you like",
    ),
];

/// What a key does there, if anything.
pub(super) fn action(place: Place, key: Key) -> Option<Action> {
    let bound = BINDINGS.iter().find(|bound| bound.places.contains(&place) && bound.keys.contains(&key));
    bound.map(|bound| bound.action)
}

/// Everything that a key does somewhere.
#[cfg(test)]
pub(super) fn actions() -> impl Iterator<Item = Action> {
    BINDINGS.iter().map(|bound| bound.action)
}

/// The bottom line of a screen, in at most `columns`. How to end is always there.
pub(super) fn bottom(place: Place, columns: usize) -> String {
    let labels = BINDINGS.iter().filter(|bound| bound.places.contains(&place) && !bound.label.is_empty());
    let labels: Vec<_> = labels.map(|bound| bound.label).collect();
    let Some((end, others)) = labels.split_last() else { return String::new() };
    let mut line = String::new();
    for label in others {
        if line.len() + label.len() + 1 + end.len() <= columns {
            line.push_str(label);
            line.push(' ');
        }
    }
    line + end
}

/// What all keys of a screen do; those that do the same stand together.
pub(super) fn help(place: Place) -> String {
    let mut lines: Vec<(Action, String, &str)> = Vec::new();
    for bound in BINDINGS.iter().filter(|bound| bound.places.contains(&place)) {
        let names: Vec<_> = bound.keys.iter().map(|key| key.name()).collect();
        let names = names.join(", ");
        match lines.iter_mut().find(|(action, _, _)| *action == bound.action) {
            Some((_, same, _)) => *same = format!("{same}, {names}"),
            None => lines.push((bound.action, names, bound.help)),
        }
    }
    lines.into_iter().map(|(_, names, help)| format!("  {names:<24} {help}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things_on_one_screen() {
        for place in EVERYWHERE {
            let mut keys: Vec<Key> = Vec::new();
            for bound in BINDINGS.iter().filter(|bound| bound.places.contains(place)) {
                for key in bound.keys {
                    assert!(!keys.contains(key), "{key:?} on {place:?}");
                    keys.push(*key);
                }
            }
        }
    }

    #[test]
    fn the_bottom_line_fits_and_says_how_to_end() {
        for place in EVERYWHERE {
            for columns in [80, 120, 200] {
                let line = bottom(*place, columns);
                assert!(line.len() <= columns && line.starts_with("F1 Help"), "{line}");
                assert!(line.ends_with("F12 Quit"), "{line}");
            }
        }
        let list = "F1 Help F2 Reply F3 Back F4 Forward F5 New F6 Amend F7/F8 Page F9 Find F12 Quit";
        assert_eq!(bottom(List, 80), list);
    }

    #[test]
    fn where_text_is_typed_letters_are_letters() {
        for c in ' '..='~' {
            assert_eq!(action(Compose, Key::Char(c)), None);
        }
    }
}
