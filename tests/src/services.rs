//! The edge's SMTP services, for tests that hold each of them to the same.

use big_node::request::Started;

use crate::client::smtp::SmtpClient;
use crate::wait::Trouble;
use crate::world::{World, first};

/// One of the edge's SMTP services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpService {
    /// Port 25: mail from anybody, for people inside.
    Reception,
    /// Port 587: TLS by STARTTLS, and a login.
    Submission,
    /// Port 465: TLS from the first octet, and a login.
    Submissions,
}

impl SmtpService {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reception, Self::Submission, Self::Submissions];

    /// Whether it takes mail from travellers, who log in, and from nobody else.
    pub fn is_for_travellers(self) -> bool {
        self != Self::Reception
    }
}

impl World {
    /// A session with `service`, ready for MAIL: logged in as who is on that trip, if travellers are.
    pub async fn session(&self, service: SmtpService, trip: &Started) -> Result<SmtpClient, Trouble> {
        match service {
            SmtpService::Reception => self.smtp().await,
            SmtpService::Submission => self.submission(&trip.user, &trip.password).await,
            SmtpService::Submissions => {
                let mut client = SmtpClient::connect_tls(first(&self.nodes.edge_ready().submissions)).await?;
                client.hello().await?;
                client.login(&trip.user, &trip.password).await?;
                Ok(client)
            }
        }
    }
}
