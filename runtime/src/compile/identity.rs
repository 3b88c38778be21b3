//! Which compiler it is, without asking it.
//!
//! A compiler's own file says little: clang is a driver of a hundred kilobytes that loads
//! libraries of a hundred megabytes, gcc one that starts other programs. To ask for a version
//! takes longer than a warm start may take in all, and versions are not told apart by those who
//! patch them. So a compiler is the files that it loads and starts, each by its path, size,
//! inode and time. To find out which those are means asking once; what was found is
//! remembered on disk, and from then on the files are looked at, and nobody is asked.
//!
//! So is which compiler a search finds: to look for forty names in each folder of a path takes
//! longer than all else, and finds the same as long as these folders are as they were.

use std::fs::{self, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use object::Endianness;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cache::{hex, own_folder, read_own};
use super::process::command;
use super::toolchain::{CCompiler, Family, executable};

/// What the dynamic linker finds libraries with. Where it changes, so may what is found.
const LINKER_CACHE: &str = "/etc/ld.so.cache";

/// What a compiler inherits that decides what it loads and starts.
const INHERITED: [&str; 3] = ["PATH", LIBRARY_PATH, "LD_PRELOAD"];

/// Of what is remembered. To be raised with it: versions that do not read each other's would put
/// theirs in each other's place with each start.
const LAYOUT: &str = "2\n";

/// Where the dynamic linker looks first.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// What is remembered of a compiler.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Identity {
    /// For whom it is.
    asked: String,
    /// The compiler.
    path: PathBuf,
    /// Whose it is, and of which version.
    family: Option<Family>,
    major: u32,
    /// What keys say of it: the files that it is made of, a line a file.
    text: String,
    /// These files, and those files and folders that say which they are, there or not.
    states: Vec<State>,
}

/// A file or folder, and how it was; and when anything about it changed, also its mode, in nanoseconds
/// since 1970, of what decides about a search. As a list, which is read in half the time of named
/// fields.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct State(PathBuf, Option<Seen>, Option<i64>);

/// Size in bytes, inode, and time of the last writing in nanoseconds since 1970; of what is not
/// there, nothing.
type Seen = (u64, u64, i64);

impl State {
    /// A file that a compiler is made of, or that says of which others.
    fn of(path: PathBuf) -> State {
        let State(path, seen, _) = State::searched(path);
        State(path, seen, None)
    }

    /// A file or folder that decides about a search.
    fn searched(path: PathBuf) -> State {
        let (seen, changed) = look(&path).unzip();
        State(path, seen, changed)
    }

    /// Whether it is the same file. Where a link leads elsewhere, the inode is another one; to
    /// follow it by name takes four times as long as all else here.
    fn is_still(&self) -> bool {
        let State(path, seen, changed) = self;
        let (seen_now, changed_now) = look(path).unzip();
        seen_now == *seen && (changed.is_none() || changed_now == *changed)
    }
}

/// What is seen of a file, and when anything about it changed, in nanoseconds since 1970.
fn look(path: &Path) -> Option<(Seen, i64)> {
    let meta: Metadata = fs::metadata(path).ok()?;
    // Those before 1677 are all one, and so are those after 2262.
    let nanos = |seconds: i64, nanos| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    let written = nanos(meta.mtime(), meta.mtime_nsec());
    let changed = nanos(meta.ctime(), meta.ctime_nsec());
    Some(((meta.len(), meta.ino(), written), changed))
}

/// Files as a part of keys: a line a file, by where links lead.
///
/// # Errors
///
/// Which of them cannot be looked at.
fn described(files: &[State]) -> Result<String, String> {
    let line = |State(path, seen, _): &State| {
        let lost = || format!("{} cannot be looked at", path.display());
        let (size, inode, time) = seen.ok_or_else(lost)?;
        let real = fs::canonicalize(path).map_err(|_| lost())?;
        let real = real.display();
        Ok::<_, String>(format!("{real} {size} bytes, inode {inode}, of {time}\n"))
    };
    let mut lines = files.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    // Several names may lead to one file.
    lines.sort();
    lines.dedup();
    Ok(lines.concat())
}

