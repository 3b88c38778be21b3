//! `svod run`

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use svod_runtime::bundle::npy::{self, Array};
use svod_runtime::bundle::{Bundle, Runner as _, Test, TestReport};
use svod_runtime::plan::{self, Executable, Instance, Timings};
use svod_runtime::{Error, Guard, Runtime, RuntimeBuilder};

use crate::gallery::Gallery;
use crate::given::{check_names, read_inputs, what_to_give};
use crate::isolated::{self, Side};
use crate::loading::{self, Loading};
use crate::show::{self, Summary};
use crate::watch::{self, Notes};
use crate::{Failure, Outcome, RunArgs, ScheduleArg, json, schedule, timings};

/// How many recorded tests show their outputs; the others show a row.
const TESTS_SHOWN: usize = 2;

pub(crate) fn run(args: &RunArgs, out: &mut dyn Write) -> Outcome {
    let mut builder = RuntimeBuilder::from_env();
    if let Some(guard) = args.guard {
        builder = builder.guard(guard);
    }
    if let Some(threads) = args.threads {
        builder = builder.threads(threads.into());
    }
    if args.isolated {
        builder = isolated::confine(builder, args)?;
    }
    let runtime = builder.build()?;
    // What is looked for here may well end the process that finds it.
    let risky = runtime.guard() != Guard::Off || args.fill;
    if risky && args.watched_by.is_none() && !args.isolated {
        return watch::run(&args.bundle, runtime.guard(), None);
    }
    let notes = Notes::new(args.watched_by)?;
    schedule::check(args, &runtime)?;

    let bundle = Bundle::open(&args.bundle)?;
    let given = !args.inputs.is_empty() || !args.variables.is_empty();
    let needs_nothing = bundle.plan().inputs().next().is_none()
        && bundle.plan().variables().is_empty()
        && bundle.tests().is_empty();
    if !given && !needs_nothing && bundle.tests().is_empty() {
        return Err(Failure::Usage(what_to_give(&bundle)));
    }
    if args.checks() && bundle.tests().is_empty() {
        let message = "this bundle has no recorded tests to compare with";
        return Err(Failure::Usage(message.into()));
    }
    // What was given is looked at before the kernels take their time.
    let inputs = if given {
        check_names(&bundle, &args.inputs, &args.variables)?;
        read_inputs(&bundle, &args.inputs)?
    } else {
        Vec::new()
    };

    if let Some(dir) = &args.output {
        make_folder(dir)?;
    }
    if let Some(cap) = args.memory_cap {
        bundle.plan().check_memory_cap(cap)?;
    }
    let sandbox = args.isolated.then(|| isolated::sandbox(args)).transpose()?;
    if let Some(sandbox) = &sandbox {
        let (plan, loading) = isolated::load(sandbox, &bundle, &runtime, !args.recompile)?;
        let mut run = Run::new(args, &bundle, &runtime, notes, out);
        run.heading(&loading, "", ", isolated")?;
        let side = Side::There(Box::new(plan));
        return match given || needs_nothing {
            true => run.once(side, None, loading, &inputs),
            false => run.tests(side, None, loading),
        };
    }
    let (mut executable, upgrade, loading) = if args.quick {
        let ((executable, upgrade), loading) =
            loading::load_quickly(&bundle, &runtime, !args.recompile)?;
        (executable, Some(upgrade), loading)
    } else {
        let (executable, loading) = loading::load(&bundle, &runtime, !args.recompile)?;
        (executable, None, loading)
    };
    if let Some(upgrade) = &upgrade
        && args.save_schedule
    {
        // One that was learned on other code is of no use.
        upgrade.wait()?;
    }
    if args.fill {
        // What a temp finds that was another's would hide that nobody wrote it.
        executable = executable.with_separate_temps();
    }
    if let Some(cap) = args.memory_cap {
        executable = executable.with_memory_cap(cap);
    }
    executable = schedule::apply(args, executable)?;
    let mut run = Run::new(args, &bundle, &runtime, notes, out);
    let quick = match &upgrade {
        Some(upgrade) if !upgrade.is_done() => ", optimised code follows",
        _ => "",
    };
    run.heading(&loading, quick, "")?;
    let side = Side::Here(Box::new(executable.instance()?));
    if given || needs_nothing {
        run.once(side, Some(&executable), loading, &inputs)
    } else {
        run.tests(side, Some(&executable), loading)
    }
}

/// How many threads a run may have: one, if it is watched or has no schedule.
fn threads(args: &RunArgs, runtime: &Runtime) -> usize {
    match args.watched_by {
        Some(_) => 1,
        None if matches!(args.schedule, ScheduleArg::Off) => 1,
        None => runtime.pool().threads(),
    }
}

