//! The command's half of the control socket: plain blocking calls.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ANSWER_MAX, Answer, REQUEST_MAX, Refused};

/// How long the node may be silent; longer than it allows itself for one request.
const SILENCE_MAX: Duration = Duration::from_secs(330);
/// Octets of body in an answer.
const BODY_MAX: u64 = 4 << 30;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody serves the socket.
    #[error("{node} is not running for this topology: start it with `{node} serve`")]
    NotRunning {
        /// The node's command.
        node: &'static str,
    },
    /// The socket belongs to another account.
    #[error(
        "this account may not control {node}: run the command as the account that serves it, or as root; what \
         people may ask for themselves needs [big] desk in the topology"
    )]
    NotAllowed {
        /// The node's command.
        node: &'static str,
    },
    /// The node said no, and why.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The request is larger than the node takes.
    #[error("the request is too large: {0} octets, the most is {REQUEST_MAX}")]
    TooLarge(usize),
    /// The connection ended early, or what came is no answer.
    #[error("{node} did not answer ({source}); its log may say why")]
    NoAnswer {
        /// The node's command.
        node: &'static str,
        /// What happened.
        source: io::Error,
    },
}

/// Asks the node that serves the socket at `path`, and waits for its answer.
///
/// `node` is the name of its command, for the errors.
pub fn call<Q: Serialize, A: DeserializeOwned>(
    node: &'static str,
    path: &Path,
    request: &Q,
    body: &[u8],
) -> Result<(A, Vec<u8>), CallError> {
    let json = serde_json::to_vec(request).map_err(|error| no_answer(node, error.into()))?;
    if json.len() > REQUEST_MAX {
        return Err(CallError::TooLarge(json.len()));
    }
    let mut stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CallError::NotRunning { node },
        io::ErrorKind::PermissionDenied => CallError::NotAllowed { node },
        _ => no_answer(node, error),
    })?;
    let exchanged = exchange(&mut stream, &json, body).map_err(|error| no_answer(node, error))?;
    match exchanged {
        (Answer::Done(answer), body) => Ok((answer, body)),
        (Answer::Refused(reason), _) => Err(Refused(reason).into()),
    }
}

fn no_answer(node: &'static str, source: io::Error) -> CallError {
    CallError::NoAnswer { node, source }
}

fn exchange<A: DeserializeOwned>(
    stream: &mut UnixStream,
    json: &[u8],
    body: &[u8],
) -> io::Result<(Answer<A>, Vec<u8>)> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(json)?;
    stream.write_all(&(body.len() as u64).to_be_bytes())?;
    stream.write_all(body)?;

    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let answer = read_exactly(stream, u32::from_be_bytes(length).into(), ANSWER_MAX as u64)?;
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let body = read_exactly(stream, u64::from_be_bytes(length), BODY_MAX)?;
    Ok((serde_json::from_slice(&answer)?, body))
}

fn read_exactly(stream: &mut UnixStream, length: u64, max: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    stream.take(length.min(max)).read_to_end(&mut octets)?;
    if octets.len() as u64 == length { Ok(octets) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
