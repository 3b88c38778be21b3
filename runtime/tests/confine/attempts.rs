//! A compiler that its source has taken over: it does what the source says, and prints what came
//! of it as a diagnostic.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, thread, time};

/// What it is called.
pub(crate) const COMPILER: &str = "posing-clang";

/// Answers as a compiler does; a source is a list of lines, each something to try.
pub(crate) fn compile(arguments: &[String]) -> ExitCode {
    if arguments.iter().any(|argument| argument == "-dM") {
        println!("#define __clang_major__ 19");
        return ExitCode::SUCCESS;
    }
    let mut source = String::new();
    io::stdin().read_to_string(&mut source).unwrap();
    for line in source.lines() {
        let mut words = line.split_whitespace();
        let (Some("try"), Some(what)) = (words.next(), words.next()) else {
            continue;
        };
        let result = attempt(what, words.next().unwrap_or_default());
        let result = result.map_or_else(|e| format!("refused: {e}"), |()| "done".into());
        eprintln!("{line} -> {result}");
    }
    ExitCode::FAILURE
}

fn attempt(what: &str, argument: &str) -> io::Result<()> {
    match what {
        "read" => fs::read(argument).map(drop),
        "list" => fs::read_dir(argument).map(drop),
        "write" => fs::write(argument, "x"),
        "remove" => fs::remove_file(argument),
        "mode" => fs::set_permissions(argument, fs::metadata(argument)?.permissions()),
        "own-folder" => fs::write(env::temp_dir().join("x"), "x"),
        "udp" => UdpSocket::bind("127.0.0.1:0").map(drop),
        "tcp" => TcpListener::bind("127.0.0.1:0").map(drop),
        "unix" => UnixDatagram::unbound().map(drop),
        "pair" => UnixStream::pair().map(drop),
        "run" => Command::new(argument).output().map(drop),
        "parent" => signal_parent(),
        "trace" => called(|| {
            // SAFETY: it has no pointers, and at worst is traced by its parent.
            unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0) }
        }),
        "session" => called(|| {
            // SAFETY: it has no arguments.
            unsafe { libc::syscall(libc::SYS_setsid) }
        }),
        "ring" => called(|| {
            // SAFETY: no memory is touched where there is none.
            unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) }
        }),
        "inherited" => inherited(),
        "environment" => {
            for (name, _) in env::vars() {
                eprintln!("has {name}");
            }
            Ok(())
        }
        "leave" => {
            // A child that outlives it, and holds what it holds.
            let child = Command::new("/bin/sleep").arg("1000").spawn()?;
            eprintln!("left {}", child.id());
            Ok(())
        }
        "forever" => loop {
            io::stderr().flush()?;
            thread::sleep(time::Duration::from_secs(1000));
        },
        "fill" => loop {
            io::stdout().write_all(&[0; 1 << 16])?;
        },
        "allocate" => {
            let mut memory: Vec<u8> = Vec::new();
            let room = memory.try_reserve_exact(argument.parse().unwrap());
            room.map_err(|_| io::ErrorKind::OutOfMemory.into())
        }
        _ => panic!("{what}"),
    }
}

/// The result of a system call that returns -1 where it fails.
fn called(call: impl FnOnce() -> libc::c_long) -> io::Result<()> {
    if call() == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn signal_parent() -> io::Result<()> {
    called(|| {
        // SAFETY: the signal 0 is none: it asks whether one could be sent.
        unsafe { libc::kill(libc::getppid(), 0).into() }
    })
}

/// That nothing is open but the standard three.
fn inherited() -> io::Result<()> {
    let is_open = |fd: &i32| {
        // SAFETY: it asks for a flag.
        unsafe { libc::fcntl(*fd, libc::F_GETFD) != -1 }
    };
    match (3..256).find(is_open) {
        Some(fd) => {
            eprintln!("open {fd}");
            Ok(())
        }
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The program that poses as a compiler, in a folder.
pub(crate) fn posing(folder: &Path) -> std::path::PathBuf {
    let path = folder.join(COMPILER);
    std::os::unix::fs::symlink(env::current_exe().unwrap(), &path).unwrap();
    path
}
