//! How far what was said lay from what came.

use serde::Serialize;

use super::Said;
use crate::forecast::pinball;

/// What one method came to at one horizon.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measures {
    /// Who spoke.
    pub method: &'static str,
    /// The sum of absolute errors of the point over the sum of what came.
    pub wape: f64,
    /// The mean pinball loss over the mean load, of the point as the median and of the quantiles at 0.95 and 0.99.
    pub pinball: [f64; 3],
    /// The share of minutes that came above the quantile at 0.95.
    pub exceeded95: f64,
    /// Likewise at 0.99.
    pub exceeded99: f64,
    /// [`Self::exceeded95`] in each third of the minutes by the slope at which it was said: falling, steady, rising.
    pub exceeded95_by_slope: [Option<f64>; 3],
    /// Likewise by the hour: 0 to 8, 8 to 16, 16 to 24.
    pub exceeded95_by_hour: [Option<f64>; 3],
}

/// One minute that came, and what each method had said of it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) came: f64,
    /// When it was said.
    pub(super) slope: f64,
    /// The third of the day that it came in.
    pub(super) third_of_day: usize,
    pub(super) said: Vec<Said>,
}

/// The measures of the method that stands at `place` in each row.
pub(super) fn measures(method: &'static str, place: usize, rows: &[Row]) -> Measures {
    let count = rows.len().max(1) as f64;
    let mean = rows.iter().map(|row| row.came).sum::<f64>() / count;
    let of_mean = |loss: &dyn Fn(&Row, Said) -> f64| {
        let sum: f64 = rows.iter().map(|row| loss(row, row.said[place])).sum();
        sum / count / mean.max(f64::MIN_POSITIVE)
    };
    let share = |is_exceeded: &dyn Fn(&Row) -> bool, within: &dyn Fn(&Row) -> bool| {
        let of: Vec<&Row> = rows.iter().filter(|row| within(row)).collect();
        let exceeded = of.iter().filter(|row| is_exceeded(row)).count();
        (!of.is_empty()).then(|| exceeded as f64 / of.len() as f64)
    };
    let above95 = |row: &Row| row.came > row.said[place].upper95;
    let above99 = |row: &Row| row.came > row.said[place].upper99;
    let (low, high) = terciles(rows);
    let third_of_slope = |row: &Row| match row.slope {
        slope if slope < low => 0,
        slope if slope > high => 2,
        _ => 1,
    };
    let thirds = [0, 1, 2];
    Measures {
        method,
        wape: of_mean(&|row, said| (row.came - said.point).abs()),
        pinball: [
            of_mean(&|row, said| pinball(0.5, row.came, said.point)),
            of_mean(&|row, said| pinball(0.95, row.came, said.upper95)),
            of_mean(&|row, said| pinball(0.99, row.came, said.upper99)),
        ],
        exceeded95: share(&above95, &|_row| true).unwrap_or(0.0),
        exceeded99: share(&above99, &|_row| true).unwrap_or(0.0),
        exceeded95_by_slope: thirds
            .map(|third| share(&above95, &|row| third_of_slope(row) == third)),
        exceeded95_by_hour: thirds.map(|third| share(&above95, &|row| row.third_of_day == third)),
    }
}

/// The slopes that a third lie below and a third above; of many that are alike, all are in the middle.
fn terciles(rows: &[Row]) -> (f64, f64) {
    let mut slopes: Vec<f64> = rows.iter().map(|row| row.slope).collect();
    slopes.sort_by(f64::total_cmp);
    let count = slopes.len();
    let low = slopes.get(count / 3).copied().unwrap_or(0.0);
    let high = count
        .checked_sub(1 + count / 3)
        .and_then(|at| slopes.get(at));
    (low, high.copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(came: f64, slope: f64, third_of_day: usize, said: (f64, f64, f64)) -> Row {
        let (point, upper95, upper99) = said;
        Row {
            came,
            slope,
            third_of_day,
            said: vec![
                Said::default(),
                Said {
                    point,
                    upper95,
                    upper99,
                },
            ],
        }
    }

    fn near(number: f64, expected: f64) {
        assert!((number - expected).abs() < 1e-12, "{number} for {expected}");
    }

    #[test]
    fn every_measure_is_what_its_name_says() {
        let rows = [
            row(10.0, -0.5, 0, (8.0, 12.0, 14.0)),
            row(20.0, 0.1, 0, (25.0, 19.0, 30.0)),
            row(30.0, 0.9, 2, (30.0, 29.0, 28.0)),
        ];
        let seen = measures("it", 1, &rows);
        // Errors 2, 5 and 0 of a sum of 60.
        near(seen.wape, 7.0 / 60.0);
        near(seen.pinball[0], 3.5 / 60.0);
        // 0.05 x 2 not needed, 0.95 x 1 and 0.95 x 1 too little.
        near(seen.pinball[1], (0.1 + 0.95 + 0.95) / 60.0);
        near(seen.pinball[2], (0.04 + 0.1 + 1.98) / 60.0);
        near(seen.exceeded95, 2.0 / 3.0);
        near(seen.exceeded99, 1.0 / 3.0);
        let third = |share: Option<f64>| share.map(|share| (100.0 * share).round().to_string());
        let whole = |share: f64| Some(share.to_string());
        assert_eq!(
            seen.exceeded95_by_slope.map(third),
            [whole(0.0), whole(100.0), whole(100.0)]
        );
        assert_eq!(
            seen.exceeded95_by_hour.map(third),
            [whole(50.0), None, whole(100.0)]
        );
    }

    #[test]
    fn thirds_of_many_slopes_are_as_large_as_each_other() {
        let rows: Vec<Row> = (0..9)
            .map(|slope| row(1.0, f64::from(slope), 0, (0.0, 0.0, 0.0)))
            .collect();
        let (low, high) = terciles(&rows);
        near(low, 3.0);
        near(high, 5.0);
        let alike = vec![row(1.0, 0.0, 0, (0.0, 0.0, 0.0)); 5];
        let seen = measures("it", 0, &alike);
        assert_eq!(
            (seen.exceeded95_by_slope[0], seen.exceeded95_by_slope[2]),
            (None, None)
        );
        assert!(measures("it", 0, &[]).wape.abs() < 1e-12);
    }
}
