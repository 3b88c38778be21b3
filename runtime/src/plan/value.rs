//! Numbers that may depend on the run: VALUE in the bundle format.

use std::fmt;
use std::ops::{Add, Mul};

use crate::signature::Number;

/// A variable of a plan, as [`PlanBuilder::variable`](super::PlanBuilder::variable)
/// gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VariableId(pub(crate) usize);

/// A variable: an integer chosen at each run, within inclusive bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The smallest value it may take.
    pub min: i64,
    /// The largest value it may take.
    pub max: i64,
}

/// A number, or a way to compute one from the variables of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The same in every run.
    Number(Number),
    /// What the run chose.
    Variable(VariableId),
    /// Computed in 64-bit integers; overflow and division by zero are errors. Made
    /// by [`Value::op`].
    Op(Expression),
    /// Nested deeper than [`MAX_DEPTH`](Value::MAX_DEPTH); no plan takes it.
    TooDeep,
}

/// Two values under an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    operator: Operator,
    operands: Box<[Value; 2]>,
    depth: usize,
}

impl Expression {
    /// What is computed.
    #[must_use]
    pub const fn operator(&self) -> Operator {
        self.operator
    }

    /// Of which two values.
    #[must_use]
    pub const fn operands(&self) -> &[Value; 2] {
        &self.operands
    }
}

/// What is computed of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is what its name says
pub enum Operator {
    Add,
    Mul,
    /// Division, rounded towards negative infinity.
    FloorDiv,
    /// What that division leaves: it has the divisor's sign.
    Mod,
    Min,
    Max,
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Number(Number::Int(value.into()))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Number(Number::Float(value))
    }
}

impl From<VariableId> for Value {
    fn from(value: VariableId) -> Value {
        Value::Variable(value)
    }
}

impl<V: Into<Value>> Add<V> for Value {
    type Output = Value;

    /// [`Operator::Add`], as [`Value::op`] makes it.
    fn add(self, other: V) -> Value {
        Value::op(Operator::Add, self, other)
    }
}

impl<V: Into<Value>> Add<V> for VariableId {
    type Output = Value;

    /// [`Operator::Add`], as [`Value::op`] makes it.
    fn add(self, other: V) -> Value {
        Value::op(Operator::Add, self, other)
    }
}

impl<V: Into<Value>> Mul<V> for Value {
    type Output = Value;

    /// [`Operator::Mul`], as [`Value::op`] makes it.
    fn mul(self, other: V) -> Value {
        Value::op(Operator::Mul, self, other)
    }
}

impl<V: Into<Value>> Mul<V> for VariableId {
    type Output = Value;

    /// [`Operator::Mul`], as [`Value::op`] makes it.
    fn mul(self, other: V) -> Value {
        Value::op(Operator::Mul, self, other)
    }
}

/// How many operators and operands are computed with, over all assignments of
/// the variables, where intervals cannot prove a value: some 0.4 ms of work.
/// 0 leaves such values unproved, and so refused.
const MAX_STEPS: u128 = 1 << 16;

/// How many of these steps all values of a plan may take together: half a second. A
/// plan of a thousand values that each take all they may is proved.
pub(super) const MAX_STEPS_OF_A_PLAN: u128 = 1 << 26;

impl Value {
    /// `a` and `b` under an operator. Sums and products are to be had with `+` and `*` too:
    ///
    /// ```
    /// # use svod_runtime::plan::{Operator, PlanBuilder, Value};
    /// # let mut plan = PlanBuilder::new("sums");
    /// let n = plan.variable("n", 0, 9)?;
    /// let sum = Value::op(Operator::Add, Value::op(Operator::Mul, n, 2), 1);
    /// assert_eq!(n * 2 + 1, sum);
    /// # Ok::<(), svod_runtime::Error>(())
    /// ```
    #[must_use]
    pub fn op(operator: Operator, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        let operands = [a.into(), b.into()];
        let depth = |v: &Value| match v {
            Value::Number(_) | Value::Variable(_) => Some(0),
            Value::Op(expression) => Some(expression.depth),
            Value::TooDeep => None,
        };
        match operands.each_ref().map(depth) {
            [Some(a), Some(b)] if a.max(b) < Value::MAX_DEPTH => Value::Op(Expression {
                operator,
                operands: Box::new(operands),
                depth: a.max(b) + 1,
            }),
            _ => Value::TooDeep,
        }
    }

    /// How deep operators may be nested: deeper than any JSON that is read, and not
    /// so deep that a walk would leave the stack.
    pub const MAX_DEPTH: usize = 256;

