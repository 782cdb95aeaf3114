//! All cases as points: what the policy cost over what it is compared with, both on logarithmic axes.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{LEAST_REGRET, LOST, Summary};
use crate::simulate::page::escaped;
use crate::units::Shown;

const SIDE: f64 = 480.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
/// The ends of both axes; what lies beyond is drawn at the end.
const ENDS: (f64, f64) = (LEAST_REGRET, 30.0);
const TICKS: [f64; 6] = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
/// One for each cold start, told apart by those who see no colours as well: they differ in lightness.
const COLOURS: [&str; 4] = ["#1b9e77", "#7570b3", "#d95f02", "#333333"];

/// An SVG that stands for itself, light behind and dark in front.
pub(super) fn picture(summary: &Summary) -> Result<String, fmt::Error> {
    let mut svg = String::new();
    let (width, height) = (LEFT + SIDE + 16.0, TOP + SIDE + BOTTOM);
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>"
    )?;
    axes(&mut svg, summary.subject_name())?;
    let colds: BTreeSet<Duration> = summary.cases.iter().map(|it| it.case.cold_start).collect();
    for (index, cold) in colds.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let y = TOP + SIDE - 14.0 - 18.0 * (colds.len() - 1 - index) as f64;
        let x = LEFT + SIDE - 130.0;
        writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"{:.0}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"{y}\">cold start {}</text>",
            y - 4.0,
            x + 10.0,
            Shown(*cold)
        )?;
        for scored in summary
            .cases
            .iter()
            .filter(|it| it.case.cold_start == *cold)
        {
            let (Some(best), Some(score)) = (scored.case.best_regret, scored.subject()) else {
                continue;
            };
            writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\" fill-opacity=\"0.75\"><title>{}, {}: {:.3}, \
                 compared with {best:.3}</title></circle>",
                across(best),
                up(score.regret),
                escaped(&score.trace),
                Shown(*cold),
                score.regret,
            )?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn axes(svg: &mut String, subject: &str) -> fmt::Result {
    let subject = escaped(subject);
    let (right, floor) = (LEFT + SIDE, TOP + SIDE);
    for tick in TICKS {
        let (x, y) = (across(tick), up(tick));
        writeln!(
            svg,
            "<path d=\"M{x:.1} {TOP}V{floor}M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{tick}</text>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            floor + 16.0,
            LEFT - 6.0,
            y + 4.0
        )?;
    }
    let (from, to) = (up(ENDS.0), up(ENDS.1));
    writeln!(
        svg,
        "<path d=\"M{LEFT} {from:.1}L{right} {to:.1}\" stroke=\"#222\"/>\
         <path d=\"M{LEFT} {:.1}L{:.1} {to:.1}\" stroke=\"#222\" stroke-dasharray=\"4 4\"/>\
         <text x=\"{:.0}\" y=\"{:.0}\">{LOST} x</text>",
        up(LOST * ENDS.0),
        across(ENDS.1 / LOST),
        across(ENDS.1 / LOST) - 30.0,
        TOP + 14.0
    )?;
    writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">regret compared with</text>\
         <text transform=\"translate(14 {:.0}) rotate(-90)\" text-anchor=\"middle\">regret of {subject}</text>",
        LEFT + SIDE / 2.0,
        floor + 36.0,
        TOP + SIDE / 2.0
    )
}

fn across(regret: f64) -> f64 {
    LEFT + SIDE * along(regret)
}

fn up(regret: f64) -> f64 {
    TOP + SIDE * (1.0 - along(regret))
}

fn along(regret: f64) -> f64 {
    let (low, high) = ENDS;
    (regret.clamp(low, high) / low).ln() / (high / low).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_is_a_point_and_equals_lie_on_the_diagonal() {
        let svg =
            picture(&super::super::tests::summary()).expect("writing to a string cannot fail");
        let cases = svg.matches("<title>").count();
        assert_eq!(cases, 2, "{svg}");
        for regret in [0.001, 0.03, 0.5, 30.0, 1e6] {
            let (x, y) = (across(regret) - LEFT, TOP + SIDE - up(regret));
            assert!(
                (x - y).abs() < 1e-9 && (0.0..=SIDE).contains(&x),
                "{regret}"
            );
        }
    }
}
