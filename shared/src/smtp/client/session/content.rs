//! The content of a message: behind DATA up to a dot, or in chunks, and what the host says meanwhile and to the end of it.

use std::mem;
use std::time::Duration;

use super::{Action, Client, LOST, Phase, Protocol, is_yes, lost, out_of_step};
use crate::smtp::Enhanced;
use crate::smtp::client::chunks::{Chunks, NoChunks, Step, is_of_command, of_trial};
use crate::smtp::client::outcome::{Class, Status};
use crate::smtp::client::outgoing::Outgoing;
use crate::smtp::client::reply::HostReply;
use crate::smtp::client::transaction::Transaction;

/// How content is sent.
#[derive(Debug)]
pub(super) enum Body {
    /// Behind DATA, up to a dot.
    Dotted(Outgoing),
    /// By BDAT.
    Chunked(Chunks),
}

/// By what content was sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Data,
    Bdat,
}

impl Client {
    /// Whether the content goes by BDAT.
    pub(super) fn by_chunks(&self) -> bool {
        self.capabilities.chunking
            && self.chunking
            // By LMTP the last chunk has an answer for each recipient (RFC 2033 §4.3); hosts inside do well with DATA.
            && self.config.protocol == Protocol::Smtp
    }

    pub(super) fn data(&mut self, mut transaction: Transaction, reply: &HostReply, now: Duration) {
        match reply.code {
            // One reply for each recipient that was taken, and there is none.
            354 if !transaction.has_recipients() && self.config.protocol == Protocol::Lmtp => {
                self.lose_transaction(transaction, out_of_step());
            }
            354 if !transaction.has_recipients() => {
                self.expect(Phase::Nothing(transaction), ".\r\n", now);
            }
            354 => {
                self.since = now;
                let outgoing = Outgoing::behind(transaction.take_before());
                self.phase = Phase::Content(transaction, Body::Dotted(outgoing));
                self.actions.push_back(Action::WantContent);
            }
            400.. => {
                transaction.settle(&Status::of(reply));
                self.finish(transaction, now);
            }
            _ => self.lose_transaction(transaction, Status::of(reply).into_temporary()),
        }
    }

    /// The content goes in chunks, each of which is answered.
    pub(super) fn chunks(&mut self, mut transaction: Transaction) {
        if !self.replies.is_empty() {
            return self.lose_transaction(transaction, out_of_step());
        }
        let chunks = Chunks::behind(transaction.take_before(), self.is_tried);
        self.phase = Phase::Content(transaction, Body::Chunked(chunks));
    }

    /// Chunks are made one by one, for a refusal of one is the end of them.
    pub(super) fn next_of_chunks(&mut self) -> Option<Action> {
        let Phase::Content(_, Body::Chunked(chunks)) = &mut self.phase else { return None };
        match chunks.next() {
            Step::Chunk(chunk) => Some(Action::Send(chunk)),
            Step::Content => Some(Action::WantContent),
            Step::Last => Some(Action::WantEnd),
            Step::Answers => None,
        }
    }

