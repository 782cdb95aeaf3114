//! One distribution from what several experts say, each with its own record of errors.
//!
//! An expert is weighted by its errors of late and by those at the same phase of earlier days. The second is what makes
//! a jump foreseeable: on a load that is zero all night and jumps at 01:30, the last value is without fault for hours,
//! and only its record at 01:30 tells that it is the wrong one to ask at 01:25.
//!
//! The experts are mixed as distributions, not as numbers: when two disagree, a high quantile lies with the higher one
//! as long as that has more weight than the quantile leaves.

use super::experts::EXPERTS;

/// How sharply weight falls with loss. 1 keeps fools in office, 8 makes the weights jump with every minute.
const SHARPNESS: i32 = 3;
/// A loss of this share of the typical load is as good as none: between 0.1 % and 0.2 % nobody is the better expert.
const NO_LOSS: f64 = 0.01;
/// Weights below this are not worth the time to mix them in.
const LEAST_WEIGHT: f64 = 0.01;
/// Errors of an expert without a record, as a share of what it says: one load may well be off by a quarter in minutes.
const PRIOR_ERRORS: [f64; 5] = [-0.25, -0.1, 0.0, 0.1, 0.25];
/// The prior counts as much as this many errors that were seen.
const PRIOR_COUNT: f64 = 4.0;

/// The part of the errors at any time among those that make a distribution. 0, and a tail is taken from some tens of errors;
/// above a half, and a jump of every morning is no longer told from the calm before it.
const ANYTIME_SHARE: f64 = 0.3;

/// One expert's errors: of late, at the same phase, and at any time.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// Error (truth less forecast, carried over to the present level) and weight.
    pub recent: Vec<(f64, f64)>,
    /// As `recent`.
    pub phase: Vec<(f64, f64)>,
    /// As `recent`; says how far errors go, not who is right.
    pub anytime: Vec<(f64, f64)>,
}

/// What will be, as weighted values.
#[derive(Clone, Debug, Default)]
pub(super) struct Mixture {
    /// In ascending order.
    values: Vec<(f64, f64)>,
    total: f64,
    /// The weighted mean of what the experts say.
    pub point: f64,
    /// Weight and loss of each expert that spoke.
    pub experts: [Option<(f64, f64)>; EXPERTS],
}

// === impl Mixture ===

impl Mixture {
    /// Mixes what the experts say (NaN: nothing) by their records.
    pub(super) fn new(said: &[f32; EXPERTS], records: &[Record; EXPERTS], typical: f64) -> Self {
        let losses = losses_of(said, records);
        // Beside the smallest loss too: the first request after an idle week finds a typical load of nearly nothing.
        let least = losses
            .iter()
            .flatten()
            .copied()
            .fold(f64::INFINITY, f64::min);
        let scale = typical.max(least).max(1e-9);
        let weight = |loss: f64| (loss / scale + NO_LOSS).powi(-SHARPNESS);
        let sum: f64 = losses.iter().flatten().map(|loss| weight(*loss)).sum();
        let mut mixture = Self {
            values: Vec::with_capacity(1_024),
            ..Self::default()
        };
        for (expert, loss) in losses.into_iter().enumerate() {
            let Some(loss) = loss else { continue };
            let weight = weight(loss) / sum;
            let said = f64::from(said[expert]);
            mixture.point += weight * said;
            mixture.experts[expert] = Some((weight, loss));
            if weight >= LEAST_WEIGHT {
                mixture.mix_in(said, weight, &records[expert]);
            }
        }
        mixture.values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        mixture.total = mixture.values.iter().map(|(_, weight)| weight).sum();
        mixture
    }

    /// The value that is exceeded with probability `1 - quantile`.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let wanted = quantile * self.total;
        let mut below = 0.0;
        for (value, weight) in &self.values {
            below += weight;
            if below >= wanted {
                return *value;
            }
        }
        self.values.last().map_or(self.point, |(value, _)| *value)
    }

    fn mix_in(&mut self, said: f64, weight: f64, record: &Record) {
        let seen = (record.recent.len() + record.phase.len()) as f64;
        let prior = PRIOR_COUNT / (PRIOR_COUNT + seen);
        for share in PRIOR_ERRORS {
            let part = weight * prior / PRIOR_ERRORS.len() as f64;
            self.values.push((said * (1.0 + share), part));
        }
        let anytime = if record.anytime.is_empty() {
            0.0
        } else {
            ANYTIME_SHARE
        };
        let like = [&record.recent, &record.phase];
        let spoken = like.iter().filter(|part| !part.is_empty()).count().max(1) as f64;
        let like = like.map(|part| (part, (1.0 - anytime) / spoken));
        for (part, of) in like.into_iter().chain([(&record.anytime, anytime)]) {
            let total: f64 = part.iter().map(|(_, weight)| weight).sum();
            let share = weight * (1.0 - prior) * of / total;
            let values = part
                .iter()
                .map(|(error, weight)| ((said + error).max(0.0), weight * share));
            self.values.extend(values);
        }
    }
}

/// The loss of each expert that says something: its mean absolute error of late plus that at this phase.
fn losses_of(said: &[f32; EXPERTS], records: &[Record; EXPERTS]) -> [Option<f64>; EXPERTS] {
    let speaks = |expert: usize| said[expert].is_finite();
    let mean_over = |part: &dyn Fn(&Record) -> Option<f64>| {
        let known: Vec<f64> = (0..EXPERTS)
            .filter(|e| speaks(*e))
            .filter_map(|e| part(&records[e]))
            .collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    let recent = |record: &Record| mean_error(&record.recent);
    let phase = |record: &Record| mean_error(&record.phase);
    // Whoever has no record is taken for as good as the others are on the whole: on the second day nobody knows yet
    // whether yesterday is a good guess, and it must be heard at the time when the others failed yesterday.
    let (usual_recent, usual_phase) = (mean_over(&recent), mean_over(&phase));
    std::array::from_fn(|expert| {
        let record = &records[expert];
        let loss = recent(record).or(usual_recent).unwrap_or(0.0)
            + phase(record).or(usual_phase).unwrap_or(0.0);
        speaks(expert).then_some(loss)
    })
}

fn mean_error(errors: &[(f64, f64)]) -> Option<f64> {
    let total: f64 = errors.iter().map(|(_, weight)| weight).sum();
    let sum: f64 = errors
        .iter()
        .map(|(error, weight)| error.abs() * weight)
        .sum();
    (total > 0.0).then(|| sum / total)
}
