//! A terminal of tmux's: keys go in, and its screen is looked at.

use std::path::PathBuf;
use std::process::Command;

use tests::process::finish;
use tests::wait::{SOON, Trouble, until};

use crate::clients::CLIENT_WITHIN;

/// What is on it before the desk begins.
const BEFORE: &str = "before the desk";
/// What is said behind the desk, if typing is shown and edited by lines again.
const AS_IT_WAS: &str = "the terminal is as it was";

/// A terminal of a tmux server of its own, which ends with it.
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Begins with `command`, in a terminal on which there is something already.
    pub async fn start(socket: PathBuf, columns: usize, rows: usize, command: &str) -> Result<Self, Trouble> {
        let terminal = Self { socket };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // The last lines stay until the server ends.
        let shell = format!(
            "echo '{BEFORE}'; {command}; echo \"the desk ended with $?\"; case \" $(stty -a) \" in \
             *-icanon*|*' -echo '*) echo 'it is raw still';; *) echo '{AS_IT_WAS}';; esac; exec sleep 600"
        );
        terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, &shell]).await?;
        Ok(terminal)
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(&self.socket).args(arguments).env_remove("TMUX");
        command
    }

    async fn tmux(&self, arguments: &[&str]) -> Result<String, Trouble> {
        let done = finish(self.client(arguments), b"", CLIENT_WITHIN).await?;
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(format!("tmux {arguments:?}: {}", done.stderr).into()),
        }
    }

    /// Presses keys, by tmux's names for them.
    pub async fn keys(&self, keys: &[&str]) -> Result<(), Trouble> {
        self.tmux(&[&["send-keys"], keys].concat()).await.map(drop)
    }

    /// Types a text.
    pub async fn types(&self, text: &str) -> Result<(), Trouble> {
        self.tmux(&["send-keys", "-l", text]).await.map(drop)
    }

    /// Gives the window another size.
    pub async fn resize(&self, columns: usize, rows: usize) -> Result<(), Trouble> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]).await.map(drop)
    }

    /// What is on the screen.
    async fn screen(&self) -> Result<String, Trouble> {
        self.tmux(&["capture-pane", "-p"]).await
    }

    /// The same, with what makes it bold or coloured.
    pub async fn raw(&self) -> Result<String, Trouble> {
        self.tmux(&["capture-pane", "-p", "-e"]).await
    }

    /// Waits until the screen is as `fits` wants it, and gives it.
    pub async fn until(&self, what: &str, fits: impl Fn(&str) -> bool) -> Result<String, Trouble> {
        let seen = until(what, SOON, async || {
            let screen = self.screen().await?;
            Ok(fits(&screen).then_some(screen))
        });
        match seen.await {
            Ok(screen) => Ok(screen),
            Err(trouble) => Err(format!("{trouble}\n{}", self.screen().await?).into()),
        }
    }

    /// Waits until a text is on the screen, and gives the screen.
    pub async fn shows(&self, text: &str) -> Result<String, Trouble> {
        self.until(&format!("«{text}» is on the screen"), |screen| screen.contains(text)).await
    }

    /// Types a command, and Enter.
    pub async fn command(&self, text: &str) -> Result<(), Trouble> {
        self.types(text).await?;
        self.keys(&["Enter"]).await
    }

    /// What tmux says of the terminal, by its name for it.
    pub async fn says(&self, format: &str) -> Result<String, Trouble> {
        Ok(self.tmux(&["display-message", "-p", format]).await?.trim_end().to_owned())
    }

    /// Ends the desk as a person does.
    pub async fn ends(&self) -> Result<(), Trouble> {
        self.keys(&["F12"]).await?;
        self.is_given_back().await
    }

    /// Waits until the desk has ended, and has left the terminal as it was.
    pub async fn is_given_back(&self) -> Result<(), Trouble> {
        let is_back = |screen: &str| {
            [BEFORE, "the desk ended with 0", AS_IT_WAS].iter().all(|line| screen.contains(line))
        };
        self.until("the terminal is as it was", is_back).await.map(drop)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Gone already, if it could not be started.
        let _ = self.client(&["kill-server"]).output();
    }
}
