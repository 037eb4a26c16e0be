//! How a session begins: EHLO or what is older, TLS, and the login.

use std::time::Duration;

use super::{Action, Client, Phase, Protocol, TlsPolicy};
use crate::smtp::Enhanced;
use crate::smtp::client::login::Login;
use crate::smtp::client::outcome::{Class, Status, TLS_NEEDED};
use crate::smtp::client::reply::HostReply;
use crate::smtp::client::transaction::Capabilities;

impl Client {
    pub(super) fn ehlo(&mut self, now: Duration) {
        let verb = match self.config.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        };
        let ehlo = format!("{verb} {}\r\n", self.config.helo);
        self.expect(Phase::Ehlo, ehlo, now);
    }

    pub(super) fn greeted(&mut self, capabilities: Capabilities, now: Duration) {
        self.capabilities = capabilities;
        self.capabilities.require_tls &= self.tls;
        match self.config.tls {
            _ if self.tls => self.ready(now),
            TlsPolicy::Opportunistic | TlsPolicy::Required if capabilities.starttls => {
                self.expect(Phase::StartTls, "STARTTLS\r\n", now);
            }
            TlsPolicy::Required | TlsPolicy::Implicit => self.no_tls("does not offer it"),
            TlsPolicy::Never | TlsPolicy::Opportunistic => self.ready(now),
        }
    }

    pub(super) fn start_tls(&mut self, reply: &HostReply, now: Duration) {
        if reply.code != 220 {
            match self.config.tls {
                TlsPolicy::Required if reply.code >= 500 => {
                    self.no_tls(&format!("refuses it: {}", Status::of(reply).text));
                }
                // It offers TLS, and may have it again later (RFC 3207 §4).
                TlsPolicy::Required => {
                    let text = format!("the host has no TLS now: {}", Status::of(reply).text);
                    self.unusable(Status::ours(Class::Temporary, Enhanced(4, 7, 0), &text));
                }
                _ => self.ready(now),
            }
        } else if !self.replies.is_empty() {
            // Replies that would be believed as if they had come encrypted.
            let text = "the host sent more than its reply to STARTTLS";
            self.unusable(Status::ours(Class::Temporary, Enhanced(4, 7, 0), text));
        } else {
            self.since = now;
            self.phase = Phase::Handshake;
            self.actions.push_back(Action::StartTls);
        }
    }

    fn no_tls(&mut self, what: &str) {
        let text = format!("TLS is required and the host {what}");
        self.unusable(Status::ours(Class::Temporary, TLS_NEEDED, &text));
    }

    fn ready(&mut self, now: Duration) {
        let Some(credentials) = &self.config.login else { return self.logged_in(now) };
        // A password is never sent in the clear, whatever was configured.
        match Login::begin(credentials, self.capabilities.auth).filter(|_| self.tls) {
            Some((login, line)) => self.expect(Phase::Login(login), line.as_slice(), now),
            None => {
                let text = "the host offers no login that is known here: PLAIN or LOGIN, under TLS";
                self.unusable(Status::ours(Class::Temporary, Enhanced(4, 7, 0), text));
            }
        }
    }

    pub(super) fn login(&mut self, mut login: Login, reply: &HostReply, now: Duration) {
        match reply.code {
            235 => self.logged_in(now),
            334 if let Some(line) = login.challenged() => {
                self.expect(Phase::Login(login), line.as_slice(), now);
            }
            // Ours to mend, not the sender's: the mail waits.
            _ => {
                let Status { enhanced, text, .. } = Status::of(reply).into_temporary();
                let text = format!("the host refused our login: {text}");
                self.unusable(Status::ours(Class::Temporary, enhanced, &text));
            }
        }
    }
}
