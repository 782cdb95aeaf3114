use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::pace::Pace;
use crate::report::{Load, Past};

const DAY: usize = 1_440;
/// A Monday at midnight.
const START: Timestamp = Timestamp::from_secs(1_700_438_400);

/// The moment after `minutes` minutes.
fn after(minutes: usize) -> Now {
    Now::at(START, Duration::from_secs(60 * minutes as u64))
}

fn minutes(count: usize) -> Duration {
    Duration::from_secs(60 * count as u64)
}

/// A history of these rates, one a minute from [`START`] on; NaN: nobody looked.
fn history_of(rates: &[f64]) -> History {
    let mut history = History::new(Duration::from_secs(14 * 86_400));
    let slot = |rate: &f64| {
        if rate.is_nan() {
            return Load::default();
        }
        Load {
            pod_seconds: 60.0,
            arrivals: rate * 60.0,
            ..Load::default()
        }
    };
    let past = Past {
        start_millis: START.as_millis(),
        step_seconds: 60,
        slots: rates.iter().map(slot).collect(),
    };
    history.merge_past(&past, START..after(rates.len()).timestamp);
    history
}

fn learnt(rates: &[f64], lead: usize) -> Forecaster {
    let mut forecaster = Forecaster::default();
    forecaster.set_horizon(minutes(lead));
    forecaster.observe(after(rates.len()), &history_of(rates));
    forecaster
}

/// The forecast for the middle of the minute `lead` ahead, made at the end of these rates.
fn ahead(rates: &[f64], lead: usize, quantile: f64) -> ForecastPoint {
    last_point(&learnt(rates, lead), rates.len(), lead, quantile)
}

fn last_point(forecaster: &Forecaster, made: usize, lead: usize, quantile: f64) -> ForecastPoint {
    let forecast = forecaster.forecast(after(made), minutes(lead), quantile);
    let points = forecast.expect("there is data").points;
    points[points.len() - 4]
}

fn periods(rates: &[f64]) -> Vec<usize> {
    let forecast = learnt(rates, 5).forecast(after(rates.len()), minutes(5), 0.95);
    let seasons = forecast.expect("there is data").seasons;
    assert!(seasons.iter().all(|s| (0.0..=1.0).contains(&s.strength)));
    seasons
        .iter()
        .map(|season| usize::try_from(season.period.as_secs() / 60).expect("small"))
        .collect()
}

/// Numbers with mean 0 and variance 1, the same for the same seed.
fn noise(seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    std::iter::repeat_with(move || (0..12).map(|_| uniform()).sum::<f64>() - 6.0)
}

fn with_noise(count: usize, seed: u64, rate: impl Fn(usize) -> f64) -> Vec<f64> {
    noise(seed)
        .take(count)
        .enumerate()
        .map(|(minute, noise)| {
            let rate = rate(minute);
            (rate + noise * rate.max(0.0).sqrt() / 2.0).max(0.0)
        })
        .collect()
}

fn wave(minute: usize, period: usize) -> f64 {
    (minute as f64 / period as f64 * std::f64::consts::TAU).sin()
}

/// The rates of a fixture by the minute, straight from the middle of one bin to the next, with the noise of counting.
fn fixture(text: &str, bin: usize) -> Vec<f64> {
    let rows: Vec<(usize, f64)> = text
        .lines()
        .skip(1)
        .filter_map(|line| {
            let (offset, count) = line.split_once(',')?;
            Some((
                offset.parse().ok()?,
                count.parse::<f64>().ok()? / bin as f64,
            ))
        })
        .collect();
    let mut rates = Vec::new();
    let mut noise = noise(3);
    for pair in rows.windows(2) {
        let ((from, rate), (to, next)) = (pair[0], pair[1]);
        rates.resize(from / 60, f64::NAN);
        if to - from > bin {
            continue;
        }
        for minute in 0..bin / 60 {
            let share = (60 * minute) as f64 / bin as f64;
            let rate = rate + (next - rate) * share;
            let noise = noise.next().unwrap_or_default() * (rate / 60.0).sqrt();
            rates.push((rate + noise).max(0.0));
        }
    }
    rates
}

fn servegen() -> Vec<f64> {
    let text = include_str!("../../tests/fixtures/servegen_m_mid_c15_600s.csv");
    fixture(text, 600)
}

fn nasa() -> Vec<f64> {
    fixture(
        include_str!("../../tests/fixtures/nasa_jul95_300s.csv"),
        300,
    )
}

/// What came of forecasts made every third minute from `from` on.
struct Backtest {
    exceeded: f64,
    error: f64,
    last_error: f64,
    day_error: f64,
    trust: f64,
}

