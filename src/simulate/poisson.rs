//! Poisson counts from a seeded generator.

use rand::{Rng, RngExt as _};
use statrs::function::gamma::ln_gamma;

/// Below this mean, multiplying uniform numbers is faster; above it, its cost grows with the mean.
const FEW: f64 = 12.0;

/// A count with that mean; 0 for a mean that is not above 0.
pub(super) fn poisson(mean: f64, rng: &mut impl Rng) -> f64 {
    if !mean.is_finite() || mean <= 0.0 {
        0.0
    } else if mean < FEW {
        few(mean, rng)
    } else {
        many(mean, rng)
    }
}

/// Arrivals of a unit-rate process until `mean`: as many as uniform numbers can be multiplied before the product falls
/// below e^-mean.
fn few(mean: f64, rng: &mut impl Rng) -> f64 {
    let least = (-mean).exp();
    let mut product = rng.random::<f64>();
    let mut count = 0.0;
    while product > least {
        product *= rng.random::<f64>();
        count += 1.0;
    }
    count
}

/// Hörmann's transformed rejection with squeeze (PTRS, 1993): a constant cost at any mean.
fn many(mean: f64, rng: &mut impl Rng) -> f64 {
    let b = 0.931 + 2.53 * mean.sqrt();
    let a = -0.059 + 0.024_83 * b;
    let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
    let squeeze = 0.9277 - 3.6224 / (b - 2.0);
    loop {
        let u = rng.random::<f64>() - 0.5;
        let v = rng.random::<f64>();
        let edge = 0.5 - u.abs();
        let count = ((2.0 * a / edge + b) * u + mean + 0.43).floor();
        if edge >= 0.07 && v <= squeeze {
            return count;
        }
        if count < 0.0 || (edge < 0.013 && v > edge) {
            continue;
        }
        let drawn = (v * inverse_alpha / (a / (edge * edge) + b)).ln();
        if drawn <= count * mean.ln() - mean - ln_gamma(count + 1.0) {
            return count;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn mean_and_variance_are_the_mean_at_every_size() {
        let mut rng = StdRng::seed_from_u64(5);
        for mean in [0.01, 0.7, 5.0, 11.9, 12.1, 30.0, 400.0, 1e6] {
            let draws = 40_000;
            let counts: Vec<f64> = (0..draws).map(|_| poisson(mean, &mut rng)).collect();
            let seen = counts.iter().sum::<f64>() / f64::from(draws);
            let error = (mean / f64::from(draws)).sqrt();
            assert!((seen - mean).abs() < 4.0 * error, "{seen} for {mean}");
            let squares = counts.iter().map(|count| (count - mean).powi(2));
            let variance = squares.sum::<f64>() / f64::from(draws) / mean;
            assert!((variance - 1.0).abs() < 0.25, "{variance} at {mean}");
        }
    }

    #[test]
    fn no_rate_no_requests() {
        let mut rng = StdRng::seed_from_u64(5);
        for mean in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(poisson(mean, &mut rng).abs() < f64::EPSILON);
        }
    }
}
