//! Plans of Svod's, run by this runtime: what comes out is what the tensors mean.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use engine::bundle::Bundle;
use svod_device::Buffer;
use svod_device::device::Program;
use svod_dtype::{DType, DeviceSpec};
use svod_ir::UOp;
use svod_runtime::capture::{Named, Names};
use svod_runtime::{
    CachedKernel, CpuBackend, ExecutionPlan, ExecutionPlanBuilder, PreparedBufferView,
    PreparedCopy, PreparedKernel, PreparedOp,
};
use svod_tensor::{PrepareConfig, Tensor, Variable};

fn matrix(seed: usize) -> Vec<f32> {
    (0..64)
        .map(|i| ((i * 7 + seed) % 11) as f32 - 5.0)
        .collect()
}

fn product(a: &[f32], b: &[f32]) -> Vec<f32> {
    let at = |i: usize| (0..8).map(|k| a[i / 8 * 8 + k] * b[k * 8 + i % 8]).sum();
    (0..64).map(at).collect()
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values).try_reshape([8, 8]).unwrap()
}

fn floats(buffer: &Buffer) -> Vec<f32> {
    let bytes = buffer.as_host_bytes().unwrap().chunks_exact(4);
    bytes
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn a_plan_runs_again_over_what_its_inputs_hold_with_either_backend() {
    for backend in [CpuBackend::Clang, CpuBackend::Llvm] {
        let (a, b) = (tensor(&matrix(1)), tensor(&matrix(2)));
        // Products between which temporaries share memory.
        let mut c = a.matmul(&b).unwrap().contiguous();
        for _ in 0..3 {
            c = c.matmul(&b).unwrap().contiguous();
        }
        let plan = c
            .prepare_with(&PrepareConfig::for_cpu_backend(backend))
            .unwrap();
        for seed in [1, 3, 4] {
            let mut input = a.buffer().unwrap();
            input.copyin(&bytes(&matrix(seed))).unwrap();
            plan.execute().unwrap();
            let mut expected = matrix(seed);
            (0..4).for_each(|_| expected = product(&expected, &matrix(2)));
            assert_eq!(
                floats(plan.output_buffer().unwrap()),
                expected,
                "{backend:?} {seed}"
            );
        }
        let profile = plan.execute_profiled().unwrap();
        assert_eq!(profile.len(), plan.prepared_kernels().len());
        assert!(
            profile
                .iter()
                .all(|p| !p.elapsed.is_zero() && p.num_buffers > 1)
        );
    }
}

#[test]
fn a_captured_plan_gives_the_same_bits_without_svod() {
    let (a, b) = (tensor(&matrix(5)), tensor(&matrix(6)));
    let mut c = a.matmul(&b).unwrap().contiguous().matmul(&b).unwrap();
    let plan = c
        .prepare_with(&PrepareConfig::for_cpu_backend(CpuBackend::Clang))
        .unwrap();
    let (x, y) = (a.buffer().unwrap(), plan.output_buffer().unwrap().clone());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.svod");
    let named = |name, buffer| Named {
        name,
        buffer,
        shape: &[8, 8],
    };
    let names = Names {
        model: "c",
        inputs: &[named("a", &x)],
        states: &[],
        outputs: &[named("c", &y)],
    };
    plan.capture(&names, &path).unwrap();

    let runtime = engine::Runtime::new().unwrap();
    // SAFETY: the bundle was written above, from kernels of Svod's.
    let executable = unsafe { Bundle::open(&path).unwrap().load(&runtime, &|_| ()) }.unwrap();
    let mut instance = executable.instance().unwrap();
    instance
        .set_input("a", engine::View::from_slice(&matrix(5)))
        .unwrap();
    instance.run(&[]).unwrap();
    let expected = product(&product(&matrix(5), &matrix(6)), &matrix(6));
    assert_eq!(
        instance.output("c").unwrap().as_slice::<f32>().unwrap(),
        expected
    );
}

#[test]
fn what_a_bundle_cannot_hold_is_refused_by_name() {
    let a = tensor(&matrix(5));
    let mut c = a.matmul(&a).unwrap();
    let plan = c.prepare().unwrap();
    let y = plan.output_buffer().unwrap().clone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.svod");
    let named = |name, buffer| Named {
        name,
        buffer,
        shape: &[8, 8],
    };
    // The plan writes what is said to be an input.
    let names = Names {
        model: "c",
        inputs: &[named("y", &y)],
        states: &[],
        outputs: &[],
    };
    let refused = plan.capture(&names, &path).unwrap_err().to_string();
    assert!(refused.contains("writes its input `y`"), "{refused}");
    assert!(!path.exists());
}

/// All of a buffer of floats by a name.
struct Whole(&'static str, Buffer, [usize; 1]);

impl Whole {
    fn new(name: &'static str, buffer: &Buffer) -> Whole {
        Whole(name, buffer.clone(), [buffer.size() / 4])
    }

    fn named(&self) -> Named<'_> {
        Named {
            name: self.0,
            buffer: &self.1,
            shape: &self.2,
        }
    }
}

fn capture(
    plan: &ExecutionPlan,
    [inputs, states, outputs]: [&[Whole]; 3],
    path: &Path,
) -> Result<(), String> {
    let [inputs, states, outputs] =
        [inputs, states, outputs].map(|all| all.iter().map(Whole::named).collect::<Vec<_>>());
    let names = Names {
        model: "m",
        inputs: &inputs,
        states: &states,
        outputs: &outputs,
    };
    plan.capture(&names, path).map_err(|e| e.to_string())
}

#[test]
fn memory_of_which_a_plan_writes_a_part_is_a_state_or_refused() {
    let mut all = Tensor::from_slice([1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    all.realize().unwrap();
    let x = Tensor::from_slice([10.0_f32, 20.0]);
    let part = all.try_shrink([(2, 4)]).unwrap();
    part.assign(&(&x + &x));
    let mut written = all.clone();
    let plan = written.prepare().unwrap();
    let given = [Whole::new("x", &x.buffer().unwrap())];
    // The output is a copy of it.
    let left = [Whole::new("all", &all.buffer().unwrap())];
    let outputs = [Whole::new("y", plan.output_buffer().unwrap())];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.svod");

    let refused = capture(&plan, [&given, &[], &outputs], &path).unwrap_err();
    assert!(refused.contains("output `y`"), "{refused}");
    assert!(refused.contains("as a state"), "{refused}");
    assert!(!path.exists());

    capture(&plan, [&given, &left, &outputs], &path).unwrap();
    let runtime = engine::Runtime::new().unwrap();
    // SAFETY: the bundle was written above, from kernels of Svod's.
    let executable = unsafe { Bundle::open(&path).unwrap().load(&runtime, &|_| ()) }.unwrap();
    let mut instance = executable.instance().unwrap();
    instance
        .set_input("x", engine::View::from_slice(&[1.0_f32, 2.0]))
        .unwrap();
    instance.run(&[]).unwrap();
    let expected = [1.0, 2.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    for left in [instance.output("y"), instance.state("all")] {
        assert_eq!(left.unwrap().as_slice::<f32>().unwrap(), expected);
    }
}

#[test]
fn an_input_that_no_op_reads_is_refused_and_one_that_has_two_names() {
    let (a, b) = (tensor(&matrix(5)), tensor(&matrix(6)));
    let mut c = a.matmul(&b).unwrap();
    let plan = c.prepare().unwrap();
    let x = Whole::new("x", &a.buffer().unwrap());
    let again = Whole::new("again", &a.buffer().unwrap());
    let elsewhere = Whole::new("z", &tensor(&matrix(7)).buffer().unwrap());
    let outputs = [Whole::new("c", plan.output_buffer().unwrap())];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.svod");
    let refused = capture(&plan, [&[elsewhere], &[], &outputs], &path).unwrap_err();
    assert!(refused.contains("no op reads the input `z`"), "{refused}");
    let refused = capture(&plan, [&[x, again], &[], &outputs], &path).unwrap_err();
    assert!(refused.contains("`again`"), "{refused}");
    assert!(!path.exists());
}

/// The plan again, with its kernels changed.
fn changed(plan: &ExecutionPlan, change: impl Fn(&mut PreparedKernel)) -> ExecutionPlan {
    let buffers: Vec<&Buffer> = plan.buffers().iter().collect();
    let mut builder = builder(&buffers);
    builder.set_output_buffer(plan.output_buffer_idx());
    for op in plan.prepared_ops() {
        let mut op = op.clone();
        if let PreparedOp::CompiledProgram(kernel) = &mut op {
            change(kernel);
        }
        builder.add_op(op);
    }
    builder.build().unwrap()
}

#[test]
fn a_recorded_run_has_the_values_that_variables_have() {
    let rows = Variable::new("N", 1, 8);
    let shape = [rows.bind(4).unwrap().as_sint()];
    let input = Tensor::empty_dynamic(&shape, DType::Float32);
    input.assign(&Tensor::from_slice([1.0_f32, 2.0, 3.0, 4.0]));
    input.clone().realize().unwrap();
    let mut sum = input.sum(()).unwrap();
    let mut plan = sum.prepare().unwrap();
    let names = |plan: &ExecutionPlan| {
        let output = plan.output_buffer().unwrap();
        let output = Whole("sum", output.clone(), [1]);
        ([Whole::new("x", &input.buffer().unwrap())], [output])
    };
    let folder = tempfile::tempdir().unwrap();
    let to = |name: &str| folder.path().join(name);

    let unbound = changed(&plan, |kernel| kernel.vals.fill(0));
    let (inputs, outputs) = names(&unbound);
    let refused = capture(&unbound, [&inputs, &[], &outputs], &to("unbound")).unwrap_err();
    assert!(refused.contains("`N` is 0"), "{refused}");
    assert!(refused.contains("execute_with_vars"), "{refused}");

    plan.execute_with_vars(&[("N", 3)]).unwrap();
    let (inputs, outputs) = names(&plan);
    capture(&plan, [&inputs, &[], &outputs], &to("bound")).unwrap();
    let bundle = Bundle::open(to("bound")).unwrap();
    assert_eq!(bundle.tests()[0].variables, [("N".to_owned(), 3)]);
}

/// A program of no device's: it writes down what it is called with.
struct Recorder(Arc<Mutex<Vec<Vec<i64>>>>);

impl Program for Recorder {
    unsafe fn execute(
        &self,
        _buffers: &[*mut u8],
        vals: &[i64],
        _global_size: Option<[usize; 3]>,
        _local_size: Option<[usize; 3]>,
    ) -> svod_device::Result<()> {
        self.0.lock().unwrap().push(vals.to_vec());
        Ok(())
    }

    fn name(&self) -> &str {
        "recorder"
    }
}

fn recorder(calls: &Arc<Mutex<Vec<Vec<i64>>>>, id: u64, waits_for: Vec<u64>) -> PreparedKernel {
    foreign(Box::new(Recorder(Arc::clone(calls))), true, id, waits_for)
}

fn foreign(
    program: Box<dyn Program>,
    host_parallel_safe: bool,
    id: u64,
    waits_for: Vec<u64>,
) -> PreparedKernel {
    let one = || UOp::index_const(1);
    let var = svod_runtime::execution_plan::RuntimeVar {
        name: "n".into(),
        min_val: 1,
        max_val: 9,
    };
    PreparedKernel {
        id,
        ast: one(),
        kernel: Arc::new(CachedKernel {
            program,
            device: "test".into(),
            code: String::new(),
            entry_point: "recorder".into(),
            var_names: vec!["n".into(), "op".into()],
            globals: vec![0],
            outs: vec![0],
            ins: vec![],
            host_parallel_safe,
            global_size: [one(), one(), one()],
            local_size: None,
        }),
        device: DeviceSpec::Cpu,
        buffer_indices: vec![0],
        output_indices: vec![0],
        vals: vec![3, id as i64],
        fixedvars: HashMap::from([("op".to_owned(), id as i64)]),
        dependencies: waits_for,
        buffer_ptrs: Vec::new(),
        buffer_ids: Vec::new(),
        runtime_vars: vec![var],
    }
}

fn buffer(floats: usize) -> Buffer {
    let cpu = svod_device::registry::cpu().unwrap();
    Buffer::allocate(cpu, DType::Float32, vec![floats], Default::default()).unwrap()
}

fn builder(buffers: &[&Buffer]) -> ExecutionPlanBuilder {
    let mut builder = ExecutionPlanBuilder::new(DeviceSpec::Cpu);
    for (i, buffer) in buffers.iter().enumerate() {
        builder.add_buffer(i as u64, (*buffer).clone());
    }
    builder.set_output_buffer(0);
    builder
}

#[test]
fn programs_of_others_are_called_in_order_with_their_variables() {
    let calls = Arc::default();
    let mut builder = builder(&[&buffer(4)]);
    builder.add_kernel(recorder(&calls, 7, vec![8]));
    builder.add_kernel(recorder(&calls, 8, vec![]));
    let mut plan = builder.build().unwrap();
    plan.execute().unwrap();
    plan.execute_with_vars(&[("n", 5), ("op", 100)]).unwrap();
    let too_much = plan
        .execute_with_vars(&[("n", 10)])
        .unwrap_err()
        .to_string();
    assert!(too_much.contains("n is 10"), "{too_much}");
    plan.execute().unwrap();
    let expected = [[3, 8], [3, 7], [5, 8], [5, 7], [5, 8], [5, 7]];
    assert_eq!(*calls.lock().unwrap(), expected);
}

#[test]
fn copies_follow_views_and_wrong_ops_fail_when_it_is_their_turn() {
    let (mut from, to) = (buffer(8), buffer(4));
    from.copyin(&bytes(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))
        .unwrap();
    let part = from.view(16, 16).unwrap();
    let copy = |id, buffers: [usize; 2]| {
        PreparedOp::BufferCopy(PreparedCopy {
            id,
            buffer_indices: buffers.to_vec(),
            dependencies: vec![],
        })
    };
    let view = |byte_offset| {
        PreparedOp::BufferView(PreparedBufferView {
            id: 1,
            buffer_indices: vec![2, 1],
            byte_offset,
            byte_size: 16,
            dependencies: vec![],
        })
    };
    let run = |ops: Vec<PreparedOp>| {
        let mut builder = builder(&[&to, &from, &part]);
        ops.into_iter().for_each(|op| builder.add_op(op));
        builder.build().unwrap().execute()
    };
    run(vec![view(16), copy(2, [0, 2])]).unwrap();
    assert_eq!(floats(&to), [4.0, 5.0, 6.0, 7.0]);
    let wrong = run(vec![view(8)]).unwrap_err().to_string();
    assert!(wrong.contains("from byte 8"), "{wrong}");
    let wrong = run(vec![copy(2, [0, 1])]).unwrap_err().to_string();
    assert!(
        wrong.contains("copy 2") && wrong.contains("size mismatch"),
        "{wrong}"
    );
    let wrong = run(vec![copy(2, [0, 9])]).unwrap_err().to_string();
    assert!(wrong.contains("buffer 9"), "{wrong}");
}

#[test]
fn a_kernel_is_not_given_less_than_it_touches() {
    let (a, b) = (tensor(&matrix(1)), tensor(&matrix(2)));
    let mut c = a.matmul(&b).unwrap();
    let plan = c.prepare().unwrap();
    let mut kernel = plan.prepared_kernels()[0].clone();
    let small: Vec<Buffer> = kernel.buffer_indices.iter().map(|_| buffer(63)).collect();
    kernel.buffer_indices = (0..small.len()).collect();
    kernel.dependencies.clear();
    let mut builder = builder(&small.iter().collect::<Vec<_>>());
    builder.add_kernel(kernel);
    let refused = builder.build().unwrap_err().to_string();
    assert!(refused.contains("may touch 256 bytes"), "{refused}");
    assert!(refused.contains("a buffer of 252"), "{refused}");
}

/// The only kernel of a plan, for buffers with these numbers, of which it writes the first.
fn only_kernel(plan: &ExecutionPlan, id: u64, buffers: &[usize]) -> PreparedKernel {
    let mut kernel = plan.prepared_kernels()[0].clone();
    assert_eq!(plan.prepared_kernels().len(), 1);
    assert_eq!(kernel.buffer_indices.len(), buffers.len());
    kernel.id = id;
    kernel.buffer_indices = buffers.to_vec();
    kernel.dependencies.clear();
    kernel
}

#[test]
fn memory_that_is_aligned_to_no_element_is_computed_on_all_the_same() {
    // Nothing of it is wide enough for a vector.
    let (a, b) = (Tensor::from_slice([1.0_f32]), Tensor::from_slice([2.0_f32]));
    let mut sum = &a + &b;
    let plan = sum.prepare().unwrap();
    let mut memory = buffer(4);
    memory
        .copyin(&[vec![0; 6], bytes(&[5.0, 7.0]), vec![0; 2]].concat())
        .unwrap();
    let parts = [2, 6, 10].map(|at| memory.view(at, 4).unwrap());
    let mut builder = builder(&parts.iter().collect::<Vec<_>>());
    builder.add_kernel(only_kernel(&plan, 1, &[0, 1, 2]));
    let plan = builder.build().unwrap();
    plan.execute().unwrap();
    let mut left = vec![0; 16];
    memory.copyout(&mut left).unwrap();
    let expected = [vec![0; 2], bytes(&[12.0, 5.0, 7.0]), vec![0; 2]].concat();
    assert_eq!(left, expected);
}

#[test]
fn an_output_may_lie_where_elements_of_another_type_have_lain() {
    let (a, b) = (tensor(&matrix(1)), tensor(&matrix(2)));
    let floats_of = a.matmul(&b).unwrap().prepare().unwrap();
    let integers: Vec<i32> = (0..64).collect();
    let integers = Tensor::from_slice(&integers).try_reshape([8, 8]).unwrap();
    let integers_of = (&integers + &integers).prepare().unwrap();
    let of = |tensor: &Tensor| tensor.buffer().unwrap();
    let shared = buffer(64);
    let mut builder = builder(&[&shared, &of(&a), &of(&b), &of(&integers)]);
    let count = integers_of.prepared_kernels()[0].buffer_indices.len();
    builder.add_kernel(only_kernel(&integers_of, 1, &[0, 3, 3][..count]));
    builder.add_kernel(only_kernel(&floats_of, 2, &[0, 1, 2]));
    let plan = builder.build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.svod");
    let inputs = [Whole::new("a", &of(&a)), Whole::new("b", &of(&b))];
    capture(&plan, [&inputs, &[], &[Whole::new("c", &shared)]], &path).unwrap();

    let bundle = Bundle::open(&path).unwrap();
    let output = &bundle.plan().outputs()[0];
    let lies = &bundle.plan().buffers()[output.range.buffer];
    assert_eq!((output.dtype, lies.dtype), (engine::DType::F32, None));
    let runtime = engine::Runtime::new().unwrap();
    // SAFETY: the bundle was written above, from kernels of Svod's.
    let executable = unsafe { bundle.load(&runtime, &|_| ()) }.unwrap();
    let mut instance = executable.instance().unwrap();
    let given = [("a", matrix(3)), ("b", matrix(4))];
    for (name, values) in &given {
        instance
            .set_input(name, engine::View::from_slice(values))
            .unwrap();
    }
    instance.run(&[]).unwrap();
    let made = instance.output("c").unwrap();
    assert_eq!(
        made.as_slice::<f32>().unwrap(),
        product(&matrix(3), &matrix(4))
    );
}

#[test]
fn a_plan_that_makes_no_sense_is_not_built() {
    let calls = Arc::default();
    let mut no_output = ExecutionPlanBuilder::new(DeviceSpec::Cpu);
    no_output.add_buffer(0, buffer(1));
    assert!(
        no_output
            .build()
            .unwrap_err()
            .to_string()
            .contains("outputs")
    );
    let mut unknown = builder(&[&buffer(1)]);
    unknown.add_kernel(recorder(&calls, 1, vec![5]));
    assert!(unknown.build().unwrap_err().to_string().contains("op 5"));
    let mut nowhere = builder(&[&buffer(1)]);
    let mut kernel = recorder(&calls, 1, vec![]);
    kernel.buffer_indices = vec![4];
    nowhere.add_kernel(kernel);
    assert!(
        nowhere
            .build()
            .unwrap_err()
            .to_string()
            .contains("buffer 4")
    );
}

/// A program of no device's that is for a while where others may be too.
struct Crowded {
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Program for Crowded {
    unsafe fn execute(
        &self,
        _buffers: &[*mut u8],
        _vals: &[i64],
        _global_size: Option<[usize; 3]>,
        _local_size: Option<[usize; 3]>,
    ) -> svod_device::Result<()> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        for _ in 0..10_000 {
            std::hint::spin_loop();
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn name(&self) -> &str {
        "crowded"
    }
}

#[test]
fn programs_that_may_not_run_beside_others_do_not() {
    let (inside, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let buffers = [buffer(4), buffer(4), buffer(4), buffer(4)];
    let mut builder = builder(&buffers.iter().collect::<Vec<_>>());
    for id in 0..4 {
        let crowded = Crowded {
            inside: Arc::clone(&inside),
            most: Arc::clone(&most),
        };
        let mut kernel = foreign(Box::new(crowded), false, id, vec![]);
        kernel.buffer_indices = vec![id as usize];
        builder.add_kernel(kernel);
    }
    let plan = builder.build().unwrap();
    for _ in 0..200 {
        plan.execute().unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

unsafe extern "C" {
    safe fn fork() -> i32;
    safe fn alarm(seconds: u32) -> u32;
    safe fn _exit(code: i32) -> !;
    fn waitpid(child: i32, status: *mut i32, options: i32) -> i32;
}

/// A program that waits in the middle, twice.
struct Halting(Arc<Barrier>);

impl Program for Halting {
    unsafe fn execute(
        &self,
        _buffers: &[*mut u8],
        _vals: &[i64],
        _global_size: Option<[usize; 3]>,
        _local_size: Option<[usize; 3]>,
    ) -> svod_device::Result<()> {
        self.0.wait();
        self.0.wait();
        Ok(())
    }

    fn name(&self) -> &str {
        "halting"
    }
}

#[test]
fn a_fork_does_not_wait_for_a_run_that_it_has_not() {
    let barrier = Arc::new(Barrier::new(2));
    let mut builder = builder(&[&buffer(4)]);
    let halting = Box::new(Halting(Arc::clone(&barrier)));
    builder.add_kernel(foreign(halting, true, 1, vec![]));
    let plan = builder.build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|s| {
        let run = s.spawn(|| plan.execute());
        barrier.wait();
        let child = fork();
        if child == 0 {
            // What waits for ever is ended.
            alarm(20);
            let ran = plan.execute().map_err(|e| e.to_string());
            // Nor is it captured in the middle of a run.
            let captured = capture(&plan, [&[], &[], &[]], &folder.path().join("m.svod"));
            let has_failed = |done: Result<(), String>| done.is_err_and(|e| e.contains("forked"));
            _exit(if has_failed(ran) && has_failed(captured) {
                0
            } else {
                1
            });
        }
        let mut status = -1;
        // SAFETY: it writes one `int`, which lives until it returns.
        assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        barrier.wait();
        run.join().unwrap().unwrap();
    });
}
