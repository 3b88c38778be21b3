//! `svod diff`

mod json;
mod side;
mod table;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use svod_runtime::Guard;
use svod_runtime::bundle::{Bundle, Test};
use svod_runtime::diff::{Closeness, Diff, Event, OpReport, RunReport};
use svod_runtime::plan;

use crate::given::{check_names, read_inputs};
use crate::watch::{self, Notes};
use crate::{Failure, Outcome, name_and_file, name_and_number, show};
use side::{Loaded, Side};

#[derive(Args)]
#[command(after_help = "\
Each op is run by both sides from the same bytes, and what it writes is compared; the
run goes on with the left results. So an op that differs is wrong itself, and not
because of what another got wrong. Then each side makes a run of its own, and the outputs are
compared. It goes through the bundle's recorded tests; inputs of a bundle that has none
are pseudo-random, the same each time, and its variables as large as they may be.

A SIDE is COMPILER, COMPILER:WORD,… or WORD,… where a word is one of
  -O0 -O1 -O2 -O3    how hard the compiler tries
  cpu=NAME           for which CPU (also -march=NAME): native, x86-64-v3, …
  threads=N          each launch in parts, and a run of its own on so many threads
  tier=quick         the code that `svod run --quick` begins with: -O0
  carried            the objects that the bundle carries
  cc=COMPILER        the compiler, where a bundle's folder stands in its place
  -FLAG              any other flag for the C compiler
The folder of another bundle may stand in the place of COMPILER. What is left out is as
`svod run` has it, but on one thread.

Without --exact, --rtol or --atol, floating-point numbers have room for the roundings
of one op, rtol and atol: f64 1e-9 and 1e-12, f32 1e-4 and 1e-5, f16 1e-2 and 1e-3, bf16
5e-2 and 1e-2. Compilers contract a * b + c, and with some flags sum in another order.
The outputs of whole runs have as much as the recorded test allows, if that is more.
Integers have none.

Exit status: 0 if all is the same, 1 if something differs or failed, 2 for bad usage.

Examples:
  svod diff model.svod --left clang:-O3 --right gcc:-O1
  svod diff model.svod --right -O0                     what svod run uses, and -O0
  svod diff model.svod --right clang-19:-O3,-fno-slp-vectorize --all
  svod diff model.svod --right cpu=x86-64-v2 --exact
  svod diff model.svod --left carried --right tier=quick
  svod diff model.svod --right threads=8
  svod diff old.svod new.svod                          where plans are alike, op by op
  svod diff old.svod new.svod --left -O3 --right -O3")]
pub(crate) struct DiffArgs {
    /// The bundle's folder; two, if each side is of its own
    #[arg(value_name = "BUNDLE", num_args = 0..=2)]
    bundles: Vec<PathBuf>,
    /// The one side, as said below
    #[arg(long, value_name = "SIDE", value_parser = side::parse, allow_hyphen_values = true)]
    left: Option<Side>,
    /// The other side
    #[arg(long, value_name = "SIDE", value_parser = side::parse, allow_hyphen_values = true)]
    right: Option<Side>,
    /// Run this recorded test alone, from the initial states
    #[arg(long, value_name = "N", conflicts_with_all = ["inputs", "variables"])]
    test: Option<usize>,
    /// Give an input as a NumPy array file, once for each input, instead of the recorded tests
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = name_and_file)]
    inputs: Vec<(String, PathBuf)>,
    /// Choose a variable, once for each variable, beside --input
    #[arg(long = "var", value_name = "NAME=N", value_parser = name_and_number)]
    variables: Vec<(String, i64)>,
    /// Compare bit for bit
    #[arg(long, conflicts_with_all = ["rtol", "atol"])]
    exact: bool,
    /// How far floating-point numbers may be apart: this part of the left one
    #[arg(long, value_name = "NUMBER", value_parser = tolerance)]
    rtol: Option<f64>,
    /// How far beside that
    #[arg(long, value_name = "NUMBER", value_parser = tolerance)]
    atol: Option<f64>,
    /// Show a row for each op
    #[arg(long)]
    all: bool,
    /// Stop, and name, an op or a whole run that takes longer than this on one side, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = crate::seconds)]
    time_limit: std::time::Duration,
    /// The process that waits for this one
    #[arg(long, hide = true)]
    watched_by: Option<i32>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|v: &f64| *v >= 0.0 && v.is_finite());
    number.ok_or_else(|| "it is no number from 0 on".into())
}

