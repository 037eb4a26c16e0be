//! The desk's terminal, its clock and its threads: one reads keys, one asks the node, one waits for what comes,
//! one for signals. Everything that happens goes to the model as one [`Input`] after the other, here.

use std::io::{self, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal as Screen;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute, terminal};
use serde_json::Value;
use shared::command::{Caller, Outcome};
use shared::control::CallError;
use tokio::signal::unix::{SignalKind, signal};

use super::keys::Key;
use super::model::{Answer, Effect, Failure, Input, Model, Purpose};
use super::{Terminal, outside, view};
use crate::request::{PersonView, Request, Watched};

/// How often the clock is looked at when nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// How long the reader of keys keeps the terminal at a time.
const READING: Duration = Duration::from_millis(50);
/// The pause before the node is watched again that did not answer.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Runs the desk.
pub(super) fn run(caller: &Caller, person: PersonView, terminal: Terminal, size_max: u64) -> Outcome {
    let (inputs, happened) = mpsc::channel();
    let (questions, asked) = mpsc::channel();
    let caller = Arc::new(caller.clone());
    let name = person.name.clone();
    spawn(inputs.clone(), Arc::clone(&caller), move |inputs, caller| answer(&asked, &caller, &inputs));
    spawn(inputs.clone(), caller, move |inputs, caller| watch(&name, &caller, &inputs));
    let told = inputs.clone();
    thread::spawn(move || until_told(&told));

    let (columns, rows) = terminal::size()?;
    let (model, effects) = Model::new(person, columns.into(), rows.into(), terminal.repertoire);
    let keys = Arc::new(Keys::default());
    let own = Own::take()?;
    let mut desk = Desk { model, terminal, size_max, questions, keys: Arc::clone(&keys), own, ending: None };
    thread::spawn(move || keys.read(&inputs));
    desk.perform(effects);
    desk.run(&happened);
    let Desk { own, ending, .. } = desk;
    drop(own);
    if let Some(Some(last_words)) = ending {
        shared::command::explain(&last_words);
    }
    Ok(())
}

fn spawn(
    inputs: Sender<Input>,
    caller: Arc<Caller>,
    run: impl FnOnce(Sender<Input>, Arc<Caller>) + Send + 'static,
) {
    // These wait for the node as long as it takes, and go with the process.
    thread::spawn(move || run(inputs, caller));
}

type Question = (Purpose, Request, Vec<u8>);

/// Asks the node, one question after the other.
fn answer(asked: &Receiver<Question>, caller: &Caller, inputs: &Sender<Input>) {
    for (purpose, request, body) in asked {
        let answered = caller.ask::<Value>(&request, &body).map_err(failure);
        if inputs.send(Input::Answered(purpose, answered as Result<Answer, Failure>)).is_err() {
            return;
        }
    }
}

/// Says whenever the person's mailbox has changed.
fn watch(person: &str, caller: &Caller, inputs: &Sender<Input>) {
    let mut seen = None;
    loop {
        let request = Request::MailWatch { person: person.to_owned(), seen };
        let watched = caller.ask::<Watched>(&request, b"").map(|(watched, _)| watched.mark).map_err(failure);
        seen = watched.as_ref().ok().copied();
        if inputs.send(Input::Watched(watched)).is_err() {
            return;
        }
        if seen.is_none() {
            thread::sleep(WATCH_PAUSE);
        }
    }
}

fn failure(error: CallError) -> Failure {
    let text = error.to_string();
    match error {
        CallError::Refused(_) | CallError::TooLarge(_) => Failure::Refused(text),
        CallError::NotRunning { .. } | CallError::NotAllowed { .. } => Failure::Away(text),
        CallError::NoAnswer { .. } => Failure::Unsure(text),
    }
}

/// Says when the desk is told to end, or its terminal is gone.
fn until_told(inputs: &Sender<Input>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let told = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        // Keys do not send these while the terminal is the desk's.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut quit = signal(SignalKind::quit())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
        Ok::<_, io::Error>(())
    });
    if told.is_ok() {
        // Nobody listens if the desk has ended meanwhile.
        let _ = inputs.send(Input::Gone);
    }
}

/// Who reads what is typed: a thread of the desk's, or the person's own editor.
///
/// It is a thread because a reader does not come back from a terminal that is gone, and what was written has to
/// be kept then.
#[derive(Debug, Default)]
struct Keys {
    is_lent: AtomicBool,
    reading: Mutex<()>,
}

impl Keys {
    /// Says what is typed, for as long as somebody listens.
    fn read(&self, inputs: &Sender<Input>) {
        loop {
            if self.is_lent.load(Ordering::Acquire) {
                thread::sleep(READING);
                continue;
            }
            let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            let event = event::poll(READING).and_then(|is_there| is_there.then(event::read).transpose());
            drop(reading);
            let input = match event {
                Ok(event) => event.and_then(input),
                Err(_) => Some(Input::Gone),
            };
            let is_over = matches!(input, Some(Input::Gone));
            if input.is_some_and(|input| inputs.send(input).is_err()) || is_over {
                return;
            }
        }
    }

    /// Runs something else that reads what is typed.
    fn lend<T>(&self, run: impl FnOnce() -> T) -> T {
        self.is_lent.store(true, Ordering::Release);
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let ran = run();
        drop(reading);
        self.is_lent.store(false, Ordering::Release);
        ran
    }
}

/// The terminal, while it is the desk's own: given back when dropped, and when the desk panics.
struct Own {
    screen: Screen<CrosstermBackend<Stdout>>,
}