impl Identity {
    /// A C compiler, from the memory in `folder` or by asking it; and which search found it, if
    /// that is to be remembered as well.
    ///
    /// # Errors
    ///
    /// Why it cannot be told which compiler it is.
    pub(super) fn of_compiler(
        compiler: &CCompiler,
        search: Option<&Search>,
        folder: Option<&Path>,
    ) -> Result<Identity, String> {
        if let Some(known) = Identity::recall(&compiler.path, folder) {
            known.remember_found(search, folder);
            return Ok(known);
        }
        let Parts {
            programs,
            configuration,
            mut watched,
            is_wrapped,
        } = if is_all_there_is(compiler) {
            Parts {
                programs: vec![compiler.path.clone()],
                ..Parts::default()
            }
        } else {
            parts(&compiler.path)?
        };
        let mut paths = configuration.clone();
        for program in programs {
            paths.extend(libraries(&program)?);
            paths.push(program);
        }
        watched.extend(configuration);
        let identity = Identity::new(
            &compiler.path,
            (Some(compiler.family), compiler.major),
            paths,
            watched,
        )?;
        // What a wrapper starts next time, only it can say.
        if !is_wrapped {
            identity.remember(folder);
            identity.remember_found(search, folder);
        }
        Ok(identity)
    }

    /// Programs that start no others, from the memory in `folder` or by asking what they load.
    ///
    /// # Errors
    ///
    /// Why it cannot be told what they are.
    pub(super) fn of_programs(
        programs: &[&Path],
        major: u32,
        folder: Option<&Path>,
    ) -> Result<Identity, String> {
        let asked = programs.first().copied().unwrap_or(Path::new(""));
        if let Some(known) = Identity::recall(asked, folder) {
            return Ok(known);
        }
        let mut paths = Vec::new();
        for program in programs {
            if is_script(program) {
                let program = program.display();
                return Err(format!("{program} is a script, and may start anything"));
            }
            paths.extend(libraries(program)?);
            paths.push((*program).to_owned());
        }
        let identity = Identity::new(asked, (None, major), paths, Vec::new())?;
        identity.remember(folder);
        Ok(identity)
    }

    /// A library that is open in this process, at this path. It is not remembered.
    pub(super) fn of_library(library: &Path) -> Result<Identity, String> {
        Identity::new(library, (None, 0), vec![library.to_owned()], Vec::new())
    }

    fn new(
        asked: &Path,
        (family, major): (Option<Family>, u32),
        mut files: Vec<PathBuf>,
        mut watched: Vec<PathBuf>,
    ) -> Result<Identity, String> {
        files.sort();
        files.dedup();
        let mut states: Vec<State> = files.into_iter().map(State::of).collect();
        let text = described(&states)?;
        watched.push(LINKER_CACHE.into());
        // A library that comes to be in one of these is loaded instead of another.
        let folders = std::env::var_os(LIBRARY_PATH).unwrap_or_default();
        watched.extend(std::env::split_paths(&folders).filter(|f| f.is_absolute()));
        states.extend(watched.into_iter().map(State::of));
        Ok(Identity {
            asked: asked_for(asked),
            path: asked.to_owned(),
            family,
            major,
            text,
            states,
        })
    }

    /// What is remembered of the compiler at this path, if it is still the same.
    pub(super) fn recall(path: &Path, folder: Option<&Path>) -> Option<Identity> {
        Identity::recall_for(asked_for(path), folder)
    }

    /// What is remembered of the compiler that a search in these folders finds, if all is still
    /// the same.
    pub(super) fn recall_found(folders: &[PathBuf], folder: Option<&Path>) -> Option<Identity> {
        let known = Identity::recall_for(asked_in(folders), folder)?;
        executable(&known.path).then_some(known)
    }

    fn recall_for(asked: String, folder: Option<&Path>) -> Option<Identity> {
        let (bytes, ..) = read_own(&memory(&asked, folder?)).ok()?;
        let (digest, json) = bytes.split_first_chunk::<32>()?;
        if *digest != *Sha256::digest(json) {
            return None;
        }
        let known: Identity = serde_json::from_slice(json).ok()?;
        let is_same = known.asked == asked && known.states.iter().all(State::is_still);
        is_same.then_some(known)
    }

    /// Remembers that a search finds it.
    fn remember_found(&self, search: Option<&Search>, folder: Option<&Path>) {
        let Some(search) = search.filter(|search| search.is_sure()) else {
            return;
        };
        let mut found = self.clone();
        found.asked.clone_from(&search.asked);
        found.states.extend_from_slice(&search.watched);
        found.remember(folder);
    }

    /// The compiler and its version, where it is one.
    pub(super) fn compiler(&self) -> Option<CCompiler> {
        Some(CCompiler {
            path: self.path.clone(),
            family: self.family?,
            major: self.major,
        })
    }

    /// The version that it was remembered with.
    pub(super) const fn major(&self) -> u32 {
        self.major
    }

