//! The newest minutes of a column, and no more: two weeks of what is only asked of the last hours would be a third of the
//! model's memory.

use std::collections::VecDeque;

/// A value for each of the newest minutes.
#[derive(Clone, Debug)]
pub(super) struct Tail<T> {
    /// The minute of the oldest value.
    first: i64,
    values: VecDeque<T>,
    kept: usize,
}

// === impl Tail ===

impl<T: Copy> Tail<T> {
    /// Empty, before minute `first`; keeps `kept` minutes.
    pub(super) fn new(first: i64, kept: usize) -> Self {
        Self {
            first,
            values: VecDeque::with_capacity(kept),
            kept,
        }
    }

    /// The value of the next minute.
    pub(super) fn push(&mut self, value: T) {
        if self.values.len() == self.kept {
            self.values.pop_front();
            self.first += 1;
        }
        self.values.push_back(value);
    }

    /// The value of a minute; `None`: it is yet to come, or forgotten.
    pub(super) fn get(&self, minute: i64) -> Option<T> {
        let index = usize::try_from(minute.checked_sub(self.first)?).ok()?;
        self.values.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_found_by_their_minute() {
        let mut tail = Tail::new(100, 3);
        for value in 0..5 {
            tail.push(value);
        }
        let found: Vec<Option<i32>> = (99..106).map(|minute| tail.get(minute)).collect();
        assert_eq!(found, [None, None, None, Some(2), Some(3), Some(4), None]);
    }
}