    /// The number, where `variables` holds the run's choice for each variable.
    pub(crate) fn evaluate(&self, variables: &[i64]) -> Result<Number, String> {
        match self {
            Value::Number(number) => Ok(*number),
            _ => self.integer(variables).map(|v| Number::Int(v.into())),
        }
    }

    fn integer(&self, variables: &[i64]) -> Result<i64, String> {
        match self {
            Value::Number(Number::Int(v)) => {
                i64::try_from(*v).map_err(|_| format!("{v} is more than 64-bit integers hold"))
            }
            Value::Number(Number::Float(v)) => {
                Err(format!("{v} stands where integers are computed with"))
            }
            Value::Variable(id) => variables
                .get(id.0)
                .copied()
                .ok_or_else(|| "a variable of another plan".into()),
            Value::Op(Expression {
                operator, operands, ..
            }) => {
                let [a, b] = &**operands;
                let (a, b) = (a.integer(variables)?, b.integer(variables)?);
                operator
                    .apply(a.into(), b.into())
                    .and_then(|v| i64::try_from(v).ok())
                    .ok_or_else(|| operator.failure(a, b))
            }
            Value::TooDeep => Err(Value::too_deep()),
        }
    }

    /// Proves that `holds` for the value whichever values the variables take, or
    /// says for which it does not. `holds` must accept an unbroken range. `steps` is what
    /// may still be spent on trying values.
    pub(crate) fn prove(
        &self,
        variables: &[Variable],
        steps: &mut u128,
        holds: impl Fn(Number) -> Result<(), String>,
    ) -> Result<(), String> {
        if let Value::Number(number) = self {
            return holds(*number);
        }
        // Intervals first: they are right whenever they say yes.
        let interval = self.interval(variables)?;
        if let Some((low, high)) = interval
            && holds(Number::Int(low)).is_ok()
            && holds(Number::Int(high)).is_ok()
        {
            return Ok(());
        }
        // They may say no to what is well (`x % 8 + 8 * (x // 8)` is x); then, if
        // the variables take few values, all are tried.
        let mut used = Vec::new();
        self.variables(&mut used);
        let span = |v: &Variable| (i128::from(v.max) - i128::from(v.min)).unsigned_abs() + 1;
        let assignments = used
            .iter()
            .try_fold(1_u128, |n, &id| n.checked_mul(span(&variables[id])))
            .filter(|n| n.saturating_mul(self.size()) <= MAX_STEPS.min(*steps));
        let Some(assignments) = assignments else {
            return Err(match interval {
                Some((low, high)) => format!(
                    "it could be anything from {low} to {high}, and it is too much work to try all \
                     values of its variables"
                ),
                None => "it could overflow or divide by zero, and it is too much work to try all \
                         values of its variables"
                    .into(),
            });
        };
        *steps -= assignments.saturating_mul(self.size());
        let mut values: Vec<i64> = variables.iter().map(|v| v.min).collect();
        for mut assignment in 0..assignments {
            for &id in &used {
                let step = assignment % span(&variables[id]);
                assignment /= span(&variables[id]);
                // At most `max`, which is an i64.
                values[id] = variables[id].min.wrapping_add(step as i64);
            }
            let outcome = self.evaluate(&values).and_then(&holds);
            if let Err(reason) = outcome {
                let at: Vec<_> = used
                    .iter()
                    .map(|&id| format!("{} = {}", variables[id].name, values[id]))
                    .collect();
                return Err(format!("{reason}, where {}", at.join(", ")));
            }
        }
        Ok(())
    }

    /// A range that holds every value that this can take; `None` where it may
    /// fail to compute.
    fn interval(&self, variables: &[Variable]) -> Result<Option<(i128, i128)>, String> {
        Ok(match self {
            Value::Number(Number::Int(v)) if i64::try_from(*v).is_ok() => Some((*v, *v)),
            Value::Number(_) => return self.integer(&[]).map(|v| Some((v.into(), v.into()))),
            Value::Variable(id) => {
                let v = variables.get(id.0).ok_or("a variable of another plan")?;
                Some((v.min.into(), v.max.into()))
            }
            Value::Op(Expression {
                operator, operands, ..
            }) => {
                let [a, b] = &**operands;
                match (a.interval(variables)?, b.interval(variables)?) {
                    (Some(a), Some(b)) => operator.interval(a, b),
                    _ => None,
                }
            }
            Value::TooDeep => return Err(Value::too_deep()),
        })
    }

    fn too_deep() -> String {
        format!("an expression nested deeper than {}", Value::MAX_DEPTH)
    }

