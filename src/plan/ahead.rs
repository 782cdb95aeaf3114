//! What will be needed: the upper quantile of demand over a stretch of time, in pods.

use std::time::Duration;

use super::Inputs;
use super::present::Share;
use crate::clock::Timestamp;
use crate::forecast::ForecastPoint;
use crate::units::Shown;

/// Added to the lead time: until the next turn has asked, and until balancing has found the new pod.
pub(super) const TURN_MARGIN: Duration = Duration::from_secs(15);

/// The step of a forecast that has a single point.
const LONE_STEP: Duration = Duration::from_secs(60);

/// The most that is needed in a stretch of time to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Pods.
    pub(super) need: f64,
    /// Arrivals a second at the peak.
    pub(super) upper: f64,
    /// When the peak is.
    peak: Timestamp,
}

// === impl Ahead ===

impl Ahead {
    /// The peak's distance from `now`, for a person.
    pub(super) fn distance(&self, now: Timestamp) -> String {
        // Seconds are enough: a forecast has steps of a minute.
        let secs = self.peak.since(now).as_secs();
        if secs == 0 {
            "now".to_owned()
        } else {
            format!("in {}", Shown(Duration::from_secs(secs)))
        }
    }
}

/// The most that the forecast wants from now to `within` from now, or why nothing can be said.
pub(super) fn ahead(inputs: &Inputs<'_>, within: Duration) -> Result<Ahead, String> {
    let Some(forecast) = inputs.forecast else {
        return Err("there is no forecast yet".to_owned());
    };
    let now = inputs.now.timestamp;
    let half = step(&forecast.points) / 2;
    // A point speaks of its whole step, half before it and half after.
    let in_reach = |point: &&ForecastPoint| {
        point.at + half >= now && point.at <= now + within + half && point.upper.is_finite()
    };
    // The first of equal peaks: the one that has to be met first.
    let peak = forecast
        .points
        .iter()
        .rev()
        .filter(in_reach)
        .max_by(|a, b| a.upper.total_cmp(&b.upper));
    let Some(peak) = peak else {
        let age = Shown(Duration::from_secs(now.since(forecast.made).as_secs()));
        return Err(format!(
            "the forecast is {age} old and does not speak of the coming {}",
            Shown(within)
        ));
    };
    let upper = peak.upper.max(0.0);
    match pods_for(inputs, upper) {
        Some(need) => Ok(Ahead {
            need,
            upper,
            peak: peak.at,
        }),
        None => Err(format!(
            "{upper:.1} arrivals a second are forecast, but the work of a request is not known yet"
        )),
    }
}

/// Pods that carry `rate` arrivals a second at every metric's target: the largest, where any is known.
///
/// A target is taken at its word here; what a queue of this many slots needs beyond it belongs here, too.
fn pods_for(inputs: &Inputs<'_>, rate: f64) -> Option<f64> {
    let metrics = inputs.policy.metrics.iter();
    metrics
        .filter_map(|metric| Share::of(metric, inputs.work).rate)
        .map(|per_pod| rate / per_pod)
        .reduce(f64::max)
}

fn step(points: &[ForecastPoint]) -> Duration {
    match points {
        [first, second, ..] => second.at.since(first.at),
        _ => LONE_STEP,
    }
}
