//! Arrivals drawn from a measured trace.
//!
//! A trace counts requests in bins of equal width; a bin that was not observed is missing, which is not zero. Only the
//! counts are measured. Where inside its bin a request arrives is modelled: the rate runs linearly between the centres of
//! neighbouring bins, and arrivals are Poisson with that rate. Bins of one second are taken as they are, their requests
//! spread evenly at random over the second.

mod csv;
mod draw;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::csv::TraceError;
pub use self::draw::Arrivals;

/// The counts of a trace that was observed, at least one bin. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Width of every bin in seconds, at least 1.
    width_secs: u64,
    /// The bins that were observed, by their start; a jump is a stretch that was not.
    bins: Arc<[Bin]>,
}

/// One observed bin.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bin {
    /// Start in seconds from the trace's zero.
    offset_secs: u64,
    /// Requests in it, 0 or more; scaled traces have fractions.
    requests: f64,
}

/// A stretch in which the rate runs linearly: half a bin, or a whole one of a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    /// Seconds from the trace's zero.
    start: f64,
    end: f64,
    /// Requests a second at both ends.
    rate_at_start: f64,
    rate_at_end: f64,
}

// === impl Trace ===

impl Trace {
    /// Reads a file with the header `offset_seconds,requests`; the commonest distance of two lines is the bins' width.
    pub fn load(path: &Path) -> Result<Self, TraceError> {
        Self::load_with_bin(path, None)
    }

    /// Reads a file whose bins are known to be that wide, in whole seconds.
    pub fn load_with_bin(path: &Path, bin: Option<Duration>) -> Result<Self, TraceError> {
        let text = std::fs::read_to_string(path).map_err(|source| TraceError::Read {
            file: path.display().to_string(),
            source,
        })?;
        csv::parse(&path.display().to_string(), &text, bin)
    }

    /// Reads the text of a trace; `file` is what an error calls it.
    pub fn parse(file: &str, text: &str) -> Result<Self, TraceError> {
        csv::parse(file, text, None)
    }

    /// Width of a bin.
    pub fn bin(&self) -> Duration {
        Duration::from_secs(self.width_secs)
    }

    /// The start of the first bin, counted from the trace's zero.
    pub fn start(&self) -> Duration {
        Duration::from_secs(self.bins.first().map_or(0, |bin| bin.offset_secs))
    }

    /// The end of the last bin, counted from the trace's zero.
    pub fn end(&self) -> Duration {
        let last = self.bins.last().map_or(0, |bin| bin.offset_secs);
        Duration::from_secs(last + self.width_secs)
    }

    /// Mean over all observed bins, requests a second.
    pub fn mean_rate(&self) -> f64 {
        let sum: f64 = self.bins.iter().map(|bin| bin.requests).sum();
        sum / (self.bins.len() as f64 * self.width())
    }

    /// The largest bin, requests a second.
    pub fn peak_rate(&self) -> f64 {
        let most = self.bins.iter().map(|bin| bin.requests).fold(0.0, f64::max);
        most / self.width()
    }

    /// The interpolated rate at `at`, requests a second; `None` where nothing was observed.
    pub fn rate(&self, at: Duration) -> Option<f64> {
        let at = at.as_secs_f64();
        let piece = self.piece(self.first_piece(at))?;
        (piece.start <= at && at < piece.end).then(|| piece.rate_at(at))
    }

    /// Requests to expect in `[from, to)`: the integral of the rate. `None` if any of it was not observed.
    pub fn expected(&self, from: Duration, to: Duration) -> Option<f64> {
        let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
        let mut reached = from;
        let mut sum = 0.0;
        let mut index = self.first_piece(from);
        while reached < to {
            let piece = self.piece(index)?;
            if piece.start > reached {
                return None;
            }
            let end = piece.end.min(to);
            sum += (end - reached) * f64::midpoint(piece.rate_at(reached), piece.rate_at(end));
            reached = end;
            index += 1;
        }
        Some(sum)
    }

    /// Arrivals in `[from, to)` at `factor` times the trace's rate, as times from `from` on, in order.
    ///
    /// The same generator state gives the same arrivals. Nothing arrives where nothing was observed.
    pub fn arrivals<R: rand::Rng>(
        &self,
        from: Duration,
        to: Duration,
        factor: f64,
        rng: R,
    ) -> Arrivals<R> {
        Arrivals::new(self.clone(), from, to, factor, rng)
    }

    fn width(&self) -> f64 {
        self.width_secs as f64
    }

    /// The index of the first piece that ends after `at`.
    fn first_piece(&self, at: f64) -> usize {
        let bin = self
            .bins
            .partition_point(|bin| bin.offset_secs as f64 + self.width() <= at);
        let first = bin * self.pieces_per_bin();
        match self.piece(first) {
            Some(piece) if piece.end <= at => first + 1,
            Some(_) | None => first,
        }
    }

    fn pieces_per_bin(&self) -> usize {
        if self.width_secs == 1 { 1 } else { 2 }
    }

    fn piece(&self, index: usize) -> Option<Piece> {
        let bin_index = index / self.pieces_per_bin();
        let bin = self.bins.get(bin_index)?;
        let start = bin.offset_secs as f64;
        let end = start + self.width();
        let rate = bin.requests / self.width();
        if self.width_secs == 1 {
            return Some(Piece {
                start,
                end,
                rate_at_start: rate,
                rate_at_end: rate,
            });
        }
        let centre = f64::midpoint(start, end);
        // At the edge of what was observed there is nothing to run towards: the rate stays.
        let edge = |neighbour: Option<usize>, offset_secs: Option<u64>| {
            neighbour
                .and_then(|index| self.bins.get(index))
                .filter(|bin| Some(bin.offset_secs) == offset_secs)
                .map_or(rate, |bin| f64::midpoint(rate, bin.requests / self.width()))
        };
        Some(if index.is_multiple_of(2) {
            let before = bin.offset_secs.checked_sub(self.width_secs);
            Piece {
                start,
                end: centre,
                rate_at_start: edge(bin_index.checked_sub(1), before),
                rate_at_end: rate,
            }
        } else {
            let after = bin.offset_secs.checked_add(self.width_secs);
            Piece {
                start: centre,
                end,
                rate_at_start: rate,
                rate_at_end: edge(Some(bin_index + 1), after),
            }
        })
    }
}

// === impl Piece ===

impl Piece {
    fn rate_at(&self, at: f64) -> f64 {
        let share = (at - self.start) / (self.end - self.start);
        self.rate_at_start + share * (self.rate_at_end - self.rate_at_start)
    }
}

#[cfg(test)]
mod tests;
