//! Charts as inline SVG, all with the same axis of time.

use std::fmt::{self, Write as _};

const LEFT: f64 = 44.0;
const RIGHT: f64 = 1_180.0;
const HEIGHT: f64 = 220.0;
const TOP: f64 = 8.0;
const AXIS: f64 = 18.0;
/// Of one policy's strip.
const STRIP: f64 = 16.0;

/// A chart's frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chart {
    pub(super) step_secs: u64,
    pub(super) start_secs: u64,
    pub(super) columns: usize,
    pub(super) warm_secs: u64,
    /// The upper end of the vertical axis.
    pub(super) most: f64,
}

/// One policy's violations.
#[derive(Clone, Debug)]
pub(super) struct Strip<'a> {
    pub(super) name: String,
    pub(super) colour: &'a str,
    /// The share of each column's requests.
    pub(super) shares: Vec<f64>,
}

// === impl Chart ===

impl Chart {
    pub(super) fn open(&self, page: &mut String, unit: &str) -> fmt::Result {
        writeln!(
            page,
            "<svg viewBox=\"0 0 1200 {:.0}\" role=\"img\">",
            TOP + HEIGHT + AXIS
        )?;
        self.time(page, TOP, TOP + HEIGHT)?;
        let step = nice(self.most / 4.0);
        let mut value = 0.0;
        while value <= self.most {
            let y = self.y(value);
            writeln!(
                page,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                LEFT - 6.0,
                y + 4.0
            )?;
            value += step;
        }
        writeln!(
            page,
            "<text x=\"{:.0}\" y=\"{:.0}\">{unit}</text>",
            LEFT + 4.0,
            TOP + 10.0
        )
    }

    #[expect(clippy::unused_self, reason = "the pair of open")]
    pub(super) fn close(&self, page: &mut String) -> fmt::Result {
        writeln!(page, "</svg>")
    }

    /// A line that is broken where there is no value.
    pub(super) fn line(
        &self,
        page: &mut String,
        class: &str,
        colour: Option<&str>,
        values: &[Option<f64>],
    ) -> fmt::Result {
        let mut path = String::new();
        let mut is_down = false;
        for (column, value) in values.iter().enumerate() {
            if let Some(value) = value {
                let letter = if is_down { 'L' } else { 'M' };
                write!(path, "{letter}{:.1} {:.1}", self.x(column), self.y(*value))?;
            }
            is_down = value.is_some();
        }
        let style = colour.map_or_else(String::new, |colour| format!(" style=\"stroke:{colour}\""));
        writeln!(page, "<path class=\"{class}\"{style} d=\"{path}\"/>")
    }

    /// What lies between two lines, in one piece for each stretch where both are.
    pub(super) fn area(
        &self,
        page: &mut String,
        lower: &[Option<f64>],
        upper: &[Option<f64>],
    ) -> fmt::Result {
        let both: Vec<Option<(f64, f64)>> =
            lower.iter().zip(upper).map(|(l, u)| l.zip(*u)).collect();
        let mut path = String::new();
        let mut column = 0;
        for stretch in both.chunk_by(|one, other| one.is_some() == other.is_some()) {
            let bounds: Vec<(usize, (f64, f64))> = (column..)
                .zip(stretch)
                .filter_map(|(column, both)| Some((column, (*both)?)))
                .collect();
            let there = bounds.iter().map(|(column, both)| (*column, both.1));
            let back = bounds.iter().rev().map(|(column, both)| (*column, both.0));
            for (index, (column, value)) in there.chain(back).enumerate() {
                let letter = if index == 0 { 'M' } else { 'L' };
                write!(path, "{letter}{:.1} {:.1}", self.x(column), self.y(value))?;
            }
            if !bounds.is_empty() {
                path.push('Z');
            }
            column += stretch.len();
        }
        writeln!(page, "<path class=\"band\" d=\"{path}\"/>")
    }

