//! A desk that is told to end gives its terminal back, and keeps what was written.

use big_node::record::Folder;
use rustix::process::{Pid, Signal, kill_process};
use tests::wait::Trouble;

use super::Place;
use super::terminal::Terminal;

impl Place<'_> {
    pub async fn given_back(self) -> Result<(), Trouble> {
        let (program, topology) = (self.program.display(), self.world.nodes.file.display());
        std::fs::create_dir(&self.folder)?;
        let desk = format!(
            "env LANG=C.UTF-8 TERM=tmux-256color '{program}' node-big --topology '{topology}' desk --as alice"
        );
        for (name, signal) in
            [("Term", Signal::TERM), ("Hup", Signal::HUP), ("Int", Signal::INT), ("Quit", Signal::QUIT)]
        {
            let terminal = Terminal::start(self.folder.join(name), 80, 24, &desk).await?;
            terminal.shows("[In").await?;
            if terminal.says("#{alternate_on}").await? != "1" {
                return Err("what was on the terminal is written over".into());
            }
            terminal.command("/to bob").await?;
            terminal.shows("Subject :").await?;
            terminal.types(name).await?;
            terminal.shows(name).await?;
            kill_process(desk_in(&terminal).await?, signal)?;
            terminal.is_given_back().await?;
            let alice = self.world.desk("alice");
            alice.arrival(Folder::Drafts, "what was written is a draft", |line| line.subject == name).await?;
        }
        Ok(())
    }
}

/// The process that a terminal's shell waits for.
async fn desk_in(terminal: &Terminal) -> Result<Pid, Trouble> {
    let shell = terminal.says("#{pane_pid}").await?;
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
    let child = children.split_whitespace().next().ok_or("the shell waits for nobody")?;
    Pid::from_raw(child.parse()?).ok_or_else(|| "no process has this number".into())
}