struct Run<'a> {
    args: &'a RunArgs,
    bundle: &'a Bundle,
    guard: Guard,
    threads: usize,
    notes: Notes,
    /// What each op took, where that was asked for.
    timings: Option<Timings>,
    /// Where a schedule was saved, likewise.
    saved: Option<PathBuf>,
    out: &'a mut dyn Write,
}

impl<'a> Run<'a> {
    fn new(
        args: &'a RunArgs,
        bundle: &'a Bundle,
        runtime: &Runtime,
        notes: Notes,
        out: &'a mut dyn Write,
    ) -> Run<'a> {
        Run {
            args,
            bundle,
            guard: runtime.guard(),
            threads: threads(args, runtime),
            notes,
            timings: args.timings.then(|| Timings::new(bundle.plan())),
            saved: None,
            out,
        }
    }

    /// Says what runs, and how; `quick` and `isolated` are parts of that.
    fn heading(&mut self, loading: &Loading, quick: &str, isolated: &str) -> Result<(), Failure> {
        if self.args.json {
            return Ok(());
        }
        let name = match self.bundle.plan().name() {
            "" => "bundle",
            name => name,
        };
        let name = show::plain(name);
        let how = match (self.guard, self.threads) {
            (Guard::Off, 1) => String::new(),
            (Guard::Off, threads) => format!(", runs on up to {threads} threads"),
            (side, _) => format!(", buffers guarded at their {}", side.name()),
        };
        let line = loading.line();
        writeln!(self.out, "{name}: {line}{quick}{isolated}{how}\n")?;
        Ok(())
    }

    /// One run on what was given.
    fn once(
        &mut self,
        mut side: Side<'_>,
        executable: Option<&Executable>,
        loading: Loading,
        inputs: &[(&str, Array)],
    ) -> Outcome {
        if let Some(instance) = side.instance() {
            self.notes.observe(instance);
        }
        for (name, array) in inputs {
            side.set_input(name, array.elements.as_view())?;
        }
        let variables = self.args.variables();
        let values = self.bundle.plan().variable_values(&variables)?;
        let mut times = Vec::new();
        for repeat in 0..self.args.repeat {
            if repeat > 0 {
                side.reset()?;
            }
            let time = match (side.instance(), &mut self.timings) {
                (Some(instance), Some(timings)) => {
                    let start = Instant::now();
                    instance.run_with(plan::Run {
                        variables: &values,
                        timings: Some(timings),
                        ..plan::Run::default()
                    })?;
                    start.elapsed()
                }
                _ => side.run_once(&values)?,
            };
            self.notes.end();
            times.push(time);
        }
        self.save(&side, None)?;
        if self.args.json {
            self.save_schedule(executable, inputs)?;
            let outputs = json::outputs(self.bundle, &side)?;
            let run = json::run(&variables, &times, outputs);
            return self.print_json(loading, &[run], true, None);
        }
        self.show_outputs(&side, "")?;
        writeln!(self.out)?;
        let mut gallery = Gallery::default();
        gallery.add_inputs(self.bundle, inputs, &side)?;
        self.print_lines(&gallery.lines())?;
        writeln!(self.out, "{}", time_taken(&times))?;
        self.timings_table()?;
        self.save_schedule(executable, inputs)?;
        Ok(true)
    }

    /// The recorded tests, in order, on one instance, or on two that are filled
    /// differently.
    fn tests(
        &mut self,
        mut side: Side<'_>,
        executable: Option<&Executable>,
        loading: Loading,
    ) -> Outcome {
        let bundle = self.bundle;
        let checking = self.args.checks();
        if let Some(instance) = side.instance() {
            self.notes.observe(instance);
        }
        let mut second = None;
        if let Some(executable) = executable.filter(|_| self.args.fill) {
            self.notes.observe(second.insert(executable.instance()?));
        }
        let mut records: Vec<Record> = Vec::new();
        let mut gallery = Gallery::default();
        for repeat in 0..self.args.repeat {
            if repeat > 0 {
                side.reset()?;
                second.iter_mut().for_each(Instance::reset);
            }
            for (i, test) in bundle.tests().iter().enumerate() {
                self.notes.begin(Some(i));
                let report = match (side.instance(), &mut second, &mut self.timings) {
                    (Some(first), Some(second), _) => {
                        bundle.run_test_filled(test, first, second)?
                    }
                    (Some(instance), None, Some(timings)) => {
                        bundle.run_test_timed(test, instance, timings)?
                    }
                    _ => bundle.run_test(test, &mut side)?,
                };
                self.notes.end();
                if repeat > 0 {
                    records[i].times.push(report.time);
                    continue;
                }
                self.save(&side, Some(i))?;
                let mut record = Record {
                    times: vec![report.time],
                    json: Value::Null,
                    report,
                };
                if self.args.json {
                    record.json = json::outputs(bundle, &side)?;
                } else if !checking && i < TESTS_SHOWN && bundle.classifier().is_none() {
                    writeln!(self.out, "test {i}{}", variables(test))?;
                    self.show_outputs(&side, "  ")?;
                    writeln!(self.out)?;
                }
                if let Some(classified) = &record.report.classified
                    && !self.args.json
                    && !checking
                {
                    gallery.add_test(bundle, test, classified)?;
                }
                records.push(record);
            }
        }
        let ok = !checking
            || records
                .iter()
                .all(|r| self.passes(&r.report) && r.report.is_steady());
        let accuracy = accuracy(&records);
        if self.args.json {
            self.save_schedule(executable, &[])?;
            let tests = bundle.tests().iter().zip(records).enumerate();
            let runs = tests.map(|(i, (test, record))| {
                json::test(i, test, &record.times, &record.report, record.json)
            });
            return self.print_json(loading, &runs.collect::<Vec<_>>(), ok, accuracy);
        }
        self.print_lines(&gallery.lines())?;
        self.table(&records, checking)?;
        if let Some((correct, total)) = accuracy {
            writeln!(self.out, "\n{}", accuracy_text(correct, total))?;
        }
        if checking {
            let failed = records.iter().filter(|r| !self.passes(&r.report)).count();
            let how = if self.args.exact {
                "bit for bit"
            } else {
                "within tolerance"
            };
            self.verdict(records.len(), failed, &format!("the same {how}"))?;
        }
        if self.args.fill {
            let unsteady = records.iter().filter(|r| !r.report.is_steady()).count();
            self.verdict(
                records.len(),
                unsteady,
                "the same whatever memory held before",
            )?;
        }
        self.timings_table()?;
        self.save_schedule(executable, &[])?;
        Ok(ok)
    }

    /// Learns a schedule and keeps it in the bundle, where that was asked for.
    fn save_schedule(
        &mut self,
        executable: Option<&Executable>,
        inputs: &[(&str, Array)],
    ) -> Result<(), Failure> {
        let Some(executable) = executable.filter(|_| self.args.save_schedule) else {
            return Ok(());
        };
        let variables = self.args.variables();
        let learned = schedule::learn(self.bundle, executable, inputs, &variables)?;
        let file = self.bundle.save_schedule(&learned)?;
        if !self.args.json {
            writeln!(self.out, "\n{}", schedule::saved(&learned, &file))?;
        }
        self.saved = Some(file);
        Ok(())
    }

    fn timings_table(&mut self) -> Result<(), Failure> {
        let Some(timings) = &self.timings else {
            return Ok(());
        };
        let lines = timings::table(self.bundle.plan(), timings);
        self.print_lines(&lines)
    }

    /// How many of the tests are as they should be.
    fn verdict(&mut self, all: usize, failed: usize, how: &str) -> Result<(), Failure> {
        let style = if failed == 0 { good() } else { bad() };
        let tests = show::count(all, "test");
        let passed = all - failed;
        writeln!(self.out, "\n{style}{passed} of {tests} {how}{style:#}")?;
        Ok(())
    }

    /// Whether the outputs are what was recorded.
    fn passes(&self, report: &TestReport) -> bool {
        if self.args.exact {
            report.is_exact()
        } else {
            report.is_within()
        }
    }

    /// A row a test.
    fn table(&mut self, records: &[Record], checking: bool) -> Result<(), Failure> {
        for (i, record) in records.iter().enumerate() {
            let mut row = format!("test {i:<3} {:>10}", show::duration(median(&record.times)));
            if let Some(classified) = &record.report.classified {
                let (correct, total) = (classified.correct(), classified.truth.len());
                row += &format!("   {correct} of {total} right");
            }
            if checking {
                let pass = self.passes(&record.report);
                let (style, word) = if pass {
                    (good(), "same")
                } else {
                    (bad(), "DIFFERS")
                };
                row += &format!("   {style}{word}{style:#}");
                row += &differences(&record.report, pass);
                row += &unsteady(&record.report);
            }
            writeln!(self.out, "{row}")?;
        }
        if self.args.repeat > 1 {
            writeln!(self.out, "times are medians of {} runs", self.args.repeat)?;
        }
        Ok(())
    }

    fn show_outputs(&mut self, side: &Side<'_>, indent: &str) -> Result<(), Failure> {
        let bold = Style::new().bold();
        for output in self.bundle.plan().outputs() {
            let elements = side.output(&output.name)?;
            let summary = Summary::new(&output.shape, elements)?;
            writeln!(
                self.out,
                "{indent}{bold}{}{bold:#}  {} {}  {}",
                show::plain(&output.name),
                output.dtype,
                show::shape(&output.shape),
                summary.range()
            )?;
            writeln!(self.out, "{indent}  {}", summary.first(elements.len()))?;
            if let Some(best) = summary.best(self.bundle.labels()) {
                writeln!(self.out, "{indent}  best: {best}")?;
            }
        }
        Ok(())
    }

    fn print_lines(&mut self, lines: &[String]) -> Result<(), Failure> {
        for line in lines {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    fn print_json(
        &mut self,
        loading: Loading,
        runs: &[Value],
        ok: bool,
        accuracy: Option<(usize, usize)>,
    ) -> Outcome {
        let mut value = json::command(self.bundle, self.guard, loading, runs, ok, accuracy);
        value["threads"] = self.threads.into();
        if let Some(timings) = &self.timings {
            value["ops"] = timings::as_json(self.bundle.plan(), timings);
        }
        if let Some(file) = &self.saved {
            value["saved_schedule"] = file.display().to_string().into();
        }
        writeln!(self.out, "{}", json::text(&value))?;
        Ok(ok)
    }

    /// Writes the outputs as array files.
    fn save(&self, side: &Side<'_>, test: Option<usize>) -> Result<(), Failure> {
        let Some(dir) = &self.args.output else {
            return Ok(());
        };
        let dir = match test {
            Some(test) => dir.join(test.to_string()),
            None => dir.clone(),
        };
        make_folder(&dir)?;
        let mut taken = HashSet::new();
        for output in self.bundle.plan().outputs() {
            let mut name = file_name(&output.name);
            while !taken.insert(name.clone()) {
                name.push('_');
            }
            let path = dir.join(name + ".npy");
            npy::write(&path, &output.shape, side.output(&output.name)?)?;
        }
        Ok(())
    }
}

/// A test that ran.
struct Record {
    times: Vec<Duration>,
    report: TestReport,
    /// Its outputs, where JSON was asked for.
    json: Value,
}

fn accuracy(records: &[Record]) -> Option<(usize, usize)> {
    let classified = records.iter().filter_map(|r| r.report.classified.as_ref());
    let counts = classified.map(|c| (c.correct(), c.truth.len()));
    counts.reduce(|(a, b), (c, d)| (a + c, b + d))
}

#[allow(clippy::cast_precision_loss)] // counts of pictures
fn accuracy_text(correct: usize, total: usize) -> String {
    let percent = 100.0 * correct as f64 / total.max(1) as f64;
    let bold = Style::new().bold();
    format!("{bold}{correct} of {total} images right: {percent:.1} %{bold:#}")
}

/// How far the outputs of a test are from what was recorded.
fn differences(report: &TestReport, pass: bool) -> String {
    let worst = report.outputs.iter().map(|o| o.difference.max_abs);
    let worst = worst.fold(0.0, f64::max);
    if pass {
        return match worst {
            0.0 => String::new(),
            worst => format!("   largest difference {}", show::number(worst)),
        };
    }
    let wrong = report.outputs.iter().filter(|o| !o.difference.is_exact());
    let wrong = wrong.map(|o| {
        let d = &o.difference;
        let at = d.worst.map(|i| format!(" at element {i}")).unwrap_or_default();
        format!(
            "   {}: {} of {} elements outside tolerance, {} with other bits, largest difference {}{at}",
            show::plain(&o.name),
            d.outside,
            d.elements,
            d.other_bits,
            show::number(d.max_abs)
        )
    });
    wrong.collect()
}

/// What depends on what memory held before.
fn unsteady(report: &TestReport) -> String {
    if report.is_steady() {
        return String::new();
    }
    let outputs = report.unsteady.iter().map(|o| {
        let d = &o.difference;
        let first = d.first.unwrap_or_default();
        let name = show::plain(&o.name);
        format!(
            "   {name}: {} of {} elements depend on memory that was not written, the first is {first}",
            d.other_bits, d.elements
        )
    });
    let style = bad();
    format!("   {style}UNSTEADY{style:#}{}", outputs.collect::<String>())
}

fn variables(test: &Test) -> String {
    let words: Vec<_> = test
        .variables
        .iter()
        .map(|(n, v)| format!("{} = {v}", show::plain(n)))
        .collect();
    if words.is_empty() {
        String::new()
    } else {
        format!(" ({})", words.join(", "))
    }
}

fn time_taken(times: &[Duration]) -> String {
    let time = show::duration(median(times));
    match times.len() {
        1 => format!("ran in {time}"),
        n => format!("ran in {time}, the median of {n} runs"),
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn make_folder(dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|source| Error::System {
        doing: format!("make the folder {}", dir.display()),
        source,
    })
}

/// An output's name as the stem of a file's, whatever is in it.
fn file_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    let name = name.trim_start_matches('.');
    (if name.is_empty() { "output" } else { name }).to_owned()
}

const fn good() -> Style {
    Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)))
}

const fn bad() -> Style {
    let red = anstyle::Color::Ansi(AnsiColor::Red);
    Style::new().bold().fg_color(Some(red))
}