    /// The next piece of content, after [`Action::WantContent`].
    pub fn content(&mut self, piece: &[u8]) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Content(transaction, mut body) => {
                let mut out = Vec::new();
                let fits = match &mut body {
                    Body::Dotted(outgoing) => outgoing.piece(piece, &mut out),
                    Body::Chunked(chunks) => chunks.piece(piece),
                };
                if fits.is_err() {
                    return self.unfit(transaction);
                }
                if matches!(body, Body::Dotted(_)) {
                    self.actions.extend([Action::Send(out), Action::WantContent]);
                }
                self.phase = Phase::Content(transaction, body);
            }
            other => self.phase = other,
        }
    }

    /// There is no more content.
    pub fn content_end(&mut self, now: Duration) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Content(transaction, Body::Chunked(mut chunks)) => match chunks.finish() {
                Ok(true) => self.phase = Phase::Content(transaction, Body::Chunked(chunks)),
                // The host may refuse a chunk of no octets, and was sent no other one.
                Ok(false) => self.expect(Phase::Data(transaction), "DATA\r\n", now),
                Err(_) => self.unfit(transaction),
            },
            Phase::Content(transaction, body) => {
                self.phase = Phase::Content(transaction, body);
                self.actions.push_back(Action::WantEnd);
            }
            other => self.phase = other,
        }
    }

    /// The content cannot be read: the host must not take what it has for the whole.
    pub fn content_failed(&mut self) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Content(transaction, _) => {
                self.lose_transaction(
                    transaction,
                    lost("the message cannot be read, or that it leaves not be noted"),
                );
            }
            other => self.phase = other,
        }
    }

    /// Content with bare CR, LF or NUL: it must not leave (it could be read as two messages).
    fn unfit(&mut self, mut transaction: Transaction) {
        let text = "the message holds a bare CR, a bare LF or a NUL";
        transaction.settle(&Status::ours(Class::Permanent, Enhanced(5, 6, 0), text));
        self.done(transaction);
        self.close();
    }

    /// The end of the content may be sent, after [`Action::WantEnd`].
    pub fn end(&mut self, now: Duration) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Content(transaction, body) => {
                let mut out = Vec::new();
                let by = match body {
                    Body::Dotted(outgoing) => outgoing.finish(&mut out).map(|()| By::Data),
                    Body::Chunked(chunks) => {
                        out = chunks.last();
                        Ok(By::Bdat)
                    }
                };
                match by {
                    Ok(by) if self.replies.is_empty() => self.expect(Phase::End(transaction, by), out, now),
                    // Half a reply is here; it cannot be to what was not sent.
                    Ok(_) => self.lose_transaction(transaction, out_of_step()),
                    Err(_) => self.unfit(transaction),
                }
            }
            other => self.phase = other,
        }
    }

    /// The connection broke, or took too long, before all had gone that [`Action::Send`] gave. Of a last chunk that is not there as a
    /// whole no host has made a message.
    pub fn unsent(&mut self) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::End(transaction, By::Bdat) => {
                self.no_chunks = Some(NoChunks::AtThisHost);
                self.lose_transaction(transaction, lost(LOST));
            }
            phase => {
                self.phase = phase;
                self.disconnected();
            }
        }
    }

    /// The host spoke before the end of the content. Unless it takes a chunk it can be refusing only; what it was not sent it has
    /// not.
    pub(super) fn during_content(&mut self, transaction: Transaction, body: Body, reply: &HostReply) {
        let Body::Chunked(mut chunks) = body else {
            return self.lose_transaction(transaction, Status::of(reply).into_refusal());
        };
        let is_trial = chunks.is_trial();
        if is_yes(reply) && chunks.taken() {
            self.is_tried = true;
            self.phase = Phase::Content(transaction, Body::Chunked(chunks));
        } else if is_trial {
            // Whatever it says: a host that does not know BDAT has many words for that, and one that means the message has them
            // for DATA too.
            self.no_chunks = Some(of_trial(reply));
            self.unusable(Status::of(reply).into_temporary());
        } else {
            let status = self.of_chunk(reply).into_refusal();
            if is_yes(reply) && chunks.is_begun() {
                self.no_chunks = Some(NoChunks::AtThisHost);
            }
            self.lose_transaction(transaction, status);
        }
    }

    /// What the answer to a chunk says of the message: it goes by DATA another time, if the host does not know chunks after all.
    fn of_chunk(&mut self, reply: &HostReply) -> Status {
        let status = Status::of(reply);
        if is_of_command(reply.code) {
            self.no_chunks = Some(NoChunks::AtThisHost);
            return status.into_temporary();
        }
        status
    }

    pub(super) fn ended(&mut self, mut transaction: Transaction, by: By, reply: &HostReply, now: Duration) {
        let status = match by {
            By::Data => Status::of(reply),
            By::Bdat => self.of_chunk(reply),
        };
        if reply.code / 100 == 3 {
            return self.lose_transaction(transaction, Status { in_doubt: true, ..status });
        }
        match by {
            By::Bdat => {
                transaction.settle(&status);
                // A refusal leaves the transaction in nobody says what (RFC 3030 §2).
                self.unclean = !is_yes(reply);
            }
            By::Data if self.config.protocol == Protocol::Lmtp && reply.code != 421 => {
                transaction.settle_next(&status);
                if transaction.has_recipients() {
                    self.phase = Phase::End(transaction, by);
                    return;
                }
                self.unclean = false;
            }
            By::Data => {
                transaction.settle(&status);
                self.unclean = false;
            }
        }
        // Who does not know BDAT reads its octets as commands, and answers them.
        if reply.code == 421 || self.no_chunks.is_some() {
            self.done(transaction);
            self.close();
        } else {
            self.finish(transaction, now);
        }
    }
}
