//! Travellers of a world: they set out and collect their mail.

use big_node::request::{Started, Terms};

use crate::client::pop3::{Pop3Client, Pop3Error};
use crate::wait::{SOON, Trouble, until};
use crate::world::{World, first};

impl World {
    /// Somebody travels, and the edge knows it.
    pub async fn set_out(&self, person: &str, terms: Terms) -> Result<Started, Trouble> {
        let trip = self.desk(person).travel_on(terms).await?;
        self.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
        Ok(trip)
    }

    /// A session with a traveller's maildrop, or why there is none.
    pub async fn log_in(&self, trip: &Started) -> Result<Pop3Client, Pop3Error> {
        let mut session = Pop3Client::connect_tls(first(&self.nodes.edge_ready().pop3s)).await?;
        session.login(&trip.user, &trip.password).await?;
        Ok(session)
    }

    /// Waits until a traveller's maildrop holds so many messages, and gives a session with it.
    pub async fn collect_when(&self, trip: &Started, count: u64) -> Result<Pop3Client, Trouble> {
        until(&format!("{count} messages are in the maildrop"), SOON, async || {
            let mut session = self.first_pop3s(&trip.user, &trip.password).await?;
            if session.stat().await?.0 == count {
                return Ok(Some(session));
            }
            session.quit().await?;
            Ok(None)
        })
        .await
    }
}

/// What a refusal says.
///
/// # Panics
/// If it is none.
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Pop3Error>) -> String {
    match answer {
        Err(Pop3Error::Refused { text, .. }) => text,
        other => panic!("not refused: {other:?}"),
    }
}
