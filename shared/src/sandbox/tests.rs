//! The calls themselves, made by a process in the sandbox and by one that is not.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Arc, mpsc};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::{personality, ptrace, signal};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType};
use tempfile::TempDir;

use super::*;
use crate::store::DirectoryDisk;

/// Set in the process that makes the calls: the folder that it plays in.
const PLAYS_IN: &str = "SALLYPOST_TEST_SANDBOX";
/// Set if it enters the sandbox first.
const ENTERS: &str = "SALLYPOST_TEST_SANDBOX_ENTERED";
/// Set in the process that plays on a kernel without something: in which folder, and without what.
const LACKS_IN: &str = "SALLYPOST_TEST_SANDBOX_LACKS_IN";
const LACKS: &str = "SALLYPOST_TEST_SANDBOX_LACKS";
/// Set if all of it is required.
const REQUIRED: &str = "SALLYPOST_TEST_SANDBOX_REQUIRED";
/// What each line of its report begins with.
const REPORTED: &str = "call ";
/// Nobody's.
const NO_PROCESS: Pid = Pid::from_raw(i32::MAX);

type Call = (&'static str, fn(&Path) -> io::Result<()>);

/// What a foreign hand would try. Without a sandbox each succeeds, or fails for its own reason.
const REFUSED: &[Call] = &[
    ("execve", |_| Err(Command::new("/nowhere/program").exec())),
    ("spawn", |_| Command::new("/nowhere/program").spawn().map(drop)),
    ("ptrace", |_| Ok(ptrace::attach(NO_PROCESS)?)),
    ("process_vm_readv", |_| {
        let (mut octet, there) = ([0], RemoteIoVec { base: 1 << 20, len: 1 });
        Ok(process_vm_readv(NO_PROCESS, &mut [io::IoSliceMut::new(&mut octet)], &[there]).map(drop)?)
    }),
    ("kill", |_| {
        let parent = i32::try_from(std::os::unix::process::parent_id()).map_err(io::Error::other)?;
        Ok(signal::kill(Pid::from_raw(parent), None)?)
    }),
    ("write outside", |folder| fs::write(folder.join("outside"), "x")),
    ("write to what may be read", |folder| fs::write(folder.join("readable"), "x")),
    ("read outside", |_| fs::read("/etc/passwd").map(drop)),
    ("read a secret outside", |folder| fs::read(folder.join("secret")).map(drop)),
    ("list outside", |folder| fs::read_dir(folder).map(drop)),
    ("move out of the state", |folder| {
        fs::write(folder.join("state/kept"), "x")?;
        fs::rename(folder.join("state/kept"), folder.join("kept"))
    }),
    ("own memory as a file", |_| fs::File::options().write(true).open("/proc/self/mem").map(drop)),
    ("socket of netlink", |_| {
        Ok(rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None).map(drop)?)
    }),
    ("socket of Unix", |folder| UnixStream::connect(folder.join("socket")).map(drop)),
    ("raw socket", |_| {
        // Without the right to it the answer is the same, whoever gives it: then the kind is one that does not exist.
        let kind =
            if rustix::process::geteuid().is_root() { SocketType::RAW } else { SocketType::from_raw(3 | 16) };
        Ok(rustix::net::socket(AddressFamily::INET, kind, Some(rustix::net::ipproto::ICMP)).map(drop)?)
    }),
    ("socket of SCTP", |_| stream_by(132)),
    ("socket of MPTCP", |_| stream_by(262)),
    ("socket of ICMP", |_| {
        let icmp = Some(rustix::net::ipproto::ICMP);
        Ok(rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, icmp).map(drop)?)
    }),
    ("socket of another kind", |_| {
        Ok(rustix::net::socket(AddressFamily::INET, SocketType::SEQPACKET, None).map(drop)?)
    }),
    ("a pair of sockets of datagrams", |_| UnixDatagram::pair().map(drop)),
    ("connect by sending", |folder| {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port(folder, "refused")?));
        let fast_open = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.unsigned_abs());
        Ok(rustix::net::sendto(&socket, b"x", fast_open, &to).map(drop)?)
    }),
    ("connect", |folder| TcpStream::connect((Ipv4Addr::LOCALHOST, port(folder, "refused")?)).map(drop)),
    ("listen", |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)),
    ("unshare", |_| Ok(nix::sched::unshare(CloneFlags::CLONE_FILES)?)),
    ("setns", |folder| {
        Ok(nix::sched::setns(fs::File::open(folder.join("state"))?, CloneFlags::CLONE_NEWNET)?)
    }),
    ("mount", |_| {
        let none = None::<&str>;
        Ok(nix::mount::mount(none, "/nowhere", none, MsFlags::empty(), none)?)
    }),
    ("umount", |_| Ok(nix::mount::umount2("/nowhere", MntFlags::empty())?)),
    ("chroot", |_| Ok(nix::unistd::chroot("/nowhere")?)),
    ("personality", |_| Ok(personality::get().map(drop)?)),
];

