//! Stub
pub(super) struct Block {
    pub(super) bytes: usize,
    pub(super) align: usize,
    pub(super) first: u32,
    pub(super) last: u32,
}
pub(super) struct Placement {
    pub(super) offsets: Vec<usize>,
    pub(super) bytes: usize,
}
pub(super) fn lower_bound(blocks: &[Block]) -> usize {
    let waves = blocks.iter().map(|b| b.last + 1).max().unwrap_or(0);
    (0..waves)
        .map(|w| {
            blocks
                .iter()
                .filter(|b| b.first <= w && w <= b.last)
                .map(|b| b.bytes.next_multiple_of(b.align))
                .sum()
        })
        .max()
        .unwrap_or(0)
}
pub(super) fn place(blocks: &[Block]) -> Placement {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(blocks[i].bytes));
    let mut offsets = vec![0; blocks.len()];
    let mut done: Vec<usize> = vec![];
    let mut size = 0;
    for i in order {
        let b = &blocks[i];
        let mut others: Vec<(usize, usize)> = done
            .iter()
            .filter(|&&j| blocks[j].first <= b.last && b.first <= blocks[j].last)
            .map(|&j| (offsets[j], offsets[j] + blocks[j].bytes))
            .collect();
        others.sort_unstable();
        let mut at = 0usize;
        for (s, e) in others {
            if at + b.bytes <= s {
                break;
            }
            at = at.max(e.next_multiple_of(b.align));
        }
        offsets[i] = at;
        done.push(i);
        size = size.max((at + b.bytes).next_multiple_of(b.align));
    }
    Placement {
        offsets,
        bytes: size,
    }
}
