//! A person's desk, and each node's operator, for tests: the same questions that the commands ask over
//! the control sockets, without a process for each.

use std::path::PathBuf;

use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::{
    About, Compared, Deleted, Line, PersonView, Reading, Request, RevisionView, Sent, Started, Status, Terms,
    WindowView, Written,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::control;
use shared::report::LinkView;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};

use crate::wait::{SOON, Trouble, until};

/// Lines of a folder that are looked at: all there are in a test.
const LINES_MAX: usize = 10_000;

/// A node's control socket.
#[derive(Clone, Debug)]
pub struct Operator {
    node: &'static str,
    socket: PathBuf,
}

impl Operator {
    /// For the node whose state is `state`; `node` is its command's name.
    pub fn new(node: &'static str, state: &std::path::Path) -> Self {
        Self { node, socket: control::socket_in(state) }
    }

    /// Asks; returns the answer and its body.
    pub async fn ask<A: DeserializeOwned + Send + 'static>(
        &self,
        request: impl Serialize + Send + 'static,
        body: Vec<u8>,
    ) -> Result<(A, Vec<u8>), Trouble> {
        let (node, socket) = (self.node, self.socket.clone());
        let asked = tokio::task::spawn_blocking(move || control::call(node, &socket, &request, &body));
        Ok(asked.await??)
    }
}

/// Big's operator.
#[derive(Clone, Debug)]
pub struct AtBig(pub Operator);

impl AtBig {
    /// The link, as big sees it.
    pub async fn link(&self) -> Result<LinkView, Trouble> {
        self.answer(Request::LinkStatus).await
    }

    /// Compares what both nodes hold of messages.
    pub async fn compared(&self) -> Result<Compared, Trouble> {
        self.answer(Request::LinkVerify).await
    }

    /// Everyone.
    pub async fn people(&self) -> Result<Vec<PersonView>, Trouble> {
        self.answer(Request::PersonList).await
    }

    /// Travel windows, also those that have ended.
    pub async fn windows(&self) -> Result<Vec<WindowView>, Trouble> {
        self.answer(Request::TravelList { person: None, all: true }).await
    }

    /// A person's desk.
    pub fn desk(&self, person: &str) -> Desk {
        Desk { big: self.clone(), person: person.to_owned() }
    }

    async fn answer<A: DeserializeOwned + Send + 'static>(&self, request: Request) -> Result<A, Trouble> {
        Ok(self.0.ask(request, Vec::new()).await?.0)
    }
}

/// One person's desk.
#[derive(Clone, Debug)]
pub struct Desk {
    big: AtBig,
    person: String,
}

impl Desk {
    /// A folder's lines, newest first.
    pub async fn list(&self, folder: Folder) -> Result<Vec<Line>, Trouble> {
        let person = self.person.clone();
        let folder = folder.fixed_name().unwrap_or_default().to_owned();
        self.big.answer(Request::MailList { person, folder, max: LINES_MAX, before: None }).await
    }

    /// The messages in a folder, newest first, without the lines of their parts.
    pub async fn messages(&self, folder: Folder) -> Result<Vec<Line>, Trouble> {
        Ok(self.list(folder).await?.into_iter().filter(|line| line.part == 0).collect())
    }

    /// Waits until a message is in a folder, and gives its line.
    pub async fn filed(&self, folder: Folder, id: &str) -> Result<Line, Trouble> {
        let what = format!("message {id} is in {}'s folder {folder:?}", self.person);
        until(&what, SOON, async || Ok(self.messages(folder).await?.into_iter().find(|line| line.id == id)))
            .await
    }

    /// Waits until a folder holds a message that `fits`, and gives its line.
    pub async fn arrival(
        &self,
        folder: Folder,
        what: &str,
        fits: impl Fn(&Line) -> bool,
    ) -> Result<Line, Trouble> {
        until(what, SOON, async || Ok(self.messages(folder).await?.into_iter().find(|line| fits(line)))).await
    }

    /// Reads a message.
    pub async fn read(&self, id: &str) -> Result<Reading, Trouble> {
        let (person, message) = (self.person.clone(), id.to_owned());
        self.big.answer(Request::MailRead { person, message, raw: false }).await
    }

    /// A message's bytes as they are stored, trace headers included; or, for `id.N`, an attachment's.
    pub async fn raw(&self, id: &str) -> Result<Vec<u8>, Trouble> {
        let (person, message) = (self.person.clone(), id.to_owned());
        let asked = Request::MailRead { person, message, raw: true };
        Ok(self.big.0.ask::<Reading>(asked, Vec::new()).await?.1)
    }

