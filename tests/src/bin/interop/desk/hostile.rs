//! Mail whose headers, names, charsets and pages would do something to a terminal, if they could.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tests::wait::Trouble;
use tests::world::{ALICE, CAROL};

use super::terminal::Terminal;
use super::{END, Place, TITLE};

/// What a terminal would be called, if a message could say it.
const OWNED: &str = "owned";

fn word(text: &str) -> String {
    format!("=?utf-8?B?{}?=", STANDARD.encode(text))
}

/// A message that is hostile everywhere.
fn message() -> Vec<u8> {
    let escape = format!("\x1b]0;{OWNED}\x07\x1b[2J\x1b[31m\u{202e}");
    let subject = word(&format!("{escape}trap"));
    let from = word(&format!("{escape}Carol"));
    let broken =
        [&b"broken \xff\xfe\xe9 \x1b[2J text\r\n"[..], &b"y".repeat(3000), b"\r\nthe end of it\r\n"].concat();
    let page = "<html><script>alert('script')</script><p>a page &#27;[2J with <a href='https://x.example/q'>a \
                link</a></p></html>";
    let name = "%1b%5d0%3bowned%07%e2%80%aetxt.exe";
    let mut message = format!(
        "From: {from} <{CAROL}>\r\nTo: {ALICE}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    for line in STANDARD.encode(broken).as_bytes().chunks(76) {
        message += &format!("{}\r\n", String::from_utf8_lossy(line));
    }
    message += &format!(
        "--b\r\nContent-Type: text/plain; charset=x-no-such\r\n\r\nof no known charset\r\n\
         --b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{page}\r\n\
         --b\r\nContent-Type: application/octet-stream\r\n\
         Content-Disposition: attachment; filename*=utf-8''{name}\r\n\r\nx\r\n--b--\r\n"
    );
    message.into_bytes()
}

/// Whether the terminal is what it was, and the frame of the screen is where it belongs.
async fn is_unharmed(terminal: &Terminal, screen: &str) -> Result<(), Trouble> {
    let title = terminal.says("#{pane_title}").await?;
    let is_whole = screen.starts_with(TITLE) && screen.trim_end().ends_with(END);
    let is_turned = screen.contains(['\u{202e}', '\x1b', '\x07']);
    match title.contains(OWNED) || !is_whole || is_turned {
        true => {
            Err(format!("the message has reached the terminal, which is called {title}:\n{screen}").into())
        }
        false => Ok(()),
    }
}

impl Place<'_> {
    pub async fn hostile(self) -> Result<(), Trouble> {
        self.world.receive(&[ALICE], &message()).await?;
        let utf8 = self.desk(80, 24, "LANG=C.UTF-8 TERM=tmux-256color").await?;
        // In a header a control character is a blank.
        let list = utf8.shows("]0;owned  [2J [31mtrap").await?;
        is_unharmed(&utf8, &list).await?;
        utf8.keys(&["Home", "Enter"]).await?;
        let read = utf8.shows("broken \u{ff}\u{fe}\u{e9} ␛[2J text").await?;
        is_unharmed(&utf8, &read).await?;
        for text in ["From        ]0;owned [2J [31mCarol <", "1: ␛]0;owned␇txt.exe, application/octet-stream"]
        {
            if !read.contains(text) {
                return Err(format!("«{text}» is not on the screen:\n{read}").into());
            }
        }
        utf8.keys(&["End"]).await?;
        let end = utf8.shows("a page").await?;
        is_unharmed(&utf8, &end).await?;
        if end.contains("script") || !end.contains("https://x.example/q") {
            return Err(format!("the page is not shown as text:\n{end}").into());
        }
        utf8.keys(&["F3", "F10"]).await?;
        is_unharmed(&utf8, &utf8.shows("Conversation").await?).await?;
        utf8.ends().await?;
        let (program, topology) = (self.program.display(), self.world.nodes.file.display());
        let ascii =
            format!("env LC_ALL=C TERM=xterm '{program}' node-big --topology '{topology}' desk --as alice");
        let terminal = Terminal::start(self.folder.join("ascii"), 80, 24, &ascii).await?;
        terminal.shows("]0;owned  [2J [31mtrap").await?;
        terminal.keys(&["Home", "Enter"]).await?;
        terminal.shows("1: ^[]0;owned^Gtxt.exe").await?;
        let read = terminal.shows("^[[2J text").await?;
        is_unharmed(&terminal, &read).await?;
        if !read.is_ascii() {
            return Err(format!("this is not ASCII:\n{read}").into());
        }
        terminal.ends().await
    }
}
