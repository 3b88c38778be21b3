//! A plan built in code: two kernels, scratch between them, a state that the next run
//! finds, a number chosen at each run, and a function of this program as its last op.
//!
//! `cargo run --release -p svod-runtime --example plan`

use svod_runtime::memory::Constant;
use svod_runtime::plan::{Executable, PlanBuilder};
use svod_runtime::{Arg, Bounds, Buffer, DType, Error, Runtime, Signature, Source, View};

const WORDS: usize = 8;
const WIDTH: usize = 16;

/// `hidden = state + embedding[word]`, kept as the next state.
const STEP: &str = "
void step(float *restrict hidden, float *restrict state, const float *restrict embedding,
          int word) {
    for (int i = 0; i < 16; i++)
        hidden[i] = state[i] = 0.5f * state[i] + embedding[16 * word + i];
}";

/// `scores[i] = embedding[i] · hidden read backwards`, one row for each grid index.
const SCORE: &str = "
void score(float *restrict scores, const float *restrict hidden,
           const float *restrict embedding, int i) {
    float sum = 0;
    for (int j = 0; j < 16; j++) sum += embedding[16 * i + j] * hidden[15 - j];
    scores[i] = sum;
}";

fn main() -> Result<(), Error> {
    let f32 = DType::F32;
    let step = Signature::builder()
        .write(f32, WIDTH)
        .read_write(f32, WIDTH)
        .read(f32, WORDS * WIDTH)
        .scalar(DType::I32, "word", Bounds::integers(0, 7))
        .build()?;
    let score = Signature::builder()
        .write(f32, WORDS)
        .read(f32, WIDTH)
        .read(f32, WORDS * WIDTH)
        .index(DType::I32, WORDS as u64)
        .build()?;

    let mut plan = PlanBuilder::new("next word");
    let word = plan.variable("word", 0, 7)?;
    let embedding = plan.constant("embedding", f32, &[WORDS, WIDTH])?;
    let state = plan.state("state", f32, &[WIDTH])?;
    let hidden = plan.temp(f32, &[WIDTH])?;
    let scores = plan.temp(f32, &[WORDS])?;
    let next = plan.output("next", DType::I32, &[1])?;

    let step_kernel = plan.kernel("step", step.clone());
    let score_kernel = plan.kernel("score", score.clone());
    let args = [hidden, state, embedding];
    plan.launch(step_kernel, &args, &[("word", word.into())], 1)?;
    let args = [scores, hidden, embedding];
    plan.launch(score_kernel, &args, &[], WORDS as i64)?;
    plan.host("argmax", &[scores.read(), next.write()], |args| {
        let [Arg::Read(scores), Arg::Write(next)] = args else {
            return Err("the plan gives other arguments".into());
        };
        let scores = scores.as_slice::<f32>()?.iter().enumerate();
        let best = scores.max_by(|a, b| a.1.total_cmp(b.1));
        next.copy_from(View::from_slice(&[best.map_or(0, |(i, _)| i as i32)]))?;
        Ok(())
    })?;
    let plan = plan.build()?;
    println!(
        "{} ops in {} waves; {} bytes an instance, {} of them for temps",
        plan.ops().len(),
        plan.depth(),
        plan.memory().instance,
        plan.memory().arena
    );

    let runtime = Runtime::new()?;
    // SAFETY: both touch what their signatures say, for a word in its bounds and a grid
    // of at most 8.
    let kernels = unsafe {
        vec![
            runtime.load(&Source::c("step", STEP), step)?,
            runtime.load(&Source::c("score", SCORE), score)?,
        ]
    };
    let numbers: Vec<f32> = (0..WORDS * WIDTH)
        .map(|i| ((i * 7919 + 13) % 97) as f32 / 97.0 - 0.5)
        .collect();
    let weights = Constant::from(Buffer::from_slice(&numbers)?);
    let executable = Executable::new(plan, kernels, [(embedding.buffer, weights)])?;

    // Each instance has a state of its own; code and weights are shared.
    let executable = &executable;
    std::thread::scope(|scope| -> Result<(), Error> {
        let threads = [0, 3].map(|start| scope.spawn(move || sentence(executable, start)));
        for thread in threads {
            let words = thread
                .join()
                .unwrap_or_else(|p| std::panic::resume_unwind(p))?;
            println!("{words:?}");
        }
        Ok(())
    })
}

fn sentence(executable: &Executable, start: i64) -> Result<Vec<i64>, Error> {
    let mut instance = executable.instance()?;
    let mut words = vec![start];
    for _ in 0..8 {
        instance.run(&[("word", words[words.len() - 1])])?;
        let next = instance.output("next")?.as_slice::<i32>()?[0];
        words.push(next.into());
    }
    Ok(words)
}