    /// Whether it is the same in every run.
    pub(crate) fn is_constant(&self) -> bool {
        let mut found = Vec::new();
        self.variables(&mut found);
        found.is_empty()
    }

    /// How many operators and operands it has.
    fn size(&self) -> u128 {
        match self {
            Value::Number(_) | Value::Variable(_) | Value::TooDeep => 1,
            Value::Op(e) => 1 + e.operands.iter().map(Value::size).sum::<u128>(),
        }
    }

    /// The variables that it depends on, each once.
    fn variables(&self, found: &mut Vec<usize>) {
        match self {
            Value::Number(_) | Value::TooDeep => {}
            Value::Variable(id) if found.contains(&id.0) => {}
            Value::Variable(id) => found.push(id.0),
            Value::Op(e) => e.operands.iter().for_each(|v| v.variables(found)),
        }
    }
}

impl Operator {
    /// Exact for operands of 64 bits; `None` for division by zero.
    fn apply(self, a: i128, b: i128) -> Option<i128> {
        Some(match self {
            Operator::Add => a + b,
            Operator::Mul => a * b,
            Operator::Min => a.min(b),
            Operator::Max => a.max(b),
            Operator::FloorDiv | Operator::Mod if b == 0 => return None,
            Operator::FloorDiv => {
                let inexact = a % b != 0 && (a < 0) != (b < 0);
                a / b - i128::from(inexact)
            }
            Operator::Mod => a - b * Operator::FloorDiv.apply(a, b)?,
        })
    }

    fn failure(self, a: i64, b: i64) -> String {
        match self {
            Operator::FloorDiv | Operator::Mod if b == 0 => format!("{a} is divided by zero"),
            _ => format!("{self} of {a} and {b} overflows 64 bits"),
        }
    }