pub(crate) fn diff(args: &DiffArgs, out: &mut dyn Write) -> Outcome {
    let sides = [&args.left, &args.right].map(|side| side.clone().unwrap_or_default());
    let paths = bundles(args, &sides)?;
    // Code that is looked at because something is wrong may well end the process.
    if args.watched_by.is_none() {
        let names = sides.each_ref().map(|side| side.text.clone());
        let watched = watch::Sides {
            said: names,
            limit: args.time_limit,
        };
        return watch::run(&paths[0], Guard::Off, Some(watched));
    }
    let notes = Notes::new(args.watched_by)?;
    let left = Bundle::open(&paths[0])?;
    let other = match paths[0] == paths[1] {
        true => None,
        false => Some(Bundle::open(&paths[1])?),
    };
    let right = other.as_ref().unwrap_or(&left);
    let given = !args.inputs.is_empty() || !args.variables.is_empty();
    let tests = tests(args, &left, given)?;
    let inputs = if given {
        check_names(&left, &args.inputs, &args.variables)?;
        read_inputs(&left, &args.inputs)?
    } else {
        Vec::new()
    };
    let loaded = [
        sides[0].load("left", &left)?,
        sides[1].load("right", right)?,
    ];
    let closeness = Closeness {
        exact: args.exact,
        rtol: args.rtol,
        atol: args.atol,
    };
    let [one, two] = loaded.each_ref().map(|loaded| &loaded.executable);
    let mut diff = Diff::new(one, two, closeness)?;
    let mut run = Run {
        args,
        bundles: [&left, right],
        loaded: &loaded,
        notes,
        runs: Vec::new(),
        out,
    };
    if !args.json {
        run.heading(&diff, &tests, given)?;
    }
    match tests[..] {
        [] => {
            let variables = run.variables(given);
            if given {
                for (name, array) in &inputs {
                    diff.set_input(name, array.elements.as_view())?;
                }
            } else {
                diff.give_arbitrary()?;
            }
            run.once(&mut diff, None, &variables)?;
        }
        [first, ..] => {
            // What a test leaves out is given as by those before.
            for test in &left.tests()[..first] {
                diff.give(test)?;
            }
            for &test in &tests {
                let recorded = &left.tests()[test];
                if run.once(&mut diff, Some((test, recorded)), &[])? {
                    break;
                }
            }
        }
    }
    run.end(&diff)
}

/// The folder of each side's bundle.
fn bundles(args: &DiffArgs, sides: &[Side; 2]) -> Result<[PathBuf; 2], Failure> {
    let usage = |message: &str| Err(Failure::Usage(message.into()));
    let of = |i: usize| match (&sides[i].bundle, args.bundles.get(i)) {
        (Some(_), Some(_)) if args.bundles.len() == 2 => None,
        (Some(bundle), _) => Some(bundle.clone()),
        (None, Some(bundle)) => Some(bundle.clone()),
        (None, None) => args.bundles.first().cloned(),
    };
    match [0, 1].map(of) {
        _ if args.bundles.len() < 2 && args.left.is_none() && args.right.is_none() => usage(
            "both sides would be the same: say in what they differ, by --left, --right or a second \
             bundle",
        ),
        [Some(left), Some(right)] => Ok([left, right]),
        _ if args.bundles.len() == 2 => usage("a side has two bundles"),
        _ => usage("a side has no bundle: name one"),
    }
}

/// The numbers of the recorded tests that are run: none where inputs are given, or made up.
fn tests(args: &DiffArgs, bundle: &Bundle, given: bool) -> Result<Vec<usize>, Failure> {
    let count = bundle.tests().len();
    match args.test {
        _ if given => Ok(Vec::new()),
        None => Ok((0..count).collect()),
        Some(test) if test < count => Ok(vec![test]),
        Some(test) => Err(Failure::Usage(format!(
            "{} has {}, counted from 0; there is no test {test}",
            bundle.path().display(),
            show::count(count, "recorded test"),
        ))),
    }
}

struct Run<'a> {
    args: &'a DiffArgs,
    bundles: [&'a Bundle; 2],
    loaded: &'a [Loaded; 2],
    notes: Notes,
    /// What came of each run, and the rows of its ops where JSON has all.
    runs: Vec<Record>,
    out: &'a mut dyn Write,
}

/// A run on both sides.
struct Record {
    test: Option<usize>,
    variables: Vec<(String, i64)>,
    report: RunReport,
    ops: Vec<OpReport>,
}

