use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;

fn trace(text: &str) -> Trace {
    Trace::parse("trace.csv", &format!("offset_seconds,requests\n{text}")).expect("a good trace")
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Arrivals in each of `[from, to)`'s bins of `width` seconds.
fn counted(trace: &Trace, from: u64, to: u64, width: u64, factor: f64, seed: u64) -> Vec<f64> {
    let bins = usize::try_from((to - from).div_ceil(width)).expect("a small number");
    let mut counts = vec![0.0; bins];
    let rng = StdRng::seed_from_u64(seed);
    let mut last = Duration::ZERO;
    for at in trace.arrivals(secs(from), secs(to), factor, rng) {
        assert!(at >= last && at < secs(to - from), "in order and inside");
        last = at;
        counts[usize::try_from(at.as_secs() / width).expect("a small number")] += 1.0;
    }
    counts
}

#[test]
fn the_rate_runs_from_centre_to_centre_and_stays_at_the_edge_of_the_unknown() {
    // 180 to 240 was not observed.
    let trace = trace("0,600\n60,1200\n120,0\n240,60\n300,120\n");
    for (at, rate) in [
        (0, Some(10.0)),
        (30, Some(10.0)),
        (45, Some(12.5)),
        (60, Some(15.0)),
        (90, Some(20.0)),
        (120, Some(10.0)),
        (150, Some(0.0)),
        (179, Some(0.0)),
        (180, None),
        (239, None),
        (240, Some(1.0)),
        (330, Some(2.0)),
        (359, Some(2.0)),
        (360, None),
    ] {
        assert_eq!(trace.rate(secs(at)), rate, "at {at} s");
    }
    assert_eq!(trace.expected(secs(30), secs(90)), Some(60.0 * 15.0));
    assert_eq!(trace.expected(secs(240), secs(270)), Some(30.0));
    assert_eq!(trace.expected(secs(30), secs(30)), Some(0.0));
    for (from, to) in [(150, 200), (170, 250), (200, 210), (350, 361)] {
        assert_eq!(trace.expected(secs(from), secs(to)), None, "{from}..{to}");
    }
}

#[test]
fn arrivals_follow_the_rate_and_are_poisson() {
    let trace = trace("0,6000\n600,60000\n1200,6000\n1800,6000\n");
    let counts = counted(&trace, 300, 1_800, 10, 0.5, 7);
    let mut chi_square = 0.0;
    for (index, count) in counts.iter().enumerate() {
        let from = 300 + 10 * index as u64;
        let expected = 0.5
            * trace
                .expected(secs(from), secs(from + 10))
                .expect("observed");
        chi_square += (count - expected).powi(2) / expected;
    }
    // 150 bins: a Poisson process gives 150 with a standard deviation of 17; an even stream gives 0.
    assert!((90.0..=210.0).contains(&chi_square), "{chi_square}");
}

#[test]
fn nothing_arrives_where_nothing_was_observed() {
    let trace = trace("0,600\n60,600\n120,600\n240,600\n");
    let counts = counted(&trace, 0, 300, 60, 1.0, 1);
    assert!((counts[3]).abs() < f64::EPSILON, "{counts:?}");
    assert!(
        counts[2] > 500.0 && counts[4] > 500.0,
        "and the rest goes on: {counts:?}"
    );
}

#[test]
fn bins_of_a_second_are_taken_as_they_are() {
    let lines: Vec<String> = (0..100)
        .map(|second| format!("{second},{}", second % 7))
        .collect();
    let text = lines.join("\n");
    let trace = trace(&text);
    let counts = counted(&trace, 10, 90, 1, 1.0, 3);
    for (index, count) in counts.iter().enumerate() {
        let expected = ((index + 10) % 7) as f64;
        assert!((count - expected).abs() < f64::EPSILON, "second {index}");
    }
    // Scaled by a third, each count has a fraction that is rounded at random; the sum is kept.
    let sum: f64 = (0..40)
        .map(|seed| {
            counted(&trace, 0, 100, 1, 1.0 / 3.0, seed)
                .iter()
                .sum::<f64>()
        })
        .sum();
    let expected = 40.0 * trace.expected(secs(0), secs(100)).expect("observed") / 3.0;
    assert!((sum / expected - 1.0).abs() < 0.05, "{sum} of {expected}");
}

#[test]
fn a_seed_gives_the_same_arrivals_again() {
    let trace = trace("0,6000\n600,60000\n1200,6000\n");
    let draw = |seed| {
        let rng = StdRng::seed_from_u64(seed);
        trace
            .arrivals(secs(600), secs(660), 0.1, rng)
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn a_bad_line_is_named_with_file_line_and_column() {
    for (text, message) in [
        (
            "time,requests\n",
            "t.csv:1:1: expected the header `offset_seconds,requests`, found `time,requests`",
        ),
        (
            "offset_seconds,requests\n0,1\n60,many\n",
            "t.csv:3:4: expected a count of requests, 0 or more, found `many`",
        ),
        (
            "offset_seconds,requests\n0,1\n60,-1\n",
            "t.csv:3:4: expected a count of requests, 0 or more, found `-1`",
        ),
        (
            "offset_seconds,requests\n0,1\n60,NaN\n",
            "t.csv:3:4: expected a count of requests, 0 or more, found `NaN`",
        ),
        (
            "offset_seconds,requests\n0,1,2\n",
            "t.csv:2:3: expected a count of requests, 0 or more, found `1,2`",
        ),
        (
            "offset_seconds,requests\n0.5,1\n",
            "t.csv:2:1: expected a whole number of seconds, found `0.5`",
        ),
        (
            "offset_seconds,requests\n0,1\n60\n",
            "t.csv:3:3: expected a comma and a count, found ``",
        ),
        (
            "offset_seconds,requests\n0,1\n60,1\n60,1\n",
            "t.csv:4:1: expected an offset after 60, found `60`",
        ),
        (
            "offset_seconds,requests\n0,1\n60,1\n120,1\n121,1\n180,1\n240,1\n",
            "t.csv:5:1: expected an offset a multiple of the bins' 60 s after 120, found `121`",
        ),
        (
            "offset_seconds,requests\n0,1\n",
            "t.csv: expected at least two bins of `offset_seconds,requests`, found 1",
        ),
    ] {
        let error = Trace::parse("t.csv", text).expect_err(text);
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_width_that_was_said_allows_a_single_bin_and_is_held() {
    let text = "offset_seconds,requests\n120,7\n";
    let trace = csv::parse("t.csv", text, Some(secs(60))).expect("one bin of a minute");
    assert_eq!((trace.start(), trace.end()), (secs(120), secs(180)));
    let text = "offset_seconds,requests\n0,7\n60,7\n";
    let error = csv::parse("t.csv", text, Some(secs(300))).expect_err("bins overlap");
    assert_eq!(
        error.to_string(),
        "t.csv:3:1: expected an offset a multiple of the bins' 300 s after 0, found `60`"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Trace::load(Path::new("/nowhere/t.csv")).expect_err("there is none");
    assert_eq!(error.to_string(), "cannot read the trace `/nowhere/t.csv`");
}