    fn interval(self, a: (i128, i128), b: (i128, i128)) -> Option<(i128, i128)> {
        let (low, high) = match self {
            Operator::Min => (a.0.min(b.0), a.1.min(b.1)),
            Operator::Max => (a.0.max(b.0), a.1.max(b.1)),
            Operator::FloorDiv | Operator::Mod if b.0 <= 0 && b.1 >= 0 => return None,
            // What is smaller than any divisor is left as it is.
            Operator::Mod if a.0 >= 0 && a.1 < b.0 => a,
            Operator::Mod if a.0 >= 0 && b.0 > 0 => (0, a.1.min(b.1 - 1)),
            Operator::Mod if b.0 > 0 => (0, b.1 - 1),
            Operator::Mod => (b.0 + 1, 0),
            // Monotonic in each operand while the other is fixed, so that the
            // extremes lie at the corners.
            Operator::Add | Operator::Mul | Operator::FloorDiv => {
                let corners = [(a.0, b.0), (a.0, b.1), (a.1, b.0), (a.1, b.1)];
                let values = corners.map(|(a, b)| self.apply(a, b).unwrap_or_default());
                let low = values.into_iter().min()?;
                (low, values.into_iter().max()?)
            }
        };
        let fits = |v: i128| i64::try_from(v).is_ok();
        (fits(low) && fits(high)).then_some((low, high))
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operator::Add => "the sum",
            Operator::Mul => "the product",
            Operator::FloorDiv => "the quotient",
            Operator::Mod => "the remainder",
            Operator::Min => "the minimum",
            Operator::Max => "the maximum",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(ranges: &[(i64, i64)]) -> Vec<Variable> {
        let variable = |(i, &(min, max)): (usize, &(i64, i64))| Variable {
            name: format!("v{i}"),
            min,
            max,
        };
        ranges.iter().enumerate().map(variable).collect()
    }

    fn steps() -> u128 {
        MAX_STEPS_OF_A_PLAN
    }

    fn within(low: i128, high: i128) -> impl Fn(Number) -> Result<(), String> {
        move |n| match n {
            Number::Int(v) if (low..=high).contains(&v) => Ok(()),
            other => Err(format!("{other} is outside {low}..={high}")),
        }
    }

    #[test]
    fn division_floors() {
        let of = |op, a: i64, b: i64| Value::op(op, a, b).evaluate(&[]);
        let int = |v| Ok(Number::Int(v));
        assert_eq!(of(Operator::FloorDiv, -7, 2), int(-4));
        assert_eq!(of(Operator::Mod, -7, 2), int(1));
        assert_eq!(of(Operator::FloorDiv, 7, -2), int(-4));
        assert_eq!(of(Operator::Mod, 7, -2), int(-1));
        assert!(of(Operator::FloorDiv, 1, 0).unwrap_err().contains("zero"));
        assert!(of(Operator::Mod, 1, 0).unwrap_err().contains("zero"));
        assert!(
            of(Operator::FloorDiv, i64::MIN, -1)
                .unwrap_err()
                .contains("overflows")
        );
        assert!(
            of(Operator::Mul, i64::MAX, 2)
                .unwrap_err()
                .contains("overflows")
        );
    }

    #[test]
    fn a_counterexample_is_named() {
        let n = Value::Variable(VariableId(0));
        let twice = Value::op(Operator::Mul, n, 2);
        let vars = variables(&[(1, 64)]);
        assert_eq!(twice.prove(&vars, &mut steps(), within(0, 128)), Ok(()));
        let error = twice
            .prove(&vars, &mut steps(), within(0, 127))
            .unwrap_err();
        assert_eq!(error, "128 is outside 0..=127, where v0 = 64");
    }

    #[test]
    fn what_intervals_cannot_prove_is_tried() {
        // x - 8 * (x // 8) - x % 8 is 0; intervals only see -71..=71.
        let x = || Value::Variable(VariableId(0));
        let rest = Value::op(
            Operator::Add,
            Value::op(Operator::Mul, Value::op(Operator::FloorDiv, x(), 8), -8),
            Value::op(
                Operator::Add,
                x(),
                Value::op(Operator::Mul, Value::op(Operator::Mod, x(), 8), -1),
            ),
        );
        assert_eq!(
            rest.prove(&variables(&[(0, 71)]), &mut steps(), within(0, 0)),
            Ok(())
        );
        let many = variables(&[(0, i64::MAX)]);
        assert!(rest.prove(&many, &mut steps(), within(0, 0)).is_err());
    }

    #[test]
    fn what_all_values_of_a_plan_may_take_has_an_end() {
        // It is 0, which intervals do not see.
        let x = || Value::Variable(VariableId(0));
        let zero = Value::op(
            Operator::Add,
            Value::op(Operator::Mul, Value::op(Operator::Mod, x(), 72), -1),
            x(),
        );
        let vars = variables(&[(0, 71)]);
        let mut left = 72 * zero.size();
        assert_eq!(zero.prove(&vars, &mut left, within(0, 0)), Ok(()));
        assert_eq!(left, 0);
        let error = zero.prove(&vars, &mut left, within(0, 0)).unwrap_err();
        assert!(error.contains("too much work"), "{error}");
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_and_harms_nobody() {
        let nest = |n| (0..n).fold(Value::from(0), |v, _| Value::op(Operator::Add, v, 1));
        let deep = nest(Value::MAX_DEPTH);
        assert_eq!(deep.evaluate(&[]), Ok(Number::Int(256)));
        for n in [Value::MAX_DEPTH + 1, 1_000_000] {
            let error = nest(n).prove(&[], &mut steps(), |_| Ok(())).unwrap_err();
            assert!(error.contains("deeper than 256"), "{error}");
        }
    }

    #[test]
    fn a_remainder_is_no_larger_than_what_is_divided() {
        let n = Value::op(Operator::Min, Value::Variable(VariableId(0)), 60_000);
        let vars = variables(&[(0, i64::MAX)]);
        let rest = Value::op(Operator::Mod, n, 200_000);
        assert_eq!(rest.prove(&vars, &mut steps(), within(0, 60_000)), Ok(()));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (-20_i64..20).prop_map(Value::from),
            Just(i64::MAX).prop_map(Value::from),
            (0_usize..2).prop_map(|i| Value::Variable(VariableId(i))),
        ];
        leaf.prop_recursive(3, 16, 2, |inner| {
            let operator = prop_oneof![
                Just(Operator::Add),
                Just(Operator::Mul),
                Just(Operator::FloorDiv),
                Just(Operator::Mod),
                Just(Operator::Min),
                Just(Operator::Max),
            ];
            (operator, inner.clone(), inner).prop_map(|(op, a, b)| Value::op(op, a, b))
        })
    }

    proptest! {
        /// A proof holds exactly when every assignment does.
        #[test]
        fn a_proof_is_right(
            value in value(),
            (a, b) in (-6_i64..6, 0_i64..6),
            (c, d) in (-6_i64..6, 0_i64..6),
            (low, span) in (-50_i128..50, 0_i128..100),
        ) {
            let vars = variables(&[(a, a + b), (c, c + d)]);
            let check = within(low, low + span);
            let every = (a..=a + b).all(|x| {
                (c..=c + d).all(|y| value.evaluate(&[x, y]).and_then(&check).is_ok())
            });
            prop_assert_eq!(value.prove(&vars, &mut steps(), &check).is_ok(), every);
        }
    }
}