/// What a node does.
const ALLOWED: &[Call] = &[
    ("work in the state", |folder| {
        let (from, to) = (folder.join("state/folder/new"), folder.join("state/there"));
        fs::create_dir(folder.join("state/folder"))?;
        let mut file = fs::File::create_new(&from)?;
        file.write_all(b"all").and_then(|()| file.sync_all())?;
        fs::hard_link(&from, folder.join("state/again"))?;
        fs::rename(from, &to)?;
        fs::File::options().write(true).open(&to)?.set_len(1)?;
        let read = fs::read(to)?;
        fs::remove_file(folder.join("state/again"))?;
        fs::remove_dir(folder.join("state/folder"))?;
        if read == b"a" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }),
    ("work behind a folder's link", |folder| {
        fs::write(folder.join("state/keys/key"), "x")?;
        fs::remove_file(folder.join("state/keys/key"))
    }),
    ("read what may be read", |folder| fs::read(folder.join("readable")).map(drop)),
    ("remove what may be removed", |folder| fs::remove_file(folder.join("desk/socket"))),
    ("connect to what may be reached", |folder| {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port(folder, "reached")?)).map(drop)
    }),
    ("UDP", |_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)),
    ("a pair of sockets", |_| UnixStream::pair().map(drop)),
    ("a thread", |_| {
        thread::Builder::new().spawn(|| ())?.join().map_err(|_| io::Error::other("it panicked"))
    }),
];

fn stream_by(protocol: u32) -> io::Result<()> {
    let protocol = NonZeroU32::new(protocol).map(Protocol::from_raw);
    Ok(rustix::net::socket(AddressFamily::INET, SocketType::STREAM, protocol).map(drop)?)
}

fn port(folder: &Path, name: &str) -> io::Result<u16> {
    fs::read_to_string(folder.join("state").join(name))?.parse().map_err(io::Error::other)
}

/// Runs in the process that is to be confined: makes every call, and reports.
fn play(folder: &Path) -> Result<(), SandboxError> {
    let store = Store::open(Arc::new(DirectoryDisk::open(&folder.join("state/store"))?))?;
    if std::env::var_os(ENTERS).is_some() {
        let sandbox = Sandbox {
            readable: [folder.join("readable")].into(),
            removable: [folder.join("desk")].into(),
            connects: Some([port(folder, "reached")?].into()),
            ..Sandbox::of_state(&folder.join("state"))
        };
        // The harness's own waits for the one that this test runs in.
        let harness = [OsString::from(std::process::id().to_string())];
        // One that has begun before would stay outside.
        let (end, ended) = mpsc::channel::<()>();
        let early = thread::spawn(move || ended.recv());
        assert!(
            matches!(sandbox.enter_beside(&harness, Confinement::Required, &store), Err(SandboxError::Threads(threads)) if threads.len() == 1)
        );
        drop(end);
        early.join().expect("it ends").expect_err("nobody told it anything");
        let in_force = sandbox.enter_beside(&harness, Confinement::Required, &store)?;
        assert_eq!(in_force.view(), SandboxView { on: true, lacks: Vec::new() });
        assert!(in_force.may_write(&folder.join("state/below")) && !in_force.may_write(folder));
        assert!(!in_force.may_connect(port(folder, "refused")?));
    }
    for (name, call) in REFUSED.iter().chain(ALLOWED) {
        report(name, call(folder));
    }
    // So it is for threads that begin later, and for the one that there was.
    let later = thread::spawn(|| fs::read("/etc/passwd").map(drop)).join();
    report("a later thread reads outside", later.unwrap_or(Ok(())));
    let of_store = store.commit_blocking(|_| {
        Ok::<_, StoreError>((fs::read("/etc/passwd").map(drop), ptrace::attach(NO_PROCESS)))
    });
    let (read, traced) = of_store?.into_inner();
    report("the store's thread reads outside", read);
    report("the store's thread traces", traced.map_err(io::Error::from));
    Ok(())
}

fn report(name: &str, outcome: io::Result<()>) {
    let outcome = outcome.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()));
    println!("{REPORTED}{name}: {outcome:?}");
}

