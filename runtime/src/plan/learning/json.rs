//! Learned schedules as JSON, to be kept beside the plan.
//!
//! | key | what |
//! | --- | --- |
//! | `plan` | the plan's name |
//! | `cpu`, `threads` | for which processor and how many threads it was learned |
//! | `serial_nanos`, `nanos`, `bound_nanos` | what a run takes in turn, with the schedule, and at best |
//! | `tried_nanos` | what it takes with the fastest for several threads that was tried; left out where there was none |
//! | `op_nanos` | what each op costs on one thread |
//! | `phases` | the schedule: for each phase its tasks, `{"ops": [..], "parts": n}`; one part where `parts` is left out |
//!
//! Keys that are not known are ignored, as in all of a bundle.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::LearnedSchedule;
use crate::Error;
use crate::plan::{Schedule, Task};

#[derive(Deserialize, Serialize)]
struct RawSchedule {
    #[serde(default)]
    plan: String,
    cpu: String,
    threads: usize,
    serial_nanos: f64,
    nanos: f64,
    bound_nanos: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tried_nanos: Option<f64>,
    op_nanos: Vec<f64>,
    phases: Vec<Vec<RawTask>>,
}

#[derive(Deserialize, Serialize)]
struct RawTask {
    ops: Vec<usize>,
    #[serde(default = "one")]
    parts: u32,
}

const fn one() -> u32 {
    1
}

impl LearnedSchedule {
    /// It as JSON, on one line.
    ///
    /// # Errors
    ///
    /// [`Error::ScheduleText`] for a time that is no finite number or is negative, and for
    /// what was learned for no threads.
    pub fn to_json(&self) -> Result<String, Error> {
        let task = |task: &Task| RawTask {
            ops: task.ops.clone(),
            parts: task.parts,
        };
        let phases = self.schedule.phases.iter();
        let raw = RawSchedule {
            plan: self.plan.clone(),
            cpu: self.cpu.clone(),
            threads: self.threads,
            serial_nanos: self.serial_nanos,
            nanos: self.nanos,
            bound_nanos: self.bound_nanos,
            tried_nanos: self.tried_nanos,
            op_nanos: self.op_nanos.clone(),
            phases: phases.map(|p| p.iter().map(task).collect()).collect(),
        };
        raw.check("")?;
        serde_json::to_string(&raw).map_err(|e| refuse("", e))
    }

    /// Reads what [`to_json`](Self::to_json) writes. Whether it is a schedule of a plan, that
    /// plan [says](crate::plan::Plan::check_schedule).
    ///
    /// # Errors
    ///
    /// [`Error::ScheduleText`] names the place of what is missing, of another type, or no
    /// time.
    pub fn from_json(text: &str) -> Result<LearnedSchedule, Error> {
        let raw: RawSchedule = parse(text)?;
        raw.check("")?;
        Ok(raw.learned())
    }

    /// Reads a list of what [`to_json`](Self::to_json) writes, or one alone.
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json).
    pub fn list_from_json(text: &str) -> Result<Vec<LearnedSchedule>, Error> {
        if text.trim_start().starts_with('{') {
            return Ok(vec![LearnedSchedule::from_json(text)?]);
        }
        let list: Vec<RawSchedule> = parse(text)?;
        for (i, raw) in list.iter().enumerate() {
            raw.check(&format!("[{i}]."))?;
        }
        Ok(list.into_iter().map(RawSchedule::learned).collect())
    }

    /// A list of them as JSON, one on a line.
    ///
    /// # Errors
    ///
    /// As [`to_json`](Self::to_json).
    pub fn list_to_json(list: &[LearnedSchedule]) -> Result<String, Error> {
        let list: Vec<_> = list.iter().map(Self::to_json).collect::<Result<_, _>>()?;
        Ok(format!("[\n{}\n]\n", list.join(",\n")))
    }
}

impl RawSchedule {
    /// Whether its numbers can be what they stand for; `at` leads to it.
    fn check(&self, at: &str) -> Result<(), Error> {
        if self.threads == 0 {
            return Err(refuse(format!("{at}threads"), "a run has at least 1"));
        }
        let times = [
            ("serial_nanos", self.serial_nanos),
            ("nanos", self.nanos),
            ("bound_nanos", self.bound_nanos),
            ("tried_nanos", self.tried_nanos.unwrap_or_default()),
        ];
        let times = times.map(|(key, time)| (key.to_owned(), time));
        let ops = self.op_nanos.iter().enumerate();
        let ops = ops.map(|(i, &time)| (format!("op_nanos[{i}]"), time));
        for (key, time) in times.into_iter().chain(ops) {
            if !time.is_finite() || time.is_sign_negative() {
                let reason = format!("{time} is no time in nanoseconds");
                return Err(refuse(format!("{at}{key}"), reason));
            }
        }
        Ok(())
    }

