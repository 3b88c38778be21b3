//! `svod run`

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use svod_runtime::bundle::npy::{self, Array};
use svod_runtime::bundle::{Bundle, Classified, Test, TestReport, to_f64};
use svod_runtime::plan::{Executable, Instance};
use svod_runtime::{Error, Runtime};

use crate::pictures::{self, Picture};
use crate::show::{self, Summary};
use crate::{Failure, Outcome, RunArgs};

/// How many recorded tests show their outputs; the others show a row.
const TESTS_SHOWN: usize = 2;

/// How many pictures are drawn, those that were answered wrongly first.
const PICTURES_SHOWN: usize = 8;

pub(crate) fn run(args: &RunArgs, out: &mut dyn Write) -> Outcome {
    let bundle = Bundle::open(&args.bundle)?;
    let given = !args.inputs.is_empty() || !args.variables.is_empty();
    let needs_nothing = bundle.plan().inputs().next().is_none()
        && bundle.plan().variables().is_empty()
        && bundle.tests().is_empty();
    if !given && !needs_nothing && bundle.tests().is_empty() {
        return Err(Failure::Usage(what_to_give(&bundle)));
    }
    if (args.check || args.exact) && bundle.tests().is_empty() {
        let message = "this bundle has no recorded tests to compare with";
        return Err(Failure::Usage(message.into()));
    }
    // What was given is looked at before the kernels take their time.
    let inputs = if given {
        check_names(&bundle, args)?;
        read_inputs(&bundle, args)?
    } else {
        Vec::new()
    };

    let (executable, loading) = load(&bundle)?;
    let mut run = Run {
        args,
        bundle: &bundle,
        out,
    };
    if !args.json {
        let kernels = show::count(executable.kernels().len(), "kernel");
        let time = show::duration(loading);
        let name = match bundle.plan().name() {
            "" => "bundle",
            name => name,
        };
        writeln!(run.out, "{name}: {kernels} ready in {time}\n")?;
    }
    if given || needs_nothing {
        run.once(&executable, loading, &inputs)
    } else {
        run.tests(&executable, loading)
    }
}

/// Compiles and links behind a progress bar.
fn load(bundle: &Bundle) -> Result<(Executable, Duration), Error> {
    let runtime = Runtime::new()?;
    let start = Instant::now();
    let visible = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    let bar = if visible {
        ProgressBar::new(bundle.plan().kernels().len() as u64)
    } else {
        ProgressBar::hidden()
    };
    // The template is right as long as it is not edited; without it the bar is
    // merely plainer.
    if let Ok(style) = ProgressStyle::with_template("compiling {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.tick();
    // SAFETY: whoever calls this command on a bundle trusts it as a program, as
    // the help says; its files are not written while it runs.
    let executable = unsafe {
        bundle.load(&runtime, &|progress| {
            bar.set_message(progress.kernel.to_owned());
            bar.set_position(progress.done as u64);
        })
    };
    bar.finish_and_clear();
    Ok((executable?, start.elapsed()))
}

fn what_to_give(bundle: &Bundle) -> String {
    let mut message = "this bundle has no recorded tests; give it".to_owned();
    for input in bundle.plan().inputs() {
        let name = input.name.as_deref().unwrap_or_default();
        let dtype = input.dtype.map_or("bytes", |d| d.name());
        let shape = show::shape(&input.shape);
        message += &format!("\n  --input {name}=FILE.npy   {dtype} {shape}");
    }
    for variable in bundle.plan().variables() {
        let (name, min, max) = (&variable.name, variable.min, variable.max);
        message += &format!("\n  --var {name}=N   {min} to {max}");
    }
    message
}

/// Whether each input and variable is given once, and nothing else.
fn check_names(bundle: &Bundle, args: &RunArgs) -> Result<(), Failure> {
    let plan = bundle.plan();
    let inputs = plan.inputs().filter_map(|b| b.name.as_deref()).collect();
    let given = args.inputs.iter().map(|(n, _)| n.as_str()).collect();
    check_set("input", inputs, given)?;
    let variables = plan.variables().iter().map(|v| v.name.as_str()).collect();
    let given = args.variables.iter().map(|(n, _)| n.as_str()).collect();
    check_set("variable", variables, given)
}

fn check_set(what: &str, wanted: Vec<&str>, given: Vec<&str>) -> Result<(), Failure> {
    let names = |names: &[&str]| {
        if names.is_empty() {
            format!("it has no {what}s")
        } else {
            format!("its {what}s are: {}", names.join(", "))
        }
    };
    for (i, name) in given.iter().enumerate() {
        if !wanted.contains(name) {
            let message = format!("the bundle has no {what} `{name}`; {}", names(&wanted));
            return Err(Failure::Usage(message));
        }
        if given[..i].contains(name) {
            return Err(Failure::Usage(format!(
                "the {what} `{name}` is given twice"
            )));
        }
    }
    match wanted.iter().find(|name| !given.contains(name)) {
        None => Ok(()),
        Some(missing) => {
            let message = format!("the {what} `{missing}` is not given; {}", names(&wanted));
            Err(Failure::Usage(message))
        }
    }
}

/// The arrays of the input files, each of its input's type and shape.
fn read_inputs<'a>(bundle: &Bundle, args: &'a RunArgs) -> Result<Vec<(&'a str, Array)>, Failure> {
    let mut arrays = Vec::new();
    for (name, path) in &args.inputs {
        let array = npy::read(path)?;
        let Some(input) = bundle.plan().input(name) else {
            continue;
        };
        let dtype = array.elements.dtype();
        if input.shape != array.shape || input.dtype.is_some_and(|d| d != dtype) {
            return Err(Failure::Usage(format!(
                "{} holds {dtype} {}, the input `{name}` is {} {}",
                path.display(),
                show::shape(&array.shape),
                input.dtype.map_or("bytes", |d| d.name()),
                show::shape(&input.shape),
            )));
        }
        arrays.push((name.as_str(), array));
    }
    Ok(arrays)
}