/// The outcome of each call, by name, as the process reports it.
fn played(enters: bool) -> Vec<(String, String)> {
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["state", "desk", "keys"] {
        fs::create_dir(at(name)).expect("made");
    }
    symlink(at("keys"), at("state/keys")).expect("linked");
    for name in ["readable", "secret", "desk/socket"] {
        fs::write(at(name), name).expect("written");
    }
    let _unix = UnixListener::bind(at("socket")).expect("bound");
    let listen = |name: &str| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let port = listener.local_addr().expect("bound").port();
        fs::write(at("state").join(name), port.to_string()).expect("written");
        listener
    };
    let _listeners = [listen("refused"), listen("reached")];
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args(["--exact", "sandbox::tests::what_runs_in_a_sandbox_can_do_what_a_node_does_and_no_more"]);
    child.arg("--nocapture").env(PLAYS_IN, folder.path());
    if enters {
        child.env(ENTERS, "1");
    }
    let said = child.output().expect("the same program");
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text}\n{}", String::from_utf8_lossy(&said.stderr));
    let lines = text.lines().filter_map(|line| line.strip_prefix(REPORTED)?.split_once(": "));
    lines.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect()
}

#[test]
fn what_runs_in_a_sandbox_can_do_what_a_node_does_and_no_more() {
    if let Some(folder) = std::env::var_os(PLAYS_IN) {
        play(Path::new(&folder)).expect("played");
        return;
    }
    let (free, confined) = (played(false), played(true));
    assert_eq!(confined.len(), REFUSED.len() + ALLOWED.len() + 3);
    let allowed = |name: &str| ALLOWED.iter().any(|(allowed, _)| *allowed == name);
    let (mut wrong, mut proves_nothing) = (Vec::new(), Vec::new());
    for ((name, confined), (_, free)) in confined.iter().zip(&free) {
        let refused = ["Err(EPERM)", "Err(EACCES)", "Err(EXDEV)"].contains(&confined.as_str());
        if if allowed(name) { confined != "Ok(())" } else { !refused } {
            wrong.push((name, confined));
        }
        if free == confined && !allowed(name) {
            proves_nothing.push((name, free));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(proves_nothing.is_empty(), "the same without a sandbox: {proves_nothing:?}");
}

/// What kernels answer that lack something: the call, the error.
const LACKING: [(&str, libc::c_long, i32); 3] = [
    ("Landlock is not built", libc::SYS_landlock_create_ruleset, libc::ENOSYS),
    ("Landlock is not enabled", libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP),
    ("seccomp", libc::SYS_seccomp, libc::EINVAL),
];

/// Runs in a process of its own, on a kernel that answers so: what it lacks, or why that is refused.
fn play_lacking(folder: &Path, lack: &str) -> Result<(), SandboxError> {
    let store = Store::open(Arc::new(DirectoryDisk::open(&folder.join("store"))?))?;
    let (_, call, error) = LACKING.into_iter().find(|(name, ..)| *name == lack).expect("one of those");
    calls::answer(call, error).expect("seccomp");
    let harness = [OsString::from(std::process::id().to_string())];
    let sandbox = Sandbox::of_state(folder);
    let off = sandbox.enter_beside(&harness, Confinement::Off, &store)?;
    assert_eq!(off.view(), SandboxView::default());
    let required = std::env::var_os(REQUIRED).is_some();
    let confinement = if required { Confinement::Required } else { Confinement::Wanted };
    match sandbox.enter_beside(&harness, confinement, &store) {
        Ok(in_force) => in_force.view().lacks.iter().for_each(|lack| println!("{REPORTED}{lack}")),
        Err(refused) => println!("{REPORTED}refused: {refused}"),
    }
    Ok(())
}

/// What is reported where the kernel lacks something.
fn played_lacking(lack: &str, required: bool) -> Vec<String> {
    let folder = TempDir::new().expect("a folder");
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args([
        "--exact",
        "sandbox::tests::a_kernel_that_cannot_do_all_is_told_of_and_is_not_enough_where_all_is_required",
    ]);
    child.arg("--nocapture").env(LACKS_IN, folder.path()).env(LACKS, lack);
    if required {
        child.env(REQUIRED, "1");
    }
    let said = child.output().expect("the same program");
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text}\n{}", String::from_utf8_lossy(&said.stderr));
    text.lines().filter_map(|line| line.strip_prefix(REPORTED)).map(str::to_owned).collect()
}

#[test]
fn a_kernel_that_cannot_do_all_is_told_of_and_is_not_enough_where_all_is_required() {
    if let Some(folder) = std::env::var_os(LACKS_IN) {
        let lack = std::env::var(LACKS).expect("what is lacking");
        play_lacking(Path::new(&folder), &lack).expect("played");
        return;
    }
    for (lack, ..) in LACKING {
        let (wanted, required) = (played_lacking(lack, false), played_lacking(lack, true));
        // Each filter of seccomp's is named by itself.
        assert_eq!(wanted.len(), if lack == "seccomp" { 3 } else { 1 }, "{wanted:?}");
        let [refused] = &required[..] else { panic!("{required:?}") };
        assert!(refused.starts_with("refused: ") && refused.contains("`sandbox = true`"), "{refused}");
        assert!(
            wanted.iter().all(|line| line.contains(lack) && refused.contains(line)),
            "{refused}: {wanted:?}"
        );
    }
}