    /// A row for each policy.
    pub(super) fn strips(&self, page: &mut String, strips: &[Strip<'_>]) -> fmt::Result {
        let height = STRIP * strips.len() as f64;
        writeln!(
            page,
            "<svg viewBox=\"0 0 1200 {:.0}\" role=\"img\">",
            TOP + height + AXIS
        )?;
        self.time(page, TOP, TOP + height)?;
        for (row, strip) in strips.iter().enumerate() {
            let y = TOP + STRIP * row as f64;
            for (column, share) in strip
                .shares
                .iter()
                .enumerate()
                .filter(|(_, share)| **share > 0.0)
            {
                // The square root: a few per cent are to be seen, too.
                writeln!(
                    page,
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{}\" fill-opacity=\"{:.2}\"/>",
                    self.x(column),
                    y + 2.0,
                    self.width().max(1.0),
                    STRIP - 4.0,
                    strip.colour,
                    share.sqrt().clamp(0.15, 1.0)
                )?;
            }
            writeln!(
                page,
                "<text x=\"{:.0}\" y=\"{:.1}\">{}</text>",
                LEFT + 4.0,
                y + 12.0,
                strip.name
            )?;
        }
        writeln!(page, "</svg>")
    }

    /// The warm-up's shade and the axis of time.
    fn time(&self, page: &mut String, top: f64, bottom: f64) -> fmt::Result {
        let length = self.step_secs as f64 * self.columns.max(1) as f64;
        let at = |secs: f64| LEFT + (RIGHT - LEFT) * secs / length;
        if self.warm_secs > 0 {
            writeln!(
                page,
                "<rect class=\"warm\" x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"{:.0}\"/>",
                at(self.warm_secs as f64).min(RIGHT) - LEFT,
                bottom - top
            )?;
        }
        let (step, unit, unit_secs) = ticks(length);
        let start = self.start_secs as f64;
        let mut tick = (start / step).ceil() * step;
        while tick <= start + length {
            let x = at(tick - start);
            writeln!(
                page,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/><text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}{unit}</text>",
                bottom + 14.0,
                tick / unit_secs
            )?;
            tick += step;
        }
        Ok(())
    }

    fn width(&self) -> f64 {
        (RIGHT - LEFT) / self.columns.max(1) as f64
    }

    fn x(&self, column: usize) -> f64 {
        LEFT + self.width() * column as f64
    }

    fn y(&self, value: f64) -> f64 {
        TOP + HEIGHT * (1.0 - (value / self.most).clamp(0.0, 1.0))
    }
}

/// The distance of the marks on an axis of time that long, and their unit.
fn ticks(length_secs: f64) -> (f64, &'static str, f64) {
    let steps = [
        (60.0, " min", 60.0),
        (600.0, " min", 60.0),
        (3_600.0, " h", 3_600.0),
        (21_600.0, " h", 3_600.0),
        (86_400.0, " d", 86_400.0),
        (7.0 * 86_400.0, " d", 86_400.0),
    ];
    let fits = steps.iter().find(|(step, ..)| length_secs / step <= 16.0);
    *fits.unwrap_or(&(28.0 * 86_400.0, " d", 86_400.0))
}

/// The next of 1, 2, 5, 10, 20, ... at or above.
fn nice(step: f64) -> f64 {
    let ten = 10_f64.powf(step.max(1e-9).log10().floor());
    let fits = [1.0, 2.0, 5.0].map(|factor| factor * ten);
    fits.into_iter()
        .find(|fit| *fit >= step)
        .unwrap_or(10.0 * ten)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            step_secs: 1_000,
            start_secs: 0,
            columns: 4,
            warm_secs: 1_000,
            most: 10.0,
        }
    }

    #[test]
    fn a_line_is_broken_where_nobody_looked() {
        let mut page = String::new();
        let values = [Some(0.0), Some(10.0), None, Some(20.0)];
        let drawn = chart().line(&mut page, "load", None, &values);
        assert!(drawn.is_ok());
        assert_eq!(
            page,
            "<path class=\"load\" d=\"M44.0 228.0L328.0 8.0M896.0 8.0\"/>\n"
        );
    }

    #[test]
    fn marks_are_round_and_few() {
        for (most, step) in [
            (0.3, 0.5),
            (1.0, 1.0),
            (1.1, 2.0),
            (4.0, 5.0),
            (60.0, 100.0),
        ] {
            assert!((nice(most) - step).abs() < 1e-9, "{most}");
        }
        for days in [0.04, 0.3, 1.0, 14.0, 63.0, 400.0] {
            let (step, ..) = ticks(days * 86_400.0);
            let marks = days * 86_400.0 / step;
            assert!((1.0..=17.0).contains(&marks), "{days} d: {marks}");
        }
    }
}