impl Own {
    fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(give_back_on_panic);
        match enter().and_then(|()| Screen::new(CrosstermBackend::new(io::stdout()))) {
            Ok(screen) => Ok(Self { screen }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Own {
    /// Draws everything anew the next time, whatever is on the terminal.
    fn begin_anew(&mut self) -> io::Result<()> {
        execute!(io::stdout(), terminal::Clear(terminal::ClearType::All))?;
        self.screen = Screen::new(CrosstermBackend::new(io::stdout()))?;
        Ok(())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        give_back();
    }
}

/// Takes the terminal: keys come at once, and what was on it stays behind.
fn enter() -> io::Result<()> {
    terminal::enable_raw_mode()?;
    execute!(io::stdout(), terminal::EnterAlternateScreen, event::EnableBracketedPaste)
}

/// A panic gives the terminal back first, so that what it says is seen.
fn give_back_on_panic() {
    let told_before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        give_back();
        told_before(info);
    }));
}

/// Gives the terminal back as it was. What it does not take any more, it does not need.
fn give_back() {
    let _ =
        execute!(io::stdout(), event::DisableBracketedPaste, terminal::LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
}

struct Desk {
    model: Model,
    terminal: Terminal,
    size_max: u64,
    questions: Sender<Question>,
    keys: Arc<Keys>,
    own: Own,
    /// The desk is over; with what is to be said then.
    ending: Option<Option<String>>,
}

impl Desk {
    fn run(&mut self, happened: &Receiver<Input>) {
        let began = Instant::now();
        let mut is_drawn = false;
        while self.ending.is_none() {
            if !is_drawn {
                let (model, colour) = (&self.model, self.terminal.colour);
                if self.own.screen.draw(|frame| view::draw(model, frame, colour)).is_err() {
                    self.apply(Input::Gone);
                }
            }
            is_drawn = true;
            // All that has happened is taken before anything is drawn.
            let first = happened.recv_timeout(TICK).ok();
            for input in first.into_iter().chain(happened.try_iter()) {
                self.apply(input);
                is_drawn = false;
                if self.ending.is_some() {
                    break;
                }
            }
            let now = began.elapsed().as_millis();
            self.apply(Input::Tick(u64::try_from(now).unwrap_or(u64::MAX)));
        }
    }

    fn apply(&mut self, input: Input) {
        let effects = self.model.apply(input);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let input = match effect {
                Effect::Ask(purpose, request, body) => {
                    // The thread that takes these ends with this one.
                    let _ = self.questions.send((purpose, *request, body));
                    continue;
                }
                Effect::Redraw => {
                    // A terminal that is gone is noticed when it is drawn on.
                    let _ = self.own.begin_anew();
                    continue;
                }
                Effect::End(last_words) => {
                    self.ending = Some(last_words);
                    return;
                }
                Effect::Edit(text) => Input::Edited(self.edit(&text)),
                Effect::Read(path) => Input::Read(outside::read(&path, self.size_max)),
                Effect::Save { into, name, octets } => Input::Saved(outside::save(&into, &name, &octets)),
                Effect::Keep(text) => Input::Kept(outside::keep(&text)),
            };
            self.apply(input);
        }
    }

    /// Lends the terminal to the person's own editor.
    fn edit(&mut self, text: &str) -> Result<String, String> {
        let editor = outside::editor()
            .ok_or("you have not said which editor is yours: set VISUAL or EDITOR, or write here")?;
        let (keys, size_max) = (Arc::clone(&self.keys), self.size_max);
        let edited = keys.lend(|| {
            give_back();
            outside::edit(&editor, text, size_max)
        });
        let back = enter().and_then(|()| self.own.begin_anew());
        back.map_err(|error| format!("the terminal did not come back: {error}"))?;
        edited
    }
}

/// What an event is for the model, if it is anything.
fn input(event: Event) -> Option<Input> {
    match event {
        Event::Key(event) if event.kind != KeyEventKind::Release => key(event).map(Input::Key),
        Event::Paste(text) => Some(Input::Paste(text)),
        Event::Resize(columns, rows) => Some(Input::Resize(columns.into(), rows.into())),
        _ => None,
    }
}

/// The key of an event, if it is one that the desk knows.
fn key(event: KeyEvent) -> Option<Key> {
    let is_ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        // What older terminals send for Backspace and Enter.
        KeyCode::Char('h') if is_ctrl => Key::Backspace,
        KeyCode::Char('j') if is_ctrl => Key::Enter,
        KeyCode::Char(c) if is_ctrl => Key::Ctrl(c.to_ascii_lowercase()),
        KeyCode::Char(_) if event.modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::F(number) => Key::F(number),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Delete,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the next test runs as a process of its own: a hook is for all threads of one.
    #[test]
    #[ignore = "it panics"]
    fn panics() {
        give_back_on_panic();
        panic!("of the desk");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_and_is_said_then() {
        let own = std::env::current_exe().expect("a path");
        let panics = ["cli::panel::driver::tests::panics", "--exact", "--ignored", "--nocapture"];
        let ran = std::process::Command::new(own).args(panics).output().expect("runs");
        let (out, said) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        for sequence in ["\x1b[?2004l", "\x1b[?1049l", "\x1b[?25h"] {
            assert!(out.contains(sequence), "{sequence:?} is not in {out:?}");
        }
        assert!(said.contains("of the desk"), "{said}");
    }
}
