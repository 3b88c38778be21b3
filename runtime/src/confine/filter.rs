//! What system calls are answered, as programs of the kernel's.
//!
//! Filters add up: of what several of them say to a call, the strictest holds. So each of the
//! programs here has one thought. All know one architecture, and end a process that calls by the
//! numbers of another, as `int 0x80` does.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// A call, and what its arguments are to be like for a filter to mean it: one of these at least,
/// or anything where there are none.
type Call = (i64, Vec<When>);

/// One argument, of 32 bits, and what it is compared with.
type When = (u8, SeccompCmpOp, i64);

/// What code computes with, where it has threads and memory and one channel.
const COMPUTING: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_futex,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_setitimer,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_getrandom,
];

/// All flags by which a clone has a namespace of its own.
const NEW_NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// The first advice about memory that is no advice: to take pages out of service.
const MADV_HWPOISON: i64 = 100;

/// The first signal that belongs to libc, and the last that ends a process by default.
const FIRST_OF_LIBC: i64 = 32;

/// What names stretches of memory, for whoever looks.
const PR_SET_VMA: i64 = 0x5356_4d41;

/// What tells a process how long a page is, and more of what it was told at its start.
const PR_GET_AUXV: i64 = 0x4155_5856;

/// What a kernel may call: anything else is a trap, so that the signal's handler can tell what it
/// was.
pub(super) fn kernel() -> Result<BpfProgram, seccompiler::Error> {
    let any = COMPUTING.iter().map(|&call| (call, Vec::new()));
    let is_thread = SeccompCmpOp::MaskedEq(mask(NEW_NAMESPACES | libc::CLONE_THREAD));
    let certain = [
        // A thread, and no process.
        (
            libc::SYS_clone,
            vec![(0, is_thread, libc::CLONE_THREAD.into())],
        ),
        // The first three are its host's, who may have it end by one of them.
        (libc::SYS_close, vec![(0, SeccompCmpOp::Ge, 3)]),
        // What `clone3` is asked cannot be read here; it is said not to be there, elsewhere.
        (libc::SYS_clone3, Vec::new()),
        (
            libc::SYS_madvise,
            vec![(2, SeccompCmpOp::Lt, MADV_HWPOISON)],
        ),
        // To start its first thread, libc sets one of its own. The handlers of the others stay
        // what they are, with that of the trap among them.
        (
            libc::SYS_rt_sigaction,
            vec![(0, SeccompCmpOp::Ge, FIRST_OF_LIBC)],
        ),
        (
            libc::SYS_prctl,
            vec![
                (0, SeccompCmpOp::Eq, libc::PR_SET_NAME.into()),
                (0, SeccompCmpOp::Eq, PR_SET_VMA),
                (0, SeccompCmpOp::Eq, PR_GET_AUXV),
            ],
        ),
    ];
    let calls = any.chain(certain);
    program(calls, SeccompAction::Trap, SeccompAction::Allow)
}

/// Calls that are said not to be there, so that libc goes on with older ones, whose arguments a
/// filter can read.
pub(super) fn absent() -> Result<BpfProgram, seccompiler::Error> {
    let calls = [libc::SYS_clone3, libc::SYS_openat2].map(|call| (call, Vec::new()));
    program(calls, SeccompAction::Allow, errno(libc::ENOSYS))
}

/// What no compiler needs: whatever reaches beyond its files and its own processes. The files are
/// Landlock's concern; what Landlock does not watch of them, owners and times, is here.
const BEYOND_FILES: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    // Whoever waits ends the whole group.
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_setup,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_personality,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_shmctl,
    libc::SYS_semctl,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_msgctl,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_setpriority,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setaffinity,
    libc::SYS_ioprio_set,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // `fchmodat2`, `setxattrat`, `removexattrat` and `file_setattr`, which libc has no names for; new
    // calls have one number on every architecture.
    452,
    463,
    466,
    469,
];

/// The same, of calls that one architecture alone has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// What a compiler is refused, with `EPERM`. `process` is its number: it may send signals to
/// itself, as one that gives up does.
pub(super) fn compiler(process: i64) -> Result<BpfProgram, seccompiler::Error> {
    let beyond = BEYOND_FILES.iter().chain(OLDER);
    let any = beyond.map(|&call| (call, Vec::new()));
    let truncates = |argument| {
        // Landlock's first versions do not watch that a file is cut while it is opened to read.
        let how = SeccompCmpOp::MaskedEq(mask(libc::O_TRUNC | libc::O_ACCMODE));
        vec![(argument, how, libc::O_TRUNC.into())]
    };
    let namespace = |bit: u32| {
        let flag = i64::from(1_u32 << bit);
        (flag & i64::from(NEW_NAMESPACES) != 0).then_some((
            0,
            SeccompCmpOp::MaskedEq(1 << bit),
            flag,
        ))
    };
    let certain = [
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, truncates(1)),
        (libc::SYS_openat, truncates(2)),
        (libc::SYS_tgkill, vec![(0, SeccompCmpOp::Ne, process)]),
        (libc::SYS_clone, (0..32).filter_map(namespace).collect()),
    ];
    let calls = any.chain(certain);
    program(calls, SeccompAction::Allow, errno(libc::EPERM))
}

/// What refuses every call of the x32 interface, which x86-64 systems may have: it is the same
/// architecture, with numbers of its own, which no list of calls to be refused has.
pub(super) const NO_X32: [sock_filter; 4] = {
    const X32: u32 = 0x4000_0000;
    // Only on x86-64: elsewhere no number is that high.
    const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | 38;
    const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
        #[expect(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
        let code = code as u16;
        sock_filter { code, jt, jf, k }
    }
    [
        // The number of the call is the first thing that a filter is shown.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, REFUSED),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
};

/// A filter that minds nothing, to try whether there are filters.
pub(super) fn nothing() -> Result<BpfProgram, seccompiler::Error> {
    program([], SeccompAction::Allow, errno(libc::EPERM))
}

/// A program that answers these calls so, and all others otherwise.
fn program(
    calls: impl IntoIterator<Item = Call>,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<BpfProgram, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, whens) in calls {
        let of_call = rules.entry(call).or_default();
        for (argument, how, value) in whens {
            let value = value.cast_unsigned();
            let length = SeccompCmpArgLen::Dword;
            let when = SeccompCondition::new(argument, length, how, value)?;
            of_call.push(SeccompRule::new(vec![when])?);
        }
    }
    let target = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, others, these, target)?;
    Ok(filter.try_into()?)
}

const fn errno(number: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(number.cast_unsigned())
}

fn mask(bits: libc::c_int) -> u64 {
    bits.cast_unsigned().into()
}