fn backtest(rates: &[f64], from: usize, lead: usize, quantile: f64) -> Backtest {
    let history = history_of(rates);
    let mut forecaster = Forecaster::default();
    forecaster.set_horizon(minutes(lead));
    let mut sum = Backtest {
        exceeded: 0.0,
        error: 0.0,
        last_error: 0.0,
        day_error: 0.0,
        trust: 0.0,
    };
    let mut count = 0.0;
    for made in from..rates.len() - lead {
        forecaster.observe(after(made), &history);
        let truth = rates[made + lead - 1];
        if made % 3 > 0 || !truth.is_finite() || !rates[made - 1].is_finite() {
            continue;
        }
        let forecast = forecaster
            .forecast(after(made), minutes(lead), quantile)
            .expect("data");
        let point = forecast.points[forecast.points.len() - 4];
        count += 1.0;
        sum.exceeded += f64::from(u8::from(truth > point.upper));
        sum.error += (truth - point.point).abs();
        sum.last_error += (truth - rates[made - 1]).abs();
        sum.day_error += (truth - rates[made + lead - 1 - DAY]).abs();
        sum.trust = forecast.trust;
    }
    sum.exceeded /= count;
    sum
}

#[test]
fn without_any_data_there_is_no_forecast() {
    let mut forecaster = Forecaster::default();
    forecaster.observe(after(3), &History::new(Duration::from_secs(86_400)));
    assert_eq!(forecaster.forecast(after(3), minutes(5), 0.95), None);
}

#[test]
fn after_a_few_seconds_there_is_a_forecast_that_is_not_trusted() {
    let mut history = History::new(Duration::from_secs(86_400));
    let load = Load {
        pod_seconds: 2.0,
        arrivals: 20.0,
        ..Load::default()
    };
    for second in 1..=20 {
        history.record(START + Duration::from_secs(second), &load);
    }
    let mut forecaster = Forecaster::default();
    let now = Now::at(START, Duration::from_secs(20));
    forecaster.observe(now, &history);
    let forecast = forecaster
        .forecast(now, minutes(3), 0.95)
        .expect("twenty seconds");
    assert_eq!(forecast.points.len(), 18);
    assert!((forecast.points[17].point - 20.0).abs() < 1e-6);
    assert!(forecast.points[17].upper > 22.0);
    assert!(forecast.trust.abs() < f64::EPSILON);
}

#[test]
fn the_jump_of_every_morning_is_foreseen_from_the_second_day_on() {
    let rates = servegen();
    // The ramp from 01:20 to 01:30 is how bins of ten minutes show a jump; its middle is forecast from its foot.
    for day in 1..=3 {
        let made = day * DAY + 81;
        let before = &rates[..made];
        assert!(
            rates[made - 10..made - 2].iter().all(|rate| *rate < 3.0),
            "asleep"
        );
        let truth = rates[made + 4];
        let point = ahead(before, 5, 0.95);
        assert!(
            point.upper > 0.7 * truth,
            "day {day}: {point:?}, then {truth}"
        );
        if day > 1 {
            assert!(
                point.point > 0.4 * truth,
                "day {day}: {point:?}, then {truth}"
            );
        }
        let night = ahead(&rates[..day * DAY + 35], 5, 0.95);
        assert!(night.upper < 15.0, "day {day} at 00:35: {night:?}");
    }
}

#[test]
fn the_jump_is_foreseen_also_by_a_leader_that_lived_through_the_night() {
    let rates = servegen();
    let history = history_of(&rates[..2 * DAY + 81]);
    let mut forecaster = Forecaster::default();
    forecaster.set_horizon(minutes(5));
    for made in DAY + 700..=2 * DAY + 81 {
        forecaster.observe(after(made), &history);
    }
    let point = last_point(&forecaster, 2 * DAY + 81, 5, 0.95);
    assert!(point.upper > 0.7 * rates[2 * DAY + 85], "{point:?}");
}

#[test]
fn a_model_that_lived_through_the_days_is_the_one_fitted_to_them() {
    let lived = |rates: &[f64]| {
        let history = history_of(rates);
        let mut lived = Forecaster::default();
        for made in 1..=rates.len() {
            lived.observe(after(made), &history);
        }
        lived
    };
    let rates = with_noise(2 * DAY, 5, |_| 40.0);
    let now = after(rates.len());
    assert_eq!(
        lived(&rates).forecast(now, minutes(30), 0.95),
        learnt(&rates, 5).forecast(now, minutes(30), 0.95)
    );
    // Here the one fitted knew the day before it could be found.
    let rates = with_noise(3 * DAY, 5, |minute| 40.0 + 20.0 * wave(minute, DAY));
    let [ours, theirs] = [lived(&rates), learnt(&rates, 5)]
        .map(|forecaster| last_point(&forecaster, rates.len(), 30, 0.95));
    assert!(
        (ours.point - theirs.point).abs() < 1e-6,
        "{ours:?} {theirs:?}"
    );
    assert!(
        (ours.upper / theirs.upper - 1.0).abs() < 0.05,
        "{ours:?} {theirs:?}"
    );
}

