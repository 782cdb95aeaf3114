//! Reads `--policies`.

use std::time::Duration;

use crate::baseline::{CronWindow, KedaSettings, Rule, Schedule};
use crate::clock::Timestamp;
use crate::units::parse_duration;

/// What HPA's users set, and what a schedule's HPA aims at where nothing is said.
const CRON_TARGET: f64 = 0.7;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A policy to be simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Contestant {
    /// As it was written.
    pub name: String,
    /// Who decides.
    pub kind: Kind,
}

/// Who decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// The production turn.
    Sidescale,
    /// A published rule.
    Rule(Rule),
    /// Somebody whose forecast is always right, with this share of a pod as the target.
    Foresight(f64),
    /// Somebody who knows everything.
    Clairvoyant,
}

/// What is wrong with one policy of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{item}`: {problem}")]
pub struct ContestantError {
    item: String,
    problem: String,
}

/// Reads a list such as `sidescale,hpa:70,clairvoyant`. `bounds` are those of the workload, `zero` the wall clock at the
/// trace's zero.
pub fn read(
    list: &str,
    bounds: (u32, u32),
    zero: Timestamp,
) -> Result<Vec<Contestant>, ContestantError> {
    let mut contestants: Vec<Contestant> = Vec::new();
    for item in list.split(',').map(str::trim) {
        let wrong = |problem: String| ContestantError {
            item: item.to_owned(),
            problem,
        };
        if contestants.iter().any(|known| known.name == item) {
            return Err(wrong("is named twice".to_owned()));
        }
        contestants.push(Contestant {
            name: item.to_owned(),
            kind: kind(item, bounds, zero).map_err(wrong)?,
        });
    }
    Ok(contestants)
}

fn kind(item: &str, bounds: (u32, u32), zero: Timestamp) -> Result<Kind, String> {
    let (name, rest) = match item.split_once(':') {
        Some((name, rest)) => (name, Some(rest)),
        None => (item, None),
    };
    let rule = match (name, rest) {
        ("sidescale", None) => return Ok(Kind::Sidescale),
        ("clairvoyant", None) => return Ok(Kind::Clairvoyant),
        ("foresight", Some(rest)) => return Ok(Kind::Foresight(percent(rest)?)),
        ("hpa", Some(rest)) => Rule::Hpa {
            target: percent(rest)?,
        },
        ("kpa", Some(rest)) => Rule::Kpa {
            target: percent(rest)?,
        },
        ("keda", Some(rest)) => Rule::Keda(keda(rest, bounds)?),
        ("cron", Some(rest)) => cron(rest, bounds, zero)?,
        ("fixed", Some(rest)) => Rule::Fixed {
            replicas: replicas(rest)?,
        },
        ("hpa" | "kpa" | "keda" | "foresight", None) => {
            return Err(format!("expected a target in percent, such as {name}:70"));
        }
        ("fixed", None) => return Err("expected a number of replicas, such as fixed:12".to_owned()),
        ("cron", None) => {
            return Err("expected windows, such as cron:mon-fri@0800-2000=12..24".to_owned());
        }
        ("sidescale" | "clairvoyant", Some(_)) => {
            return Err(format!("expected {name} alone, it has no options"));
        }
        _ => {
            return Err(
                "expected sidescale, hpa:PERCENT, kpa:PERCENT, keda:PERCENT, cron:WINDOWS, fixed:REPLICAS, foresight:PERCENT or clairvoyant"
                    .to_owned(),
            );
        }
    };
    Ok(Kind::Rule(rule))
}

/// `70[:polling=30s][:cooldown=5m][:activation=0][:min=0][:cached]`.
fn keda(text: &str, bounds: (u32, u32)) -> Result<KedaSettings, String> {
    let mut parts = text.split(':');
    let target = percent(parts.next().unwrap_or_default())?;
    let mut settings = KedaSettings::with_target(target, bounds.0);
    for part in parts {
        match part.split_once('=') {
            Some(("polling", time)) => settings.polling = duration(time)?,
            Some(("cooldown", time)) => settings.cooldown = duration(time)?,
            Some(("min", count)) => settings.min = replicas(count)?,
            Some(("activation", value)) => {
                let number = value
                    .parse()
                    .ok()
                    .filter(|it: &f64| it.is_finite() && *it >= 0.0);
                settings.activation = number.ok_or_else(|| {
                    format!("expected a number of pods' worth, 0 or more, found `{value}`")
                })?;
            }
            None if part == "cached" => settings.is_cached = true,
            _ => {
                return Err(format!(
                    "expected polling=TIME, cooldown=TIME, activation=NUMBER, min=REPLICAS or cached, found `{part}`"
                ));
            }
        }
    }
    if settings.min > bounds.1 {
        return Err(format!("min={} is above --max {}", settings.min, bounds.1));
    }
    Ok(settings)
}

/// `[DAYS@]HHMM-HHMM=MIN[..MAX]`, several joined by `+`, then `[:hpa=70]`.
fn cron(text: &str, bounds: (u32, u32), zero: Timestamp) -> Result<Rule, String> {
    let (windows, target) = match text.split_once(":hpa=") {
        Some((windows, target)) => (windows, percent(target)?),
        None => (text, CRON_TARGET),
    };
    let windows = windows.split('+').map(|text| window(text, bounds));
    Ok(Rule::Cron {
        target,
        schedule: Schedule {
            zero,
            windows: windows.collect::<Result<_, _>>()?,
        },
    })
}

