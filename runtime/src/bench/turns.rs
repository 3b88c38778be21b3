//! Who is run when.

/// Which of `count` candidates is run in a round's turn. Over `2 * count` rounds each
/// is run twice in each turn, and twice right after each other one: a Williams
/// square, with every second row read backwards.
pub(super) const fn whose_turn(round: usize, turn: usize, count: usize) -> usize {
    let turn = if round % 2 == 1 {
        count - 1 - turn
    } else {
        turn
    };
    // 0, the last, 1, the last but one, 2, …
    let zigzag = if turn % 2 == 0 {
        turn / 2
    } else {
        count - turn.div_ceil(2)
    };
    (zigzag + round / 2 % count) % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_follows_each_other_as_often() {
        for count in 1..8 {
            let mut after = vec![vec![0; count]; count];
            let mut in_turn = vec![vec![0; count]; count];
            for round in 0..2 * count {
                let order: Vec<_> = (0..count).map(|t| whose_turn(round, t, count)).collect();
                for (turn, &candidate) in order.iter().enumerate() {
                    in_turn[turn][candidate] += 1;
                }
                for pair in order.windows(2) {
                    after[pair[1]][pair[0]] += 1;
                }
            }
            for (i, row) in after.iter().enumerate() {
                assert!(in_turn[i].iter().all(|&n| n == 2), "{count}: {in_turn:?}");
                let mut others = row.iter().enumerate().filter(|(j, _)| *j != i);
                assert!(others.all(|(_, &n)| n == 2), "{count}: {after:?}");
            }
        }
    }
}