    /// The identity as a part of a key.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// What cannot be remembered is asked again next time.
    fn remember(&self, folder: Option<&Path>) {
        let Some(folder) = folder else { return };
        let write = || {
            own_folder(folder)?;
            let json = serde_json::to_vec(self).map_err(|e| e.to_string())?;
            let bytes = [&Sha256::digest(&json)[..], &json].concat();
            let file = tempfile::NamedTempFile::new_in(folder);
            let mut file = file.map_err(|e| e.to_string())?;
            file.write_all(&bytes).map_err(|e| e.to_string())?;
            let place = memory(&self.asked, folder);
            file.persist(place).map_err(|e| e.to_string())
        };
        if let Err(why) = write() {
            tracing::debug!(why, "a compiler is not remembered");
        }
    }
}

/// A search for a compiler in some folders: what decides about what it finds.
#[derive(Debug)]
pub(super) struct Search {
    asked: String,
    watched: Vec<State>,
    began: SystemTime,
}

/// How old a folder must be for its time to tell it from what it will be: systems keep time in
/// steps of some milliseconds, and some in seconds.
const SETTLED: Duration = Duration::from_secs(2);

impl Search {
    /// One that begins now.
    pub(super) fn new(folders: &[PathBuf]) -> Search {
        let mut search = Search {
            asked: asked_in(folders),
            began: SystemTime::now(),
            watched: Vec::new(),
        };
        folders.iter().cloned().for_each(|f| search.watch(f));
        search
    }

    /// It looks at a file or folder, too.
    pub(super) fn watch(&mut self, path: PathBuf) {
        if self.watched.iter().all(|State(known, ..)| *known != path) {
            self.watched.push(State::searched(path));
        }
    }

    /// It looks at a compiler, too. Returns whether that is all that there is of it.
    pub(super) fn watch_compiler(&mut self, compiler: &CCompiler) -> bool {
        self.watch(compiler.path.clone());
        is_all_there_is(compiler)
    }

    /// Whether a change of what it looked at shows.
    fn is_sure(&self) -> bool {
        let began = self.began.duration_since(SystemTime::UNIX_EPOCH);
        let before = began.unwrap_or_default().saturating_sub(SETTLED).as_nanos();
        let mut seen = self.watched.iter().filter_map(|State(_, seen, _)| *seen);
        seen.all(|(_, _, time)| u128::try_from(time).is_ok_and(|time| time < before))
    }
}

/// For whom a memory is: the compiler, and what decides what it loads.
fn asked_for(path: &Path) -> String {
    with_inherited(path.display().to_string())
}

/// For whom a memory is of what is found in these folders.
fn asked_in(folders: &[PathBuf]) -> String {
    let folders = folders.iter().map(|folder| folder.display().to_string());
    with_inherited(folders.fold("found in".to_owned(), |all, folder| all + "\n" + &folder))
}

fn with_inherited(mut asked: String) -> String {
    for name in INHERITED {
        // Not a setting of ours: what the compiler will find in its environment.
        let value = std::env::var_os(name).unwrap_or_default();
        asked += &format!("\n{name}={}", value.display());
    }
    asked
}

fn memory(asked: &str, folder: &Path) -> PathBuf {
    let asked = Sha256::new_with_prefix(LAYOUT).chain_update(asked);
    folder.join(format!("{}.known", hex(&asked.finalize())))
}

/// Whether a compiler starts no other program: clang compiles and assembles by itself, and is
/// told to read no configuration. What is called clang may be a script, or start one.
fn is_all_there_is(compiler: &CCompiler) -> bool {
    let real = fs::canonicalize(&compiler.path).unwrap_or_default();
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    compiler.family == Family::Clang
        && name.contains("clang")
        && is_linked_dynamically(&real) == Some(true)
}

/// What a compiler says that it consists of.
#[derive(Default)]
struct Parts {
    programs: Vec<PathBuf>,
    configuration: Vec<PathBuf>,
    /// Folders in which another program would be found first, if it came to be there.
    watched: Vec<PathBuf>,
    /// It is not the driver but something that starts one, as a script does, or `ccache`. Which
    /// one that is may change with no file of these changing.
    is_wrapped: bool,
}