struct Run<'a> {
    args: &'a RunArgs,
    bundle: &'a Bundle,
    out: &'a mut dyn Write,
}

impl Run<'_> {
    /// One run on what was given.
    fn once(
        &mut self,
        executable: &Executable,
        loading: Duration,
        inputs: &[(&str, Array)],
    ) -> Outcome {
        let mut instance = executable.instance()?;
        for (name, array) in inputs {
            instance.set_input(name, array.elements.as_view())?;
        }
        let variables = self.args.variables.iter();
        let variables: Vec<_> = variables.map(|(n, v)| (n.as_str(), *v)).collect();
        let mut times = Vec::new();
        for _ in 0..self.args.repeat {
            instance.reset();
            let start = Instant::now();
            instance.run(&variables)?;
            times.push(start.elapsed());
        }
        self.save(&instance, None)?;
        if self.args.json {
            let run = json!({
                "variables": variables.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
                "times_us": micros(&times),
                "outputs": self.outputs_json(&instance)?,
            });
            return self.print_json(loading, vec![run], true, None);
        }
        self.show_outputs(&instance, "")?;
        writeln!(self.out)?;
        let pictures = self.answered(&instance, inputs)?;
        if pictures.len() > PICTURES_SHOWN {
            writeln!(self.out, "the first {PICTURES_SHOWN} of {}:\n", pictures.len())?;
        }
        self.draw(pictures)?;
        writeln!(self.out, "{}", time_taken(&times))?;
        Ok(true)
    }

    /// The recorded tests, in order, on one instance.
    fn tests(&mut self, executable: &Executable, loading: Duration) -> Outcome {
        let bundle = self.bundle;
        let checking = self.args.check || self.args.exact;
        let mut instance = executable.instance()?;
        let mut records: Vec<Record> = Vec::new();
        let mut pictures = Vec::new();
        for repeat in 0..self.args.repeat {
            instance.reset();
            for (i, test) in bundle.tests().iter().enumerate() {
                let report = bundle.run_test(test, &mut instance)?;
                if repeat > 0 {
                    records[i].times.push(report.time);
                    continue;
                }
                self.save(&instance, Some(i))?;
                let mut record = Record {
                    times: vec![report.time],
                    json: Value::Null,
                    report,
                };
                if self.args.json {
                    record.json = self.outputs_json(&instance)?;
                } else if !checking && i < TESTS_SHOWN && bundle.classifier().is_none() {
                    writeln!(self.out, "test {i}{}", variables(test))?;
                    self.show_outputs(&instance, "  ")?;
                    writeln!(self.out)?;
                }
                if let Some(classified) = &record.report.classified
                    && !self.args.json
                    && !checking
                {
                    pictures.extend(self.pictures(test, classified)?);
                }
                records.push(record);
            }
        }
        let ok = !checking || records.iter().all(|r| self.passes(&r.report));
        let accuracy = accuracy(&records);
        if self.args.json {
            let tests = bundle.tests().iter().zip(&records).enumerate();
            let runs = tests.map(|(i, (test, record))| self.record_json(i, test, record));
            return self.print_json(loading, runs.collect(), ok, accuracy);
        }
        self.draw(pictures)?;
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
            let style = if failed == 0 { good() } else { bad() };
            let tests = show::count(records.len(), "test");
            let passed = records.len() - failed;
            writeln!(
                self.out,
                "\n{style}{passed} of {tests} the same {how}{style:#}"
            )?;
        }
        Ok(ok)
    }

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
            }
            writeln!(self.out, "{row}")?;
        }
        if self.args.repeat > 1 {
            writeln!(self.out, "times are medians of {} runs", self.args.repeat)?;
        }
        Ok(())
    }

    fn show_outputs(&mut self, instance: &Instance, indent: &str) -> Result<(), Failure> {
        let bold = Style::new().bold();
        for output in self.bundle.plan().outputs() {
            let elements = instance.output(&output.name)?;
            let summary = Summary::new(&output.shape, elements)?;
            writeln!(
                self.out,
                "{indent}{bold}{}{bold:#}  {} {}  {}",
                output.name,
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

    /// The pictures of a classifier's recorded test: some answered rightly, all
    /// answered wrongly.
    fn pictures(&self, test: &Test, classified: &Classified) -> Result<Vec<Drawn>, Failure> {
        let Some(classifier) = self.bundle.classifier() else {
            return Ok(Vec::new());
        };
        let file = test
            .inputs
            .iter()
            .find(|(name, _)| *name == classifier.images);
        let Some((_, file)) = file else {
            return Ok(Vec::new());
        };
        let array = npy::read(file)?;
        let pixels = to_f64(array.elements.as_view())?;
        let pairs = classified.answers.iter().zip(&classified.truth);
        let drawn = pairs.enumerate().filter_map(|(i, (&answer, &truth))| {
            let right = answer == truth;
            let mut caption = format!("→ {}", self.label(answer));
            if !right {
                caption += &format!(" (is {})", self.label(truth));
            }
            let picture = picture(&array.shape, &pixels, i, caption)?;
            Some(Drawn { picture, right })
        });
        Ok(drawn.collect())
    }

    /// The pictures of a classifier's given input, with what was answered.
    fn answered(
        &self,
        instance: &Instance,
        inputs: &[(&str, Array)],
    ) -> Result<Vec<Drawn>, Failure> {
        let Some(classifier) = self.bundle.classifier() else {
            return Ok(Vec::new());
        };
        let given = inputs.iter().find(|(n, _)| *n == classifier.images);
        let Some((_, array)) = given else {
            return Ok(Vec::new());
        };
        let pixels = to_f64(array.elements.as_view())?;
        let answers = self.bundle.answers(instance, &classifier.scores)?;
        let drawn = answers.iter().enumerate().filter_map(|(i, &answer)| {
            let caption = format!("→ {}", self.label(answer));
            let picture = picture(&array.shape, &pixels, i, caption)?;
            Some(Drawn {
                picture,
                right: true,
            })
        });
        Ok(drawn.collect())
    }

    fn label(&self, class: usize) -> String {
        let label = self.bundle.labels().get(class);
        label.cloned().unwrap_or_else(|| format!("[{class}]"))
    }

    /// Draws a few, half of them wrong where there are as many.
    fn draw(&mut self, drawn: Vec<Drawn>) -> Result<(), Failure> {
        let (right, wrong): (Vec<_>, Vec<_>) = drawn.into_iter().partition(|d| d.right);
        let wrong_shown = wrong.len().min(PICTURES_SHOWN / 2);
        let few = |drawn: Vec<Drawn>, n: usize| {
            let few = drawn.into_iter().take(n).map(|d| d.picture);
            pictures::draw(&few.collect::<Vec<_>>())
        };
        for line in few(right, PICTURES_SHOWN - wrong_shown) {
            writeln!(self.out, "{line}")?;
        }
        if wrong_shown > 0 {
            let of = wrong.len();
            writeln!(self.out, "answered wrongly, {wrong_shown} of {of}:\n")?;
        }
        for line in few(wrong, wrong_shown) {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Writes the outputs as array files.
    fn save(&self, instance: &Instance, test: Option<usize>) -> Result<(), Failure> {
        let Some(dir) = &self.args.output else {
            return Ok(());
        };
        let dir = match test {
            Some(test) => dir.join(test.to_string()),
            None => dir.clone(),
        };
        std::fs::create_dir_all(&dir).map_err(|source| Error::System {
            doing: format!("make the folder {}", dir.display()),
            source,
        })?;
        let mut taken = HashSet::new();
        for output in self.bundle.plan().outputs() {
            let mut name = file_name(&output.name);
            while !taken.insert(name.clone()) {
                name.push('_');
            }
            let path = dir.join(name + ".npy");
            npy::write(&path, &output.shape, instance.output(&output.name)?)?;
        }
        Ok(())
    }

    fn outputs_json(&self, instance: &Instance) -> Result<Value, Failure> {
        let mut outputs = Vec::new();
        for output in self.bundle.plan().outputs() {
            let summary = Summary::new(&output.shape, instance.output(&output.name)?)?;
            let best = summary.best.iter().map(|(i, score)| {
                json!({ "index": i, "score": score, "label": self.bundle.labels().get(*i) })
            });
            outputs.push(json!({
                "name": output.name,
                "dtype": output.dtype.name(),
                "shape": output.shape,
                "min": finite(summary.min),
                "max": finite(summary.max),
                "nans": summary.nans,
                "first": summary.first.iter().map(|v| finite(*v)).collect::<Vec<_>>(),
                "best": best.collect::<Vec<_>>(),
            }));
        }
        Ok(Value::Array(outputs))
    }

    fn record_json(&self, i: usize, test: &Test, record: &Record) -> Value {
        let report = &record.report;
        let variables = test.variables.iter().cloned();
        let compared = report.outputs.iter().map(|o| {
            json!({
                "name": o.name,
                "within": o.difference.is_within(),
                "exact": o.difference.is_exact(),
                "elements": o.difference.elements,
                "outside": o.difference.outside,
                "other_bits": o.difference.other_bits,
                "max_abs": finite(o.difference.max_abs),
            })
        });
        let classified = report.classified.as_ref();
        json!({
            "test": i,
            "variables": variables.collect::<std::collections::BTreeMap<_, _>>(),
            "times_us": micros(&record.times),
            "outputs": record.json,
            "compared": compared.collect::<Vec<_>>(),
            "correct": classified.map(Classified::correct),
            "answers": classified.map(|c| &c.answers),
        })
    }

    fn print_json(
        &mut self,
        loading: Duration,
        runs: Vec<Value>,
        ok: bool,
        accuracy: Option<(usize, usize)>,
    ) -> Outcome {
        let value = json!({
            "bundle": self.args.bundle,
            "name": self.bundle.plan().name(),
            "kernels": self.bundle.plan().kernels().len(),
            "load_us": loading.as_secs_f64() * 1e6,
            "runs": runs,
            "ok": ok,
            "accuracy": accuracy.map(|(correct, total)| json!({ "correct": correct, "of": total })),
        });
        writeln!(self.out, "{value:#}")?;
        Ok(ok)
    }
}

/// A test that ran.
struct Record {
    times: Vec<Duration>,
    report: TestReport,
    /// Its outputs, where JSON was asked for.
    json: Value,
}

/// A picture, and whether it was answered rightly.
struct Drawn {
    picture: Picture,
    right: bool,
}

/// Picture `i` of an array of shape `[pictures, height, width]`, if it is small
/// enough to draw.
fn picture(shape: &[usize], pixels: &[f64], i: usize, caption: String) -> Option<Picture> {
    let &[_, height, width] = shape else {
        return None;
    };
    if height > pictures::MAX_SIDE || width > pictures::MAX_SIDE {
        return None;
    }
    let size = height * width;
    Some(Picture {
        width,
        pixels: pixels.get(i * size..(i + 1) * size)?.to_vec(),
        caption,
    })
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
            o.name,
            d.outside,
            d.elements,
            d.other_bits,
            show::number(d.max_abs)
        )
    });
    wrong.collect()
}

fn variables(test: &Test) -> String {
    let words: Vec<_> = test
        .variables
        .iter()
        .map(|(n, v)| format!("{n} = {v}"))
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

fn micros(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|t| t.as_secs_f64() * 1e6).collect()
}

/// JSON has no infinities and no NaN; those are null.
fn finite(v: f64) -> Option<f64> {
    v.is_finite().then_some(v)
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
