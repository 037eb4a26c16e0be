//! What the kernel knows of a process: its Internet sockets, its CPU time, its memory (proc(5)).

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Linux counts CPU time in hundredths of a second, on every architecture that matters here.
const TICKS_PER_SECOND: u64 = 100;

/// One Internet socket of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// `tcp`, `tcp6`, `udp`, `udp6`, `raw`, ….
    pub protocol: &'static str,
    /// Its own address and port, as the kernel writes them in hex.
    pub local: String,
    /// Whether a stranger's packet can reach the process by it: a listening TCP socket, or a UDP
    /// socket that is not connected (such as a QUIC client's, which must tell its peer from others).
    pub listens: bool,
}

/// The Internet sockets that the process `pid` holds.
pub fn internet_sockets(pid: u32) -> io::Result<Vec<Socket>> {
    let process = Path::new("/proc").join(pid.to_string());
    let mut inodes = HashSet::new();
    for entry in fs::read_dir(process.join("fd"))? {
        // A descriptor may be closed between being listed and being read.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inodes.extend(inode.map(str::to_owned));
    }
    let mut sockets = Vec::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"] {
        let Ok(table) = fs::read_to_string(process.join("net").join(protocol)) else { continue };
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (Some(local), Some(remote), Some(state), Some(inode)) =
                (fields.get(1), fields.get(2), fields.get(3), fields.get(9))
            else {
                continue;
            };
            if inodes.contains(*inode) {
                let unconnected = !protocol.starts_with("tcp") && remote.ends_with(":0000");
                let listens = unconnected || *state == "0A";
                sockets.push(Socket { protocol, local: (*local).to_owned(), listens });
            }
        }
    }
    Ok(sockets)
}

/// How many threads the process `pid` has, and the same for which calls of the system are filtered (seccomp) and
/// nothing gives them more rights (`no_new_privs`).
pub fn confined_threads(pid: u32) -> io::Result<(usize, usize)> {
    let (mut all, mut confined) = (0, 0);
    for thread in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        // One that has ended since is none.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let is = |name: &str, value: &str| {
            status.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.trim() == value))
        };
        all += 1;
        confined += usize::from(is("Seccomp:", "2") && is("NoNewPrivs:", "1"));
    }
    Ok((all, confined))
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, user and system, in steps of 10 ms.
    pub cpu: Duration,
    /// The most memory it had resident, ever or since [`forget_peak`], in bytes.
    pub peak_memory: u64,
}

/// The memory that the process `pid` has resident, in bytes.
pub fn resident(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    in_status(&status, "VmRSS:")
}

/// A figure of `status`, in bytes.
fn in_status(status: &str, name: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kibibytes.map(|kibibytes| kibibytes * 1024).ok_or_else(odd)
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc is not as proc(5) describes it")
}

/// What the process `pid` has used so far.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let process = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(process.join("stat"))?;
    // The name, in parentheses, may hold anything: fields are counted after it. utime and stime are
    // fields 14 and 15.
    let (_, after_name) = stat.rsplit_once(')').ok_or_else(odd)?;
    let ticks: Vec<u64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else { return Err(odd()) };
    let status = fs::read_to_string(process.join("status"))?;
    let cpu = Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND);
    Ok(Usage { cpu, peak_memory: in_status(&status, "VmHWM:")? })
}

/// Lets the process `pid` begin a new count of its peak memory (proc(5), `clear_refs`).
pub fn forget_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Where the process `pid`, which this one has started, holds these octets: of each mapping that it can write to and in
/// which they stand, the line that proc(5) has for it in `maps`.
pub fn holding(pid: u32, octets: &[u8]) -> io::Result<Vec<String>> {
    let process = Path::new("/proc").join(pid.to_string());
    let memory = fs::File::open(process.join("mem"))?;
    let mut holding = Vec::new();
    for line in fs::read_to_string(process.join("maps"))?.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(access)) = (fields.next(), fields.next()) else { return Err(odd()) };
        let (start, end) = range.split_once('-').ok_or_else(odd)?;
        let bound = |text: &str| u64::from_str_radix(text, 16).map_err(|_| odd());
        let (start, end) = (bound(start)?, bound(end)?);
        let mut mapped = vec![0; usize::try_from(end.saturating_sub(start)).map_err(|_| odd())?];
        // A thread may have ended since, and its stack gone with it.
        if access.starts_with("rw")
            && memory.read_exact_at(&mut mapped, start).is_ok()
            && memchr::memmem::find(&mapped, octets).is_some()
        {
            holding.push(line.to_owned());
        }
    }
    Ok(holding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};

    /// Whether the socket on local port `port` listens, or `None` if this process has no such.
    fn listens(protocol: &str, port: u16) -> Option<bool> {
        let sockets = internet_sockets(std::process::id()).expect("/proc");
        let suffix = format!(":{port:04X}");
        sockets.iter().find(|s| s.protocol == protocol && s.local.ends_with(&suffix)).map(|s| s.listens)
    }

    #[test]
    fn listeners_are_told_from_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let client = TcpStream::connect(address).expect("connected");
        let dialling = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let port = dialling.local_addr().expect("bound").port();
        assert_eq!(listens("tcp", address.port()), Some(true));
        assert_eq!(listens("tcp", client.local_addr().expect("bound").port()), Some(false));
        assert_eq!(listens("udp", port), Some(true));
        dialling.connect(address).expect("connected");
        assert_eq!(listens("udp", port), Some(false));
        client.shutdown(Shutdown::Both).expect("open until now");
    }

    #[test]
    fn usage_is_read() {
        let before = usage(std::process::id()).expect("/proc");
        assert!(before.peak_memory > 100 * 1024);
        let mut random = crate::random::Random::new(1);
        while usage(std::process::id()).expect("/proc").cpu == before.cpu {
            std::hint::black_box((0..10_000).fold(0, |sum: u64, _| sum ^ random.next_u64()));
        }
    }
}