fn window(text: &str, bounds: (u32, u32)) -> Result<CronWindow, String> {
    let shape = || {
        format!(
            "expected [DAYS@]HHMM-HHMM=MIN[..MAX], such as mon-fri@0800-2000=12..24, found `{text}`"
        )
    };
    let (when, replicas_text) = text.split_once('=').ok_or_else(shape)?;
    let (days_text, times) = match when.split_once('@') {
        Some((days, times)) => (Some(days), times),
        None => (None, when),
    };
    let (from, to) = times.split_once('-').ok_or_else(shape)?;
    let (min, max) = match replicas_text.split_once("..") {
        Some((min, max)) => (replicas(min)?, replicas(max)?),
        None => (replicas(replicas_text)?, replicas(replicas_text)?),
    };
    if min > max {
        return Err(format!("{min}..{max} ends before it begins"));
    }
    if max > bounds.1 {
        return Err(format!("{max} replicas are above --max {}", bounds.1));
    }
    Ok(CronWindow {
        days: days_text.map_or(Ok([true; 7]), days)?,
        from: time_of_day(from)?,
        to: time_of_day(to)?,
        min,
        max,
    })
}

/// `mon`, or `mon-fri`, also across the weekend.
fn days(text: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| {
        let known = DAYS.iter().position(|day| *day == name);
        known.ok_or_else(|| format!("expected a day of {}, found `{name}`", DAYS.join(", ")))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (day(first)?, day(last)?);
    let mut days = [false; 7];
    for offset in 0..=(last + 7 - first) % 7 {
        days[(first + offset) % 7] = true;
    }
    Ok(days)
}

fn time_of_day(text: &str) -> Result<Duration, String> {
    let number: Option<u64> = text.parse().ok().filter(|_| text.len() == 4);
    let parts = number.map(|number| (number / 100, number % 100));
    match parts {
        Some((hours, minutes)) if hours < 24 && minutes < 60 || (hours, minutes) == (24, 0) => {
            Ok(Duration::from_secs(hours * 3_600 + minutes * 60))
        }
        _ => Err(format!(
            "expected a time of the day such as 0830, found `{text}`"
        )),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err(format!(
            "expected a target above 0 and at most 100 percent, found `{text}`"
        )),
    }
}

fn replicas(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(replicas) if replicas <= super::MOST_PODS => Ok(replicas),
        _ => Err(format!(
            "expected a number of replicas of at most {}, found `{text}`",
            super::MOST_PODS
        )),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<Vec<Contestant>, ContestantError> {
        super::read(list, (1, 48), Timestamp::default())
    }

    #[test]
    fn each_policy_is_read_with_its_options() {
        let list = "sidescale,hpa:70,kpa:62.5,fixed:12,clairvoyant,keda:70:polling=10s:cooldown=1m:min=0:cached,cron:fri-mon@2200-0600=3..9+1200-1300=5:hpa=60,foresight:95";
        let read = read(list).expect("a good list");
        assert_eq!(read[1].kind, Kind::Rule(Rule::Hpa { target: 0.7 }));
        assert_eq!(read[2].kind, Kind::Rule(Rule::Kpa { target: 0.625 }));
        assert_eq!(read[3].kind, Kind::Rule(Rule::Fixed { replicas: 12 }));
        let Kind::Rule(Rule::Keda(keda)) = &read[5].kind else {
            panic!("{read:?}");
        };
        assert_eq!(
            (keda.min, keda.is_cached, keda.polling.as_secs()),
            (0, true, 10)
        );
        let Kind::Rule(Rule::Cron { schedule, target }) = &read[6].kind else {
            panic!("{read:?}");
        };
        let [night, noon] = &schedule.windows[..] else {
            panic!("{schedule:?}");
        };
        assert_eq!(night.days, [true, false, false, false, true, true, true]);
        assert_eq!((night.min, night.max, night.from.as_secs()), (3, 9, 79_200));
        assert_eq!((noon.min, noon.max, noon.days), (5, 5, [true; 7]));
        assert!((target - 0.6).abs() < 1e-12);
        assert_eq!(read[7].kind, Kind::Foresight(0.95));
    }

    #[test]
    fn what_is_wrong_in_which_policy_is_said() {
        for (list, message) in [
            ("hpa:70,ahpa:3", "`ahpa:3`: expected sidescale, hpa:PERCENT"),
            ("hpa", "`hpa`: expected a target in percent, such as hpa:70"),
            (
                "foresight",
                "expected a target in percent, such as foresight:70",
            ),
            (
                "kpa:0",
                "`kpa:0`: expected a target above 0 and at most 100 percent, found `0`",
            ),
            ("hpa:NaN", "found `NaN`"),
            ("hpa:70,hpa:70", "`hpa:70`: is named twice"),
            ("", "``: expected sidescale"),
            (
                "sidescale:fast",
                "`sidescale:fast`: expected sidescale alone",
            ),
            ("fixed:-1", "`fixed:-1`: expected a number of replicas"),
            ("keda:70:pool=3", "expected polling=TIME, cooldown=TIME"),
            ("keda:70:polling=soon", "`soon` is not a duration"),
            ("cron:0800=3", "expected [DAYS@]HHMM-HHMM=MIN[..MAX]"),
            (
                "cron:0860-2000=3",
                "expected a time of the day such as 0830, found `0860`",
            ),
            ("cron:noon@0800-2000=3", "expected a day of mon, tue"),
            ("cron:0800-2000=9..3", "9..3 ends before it begins"),
            ("cron:0800-2000=90", "90 replicas are above --max 48"),
        ] {
            let error = read(list).expect_err(list).to_string();
            assert!(error.contains(message), "{list}: {error}");
        }
    }
}