    /// Sends a text; several recipients with commas between them.
    pub async fn send(&self, to: &str, subject: &str, text: &str) -> Result<Sent, Trouble> {
        let to = to.split(", ").map(str::to_owned).collect();
        self.dispatch(Written { to, subject: subject.to_owned(), ..Written::default() }, text).await
    }

    /// Answers a message.
    pub async fn reply(&self, id: &str, text: &str) -> Result<Sent, Trouble> {
        let about = Some(About::Reply { message: id.to_owned(), all: false, list: false });
        self.dispatch(Written { about, ..Written::default() }, text).await
    }

    /// Sends what is written, with its text.
    pub async fn dispatch(&self, written: Written, text: &str) -> Result<Sent, Trouble> {
        let written = Written { text_bytes: text.len(), ..written };
        let asked = Request::MailSend { person: self.person.clone(), written, quote: false };
        Ok(self.big.0.ask(asked, text.into()).await?.0)
    }

    /// Revises a message sent, for all its recipients.
    pub async fn amend(&self, id: &str, mode: ReviseMode, text: &str) -> Result<Status, Trouble> {
        self.amend_for(&[], (id, None), mode, text).await
    }

    /// Revises a message sent, for these recipients (none is for all), as the one after a base.
    pub async fn amend_for(
        &self,
        recipients: &[&str],
        (id, base): (&str, Option<u32>),
        mode: ReviseMode,
        text: &str,
    ) -> Result<Status, Trouble> {
        let asked = Request::MailAmend {
            person: self.person.clone(),
            message: id.to_owned(),
            mode,
            recipients: recipients.iter().map(|recipient| (*recipient).to_owned()).collect(),
            subject: None,
            reason: None,
            base,
            text_bytes: text.len(),
            attachments: Vec::new(),
        };
        Ok(self.big.0.ask(asked, text.into()).await?.0)
    }

    /// Waits until the last revision for a message's only recipient has come to `result`.
    pub async fn revised(&self, id: &str, result: ReviseResult) -> Result<(), Trouble> {
        until(&format!("the revision of {id} is {result:?}"), SOON, async || {
            let recipient = self.status(id).await?.recipients.pop();
            let revised = recipient.and_then(|recipient| recipient.revised);
            Ok(revised.filter(|revised| revised.result == result).map(drop))
        })
        .await
    }

    /// Waits until remote hosts have taken a message for all its recipients.
    pub async fn relayed(&self, id: &str) -> Result<(), Trouble> {
        until(&format!("{id} is relayed"), SOON, async || {
            let recipients = self.status(id).await?.recipients;
            Ok(recipients.iter().all(|one| one.state == DeliveryState::Relayed).then_some(()))
        })
        .await
    }

    /// The revisions of a message.
    pub async fn history(&self, id: &str) -> Result<Vec<RevisionView>, Trouble> {
        self.big.answer(Request::MailHistory { person: self.person.clone(), message: id.to_owned() }).await
    }

    /// Where the copies of a message sent are.
    pub async fn status(&self, id: &str) -> Result<Status, Trouble> {
        self.big.answer(Request::MailStatus { person: self.person.clone(), message: id.to_owned() }).await
    }

    /// Opens a standing travel window.
    pub async fn travel(&self, scope: Scope, after_fetch: AfterFetch) -> Result<Started, Trouble> {
        self.travel_on(Terms { scope, after_fetch, ..Terms::default() }).await
    }

    /// Opens a travel window.
    pub async fn travel_on(&self, terms: Terms) -> Result<Started, Trouble> {
        self.big.answer(Request::TravelStart { person: self.person.clone(), terms }).await
    }

    /// Changes the end of the travel window.
    pub async fn extend(&self, until: Option<u64>) -> Result<WindowView, Trouble> {
        self.big.answer(Request::TravelExtend { person: self.person.clone(), until }).await
    }

    /// Gives the travel window another password; the old one is good for `grace` seconds more.
    pub async fn rotate(&self, grace: u64) -> Result<Started, Trouble> {
        self.big.answer(Request::TravelRotate { person: self.person.clone(), grace }).await
    }

    /// Moves a message to Trash.
    pub async fn delete(&self, id: &str) -> Result<Deleted, Trouble> {
        self.big.answer(Request::MailDelete { person: self.person.clone(), message: id.to_owned() }).await
    }

    /// Ends the travel window, and takes nothing more that was submitted through it.
    pub async fn revoke(&self) -> Result<WindowView, Trouble> {
        self.big.answer(Request::TravelEnd { person: self.person.clone(), revoke: true }).await
    }

    /// Ends the travel window.
    pub async fn come_home(&self) -> Result<WindowView, Trouble> {
        self.big.answer(Request::TravelEnd { person: self.person.clone(), revoke: false }).await
    }
}
