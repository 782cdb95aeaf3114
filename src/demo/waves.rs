//! How early each pod was ready: the demo's measure of looking ahead.

/// The load of a second is the mean of so many before it and after it. Ten seconds of a Poisson stream of 25 a second
/// deviate by half of what a pod serves, and whatever looks ahead is meant to know the minutes, not the spikes. A mean of
/// the past alone would date the load half its width late, in everybody's favour.
const AROUND: usize = 30;

/// For each pod that the load needed beyond those of the first second, in their order: seconds from when so many pods were
/// ready for the first time to the first second whose load is more than one pod fewer can serve; negative when late.
/// `arrivals` and `ready` of each second; `pod_rps`: requests a second that a pod serves at most.
///
/// By pod and not by decision: one decision may ask for three pods, the last of which is needed much later than the
/// first, and a plan that decides often would be measured by its smallest steps. A pod that was needed and never came is
/// late by the whole rest of the record: left out, a fleet that never grows would have no fault.
pub fn leads(arrivals: &[u32], ready: &[u32], pod_rps: f64) -> Vec<f64> {
    let loads: Vec<f64> = (0..arrivals.len())
        .map(|second| around(arrivals, second))
        .collect();
    let crossed = |pod: u32| {
        let line = f64::from(pod - 1) * pod_rps;
        loads.iter().position(|load| *load > line)
    };
    let came = |pod: u32| {
        let first = ready.iter().position(|ready| *ready >= pod);
        first.unwrap_or(ready.len())
    };
    let started_with = ready.first().copied().unwrap_or_default();
    (started_with + 1..)
        .map_while(|pod| Some(crossed(pod)? as f64 - came(pod) as f64))
        .collect()
}

/// Arrivals a second in the minute around `second`, or in what there is of it.
fn around(arrivals: &[u32], second: usize) -> f64 {
    let end = (second + AROUND + 1).min(arrivals.len());
    let minute = &arrivals[second.saturating_sub(AROUND)..end];
    f64::from(minute.iter().sum::<u32>()) / minute.len() as f64
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

    /// Load grows by one a second up to 45 a second; pods are ready as given.
    fn leads_of(ready: impl Fn(u32) -> u32) -> Vec<f64> {
        let arrivals: Vec<u32> = (0..200).map(|second: u32| second.min(45)).collect();
        let ready: Vec<u32> = (0..200).map(ready).collect();
        leads(&arrivals, &ready, 10.0)
    }

    #[test]
    fn each_pod_leads_by_the_time_between_its_readiness_and_its_load() {
        // The minute around a second holds more than 30 a second from second 33 on, and more than 40 from second 51 on.
        let leads = leads_of(|second| match second {
            0..=10 => 3,
            11..=53 => 4,
            _ => 5,
        });
        assert_eq!(leads, [22.0, -3.0]);
    }

    #[test]
    fn a_pod_that_never_comes_is_late_by_the_whole_rest() {
        assert_eq!(leads_of(|_| 4), [-149.0]);
    }

    #[test]
    fn pods_that_no_load_needed_have_no_lead() {
        assert_eq!(leads_of(|_| 5), [0.0; 0]);
        assert_eq!(leads(&[0; 3], &[0; 3], 10.0), [0.0; 0]);
        assert_eq!(leads(&[], &[], 10.0), [0.0; 0]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
