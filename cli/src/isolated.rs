//! Bundles that nobody vouches for, and those that somebody does, behind one face.

use std::time::Duration;

use svod_runtime::bundle::{Bundle, Load, Runner};
use svod_runtime::confine::{Confinement, Helper, Protections};
use svod_runtime::plan::Instance;
use svod_runtime::sandbox::{Confined, ConfinedPlan, Limits, PlanOptions};
use svod_runtime::{Error, Runtime, RuntimeBuilder, View};

use crate::RunArgs;
use crate::loading::{self, Loading};

/// The same runtime, whose compilers are confined.
pub(crate) fn confine(builder: RuntimeBuilder, args: &RunArgs) -> Result<RuntimeBuilder, Error> {
    let helper = Helper::this_program()?;
    let confinement = Confinement::new(helper).allow_less(args.allow_less);
    Ok(builder.confine_compilers(confinement))
}

/// What kernels run in.
pub(crate) fn sandbox(args: &RunArgs) -> Result<Confined, Error> {
    let helper = Helper::this_program()?;
    let mut limits = Limits::default().wall(args.time_limit);
    limits.memory = Some(args.memory_limit);
    if args.allow_less {
        for (protection, why) in Protections::of_this_system().missing() {
            crate::say(&format!("note: this system lacks {protection}: {why}"));
        }
        return Ok(Confined::with_less(helper, limits));
    }
    Confined::new(helper, limits)
}

/// A bundle's plan in a helper, its kernels made ready behind a progress bar.
pub(crate) fn load<'a>(
    sandbox: &'a Confined,
    bundle: &'a Bundle,
    runtime: &Runtime,
    carried: bool,
) -> Result<(ConfinedPlan<'a>, Loading), Error> {
    let options = PlanOptions::default()
        .threads(runtime.pool().threads())
        .guard(runtime.guard());
    loading::watched(bundle, carried, |load: &Load<'_>| {
        sandbox.load(bundle, runtime, load, options)
    })
}

/// What the runs of one command are made on.
pub(crate) enum Side<'a> {
    Here(Box<Instance>),
    There(Box<ConfinedPlan<'a>>),
}

impl Side<'_> {
    /// The instance, where it is in this process.
    pub(crate) fn instance(&mut self) -> Option<&mut Instance> {
        match self {
            Side::Here(instance) => Some(instance),
            Side::There(_) => None,
        }
    }

    const fn runner(&self) -> &dyn Runner {
        match self {
            Side::Here(instance) => &**instance,
            Side::There(plan) => &**plan,
        }
    }

    const fn runner_mut(&mut self) -> &mut dyn Runner {
        match self {
            Side::Here(instance) => &mut **instance,
            Side::There(plan) => &mut **plan,
        }
    }
}

impl Runner for Side<'_> {
    fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        self.runner_mut().set_input(name, elements)
    }

    fn run_once(&mut self, variables: &[i64]) -> Result<Duration, Error> {
        self.runner_mut().run_once(variables)
    }

    fn output(&self, name: &str) -> Result<View<'_>, Error> {
        self.runner().output(name)
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.runner_mut().reset()
    }
}