impl Run<'_> {
    fn heading(&mut self, diff: &Diff, tests: &[usize], given: bool) -> Result<(), Failure> {
        for (name, i) in [("left", 0), ("right", 1)] {
            let loaded = &self.loaded[i];
            let bundle = self.bundles[i].path().display().to_string();
            let (setting, line) = (&loaded.setting, loaded.loading.line());
            writeln!(
                self.out,
                "{name:<5}  {}  {setting}  {line}",
                show::plain(&bundle)
            )?;
        }
        for note in self.remarks(diff, tests, given) {
            writeln!(self.out, "note: {note}")?;
        }
        writeln!(self.out)?;
        Ok(self.out.flush()?)
    }

    /// What should be known of the comparison.
    fn remarks(&self, diff: &Diff, tests: &[usize], given: bool) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(unlike) = diff.unlike() {
            remarks.push(format!(
                "the sides cannot be compared op by op, only by their outputs: {}",
                show::plain(&unlike.to_string())
            ));
        }
        let contents = diff.unlike_contents();
        if !contents.is_empty() {
            let labels: Vec<_> = contents
                .iter()
                .map(|i| diff.plan().buffer_label(*i))
                .collect();
            remarks.push(format!(
                "these hold other numbers on the right: {}; op by op, both sides have the left ones",
                show::plain(&labels.join(", "))
            ));
        }
        let kernels = 0..diff.plan().kernels().len();
        let fixed = kernels
            .filter(|i| self.bundles[0].source_file(*i).is_none())
            .count();
        if fixed > 0 && self.bundles[0].path() == self.bundles[1].path() {
            let kernels = show::count(fixed, "kernel");
            remarks.push(format!(
                "{kernels} without source: the same object on both sides"
            ));
        }
        if self.loaded[0].setting == self.loaded[1].setting
            && self.bundles[0].path() == self.bundles[1].path()
        {
            remarks.push("both sides are the same code".to_owned());
        }
        if tests.is_empty() && !given && diff.plan().inputs().next().is_some() {
            remarks.push("there are no recorded tests: inputs are pseudo-random".to_owned());
        }
        remarks
    }

    /// The variables of a run of no recorded test.
    fn variables(&self, given: bool) -> Vec<(String, i64)> {
        if given {
            return self.args.variables.clone();
        }
        let variables = self.bundles[0].plan().variables().iter();
        variables.map(|v| (v.name.clone(), v.max)).collect()
    }

    /// One run on both sides; says whether it was the last that can be.
    fn once(
        &mut self,
        diff: &mut Diff,
        test: Option<(usize, &Test)>,
        variables: &[(String, i64)],
    ) -> Result<bool, Failure> {
        let variables = test.map_or(variables, |(_, test)| &test.variables).to_vec();
        self.notes.begin(test.map(|(i, _)| i));
        if !self.args.json {
            table::begin(test.map(|(i, _)| i), &variables, self.out)?;
            if self.args.all && diff.unlike().is_none() {
                table::header(self.out)?;
            }
        }
        let plan = self.bundles[0].plan();
        let bar = self.bar(plan);
        let (mut ops, mut written) = (Vec::new(), Ok(()));
        let mut tell = |event: Event<'_>| match event {
            Event::Op { op, side } => self.notes.at(Some(op), Some(side)),
            Event::Run { side } => self.notes.at(None, Some(side)),
            Event::Compared(report) => {
                // To whoever reads slowly, it is written slowly.
                self.notes.at(None, None);
                bar.inc(1);
                match (self.args.all, self.args.json) {
                    (false, _) => {}
                    (true, true) => ops.push(report.clone()),
                    (true, false) if written.is_ok() => {
                        written = table::row(plan, report, self.out);
                    }
                    (true, false) => {}
                }
            }
        };
        let report = match test {
            Some((_, test)) => diff.run_test(test, &mut tell),
            None => {
                let given: Vec<_> = variables.iter().map(|(n, v)| (n.as_str(), *v)).collect();
                diff.run(&given, &mut tell)
            }
        };
        bar.finish_and_clear();
        self.notes.at(None, None);
        let report = report?;
        written?;
        if !self.args.json {
            table::report(plan, &report, self.out)?;
            self.out.flush()?;
        }
        let ended = report.ended();
        self.runs.push(Record {
            test: test.map(|(i, _)| i),
            variables,
            report,
            ops,
        });
        Ok(ended)
    }

    /// A bar that counts ops, where a person looks and rows do not tell as much.
    fn bar(&self, plan: &plan::Plan) -> ProgressBar {
        let visible = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        if !visible || self.args.all {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(plan.ops().len() as u64);
        if let Ok(style) = ProgressStyle::with_template("comparing {bar:30} {pos}/{len} ops") {
            bar.set_style(style);
        }
        bar
    }

    fn end(&mut self, diff: &Diff) -> Outcome {
        let same = self.runs.iter().all(|run| run.report.is_same());
        if self.args.json {
            let value = json::command(self.args, self.bundles, self.loaded, diff, &self.runs);
            writeln!(self.out, "{}", crate::json::text(&value))?;
        } else {
            let runs = self.runs.iter().map(|run| (run.test, &run.report));
            table::end(self.bundles[0].plan(), &runs.collect::<Vec<_>>(), self.out)?;
        }
        Ok(same)
    }
}