#[test]
fn the_day_and_the_week_are_found() {
    let day = |minute: usize| 60.0 + 40.0 * wave(minute, DAY);
    assert_eq!(periods(&with_noise(3 * DAY, 1, day)), [DAY]);
    let week = |minute: usize| {
        let works = minute / DAY % 7 < 5;
        day(minute) * if works { 1.0 } else { 0.2 }
    };
    assert_eq!(periods(&with_noise(14 * DAY, 1, week)), [DAY, 7 * DAY]);
    let mut gaps = with_noise(14 * DAY, 1, week);
    for gap in [700..2_000, 6_000..6_300, 13_000..15_500] {
        gaps[gap].fill(f64::NAN);
    }
    assert_eq!(periods(&gaps), [DAY, 7 * DAY]);
    // Two humps are one day.
    let humps = |minute: usize| 60.0 + 30.0 * wave(minute, DAY) + 30.0 * wave(minute, DAY / 2);
    assert_eq!(periods(&with_noise(7 * DAY, 1, humps)), [DAY]);
    // A load that falls to a tenth within a week still has its day.
    let falls = |minute: usize| day(minute) * (-(minute as f64) / (3.0 * DAY as f64)).exp();
    assert_eq!(periods(&with_noise(7 * DAY, 1, falls)), [DAY]);
    assert_eq!(periods(&servegen()), [DAY]);
}

#[test]
fn the_hour_of_a_batch_job_is_found_and_other_periods_too() {
    for period in [60, 45, 37] {
        let job = |minute: usize| if minute % period < 8 { 90.0 } else { 10.0 };
        assert_eq!(periods(&with_noise(DAY, 1, job)), [period]);
        let rates = with_noise(DAY + period - 5, 1, job);
        // Five minutes before the next run, unseen in the last half hour.
        let next = (DAY + period - 5).next_multiple_of(period) - (DAY + period - 5);
        let point = ahead(&rates, next + 3, 0.95);
        assert!(point.upper > 70.0, "{period}: {point:?}");
    }
}

#[test]
fn where_there_is_no_season_none_is_found() {
    for seed in 0..12 {
        for days in [1, 2, 4, 14] {
            let found = periods(&with_noise(days * DAY, seed, |_| 50.0));
            assert_eq!(found, Vec::<usize>::new(), "noise {seed}, {days} days");
        }
    }
    let step = |minute: usize| if minute < 4_000 { 20.0 } else { 70.0 };
    assert_eq!(periods(&with_noise(7 * DAY, 1, step)), Vec::<usize>::new());
    assert_eq!(periods(&vec![0.0; 7 * DAY]), Vec::<usize>::new());
    assert_eq!(periods(&vec![5.0; 7 * DAY]), Vec::<usize>::new());
}

#[test]
fn after_a_step_the_new_level_is_soon_forecast() {
    for days in [0, 3] {
        let step = days * DAY + 600;
        let rates = with_noise(step + 12, 2, |minute| {
            let day = if days > 0 {
                10.0 * wave(minute, DAY)
            } else {
                0.0
            };
            if minute < step {
                30.0 + day
            } else {
                90.0 + 3.0 * day
            }
        });
        let point = ahead(&rates, 5, 0.95);
        assert!(
            (75.0..110.0).contains(&point.point),
            "{days} days: {point:?}"
        );
        assert!(point.upper < 240.0, "{days} days: {point:?}");
    }
}

#[test]
fn a_ramp_is_drawn_on() {
    let rates = with_noise(180, 2, |minute| 20.0 + 0.5 * minute as f64);
    let truth = 20.0 + 0.5 * 190.0;
    let point = ahead(&rates, 10, 0.95);
    assert!(point.upper > truth, "{point:?}, then {truth}");
}

#[test]
fn one_wild_minute_yesterday_is_no_forecast_for_today() {
    let mut rates = with_noise(4 * DAY, 2, |minute| 50.0 + 20.0 * wave(minute, DAY));
    let truth = rates[3 * DAY + 700];
    rates[2 * DAY + 700] = 5_000.0;
    let point = ahead(&rates[..3 * DAY + 696], 5, 0.95);
    assert!(
        (point.point - truth).abs() < 10.0,
        "{point:?}, then {truth}"
    );
}

#[test]
fn the_upper_quantile_is_exceeded_as_often_as_it_says() {
    let sine = with_noise(5 * DAY, 4, |minute| 60.0 + 40.0 * wave(minute, DAY));
    let noise = with_noise(2 * DAY, 4, |_| 30.0);
    for (name, rates, from) in [
        ("nasa", nasa(), 4 * DAY),
        ("servegen", servegen(), DAY),
        ("sine", sine, 2 * DAY),
        ("noise", noise, DAY),
    ] {
        let exceeded = backtest(&rates, from, 5, 0.95).exceeded;
        assert!((0.03..=0.07).contains(&exceeded), "{name}: {exceeded}");
    }
}

