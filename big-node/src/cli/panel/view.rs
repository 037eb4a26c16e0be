//! What the desk looks like: a pure function from the model to a screen's cells.
//!
//! Foreign text comes through [`Repertoire`] only, each piece cut or wrapped to a place of its own. What is
//! chosen, unread or refused is also said without colour.

use ratatui::Frame;
use ratatui::layout::Position;
use ratatui::style::{Color, Modifier, Style};
use shared::render::{size, when, word};
use shared::unit::ReviseMode;

use super::book::Book;
use super::compose::{Attachment, Compose, Name};
use super::editor::Field;
use super::keys;
use super::listing::{Listing, Source};
use super::model::{COLUMNS_MIN, Model, Question, ROWS_MIN, Screen, Then};
use super::pane::Pane;
use super::reader::{Look, Reader};
use super::text::{Repertoire, char_width, width, wrap};
use crate::cli::show;
use crate::request::{FolderView, Line};

/// What stands before a command.
const PROMPT: &str = "Command ===> ";
/// Columns for the words of a search, beside how far it is.
const WORDS_MIN: usize = 10;
/// Columns before a field's value.
const LABEL: usize = 10;
/// Answers of a conversation that are shown by their place in a line.
const DEPTH_MAX: u32 = 6;
/// Rows of what is said.
const SAID_MAX: usize = 5;
/// The first row of what is shown.
const BODY: usize = 3;

/// Draws the desk. With `colour`, what is said also has one.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, colour: bool) {
    let area = frame.area();
    let mut canvas = Canvas { frame, columns: area.width.into(), rows: area.height.into(), colour };
    if !model.fits() || canvas.columns < COLUMNS_MIN || canvas.rows < ROWS_MIN {
        return too_small(model, &mut canvas);
    }
    title(model, &mut canvas);
    match model.screen() {
        Screen::List(list) => listing(model, list, &mut canvas),
        Screen::Reader(reader) => read(model, reader, &mut canvas),
        Screen::Compose(compose) => composed(model, compose, &mut canvas),
        Screen::Book(book) => address_book(model, book, &mut canvas),
        Screen::Pane(pane) => text(model, pane, &mut canvas),
    }
    bottom(model, &mut canvas);
}

/// The cells of a screen.
struct Canvas<'a, 'b> {
    frame: &'a mut Frame<'b>,
    columns: usize,
    rows: usize,
    colour: bool,
}

impl Canvas<'_, '_> {
    /// Puts a text that is fit for the screen on a row.
    fn put(&mut self, row: usize, column: usize, text: &str, style: Style) {
        if row >= self.rows || column >= self.columns {
            return;
        }
        let (x, y) = (as_u16(column), as_u16(row));
        self.frame.buffer_mut().set_stringn(x, y, text, self.columns - column, style);
    }

    /// The same, over the whole row.
    fn line(&mut self, row: usize, text: &str, style: Style) {
        let blanks = self.columns.saturating_sub(width(text));
        self.put(row, 0, &format!("{text}{}", " ".repeat(blanks)), style);
    }

    fn rule(&mut self, row: usize, repertoire: Repertoire) {
        self.put(row, 0, &repertoire.rule().repeat(self.columns), Style::new());
    }

    fn cursor(&mut self, row: usize, column: usize) {
        let column = column.min(self.columns.saturating_sub(1));
        self.frame.set_cursor_position(Position::new(as_u16(column), as_u16(row)));
    }

