//! Of many things that each took some time, one that took about as long as most.

/// Things whose times are near the median, as that is known by now.
#[derive(Debug, Default)]
pub(crate) struct Typical<T> {
    kept: Vec<(f64, T)>,
}

/// How many are kept: the median moves while there are more to come.
const KEPT: usize = 16;

impl<T: Default> Typical<T> {
    /// Takes a thing that took so long in, where it is nearer to the median than another; leaves
    /// something to be used again.
    pub(crate) fn offer(&mut self, thing: &mut T, took: f64, median: f64) {
        if self.kept.len() < KEPT {
            self.kept.push((took, std::mem::take(thing)));
            return;
        }
        let far = |&(took, _): &(f64, T)| (took - median).abs();
        let farthest = self
            .kept
            .iter_mut()
            .max_by(|a, b| far(a).total_cmp(&far(b)));
        if let Some(kept) = farthest.filter(|kept| far(kept) > (took - median).abs()) {
            kept.0 = took;
            std::mem::swap(&mut kept.1, thing);
        }
    }

    /// The one nearest to the median.
    pub(crate) fn nearest(self, median: f64) -> Option<T> {
        let far = |&(took, _): &(f64, T)| (took - median).abs();
        let kept = self.kept.into_iter();
        kept.min_by(|a, b| far(a).total_cmp(&far(b)))
            .map(|(_, thing)| thing)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Takes these times in, and returns the one that is kept and the median of all.
    fn kept(times: &[f64]) -> (f64, f64) {
        let mut typical = Typical::default();
        let mut all = Vec::new();
        let mut median = 0.0;
        for &time in times {
            all.push(time);
            all.sort_by(f64::total_cmp);
            median = all[all.len() / 2];
            typical.offer(&mut time.clone(), time, median);
        }
        (typical.nearest(median).unwrap(), median)
    }

    #[test]
    fn of_few_it_is_the_one_in_the_middle_wherever_it_came() {
        assert_eq!(kept(&[7.0]), (7.0, 7.0));
        assert_eq!(kept(&[9.0, 5.0, 1.0]), (5.0, 5.0));
        assert_eq!(kept(&[5.0, 9.0, 1.0, 30.0, 2.0]), (5.0, 5.0));
    }

    #[test]
    fn of_many_it_is_near_the_middle_though_the_last_is_not() {
        let times: Vec<_> = (0..999).map(|i| f64::from(i * 617 % 1000)).collect();
        let (kept, median) = kept(&times);
        assert!((kept - median).abs() < 10.0, "{kept} for {median}");
        assert!((times[998] - median).abs() > 100.0);
    }

    #[test]
    fn none_is_none() {
        assert_eq!(Typical::<u8>::default().nearest(1.0), None);
    }
}