#[test]
fn real_days_are_forecast_better_than_by_the_last_value_or_by_yesterday() {
    for (name, rates, from) in [("nasa", nasa(), 4 * DAY), ("servegen", servegen(), 2 * DAY)] {
        let tried = backtest(&rates, from, 10, 0.95);
        let (ours, last, day) = (tried.error, tried.last_error, tried.day_error);
        assert!(ours < 0.92 * last, "{name}: {ours} against {last}");
        assert!(ours < 0.85 * day, "{name}: {ours} against {day}");
        assert!(tried.trust > 0.4, "{name}: {}", tried.trust);
    }
}

#[test]
fn a_clock_that_jumps_is_survived() {
    let rates = with_noise(3 * DAY, 4, |minute| 60.0 + 40.0 * wave(minute, DAY));
    let history = history_of(&rates);
    let mut forecaster = Forecaster::default();
    let instant = after(rates.len()).instant;
    for (turn, timestamp) in [
        after(rates.len()).timestamp,
        after(2 * DAY).timestamp,
        after(400 * DAY).timestamp,
        Timestamp::default(),
        after(rates.len() + 1).timestamp,
    ]
    .into_iter()
    .enumerate()
    {
        let instant = instant + minutes(2 * turn);
        let now = Now { instant, timestamp };
        forecaster.observe(now, &history);
        if let Some(forecast) = forecaster.forecast(now, minutes(5), 0.95) {
            assert!(forecast.points.iter().all(|point| point.upper.is_finite()));
        }
    }
    let point = last_point(&forecaster, rates.len() + 1, 5, 0.95);
    assert!((point.point - 61.0).abs() < 12.0, "{point:?}");
}

#[test]
fn a_lead_time_that_moves_by_seconds_changes_nothing() {
    let mut forecaster = Forecaster::default();
    let check = |forecaster: &Forecaster, count| assert_eq!(forecaster.horizon(), minutes(count));
    for (secs, horizon) in [
        (0, 1),
        (60, 1),
        (61, 2),
        (350, 6),
        (400, 8),
        (3_600, 60),
        (90_000, 60),
    ] {
        forecaster.set_horizon(Duration::from_secs(secs));
        check(&forecaster, horizon);
    }
}

fn any_rate() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..100.0,
        2 => Just(0.0),
        1 => Just(f64::NAN),
        1 => Just(1e12),
        1 => Just(f64::INFINITY),
        1 => Just(-5.0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_came_the_band_is_a_band(
        stretches in proptest::collection::vec((any_rate(), 1_usize..400), 1..12),
        lead in 0_usize..90,
        ahead_secs in 0_u64..200_000,
        quantile in prop_oneof![0.0..1.0, Just(f64::NAN), Just(2.0)],
    ) {
        let rates: Vec<f64> = stretches
            .iter()
            .flat_map(|(rate, count)| std::iter::repeat_n(*rate, *count))
            .collect();
        let forecaster = learnt(&rates, lead);
        let now = after(rates.len());
        let ahead = Duration::from_secs(ahead_secs);
        let Some(forecast) = forecaster.forecast(now, ahead, quantile) else {
            prop_assert!(rates.iter().all(|rate| !rate.is_finite() || *rate < 0.0));
            return Ok(());
        };
        prop_assert!((1..=180).contains(&forecast.points.len()));
        for point in &forecast.points {
            let ForecastPoint { at, point, lower, upper } = *point;
            prop_assert!(0.0 <= lower && lower <= point && point <= upper && upper.is_finite());
            prop_assert!(at >= now.timestamp && at <= now.timestamp + ahead + STEP);
        }
        prop_assert!((0.0..=1.0).contains(&forecast.trust));
        let weight: f64 = forecast.experts.iter().map(|expert| expert.weight).sum();
        prop_assert!((weight - 1.0).abs() < 1e-6, "{weight}");
    }
}

/// Where CPU time is scarce, requests must get their turn many times while two weeks are learnt.
#[test]
fn while_it_learns_it_rests() {
    let rests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rests);
    let mut forecaster = Forecaster::default();
    forecaster.set_pace(Pace::new(move || {
        counted.fetch_add(1, Relaxed);
    }));
    let rates = vec![5.0; 14 * 1_440];
    let history = history_of(&rates);
    forecaster.observe(after(rates.len()), &history);
    assert!(rests.swap(0, Relaxed) >= 1_000);
    // Another horizon is another model.
    forecaster.set_horizon(minutes(30));
    forecaster.observe(after(rates.len()), &history);
    assert!(rests.load(Relaxed) >= 1_000);
}