    fn coloured(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn body(&self) -> usize {
        self.rows.saturating_sub(super::model::CHROME)
    }
}

fn as_u16(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

fn too_small(model: &Model, canvas: &mut Canvas<'_, '_>) {
    let text = match model.question {
        // A question counts on any screen.
        Some(_) => question(model),
        None => format!(
            "Sallypost's desk needs {COLUMNS_MIN} columns and {ROWS_MIN} rows; this screen has {} and {}. \
             Make it larger, or end with F12.",
            canvas.columns, canvas.rows
        ),
    };
    for (row, line) in wrap(&text, canvas.columns.max(1)).iter().enumerate() {
        canvas.put(row, 0, line, Style::new());
    }
}

fn title(model: &Model, canvas: &mut Canvas<'_, '_>) {
    let repertoire = model.repertoire;
    let state = match (model.is_away, model.open) {
        (true, _) => "BIG-NODE DOES NOT ANSWER ",
        (false, 0) => "",
        (false, _) => "asking ",
    };
    let person = &model.person;
    let who =
        format!(" Sallypost   {} <{}>", person.display, person.addresses.first().unwrap_or(&person.name));
    let left = repertoire.cell(&who, canvas.columns.saturating_sub(state.len()));
    canvas.line(0, &format!("{left}{state}"), reversed().add_modifier(Modifier::BOLD));
}

/// A folder's name, as it is shown.
fn folder_name(folder: &FolderView) -> String {
    let mut letters = folder.name.chars();
    match letters.next() {
        Some(first) if !folder.own => first.to_uppercase().chain(letters).collect(),
        _ => folder.name.clone(),
    }
}

/// The folders, as many as there is room for around the one that is shown.
fn folders(model: &Model, canvas: &mut Canvas<'_, '_>) {
    let cell = |folder: &FolderView| {
        let name = model.repertoire.line(&folder_name(folder));
        let count = if folder.name == "drafts" { folder.messages } else { folder.unread };
        let count = if count > 0 && folder.name != "sent" { format!(" {count}") } else { String::new() };
        let name = model.repertoire.cut(&name, 24);
        if folder.name == model.folder() { format!("[{name}{count}]") } else { format!(" {name}{count} ") }
    };
    let cells: Vec<_> = model.folders.iter().map(cell).collect();
    let here = model.folders.iter().position(|folder| folder.name == model.folder()).unwrap_or(0);
    let wide = |from: usize| cells[from..=here].iter().map(|cell| width(cell)).sum::<usize>();
    let from = (0..here).find(|from| wide(*from) + 2 <= canvas.columns).unwrap_or(here);
    let mut column = 0;
    for (at, cell) in cells.iter().enumerate().skip(from) {
        if column + width(cell) > canvas.columns {
            break;
        }
        let style = if at == here { bold() } else { Style::new() };
        canvas.put(1, column, cell, style);
        column += width(cell);
    }
}

fn listing(model: &Model, list: &Listing, canvas: &mut Canvas<'_, '_>) {
    let repertoire = model.repertoire;
    match &list.source {
        Source::Folder(_) => folders(model, canvas),
        Source::Search { words, folder } => {
            let place = folder.as_ref().map_or("all folders".into(), |folder| format!("folder {folder}"));
            let (before, behind) = (format!(" Found in {place}: "), format!("   {}", list.remark));
            // However much is looked for, how far that is can be seen.
            let room = canvas.columns.saturating_sub(width(&before) + width(&behind)).max(WORDS_MIN);
            let text = format!("{before}{}{behind}", repertoire.cut(&repertoire.line(words), room));
            canvas.put(1, 0, &repertoire.cell(&text, canvas.columns), bold());
        }
        Source::Thread(_) => canvas.put(1, 0, " Conversation, oldest first", bold()),
    }
    let columns = Columns::of(list, canvas.columns);
    let who = if columns.is_to { "To" } else { "From" };
    let head = columns.row(repertoire, ["", "At (UTC)", who, "Folder", "Subject"], 0);
    let place = match list.lines.is_empty() {
        true => String::new(),
        false => format!(" {}/{}{} ", list.cursor + 1, list.lines.len(), if list.more { "+" } else { "" }),
    };
    canvas.put(2, 0, &format!("  {head}"), canvas.coloured(Color::Cyan).add_modifier(Modifier::UNDERLINED));
    canvas.put(2, canvas.columns.saturating_sub(place.len()), &place, canvas.coloured(Color::Cyan));
    if list.lines.is_empty() {
        let text = if list.loaded { "  nothing here" } else { "  asking for it" };
        canvas.put(BODY, 0, text, Style::new());
    }
    let rows = canvas.body();
    for (row, line) in list.lines.iter().skip(list.top).take(rows).enumerate() {
        let is_chosen = list.top + row == list.cursor;
        let text = if line.part == 0 {
            message(&columns, line, repertoire)
        } else {
            part(&columns, line, repertoire)
        };
        let unread = !line.read && line.part == 0;
        let mut style = if unread { bold() } else { Style::new() };
        if is_chosen {
            style = style.add_modifier(Modifier::REVERSED);
        }
        canvas.line(BODY + row, &format!("{} {text}", if is_chosen { '>' } else { ' ' }), style);
    }
}

/// The columns of a list.
struct Columns {
    who: usize,
    folder: usize,
    subject: usize,
    is_to: bool,
}

impl Columns {
    fn of(list: &Listing, columns: usize) -> Self {
        let is_folder = matches!(list.source, Source::Folder(_));
        let (who, folder) = match (columns >= 110, is_folder) {
            (true, true) => (30, 0),
            (true, false) => (30, 14),
            (false, true) => (20, 0),
            (false, false) => (18, 9),
        };
        // The marker, marks and date, and two blanks behind each column.
        let taken = 2 + 4 + 1 + 16 + 2 + who + 2 + if folder > 0 { folder + 2 } else { 0 };
        let is_to = matches!(&list.source, Source::Folder(name) if name == "sent" || name == "drafts");
        Self { who, folder, subject: columns.saturating_sub(taken), is_to }
    }

    /// A row of them; the subject stands `indent` columns in.
    fn row(
        &self,
        repertoire: Repertoire,
        [marks, at, who, folder, subject]: [&str; 5],
        indent: usize,
    ) -> String {
        let mut row = format!("{marks:<4} {at:<16}  {}  ", repertoire.cell(who, self.who));
        if self.folder > 0 {
            row += &format!("{}  ", repertoire.cell(folder, self.folder));
        }
        // A foreign text has no blanks before it: how far it is set in, we say.
        let room = self.subject.saturating_sub(indent);
        row + &" ".repeat(self.subject - room) + &repertoire.cell(subject, room)
    }
}

fn message(columns: &Columns, line: &Line, repertoire: Repertoire) -> String {
    let is_own = matches!(line.folder.as_str(), "sent" | "drafts");
    let marks = [
        (line.suspect, 'S'),
        (!line.read && !is_own, 'N'),
        (line.answered, 'A'),
        (line.forwarded, 'F'),
        (line.amended && !line.withdrawn, 'R'),
        (line.withdrawn, 'X'),
        (line.late, 'L'),
    ];
    let marks: String = marks.iter().filter(|(is_set, _)| *is_set).map(|(_, mark)| *mark).take(4).collect();
    let who = if is_own { line.to.join(", ") } else { line.from.clone() };
    let indent = 2 * line.depth.min(DEPTH_MAX) as usize;
    columns.row(repertoire, [&marks, &when(line.at), &who, &line.folder, &line.subject], indent)
}

fn part(columns: &Columns, line: &Line, repertoire: Repertoire) -> String {
    let content_type = line.content_type.clone().unwrap_or_default();
    let name = show::named(&line.subject, &content_type, &line.part.to_string());
    let subject = format!("{}: {name}", line.part);
    let size = format!("{:>16}", size(line.size));
    columns.row(repertoire, ["", &size, &show::kind(&content_type), "", &subject], 0)
}

fn read(model: &Model, reader: &Reader, canvas: &mut Canvas<'_, '_>) {
    let Some(reading) = &reader.reading else {
        return canvas.put(1, 0, " asking for it", bold());
    };
    let name = if reading.content_type.is_some() { "Attachment" } else { "Message" };
    canvas.put(1, 0, &format!(" {name} {}   {}", reading.id, reading.folder), bold());
    let rows = canvas.body();
    scrolled(model, reader.top, reader.lines.len(), canvas);
    for (row, (look, line)) in reader.lines.iter().skip(reader.top).take(rows).enumerate() {
        match look {
            Look::Rule => canvas.rule(BODY + row, model.repertoire),
            Look::Header => canvas.put(BODY + row, 0, line, canvas.coloured(Color::Cyan)),
            Look::Plain => canvas.put(BODY + row, 0, line, Style::new()),
        }
    }
}

/// A line across, and how far one has read.
fn scrolled(model: &Model, top: usize, lines: usize, canvas: &mut Canvas<'_, '_>) {
    canvas.rule(2, model.repertoire);
    let rows = canvas.body();
    if lines > rows {
        let place = format!(" {}-{} of {lines} ", top + 1, (top + rows).min(lines));
        canvas.put(2, canvas.columns.saturating_sub(place.len() + 2), &place, Style::new());
    }
}

fn text(model: &Model, pane: &Pane, canvas: &mut Canvas<'_, '_>) {
    canvas.put(1, 0, &format!(" {}", pane.title), bold());
    scrolled(model, pane.top, pane.lines.len(), canvas);
    let rows = canvas.body();
    for (row, line) in pane.lines.iter().skip(pane.top).take(rows).enumerate() {
        canvas.put(BODY + row, 0, line, Style::new());
    }
}

fn address_book(model: &Model, book: &Book, canvas: &mut Canvas<'_, '_>) {
    let repertoire = model.repertoire;
    let found = if book.words.is_empty() { String::new() } else { format!(", with {}", book.words) };
    let picked =
        if book.picked.is_empty() { String::new() } else { format!("   picked: {}", book.picked.join(", ")) };
    let title = format!(" Address book{found}{picked}");
    canvas.put(1, 0, &repertoire.cell(&title, canvas.columns), bold());
    scrolled(model, book.top, book.entries.len(), canvas);
    if book.entries.is_empty() {
        canvas.put(BODY, 0, "  nobody here; /NICKNAME NAME MEANING adds a name of your own", Style::new());
    }
    let rows = canvas.body();
    for (row, entry) in book.entries.iter().skip(book.top).take(rows).enumerate() {
        let is_chosen = book.top + row == book.cursor;
        let picked = if book.picked.contains(&entry.name) { '*' } else { ' ' };
        let marker = if is_chosen { '>' } else { ' ' };
        let name = repertoire.cell(&entry.name, 24);
        let means = repertoire.cell(&entry.means, canvas.columns.saturating_sub(40));
        let style = if is_chosen { reversed() } else { Style::new() };
        canvas.line(BODY + row, &format!("{marker}{picked} {name}  {:<9}  {means}", entry.kind), style);
    }
}

fn composed(model: &Model, compose: &Compose, canvas: &mut Canvas<'_, '_>) {
    let repertoire = model.repertoire;
    let changed = if compose.is_changed() { "   not kept yet" } else { "" };
    let title = format!(" {}{changed}", compose.title());
    canvas.put(1, 0, &repertoire.cell(&title, canvas.columns), bold());
    canvas.rule(2, repertoire);
    let mut row = BODY;
    for (at, (name, field)) in compose.fields.iter().enumerate() {
        let label = format!("{:<8}: ", name.shown());
        canvas.put(row, 0, &label, canvas.coloured(Color::Cyan));
        let is_here = at == compose.focus && model.line.is_none() && model.question.is_none();
        match name {
            Name::Mode => {
                canvas.put(row, LABEL, &modes(compose.mode()), Style::new());
                if is_here {
                    canvas.cursor(row, LABEL);
                }
            }
            _ => {
                let hint = match (name, field.text().is_empty() && !is_here) {
                    (Name::Scope, true) => "(everybody who got it)",
                    (Name::Reason, true) => "(none)",
                    _ => "",
                };
                canvas.put(row, LABEL, hint, Style::new());
                typed(field, row, LABEL, is_here, repertoire, canvas);
            }
        }
        row += 1;
    }
    if !compose.attachments.is_empty() {
        let names: Vec<_> =
            compose.attachments.iter().enumerate().map(|(at, one)| attached(at, one)).collect();
        let text = format!("Attached: {}", names.join(", "));
        canvas.put(row, 0, &repertoire.cell(&text, canvas.columns), Style::new());
        row += 1;
    }
    if row > BODY {
        canvas.rule(row, repertoire);
        row += 1;
    }
    if compose.mode() == ReviseMode::Withdraw {
        return canvas.put(row, 0, "It is taken back; what was in it is not shown any more.", Style::new());
    }
    for (below, line) in compose.shown.iter().enumerate() {
        if row + below < BODY + canvas.body() {
            canvas.put(row + below, 0, line, Style::new());
        }
    }
    if compose.focus == compose.fields.len() && model.line.is_none() && model.question.is_none() {
        canvas.cursor(row + compose.cursor.0, compose.cursor.1);
    }
}

fn modes(chosen: ReviseMode) -> String {
    let modes = [ReviseMode::Replace, ReviseMode::Append, ReviseMode::Withdraw];
    let shown = modes.map(|mode| match mode == chosen {
        true => format!("[{}]", word(&mode)),
        false => format!(" {} ", word(&mode)),
    });
    format!("{}   (Space or arrows choose)", shown.concat())
}

fn attached(at: usize, attachment: &Attachment) -> String {
    let (name, bytes) = match attachment {
        Attachment::Original(part) | Attachment::Kept(part) => {
            (part.name.as_deref().unwrap_or("(no name)"), part.size)
        }
        Attachment::New { name, octets } => (name.as_str(), octets.len() as u64),
    };
    format!("{} {name} ({})", at + 1, size(bytes))
}

/// A field that is typed, scrolled so that the cursor is on the screen.
fn typed(
    field: &Field,
    row: usize,
    column: usize,
    is_here: bool,
    repertoire: Repertoire,
    canvas: &mut Canvas<'_, '_>,
) {
    let room = canvas.columns.saturating_sub(column + 1);
    let before = repertoire.line(field.before());
    let mut shown = repertoire.line(field.text());
    let mut at = width(&before);
    if is_here && at > room {
        let mut hidden = 0;
        let start = shown.char_indices().find(|(_, c)| {
            let is_enough = at - hidden <= room;
            hidden += if is_enough { 0 } else { char_width(*c) };
            is_enough
        });
        shown.drain(..start.map_or(shown.len(), |(start, _)| start));
        at -= hidden;
    }
    canvas.put(row, column, &repertoire.cut(&shown, room), Style::new());
    if is_here {
        canvas.cursor(row, column + at);
    }
}

fn question(model: &Model) -> String {
    match &model.question {
        Some(Question::Keep(Then::End)) => {
            "Keep what you wrote as a draft?   y keep and end   n throw it away and end   Esc go on".into()
        }
        Some(Question::Keep(_)) => {
            "Keep it as a draft?   y keep   n throw it away   Esc go on writing".into()
        }
        Some(Question::Erase(_)) => "Delete it for good?   y delete   n leave it".into(),
        None => String::new(),
    }
}

fn bottom(model: &Model, canvas: &mut Canvas<'_, '_>) {
    let repertoire = model.repertoire;
    let (said, command, keys) = (canvas.rows - 3, canvas.rows - 2, canvas.rows - 1);
    let (text, style) = match &model.question {
        Some(_) => (question(model), canvas.coloured(Color::Yellow)),
        None if model.notice.is_refusal => (model.notice.text.clone(), canvas.coloured(Color::Red)),
        None => (model.notice.text.clone(), canvas.coloured(Color::Yellow)),
    };
    // What is long covers what is above it until the next key.
    let lines = wrap(&repertoire.line(&text), canvas.columns);
    let lines = &lines[..lines.len().min(SAID_MAX)];
    for (at, line) in lines.iter().enumerate() {
        canvas.line(said + 1 + at - lines.len(), line, style.add_modifier(Modifier::BOLD));
    }
    canvas.put(command, 0, PROMPT, canvas.coloured(Color::Cyan));
    if let Some(line) = &model.line {
        typed(line, command, PROMPT.len(), true, repertoire, canvas);
    }
    canvas.line(keys, &keys::bottom(model.place(), canvas.columns), reversed());
}