    fn learned(self) -> LearnedSchedule {
        let task = |raw: RawTask| Task {
            ops: raw.ops,
            parts: raw.parts,
        };
        let phases = self.phases.into_iter();
        LearnedSchedule {
            plan: self.plan,
            cpu: self.cpu,
            threads: self.threads,
            schedule: Schedule {
                phases: phases.map(|p| p.into_iter().map(task).collect()).collect(),
            },
            op_nanos: self.op_nanos,
            serial_nanos: self.serial_nanos,
            nanos: self.nanos,
            tried_nanos: self.tried_nanos,
            bound_nanos: self.bound_nanos,
        }
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        // What it does not know, it calls `?`, and the whole `.`.
        let path = e.path().to_string();
        refuse(path.trim_end_matches(['.', '?']), e.into_inner())
    })?;
    reader.end().map_err(|e| refuse("", e))?;
    Ok(value)
}

fn refuse(place: impl Into<String>, reason: impl std::fmt::Display) -> Error {
    Error::ScheduleText {
        place: place.into().into(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned() -> LearnedSchedule {
        LearnedSchedule {
            plan: "a \"plan\"".into(),
            cpu: "a processor".into(),
            threads: 2,
            schedule: Schedule {
                phases: vec![
                    vec![Task::chain(vec![0, 2]), Task::chain(vec![1])],
                    vec![Task::split(3, 4)],
                ],
            },
            op_nanos: vec![0.1, 2.0, 3e9, 4.25],
            serial_nanos: 1e10,
            nanos: 0.0,
            tried_nanos: Some(f64::MAX),
            bound_nanos: f64::MIN_POSITIVE,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut learned = learned();
        let text = learned.to_json().unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.contains(r#""phases":[[{"ops":[0,2],"parts":1},"#),
            "{text}"
        );
        assert_eq!(LearnedSchedule::from_json(&text).unwrap(), learned);
        learned.tried_nanos = None;
        let text = learned.to_json().unwrap();
        assert_eq!(LearnedSchedule::from_json(&text).unwrap(), learned);

        let mut other = learned.clone();
        other.threads = 3;
        let list = [learned, other];
        let text = LearnedSchedule::list_to_json(&list).unwrap();
        assert_eq!(LearnedSchedule::list_from_json(&text).unwrap(), list);
        let text = list[1].to_json().unwrap();
        assert_eq!(LearnedSchedule::list_from_json(&text).unwrap(), list[1..]);
        let text = LearnedSchedule::list_to_json(&[]).unwrap();
        assert_eq!(LearnedSchedule::list_from_json(&text).unwrap(), []);
    }

    #[test]
    fn parts_may_be_left_out_and_unknown_keys_stand_there() {
        let text = learned().to_json().unwrap().replace(r#","parts":1"#, "");
        let text = text.replace(r#""threads":2"#, r#""threads":2,"new":[{}]"#);
        assert_eq!(LearnedSchedule::from_json(&text).unwrap(), learned());
    }

    #[test]
    fn a_refusal_says_where_and_what() {
        let text = learned().to_json().unwrap();
        for (from, to, place, word) in [
            (r#""threads":2"#, r#""threads":-2"#, "threads", "-2"),
            (r#""threads":2"#, r#""threads":0"#, "threads", "at least 1"),
            (r#""threads":2,"#, "", "", "missing field `threads`"),
            ("[0.1,2.0", "[0.1,null", "op_nanos[1]", "null"),
            ("[0.1,2.0", "[0.1,-2.0", "op_nanos[1]", "-2 is no time"),
            (r#""nanos":0.0"#, r#""nanos":"0""#, "nanos", "string"),
            (
                r#""nanos":0.0"#,
                r#""nanos":1e999"#,
                "nanos",
                "out of range",
            ),
            (r#"[0,2]"#, r#"[0,-1]"#, "phases[0][0].ops[1]", "-1"),
            (
                r#""parts":4"#,
                r#""parts":0.5"#,
                "phases[1][0].parts",
                "0.5",
            ),
            ("}]]}", "}]]", "", "EOF"),
            ("}]]}", "}]]} more", "", "trailing"),
        ] {
            let spoiled = text.replacen(from, to, 1);
            assert_ne!(spoiled, text, "{from}");
            let error = LearnedSchedule::from_json(&spoiled).unwrap_err();
            let Error::ScheduleText { place: at, reason } = &error else {
                panic!("{error}");
            };
            assert_eq!(at.to_string(), place, "{error}");
            assert!(reason.contains(word), "{to}: {error}");

            let list = format!("[{text},{spoiled}]");
            let error = LearnedSchedule::list_from_json(&list).unwrap_err();
            let Error::ScheduleText { place: at, .. } = &error else {
                panic!("{error}");
            };
            assert!(at.to_string().ends_with(place), "{error}");
        }
        for number in [f64::NAN, f64::INFINITY, -1.0] {
            let mut learned = learned();
            learned.op_nanos[2] = number;
            let error = learned.to_json().unwrap_err().to_string();
            assert!(error.contains("op_nanos[2]"), "{error}");
        }
    }
}
