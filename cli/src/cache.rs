//! `svod cache`

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Subcommand;
use svod_runtime::bundle::Bundle;
use svod_runtime::compile::cache::{Cache, Difference, Explanation};
use svod_runtime::{Runtime, RuntimeBuilder};

use crate::{Failure, Outcome, show};

#[derive(Subcommand)]
pub(crate) enum CacheCommand {
    /// Show what is in the cache
    Stats,
    /// Check every entry, and remove those that are damaged; exit status 1 if there are any
    Verify,
    /// Remove all entries
    Clear,
    /// Say for each kernel of a bundle whether the cache has its object and, if not, in what
    /// it differs from the entry that is most like it
    Explain {
        /// The bundle's folder
        bundle: PathBuf,
    },
}

pub(crate) fn cache(command: &CacheCommand, out: &mut dyn Write) -> Outcome {
    let runtime = RuntimeBuilder::from_env().build()?;
    match command {
        CacheCommand::Stats => stats(the_cache(&runtime)?, out),
        CacheCommand::Verify => verify(the_cache(&runtime)?, out),
        CacheCommand::Clear => {
            let cleared = the_cache(&runtime)?.clear()?;
            let entries = show::count(cleared.entries, "entry");
            writeln!(out, "removed {entries}, {}", size(cleared.bytes))?;
            Ok(true)
        }
        CacheCommand::Explain { bundle } => {
            the_cache(&runtime)?;
            explain(&Bundle::open(bundle)?, &runtime, out)
        }
    }
}

/// The cache; why there is none was said by a warning, unless nobody wants one.
fn the_cache(runtime: &Runtime) -> Result<&Cache, Failure> {
    let none = "there is no cache: SVOD_CACHE is off, or its folder is not to be used, or neither \
                SVOD_CACHE_DIR nor HOME says where it is";
    runtime
        .cache()
        .ok_or_else(|| Failure::Usage(none.to_owned()))
}

fn stats(cache: &Cache, out: &mut dyn Write) -> Outcome {
    let stats = cache.stats()?;
    writeln!(out, "folder   {}", cache.folder().display())?;
    let entries = show::count(stats.entries, "entry");
    let languages = stats.languages.iter().map(|(l, n)| format!("{n} of {l}"));
    let languages = languages.collect::<Vec<_>>().join(", ");
    writeln!(out, "entries  {entries}: {languages}")?;
    let (bytes, limit) = (size(stats.bytes), size(stats.limit));
    writeln!(out, "size     {bytes} of at most {limit}")?;
    if let (Some(oldest), Some(newest)) = (stats.oldest, stats.newest) {
        writeln!(out, "used     {} to {}", ago(oldest), ago(newest))?;
    }
    Ok(true)
}

fn ago(time: SystemTime) -> String {
    let hours = time.elapsed().unwrap_or_default().as_secs() / 3600;
    match hours {
        0 => "within the last hour".to_owned(),
        1..48 => format!("{hours} hours ago"),
        _ => format!("{} days ago", hours / 24),
    }
}

fn verify(cache: &Cache, out: &mut dyn Write) -> Outcome {
    let verified = cache.verify()?;
    for (path, reason) in &verified.removed {
        writeln!(out, "removed {}: {reason}", path.display())?;
    }
    writeln!(
        out,
        "{} good, {} removed",
        show::count(verified.good, "entry"),
        verified.removed.len()
    )?;
    Ok(verified.removed.is_empty())
}

fn explain(bundle: &Bundle, runtime: &Runtime, out: &mut dyn Write) -> Outcome {
    let mut hits = 0;
    let explained = bundle.explain_cache(runtime)?;
    for (kernel, explanation) in bundle.plan().kernels().iter().zip(&explained) {
        let kernel = show::plain(&kernel.entry);
        match explanation {
            Explanation::Hit => {
                hits += 1;
                writeln!(out, "{kernel}: hit")?;
            }
            Explanation::Empty => writeln!(out, "{kernel}: miss, the cache is empty")?,
            Explanation::NotKept(why) => writeln!(out, "{kernel}: not kept: {why}")?,
            Explanation::Differs(differences) => {
                let parts = differences.iter().map(|d| d.part.as_str());
                let parts = parts.collect::<Vec<_>>().join(", ");
                writeln!(out, "{kernel}: miss; the nearest entry differs in: {parts}")?;
                differences.iter().try_for_each(|d| lines(d, out))?;
            }
        }
    }
    writeln!(
        out,
        "{hits} of {} hit",
        show::count(explained.len(), "kernel")
    )?;
    Ok(true)
}

fn lines(difference: &Difference, out: &mut dyn Write) -> Result<(), Failure> {
    let Difference { part, here, there } = difference;
    for (whose, lines) in [("here ", here), ("entry", there)] {
        for line in lines {
            writeln!(out, "    {part}, {whose}: {}", show::plain(line))?;
        }
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    show::bytes(usize::try_from(bytes).unwrap_or(usize::MAX))
}
