//! Calls of the system that no daemon makes, refused by seccomp to every thread.
//!
//! What is listed is what a foreign hand would want first: other programs and other processes' memory, the kernel's own
//! doors, namespaces, sockets of other kinds than mail needs. It is a list of what is refused, not of what is allowed,
//! so that another version of the C library stops nobody's mail.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads, sock_filter,
};

/// Refused whatever they are asked.
const REFUSED: &[libc::c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_setns,
    libc::SYS_unshare,
    // What is mounted where, and files by their handles, which no path leads to.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    libc::SYS_fanotify_init,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_personality,
    // It does what other calls do, past this filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The host.
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
];

/// The same, of calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_uselib,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// The bits of a socket's type that say its kind; the others are flags.
const KIND_MASK: i32 = 0xf;

/// Numbers from here on are the x32 ABI's, by which a kernel for x86-64 that has it offers the same calls anew.
const X32: u32 = 0x4000_0000;

/// A call of the system, and when it is refused: always, if there are no rules.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refuses them from now on, to all threads that there are and will be. Returns what of that could not be done: each filter
/// is tried, whatever came of the others.
pub(super) fn deny() -> Vec<String> {
    // The C library then makes its threads by `clone`, whose flags can be looked at; those of `clone3` lie in memory.
    let newer = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let filters = [
        ("calls of the system that no node makes are not refused", filter(refused(), libc::EPERM)),
        ("processes can be made by clone3", filter(Ok(newer), libc::ENOSYS)),
        ("calls by the numbers of x32 are not refused", Ok(no_x32())),
    ];
    let applied = |(lack, filter): (&str, Result<BpfProgram, String>)| {
        let applied = filter.and_then(|filter| apply_filter_all_threads(&filter).map_err(failed));
        applied.err().map(|error| format!("{lack} (seccomp: {error})"))
    };
    filters.into_iter().filter_map(applied).collect()
}

fn filter(rules: Result<Rules, String>, errno: i32) -> Result<BpfProgram, String> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(failed)?;
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules?, SeccompAction::Allow, errno, arch).map_err(failed)?;
    filter.try_into().map_err(failed)
}

/// Has the kernel answer a call with an error, as one that lacks it does.
#[cfg(test)]
pub(super) fn answer(call: libc::c_long, errno: i32) -> Result<(), String> {
    let filter = filter(Ok(BTreeMap::from([(call, Vec::new())])), errno)?;
    apply_filter_all_threads(&filter).map_err(failed)
}

fn failed(error: impl ToString) -> String {
    error.to_string()
}

fn refused() -> Result<Rules, String> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    let any = |of: &[(u8, SeccompCmpOp, i32)]| {
        let conditions = of.iter().map(|(argument, how, value)| {
            let value = u64::from(value.unsigned_abs());
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, how.clone(), value).map_err(failed)
        });
        SeccompRule::new(conditions.collect::<Result<_, _>>()?).map_err(failed)
    };
    let has = |flag: i32| SeccompCmpOp::MaskedEq(u64::from(flag.unsigned_abs()));
    // A process, which is a thread that shares nothing; and namespaces of one's own.
    let mut clone = vec![any(&[(0, has(libc::CLONE_THREAD), 0)])?];
    for flag in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWCGROUP,
    ] {
        clone.push(any(&[(0, has(flag), flag)])?);
    }
    rules.insert(libc::SYS_clone, clone);
    // Sockets of the Internet only, by TCP and UDP only: Landlock knows the ports of no other protocol, and none is to
    // see or make packets as they are. What is connected by Unix sockets is let in, and no other service of this host
    // is called.
    let is_not = |argument: u8, value: i32| (argument, SeccompCmpOp::Ne, value);
    let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    let mut socket = vec![any(&[is_not(0, libc::AF_INET), is_not(0, libc::AF_INET6)])?];
    let mut pair = vec![any(&[is_not(0, libc::AF_UNIX)])?];
    for kind in 0..=KIND_MASK {
        let is_kind = (1, SeccompCmpOp::MaskedEq(u64::from(KIND_MASK.unsigned_abs())), kind);
        if kind != stream {
            pair.push(any(std::slice::from_ref(&is_kind))?);
        }
        socket.push(match kind {
            kind if kind == stream => any(&[is_kind, is_not(2, 0), is_not(2, libc::IPPROTO_TCP)])?,
            kind if kind == datagram => any(&[is_kind, is_not(2, 0), is_not(2, libc::IPPROTO_UDP)])?,
            _ => any(&[is_kind])?,
        });
    }
    rules.insert(libc::SYS_socket, socket);
    rules.insert(libc::SYS_socketpair, pair);
    // They would connect without asking whether that is allowed.
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        rules.insert(call, vec![any(&[(flags, has(libc::MSG_FASTOPEN), libc::MSG_FASTOPEN)])?]);
    }
    // Octets that are data are never made to be run.
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(call, vec![any(&[(2, has(libc::PROT_EXEC), libc::PROT_EXEC)])?]);
    }
    // Nothing is typed into the terminal that a daemon was started from.
    let typing = i32::try_from(libc::TIOCSTI).map_err(failed)?;
    rules.insert(libc::SYS_ioctl, vec![any(&[(1, SeccompCmpOp::Eq, typing)])?]);
    Ok(rules)
}

/// Refuses the numbers that the filters above do not know ([`X32`]).
fn no_x32() -> BpfProgram {
    let statement = |code: u32, k| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |code: u32, k, jt, jf| sock_filter { code: code as u16, jt, jf, k };
    let answer = libc::BPF_RET | libc::BPF_K;
    vec![
        // The number is what the kernel shows first.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 0, 1),
        statement(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        statement(answer, libc::SECCOMP_RET_ALLOW),
    ]
}
