//! One sequence in its slot: a first token after the prefill, then the rest, a few at a time.

use std::time::Duration;

use super::Settings;
use super::batch::Slot;
use crate::clock::{Clock, Instant};

/// A running sequence. Dropped before its end, it frees its slot.
#[derive(Debug)]
pub(super) struct Generation {
    clock: Clock,
    settings: Settings,
    /// `None` after the last piece.
    slot: Option<Slot>,
    /// When the last piece came, by schedule. The next one counts from here, so that late timers do not add up.
    due: Instant,
    tokens: u32,
    made: u32,
    pieces: u32,
}

/// Some tokens of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) tokens: u32,
    pub(super) last: bool,
}

// === impl Generation ===

impl Generation {
    pub(super) fn new(
        clock: Clock,
        settings: Settings,
        slot: Slot,
        start: Instant,
        tokens: u32,
    ) -> Self {
        Self {
            clock,
            settings,
            slot: Some(slot),
            due: start,
            tokens,
            made: 0,
            pieces: 0,
        }
    }

    /// The next tokens, at their time; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        let others = self.slot.as_ref()?.others();
        let (tokens, takes) = if self.made == 0 {
            (1, self.settings.prefill)
        } else {
            let left = self.tokens - self.made;
            let pieces_left = self.settings.pieces.saturating_sub(self.pieces).max(1);
            let tokens = left.div_ceil(pieces_left);
            (tokens, self.settings.token_time(others) * tokens)
        };
        self.due = self.due + takes;
        self.clock.sleep_until(self.due).await;
        self.made += tokens;
        self.pieces += 1;
        let last = self.made == self.tokens;
        if last && let Some(slot) = self.slot.take() {
            slot.finish(self.due);
        }
        Some(Piece { tokens, last })
    }

    /// Waits for all tokens and says how many they were.
    pub(super) async fn all(mut self) -> u32 {
        while self.next().await.is_some() {}
        self.tokens
    }
}

// === impl Settings ===

impl Settings {
    /// Time for one token of a sequence that runs beside `others`.
    pub(super) fn token_time(&self, others: usize) -> Duration {
        let full = self.slots.saturating_sub(1).max(1);
        let share = others.min(full) as f64 / full as f64;
        self.time_per_token
            .mul_f64(1.0 + self.batch_slowdown * share)
    }

    /// Time in a slot of a request for [`Settings::tokens`] tokens while all slots are taken.
    ///
    /// Requests of various lengths take this long on average if [`Settings::tokens`] is their mean.
    pub fn service_time(&self) -> Duration {
        let after_first = self.tokens.saturating_sub(1);
        self.prefill + self.token_time(self.slots.saturating_sub(1)) * after_first
    }

    /// Requests a second that one server completes while it has a queue.
    pub fn requests_per_second(&self) -> f64 {
        self.slots.max(1) as f64 / self.service_time().as_secs_f64()
    }
}