fn parts(driver: &Path) -> Result<Parts, String> {
    let output = command(driver)
        .args(["-###", "-x", "c", "-c", "/dev/null", "-o", "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{} cannot be started: {e}", driver.display()))?;
    if !output.status.success() {
        return Err(format!("{} does not say what it starts", driver.display()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let (mut programs, mut configuration) = (Vec::new(), Vec::new());
    let mut watched = Vec::new();
    for line in said.lines() {
        if let Some(file) = line.strip_prefix("Configuration file: ") {
            configuration.push(PathBuf::from(file));
            continue;
        }
        let first = match line.strip_prefix(' ') {
            Some(command) => match command.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => command.split(' ').next(),
            },
            // The driver, as it was called.
            None => line.strip_prefix("COLLECT_GCC="),
        };
        let Some(first) = first.map(Path::new) else {
            continue;
        };
        if first.is_absolute() {
            programs.extend(first.is_file().then(|| first.to_owned()));
            continue;
        }
        // gcc starts an assembler that it finds as a shell would.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut passed = Vec::new();
        for folder in std::env::split_paths(&path) {
            let place = folder.join(first);
            if place.is_file() {
                programs.push(place);
                watched.append(&mut passed);
                break;
            }
            passed.push(folder);
        }
    }
    if programs.is_empty() {
        return Err(format!("{} does not say what it starts", driver.display()));
    }
    // clang is among the programs that it starts, and gcc says how it was called.
    let real = fs::canonicalize(driver).ok();
    let is_wrapped = !programs.iter().any(|p| fs::canonicalize(p).ok() == real);
    programs.push(driver.to_owned());
    Ok(Parts {
        programs,
        configuration,
        watched,
        is_wrapped,
    })
}

/// The libraries that a program is linked with, as the dynamic linker says that it would load
/// them. A program that is linked statically, or is a script, has none.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, String> {
    let is_dynamic = is_linked_dynamically(program)
        .ok_or_else(|| format!("{} cannot be understood", program.display()))?;
    if !is_dynamic {
        return Ok(Vec::new());
    }
    let output = Command::new(program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{} cannot be started: {e}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut libraries = Vec::new();
    for line in said.lines() {
        let place = line.split(" => ").last().unwrap_or(line).trim();
        let place = place.split(" (0x").next().unwrap_or(place);
        if place == "not found" {
            return Err(format!("{} lacks a library", program.display()));
        }
        if place.starts_with('/') {
            libraries.push(place.into());
        }
    }
    if libraries.is_empty() {
        return Err(format!("{} does not say what it loads", program.display()));
    }
    Ok(libraries)
}

/// The beginning of a program's file.
fn head(program: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let file = fs::File::open(program).ok()?;
    file.take(4096).read_to_end(&mut head).ok()?;
    Some(head)
}

fn is_script(program: &Path) -> bool {
    head(program).is_some_and(|head| head.starts_with(b"#!"))
}

/// `None` of what is neither a script nor a program of a kind that we know.
fn is_linked_dynamically(program: &Path) -> Option<bool> {
    let head = head(program)?;
    let head = head.as_slice();
    if head.starts_with(b"#!") {
        return Some(false);
    }
    let header = FileHeader64::<Endianness>::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let all = header.program_headers(endian, head).ok()?;
    Some(all.iter().any(|h| h.p_type(endian) == PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A compiler of one file, remembered; a folder that is not there is watched.
    fn remembered(dir: &Path) -> (PathBuf, PathBuf) {
        let (compiler, folder) = (dir.join("cc"), dir.join("memory"));
        fs::write(&compiler, "a compiler").unwrap();
        let files = vec![compiler.clone()];
        let identity = Identity::new(
            &compiler,
            (Some(Family::Clang), 19),
            files,
            vec![dir.join("later")],
        );
        identity.unwrap().remember(Some(&folder));
        assert!(Identity::recall(&compiler, Some(&folder)).is_some());
        (compiler, folder)
    }

    #[test]
    fn what_is_remembered_holds_until_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (compiler, folder) = remembered(dir.path());
        let known = Identity::recall(&compiler, Some(&folder)).unwrap();
        assert_eq!(known.compiler().unwrap().major, 19);
        assert_eq!(known.compiler().unwrap().path, compiler);
        let text = known.into_text();
        assert!(text.contains("10 bytes"), "{text}");
        fs::write(&compiler, "another one").unwrap();
        assert!(Identity::recall(&compiler, Some(&folder)).is_none());

        // What would be found before it comes to be.
        let (compiler, folder) = remembered(dir.path());
        fs::create_dir(dir.path().join("later")).unwrap();
        assert!(Identity::recall(&compiler, Some(&folder)).is_none());
    }

    #[test]
    fn a_memory_that_is_damaged_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (compiler, folder) = remembered(dir.path());
        let file = memory(&asked_for(&compiler), &folder);
        let good = fs::read(&file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, bad).unwrap();
            assert!(Identity::recall(&compiler, Some(&folder)).is_none(), "{at}");
        }
        fs::write(&file, &good[..20]).unwrap();
        assert!(Identity::recall(&compiler, Some(&folder)).is_none());
    }

    #[test]
    fn a_file_that_is_not_there_is_no_compiler() {
        let nowhere = PathBuf::from("/nowhere/cc");
        let files = vec![nowhere.clone()];
        assert!(Identity::new(&nowhere, (None, 0), files, Vec::new()).is_err());
    }
}
