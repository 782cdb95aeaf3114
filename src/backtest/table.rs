//! What a backtest came to, for a person.

use super::measure::Measures;
use super::run::Report;
use crate::simulate::aligned;

/// Who is wrong by less than this is not wrong; a geometric mean would be ruled by it.
const LEAST: f64 = 1e-4;

const HEAD: [&str; 15] = [
    "trace",
    "method",
    "ahead",
    "WAPE %",
    "loss 50",
    "95",
    "99",
    "over 95 %",
    "over 99 %",
    "falling",
    "steady",
    "rising",
    "0-8 h",
    "8-16 h",
    "16-24 h",
];

/// All figures in per cent: the losses of the mean load, what was exceeded of all minutes. Several traces end with what
/// they came to together.
pub fn table(reports: &[Report]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    for report in reports {
        rows.extend(report.methods.iter().map(|method| row(report, method)));
    }
    let together = together(reports);
    for report in &together {
        rows.extend(report.methods.iter().map(|method| row(report, method)));
    }
    aligned(&rows, 2)
}

fn row(report: &Report, measures: &Measures) -> Vec<String> {
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    let or_none =
        |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1}", 100.0 * share));
    let mut row = vec![
        report.trace.clone(),
        measures.method.to_owned(),
        format!("{} m", report.horizon_minutes),
        percent(measures.wape),
    ];
    row.extend(measures.pinball.map(percent));
    row.extend([measures.exceeded95, measures.exceeded99].map(percent));
    row.extend(measures.exceeded95_by_slope.map(or_none));
    row.extend(measures.exceeded95_by_hour.map(or_none));
    row
}

/// At each horizon, the mean of all traces: geometric of what errors differ by, arithmetic of shares.
fn together(reports: &[Report]) -> Vec<Report> {
    let first = reports.first().map(|report| &report.trace);
    if reports.iter().all(|report| Some(&report.trace) == first) {
        return Vec::new();
    }
    let mut horizons: Vec<usize> = Vec::new();
    for report in reports {
        if !horizons.contains(&report.horizon_minutes) {
            horizons.push(report.horizon_minutes);
        }
    }
    let of_horizon = |horizon: usize| {
        let of: Vec<&Report> = reports
            .iter()
            .filter(|report| report.horizon_minutes == horizon && report.minutes > 0)
            .collect();
        let methods = of.first().map_or(0, |report| report.methods.len());
        Report {
            trace: format!("all {}", of.len()),
            horizon_minutes: horizon,
            minutes: of.iter().map(|report| report.minutes).sum(),
            mean_rate: mean(of.iter().map(|report| Some(report.mean_rate))).unwrap_or(0.0),
            methods: (0..methods)
                .map(|place| mean_of(&of.iter().map(|it| &it.methods[place]).collect::<Vec<_>>()))
                .collect(),
        }
    };
    horizons.into_iter().map(of_horizon).collect()
}

fn mean_of(all: &[&Measures]) -> Measures {
    let error = |of: &dyn Fn(&Measures) -> f64| {
        mean(all.iter().map(|it| Some(of(it).max(LEAST).ln()))).map_or(0.0, f64::exp)
    };
    let share = |of: &dyn Fn(&Measures) -> Option<f64>| mean(all.iter().map(|it| of(it)));
    Measures {
        method: all.first().map_or("", |it| it.method),
        wape: error(&|it| it.wape),
        pinball: [0, 1, 2].map(|place| error(&|it| it.pinball[place])),
        exceeded95: share(&|it| Some(it.exceeded95)).unwrap_or(0.0),
        exceeded99: share(&|it| Some(it.exceeded99)).unwrap_or(0.0),
        exceeded95_by_slope: [0, 1, 2].map(|place| share(&|it| it.exceeded95_by_slope[place])),
        exceeded95_by_hour: [0, 1, 2].map(|place| share(&|it| it.exceeded95_by_hour[place])),
    }
}

/// Of those that there are.
fn mean(all: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let known = all.flatten();
    let (sum, count) = known.fold((0.0, 0.0), |(sum, count), it| (sum + it, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(trace: &str, horizon_minutes: usize, wape: f64, exceeded95: f64) -> Report {
        Report {
            trace: trace.to_owned(),
            horizon_minutes,
            minutes: 100,
            mean_rate: 1.0,
            methods: vec![Measures {
                method: "last value",
                wape,
                pinball: [wape / 2.0, 0.01, 0.0],
                exceeded95,
                exceeded99: 0.01,
                exceeded95_by_slope: [Some(exceeded95), None, Some(0.5)],
                exceeded95_by_hour: [None; 3],
            }],
        }
    }

    #[test]
    fn one_trace_is_its_rows_and_several_end_with_their_means() {
        let one = report("a", 5, 0.02, 0.04);
        assert_eq!(table(std::slice::from_ref(&one)).lines().count(), 2);
        let text = table(&[one, report("a", 9, 0.1, 0.0), report("b", 5, 0.08, 0.08)]);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|it| it.split_whitespace().collect())
            .collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(
            lines[1].join(" "),
            "a last value 5 m 2.00 1.00 1.00 0.00 4.00 1.00 4.0 - 50.0 - - -"
        );
        // The root of 0.02 x 0.08, and the middle of 0.04 and 0.08; at nine minutes there is only one.
        assert_eq!(
            lines[4].join(" "),
            "all 2 last value 5 m 4.00 2.00 1.00 0.01 6.00 1.00 6.0 - 50.0 - - -"
        );
        assert!(
            lines[5].join(" ").starts_with("all 1 last value 9 m 10.00"),
            "{text}"
        );
    }
}
