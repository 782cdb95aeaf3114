//! Durations as people write them, and numbers that know their range.

use std::fmt;
use std::time::Duration;

/// Rounds a need up to whole pods; the dust of a division is not a pod.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of u32; NaN becomes 0"
)]
pub fn pods(need: f64) -> u32 {
    (need - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Rates fit into `f32` to a part in ten million; half the memory of two weeks.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is lost is far below the noise of a count"
)]
pub fn narrow(rate: f64) -> f32 {
    rate as f32
}

/// Reads `64Mi`, `1Gi`, `512Ki`; a bare number counts bytes. As Kubernetes writes a memory limit, for the units that are in use.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = match unit {
        "" => Some(1),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1_usize << 30),
        _ => None,
    };
    let bytes = number.parse::<usize>().ok().zip(unit);
    bytes
        .and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| {
            format!(
                "`{text}` is no memory (write bytes, or a number with Ki, Mi or Gi, such as 128Mi)"
            )
        })
}

/// What is wrong with a duration somebody typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a duration (write a number with s, m, h or d, such as 90s, 5m or 1h30m)")]
pub struct NotADuration {
    given: String,
}

/// Reads `90s`, `1h30m`, `250ms`, `14d`; a bare number counts seconds.
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let wrong = || NotADuration {
        given: text.to_owned(),
    };
    let mut rest = text.trim();
    if let Ok(secs) = rest.parse::<f64>() {
        return Duration::try_from_secs_f64(secs).map_err(|_out_of_range| wrong());
    }
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit_secs = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_not_a_number| wrong())?;
        let part =
            Duration::try_from_secs_f64(number * unit_secs).map_err(|_out_of_range| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

/// Shows a duration the way [`parse_duration`] reads it: `1h30m`, `90s` as `1m30s`, `250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown(pub Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        if secs == 0 {
            let millis = self.0.subsec_millis();
            return if millis == 0 {
                f.write_str("0s")
            } else {
                write!(f, "{millis}ms")
            };
        }
        for (unit, value) in [
            ("d", secs / 86_400),
            ("h", secs / 3_600 % 24),
            ("m", secs / 60 % 60),
            ("s", secs % 60),
        ] {
            if value > 0 {
                write!(f, "{value}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let check = |text: &str, secs: f64| {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs_f64(secs)),
                "{text}"
            );
        };
        check("90s", 90.0);
        check("1h30m", 5_400.0);
        check("250ms", 0.25);
        check("14d", 1_209_600.0);
        check("15", 15.0);
        check("1.5m", 90.0);
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_was_given() {
        for text in [
            "",
            "s",
            "5 apples",
            "-3s",
            "1h-2m",
            "9999999999999999999d",
            "NaN",
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for secs in [0, 1, 59, 60, 3_599, 3_600, 90_061] {
            let duration = Duration::from_secs(secs);
            assert_eq!(parse_duration(&Shown(duration).to_string()), Ok(duration));
        }
    }
}
