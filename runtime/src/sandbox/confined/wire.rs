//! What a host and its helper tell each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::compile::Object;
use crate::memory::Guard;
use crate::signature::{Convention, Param, Returns, Signature};

/// How many launches a request has at most.
pub(super) const MOST: usize = 1000;

/// What a request asks for: what its text says, ...
pub(super) const TEXT: u32 = 1;
/// ... another run of the plan, or ...
pub(super) const RUN: u32 = 2;
/// ... that its states are as at the start.
pub(super) const RESET: u32 = 3;

/// Bytes of the file.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Span {
    pub(super) at: u64,
    pub(super) bytes: u64,
}

/// A request, but for runs.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Task {
    Launches(Launches),
    Plan(PlanTask),
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Launches {
    pub(super) kernels: Vec<KernelText>,
    pub(super) launches: Vec<LaunchText>,
    /// Nanoseconds of the processors' time that each may have.
    pub(super) cpu: Option<u64>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct KernelText {
    entry: String,
    params: Vec<Param>,
    packed: bool,
    status: bool,
    object: Span,
}

impl KernelText {
    pub(super) fn new(entry: &str, signature: &Signature, object: Span) -> KernelText {
        KernelText {
            entry: entry.to_owned(),
            params: signature.params().to_vec(),
            packed: signature.convention() == Convention::Packed,
            status: signature.returns() == Returns::Status,
            object,
        }
    }

    /// The object and the signature; `read` has the file's bytes.
    pub(super) fn read(
        self,
        read: impl Fn(Span) -> Result<Vec<u8>, Error>,
    ) -> Result<(Object, Signature), Error> {
        let convention = match self.packed {
            true => Convention::Packed,
            false => Convention::C,
        };
        let returns = match self.status {
            true => Returns::Status,
            false => Returns::Void,
        };
        let signature = Signature::new(self.params, convention, returns)?;
        Ok((Object::new(self.entry, read(self.object)?), signature))
    }
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct LaunchText {
    pub(super) kernel: usize,
    pub(super) args: Vec<ArgText>,
    pub(super) scalars: Vec<u64>,
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) reversed: bool,
    pub(super) order: Option<Vec<u64>>,
}

/// An argument: whole pages of the file, with the buffer at one end.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct ArgText {
    pub(super) at: u64,
    pub(super) len: usize,
    pub(super) align: usize,
    pub(super) start: bool,
}

impl ArgText {
    pub(super) const fn guard(&self) -> Guard {
        if self.start { Guard::Start } else { Guard::End }
    }
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct PlanTask {
    /// The bundle's folder, and the object of each of its kernels.
    pub(super) bundle: PathBuf,
    pub(super) objects: Vec<Span>,
    pub(super) threads: usize,
    pub(super) guard: String,
    /// Where inputs are found and outputs are put, in the plan's order, and variables.
    pub(super) inputs: Vec<(String, Span)>,
    pub(super) outputs: Vec<Span>,
    pub(super) variables: Span,
    /// Nanoseconds of the processors' time that a run may have.
    pub(super) cpu: Option<u64>,
}

/// What is mapped where in a helper, for whoever explains how it ended. It is written before any
/// code runs.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct SceneText {
    pub(super) stack: (usize, usize),
    pub(super) below: (usize, usize),
    /// Of each kernel: where its code lies, and each function of it.
    pub(super) code: Vec<CodeText>,
    /// Of launches, the address of each argument; of a plan, of each buffer.
    pub(super) places: Vec<Vec<u64>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct CodeText {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) functions: Vec<(String, u64)>,
}

impl SceneText {
    /// The function that an address is in, and how many bytes into it; and which kernel's it is.
    pub(super) fn locate(&self, address: u64) -> Option<(usize, &str, u64)> {
        let mut code = self.code.iter().enumerate();
        let (kernel, code) = code.find(|(_, c)| (c.start..c.end).contains(&address))?;
        let before = code.functions.iter().filter(|(_, at)| *at <= address);
        let (name, at) = before.max_by_key(|(_, at)| *at)?;
        Some((kernel, name, address - at))
    }
}
