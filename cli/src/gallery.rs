//! The pictures that a classifier was given, with what it answered.

use svod_runtime::bundle::npy::{self, Array};
use svod_runtime::bundle::{Bundle, Classified, Runner, Test, to_f64};

use crate::Failure;
use crate::pictures::{self, Picture};
use crate::show;

/// How many pictures are drawn, half of them answered wrongly where there are as
/// many.
const SHOWN: usize = 8;

/// Pictures and answers.
#[derive(Default)]
pub(crate) struct Gallery {
    right: Vec<Picture>,
    wrong: Vec<Picture>,
}

impl Gallery {
    /// Adds the pictures of a recorded test. A bundle that is no classifier has
    /// none.
    pub(crate) fn add_test(
        &mut self,
        bundle: &Bundle,
        test: &Test,
        classified: &Classified,
    ) -> Result<(), Failure> {
        let images = bundle.classifier().map(|c| &c.images);
        let file = test.inputs.iter().find(|(name, _)| Some(name) == images);
        let Some((_, file)) = file else {
            return Ok(());
        };
        let array = npy::read(file)?;
        self.add(bundle, &array, &classified.answers, Some(&classified.truth))
    }

    /// Adds the pictures among given inputs.
    pub(crate) fn add_inputs(
        &mut self,
        bundle: &Bundle,
        inputs: &[(&str, Array)],
        runner: &impl Runner,
    ) -> Result<(), Failure> {
        let Some(classifier) = bundle.classifier() else {
            return Ok(());
        };
        let given = inputs.iter().find(|(name, _)| *name == classifier.images);
        let Some((_, array)) = given else {
            return Ok(());
        };
        let answers = bundle.answers(runner, &classifier.scores)?;
        self.add(bundle, array, &answers, None)
    }

    fn add(
        &mut self,
        bundle: &Bundle,
        array: &Array,
        answers: &[usize],
        truth: Option<&[usize]>,
    ) -> Result<(), Failure> {
        let label = |class: usize| match bundle.labels().get(class) {
            Some(label) => show::plain(label),
            None => format!("[{class}]"),
        };
        let &[_, height, width] = array.shape.as_slice() else {
            return Ok(());
        };
        if height > pictures::MAX_SIDE || width > pictures::MAX_SIDE {
            return Ok(());
        }
        let pixels = to_f64(array.elements.as_view())?;
        let images = pixels.chunks((height * width).max(1));
        for (i, (pixels, &answer)) in images.zip(answers).enumerate() {
            let truth = truth.map_or(answer, |truth| truth[i]);
            let mut caption = format!("→ {}", label(answer));
            if answer != truth {
                caption += &format!(" (is {})", label(truth));
            }
            let picture = Picture {
                width,
                pixels: pixels.to_vec(),
                caption,
            };
            if answer == truth {
                self.right.push(picture);
            } else {
                self.wrong.push(picture);
            }
        }
        Ok(())
    }

    /// A few of them, drawn.
    pub(crate) fn lines(&self) -> Vec<String> {
        let wrong = self.wrong.len().min(SHOWN / 2);
        let right = self.right.len().min(SHOWN - wrong);
        let mut lines = pictures::draw(&self.right[..right]);
        if wrong > 0 {
            let of = self.wrong.len();
            lines.push(format!("answered wrongly, {wrong} of {of}:"));
            lines.push(String::new());
            lines.extend(pictures::draw(&self.wrong[..wrong]));
        }
        lines
    }
}
