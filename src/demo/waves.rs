//! How early the pods of each scale-up were ready: the demo's measure of looking ahead.

/// One decision to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleUp {
    /// Demo second of the decision.
    pub at: usize,
    /// Replicas before.
    pub from: u32,
    /// Replicas asked for.
    pub to: u32,
}

/// What happened in one demo second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// Arrivals a second, over the last ten seconds: single seconds of a Poisson stream are mostly noise.
    pub load: f64,
    /// Ready pods.
    pub ready: u32,
}

/// A pod counts as used up at this share of what it can serve.
const FULL: f64 = 0.9;

/// Seconds from the moment a scale-up's last pod was ready to the first second with load above 90 % of the capacity
/// that was ready without it; negative when late. `None` when the load never came, or the pods never did.
///
/// A load that is above that line already at the decision is dated back to when it crossed: a reactive decision is late
/// by its own hesitation as well.
pub fn lead_seconds(up: &ScaleUp, seconds: &[Second], pod_rps: f64) -> Option<f64> {
    let line = FULL * f64::from(up.from) * pod_rps;
    let above = |second: &Second| second.load > line;
    let ready = seconds
        .iter()
        .skip(up.at)
        .position(|second| second.ready >= up.to)?
        + up.at;
    let before = seconds
        .iter()
        .take(up.at)
        .rev()
        .take_while(|second| above(second))
        .count();
    let crossed = match before {
        0 => seconds.iter().skip(up.at).position(above)? + up.at,
        before => up.at - before,
    };
    Some(crossed as f64 - ready as f64)
}

/// The middle value; of an even number the mean of the two middle ones.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle)?;
    Some(if values.len() % 2 == 1 {
        *upper
    } else {
        f64::midpoint(values[middle - 1], *upper)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Load grows by one a second; pods are ready as given.
    fn seconds(ready: impl Fn(usize) -> u32) -> Vec<Second> {
        (0..100)
            .map(|second| Second {
                load: second as f64,
                ready: ready(second),
            })
            .collect()
    }

    #[test]
    fn pods_that_are_ready_before_the_load_comes_lead_by_the_difference() {
        let up = ScaleUp {
            at: 10,
            from: 4,
            to: 5,
        };
        // 90 % of four pods of 10 a second is crossed in second 37; the fifth pod is ready in second 20.
        let seconds = seconds(|second| if second >= 20 { 5 } else { 4 });
        assert_eq!(lead_seconds(&up, &seconds, 10.0), Some(17.0));
    }

    #[test]
    fn a_reactive_decision_is_late_by_its_hesitation_too() {
        let up = ScaleUp {
            at: 50,
            from: 4,
            to: 5,
        };
        let seconds = seconds(|second| if second >= 60 { 5 } else { 4 });
        assert_eq!(lead_seconds(&up, &seconds, 10.0), Some(-23.0));
    }

    #[test]
    fn pods_nobody_needed_and_pods_that_never_came_have_no_lead() {
        let up = ScaleUp {
            at: 10,
            from: 40,
            to: 41,
        };
        assert_eq!(lead_seconds(&up, &seconds(|_| 41), 10.0), None);
        let up = ScaleUp {
            at: 10,
            from: 4,
            to: 5,
        };
        assert_eq!(lead_seconds(&up, &seconds(|_| 4), 10.0), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
